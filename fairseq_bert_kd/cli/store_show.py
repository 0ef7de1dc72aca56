"""``fairseq-bert-kd store show``: a sentence's soft labels as text."""

import argparse
import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.store_tools import printable
from fairseq_bert_kd.storage.alignment import sentence_differences
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, Sides, read_dictionary, symbol_name
from fairseq_bert_kd.storage.probabilities import default_temperature, gold_probs, percent, token_probs
from fairseq_bert_kd.storage.schema import SCORED
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader

HELP = """Print a sentence of a top-k store: at each target position the teacher's best tokens and their
probabilities. A gold token among them is marked with *."""
EXAMPLE = (
    "example: fairseq-bert-kd store show data-bin/train.de-en.en.topk 12 --data data-bin --temperature 5"
)
_UNKNOWN = "?"
_WHY_MISSING = {
    "too_long": "longer than the teacher can read",
    "not_finite": "the teacher's logits were not finite",
    "not_imported": "the imported table does not hold it",
}


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
        help="tokens per position (default: 5, or all where fewer are stored)",
    )


def main(args: argparse.Namespace) -> None:
    reader = TopKReader(args.store, shard=True)
    info = reader.info
    top = min(5, info.k) if args.top is None else args.top
    if not 1 <= top <= info.k:
        raise ValueError(f"--top must be from 1 to {info.k}, what the store holds, got {top}")
    temperature = _temperature(info, args.temperature)
    index = find_sentence(reader, args.sentence)
    symbols = reader.symbols()
    pieces = _pieces(reader, args.sentence, index, args.data) if args.data is not None else None
    for line in [
        *_heading(reader, args.sentence, index, temperature),
        *_body(reader, index, symbols, pieces, temperature, top),
    ]:
        print(line.rstrip())


def find_sentence(reader: TopKReader, number: int) -> int:
    """Index in the file of a sentence by its corpus index, its chunk checked.

    Raises:
        ValueError: not in the corpus, or in another shard, or damaged.
    """
    corpus, shard, size = reader.header.corpus_sentences, reader.header.shard, reader.info.chunk_sentences
    if not 0 <= number < corpus:
        raise ValueError(f"SENTENCE must be from 0 to {corpus - 1}, a corpus index, got {number}")
    chunk, offset = divmod(number, size)
    index = chunk % shard.count
    if index != shard.index:
        raise ValueError(
            f"sentence {number} is in shard {index + 1}/{shard.count}, {reader.path} is shard {shard}; name that file"
        )
    reader.checked_chunk(reader.local(chunk))
    return reader.local(chunk) * size + offset


def _temperature(info: TopKInfo, requested: float | None) -> float:
    """The requested temperature when the store can show it, else a default; ValueError lists the stored ones."""
    stored = info.temperatures
    if requested is None:
        return default_temperature(stored)
    if stored and requested not in stored:
        raise ValueError(
            f"--temperature must be one of the stored {', '.join(f'{t:g}' for t in stored)}, got {requested:g}; "
            "dump again with others"
        )
    if not 0 < requested < math.inf:
        raise ValueError(f"--temperature must be positive, got {requested:g}")
    return requested


def _pieces(reader: TopKReader, number: int, index: int, folder: str) -> tuple[list[str], list[int]]:
    """Source pieces and target ids.

    Raises:
        FileNotFoundError: a file of the data is absent.
        ValueError: the sentence of the data is not the one that the teacher scored.
    """
    files = reader.info.files(folder)
    sides = Sides({side: IndexedTokens(prefix) for side, (prefix, _) in files.items()})
    lines = [
        f"is longer than the {side} in {folder}" for side, tokens in sides.items() if number >= len(tokens)
    ]
    lines += sentence_differences(reader.info, number, len(reader.rows(index)), reader.hashes(index), sides)
    if lines:
        raise ValueError(
            f"store {reader.path} {lines[0]}; `fairseq-bert-kd store verify --data` lists all differences, or leave out "
            "--data"
        )
    dictionary = read_dictionary(files["source"].dictionary)
    source, target = (sides[side][number].tolist() for side in ("source", "target"))
    return [_symbol(dictionary, token) for token in source], target


# ---------------------------------------------------------------- text


def _heading(reader: TopKReader, number: int, index: int, temperature: float) -> Iterator[str]:
    info, status = reader.info, reader.status(index)
    plan = " (left to right)" if info.mask_plan == PREFIX_PLAN else ""
    yield printable(
        f"sentence {number} of {reader.path.name} ({info.split}, {info.source_lang} -> {info.target_lang}), "
        f"{len(reader.rows(index))} positions, teacher {info.teacher}{plan}, T={temperature:g}"
    )
    if status != SCORED:
        name = info.status_names[status] if status < len(info.status_names) else str(status)
        yield f"the teacher has not scored it: {_WHY_MISSING.get(name, 'for an unknown reason')} ({name})"


def _body(
    reader: TopKReader,
    index: int,
    symbols: Sequence[str],
    pieces: tuple[list[str], list[int]] | None,
    temperature: float,
    top: int,
) -> Iterator[str]:
    gold: list[int] | None = None
    if pieces is not None:
        gold = pieces[1]
        yield f"source  {' '.join(pieces[0])}"
        yield f"target  {' '.join(_symbol(symbols, i) for i in gold)}"
    if reader.is_missing(index):
        return
    records = reader.rows(index)
    if reader.info.gold:
        gold = records["gold_id"].tolist()
    yield ""
    rows = list(_table(records, reader.info, symbols, gold, temperature, top))
    yield from _aligned(rows)
    if gold is not None and any(row[2] == _UNKNOWN for row in rows):
        yield f"{_UNKNOWN}: the gold token is not among the stored ones"
    if not reader.info.temperatures:
        yield "probabilities are over the stored tokens only: the store does not hold the mass of the others"


def _table(
    records: NDArray[Any],
    info: TopKInfo,
    symbols: Sequence[str],
    gold: list[int] | None,
    temperature: float,
    top: int,
) -> Iterator[list[str]]:
    """Cells: position, gold token, piece and percentage of each of the best tokens, and of the rest."""
    heads = [cell for n in range(1, top + 1) for cell in (f"{n}.", "")]
    yield ["", *(["gold", ""] if gold is not None else []), *heads, "rest"]
    with np.errstate(all="ignore"):
        probs = token_probs(records, info.temperatures, temperature)
        gold_ids = None if gold is None else np.array(gold)
        on_gold = gold_probs(records, info.temperatures, temperature, gold_ids).tolist()
    for position, (ids, row) in enumerate(zip(records["topk_ids"].tolist(), probs.tolist(), strict=True)):
        cells = [str(position)]
        if gold is not None:
            known = _UNKNOWN if math.isnan(on_gold[position]) else percent(on_gold[position])
            cells += [_symbol(symbols, gold[position]), known]
        for token, prob in zip(ids[:top], row[:top], strict=True):
            mark = "*" if gold is not None and token == gold[position] else ""
            cells += [mark + _symbol(symbols, token), percent(prob)]
        yield [*cells, percent(max(0.0, 1 - sum(row[:top])))]


def _symbol(symbols: Sequence[str], token: int) -> str:
    """A piece, safe to print; its number where the dictionary does not have it."""
    return printable(symbol_name(symbols, token))


def _aligned(cells: list[list[str]]) -> Iterator[str]:
    """Columns of equal width: pieces to the left, position and percentage to the right."""
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = []
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _width(cell))
            padded.append(space + cell if i % 2 == 0 or i == len(row) - 1 else cell + space)
        yield "  ".join(padded)


def _width(text: str) -> int:
    """Width in columns of a terminal: two for wide characters, none for combining ones."""
    shown = [c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf")]
    return len(shown) + sum(unicodedata.east_asian_width(c) in "WF" for c in shown)
