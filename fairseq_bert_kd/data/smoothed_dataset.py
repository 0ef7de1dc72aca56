"""A dataset with a masked language model's rows beside its input text."""

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.data import BaseWrapperDataset

from fairseq_bert_kd.batch import SMOOTHING, TeacherRequirements
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.storage.alignment import check_contents, check_dictionaries, check_sentences
from fairseq_bert_kd.storage.smoothing_store import SentenceSmoothingReader, SourceSmoothingReader

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
    symbols: Sequence[str],
    sides: dict[str, Any],
    requirements: Callable[[int], TeacherRequirements],
    everything: bool,
) -> tuple[Any, TeacherRequirements]:
    """Open a store and check that it belongs to the data and has what training needs.

    Args:
        path: of the store.
        of_sentences: a store of sentences is needed, otherwise one of sources.
        stated: ``split``, ``view`` and ``tokenizer`` that it must have been made for, the last as a digest; "" where not known.
        symbols: dictionary of the text, in id order.
        sides: the data by side, the text alone.
        requirements: gives the requirements on a store of so many tokens per position.
        everything: compare the ids of all sentences, not of a sample.

    Raises:
        FileNotFoundError: no such store.
        ValueError: it is of another kind, split, view, dictionary, tokenizer or text, or lacks what is needed.
    """
    kind: Any = SentenceSmoothingReader if of_sentences else SourceSmoothingReader
    if not path.is_file():
        raise FileNotFoundError(
            f"store {path} does not exist; write it with `fairseq-bert-kd dump --side {kind.schema.kind} --view {stated['view']} "
            f"--subset {stated['split']}`, or name the folder that holds it with --smoothing-store-dir"
        )
    reader: Any = kind(path)
    info, rebuild = reader.info, functools.partial(reader.info.rebuild_command, reader.path)
    for name, stored in {"split": info.split, "view": info.view, "tokenizer": info.tokenizer_digest}.items():
        if stored and stated[name] not in ("", stored):
            shown = "digest " if name == "tokenizer" else ""
            raise ValueError(
                f"store {path} was made for another {name}: {shown}`{stored[:12]}`, not `{stated[name][:12]}`; {rebuild()}"
            )
    check_dictionaries(reader, dict.fromkeys(sides, symbols))
    needed = requirements(info.k)
    if needed.topk > info.k:
        raise ValueError(
            f"store {path} holds {info.k} tokens per position, --smoothing-topk is {needed.topk}; set it to at most {info.k}, or "
            f"{rebuild(f'--topk {needed.topk}')}"
        )
    check_contents(reader, needed.topk, needed.temperatures, False)
    compared = check_sentences(reader, sides, everything)
    original = reader.header.summary["original_probability"]
    logger.info("%s: %d sentences, %d compared by hash, %s view", path, len(reader), compared, info.view)
    if original is not None:
        judged = info.judged_temperature
        logger.info(
            "mean probability of the original token in the store, at temperature %g: %.4f", judged, original
        )
        advice = info.too_sure(original)
        if advice and all(temperature <= judged for _, temperature in needed.temperatures):
            logger.warning("%s: %s", path, advice)
    return reader, needed
