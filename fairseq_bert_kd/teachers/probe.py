"""Tries a teacher on a few tokens when it is built and when it is loaded: does it see what it should, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fairseq_bert_kd.functional.context_probe import (
    IGNORES_RIGHT,
    READS_BATCH,
    READS_PADDING,
    SEES_RIGHT,
    Outputs,
    ProbeTexts,
    context_fault,
)
from fairseq_bert_kd.functional.text_input import LEFT_TO_RIGHT, TextLayout
from fairseq_bert_kd.teachers.interface import LayerTeacher, TokenTeacher
from fairseq_bert_kd.tokenization.dictionary import SentenceVocabulary

if TYPE_CHECKING:  # a command reports a broken fairseq by itself, so importing this file must not need it
    from fairseq.data import Dictionary

PADDING = 1  # of every dictionary of fairseq's
Item = tuple[list[int], ...]  # student ids of each side, the predicted one last
# tokens of source and target; nine together fit any teacher that learns a pair
SHORT, LONGER = (2, 4), (3, 6)
SHORT_TEXT, LONGER_TEXT = 3, 5  # tokens of single texts, which encoders of a few positions read too
_OTHER_MODEL = "What it teaches would change with the batch size; use a BERT, DistilBERT, RoBERTa, XLM-R, CamemBERT or ELECTRA model."
_NEXT_STEPS = {
    READS_BATCH: _OTHER_MODEL,
    READS_PADDING: _OTHER_MODEL,
    IGNORES_RIGHT: "It is a language model, or its config says `is_decoder: true`; train a masked language model, or a teacher "
    "with --teacher-attention left-to-right.",
    SEES_RIGHT: "It would teach what a left-to-right teacher must not know; train it without --teacher-attention "
    "left-to-right.",
}


def check_token_teacher(model: Any, name: str) -> None:
    """Check that a teacher's rows for an item depend on that item alone, and on the tokens that its attention names.

    An item is a pair, or a single sentence of a model of sentences.

    Args:
        model: a `TokenTeacher` with its own weights, on any device.
        name: its name in the message, such as "checkpoint `x.pt`".

    Raises:
        ValueError: see `check_teacher`.
    """
    layout = model.text_layout()
    bidirectional = layout.attention != LEFT_TO_RIGHT
    check_teacher(model, _rows_of(model, layout), _probe_items(layout), name, sees_right=bidirectional)


def check_layer_teacher(model: LayerTeacher, vocabulary: SentenceVocabulary, name: str) -> None:
    """Check that an encoder's states of a text depend on that text alone.

    Args:
        model: a `LayerTeacher` with its own weights, on the CPU.
        vocabulary: the dictionary in its ids.
        name: its name in the message.

    Raises:
        ValueError: see `check_teacher`.
    """

    def states(texts: Sequence[list[int]]) -> list[Tensor]:
        tokens, lengths = _padded(texts, torch.device("cpu"))
        inputs = model.lay_out((tokens,), (lengths,))
        [positions] = inputs.positions  # (texts, longest)
        hidden = model.encode_inputs(inputs)[0]  # (texts, input_len, d)
        return [row[places[:length]] for row, places, length in zip(hidden, positions, lengths, strict=True)]

    ids = _distinct_ids(vocabulary.token_to_encoder, vocabulary.text_format.pad)
    check_teacher(model, states, probe_texts(ids), name)


def check_sentence_encoder(model: Any, dictionary: Dictionary, vector: str | None, name: str) -> None:
    """Check that an encoder's vector of a sentence depends on that sentence alone.

    Args:
        model: a `SentenceEncoder` with its own weights, on the CPU.
        dictionary: dictionary of its sentences.
        vector: which of its vectors, see `SentenceEncoder`.
        name: its name in the message.

    Raises:
        ValueError: see `check_teacher`.
    """

    def vectors(texts: Sequence[list[int]]) -> list[Tensor]:
        tokens, lengths = _padded([[*text, dictionary.eos()] for text in texts], torch.device("cpu"))
        return list(model.sentence_vectors(tokens, lengths, vector)[:, None])

    pieces = range(len(dictionary) - 1, dictionary.nspecial - 1, -1)[:16]
    check_teacher(model, vectors, probe_texts(pieces or [dictionary.unk()]), name)


def probe_texts(ids: Sequence[int]) -> ProbeTexts:
    """Single texts of some different ids, for `check_teacher` without ``sees_right``."""
    return ProbeTexts(
        _text(ids, SHORT_TEXT, 0), neighbour=_text(ids, SHORT_TEXT, 1), longer=_text(ids, LONGER_TEXT, 2)
    )


def check_teacher(
    model: Any, outputs: Outputs, texts: ProbeTexts, name: str, sees_right: bool | None = None
) -> None:
    """Check what a model's outputs depend on, see `context_fault`; for a teacher of any kind.

    Four forward passes of at most two texts. Torch's random numbers and the modes of the modules stay as they are.

    Args:
        model: torch module with its own weights.
        outputs: runs it on texts of whatever kind it takes; a sentence's one vector is ``(1, width)``.
        texts: texts to try.
        name: its name in the message.
        sees_right: what the first output depends on, see `context_fault`.

    Raises:
        ValueError: an output depends on the other texts of the batch or on padding, or not as it should on what follows.
    """
    with evaluated(model):
        fault = context_fault(outputs, texts, sees_right)
    if fault is not None:
        raise ValueError(f"{name} cannot be a teacher: it {fault}. {_NEXT_STEPS[fault]}")


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each module's mode and torch's random numbers are as before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _probe_items(layout: TextLayout) -> ProbeTexts:
    """Items of tokens that the teacher tells apart."""
    known = [_distinct_ids(ids.cpu().numpy(), layout.text_format.pad) for ids in layout.to_teacher]

    def item(lengths: tuple[int, ...], start: int) -> Item:
        return tuple(
            _text(ids, length, start) for ids, length in zip(known, lengths[-len(known) :], strict=True)
        )

    short, neighbour = item(SHORT, 0), item(SHORT, 1)
    *others, target = short
    changed = *others, [target[0], *neighbour[-1][1:]]
    return ProbeTexts(short, neighbour, longer=item(LONGER, 2), changed=changed)


def _distinct_ids(to_teacher: NDArray[np.int64], pad: int) -> list[int]:
    """Student ids that are different teacher ids, rare pieces first; padding is none of them."""
    teacher_ids, student_ids = np.unique(to_teacher, return_index=True)
    return student_ids[teacher_ids != pad][::-1].tolist()


def _text(ids: Sequence[int], length: int, start: int) -> list[int]:
    return [ids[(start + place) % len(ids)] for place in range(length)]


def _rows_of(model: TokenTeacher, layout: TextLayout) -> Outputs:
    """Runs a teacher on items; its hidden states where it predicts the target's tokens, of which the first is hidden."""
    device = layout.to_teacher[-1].device

    def rows(items: Sequence[Item]) -> list[Tensor]:
        texts, lengths = zip(*(_padded(side, device) for side in zip(*items, strict=True)), strict=True)
        hidden = torch.zeros_like(texts[-1], dtype=torch.bool)
        hidden[:, 0] = True
        laid_out, predicted_at = layout.lay_out(texts, lengths, hidden)
        inputs = {"input_ids": laid_out.input_ids, "token_type_ids": laid_out.token_type_ids}
        if not bool(laid_out.attention_mask.all()):  # as in a dump
            inputs["attention_mask"] = laid_out.attention_mask
        starts = torch.arange(len(items), device=device)[:, None] * laid_out.input_ids.size(1)
        inside = torch.arange(hidden.size(1), device=device) < lengths[-1][:, None]  # (items, tgt_len)
        features = model.extract_features((starts + predicted_at)[inside], **inputs)
        return list(features.split(lengths[-1].tolist()))

    return rows


def _padded(side: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """``(items, longest)`` ids, padded on the right, and ``(items,)`` lengths."""
    ids = pad_sequence([torch.tensor(tokens) for tokens in side], batch_first=True, padding_value=PADDING)
    return ids.to(device), torch.tensor([len(tokens) for tokens in side], device=device)
