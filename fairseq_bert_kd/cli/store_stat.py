"""``fairseq-bert-kd store stat``: the header of a store, and statistics of its rows."""

import argparse

from fairseq_bert_kd.cli.store_tools import module_for

HELP = """Print the header of a store and statistics of its rows. Of token rows: how much of the teacher's probability they hold,
and which k and temperature fit. Of sentence vectors: their mean length, and the mean cosine of random pairs. Reads a sample;
`store verify` checks everything."""
EXAMPLE = """examples:
  fairseq-bert-kd store stat data-bin/train.de-en.en.topk --rows 0
  fairseq-bert-kd store stat data-corpus/train.sentences.vec"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="store, or a shard of one")
    parser.add_argument(
        "--rows",
        type=int,
        default=1_000_000,
        metavar="N",
        help="read about this many rows, in whole chunks spread evenly (vectors: drawn at random); 0 for all (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def main(args: argparse.Namespace) -> None:
    """Print the store with the module of its schema; raises as `open_header`, and ValueError for a negative ``--rows``."""
    if args.rows < 0:
        raise ValueError(f"--rows must be at least 0 (all), got {args.rows}; the default is 1000000")
    module_for("stat", args.store).main(args)
