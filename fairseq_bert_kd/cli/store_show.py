"""``fairseq-bert-kd store show``: what a store holds for a sentence, as text."""

import argparse

from fairseq_bert_kd.cli.store_tools import module_for

HELP = """Print a sentence of a store. Of token rows: at each target position the teacher's best tokens and their probabilities; a
gold token among them is marked with *. Of sentence vectors: length, largest numbers, and the nearest other sentences."""
EXAMPLE = """examples:
  fairseq-bert-kd store show data-bin/train.de-en.en.topk 12 --data data-bin --temperature 5
  fairseq-bert-kd store show data-corpus/train.sentences.vec 12 --data data-corpus --top 3"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="store, or a shard of one")
    parser.add_argument("sentence", metavar="SENTENCE", type=int, help="corpus index, from 0")
    parser.add_argument(
        "--data", metavar="FOLDER", help="what fairseq-preprocess wrote; also print the pieces of all sides"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="of token rows: divides the teacher's logits; one of the stored (default: 1, or the lowest stored)",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help="tokens per position (default: 5, or all where fewer are stored), or nearest sentences (default: 5)",
    )


def main(args: argparse.Namespace) -> None:
    """Print the sentence with the module of the store's schema; raises as `open_header`."""
    module_for("show", args.store).main(args)
