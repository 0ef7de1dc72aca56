"""``fairseq-bert-kd store import``: a table of any teacher's logits as a store beside the binarised data.

docs/store_format.md describes the columns. The table is read twice, chunk by chunk: nothing is written before all of it
was checked.
"""

import argparse
import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

import fairseq_bert_kd
from fairseq_bert_kd.cli.store_export import METADATA_KEY, SUFFIXES, import_pyarrow
from fairseq_bert_kd.cli.store_import_table import ImportedTable
from fairseq_bert_kd.storage.chunk import check_rows
from fairseq_bert_kd.storage.fairseq_data import (
    dictionary_digest,
    open_sides,
    read_dictionary,
    translation_files,
)
from fairseq_bert_kd.storage.topk import MASK_PLANS, STRIDED_PLAN, TopKInfo
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME, TopKWriter, store_path

HELP = "write a store from an Arrow or Parquet table of a teacher's best pieces and their logits"
EPILOG = """example: fairseq-bert-kd store import teacher.parquet --data data-bin --source-lang de --target-lang en

The table has one row per target position, sorted by sentence and position; end of sentence is a position. Columns:
  sentence, position   integers, from 0
  topk_tokens          list of pieces, best first, all different; symbols of the data's target dictionary
  topk_logits          list of their logits, or topk_logprobs: natural logarithms of their probabilities
optional:
  log_normaliser_at_T  logsumexp(logits / T) over the teacher's whole dictionary, for each temperature T;
                       topk_logprobs give that of T = 1
  gold_token, gold_logit; sample_tokens, sample_logits; source_hash, target_hash; status   as `store export` writes them
Sentences that the table does not hold are missing: students learn them from labels alone."""

ORIGIN = "import"
_BATCH_ROWS = 1 << 14  # rows of the table that are in memory together, beside those of a chunk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("table", help=f"table to read, ending in {', '.join(SUFFIXES)}")
    parser.add_argument(
        "--data", required=True, help="folder that fairseq-preprocess wrote; the store goes there"
    )
    parser.add_argument(
        "--subset", default="train", help="split that the teacher scored (default: %(default)s)"
    )
    parser.add_argument("--source-lang", required=True, help="as in the data's file names")
    parser.add_argument("--target-lang", required=True, help="as in the data's file names")
    parser.add_argument(
        "--name", default=DEFAULT_NAME, help="name of the store among several (default: %(default)s)"
    )
    parser.add_argument("--teacher", help="name of the teacher (default: of an exported table, its teacher)")
    parser.add_argument(
        "--mask-plan",
        choices=MASK_PLANS,
        help=f"what the teacher saw of the target (default: of an exported table, its plan; else {STRIDED_PLAN})",
    )
    parser.add_argument("--topk", type=int, help="keep this many of the pieces (default: all)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-bert-kd store import", description=HELP)
    add_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    path = store_path(args.data, args.subset, args.source_lang, args.target_lang, args.name)
    if path.exists() and not args.overwrite:
        raise FileExistsError(
            f"store {path} exists; pass --overwrite to replace it, or --name to write another one"
        )
    table = Path(args.table)
    if table.suffix not in SUFFIXES:
        raise ValueError(
            f"the table's name must end in {', '.join(SUFFIXES)}, got {table.name!r}; choose one of them"
        )
    if not table.is_file():
        raise FileNotFoundError(f"table {table} does not exist; check the path")
    files = translation_files(args.data, args.subset, args.source_lang, args.target_lang)
    sides = open_sides(files, args.subset)
    symbols = {side: read_dictionary(file.dictionary) for side, file in files.items()}
    arrow = import_pyarrow()
    schema = read_schema(arrow, table)
    stated = exported_info(schema)
    first = next((batch for batch in read_batches(arrow, table) if batch.num_rows), None)
    imported = ImportedTable(arrow, schema.names, first, sides, symbols["target"], stated, args.topk)
    info = make_info(args, imported, symbols, stated)
    info.check()
    write(arrow, table, imported, info, symbols["target"], path, args)


def write(
    arrow: Any,
    table: Path,
    imported: ImportedTable,
    info: TopKInfo,
    symbols: Sequence[str],
    path: Path,
    args: argparse.Namespace,
) -> None:
    """Check the whole table, then write its store."""
    sentences = len(imported.sides["target"])
    with tqdm(total=2 * sentences, unit="sent", desc="import") as progress:
        for first, data in imported.chunks(read_batches(arrow, table), info):
            check_rows(data, info, first)
            progress.update(len(data.lengths))
        lengths = imported.sides["target"].sizes
        with TopKWriter(path, info, lengths, symbols, overwrite=args.overwrite) as writer:
            # unfinished work may be of another table: every chunk is written
            for first, data in imported.chunks(read_batches(arrow, table), info):
                writer.write_chunk(first // info.chunk_sentences, data, **imported.measured(data, info))
                progress.update(len(data.lengths))
            summary = writer.finish()
    missing = summary["missing_sentences"]
    print(
        f"{path}: {summary['scored_rows']:,} positions, {sentences - sum(missing.values()):,} of {sentences:,} "
        f"sentences; {missing['not_imported']:,} are not in the table"
    )


def read_schema(arrow: Any, path: Path) -> Any:
    """Arrow schema of a table; ValueError for a file of another form."""
    try:
        if path.suffix == ".parquet":
            return importlib.import_module("pyarrow.parquet").read_schema(path)
        with arrow.OSFile(str(path)) as file:
            return importlib.import_module("pyarrow.ipc").open_file(file).schema
    except arrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a table of the form that its name says ({error})") from None


def read_batches(arrow: Any, path: Path) -> Iterator[Any]:
    """Record batches of a table in its order, of at most `_BATCH_ROWS` rows."""
    if path.suffix == ".parquet":
        with importlib.import_module("pyarrow.parquet").ParquetFile(path) as file:
            for group in range(file.num_row_groups):  # whose dictionaries of pieces may differ
                yield from file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group])
        return
    with arrow.memory_map(str(path)) as source:
        file = importlib.import_module("pyarrow.ipc").open_file(source)
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield batch.slice(start, _BATCH_ROWS)


def exported_info(schema: Any) -> dict[str, Any]:
    """The header's info that `store export` wrote into a table; empty for another's table."""
    raw = (schema.metadata or {}).get(METADATA_KEY)
    try:
        return dict(json.loads(raw)["info"]) if raw else {}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the table's metadata `{METADATA_KEY.decode()}` cannot be read ({error}); remove them"
        ) from None


def make_info(
    args: argparse.Namespace,
    imported: ImportedTable,
    symbols: dict[str, list[str]],
    stated: dict[str, Any],
) -> TopKInfo:
    """Statement of the new store: of an exported table its own, with what the command and the data say instead."""
    known = {item.name for item in fields(TopKInfo)}
    kept = {name: value for name, value in stated.items() if name in known}
    plan = args.mask_plan or stated.get("mask_plan", STRIDED_PLAN)
    defaults = {"teacher": "unknown", "mask_ratio": 0.0, "passes": 1}
    versions = {**stated.get("versions", {}), "fairseq-bert-kd": fairseq_bert_kd.__version__}
    here: dict[str, Any] = {
        "k": imported.k,
        "dictionary_size": len(symbols["target"]),
        "dictionary_digest": dictionary_digest(symbols["target"]),
        "source_dictionary_digest": dictionary_digest(symbols["source"]),
        "split": args.subset,
        "source_lang": args.source_lang,
        "target_lang": args.target_lang,
        "temperatures": imported.temperatures,
        "gold": imported.gold,
        "samples": imported.samples,
        "versions": versions,
        "origin": ORIGIN,
        "mask_plan": plan,
    }
    if args.teacher:
        here["teacher"] = args.teacher
    if plan != stated.get("mask_plan", STRIDED_PLAN):
        here["passes"] = 1
    return TopKInfo(**{**defaults, **kept, **here})
