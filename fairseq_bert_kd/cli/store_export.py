"""``fairseq-bert-kd store export``: a top-k store as a table for Arrow, Parquet and pandas.

One row a target position; a sentence without rows of the teacher has one row with position -1, its status, and
nulls. Columns: ``sentence`` (corpus index, also for a shard), ``position``, ``status``, ``topk_ids``,
``topk_tokens``, ``topk_logits`` (minus the row's best), ``log_normaliser_at_T`` for each temperature T, and, where
stored, ``gold_id``, ``gold_token``, ``gold_logit``, ``sample_ids``, ``sample_logits``. The schema's metadata hold
the header as JSON under ``fairseq_bert_kd``.
"""

import argparse
import importlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fairseq_bert_kd.storage.chunk import chunk_digest
from fairseq_bert_kd.storage.header import Header, damaged
from fairseq_bert_kd.storage.records import export_columns
from fairseq_bert_kd.storage.schema import SCORED, ChunkData, empty_records
from fairseq_bert_kd.storage.store_info import STATUS_NAMES, VALUE_KIND, VALUE_ORIGIN
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader

HELP = "a store as an Arrow or Parquet table, for analysis with pandas"
EPILOG = """example: fairseq-bert-kd store export data-bin/train.de-en.en.topk teacher.parquet

One row a target position: sentence, position, status, topk_ids, topk_tokens, topk_logits (minus the row's
best), log_normaliser_at_T for each temperature, gold and sample columns where stored. A sentence that the teacher
did not score has one row with position -1 and nulls; a scored sentence without tokens has no row."""

METADATA_KEY = b"fairseq_bert_kd"
SUFFIXES = (".parquet", ".arrow", ".feather")  # the last two are the same form
INSTALL = "pip install pyarrow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("store", help="a store, or one shard of it")
    parser.add_argument("out", help=f"table to write, ending in {', '.join(SUFFIXES)}")
    parser.add_argument("--no-tokens", action="store_true", help="leave out topk_tokens and gold_token")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing table")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-bert-kd store export", description=HELP)
    add_arguments(parser)
    return parser


def import_pyarrow() -> Any:
    """pyarrow with its Parquet part; ImportError with the install line where it is absent."""
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise ImportError(f"the export needs pyarrow ({error}). Install it with:\n  {INSTALL}") from None


def header_json(header: Header) -> str:
    """Everything that the header says, and where the numbers count from."""
    values = {
        "info": asdict(header.info),
        "shard": [header.shard.index, header.shard.count],
        "corpus_sentences": header.corpus_sentences,
        "sentences": header.layout.sentences,
        "rows": header.layout.rows,
        "value_kind": VALUE_KIND,
        "value_origin": VALUE_ORIGIN,
        "status_names": STATUS_NAMES,
        "summary": header.summary,
        "digest": header.digest,
    }
    return json.dumps(values, ensure_ascii=False)


class Table:
    """Builds the record batches of a store.

    Args:
        arrow: the pyarrow module.
        header: of the store.
        symbols: the target dictionary in id order; None leaves the token columns out. What UTF-8 cannot hold
            becomes ``?``.

    Attributes:
        schema: of all batches.
    """

    def __init__(self, arrow: Any, header: Header, symbols: Sequence[str] | None):
        self._arrow = arrow
        self._info: TopKInfo = header.info
        self._status = arrow.array(STATUS_NAMES, arrow.string())
        self._symbols = None
        if symbols is not None:
            clean = [symbol.encode("utf-8", "replace").decode() for symbol in symbols]
            self._symbols = arrow.array(clean, arrow.string())
        self.schema = arrow.schema(self._fields(), metadata={METADATA_KEY: header_json(header)})

    def batch(self, first_sentence: int, data: ChunkData) -> Any:
        """The rows of a chunk whose first sentence has this corpus index."""
        # a missing sentence's rows shrink to one: `kept` picks it, `scored` says what it may show
        shown = np.where(data.status == SCORED, data.lengths, 1)
        sentence = np.repeat(np.arange(len(shown)), shown)
        position = np.arange(len(sentence)) - np.repeat(np.cumsum(shown) - shown, shown)
        scored = data.status[sentence] == SCORED
        records = np.zeros(len(sentence), dtype=data.records.dtype)
        records[scored] = data.records[data.scored]
        arrow = self._arrow
        columns: dict[str, Any] = {
            "sentence": arrow.array(sentence + first_sentence, arrow.int64()),
            "position": arrow.array(np.where(scored, position, -1).astype(np.int32)),
            "status": arrow.DictionaryArray.from_arrays(data.status[sentence].astype(np.int8), self._status),
        }
        for name, values in export_columns(records, self._info).items():
            flat, wrap = self._flat(name, values, scored)
            columns[name] = wrap(flat)
            if _token_name(name) and self._symbols is not None:
                columns[_token_name(name)] = wrap(arrow.DictionaryArray.from_arrays(flat, self._symbols))
        return arrow.record_batch([columns[name] for name in self.schema.names], schema=self.schema)

    def _flat(
        self, name: str, values: NDArray[Any], scored: NDArray[np.bool_]
    ) -> tuple[Any, Callable[[Any], Any]]:
        """Values in a row and what makes a column of them, null where the sentence was not scored."""
        arrow = self._arrow
        values = values.astype(np.int32 if _holds_ids(name) else np.float32)
        if values.ndim == 1:
            return arrow.array(values, mask=~scored), lambda flat: flat
        # a null list is empty: the offsets advance in scored rows only
        offsets = np.concatenate([[0], np.cumsum(scored * values.shape[1])]).astype(np.int32)

        def as_lists(flat: Any) -> Any:
            return arrow.ListArray.from_arrays(arrow.array(offsets), flat, mask=arrow.array(~scored))

        return arrow.array(values[scored].ravel()), as_lists

    def _fields(self) -> Iterator[Any]:
        arrow, info = self._arrow, self._info
        text = arrow.dictionary(arrow.int32(), arrow.string())
        yield arrow.field("sentence", arrow.int64(), nullable=False)
        yield arrow.field("position", arrow.int32(), nullable=False)
        yield arrow.field("status", arrow.dictionary(arrow.int8(), arrow.string()), nullable=False)
        for name, values in export_columns(empty_records(0, info), info).items():
            element = arrow.int32() if _holds_ids(name) else arrow.float32()
            yield arrow.field(name, arrow.list_(element) if values.ndim == 2 else element)
            if _token_name(name) and self._symbols is not None:
                yield arrow.field(_token_name(name), arrow.list_(text) if values.ndim == 2 else text)


def _holds_ids(name: str) -> bool:
    return name.endswith(("_id", "_ids"))


def _token_name(name: str) -> str:
    """Column of the tokens beside a column of ids; "" where there is none."""
    return {"topk_ids": "topk_tokens", "gold_id": "gold_token"}.get(name, "")


def batches(reader: TopKReader, table: Table) -> Iterator[Any]:
    """A record batch for each chunk of a store.

    Raises:
        ValueError: a chunk that is not as it was written.
    """
    info, shard = reader.info, reader.header.shard
    for local, entry in enumerate(reader.chunk_table):
        chunk, data = local * shard.count + shard.index, reader.chunk(local)
        if chunk_digest(chunk, entry, data, info) != entry["digest"].tobytes():
            raise damaged(reader.path, f"chunk {chunk} does not match its digest")
        yield table.batch(chunk * info.chunk_sentences, data)


def open_writer(arrow: Any, path: Path, suffix: str, schema: Any) -> Any:
    """A writer with ``write_batch`` for the form that the suffix names; zstd, which both forms' readers know."""
    if suffix == ".parquet":
        return importlib.import_module("pyarrow.parquet").ParquetWriter(path, schema, compression="zstd")
    ipc = importlib.import_module("pyarrow.ipc")
    return ipc.new_file(str(path), schema, options=ipc.IpcWriteOptions(compression="zstd"))


def check_output(store: Path, out: Path, overwrite: bool) -> None:
    """Refuse an unknown ending, a table that exists, and the store itself."""
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
    table = Table(arrow, reader.header, None if args.no_tokens else reader.symbols())
    work, rows = out.with_name(out.name + ".partial"), 0
    try:
        with (
            open_writer(arrow, work, out.suffix, table.schema) as writer,
            tqdm(total=len(reader.chunk_table), unit="chunk", desc="export") as progress,
        ):
            for batch in batches(reader, table):
                writer.write_batch(batch)
                rows += batch.num_rows
                progress.update()
        os.replace(work, out)
    finally:
        work.unlink(missing_ok=True)
    print(f"{out}: {out.stat().st_size:,} bytes, {rows:,} rows of {len(reader):,} sentences")
