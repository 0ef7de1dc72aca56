"""``fairseq-bert-kd store export``: a top-k store as a table for Arrow, Parquet and pandas.

docs/store_format.md describes the columns. ``store import`` reads them.
"""

import argparse
import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fairseq_bert_kd.output_files import whole_file
from fairseq_bert_kd.storage.header import Header, header_fields
from fairseq_bert_kd.storage.schema import SCORED, ChunkData, empty_records
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader

HELP = "write a top-k store as an Arrow or Parquet table, for analysis with pandas"
EXAMPLE = """example: fairseq-bert-kd store export data-bin/train.de-en.en.topk teacher.parquet

One row per target position: sentence, position, status, source_hash, target_hash, topk_ids, topk_tokens, topk_logits
(minus the row's best), log_normaliser_at_T for each temperature, gold and sample columns where stored. A sentence that
the teacher did not score has one row with position -1 and nulls; a scored sentence without tokens has no row."""

METADATA_KEY = b"fairseq_bert_kd"
NORMALISER_COLUMN = "log_normaliser_at_"  # and the temperature
TOKEN_COLUMNS = {"topk_ids": "topk_tokens", "gold_id": "gold_token", "sample_ids": "sample_tokens"}
FORMATS = {".parquet": "parquet", ".arrow": "ipc", ".feather": "ipc"}  # of a table, by the ending of its name
SUFFIXES = tuple(FORMATS)
INSTALL = "pip install pyarrow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", help="a store, or one shard of it")
    parser.add_argument("out", help=f"table to write, ending in {', '.join(SUFFIXES)}")
    parser.add_argument("--no-tokens", action="store_true", help="leave out the columns of pieces")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing table")


def import_pyarrow() -> Any:
    """pyarrow with the parts that we use; ImportError with the install line where it is absent."""
    try:
        for part in ("pyarrow.compute", "pyarrow.dataset", "pyarrow.parquet"):
            importlib.import_module(part)
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise ImportError(f"tables need pyarrow ({error}). Install it with:\n  {INSTALL}") from None


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
        self._status = arrow.array(self._info.statuses, arrow.string())
        clean = symbols and [symbol.encode("utf-8", "replace").decode() for symbol in symbols]
        self._symbols = clean and arrow.array(clean, arrow.string())
        none = np.zeros(0, dtype=np.uint8)
        hashes = {side: none.astype(np.uint64) for side in self._info.sides}
        empty = ChunkData(hashes, none, none, empty_records(0, self._info))
        metadata = {METADATA_KEY: json.dumps(header_fields(header), ensure_ascii=False)}
        self.schema = self.batch(0, empty).schema.with_metadata(metadata)

    def batch(self, first_sentence: int, data: ChunkData) -> Any:
        """The rows of a chunk whose first sentence has this corpus index."""
        # a missing sentence's rows become one row of nulls
        shown = np.where(data.status == SCORED, data.lengths, 1)  # (sentences,) rows of the table
        sentence = np.repeat(np.arange(len(shown)), shown)  # [row -> sentence]
        position = np.arange(len(sentence)) - np.repeat(np.cumsum(shown) - shown, shown)
        scored = data.status[sentence] == SCORED
        arrow = self._arrow
        columns: dict[str, Any] = {
            "sentence": arrow.array(sentence + first_sentence, arrow.int64()),
            "position": arrow.array(np.where(scored, position, -1).astype(np.int32)),
            "status": arrow.DictionaryArray.from_arrays(data.status[sentence].astype(np.int8), self._status),
            **{f"{side}_hash": arrow.array(hashes[sentence]) for side, hashes in data.hashes.items()},
        }
        record_of = arrow.array(np.cumsum(scored) - 1, arrow.int64(), mask=~scored)  # [row -> scored record]
        for name, values in record_columns(data.records[data.scored], self._info).items():
            kind = np.int32 if name in TOKEN_COLUMNS else np.float32
            flat = arrow.array(values.astype(kind).ravel())
            columns[name] = self._column(flat, values).take(record_of)
            if name in TOKEN_COLUMNS and self._symbols is not None:
                pieces = arrow.DictionaryArray.from_arrays(flat, self._symbols)
                pieces = pieces.dictionary_decode() if self._plain else pieces
                columns[TOKEN_COLUMNS[name]] = self._column(pieces, values).take(record_of)
        return arrow.RecordBatch.from_pydict(columns)

    def _column(self, flat: Any, values: NDArray[Any]) -> Any:
        """The elements of ``(records, k)`` values as lists of k, those of ``(records,)`` as they are."""
        if values.ndim == 1:
            return flat
        offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(values.shape[1])
        return self._arrow.ListArray.from_arrays(self._arrow.array(offsets), flat)


def open_writer(arrow: Any, path: Path, suffix: str, schema: Any) -> Any:
    """A writer with ``write_batch`` for the form that the suffix names; zstd, which both forms' readers know."""
    if suffix == ".parquet":
        return arrow.parquet.ParquetWriter(path, schema, compression="zstd")
    return arrow.ipc.new_file(str(path), schema, options=arrow.ipc.IpcWriteOptions(compression="zstd"))


def check_suffix(table: Path) -> None:
    """Raise ValueError for a table whose name has an unknown ending."""
    if table.suffix not in FORMATS:
        raise ValueError(
            f"the table's name must end in {', '.join(SUFFIXES)}, got {table.name!r}; choose one of them"
        )


def check_output(store: Path, out: Path, overwrite: bool) -> None:
    """Raise an error for an unknown ending, a table that exists, and the store itself."""
    check_suffix(out)
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
    rows = 0
    with (
        whole_file(out) as temporary,
        open_writer(arrow, temporary, out.suffix, table.schema) as writer,
        tqdm(total=reader.header.layout.chunks, unit="chunk", desc="export") as progress,
    ):
        for local in range(reader.header.layout.chunks):
            batch = table.batch(reader.sentences(local).start, reader.checked_chunk(local))
            writer.write_batch(batch)
            rows += batch.num_rows
            progress.update()
    print(f"{out}: {out.stat().st_size:,} bytes, {rows:,} rows of {len(reader):,} sentences")
