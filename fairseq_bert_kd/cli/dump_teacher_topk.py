"""``fairseq-bert-kd dump``: a teacher's top-k logits for every target position, stored beside the data."""

import argparse
import importlib
import logging
import math
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import fairseq_bert_kd
from fairseq_bert_kd.functional.left_to_right import LEFT_TO_RIGHT
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest, open_pairs, read_dictionary
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.schema import differing_fields
from fairseq_bert_kd.storage.shards import Shard, shard_path
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, STRIDED_PLAN, TopKInfo, scoring_plan
from fairseq_bert_kd.storage.topk_store import DEFAULT_NAME, TopKReader, store_path
from fairseq_bert_kd.teachers import distributed
from fairseq_bert_kd.teachers.dump import StoreDump
from fairseq_bert_kd.teachers.load import Teacher, load_teacher
from fairseq_bert_kd.teachers.plan import number_of_passes

logger = logging.getLogger(__name__)

HELP = "store a teacher's top-k logits for every target position"
EXAMPLE = "example: fairseq-bert-kd dump data-bin --path teacher/checkpoint_best.pt --topk 8 --passes 7"
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
MAX_TOKENS = {"cpu": 8192, "cuda": 32768}  # our choice; more does not make either faster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "data",
        help="folder that fairseq-preprocess wrote, or several separated by colons; stores go into them",
    )
    parser.add_argument(
        "--path", required=True, help="checkpoint of a teacher (--task conditional_masked_lm)"
    )
    parser.add_argument(
        "--subset",
        default="train",
        help="split to score, or several separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--name",
        default=DEFAULT_NAME,
        help="of the store among several of the same data (other teachers, other --passes), SPLIT.SRC-TGT.TGT.NAME.topk; "
        "training mixes them with --kd-stores (default: none)",
    )
    what = parser.add_argument_group("what is stored")
    what.add_argument(
        "--topk", type=int, default=8, help="tokens per position (default: %(default)s, as in the paper)"
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
        help="also store R tokens a position, drawn with replacement from the teacher's distribution at temperature 1 "
        "outside the stored tokens; their share of the mass is what the stored ones leave (default: 0)",
    )
    what.add_argument("--seed", type=int, default=1, help="of these draws (default: %(default)s)")
    what.add_argument(
        "--passes",
        type=int,
        default=None,
        help="each position is masked in one of this many passes, so 1/PASSES of a target is hidden at a time "
        "(default: 7, as in the paper: close to the 15 %% of training); not applicable to a left-to-right teacher, "
        "which hides nothing and needs one",
    )
    how = parser.add_argument_group("how it is computed")
    how.add_argument(
        "--max-tokens",
        type=int,
        default=None,
        help="source and target tokens of a batch, padding included (default: 32768 on a GPU, 8192 on a CPU)",
    )
    how.add_argument(
        "--chunk-sentences",
        type=int,
        default=1024,
        help="sentences that are sorted by length, scored and written together; what a crash loses "
        "(default: %(default)s)",
    )
    how.add_argument(
        "--precision",
        choices=sorted(PRECISIONS),
        default=None,
        help="arithmetic of the teacher (default: fp16 on a GPU, fp32 on a CPU)",
    )
    how.add_argument(
        "--compile", action="store_true", help="compile the teacher's encoder with torch.compile"
    )
    how.add_argument("--cpu", action="store_true", help="do not use a GPU")
    how.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="score only the I-th of N parts, on any machine and in any order; join them with `store merge`",
    )
    how.add_argument(
        "--plan", action="store_true", help="print sizes and an estimate of the time; write nothing"
    )
    how.add_argument(
        "--overwrite", action="store_true", help="replace an existing store, drop unfinished work"
    )


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-bert-kd dump", description=HELP)
    add_arguments(parser)
    return parser


def register() -> None:
    """Register our tasks and models with fairseq, which builds the teacher by their names."""
    importlib.import_module("fairseq_bert_kd.tasks")


def main(args: argparse.Namespace) -> None:
    check_arguments(args)
    parse_shard(args.shard)
    register()
    distributed.launch(dump_all, args, cpu=args.cpu, world_size=1 if args.plan else None)


def dump_all(args: argparse.Namespace, rank: int, world_size: int) -> None:
    """Score every split of every data folder, as one of ``world_size`` processes."""
    register()  # in a process that was started for a GPU too
    on_gpu = torch.cuda.is_available() and not args.cpu
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    folders = args.data.split(":")
    teacher = load_teacher(args.path, folders[0])
    precision = args.precision or ("fp16" if device.type == "cuda" else "fp32")
    teacher.model.to(device=device, dtype=PRECISIONS[precision])
    if args.compile:
        teacher.model.encoder = torch.compile(teacher.model.encoder, dynamic=True)
    shard, dumps = parse_shard(args.shard), []
    for folder in folders:
        refuse_other_dictionaries(folder, teacher)
        for subset in args.subset.split(","):
            info = store_info(args, teacher, subset, precision, device)
            pairs = open_pairs(folder, subset, info.source_lang, info.target_lang)
            path = store_path(folder, subset, info.source_lang, info.target_lang, args.name)
            dumps.append((StoreDump(teacher, pairs, info, device), path))
    # what cannot be written is told before the first of them is scored
    if not args.plan and not args.overwrite:
        for dump, path in dumps:
            if shard_path(path, shard).exists():
                refuse_other_store(shard_path(path, shard), dump)
    for dump, path in dumps:
        if args.plan:
            print_plan(dump, path, shard, args.shard)
        else:
            dump_split(dump, path, args, rank, world_size)


def dump_split(dump: StoreDump, path: Path, args: argparse.Namespace, rank: int, world_size: int) -> None:
    """Write one store, or one shard of it; several processes share the work and the first joins it."""
    asked = parse_shard(args.shard)
    # together they hold the sentences of the shard that was asked for, so machines may have other numbers of GPUs
    parts = [Shard(asked.index + i * asked.count, asked.count * world_size) for i in range(world_size)]
    part, started = parts[rank], time.perf_counter()
    joined = asked.count == 1 and world_size > 1  # all parts are made here
    finished = joined and not args.overwrite and path.exists()
    if finished:
        tokens = 0  # and it is this one, see `dump_all`
    else:
        with progress_bar(dump, part, f"dump {dump.info.split}", rank) as bar:
            tokens = dump.run(path, part, args.overwrite, bar.update)
            rate = tokens / max(time.perf_counter() - started, 1e-9)
    distributed.wait_for_all(world_size)
    if joined and rank == 0:
        shards = [shard_path(path, part) for part in parts]
        if not finished:
            merge_shards(shards, path, args.overwrite)
        for shard in shards:
            shard.unlink(missing_ok=True)
    distributed.wait_for_all(world_size)
    if rank == 0:
        if tokens:
            seconds = time.perf_counter() - started
            print(f"{seconds:.1f} s, {rate * world_size:,.0f} source and target tokens per second")
        else:
            print(f"{path if joined else shard_path(path, part)} is complete already: nothing to score")
        for written in [path] if joined else [shard_path(path, part) for part in parts]:
            report(written)


def store_info(
    args: argparse.Namespace, teacher: Teacher, subset: str, precision: str, device: torch.device
) -> TopKInfo:
    """What the store will say about itself."""
    cfg, dictionary = teacher.task.cfg, teacher.task.target_dictionary
    left_to_right = teacher.model.attention == LEFT_TO_RIGHT
    return TopKInfo(
        k=args.topk,
        dictionary_size=len(dictionary),
        dictionary_digest=dictionary_digest(dictionary.symbols),
        split=subset,
        source_lang=cfg.source_lang,
        target_lang=cfg.target_lang,
        passes=number_of_passes(teacher.model, args.passes, "--passes"),
        teacher="/".join(Path(args.path).absolute().parts[-2:]),
        teacher_digest=teacher.digest,
        mask_ratio=0.0 if left_to_right else cfg.cmlm_mask_prob,
        versions={
            "fairseq-bert-kd": fairseq_bert_kd.__version__,
            **{name: metadata.version(name) for name in ("torch", "transformers", "numpy")},
        },
        temperatures=tuple(sorted(set(args.temperatures))),
        gold=args.gold,
        samples=args.samples,
        sample_seed=args.seed if args.samples else 0,
        source_dictionary_digest=dictionary_digest(teacher.task.source_dictionary.symbols),
        tokenizer_digest=teacher.model.digests.get("tokenizer", ""),
        precision=precision + (" compiled" if args.compile else ""),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        max_tokens=args.max_tokens or MAX_TOKENS[device.type],
        chunk_sentences=args.chunk_sentences,
        mask_plan=PREFIX_PLAN if left_to_right else STRIDED_PLAN,
    )


def check_arguments(args: argparse.Namespace) -> None:
    """ValueError for numbers that cannot be meant."""
    for option, value in (
        ("--topk", args.topk),
        ("--passes", args.passes),
        ("--chunk-sentences", args.chunk_sentences),
        ("--max-tokens", args.max_tokens),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}; the paper uses --topk 8 --passes 7")
    if args.seed < 0:
        raise ValueError(f"--seed must not be negative, got {args.seed}")
    store_path(args.data, args.subset, "a", "b", args.name)  # refuses a name that is none
    if args.samples < 0:
        raise ValueError(f"--samples must not be negative, got {args.samples}")
    bad = next((t for t in args.temperatures if not 0 < t < math.inf), None)
    if bad is not None:
        raise ValueError(f"--temperatures must be positive, got {bad:g}; the paper uses 5 and 10")


def parse_shard(text: str) -> Shard:
    """``2/7`` as the second of seven."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"--shard must be I/N with I from 1 to N, got `{text}`; for example --shard 2/7")
    return Shard(int(number) - 1, int(count))


def refuse_other_dictionaries(folder: str, teacher: Teacher) -> None:
    """ValueError when a data folder has other dictionaries than the teacher; the host looks at the first only."""
    for lang, dictionary in (
        (teacher.task.cfg.source_lang, teacher.task.source_dictionary),
        (teacher.task.cfg.target_lang, teacher.task.target_dictionary),
    ):
        path = Path(folder) / f"dict.{lang}.txt"
        if path.exists() and read_dictionary(path) != dictionary.symbols:
            raise ValueError(
                f"{path} is not the dictionary that the teacher was trained with; binarise this folder with the "
                "teacher's (fairseq-preprocess --srcdict/--tgtdict)"
            )


def refuse_other_store(path: Path, dump: StoreDump) -> None:
    """FileExistsError unless the store, or the shard of one, is what this command would write."""
    try:
        reader = TopKReader(path, shard=True)
        differences = differing_fields(reader.info, dump.info)
        if not differences and reader.header.corpus_sentences != dump.sentences:
            differences = [f"{reader.header.corpus_sentences:,} sentences against {dump.sentences:,}"]
    except ValueError as error:
        differences = [str(error)]
    if differences:
        raise FileExistsError(
            f"store {path} exists and differs ({'; '.join(differences[:3])}); pass --overwrite to replace it"
        )
    dump.refuse_changed_data(path)


def progress_bar(dump: StoreDump, shard: Shard, label: str, rank: int) -> Any:
    """Tokens of this process's shard."""
    counts = dump.count(shard)
    if counts["too_long"] and rank == 0:
        logger.warning(
            "%d of %d pairs (%.2f %%) are longer than the teacher's %d positions: stored as missing, students "
            "learn them from labels alone",
            counts["too_long"],
            counts["sentences"],
            100.0 * counts["too_long"] / counts["sentences"],
            dump.limit,
        )
    return tqdm(
        total=counts["tokens"], unit="tok", unit_scale=True, desc=label, disable=rank > 0, file=sys.stderr
    )


def print_plan(dump: StoreDump, path: Path, shard: Shard, name: str) -> None:
    """Sizes, and a time from some measured batches."""
    counts = dump.count(shard)
    rate = dump.measure(shard)
    free = os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
    print(f"{shard_path(path, shard)}: nothing written (--plan), shard {name}")
    print(f"  sentences        {counts['sentences']:>15,}  ({counts['too_long']:,} too long for the teacher)")
    print(f"  target positions {counts['positions']:>15,}")
    print(f"  passes           {dump.info.passes:>15,}")
    print(f"  tokens to score  {counts['tokens']:>15,}  source and target, over all passes")
    print(
        f"  bytes            {counts['bytes']:>15,}  {dump.info.record_dtype.itemsize} a position; {free:,} free"
    )
    if rate:
        seconds = counts["tokens"] / rate
        print(
            f"  estimated time   {_duration(seconds):>15}  at {rate:,.0f} tokens/s on one {dump.info.device}"
        )


def report(path: Path) -> None:
    """Print what is in the store and how well the teacher knows the gold tokens."""
    reader = TopKReader(path, shard=True)
    info, layout, summary = reader.info, reader.header.layout, reader.header.summary
    assert summary is not None
    missing = summary["missing_sentences"]
    covered, rows = len(reader) - sum(missing.values()), max(layout.rows, 1)
    why = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in missing.items() if count)
    print(
        f"{path}: {layout.file_bytes:,} bytes, {layout.rows:,} positions, {layout.file_bytes / rows:.1f} bytes a "
        f"position ({info.record_dtype.itemsize} without header and index), k={info.k}, {scoring_plan(info)}"
    )
    print(
        f"sentences with teacher rows: {covered:,} of {len(reader):,} "
        f"({100.0 * covered / max(len(reader), 1):.2f} %){'; missing: ' + why if why else ''}"
    )
    if summary["gold_nll"] is not None:
        print(
            f"teacher on the gold tokens: accuracy {100.0 * summary['gold_accuracy']:.2f} %, perplexity "
            f"{math.exp(min(summary['gold_nll'], 700)):.2f}"
        )
    for temperature, mass in zip(info.temperatures, summary["captured_mass"], strict=True):
        if mass is not None:
            print(f"the top {info.k} hold {100.0 * mass:.2f} % of its mass at temperature {temperature:g}")


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02} h"
