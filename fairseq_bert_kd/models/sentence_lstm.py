"""fairseq model ``sentence_lstm``: a bidirectional LSTM that gives a vector for a sentence, and classes of one or two."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fairseq_bert_kd import compat
from fairseq_bert_kd.functional.pooling import (
    final_states,
    max_over_tokens,
    mean_over_tokens,
    weighted_over_tokens,
)
from fairseq_bert_kd.functional.text_smoothing import SmoothedText, smooth_embeddings
from fairseq_bert_kd.modules.encoder_start import take_common_parts
from fairseq_bert_kd.modules.sentence_head import INNER_DIM, SentenceHead
from fairseq_bert_kd.modules.sentence_lstm_spec import (
    ATTENTION,
    LAST,
    MAX,
    MEAN,
    POOLINGS,
    LstmSpec,
    spec_of_state,
)
from fairseq_bert_kd.modules.word_embedding import RANDOM, initial_embedding

logger = logging.getLogger(__name__)

POOLERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    MAX: max_over_tokens,
    MEAN: mean_over_tokens,
    LAST: final_states,
}
# what --encoder-init brings, and the defaults: those of InferSent's form but for the width, our own choice
SIZES = {"embedding_dim": None, "hidden_size": 300, "lstm_layers": 1, "pooling": MAX, "vector_dim": None}


@dataclass
class SentenceLstmConfig(FairseqDataclass):
    """Options of the sizes, the embedding's origin and the classification heads."""

    embedding_dim: Optional[int] = field(
        default=None,
        metadata={"help": "width of the word embedding (default: that of --embedding-init, 300 if random)"},
    )
    hidden_size: Optional[int] = field(
        default=None, metadata={"help": "hidden states of each direction of the LSTM (default: 300)"}
    )
    lstm_layers: Optional[int] = field(default=None, metadata={"help": "layers of the LSTM (default: 1)"})
    pooling: Optional[ChoiceEnum(POOLINGS)] = field(  # type: ignore[valid-type]
        default=None,
        metadata={
            "help": "one vector of the hidden states: their greatest values, their mean, the last of each direction, or a "
            "learnt weighted mean (default: max)"
        },
    )
    vector_dim: Optional[int] = field(
        default=None,
        metadata={
            "help": "width of a sentence's vector (default: that of the teacher's vectors, else twice --hidden-size)"
        },
    )
    dropout: float = field(
        default=0.1, metadata={"help": "dropout after the embedding and between the layers"}
    )
    embedding_init: str = field(
        default=RANDOM,
        metadata={
            "help": "where the embedding starts: random; teacher, the input embedding of --encoder-model, reduced to "
            "--embedding-dim by principal components; or a text file of word vectors, as GloVe's"
        },
    )
    freeze_embedding: bool = field(
        default=False,
        metadata={"help": "keep the embedding as it starts: on a CPU its update takes most of a step"},
    )
    encoder_model: Optional[str] = field(
        default=None,
        metadata={"help": "folder or hub name of the transformers encoder of --embedding-init teacher"},
    )
    encoder_init: Optional[str] = field(
        default=None,
        metadata={
            "help": "checkpoint of a sentence_lstm from which everything but the classification head starts"
        },
    )
    classification_dropout: float = field(
        default=0.1, metadata={"help": "dropout before each layer of the classification head"}
    )
    encoder_spec: Optional[str] = field(
        default=None,
        metadata={
            "help": "not for users: JSON with the sizes, special ids and digests, written into the checkpoint so that it loads "
            "where the tokenizer is not"
        },
    )


@register_model("sentence_lstm", dataclass=SentenceLstmConfig)
class SentenceLstm(BaseFairseqModel):
    """Embedding, bidirectional LSTM, pooling and a linear layer to a sentence's vector; heads classify one or two vectors.

    The two sentences of a pair do not see each other, so a vector can be kept. It embeds the ids of a transformers
    tokenizer, and the map from the dictionary to them is a buffer; it trains under fairseq's own criterion
    ``sentence_prediction``, and is a `teachers.interface.SentenceEncoder`. Wu et al. (AACL 2020) do not give their model's
    form: it is our own choice, after InferSent (Conneau et al. 2017). (fairseq's `LSTMEncoder` pads its output with 1.0,
    which a maximum over time would see, and pads its input on the left.)

    Args:
        embedding: ``(encoder ids, embedding_dim)`` start of the embedding.
        token_to_encoder: ``(dictionary,)`` encoder id of each symbol.
        spec: description of the embedding.
        cfg: options, those of `SIZES` all given.
        texts: sentences of a row, for heads.
    """

    token_to_encoder: Tensor

    def __init__(self, embedding: Tensor, token_to_encoder: Tensor, spec: LstmSpec, cfg: Any, texts: int = 1):
        super().__init__()
        self.cfg, self.texts, self._spec = cfg, texts, spec
        self.vector_dim: int = cfg.vector_dim
        self.text_format = spec.text_format
        self.register_buffer("token_to_encoder", token_to_encoder)
        self.embedding = nn.Embedding.from_pretrained(
            embedding, freeze=cfg.freeze_embedding, padding_idx=spec.text_format.pad
        )
        self.dropout = nn.Dropout(cfg.dropout)
        self.lstm = nn.LSTM(
            embedding.size(1),
            cfg.hidden_size,
            cfg.lstm_layers,
            batch_first=True,
            bidirectional=True,
            dropout=cfg.dropout if cfg.lstm_layers > 1 else 0.0,
        )
        states = 2 * cfg.hidden_size
        self.attention = (
            nn.Sequential(nn.Linear(states, states), nn.Tanh(), nn.Linear(states, 1, bias=False))
            if cfg.pooling == ATTENTION
            else None
        )
        self.output = nn.Linear(states, cfg.vector_dim)
        self.classification_heads = nn.ModuleDict()

    @classmethod
    def build_model(cls, cfg, task):
        """Build from the checkpoint's own description, from another checkpoint, or anew."""
        texts = task.spec.texts
        if cfg.encoder_spec:
            spec = LstmSpec.from_json(cfg.encoder_spec)
            for name, size in spec.sizes.items():
                setattr(cfg, name, size)
            # both are filled when the weights are loaded
            tokens = torch.zeros(len(task.source_dictionary), dtype=torch.int64)
            return cls(torch.zeros(spec.embedded, cfg.embedding_dim), tokens, spec, cfg, texts)
        vocabulary = getattr(task, "vocabulary", None)
        if vocabulary is None:
            raise ValueError(
                "--arch sentence_lstm is trained with --task sentence_vectors or sentence_prediction_with_teacher"
            )
        state = _checkpoint_to_start_from(cfg, vocabulary)
        if state is None and str(cfg.embedding_init) == RANDOM and cfg.encoder_model:
            logger.warning(
                "--encoder-model gives the tokenizer alone: the embedding starts from random numbers; --embedding-init teacher "
                "takes that model's"
            )
        if state is None:
            symbols = task.source_dictionary.symbols
            embedding = initial_embedding(
                cfg.embedding_init, cfg.embedding_dim, cfg.encoder_model, vocabulary, symbols
            )
        else:
            embedding = state["embedding.weight"]
        _complete(cfg, embedding.size(1), getattr(task, "vector_width", None))
        sizes = {name: getattr(cfg, name) for name in SIZES} | {"pooling": str(cfg.pooling)}
        spec = LstmSpec(len(embedding), sizes, vocabulary.text_format, vocabulary.digests)
        tokens = torch.from_numpy(vocabulary.token_to_encoder)
        model = cls(embedding, tokens, spec, cfg, texts)
        if state is not None:
            model.load_state_dict(state | {"token_to_encoder": tokens}, strict=True)
        return model

    def spec(self) -> str:
        """JSON for ``encoder_spec``: what `build_model` needs beside the weights."""
        return self._spec.to_json()

    def register_classification_head(self, name, num_classes=None, inner_dim=None, **_unused):
        """Add a head with random weights; one of this name is replaced.

        Args:
            name: name of the head.
            num_classes: numbers that it gives, 1 for regression.
            inner_dim: width between its two layers (default: 512).
        """
        self.classification_heads[name] = SentenceHead(
            self.cfg.vector_dim,
            self.texts,
            num_classes,
            inner_dim or INNER_DIM,
            self.cfg.classification_dropout,
        )

    # ------------------------------------------------------------ forward

    def forward(
        self,
        texts: Sequence[Tensor],
        lengths: Sequence[Tensor],
        features_only: bool = False,
        classification_head_name: Optional[str] = None,
        smoothed: Optional[Sequence[SmoothedText]] = None,
        **_unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits of a head, or the vectors of the first texts if none is named.

        Args:
            texts: one or two ``(batch, text_len)`` int64 ids of the dictionary, right-padded, each with end of sentence.
            lengths: ``(batch,)`` tokens of each text, end of sentence included.
            features_only: argument of fairseq's criterion; no effect.
            classification_head_name: name of a registered head.
            smoothed: for each text a `SmoothedText`, whose mixtures of word embeddings stand in the place of its tokens.

        Returns:
            ``(batch, classes)`` logits or ``(batch, vector_dim)`` vectors; and a dict with the vectors of all texts under
            ``vectors``.
        """
        vectors = tuple(map(self._vectors, texts, lengths, smoothed or repeat(None)))
        extra = {"vectors": vectors}
        if classification_head_name is None:
            return vectors[0], extra
        return self.classification_heads[classification_head_name](vectors), extra

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Let ``--finetune-from-model`` take a checkpoint of other heads."""
        take_common_parts(self, state_dict, name, ("classification_heads",))
        super().upgrade_state_dict_named(state_dict, name)

    def sentence_vectors(self, tokens: Tensor, lengths: Tensor, vector: Optional[str] = None) -> Tensor:
        """One vector per sentence, as a `teachers.interface.SentenceEncoder` gives them.

        Args:
            tokens: ``(batch, text_len)`` int64 ids of the dictionary, right-padded, each row with end of sentence.
            lengths: ``(batch,)`` tokens of each row, end of sentence included.
            vector: None, since there is one kind of vector only.

        Returns:
            ``(batch, vector_dim)``.

        Raises:
            ValueError: a vector is named, or a row is empty.
        """
        if vector is not None:
            raise ValueError(
                f"a sentence_lstm has one vector only, made by --pooling; `{vector}` cannot be chosen"
            )
        return self._vectors(tokens, lengths)

    def _vectors(self, tokens: Tensor, lengths: Tensor, smoothed: Optional[SmoothedText] = None) -> Tensor:
        """``(batch, vector_dim)`` vectors of texts, plain or smoothed."""
        on_cpu = lengths.cpu()
        if not bool((on_cpu > 0).all()):
            raise ValueError(
                f"row {int((on_cpu <= 0).nonzero()[0])} is empty; a sentence has at least its end"
            )
        ids = self.token_to_encoder[tokens]
        if smoothed is None:
            embedded = self.embedding(ids)
        else:
            weight, to_rows = self.embedding.weight, self.token_to_encoder
            embedded = smooth_embeddings(weight, ids, smoothed, tokens, to_rows=to_rows)
        hidden = self._hidden(embedded, on_cpu)
        present = torch.arange(tokens.size(1), device=tokens.device) < lengths[:, None]
        return self.output(self._pooled(hidden, present))

    def _hidden(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """``(batch, text_len, 2 * hidden_size)`` states of word embeddings; zeros on padding. ``lengths`` lie on the CPU."""
        embedded, longest = self.dropout(embedded), embedded.size(1)
        device, autocast = embedded.device.type, torch.is_autocast_enabled(embedded.device.type)
        if autocast and device == "cpu" and compat.cpu_has_bfloat16() is False:
            autocast = False  # oneDNN then has no LSTM in bfloat16
            embedded = embedded.float()
        with torch.autocast(device, enabled=autocast, cache_enabled=torch.is_autocast_cache_enabled()):
            if int(lengths.min()) == longest:  # nothing is padded, and packing costs time
                return self.lstm(embedded)[0]
            packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=longest)[0]

    def _pooled(self, hidden: Tensor, present: Tensor) -> Tensor:
        if self.attention is not None:
            return weighted_over_tokens(hidden, self.attention(hidden)[:, :, 0], present)
        return POOLERS[str(self.cfg.pooling)](hidden, present)

    def get_targets(self, sample, net_output):
        return sample["target"]

    def max_positions(self):
        """None: there is no limit."""
        return None

    def tokenizer_digest(self) -> str:
        """Digest of the tokenizer whose ids are embedded."""
        return self._spec.digests["tokenizer"]


@register_model_architecture("sentence_lstm", "sentence_lstm_small")
def sentence_lstm_small(args):
    """The small one (our own choice): embeddings of 200, 128 states each way."""
    for name, value in (("embedding_dim", 200), ("hidden_size", 128)):
        if getattr(args, name, None) is None:
            setattr(args, name, value)


def _complete(cfg: Any, embedding_dim: int, vector_width: Optional[int]) -> None:
    """Put every size into the options."""
    for name, default in SIZES.items():
        if getattr(cfg, name) is None:
            setattr(cfg, name, default)
    cfg.embedding_dim = embedding_dim
    cfg.vector_dim = cfg.vector_dim or vector_width or 2 * cfg.hidden_size
    for name in ("embedding_dim", "hidden_size", "lstm_layers", "vector_dim"):
        if getattr(cfg, name) < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must be at least 1, got {getattr(cfg, name)}")


def _checkpoint_to_start_from(cfg: Any, vocabulary: Any) -> Optional[dict[str, Tensor]]:
    """Weights of ``--encoder-init`` without heads, its sizes written into ``cfg``; None if it is not given.

    Raises:
        ValueError: the checkpoint is of another architecture, sizes or tokenizer, or another start is named too.
    """
    path = cfg.encoder_init
    if not path:
        return None
    if cfg.embedding_init != RANDOM:
        raise ValueError(
            "--encoder-init brings an embedding; leave --embedding-init out, or start without --encoder-init"
        )
    state = compat.load_checkpoint(path)
    spec = spec_of_state(state, f"--encoder-init `{path}`")
    for name, own in spec.sizes.items():
        given = getattr(cfg, name)
        if given is not None and str(given) != str(own):
            option = name.replace("_", "-")
            raise ValueError(
                f"--{option} is {given}, but --encoder-init `{path}` has {own}; leave the option out (--arch sentence_lstm_small "
                "gives it too: choose sentence_lstm)"
            )
        setattr(cfg, name, own)
    theirs, ours = spec.digests["tokenizer"], vocabulary.digests["tokenizer"]
    if theirs != ours:
        raise ValueError(
            f"--encoder-init `{path}` was trained with another tokenizer (sha256 {theirs[:12]} against {ours[:12]}); prepare "
            "the data with that one"
        )
    return {
        name: weight
        for name, weight in state["model"].items()
        if not name.startswith("classification_heads.")
    }
