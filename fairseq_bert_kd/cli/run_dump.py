"""What all dumps do: refuse another store's name, write shards by several processes, show progress, join the parts."""

import argparse
import glob
import logging
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import fairseq_bert_kd
from fairseq_bert_kd.cli.dump_options import parse_shard
from fairseq_bert_kd.cli.store_folder import check_writable
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.schema import StoreInfo, differing_fields
from fairseq_bert_kd.storage.shards import WHOLE, Shard, shard_path
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.work_file import work_path
from fairseq_bert_kd.teachers import distributed
from fairseq_bert_kd.teachers.dump import StoreDump
from fairseq_bert_kd.teachers.load import Teacher, entities_digest

logger = logging.getLogger(__name__)

MAX_TOKENS = {"cpu": 8192, "cuda": 32768}  # our choice; neither is faster with more


def chosen_device(args: argparse.Namespace) -> torch.device:
    """This process's GPU, or the CPU if there is none or ``--cpu`` is given."""
    on_gpu = torch.cuda.is_available() and not args.cpu
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def chosen_precision(args: argparse.Namespace, device: torch.device) -> str:
    """``--precision``, or what suits the device."""
    return args.precision or ("fp16" if device.type == "cuda" else "fp32")


def compile_encoder(model: Any) -> None:
    """Compile a teacher's encoder, for ``--compile``.

    Raises:
        ValueError: a teacher that reads entities, which runs its encoder's layers one by one.
    """
    if entities_digest(model):
        raise ValueError(
            "--compile has no effect on a teacher that reads entities, which runs its encoder's layers one by one; leave it out"
        )
    model.encoder = torch.compile(model.encoder, dynamic=True)


def computed_how(args: argparse.Namespace, precision: str, device: torch.device) -> dict[str, Any]:
    """Fields of any store's header that say how its rows are computed."""
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "numpy")}
    return {
        "versions": {"fairseq-bert-kd": fairseq_bert_kd.__version__, **versions},
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "max_tokens": args.max_tokens or MAX_TOKENS[device.type],
        "chunk_sentences": args.chunk_sentences,
    }


def scored_by(
    args: argparse.Namespace, teacher: Teacher, precision: str, device: torch.device
) -> dict[str, Any]:
    """Fields of the header of token rows that say whose they are and how they are computed."""
    symbols = teacher.task.target_dictionary.symbols
    return {
        "k": args.topk,
        "dictionary_size": len(symbols),
        "dictionary_digest": dictionary_digest(symbols),
        "teacher": short_name(args.path),
        "teacher_digest": teacher.digest,
        "temperatures": tuple(sorted(set(args.temperatures))),
        "tokenizer_digest": teacher.model.tokenizer_digest(),
        **computed_how(args, precision + (" compiled" if args.compile else ""), device),
    }


def short_name(path: str) -> str:
    """Last two parts of a teacher's path, for a store's header."""
    return "/".join(Path(path).absolute().parts[-2:])


def print_captured_mass(info: TopKInfo, summary: Mapping[str, Any]) -> None:
    """Print how much of the teacher's mass the stored tokens hold, for each temperature at which it is known."""
    for temperature, mass in zip(info.temperatures, summary["captured_mass"], strict=True):
        if mass is not None:
            print(f"the top {info.k} hold {100.0 * mass:.2f} % of its mass at temperature {temperature:g}")


def finished_stores(
    dumps: Iterable[tuple[StoreDump, Path]],
    shard: Shard,
    overwrite: bool,
    rank: int,
    world_size: int,
) -> set[Path]:
    """Those stores, by their final names, of which nothing is to be written, checked before the first one is scored.

    Args:
        dumps: what is to be written, and the final names of the whole stores.
        shard: part of the corpus that is requested.
        overwrite: replace existing stores.
        rank: number of this process.
        world_size: number of processes.

    Raises:
        FileExistsError: a store, or its shard, exists and is not what would be written; or another process writes it.
        ValueError: unfinished work has other settings.
        OSError: the store's folder cannot be written.
    """
    finished = set()
    for dump, path in dumps:
        if shard_path(path, shard).exists() and not overwrite:
            check_same_store(shard_path(path, shard), dump)
            if world_size == 1 or shard == WHOLE:  # else each process has a shard of its own
                finished.add(path)
                continue
        check_writable(path.parent)
        mine = {own_parts(shard, world_size)[rank]}
        if rank == 0 and shard == WHOLE:
            mine.add(WHOLE)  # into which the parts are joined in the end
        for part in mine if not overwrite else ():
            if work_path(shard_path(path, part)).exists():
                dump.open_writer(path, part, overwrite=False).close()
    return finished


def own_parts(requested: Shard, world_size: int) -> list[Shard]:
    """The shard that each process writes.

    Together they hold the sentences of the requested shard, so machines may have different numbers of GPUs.
    """
    return [
        Shard(requested.index + i * requested.count, requested.count * world_size) for i in range(world_size)
    ]


def dump_split(
    dump: StoreDump,
    path: Path,
    args: argparse.Namespace,
    rank: int,
    world_size: int,
    report: Callable[[Path], None],
    finished: bool = False,
) -> None:
    """Write one store, or one shard of it; several processes share the work and the first one joins the parts.

    Args:
        dump: what to write.
        path: final name of the whole store.
        args: ``shard`` and ``overwrite``.
        rank: number of this process.
        world_size: number of processes.
        report: prints the contents of a store.
        finished: whether nothing is to be written, see `finished_stores`.

    Raises:
        ValueError, FileExistsError, OSError: as `StoreDump.run`, and where a GPU has too little memory, or processes differ.
    """
    check_same_infos(distributed.gathered(dump.info, world_size))
    requested = parse_shard(args.shard)
    parts = own_parts(requested, world_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    part, started = parts[rank], time.perf_counter()
    joined = requested == WHOLE and world_size > 1  # all parts are written here
    tokens = 0
    if not finished:
        if rank == 0:
            if args.overwrite or not shard_path(path, part).exists():
                say_unread(path, parts)
            if joined:
                say_room(dump, path, parts)
        tokens = write_part(dump, path, part, args.overwrite, rank)
    seconds = max(time.perf_counter() - started, 1e-9)
    distributed.wait_for_all(world_size)
    if joined and rank == 0:
        shards = [shard_path(path, part) for part in parts]
        if not finished:
            merge_shards(shards, path, args.overwrite)
        for shard in shards:
            shard.unlink(missing_ok=True)
    distributed.wait_for_all(world_size)
    if rank == 0:
        stores = [path] if joined else [shard_path(path, part) for part in parts]
        if tokens:
            print(f"{seconds:.1f} s, {tokens / seconds * world_size:,.0f} {dump.tokens_name} per second")
        else:
            print(f"{stores[0]} is complete already: nothing to score")
        for store in stores:
            report(store)


def write_part(dump: StoreDump, path: Path, part: Shard, overwrite: bool, rank: int) -> int:
    """Write this process's part with a progress bar; the tokens that were scored.

    Raises:
        ValueError, FileExistsError, OSError: as `StoreDump.run`, and where a GPU has too little memory.
    """
    with progress_bar(dump, part, f"dump {dump.info.split}", rank) as bar:
        try:
            return dump.run(path, part, overwrite, bar.update)
        except torch.cuda.OutOfMemoryError as error:
            raise ValueError(
                f"the GPU's memory does not hold a batch of --max-tokens {dump.info.max_tokens} "
                f"({str(error).splitlines()[0]}). Free it and give the same command again, which goes on where it was; or lower "
                "--max-tokens and add --overwrite, which begins anew: the batches are part of what a store is"
            ) from None


def check_same_infos(infos: Sequence[StoreInfo]) -> None:
    """Check that the parts of all processes will be of one store, before they are scored.

    Raises:
        ValueError: processes have GPUs of different kinds, or different versions of torch.
    """
    for info in infos[1:]:
        if differences := differing_fields(infos[0], info):
            raise ValueError(
                f"the processes of this dump differ ({'; '.join(differences[:3])}), and a store is made on one kind of device by "
                "the same tools. Choose GPUs of one kind (CUDA_VISIBLE_DEVICES), or machines that are set up alike"
            )


def say_room(dump: StoreDump, path: Path, parts: Sequence[Shard]) -> None:
    """Log a warning if the disk has no room for all parts and the store that joins them, which are there together.

    Args:
        dump: what is written.
        path: final name of the whole store.
        parts: shards that are written and joined.
    """
    files = [file for part in parts for file in (shard_path(path, part), work_path(shard_path(path, part)))]
    # an unfinished one has its size at once
    there = sum(file.stat().st_size for file in files if file.exists())
    needed, free = 2 * dump.count(WHOLE)["bytes"] - there, shutil.disk_usage(path.parent).free
    if needed > free:
        logger.warning(
            "the %d parts of this dump and the store that joins them need %s more bytes until the parts are removed, and %s has "
            "%s: make room before the parts are done, or write elsewhere (--store-dir)",
            *(len(parts), f"{needed:,}", path.parent, f"{free:,}"),
        )


def say_unread(path: Path, parts: Sequence[Shard]) -> None:
    """Log a warning if an earlier run has left work that this one does not read; arguments as `shards_of_another_split`."""
    if unread := shards_of_another_split(path, parts):
        logger.warning(
            "%s: an earlier run has scored sentences of this one, with other processes or another --shard, and this one scores "
            "them anew. To go on from there, start it as before (CUDA_VISIBLE_DEVICES chooses GPUs); else remove what is left",
            ", ".join(map(str, unread)),
        )


def shards_of_another_split(path: Path, parts: Sequence[Shard]) -> list[Path]:
    """Files beside a store that hold sentences of these parts and are none of them: shards, finished or not, and unfinished
    work of the whole.

    Args:
        path: final name of the whole store.
        parts: what is written now, all of one count.
    """
    whole = work_path(path)  # of one process
    found = [whole] if whole.exists() and parts[0].count > 1 else []
    for file in sorted(path.parent.glob(f"{glob.escape(path.name)}.shard-*")):
        named = re.fullmatch(r"\.shard-(\d+)-of-(\d+)(\.partial)?", file.name.removeprefix(path.name))
        if named is None or int(named[2]) == parts[0].count:
            continue
        index, common = int(named[1]) - 1, math.gcd(int(named[2]), parts[0].count)
        if any(index % common == part.index % common for part in parts):  # they have chunks in common
            found.append(file)
    return found


def check_same_store(path: Path, dump: StoreDump) -> None:
    """FileExistsError unless the store, or the shard of one, is what this command would write."""
    try:
        reader = dump.open_reader(path)
        differences = differing_fields(reader.info, dump.info)
        if not differences and reader.header.corpus_sentences != dump.sentences:
            differences = [f"{reader.header.corpus_sentences:,} sentences against {dump.sentences:,}"]
    except ValueError as error:
        differences = [str(error)]
    if differences:
        raise FileExistsError(
            f"store {path} exists and differs ({'; '.join(differences[:3])}); pass --overwrite to replace it"
        )
    dump.check_unchanged_data(path)


def progress_bar(dump: StoreDump, shard: Shard, label: str, rank: int) -> Any:
    """Progress bar over the tokens of this process's shard."""
    counts = dump.count(shard)
    if counts["too_long"] and rank == 0:
        logger.warning(
            "%d of %d %s (%.2f %%) are longer than the teacher's %d positions: stored as missing, students %s",
            counts["too_long"],
            counts["sentences"],
            dump.item_name,
            100.0 * counts["too_long"] / counts["sentences"],
            dump.limit,
            dump.without_rows,
        )
    return tqdm(
        total=counts["tokens"], unit="tok", unit_scale=True, desc=label, disable=rank > 0, file=sys.stderr
    )
