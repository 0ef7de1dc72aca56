"""``fairseq-bert-kd store show``: what a store holds for a sentence, as text."""

import argparse
import importlib
from pathlib import Path

from fairseq_bert_kd.storage.header import open_header
from fairseq_bert_kd.storage.known_schemas import SCHEMAS
from fairseq_bert_kd.storage.smoothing_store import SentenceSmoothingInfo, SourceSmoothingInfo
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.vector_store import VectorInfo

HELP = """Print a sentence of a store. Of token rows: at each target position the teacher's best tokens and their probabilities; a
gold token among them is marked with *. Of sentence vectors: length, largest numbers, and the nearest other sentences."""
EXAMPLE = """examples:
  fairseq-bert-kd store show data-bin/train.de-en.en.topk 12 --data data-bin --temperature 5
  fairseq-bert-kd store show data-corpus/train.sentences.vec 12 --data data-corpus --top 3"""
# schema -> module whose ``main(args)`` prints it
MODULES = {
    TopKInfo.schema: "fairseq_bert_kd.cli.store_show_topk",
    SourceSmoothingInfo.schema: "fairseq_bert_kd.cli.store_show_topk",
    SentenceSmoothingInfo.schema: "fairseq_bert_kd.cli.store_show_topk",
    VectorInfo.schema: "fairseq_bert_kd.cli.store_show_vectors",
}


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
    schema = open_header(Path(args.store), SCHEMAS).info.schema
    importlib.import_module(MODULES[schema]).main(args)
