"""``fairseq-bert-kd dump --side source|sentences``: what a masked language model expects in the place of input words."""

import argparse
import functools
import importlib
import logging
from pathlib import Path
from typing import Any

import torch

from fairseq_bert_kd.cli.dump_options import PRECISIONS, parse_shard
from fairseq_bert_kd.cli.run_dump import (
    chosen_device,
    chosen_precision,
    compile_encoder,
    dump_split,
    finished_stores,
    print_captured_mass,
    scored_by,
)
from fairseq_bert_kd.storage.fairseq_data import open_sides
from fairseq_bert_kd.storage.sentence_data import read_spec
from fairseq_bert_kd.storage.smoothing_store import (
    MASKED,
    SENTENCES,
    SOURCE,
    UNMASKED,
    SentenceSmoothingInfo,
    SentenceSmoothingReader,
    SmoothingInfo,
    SourceSmoothingInfo,
    SourceSmoothingReader,
    smoothing_store_path,
)
from fairseq_bert_kd.storage.store_folders import store_folders
from fairseq_bert_kd.storage.topk import STRIDED_PLAN
from fairseq_bert_kd.teachers.load import Teacher
from fairseq_bert_kd.teachers.load_smoother import load_smoother
from fairseq_bert_kd.teachers.plan import number_of_passes
from fairseq_bert_kd.teachers.topk_dump import TopKDump

logger = logging.getLogger(__name__)

READERS = {SOURCE: SourceSmoothingReader, SENTENCES: SentenceSmoothingReader}
INFOS: dict[str, type[SmoothingInfo]] = {SOURCE: SourceSmoothingInfo, SENTENCES: SentenceSmoothingInfo}


class SmoothingDump(TopKDump):
    """Scores the input side of one split, see `TopKDump`."""

    tokens_name = "tokens"
    item_name = "sentences"
    without_rows = "read them as they are"

    def open_reader(self, path: Path) -> Any:
        return READERS[self.info.kind](path, shard=True)  # type: ignore[attr-defined]


def check_side(args: argparse.Namespace) -> None:
    """ValueError for options that do not go with ``--side``."""
    if args.side not in INFOS:
        of_inputs = {
            "--view": args.view != UNMASKED,
            "--source-lang": args.source_lang,
            "--target-lang": args.target_lang,
        }
        for option, used in of_inputs.items():
            if used:
                raise ValueError(f"{option} is for text smoothing, not --side {args.side}; leave it out")
        return
    if args.side == SOURCE and not (args.source_lang and args.target_lang):
        raise ValueError("--side source needs --source-lang and --target-lang, as in the data's file names")
    if args.side == SENTENCES and (args.source_lang or args.target_lang):
        raise ValueError("--source-lang and --target-lang are for --side source; leave them out")
    if args.view == UNMASKED and args.passes not in (None, 1):
        raise ValueError(
            f"--view unmasked hides nothing and needs one pass, got --passes {args.passes}; leave it out"
        )
    of_target = {"--samples": args.samples, "--plan": args.plan, "--teacher-fold": args.teacher_fold}
    for option, used in of_target.items():
        if used:
            raise ValueError(f"{option} is for --side target, not --side {args.side}; leave it out")


def dump_inputs(args: argparse.Namespace, rank: int, world_size: int) -> None:
    """Score every split of every data folder, as one of ``world_size`` processes."""
    importlib.import_module("fairseq_bert_kd.tasks")  # fairseq builds the teacher by registered names
    device = chosen_device(args)
    precision, shard, dumps = chosen_precision(args, device), parse_shard(args.shard), []
    folders = args.data.split(":")
    stores = store_folders(folders, args.store_dir, "--store-dir")
    for folder, store_dir in zip(folders, stores, strict=True):
        path = dictionary_path(folder, args)
        teacher = load_smoother(args.path, load_dictionary(path), str(path), args.view == UNMASKED)
        teacher.model.to(device=device, dtype=PRECISIONS[precision])
        if args.compile:
            compile_encoder(teacher.model)
        for subset in args.subset.split(","):
            info = store_info(args, teacher, subset, precision, device)
            sides = open_sides(info.files(folder), subset)
            middle = SENTENCES if args.side == SENTENCES else f"{args.source_lang}-{args.target_lang}"
            store = smoothing_store_path(store_dir, subset, middle, args.view, args.name)
            dumps.append((SmoothingDump(teacher, sides, info, device), store))
    finished = finished_stores(dumps, shard, args.overwrite, rank, world_size)
    for dump, store in dumps:
        dump_split(
            dump, store, args, rank, world_size, functools.partial(report, args.side), store in finished
        )


def dictionary_path(folder: str, args: argparse.Namespace) -> Path:
    """File of the dictionary of the side.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: rows of two texts.
    """
    path = Path(folder) / f"dict.{args.source_lang}.txt"
    if args.side == SENTENCES:
        texts = read_spec(folder).texts
        if texts != 1:
            raise ValueError(f"rows of `{folder}` have {texts} texts; only single sentences can be smoothed")
        path = Path(folder) / "input0" / "dict.txt"
    if not path.is_file():
        raise FileNotFoundError(f"dictionary {path} does not exist; --side {args.side} reads such a folder")
    return path


def load_dictionary(path: Path) -> Any:
    """fairseq's dictionary of a file."""
    from fairseq.data import Dictionary

    return Dictionary.load(str(path))


def store_info(
    args: argparse.Namespace, teacher: Teacher, subset: str, precision: str, device: torch.device
) -> SmoothingInfo:
    """Description of the store that the options make."""
    attention = teacher.model.text_layout().attention
    return INFOS[args.side](
        split=subset,
        source_lang=args.source_lang or "",
        target_lang=args.target_lang or "",
        passes=number_of_passes(attention, args.passes, "--passes") if args.view == MASKED else 1,
        mask_ratio=0.0,
        mask_plan=UNMASKED if args.view == UNMASKED else STRIDED_PLAN,
        **scored_by(args, teacher, precision, device),
    )


def report(side: str, path: Path) -> None:
    """Print the contents of a store, or of a shard of one, and how much there is to smooth."""
    reader = READERS[side](path, shard=True)
    info: Any = reader.info
    layout, summary = reader.header.layout, reader.header.finished
    print(
        f"{path}: {layout.file_bytes:,} bytes, {layout.rows:,} positions of {len(reader):,} sentences "
        f"({reader.missing_sentences:,} without rows), k={info.k}, {info.view} view"
    )
    print_captured_mass(info, summary)
    original = summary["original_probability"]
    if original is not None:
        print(f"mean probability of the original token: {original:.4f}")
        if advice := info.too_sure(original):
            logger.warning("%s: %s", path, advice)
