"""``fairseq-bert-kd dump``: a teacher's top-k logits for every target position, stored beside the data."""

import argparse
import functools
import importlib
import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch

from fairseq_bert_kd.cli import dump_options
from fairseq_bert_kd.cli.dump_options import PRECISIONS, check_arguments, parse_shard
from fairseq_bert_kd.cli.dump_smoothing import check_side, dump_inputs
from fairseq_bert_kd.cli.run_dump import (
    chosen_device,
    chosen_precision,
    compile_encoder,
    dump_split,
    finished_stores,
    print_captured_mass,
    scored_by,
    short_name,
)
from fairseq_bert_kd.cli.store_folder import NOT_WRITABLE, existing_folder, is_writable
from fairseq_bert_kd.data.run_hints import log_unknown, say_threads
from fairseq_bert_kd.functional.text_input import LEFT_TO_RIGHT
from fairseq_bert_kd.storage.entity_mentions import MentionsByRow, read_mentions
from fairseq_bert_kd.storage.fairseq_data import Sides, dictionary_digest, open_pairs, read_dictionary
from fairseq_bert_kd.storage.folds import Fold, FoldTeacher, fold_path, parse_fold
from fairseq_bert_kd.storage.shards import Shard, shard_path
from fairseq_bert_kd.storage.store_folders import store_folders
from fairseq_bert_kd.storage.token_counts import frequency_nll
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, STRIDED_PLAN, TopKInfo, scoring_plan
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from fairseq_bert_kd.teachers import distributed
from fairseq_bert_kd.teachers.load import Teacher, entities_digest, entity_span, load_teacher
from fairseq_bert_kd.teachers.plan import number_of_passes
from fairseq_bert_kd.teachers.topk_dump import TopKDump

logger = logging.getLogger(__name__)

HELP = "store a teacher's top-k logits for every target position, or for every input word"
EXAMPLE = "example: fairseq-bert-kd dump data-bin --path teacher/checkpoint_best.pt --topk 8 --passes 7"
add_arguments = dump_options.add_arguments


def main(args: argparse.Namespace) -> None:
    if args.topk is None:
        args.topk = dump_options.DEFAULT_TOPK[args.side]
    check_arguments(args)
    check_side(args)
    of_inputs = args.side != dump_options.TARGET
    distributed.launch(
        dump_inputs if of_inputs else dump_all, args, cpu=args.cpu, world_size=1 if args.plan else None
    )


def dump_all(args: argparse.Namespace, rank: int, world_size: int) -> None:
    """Score every split of every data folder, as one of ``world_size`` processes."""
    # in every process: fairseq builds the teacher by registered names
    importlib.import_module("fairseq_bert_kd.tasks")
    device = chosen_device(args)
    if rank == 0:
        say_threads(device.type)
    folders = args.data.split(":")
    store_dirs = store_folders(folders, args.store_dir, "--store-dir")
    teacher = load_teacher(args.path, folders[0])
    fold = parse_fold(args.teacher_fold) if args.teacher_fold else None
    check_fold(args.path, teacher, fold, args.subset.split(","))
    precision = chosen_precision(args, device)
    teacher.model.to(device=device, dtype=PRECISIONS[precision])
    if args.compile:
        compile_encoder(teacher.model)
    unknown = {
        "source": teacher.task.source_dictionary.unk(),
        "target": teacher.task.target_dictionary.unk(),
    }
    shard, dumps = parse_shard(args.shard), []
    for folder, store_dir in zip(folders, store_dirs, strict=True):
        check_same_dictionaries(folder, teacher)
        for subset in args.subset.split(","):
            info = store_info(args, teacher, subset, precision, device)
            pairs = open_pairs(folder, subset, info.source_lang, info.target_lang)
            if rank == 0:
                log_unknown(subset, pairs, unknown)
            path = store_path(store_dir, subset, info.source_lang, info.target_lang, args.name)
            mentions = mentions_for(teacher, folder, subset, pairs)
            info = replace(info, mentions_digest=mentions.digest if mentions else "")
            dumps.append((TopKDump(teacher, pairs, info, device, mentions), fold_path(path, fold)))
    if args.plan:
        for dump, path in dumps:
            print_plan(dump, path, shard, args.shard)
        return
    finished = finished_stores(dumps, shard, args.overwrite, rank, world_size)
    for dump, path in dumps:
        show = functools.partial(report, dump)
        dump_split(dump, path, args, rank, world_size, show, path in finished)


def store_info(
    args: argparse.Namespace, teacher: Teacher, subset: str, precision: str, device: torch.device
) -> TopKInfo:
    """Description of the store that the options make."""
    cfg = teacher.task.cfg
    fold_teacher = FoldTeacher(args.teacher_fold, short_name(args.path), teacher.digest)
    attention = teacher.model.text_layout().attention
    left_to_right = attention == LEFT_TO_RIGHT
    return TopKInfo(
        split=subset,
        source_lang=cfg.source_lang,
        target_lang=cfg.target_lang,
        passes=number_of_passes(attention, args.passes, "--passes"),
        mask_ratio=0.0 if left_to_right else cfg.cmlm_mask_prob,
        gold=args.gold,
        samples=args.samples,
        sample_seed=args.seed if args.samples else 0,
        source_dictionary_digest=dictionary_digest(teacher.task.source_dictionary.symbols),
        mask_plan=PREFIX_PLAN if left_to_right else STRIDED_PLAN,
        folds=(fold_teacher,) if args.teacher_fold else (),
        entities_digest=entities_digest(teacher.model),
        **scored_by(args, teacher, precision, device),
    )


def mentions_for(teacher: Teacher, folder: str, subset: str, pairs: Sides) -> MentionsByRow | None:
    """Mentions of a split for a teacher that reads entities; None for another one.

    Raises:
        FileNotFoundError: the split has none.
        ValueError: they are of other vectors or of other rows, or mark other pieces.
    """
    digest = entities_digest(teacher.model)
    if not digest:
        return None
    texts = list(pairs.values())
    mentions = read_mentions(folder, subset, texts, digest, entity_span(teacher.model))
    return MentionsByRow(mentions, len(texts[0]), len(texts))


def check_fold(path: str, teacher: Teacher, fold: Fold | None, subsets: Sequence[str]) -> None:
    """ValueError if a teacher has seen the sentences of a fold, or is of a fold and would score what it has seen."""
    if fold is not None and teacher.fold != fold:
        trained = f"with --teacher-fold {teacher.fold}" if teacher.fold else "on all pairs"
        raise ValueError(
            f"--teacher-fold {fold}: checkpoint `{path}` was trained {trained} and has seen sentences of this fold; give the "
            f"teacher that was trained with --teacher-fold {fold}"
        )
    # fairseq trains on train, train1, train2, ...
    parts = re.compile(rf"{re.escape(teacher.task.cfg.train_subset)}\d*")
    seen = next((subset for subset in subsets if parts.fullmatch(subset)), None)
    if fold is None and teacher.fold is not None and seen is not None:
        raise ValueError(
            f"checkpoint `{path}` was trained with --teacher-fold {teacher.fold} and has seen the other pairs of `{seen}`; give "
            f"dump --teacher-fold {teacher.fold} too, or a teacher of all pairs"
        )


def check_same_dictionaries(folder: str, teacher: Teacher) -> None:
    """ValueError if a data folder has other dictionaries than the teacher; fairseq reads those of the first only."""
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


def print_plan(dump: TopKDump, path: Path, shard: Shard, name: str) -> None:
    """Print sizes, and an estimate of the time from some measured batches."""
    counts = dump.count(shard)
    rate = dump.measure(shard)
    disk = os.statvfs(existing_folder(path.parent))
    print(f"{shard_path(path, shard)}: nothing written (--plan), shard {name}")
    if not is_writable(path.parent):
        print(f"  {NOT_WRITABLE}")
    print(f"  sentences        {counts['sentences']:>15,}  ({counts['too_long']:,} too long for the teacher)")
    print(f"  target positions {counts['positions']:>15,}")
    print(f"  passes           {dump.info.passes:>15,}")
    print(f"  tokens to score  {counts['tokens']:>15,}  source and target, over all passes")
    print(
        f"  bytes            {counts['bytes']:>15,}  {dump.info.record_dtype.itemsize} per position; "
        f"{disk.f_bavail * disk.f_frsize:,} free"
    )
    if rate:
        seconds = counts["tokens"] / rate
        print(
            f"  estimated time   {timedelta(seconds=round(seconds))!s:>15}  at {rate:,.0f} tokens/s on one {dump.info.device}"
        )


def report(dump: TopKDump, path: Path) -> None:
    """Print the contents of the store and how well the teacher predicts the gold tokens.

    Beside it stands what the gold tokens' own frequencies predict.

    Args:
        dump: what was written.
        path: finished store, or shard of one.
    """
    by_frequency = frequency_nll(dump.pairs["target"], dump.info.dictionary_size)
    reader = TopKReader(path, shard=True)
    info, layout, summary = reader.info, reader.header.layout, reader.header.finished
    covered, rows = len(reader) - reader.missing_sentences, max(layout.rows, 1)
    why = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in reader.header.missing.items())
    print(
        f"{path}: {layout.file_bytes:,} bytes, {layout.rows:,} positions, {layout.file_bytes / rows:.1f} bytes per "
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
            + (f"; their frequencies alone: {math.exp(by_frequency):.2f}" if by_frequency is not None else "")
        )
        if by_frequency is not None and summary["gold_nll"] >= by_frequency:
            logger.warning(
                "the teacher predicts no better than how often each token occurs: it has learned nothing of the task, and its "
                "students will do worse than without it; train it longer or on more text, and dump it again"
            )
    print_captured_mass(info, summary)
