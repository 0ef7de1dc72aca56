"""fairseq optimizer ``adam_by_part``: fairseq's Adam with a learning rate of its own for some parts of a model."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fairseq.optim import register_optimizer
from torch import nn

from fairseq_bert_kd.optim.fused_adam import FusedAdam, FusedAdamConfig


@dataclass
class AdamByPartConfig(FusedAdamConfig):
    """Options of fairseq's Adam, and the learning rates' factors."""

    lr_scales: str = field(
        default="",
        metadata={
            "help": "factors of --lr for parts of the model, PART=FACTOR separated by commas, such as "
            "entities=10,classification_heads=10; a part is the first name in the names of its weights, and all others "
            "have the factor 1"
        },
    )


@register_optimizer("adam_by_part", dataclass=AdamByPartConfig)
class AdamByPart(FusedAdam):
    """fairseq's Adam whose learning rate is multiplied by a factor for the parts that ``--lr-scales`` names.

    New layers on a pre-trained encoder need a higher one than the encoder (Howard and Ruder, ACL 2018, "discriminative
    fine-tuning"). Schedules, clipping and weight decay are fairseq's; its logs show the rate without factors.

    Args:
        cfg: options.
        params: parameters that `name_parts` has named, or copies that fairseq made of them.

    Raises:
        ValueError: factors that are no positive numbers, or of parts that the model has not.
    """

    def __init__(self, cfg, params):
        parts = group_by_part(params, read_scales(cfg.lr_scales))
        super().__init__(cfg, parts)
        self._scales = [group["lr_scale"] for group in self.param_groups]
        self.set_lr(self.param_groups[0]["lr"])

    @property
    def supports_flat_params(self):
        return False

    def get_lr(self):
        return self._lr

    def set_lr(self, lr):
        self._lr = lr
        for group, scale in zip(self.param_groups, self._scales, strict=True):
            group["lr"] = lr * scale

    def load_state_dict(self, state_dict, optimizer_overrides=None):
        """fairseq's; the factors stay those of the options, as its learning rate does.

        Raises:
            ValueError: a checkpoint whose factors were of other parts; its means would come to other weights.
        """
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=False):
            if saved.get("parts", group["parts"]) != group["parts"]:  # older checkpoints do not say
                raise ValueError(
                    f"the checkpoint was trained with one learning rate for {', '.join(saved['parts'])}, --lr-scales now has one for "
                    f"{', '.join(group['parts'])}; give factors of the same parts, or --reset-optimizer"
                )
        super().load_state_dict(state_dict, optimizer_overrides)
        self.set_lr(self._lr)


def name_parts(model: nn.Module) -> None:
    """Write on each parameter which part of the model it belongs to; fairseq copies that to its float32 copies."""
    for name, parameter in model.named_parameters():
        parameter.param_group = name.partition(".")[0]  # type: ignore[attr-defined]


def read_scales(text: str) -> dict[str, float]:
    """Factors by part.

    Raises:
        ValueError: text of another form, or a factor that is not positive.
    """
    scales = {}
    for item in filter(None, text.split(",")):
        part, _, factor = item.partition("=")
        try:
            scales[part] = float(factor)
        except ValueError:
            scales[part] = 0.0
        if not 0 < scales[part] < float("inf"):
            raise ValueError(
                f"--lr-scales must be PART=FACTOR with positive factors, separated by commas, got `{item}`"
            )
    return scales


def group_by_part(params: Iterable[nn.Parameter], scales: dict[str, float]) -> list[dict[str, object]]:
    """Parameter groups of torch's optimizers, one for each factor: the ones without a factor first.

    Raises:
        ValueError: a part that no parameter has.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    parts = set()
    for parameter in params:
        part = getattr(parameter, "param_group", "")
        parts.add(part)
        groups.setdefault(scales.get(part, 1.0), []).append(parameter)
    if unknown := sorted(scales.keys() - parts):
        known = ", ".join(sorted(parts - {""}))
        raise ValueError(
            f"--lr-scales names `{unknown[0]}`, "
            + (
                f"the parts of this model are {known}"
                if known
                else "but the weights have lost their names; with --fp16 give --fp16-no-flatten-grads, and train an encoder of "
                "sentences or a teacher"
            )
        )
    ordered = sorted(groups.items(), key=lambda item: item[0] != 1.0)
    return [
        {
            "params": members,
            "lr_scale": scale,
            "parts": sorted({getattr(member, "param_group", "") for member in members}),
        }
        for scale, members in ordered
    ]
