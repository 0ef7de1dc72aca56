"""``fairseq-bert-kd store import``: a table of any teacher's logits as a store beside the binarised data.

docs/store_format.md describes the columns. The table is read twice, chunk by chunk: nothing is written before all of it
was checked.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

import fairseq_bert_kd
from fairseq_bert_kd.cli.store_export import SUFFIXES, check_suffix, import_pyarrow
from fairseq_bert_kd.cli.store_folder import add_store_dir, check_writable
from fairseq_bert_kd.cli.store_import_table import ImportedTable
from fairseq_bert_kd.storage.chunk import check_rows
from fairseq_bert_kd.storage.fairseq_data import (
    dictionary_digest,
    open_sides,
    read_dictionary,
    translation_files,
)
from fairseq_bert_kd.storage.folds import FoldTeacher
from fairseq_bert_kd.storage.store_folders import store_folders
from fairseq_bert_kd.storage.topk import MASK_PLANS, STRIDED_PLAN, TopKInfo
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME, TopKWriter, store_path

HELP = "write a store from an Arrow or Parquet table of a teacher's best pieces and their logits"
EXAMPLE = """example: fairseq-bert-kd store import teacher.parquet --data data-bin --source-lang de --target-lang en

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
# what an exported table says of its teacher's run, and of no other
OF_TEACHER = (
    "teacher_digest",
    "precision",
    "device",
    "mask_ratio",
    "entities_digest",
    "mentions_digest",
    "folds",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help=f"table to read, ending in {', '.join(SUFFIXES)}")
    parser.add_argument(
        "--data",
        required=True,
        help="folder that fairseq-preprocess wrote; the store goes there, or to --store-dir",
    )
    add_store_dir(parser)
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


def main(args: argparse.Namespace) -> None:
    [folder] = store_folders([args.data], args.store_dir, "--store-dir")
    path = store_path(folder, args.subset, args.source_lang, args.target_lang, args.name)
    check_writable(path.parent)
    if path.exists() and not args.overwrite:
        raise FileExistsError(
            f"store {path} exists; pass --overwrite to replace it, or --name to write another one"
        )
    table_path = Path(args.table)
    check_suffix(table_path)
    if not table_path.is_file():
        raise FileNotFoundError(f"table {table_path} does not exist; check the path")
    files = translation_files(args.data, args.subset, args.source_lang, args.target_lang)
    sides = open_sides(files, args.subset)
    symbols = {side: read_dictionary(file.dictionary) for side, file in files.items()}
    table = ImportedTable(import_pyarrow(), table_path, sides, symbols["target"], args.topk)
    info = make_info(args, table, symbols)
    info.check()
    with tqdm(total=2 * len(sides["target"]), unit="sent", desc="import") as progress:
        for first, data in table.chunks(info):
            check_rows(data, info, first)
            progress.update(len(data.lengths))
        path.parent.mkdir(parents=True, exist_ok=True)
        lengths = sides["target"].sizes
        with TopKWriter(path, info, lengths, symbols["target"], overwrite=args.overwrite) as writer:
            # unfinished work may be of another table: every chunk is written
            for first, data in table.chunks(info):
                measured = table.columns.measured(data, info)
                writer.write_chunk(first // info.chunk_sentences, data, **measured)
                progress.update(len(data.lengths))
            summary = writer.finish()
    sentences, missing = len(sides["target"]), summary["missing_sentences"]
    print(
        f"{path}: {summary['scored_rows']:,} positions, {sentences - sum(missing.values()):,} of {sentences:,} "
        f"sentences; {missing['not_imported']:,} are not in the table"
    )


def make_info(
    args: argparse.Namespace, table: ImportedTable, symbols: Mapping[str, Sequence[str]]
) -> TopKInfo:
    """Statement of the new store: an exported table's own, replaced by what the command and the data say."""
    known = {item.name for item in fields(TopKInfo)}
    stated = {name: value for name, value in table.stated.items() if name in known}
    former_plan = stated.get("mask_plan", STRIDED_PLAN)
    plan, columns = args.mask_plan or former_plan, table.columns
    if args.teacher and args.teacher != stated.get("teacher"):
        stated = {name: value for name, value in stated.items() if name not in OF_TEACHER}
    folds = tuple(FoldTeacher(**teacher) for teacher in stated.get("folds", ()))
    if len(folds) == 1:
        raise ValueError(
            f"{args.table} holds fold {folds[0].fold} alone; join the stores of all folds with `fairseq-bert-kd store merge` and "
            "export that one"
        )
    here = {
        "teacher": args.teacher or stated.get("teacher", "unknown"),
        "passes": stated.get("passes", 1) if plan == former_plan else 1,
        "mask_plan": plan,
        "k": columns.k,
        "temperatures": columns.temperatures,
        "gold": columns.gold,
        "samples": columns.samples,
        "dictionary_size": len(symbols["target"]),
        "dictionary_digest": dictionary_digest(symbols["target"]),
        "source_dictionary_digest": dictionary_digest(symbols["source"]),
        "split": args.subset,
        "source_lang": args.source_lang,
        "target_lang": args.target_lang,
        "versions": {**stated.get("versions", {}), "fairseq-bert-kd": fairseq_bert_kd.__version__},
        "origin": ORIGIN,
        "folds": folds,
    }
    return TopKInfo(**{"mask_ratio": 0.0, **stated, **here})
