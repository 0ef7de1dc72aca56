"""``fairseq-bert-kd store export``: a top-k store as a table for Arrow, Parquet and pandas.

docs/store_format.md describes the columns. ``store import`` reads them.
"""

import argparse
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fairseq_bert_kd.storage.header import Header
from fairseq_bert_kd.storage.schema import SCORED, ChunkData, empty_records
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader

HELP = "write a top-k store as an Arrow or Parquet table, for analysis with pandas"
EPILOG = """example: fairseq-bert-kd store export data-bin/train.de-en.en.topk teacher.parquet

One row per target position: sentence, position, status, source_hash, target_hash, topk_ids, topk_tokens, topk_logits
(minus the row's best), log_normaliser_at_T for each temperature, gold and sample columns where stored. A sentence that
the teacher did not score has one row with position -1 and nulls; a scored sentence without tokens has no row."""

METADATA_KEY = b"fairseq_bert_kd"
NORMALISER_COLUMN = "log_normaliser_at_"  # and the temperature
TOKEN_COLUMNS = {"topk_ids": "topk_tokens", "gold_id": "gold_token", "sample_ids": "sample_tokens"}
SUFFIXES = (".parquet", ".arrow", ".feather")  # the last two are the same form
INSTALL = "pip install pyarrow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("store", help="a store, or one shard of it")
    parser.add_argument("out", help=f"table to write, ending in {', '.join(SUFFIXES)}")
    parser.add_argument("--no-tokens", action="store_true", help="leave out the columns of pieces")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing table")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-bert-kd store export", description=HELP)
    add_arguments(parser)
    return parser


def import_pyarrow() -> Any:
    """pyarrow with its parts for columns and Parquet; ImportError with the install line where it is absent."""
    try:
        for part in ("pyarrow.compute", "pyarrow.parquet"):
            importlib.import_module(part)
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise ImportError(f"tables need pyarrow ({error}). Install it with:\n  {INSTALL}") from None


def header_json(header: Header) -> str:
    """Everything that the header says."""
    values = {
        "info": header.info.stated(),
        "shard": [header.shard.index, header.shard.count],
        "corpus_sentences": header.corpus_sentences,
        "sentences": header.layout.sentences,
        "rows": header.layout.rows,
        **header.info.constants(),
        "status_names": header.info.status_names,
        "summary": header.summary,
        "digest": header.digest,
    }
    return json.dumps(values, ensure_ascii=False)


def record_columns(records: NDArray[Any], info: TopKInfo) -> Mapping[str, NDArray[Any]]:
    """The fields of ``(rows,)`` records by column, one column for each temperature."""
    columns = {name: records[name] for name in records.dtype.names or () if name != "log_normalisers"}
    for place, temperature in enumerate(info.temperatures):
        columns[f"{NORMALISER_COLUMN}{temperature:g}"] = records["log_normalisers"][:, place]
    return columns


class Table:
    """Builds the record batches of a store.

    Args:
        arrow: the pyarrow module.
        header: header of the store.
        symbols: the target dictionary in id order; None leaves the columns of pieces out. What UTF-8 cannot hold
            becomes ``?``.
        plain: pieces as strings; else as an Arrow dictionary, which Parquet's readers cannot join inside of lists.

    Attributes:
        schema: Arrow schema of all batches.
    """

    def __init__(self, arrow: Any, header: Header, symbols: Sequence[str] | None, plain: bool = False):
        self._arrow, self._plain = arrow, plain
        self._info: Any = header.info
        self._status = arrow.array(self._info.status_names, arrow.string())
        self._symbols = None
        if symbols is not None:
            clean = [symbol.encode("utf-8", "replace").decode() for symbol in symbols]
            self._symbols = arrow.array(clean, arrow.string())
        self.schema = arrow.schema(self._fields(), metadata={METADATA_KEY: header_json(header)})

    def batch(self, first_sentence: int, data: ChunkData) -> Any:
        """The rows of a chunk whose first sentence has this corpus index."""
        # a missing sentence's rows become one row of nulls
        shown = np.where(data.status == SCORED, data.lengths, 1)  # (sentences,) rows of the table
        sentence = np.repeat(np.arange(len(shown)), shown)  # [row -> sentence]
        position = np.arange(len(sentence)) - np.repeat(np.cumsum(shown) - shown, shown)
        scored = data.status[sentence] == SCORED
        records = np.zeros(len(sentence), dtype=data.records.dtype)
        records[scored] = data.records[data.scored]
        arrow = self._arrow
        columns: dict[str, Any] = {
            "sentence": arrow.array(sentence + first_sentence, arrow.int64()),
            "position": arrow.array(np.where(scored, position, -1).astype(np.int32)),
            "status": arrow.DictionaryArray.from_arrays(data.status[sentence].astype(np.int8), self._status),
            **{f"{side}_hash": arrow.array(hashes[sentence]) for side, hashes in data.hashes.items()},
        }
        for name, values in record_columns(records, self._info).items():
            flat, wrap = self._flat(name, values, scored)
            columns[name] = wrap(flat)
            if name in TOKEN_COLUMNS and self._symbols is not None:
                tokens = arrow.DictionaryArray.from_arrays(flat, self._symbols)
                columns[TOKEN_COLUMNS[name]] = wrap(tokens.dictionary_decode() if self._plain else tokens)
        return arrow.record_batch([columns[name] for name in self.schema.names], schema=self.schema)

    def _flat(
        self, name: str, values: NDArray[Any], scored: NDArray[np.bool_]
    ) -> tuple[Any, Callable[[Any], Any]]:
        """Values in one array, and the function that makes a column of it: null where the sentence was not scored."""
        arrow = self._arrow
        values = values.astype(np.int32 if name in TOKEN_COLUMNS else np.float32)
        if values.ndim == 1:
            return arrow.array(values, mask=~scored), lambda flat: flat
        # a null list is empty: the offsets advance in scored rows only
        offsets = np.concatenate([[0], np.cumsum(scored * values.shape[1])]).astype(np.int32)

        def as_lists(flat: Any) -> Any:
            return arrow.ListArray.from_arrays(arrow.array(offsets), flat, mask=arrow.array(~scored))

        return arrow.array(values[scored].ravel()), as_lists

    def _fields(self) -> Iterator[Any]:
        arrow, info = self._arrow, self._info
        text = arrow.string() if self._plain else arrow.dictionary(arrow.int32(), arrow.string())
        yield arrow.field("sentence", arrow.int64(), nullable=False)
        yield arrow.field("position", arrow.int32(), nullable=False)
        yield arrow.field("status", arrow.dictionary(arrow.int8(), arrow.string()), nullable=False)
        for side in info.sides:
            yield arrow.field(f"{side}_hash", arrow.uint64(), nullable=False)
        for name, values in record_columns(empty_records(0, info), info).items():
            element = arrow.int32() if name in TOKEN_COLUMNS else arrow.float32()
            yield arrow.field(name, arrow.list_(element) if values.ndim == 2 else element)
            if name in TOKEN_COLUMNS and self._symbols is not None:
                yield arrow.field(TOKEN_COLUMNS[name], arrow.list_(text) if values.ndim == 2 else text)


def batches(reader: TopKReader, table: Table) -> Iterator[Any]:
    """A record batch for each chunk of a store; ValueError for a chunk that is not as it was written."""
    for local in range(reader.header.layout.chunks):
        yield table.batch(reader.sentences(local).start, reader.checked_chunk(local))


def open_writer(arrow: Any, path: Path, suffix: str, schema: Any) -> Any:
    """A writer with ``write_batch`` for the form that the suffix names; zstd, which both forms' readers know."""
    if suffix == ".parquet":
        return importlib.import_module("pyarrow.parquet").ParquetWriter(path, schema, compression="zstd")
    ipc = importlib.import_module("pyarrow.ipc")
    return ipc.new_file(str(path), schema, options=ipc.IpcWriteOptions(compression="zstd"))


def check_output(store: Path, out: Path, overwrite: bool) -> None:
    """Raise an error for an unknown ending, a table that exists, and the store itself."""
    if out.suffix not in SUFFIXES:
        raise ValueError(
            f"the table's name must end in {', '.join(SUFFIXES)}, got {out.name!r}; choose one of them"
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(f"folder {out.parent} of the table does not exist; create it")
    if out.is_dir() or (out.exists() and store.exists() and out.samefile(store)):
        raise FileExistsError(f"{out} is the store itself or a folder; choose another name")
    if out.exists() and not overwrite:
        raise FileExistsError(f"table {out} exists; pass --overwrite to replace it")


def main(args: argparse.Namespace) -> None:
    out = Path(args.out)
    check_output(Path(args.store), out, args.overwrite)
    arrow = import_pyarrow()
    reader = TopKReader(args.store, shard=True)
    symbols = None if args.no_tokens else reader.symbols()
    table = Table(arrow, reader.header, symbols, plain=out.suffix == ".parquet")
    work, rows = out.with_name(out.name + ".partial"), 0
    try:
        with (
            open_writer(arrow, work, out.suffix, table.schema) as writer,
            tqdm(total=reader.header.layout.chunks, unit="chunk", desc="export") as progress,
        ):
            for batch in batches(reader, table):
                writer.write_batch(batch)
                rows += batch.num_rows
                progress.update()
        os.replace(work, out)
    finally:
        work.unlink(missing_ok=True)
    print(f"{out}: {out.stat().st_size:,} bytes, {rows:,} rows of {len(reader):,} sentences")
