"""fairseq model ``decomposable_attention``: a small classifier of pairs, the evaluator of generated paraphrases."""

import json
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor, nn

from fairseq_bert_kd.functional.decomposable import pair_vector, sinusoidal_positions
from fairseq_bert_kd.modules.encoder_start import take_common_parts
from fairseq_bert_kd.modules.pretrained_encoder import encoder_from_pretrained

POSITIONS = ("none", "sinusoidal")


@dataclass
class DecomposableAttentionConfig(FairseqDataclass):
    """Options of the words' vectors and of the networks."""

    encoder_model: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder or hub name of a transformers encoder with the tokenizer of the data, whose word embeddings are taken "
            "and kept as they are (default: new ones that are trained)"
        },
    )
    evaluator_embed_dim: int = field(
        default=300, metadata={"help": "width of new embeddings; 300 as in Parikh et al. 2016"}
    )
    evaluator_hidden: int = field(
        default=200, metadata={"help": "width of the projection and the networks; 200 as in Parikh et al."}
    )
    evaluator_dropout: float = field(
        default=0.2, metadata={"help": "dropout before each linear layer; 0.2 as in Parikh et al."}
    )
    evaluator_positions: ChoiceEnum(POSITIONS) = field(  # type: ignore[valid-type]
        default="none",
        metadata={
            "help": "what is added to the projected embeddings: none leaves the order of the words invisible, sinusoidal adds the "
            "Transformer's sines"
        },
    )
    encoder_spec: Optional[str] = field(
        default=None,
        metadata={"help": "not for users: width of the embeddings, written into the checkpoint"},
    )


@register_model("decomposable_attention", dataclass=DecomposableAttentionConfig)
class DecomposableAttention(BaseFairseqModel):
    """Attend, compare, aggregate (Parikh et al. 2016), over projected word vectors, with a network and outputs per head.

    The end of sentence counts as a word: it is what a word attends to that has no counterpart (their NULL).

    Args:
        embeddings: ``(dictionary, d)`` table; frozen tables stay frozen.
        pad: padding index of the dictionary.
        hidden: width of all networks.
        dropout: rate of dropout before each linear layer.
        positions: one of `POSITIONS`.

    Raises:
        ValueError: an odd width with sinusoidal positions.
    """

    def __init__(self, embeddings: nn.Embedding, pad: int, hidden: int, dropout: float, positions: str):
        super().__init__()
        if positions == "sinusoidal" and hidden % 2:
            raise ValueError(
                f"--evaluator-positions sinusoidal needs an even --evaluator-hidden, got {hidden}"
            )
        self.pad, self.hidden, self.dropout, self.positions = pad, hidden, dropout, positions
        self.embeddings = embeddings
        self.projection = nn.Linear(embeddings.embedding_dim, hidden, bias=False)
        self.attend = self._network(hidden)
        self.compare = self._network(2 * hidden)
        self.classification_heads = nn.ModuleDict()

    @classmethod
    def build_model(cls, cfg, task):
        """Build the model for a sentence task of pairs.

        Raises:
            ValueError: rows of one text, or embeddings of another tokenizer.
        """
        if task.spec.texts != 2:
            raise ValueError(
                "--arch decomposable_attention compares two texts, the data's rows have one; prepare pairs"
            )
        dictionary = task.source_dictionary
        if cfg.encoder_spec:
            width = json.loads(cfg.encoder_spec)["embed_dim"]
        elif not cfg.encoder_model:
            width = cfg.evaluator_embed_dim
        else:
            table = _pretrained(cfg.encoder_model, task.vocabulary.token_to_encoder)
            width = table.size(1)
        embeddings = nn.Embedding(len(dictionary), width, padding_idx=dictionary.pad())
        if cfg.encoder_model:
            embeddings.requires_grad_(False)
            if not cfg.encoder_spec:
                embeddings.weight.copy_(table)
        else:
            nn.init.normal_(embeddings.weight, std=width**-0.5)
        return cls(
            embeddings,
            dictionary.pad(),
            cfg.evaluator_hidden,
            cfg.evaluator_dropout,
            str(cfg.evaluator_positions),
        )

    def spec(self) -> str:
        """JSON from which the checkpoint's model is built without the embeddings' origin."""
        return json.dumps({"embed_dim": self.embeddings.embedding_dim})

    def register_classification_head(self, name, num_classes=None, inner_dim=None, **_unused):
        """Add network H and outputs for a task."""
        width = inner_dim or self.hidden
        output = nn.Linear(width, num_classes)
        self.classification_heads[name] = nn.Sequential(self._network(2 * self.hidden, width), output)

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Let ``--finetune-from-model`` take a checkpoint of other heads."""
        take_common_parts(self, state_dict, name, ("classification_heads",))
        super().upgrade_state_dict_named(state_dict, name)

    def forward(self, texts, lengths, features_only=False, classification_head_name=None, **_unused):
        """Logits ``(batch, classes)`` of a head, or ``(batch, 2 * hidden)`` vectors of the pairs without one.

        Args:
            texts: two ``(batch, length)`` int64 tensors, right-padded.
            lengths: two ``(batch,)`` tensors, end of sentence included; not used.
            features_only: not used; fairseq's criterion gives it.
            classification_head_name: name of the head.
        """
        valid = tuple(tokens.ne(self.pad) for tokens in texts)
        first, second = (self._words(tokens) for tokens in texts)
        vector = pair_vector(first, second, valid, self.attend, self.compare)
        if classification_head_name is None:
            return vector, {}
        return self.classification_heads[classification_head_name](vector), {}

    def _words(self, tokens: Tensor) -> Tensor:
        """``(batch, length, hidden)``."""
        words = self.projection(self.embeddings(tokens))
        if self.positions == "sinusoidal":
            words = words + sinusoidal_positions(tokens.size(1), self.hidden).to(words)
        return words

    def _network(self, inputs: int, width: int | None = None) -> nn.Sequential:
        """Two layers with ReLU."""
        width = width or self.hidden
        layers: list[nn.Module] = []
        for size in (inputs, width):
            layers += [nn.Dropout(self.dropout), nn.Linear(size, width), nn.ReLU()]
        return nn.Sequential(*layers)

    def max_positions(self):
        """No limit."""
        return None


@torch.no_grad()
def _pretrained(path: str, token_to_encoder: Any) -> Tensor:
    """``(dictionary, d)`` word embeddings of a transformers encoder."""
    with torch.random.fork_rng(devices=[]):
        encoder, *_ = encoder_from_pretrained(path)
    table = encoder.get_input_embeddings().weight
    return table[torch.from_numpy(token_to_encoder)].float()
