"""``fairseq-bert-kd store show`` of token rows: a sentence's soft labels as text."""

import argparse
import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.cli.store_sentence import find_sentence, sides_of_sentence, why_missing
from fairseq_bert_kd.cli.store_tools import printable
from fairseq_bert_kd.storage.fairseq_data import symbol_name
from fairseq_bert_kd.storage.probabilities import default_temperature, gold_probs, percent, token_probs
from fairseq_bert_kd.storage.smoothing_store import SmoothingInfo, open_rows
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader

_UNKNOWN = "?"


def main(args: argparse.Namespace) -> None:
    """Print what `store show` is asked for."""
    reader = open_rows(args.store)
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
    """Source pieces, none where the rows are of the only side, and ids of the side with rows; raises as `sides_of_sentence`."""
    sides, symbols = sides_of_sentence(reader, number, index, folder)
    *others, row_side = reader.info.sides
    return [_symbol(symbols[side], token) for side in others for token in sides[side]], list(sides[row_side])


# ---------------------------------------------------------------- text


def _what(info: TopKInfo) -> str:
    return (
        f"{info.view} view"
        if isinstance(info, SmoothingInfo)
        else f"{info.source_lang} -> {info.target_lang}"
    )


def _heading(reader: TopKReader, number: int, index: int, temperature: float) -> Iterator[str]:
    info = reader.info
    plan = " (left to right)" if info.mask_plan == PREFIX_PLAN else ""
    yield printable(
        f"sentence {number} of {reader.path.name} ({info.split}, {_what(info)}), "
        f"{len(reader.rows(index))} positions, teacher {info.teacher}{plan}, T={temperature:g}"
    )
    yield from why_missing(reader, index)


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
        if pieces[0]:
            yield f"source  {' '.join(pieces[0])}"
        yield f"{'target' if pieces[0] else 'text'}  {' '.join(_symbol(symbols, i) for i in gold)}"
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
