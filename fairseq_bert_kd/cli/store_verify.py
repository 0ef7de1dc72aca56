"""``fairseq-bert-kd store verify``: check every byte of teacher stores."""

import argparse
import sys
from pathlib import Path

from fairseq_bert_kd.cli.store_tools import printable, progress_bar
from fairseq_bert_kd.storage.header import check_exists, open_header, schema_by_name
from fairseq_bert_kd.storage.known_schemas import SCHEMAS
from fairseq_bert_kd.storage.verify import verify_store

HELP = """Check every byte of teacher stores or their shards: header, dictionary, index, the digest of every chunk,
and whether each row can be a teacher's. With --data also whether a store belongs to the data.

exit status: 0 all is well, 1 a store is bad (each problem is a line on standard error), 2 a user error"""
EXAMPLE = """examples:
  fairseq-bert-kd store verify data-bin/train.de-en.en.topk --data data-bin
  fairseq-bert-kd store verify data-bin/*.topk.shard-*"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stores", nargs="+", metavar="STORE", help="teacher store, or a shard of one")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="what fairseq-preprocess wrote; compare the length and the hash of every sentence on both sides, and "
        "the dictionaries",
    )


def main(args: argparse.Namespace) -> int:
    """Verify the stores one after the other; 1 when one is bad."""
    for path in args.stores:
        check_exists(Path(path))  # a mistyped name ends this before hours of reading
    if args.data is not None and not Path(args.data).is_dir():
        raise FileNotFoundError(f"--data {args.data} is not a folder; give what fairseq-preprocess wrote")
    return max([_verify(Path(path), args.data) for path in args.stores])


def _verify(path: Path, data: str | None) -> int:
    with progress_bar(f"verify {path.name}", path.stat().st_size) as bar:
        problems = verify_store(path, data, progress=bar.update)
    for problem in problems:
        line = problem if str(path.absolute()) in problem else f"{path}: {problem}"
        print(printable(line), file=sys.stderr)
    if problems:
        if "copy it again or" not in problems[-1]:
            rebuild = schema_by_name(path, SCHEMAS).rebuild_command(path)
            print(f"{path}: where it is damaged, copy it again or {rebuild}", file=sys.stderr)
        return 1
    print(printable(f"{path}: all well: {_counts(path, data)}"))
    return 0


def _counts(path: Path, data: str | None) -> str:
    header = open_header(path, SCHEMAS)
    layout, missing = header.layout, sum(header.missing.values())
    shard = f"shard {header.shard}, " if header.shard.count > 1 else ""
    belongs = f", belongs to {data}" if data is not None else ""
    return (
        f"{shard}{layout.sentences:,} sentences, {layout.rows:,} rows, {missing:,} sentences missing, "
        f"{layout.chunks:,} chunks, {layout.file_bytes:,} bytes{belongs}"
    )
