"""``fairseq-bert-kd store merge``: the shards of a dump, or its folds, as one store."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fairseq_bert_kd.cli.store_tools import printable, progress_bar
from fairseq_bert_kd.storage.folds import is_fold_path, store_of_fold
from fairseq_bert_kd.storage.header import Header, open_header
from fairseq_bert_kd.storage.known_schemas import SCHEMAS
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.merge_folds import merge_folds
from fairseq_bert_kd.storage.shards import store_of_shard
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.verify import verify_store

HELP = """Join all shards of a dump (`fairseq-bert-kd dump --shard I/N`) to the store that a dump without shards gives,
byte by byte. Or join the stores of all folds (`dump --teacher-fold I/N`) to one in which every sentence was scored by the
teacher that has not seen it. Goes on where an earlier merge was stopped."""
EXAMPLE = """examples:
  fairseq-bert-kd store merge data-bin/train.de-en.en.topk.shard-* --remove-shards
  fairseq-bert-kd store merge data-bin/train.de-en.en.topk.fold-*-of-4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shards", nargs="+", metavar="SHARD", help="all shards, or the stores of all folds, in any order"
    )
    parser.add_argument(
        "--output",
        metavar="STORE",
        help="file to write (default: the shards' name without `.shard-I-of-N`, the folds' without `.fold-I-of-N`)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")
    parser.add_argument(
        "--remove-shards",
        action="store_true",
        help="delete the shards (or folds) once the store is complete and on disk",
    )


def main(args: argparse.Namespace) -> None:
    shards = [Path(path) for path in args.shards]
    output = Path(args.output) if args.output is not None else default_output(shards)
    if any(output.exists() and path.exists() and path.samefile(output) for path in shards):
        raise ValueError(f"--output {output} is one of the shards; give another name")
    headers = [open_header(path, SCHEMAS) for path in shards]
    of_folds, layouts = _are_folds(headers), [header.layout for header in headers]
    was_there = output.exists() and not args.overwrite  # then complete, or refused below
    total = sum(layout.ends["records"] - layout.starts["records"] for layout in layouts)
    with progress_bar(f"merge {output.name}", total) as bar:
        merge = merge_folds if of_folds else merge_shards
        merge(shards, output, args.overwrite, bar.update)
    kind = "folds" if of_folds else "shards"
    done = "was complete already" if was_there else f"merged from {len(shards)} {kind}"
    written = open_header(output, SCHEMAS)
    layout, missing = written.layout, sum(written.missing.values())
    counts = f"{layout.sentences:,} sentences, {layout.rows:,} rows, {missing:,} sentences missing"
    print(printable(f"{output}: {done}: {counts}"))
    if args.remove_shards:
        if was_there and (problems := verify_store(output)):
            raise ValueError(
                f"the {kind} were kept, as {output} was there before and is damaged ({problems[0]}); pass --overwrite to merge "
                "them again"
            )
        for path in shards:
            path.unlink()
        print(f"removed {len(shards)} {kind}")


def _are_folds(headers: Sequence[Header]) -> bool:
    """Whether these are stores of folds, and not the shards of one fold."""
    folds = {info.fold for info in (header.info for header in headers) if isinstance(info, TopKInfo)} - {None}
    return bool(folds) and (len(folds) > 1 or all(header.shard.count == 1 for header in headers))


def default_output(shards: Sequence[Path]) -> Path:
    """The name that all shards, or all folds, share.

    Raises:
        ValueError: they do not share one, or are not named like shards.
    """
    of_folds = [is_fold_path(path) for path in shards]
    names = {
        (store_of_fold if of_fold else store_of_shard)(path)
        for path, of_fold in zip(shards, of_folds, strict=True)
    }
    if len(names) > 1:
        raise ValueError(
            f"the {'folds' if all(of_folds) else 'shards'} belong to several stores by their names ({', '.join(sorted(map(str, names))[:3])}); "
            "give --output"
        )
    return names.pop()
