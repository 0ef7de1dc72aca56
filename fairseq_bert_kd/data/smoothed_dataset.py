"""A dataset with a masked language model's rows beside its input text."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fairseq.data import BaseWrapperDataset

from fairseq_bert_kd.batch import SMOOTHING, TeacherRequirements
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.storage.alignment import check_contents, check_sentences
from fairseq_bert_kd.storage.smoothing_store import (
    NOTHING_TO_SMOOTH,
    SentenceSmoothingReader,
    SourceSmoothingReader,
)

logger = logging.getLogger(__name__)

Text = Callable[[Any], torch.Tensor]


def text_of_sentences(batch: Any) -> torch.Tensor:
    """The text of a batch of sentences."""
    return batch["net_input"]["texts"][0]


def text_of_sources(batch: Any) -> torch.Tensor:
    """The sources of a batch of pairs."""
    return batch["net_input"]["src_tokens"]


class SmoothedDataset(BaseWrapperDataset):
    """Wraps a dataset; its collater adds ``batch.SMOOTHING``, rows in the places of the text's tokens.

    Args:
        dataset: its batches hold a text.
        rows: rows for every sentence.
        text: gives a batch's text.
        pad: padding index of the text.
    """

    def __init__(self, dataset: Any, rows: StoreRows, text: Text, pad: int):
        super().__init__(dataset)
        assert len(rows) == len(dataset), (len(rows), len(dataset))
        self.rows, self.text, self.pad = rows, text, pad

    def collater(self, samples, **kwargs):
        batch = self.dataset.collater(samples, **kwargs)
        if batch:
            tokens = self.text(batch)
            rows = self.rows.teacher_batch(batch["id"].numpy(), tokens.size(1))
            batch[SMOOTHING] = moved(rows, (tokens == self.pad).long().cumprod(dim=1).sum(dim=1))
        return batch

    def batch_by_size(self, *args, **kwargs):
        return self.dataset.batch_by_size(*args, **kwargs)


def moved(rows: dict[str, Any], padding: torch.Tensor) -> dict[str, Any]:
    """Rows of right-padded texts in the places of left-padded ones.

    Args:
        rows: fields ``(batch, text_len, ...)``, and settings.
        padding: ``(batch,)`` tokens of padding on the left.
    """
    if not bool(padding.any()):
        return rows
    width = rows["present"].size(1)
    columns = torch.arange(width) - padding[:, None]  # (batch, text_len)
    sentences = torch.arange(len(padding))[:, None]
    shifted = {
        name: value[sentences, columns.clamp(min=0)] if isinstance(value, torch.Tensor) else value
        for name, value in rows.items()
    }
    shifted["present"] &= columns >= 0
    return shifted


def open_smoothing(
    path: Path,
    of_sentences: bool,
    stated: dict[str, str],
    sides: dict[str, Any],
    requirements: Callable[[int], TeacherRequirements],
    everything: bool,
) -> tuple[Any, TeacherRequirements]:
    """Open a store and check that it belongs to the data and has what training needs.

    Args:
        path: of the store.
        of_sentences: a store of sentences is needed, otherwise one of sources.
        stated: fields of its header as the data have them: ``split``, ``view``, ``dictionary_digest``, and
            ``tokenizer_digest`` where it is known ("" where not).
        sides: the data by side.
        requirements: gives the requirements on a store of so many tokens per position.
        everything: compare the ids of all sentences, not of a sample.

    Raises:
        FileNotFoundError: no such store.
        ValueError: it is of another kind, split, view, dictionary, tokenizer or text, or lacks what is needed.
    """
    reader: Any = (SentenceSmoothingReader if of_sentences else SourceSmoothingReader)(path)
    info, rebuild = reader.info, reader.info.rebuild_command(reader.path)
    for name, here in stated.items():
        stored = getattr(info, name)
        if here and stored and stored != here:
            shown = f"`{stored[:12]}`, not `{here[:12]}`"
            raise ValueError(
                f"store {path} was made for another {name.replace('_', ' ')}: {shown}; {rebuild}"
            )
    needed = requirements(info.k)
    if needed.topk > info.k:
        raise ValueError(
            f"store {path} holds {info.k} tokens per position, --smoothing-topk is {needed.topk}; set it to at most {info.k}, or "
            f"{rebuild} --topk {needed.topk}"
        )
    check_contents(reader, needed.topk, needed.temperatures, False)
    compared = check_sentences(reader, sides, everything)
    original = reader.header.summary["original_probability"]
    logger.info("%s: %d sentences, %d compared by hash, %s view", path, len(reader), compared, info.view)
    if original is not None:
        logger.info("mean probability of the original token in the store: %.4f", original)
        if original >= NOTHING_TO_SMOOTH:
            logger.warning(
                "it is so high that smoothing changes almost nothing; dump --view masked, or raise --smoothing-temperature"
            )
    return reader, needed
