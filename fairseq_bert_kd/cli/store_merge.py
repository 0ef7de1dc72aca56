"""``fairseq-bert-kd store merge``: the shards of a dump as one store."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from fairseq_bert_kd.cli.store_tools import printable, progress_bar
from fairseq_bert_kd.storage.chunk import chunk_digest
from fairseq_bert_kd.storage.header import open_header
from fairseq_bert_kd.storage.known_schemas import SCHEMAS
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.shards import store_of_shard
from fairseq_bert_kd.storage.store_file import open_store
from fairseq_bert_kd.storage.verify import verify_store

HELP = """Join all shards of a dump (`fairseq-bert-kd dump --shard I/N`) to the store that a dump without shards gives,
byte by byte. Goes on where an earlier merge was stopped."""
EXAMPLE = "example: fairseq-bert-kd store merge data-bin/train.de-en.en.topk.shard-* --remove-shards"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("shards", nargs="+", metavar="SHARD", help="all shards, in any order")
    parser.add_argument(
        "--output", metavar="STORE", help="file to write (default: the shards' name without `.shard-I-of-N`)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")
    parser.add_argument(
        "--remove-shards",
        action="store_true",
        help="delete the shards once the store is complete and on disk",
    )


def main(args: argparse.Namespace) -> None:
    shards = [Path(path) for path in args.shards]
    output = Path(args.output) if args.output is not None else default_output(shards)
    if any(output.exists() and path.exists() and path.samefile(output) for path in shards):
        raise ValueError(f"--output {output} is one of the shards; give another name")
    layouts = [open_header(path, SCHEMAS).layout for path in shards]
    was_there = output.exists() and not args.overwrite  # then complete, or refused below
    total = sum(layout.ends["records"] - layout.starts["records"] for layout in layouts)
    with progress_bar(f"merge {output.name}", total) as bar:
        summary = merge_shards(shards, output, args.overwrite, bar.update)
    done = "was complete already" if was_there else f"merged from {len(shards)} shards"
    rows, missing = sum(layout.rows for layout in layouts), sum(summary["missing_sentences"].values())
    sentences = sum(layout.sentences for layout in layouts)
    print(
        printable(f"{output}: {done}: {sentences:,} sentences, {rows:,} rows, {missing:,} sentences missing")
    )
    if args.remove_shards:
        if was_there:
            _check_same_content(shards, output)
        for path in shards:
            path.unlink()
        print(f"removed {len(shards)} shards")


def default_output(shards: Sequence[Path]) -> Path:
    """The name that all shards share.

    Raises:
        ValueError: they do not share one, or are not named like shards.
    """
    names = {store_of_shard(path) for path in shards}
    if len(names) > 1:
        raise ValueError(
            f"the shards belong to several stores by their names ({', '.join(sorted(map(str, names))[:3])}); "
            "give --output"
        )
    return names.pop()


def _check_same_content(shards: Sequence[Path], output: Path) -> None:
    """Raise ValueError unless a store that was there before is sound and holds the very rows of the shards."""
    problems = verify_store(output)
    if problems:
        raise ValueError(
            f"the shards were kept, as {output} was there before and is damaged ({problems[0]}); "
            "pass --overwrite to merge them again"
        )
    with ExitStack() as files:
        whole, *parts = (files.enter_context(open_store(path, SCHEMAS)) for path in (output, *shards))
        for shard in parts:
            for local in range(shard.header.layout.chunks):
                number = shard.number(local)
                entry, data = whole.entry(whole.local(number)), shard.chunk(local)
                # the shard's rows must have the digest of the store's
                if chunk_digest(number, entry, data, whole.info) != entry["digest"].tobytes():
                    raise ValueError(
                        f"the shards were kept, as {output} was there before and holds other rows than {shard.path} in "
                        f"chunk {number}; pass --overwrite to merge them again"
                    )
