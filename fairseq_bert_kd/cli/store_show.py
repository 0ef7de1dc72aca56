"""``fairseq-bert-kd store show``: a sentence's soft labels as text."""

import argparse
import math
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.store_tools import printable
from fairseq_bert_kd.storage.fairseq_data import (
    IndexedTokens,
    data_prefixes,
    dictionary_digest,
    read_dictionary,
    sentence_hash,
)
from fairseq_bert_kd.storage.header import Header, damaged
from fairseq_bert_kd.storage.probabilities import token_probs
from fairseq_bert_kd.storage.store_info import STATUS_NAMES
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, TopKInfo
from fairseq_bert_kd.storage.topk_stat import checked_chunk
from fairseq_bert_kd.storage.topk_store import TopKReader

HELP = """Print a sentence of a top-k store: at each target position the teacher's best tokens and their
probabilities. A gold token among them is marked with *."""
EXAMPLE = (
    "example: fairseq-bert-kd store show data-bin/train.de-en.en.topk 12 --data data-bin --temperature 5"
)
_UNKNOWN = "?"
_WHY_MISSING = {
    "scored": "",
    "too_long": "longer than the teacher can read",
    "not_finite": "the teacher's logits were not finite",
    "not_imported": "it was not in what was imported",
}


class Sentence(NamedTuple):
    """A sentence of a store.

    Attributes:
        number: in the corpus.
        status: 0 or why it is missing.
        hashes: of source and target ids.
        records: ``(rows,)``.
    """

    number: int
    status: int
    hashes: tuple[int, int]
    records: NDArray[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("store", metavar="STORE", help="top-k store, or a shard of one")
    parser.add_argument("sentence", metavar="SENTENCE", type=int, help="corpus index, from 0")
    parser.add_argument(
        "--data", metavar="FOLDER", help="what fairseq-preprocess wrote; also print the pieces of both sides"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="divides the teacher's logits; one of the stored (default: 1, or the lowest stored)",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="tokens of a position (default: 5, or all where fewer are stored)",
    )


def main(args: argparse.Namespace) -> None:
    reader = TopKReader(args.store, shard=True)
    info = reader.info
    top = min(5, info.k) if args.top is None else args.top
    if not 1 <= top <= info.k:
        raise ValueError(f"--top must be from 1 to {info.k}, what the store holds, got {top}")
    temperature = _temperature(info, args.temperature)
    sentence = find_sentence(reader, args.sentence)
    symbols = reader.symbols()
    if dictionary_digest(symbols) != info.dictionary_digest:
        raise damaged(reader.path, "its dictionary does not match its digest")
    pieces = _pieces(reader, sentence, symbols, args.data) if args.data is not None else None
    for line in _lines(reader, sentence, symbols, pieces, temperature, top):
        print(line.rstrip())


def find_sentence(reader: TopKReader, number: int) -> Sentence:
    """A sentence by its corpus index, its chunk checked.

    Raises:
        ValueError: not in the corpus, or in another shard, or damaged.
    """
    corpus, shard = reader.header.corpus_sentences, reader.header.shard
    if not 0 <= number < corpus:
        raise ValueError(f"SENTENCE must be from 0 to {corpus - 1}, a corpus index, got {number}")
    chunk, offset = divmod(number, reader.info.chunk_sentences)
    local, index = divmod(chunk, shard.count)
    if index != shard.index:
        raise ValueError(
            f"sentence {number} is in shard {index + 1}/{shard.count}, {reader.path} is shard {shard}; name that file"
        )
    data = checked_chunk(reader, local)
    start = int(data.lengths[:offset].sum())
    return Sentence(
        number,
        int(data.status[offset]),
        (int(data.source_hashes[offset]), int(data.target_hashes[offset])),
        data.records[start : start + int(data.lengths[offset])],
    )


def _temperature(info: TopKInfo, asked: float | None) -> float:
    """The asked temperature when it can be shown, else a default; ValueError lists the stored ones."""
    stored = info.temperatures
    if asked is None:
        return 1.0 if not stored or 1.0 in stored else stored[0]
    if stored and asked not in stored:
        raise ValueError(
            f"--temperature must be one of the stored {', '.join(f'{t:g}' for t in stored)}, got {asked:g}; "
            "dump again with others"
        )
    if not 0 < asked < math.inf:
        raise ValueError(f"--temperature must be positive, got {asked:g}")
    return asked


def _pieces(
    reader: TopKReader, sentence: Sentence, symbols: Sequence[str], folder: str
) -> tuple[list[str], list[int]]:
    """Source pieces and target ids.

    Raises:
        FileNotFoundError: a file of the data is absent.
        ValueError: the sentence of the data is not the one that the teacher saw.
    """
    info = reader.info
    sides = []
    for name, prefix, stored in zip(
        ("source", "target"),
        data_prefixes(folder, info.split, info.source_lang, info.target_lang),
        sentence.hashes,
        strict=True,
    ):
        tokens = IndexedTokens(prefix)
        ids = tokens[sentence.number] if sentence.number < len(tokens) else None
        if ids is None or sentence_hash(ids) != stored:
            raise ValueError(
                f"the {name} of sentence {sentence.number} in {prefix} is not the one that the teacher saw; "
                "`fairseq-bert-kd store verify --data` tells what differs, or leave out --data"
            )
        sides.append(ids.tolist())
    source = read_dictionary(Path(folder) / f"dict.{info.source_lang}.txt")
    return [_symbol(source, i) for i in sides[0]], sides[1]


# ---------------------------------------------------------------- text


def _lines(
    reader: TopKReader,
    sentence: Sentence,
    symbols: Sequence[str],
    pieces: tuple[list[str], list[int]] | None,
    temperature: float,
    top: int,
) -> Iterator[str]:
    yield from _heading(reader.path, reader.header, sentence, temperature)
    gold: list[int] | None = None
    if pieces is not None:
        gold = pieces[1]
        yield f"source  {' '.join(pieces[0])}"
        yield f"target  {' '.join(_symbol(symbols, i) for i in gold)}"
    if sentence.status != 0:
        return
    if reader.info.gold:
        gold = sentence.records["gold_id"].tolist()
    yield ""
    rows = list(_table(sentence.records, reader.info, symbols, gold, temperature, top))
    yield from _aligned(rows)
    if gold is not None and any(row[2] == _UNKNOWN for row in rows):
        yield f"{_UNKNOWN}: the gold token is not among the stored ones"
    if not reader.info.temperatures:
        yield "probabilities are over the stored tokens only: the store does not hold the mass of the others"


def _heading(path: Path, header: Header, sentence: Sentence, temperature: float) -> Iterator[str]:
    info = header.info
    plan = " (left to right)" if info.mask_plan == PREFIX_PLAN else ""
    yield printable(
        f"sentence {sentence.number} of {path.name} ({info.split}, {info.source_lang} -> {info.target_lang}), "
        f"{len(sentence.records)} positions, teacher {info.teacher}{plan}, T={temperature:g}"
    )
    if sentence.status != 0:
        name = STATUS_NAMES[sentence.status] if sentence.status < len(STATUS_NAMES) else str(sentence.status)
        why = _WHY_MISSING.get(name, "of a reason unknown here")
        yield f"the teacher has not scored it: {why} ({name})"


def _table(
    records: NDArray[Any],
    info: TopKInfo,
    symbols: Sequence[str],
    gold: list[int] | None,
    temperature: float,
    top: int,
) -> Iterator[list[str]]:
    """Cells: position, gold token, and for each of the best tokens piece and per cent, then the rest's."""
    heads = [cell for n in range(1, top + 1) for cell in (f"{n}.", "")]
    yield ["", *(["gold", ""] if gold is not None else []), *heads, "rest"]
    with np.errstate(all="ignore"):
        probs = token_probs(records, info, temperature)
    gold_probs = _gold_probs(records, info, temperature)
    for position, (ids, row) in enumerate(zip(records["topk_ids"].tolist(), probs.tolist(), strict=True)):
        cells = [str(position)]
        if gold is not None:
            inside = dict(zip(ids, row, strict=True)).get(gold[position])
            known = inside if inside is not None or gold_probs is None else gold_probs[position]
            cells += [_symbol(symbols, gold[position]), _percent(known) if known is not None else _UNKNOWN]
        for token, prob in zip(ids[:top], row[:top], strict=True):
            mark = "*" if gold is not None and token == gold[position] else ""
            cells += [mark + _symbol(symbols, token), _percent(prob)]
        yield [*cells, _percent(max(0.0, 1 - sum(row[:top])))]


def _gold_probs(records: NDArray[Any], info: TopKInfo, temperature: float) -> list[float] | None:
    """``(rows,)`` probability of the gold token, where its logit and the normaliser are stored."""
    if not info.gold or not info.temperatures:
        return None
    normalisers = records["log_normalisers"][:, info.temperatures.index(temperature)].astype(np.float64)
    return np.exp(records["gold_logit"].astype(np.float64) / temperature - normalisers).tolist()


def _symbol(symbols: Sequence[str], token: int) -> str:
    """A piece, safe to print; its number where the dictionary does not have it."""
    return printable(symbols[token]) if 0 <= token < len(symbols) else f"[id {token}]"


def _percent(share: float) -> str:
    """``91.2 %``; what rounds to nothing as ``<0.1 %``."""
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.0005 else "<0.1 %"


def _aligned(cells: list[list[str]]) -> Iterator[str]:
    """Columns of equal width: pieces to the left, position and per cent to the right."""
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    right = [i % 2 == 0 or i == len(widths) - 1 for i in range(len(widths))]
    for row in cells:
        padded = []
        for cell, width, to_right in zip(row, widths, right, strict=True):
            space = " " * (width - _width(cell))
            padded.append(space + cell if to_right else cell + space)
        yield "  ".join(padded)


def _width(text: str) -> int:
    """Columns of a terminal: two for wide characters, none for combining ones."""
    return sum(
        0
        if unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(c) in "WF"
        else 1
        for c in text
    )
