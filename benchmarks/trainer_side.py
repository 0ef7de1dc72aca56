"""C-MLM training as transformers' Trainer does it, on the batches and from the weights of our side.

The collator lays out the pairs; the Trainer's loss is that of ``BertForMaskedLM`` with labels at masked positions.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from benchmarks.dump_throughput import CLS, MASK, SEP
from benchmarks.fairseq_side import (
    BETAS,
    CLIP_NORM,
    EPSILON,
    LEARNING_RATE,
    MASK_PROB,
    PAIR_FORMAT,
    SEED,
    WEIGHT_DECAY,
    Clock,
    OurSide,
    teacher_ids,
)
from fairseq_bert_kd.functional.masking import replayable_mask

IGNORED = -100  # label of a position that is not scored


class TrainerSide:
    """transformers' Trainer on ``BertForMaskedLM`` with the weights and the batches of our side.

    Args:
        ours: before its first update.
        folder: for what the Trainer may write.
        masked_head: run the head at masked positions only; else as ``BertForMaskedLM`` does, at all.
    """

    def __init__(self, ours: OurSide, folder: Path, masked_head: bool):
        self.setup, self.folder = ours.setup, folder
        masked_lm = transformers.BertForMaskedLM(self.setup.config())
        _copy_weights(ours.model, masked_lm)
        self.model: nn.Module = MaskedHead(masked_lm) if masked_head else masked_lm
        self.model.to(self.setup.device)
        self.optimizer = torch.optim.AdamW(  # fused, the Trainer's default
            self.model.parameters(), LEARNING_RATE, BETAS, EPSILON, WEIGHT_DECAY, fused=True
        )
        pairs = ours.trainer.task.datasets["train"]
        self.dataset = LabelledPairs(pairs.source, pairs.target, teacher_ids(self.setup.vocabulary).numpy())
        self.indices = ours.indices
        batches = [self._collated(indices) for indices in self.indices]
        self.masked = [int((batch["labels"] != IGNORED).sum()) for batch in batches]

    def train_epoch(self, clock: Clock) -> None:
        """One update for each batch."""
        cuda = self.setup.device.type == "cuda"
        arguments = transformers.TrainingArguments(
            output_dir=str(self.folder), num_train_epochs=1, max_grad_norm=CLIP_NORM, fp16=self.setup.amp,
            dataloader_num_workers=self.setup.workers, use_cpu=not cuda, disable_tqdm=True, report_to=[],
            logging_strategy="no", save_strategy="no", eval_strategy="no", seed=SEED,
        )  # fmt: skip
        arguments._n_gpu = min(arguments.n_gpu, 1)  # it would split batches over all GPUs
        constant = torch.optim.lr_scheduler.ConstantLR(self.optimizer, factor=1.0)
        trainer = FixedBatchTrainer(
            self.model, arguments, train_dataset=self.dataset, data_collator=collate,
            optimizers=(self.optimizer, constant), callbacks=[_Tick(clock)],
        )  # fmt: skip
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.fixed_batches = self.indices
        trainer.train()

    @torch.no_grad()
    def first_loss(self) -> float:
        """Of the first batch without dropout, nats for each masked position."""
        batch = {
            name: tensor.to(self.setup.device) for name, tensor in self._collated(self.indices[0]).items()
        }
        return float(self.model.eval()(**batch)["loss"])

    def watch(self, seen: Callable[[float, int], None]) -> None:
        """Call ``seen`` with mean loss and masked positions of every batch."""

        def hook(_module: Any, _inputs: Any, named: dict[str, Any], out: Any) -> None:
            seen(out["loss"].item(), int((named["labels"] != IGNORED).sum()))

        self.model.register_forward_hook(hook, with_kwargs=True)

    def _collated(self, indices: list[int]) -> dict[str, Tensor]:
        return collate([self.dataset[index] for index in indices])


class FixedBatchTrainer(transformers.Trainer):
    """A Trainer whose batches are given."""

    fixed_batches: list[list[int]]

    def get_train_dataloader(self) -> Any:
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.fixed_batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=torch.cuda.is_available(),
        )
        return self.accelerator.prepare(loader)


class _Tick(transformers.TrainerCallback):
    def __init__(self, clock: Clock):
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clock.step_done()


class LabelledPairs(torch.utils.data.Dataset):
    """``[CLS] source [SEP] target [SEP]`` with masked target tokens and their labels, one pair an item."""

    def __init__(self, source: Any, target: Any, ids: np.ndarray):
        self.source, self.target, self.ids = source, target, ids

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        source, target = self.source[index][:-1].numpy(), self.target[index].numpy()
        masked = replayable_mask(len(target), MASK_PROB, SEED, 1, index)
        before = [CLS, *self.ids[source], SEP]
        shown = np.where(masked, MASK, self.ids[target])
        return {
            "input_ids": torch.from_numpy(np.concatenate([before, shown])),
            "token_type_ids": torch.tensor([0] * len(before) + [1] * len(target)),
            "labels": torch.from_numpy(
                np.concatenate([[IGNORED] * len(before), np.where(masked, target, IGNORED)])
            ),
        }


def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Each ``(batch, longest)``, padded on the right."""
    batch = {
        name: pad_sequence([item[name] for item in items], batch_first=True, padding_value=value)
        for name, value in (("input_ids", PAIR_FORMAT.pad), ("token_type_ids", 0), ("labels", IGNORED))
    }
    lengths = torch.tensor([len(item["input_ids"]) for item in items])
    batch["attention_mask"] = (torch.arange(batch["labels"].size(1)) < lengths[:, None]).long()
    return batch


class MaskedHead(nn.Module):
    """``BertForMaskedLM`` with its head at labelled positions only."""

    def __init__(self, masked_lm: transformers.BertForMaskedLM):
        super().__init__()
        self.masked_lm = masked_lm

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        hidden = self.masked_lm.bert(input_ids, attention_mask, token_type_ids)[0]
        kept = labels != IGNORED
        return {"loss": functional.cross_entropy(self.masked_lm.cls(hidden[kept]), labels[kept])}


def _copy_weights(ours: Any, theirs: transformers.BertForMaskedLM) -> None:
    """From our model into ``BertForMaskedLM``."""
    head = theirs.cls.predictions
    for there, here in (
        (theirs.bert, ours.encoder),
        (head.transform.dense, ours.head.dense),
        (head.transform.LayerNorm, ours.head.layer_norm),
        (head.decoder, ours.head.projection),
    ):
        there.load_state_dict(here.state_dict())
