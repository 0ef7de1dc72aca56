"""Options of ``fairseq-bert-kd dump`` and their checks."""

import argparse
from typing import Any

import torch

from fairseq_bert_kd.cli.store_folder import add_store_dir
from fairseq_bert_kd.storage.folds import parse_fold
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.smoothing_store import SENTENCES, SOURCE, UNMASKED, VIEWS
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME, store_path
from fairseq_bert_kd.teachers.token_rows import check_settings

TARGET = "target"
SIDES = (TARGET, SOURCE, SENTENCES)
DEFAULT_TOPK = {TARGET: 8, SOURCE: 16, SENTENCES: 16}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        help="folder that fairseq-preprocess wrote, or several separated by colons; stores go into them, or to --store-dir",
    )
    parser.add_argument(
        "--path",
        required=True,
        help="checkpoint of a teacher (--task conditional_masked_lm); for --side sentences or source also a transformers folder",
    )
    parser.add_argument(
        "--subset",
        default="train",
        help="split to score, or several separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--name",
        default=DEFAULT_NAME,
        help="name of the store among several of the same data (other teachers, other --passes), SPLIT.SRC-TGT.TGT.NAME.topk; "
        "training mixes them with --kd-stores (default: none)",
    )
    add_store_dir(parser)
    parser.add_argument(
        "--teacher-fold",
        metavar="I/N",
        help="score only the I-th of N folds, which the teacher was trained without (--teacher-fold of its training): "
        "STORE.fold-I-of-N; `store merge` joins all folds (default: score all sentences)",
    )
    _add_side(parser)
    what = parser.add_argument_group("what is stored")
    what.add_argument(
        "--topk",
        type=int,
        default=None,
        help="tokens per position (default: 8, as in the paper; 16 for --side source and sentences, our choice)",
    )
    what.add_argument(
        "--temperatures",
        type=float,
        nargs="+",
        default=[1.0, 5.0, 10.0],
        metavar="T",
        help="a log-normaliser over the whole dictionary is stored for each: with it the mass outside the stored "
        "tokens is exact (default: 1 5 10, the last two from the paper)",
    )
    what.add_argument(
        "--gold", action="store_true", help="also store the gold token's logit, wherever it ranks"
    )
    what.add_argument(
        "--samples",
        type=int,
        default=0,
        metavar="R",
        help="also store R tokens per position, drawn with replacement from the teacher's distribution at temperature 1 "
        "outside the stored tokens; they stand for the mass that the stored ones leave (default: 0)",
    )
    what.add_argument("--seed", type=int, default=1, help="seed of these draws (default: %(default)s)")
    what.add_argument(
        "--passes",
        type=int,
        default=None,
        help="each position is masked in one of this many passes, so 1/PASSES of a target is hidden at a time "
        "(default: 7, as in the paper: close to the 15 %% of training); not applicable to a left-to-right teacher, "
        "which hides nothing and needs one",
    )
    how = add_running_arguments(parser, "source and target tokens")
    how.add_argument(
        "--compile", action="store_true", help="compile the teacher's encoder with torch.compile"
    )
    how.add_argument(
        "--plan", action="store_true", help="print sizes and an estimate of the time; write nothing"
    )


def _add_side(parser: argparse.ArgumentParser) -> None:
    """Options of text smoothing, which stores rows for inputs."""
    side = parser.add_argument_group("which text")
    side.add_argument(
        "--side",
        choices=SIDES,
        default=TARGET,
        help="target: soft labels for a translation corpus's targets; source, sentences: rows for its sources, or for a folder of "
        "`prepare-sentences`, by a masked language model of single sentences, for text smoothing (default: %(default)s)",
    )
    side.add_argument(
        "--view",
        choices=VIEWS,
        default=UNMASKED,
        help="of --side source and sentences: unmasked, the model sees the whole text (the paper's); masked, it predicts each "
        "position without seeing it, in --passes passes (ours) (default: %(default)s)",
    )
    side.add_argument("--source-lang", default=None, help="of --side source: as in the data's file names")
    side.add_argument("--target-lang", default=None, help="of --side source: as in the data's file names")


def add_running_arguments(parser: argparse.ArgumentParser, counted: str) -> Any:
    """Options of every dump: batches, precision, device, shard; the group, for more of them.

    Args:
        parser: parser of the command.
        counted: what ``--max-tokens`` counts.
    """
    how = parser.add_argument_group("how it is computed")
    how.add_argument(
        "--max-tokens",
        type=int,
        default=None,
        help=f"{counted} of a batch, padding included (default: 32768 on a GPU, 8192 on a CPU)",
    )
    how.add_argument(
        "--chunk-sentences",
        type=int,
        default=1024,
        help="sentences that are sorted by length, scored and written together; a crash loses at most one such chunk "
        "(default: %(default)s)",
    )
    how.add_argument(
        "--precision",
        choices=sorted(PRECISIONS),
        default=None,
        help="arithmetic of the teacher (default: fp16 on a GPU, fp32 on a CPU)",
    )
    how.add_argument("--cpu", action="store_true", help="do not use a GPU")
    how.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="score only the I-th of N parts, in any order, on any machine with the same kind of device and the same versions of "
        "torch, transformers and numpy; join them with `store merge`",
    )
    how.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing store, and drop unfinished work that had other settings",
    )
    return how


def check_arguments(args: argparse.Namespace) -> None:
    """ValueError for out-of-range numbers."""
    check_settings(args.topk, args.passes, args.max_tokens, args.temperatures, args.samples, args.seed)
    check_running_arguments(args)
    if args.teacher_fold:
        parse_fold(args.teacher_fold, "--teacher-fold")
    store_path(args.data, args.subset, "a", "b", args.name)  # ValueError for a name that cannot be one


def check_running_arguments(args: argparse.Namespace) -> None:
    """ValueError for out-of-range numbers and names of `add_running_arguments`."""
    for name in ("max_tokens", "chunk_sentences"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    parse_shard(args.shard)


def parse_shard(text: str) -> Shard:
    """``2/7`` as the second of seven."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"--shard must be I/N with I from 1 to N, got `{text}`; for example --shard 2/7")
    return Shard(int(number) - 1, int(count))
