"""``fairseq-bert-kd vectors``: a teacher's vector of every sentence, stored beside the data."""

import argparse
from pathlib import Path
from typing import Any

import torch

from fairseq_bert_kd.cli.dump_options import (
    PRECISIONS,
    add_running_arguments,
    check_running_arguments,
    parse_shard,
)
from fairseq_bert_kd.cli.run_dump import (
    chosen_device,
    chosen_precision,
    computed_how,
    dump_split,
    finished_stores,
    short_name,
)
from fairseq_bert_kd.cli.store_folder import add_store_dir
from fairseq_bert_kd.modules.declared_vector import declared_vector
from fairseq_bert_kd.storage.fairseq_data import open_sides, sentence_files
from fairseq_bert_kd.storage.sentence_data import SentenceSpec, read_spec
from fairseq_bert_kd.storage.store_folders import store_folders
from fairseq_bert_kd.storage.vector_store import (
    DTYPES,
    SIDE,
    VECTORS,
    VectorInfo,
    VectorReader,
    vector_store_path,
)
from fairseq_bert_kd.teachers import distributed
from fairseq_bert_kd.teachers.interface import SentenceEncoder
from fairseq_bert_kd.teachers.load import weights_digest
from fairseq_bert_kd.teachers.probe import check_sentence_encoder
from fairseq_bert_kd.teachers.vector_dump import OWN, VectorDump

HELP = "store a teacher's vector of every sentence, for --task sentence_vectors"
EXAMPLE = """examples:
  fairseq-bert-kd vectors data-corpus --encoder-model sentence-transformers/all-MiniLM-L6-v2 --subset train,valid
  fairseq-bert-kd vectors data-corpus --encoder-model bert-base-uncased --vector last2-mean --dtype float32"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        help="folder of single sentences that `prepare-sentences` wrote, or several separated by colons; stores go into them, "
        "or to --store-dir",
    )
    add_store_dir(parser)
    parser.add_argument(
        "--encoder-model",
        required=True,
        metavar="PATH",
        help="folder or hub name of a transformers encoder, or a checkpoint of a model that gives sentence vectors",
    )
    parser.add_argument(
        "--subset",
        default="train",
        help="split to encode, or several separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--name",
        default="",
        help="name of the store among several of the same data, SPLIT.sentences.NAME.vec (default: none)",
    )
    what = parser.add_argument_group("what is stored")
    what.add_argument(
        "--vector",
        choices=VECTORS,
        default=None,
        help="cls: last hidden state of the first token; pooler: the pooler over it; mean: mean of the last hidden states over "
        "all tokens, special ones included; last2-mean: that of the mean of the last two layers (default: what a sentence "
        "encoder declares, else mean)",
    )
    what.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float16",
        help="type of the stored numbers; float16 keeps a cosine to 0.001 (default: %(default)s)",
    )
    add_running_arguments(parser, "tokens")


def main(args: argparse.Namespace) -> None:
    """Encode every split of every folder.

    Raises:
        ValueError: impossible options, data of another tokenizer or of pairs, or an encoder without the vector.
        FileExistsError: another store has the name.
    """
    check_running_arguments(args)
    vector_store_path(".", "train", args.name)  # ValueError for a name that cannot be one
    distributed.launch(encode_all, args, cpu=args.cpu)


def encode_all(args: argparse.Namespace, rank: int, world_size: int) -> None:
    """Encode every split of every data folder, as one of ``world_size`` processes."""
    from fairseq_bert_kd.cli.sentence_predictions import load

    folders = args.data.split(":")
    store_dirs = store_folders(folders, args.store_dir, "--store-dir")
    specs = {folder: _single_sentences(folder) for folder in folders}
    name = short_name(args.encoder_model) if Path(args.encoder_model).exists() else args.encoder_model
    device, shard = chosen_device(args), parse_shard(args.shard)
    precision, dumps = chosen_precision(args, device), []
    for folder, store_dir in zip(folders, store_dirs, strict=True):
        loaded = load(args.encoder_model, folder, cpu=True, vector=args.vector)
        if isinstance(loaded.model, SentenceEncoder):  # others are refused below
            check_sentence_encoder(
                loaded.model, loaded.task.dictionary, args.vector, f"--encoder-model `{args.encoder_model}`"
            )
        digest = weights_digest(loaded.model)  # before the cast: the same on every device
        model = loaded.model.to(device=device, dtype=PRECISIONS[precision])
        vector, similarity, width = _vector(args, model, loaded.task.dictionary, device)
        for subset in args.subset.split(","):
            sides = open_sides(sentence_files(folder, subset, [SIDE]), subset)
            info = VectorInfo(
                split=subset,
                teacher=name,
                teacher_digest=digest,
                tokenizer_digest=specs[folder].tokenizer,
                width=width,
                dtype=args.dtype,
                vector=vector,
                dictionary_digest=specs[folder].dictionary,
                similarity=similarity,
                **computed_how(args, precision, device),
            )
            dump = VectorDump(model, sides, info, loaded.task.dictionary.pad(), device)
            dumps.append((dump, vector_store_path(store_dir, subset, args.name)))
    finished = finished_stores(dumps, shard, args.overwrite, rank, world_size)
    for dump, path in dumps:
        dump_split(dump, path, args, rank, world_size, report, path in finished)


def _single_sentences(folder: str) -> SentenceSpec:
    """Description of a folder; ValueError for rows of two texts."""
    spec = read_spec(folder)
    if spec.texts != 1:
        raise ValueError(
            f"rows of `{folder}` have {spec.texts} texts; vectors are of single sentences: prepare them with --task plain"
        )
    return spec


def _vector(
    args: argparse.Namespace, model: Any, dictionary: Any, device: torch.device
) -> tuple[str, str, int]:
    """Name of the vector, what it is compared by, and its width, found by encoding an end of sentence.

    Raises:
        ValueError: the model gives no sentence vectors, or not this one.
    """
    if not isinstance(model, SentenceEncoder):
        raise ValueError(
            f"--encoder-model `{args.encoder_model}` holds a {type(model).__name__}, which gives no sentence vectors"
        )
    declared, similarity = None, ""
    if not Path(args.encoder_model).is_file():
        declared, similarity = _declared(args)
    name = args.vector or declared
    end = torch.tensor([[dictionary.eos()]], device=device)
    with torch.inference_mode():
        found = model.sentence_vectors(end, torch.ones(1, dtype=torch.int64, device=device), name)
    return name or str(getattr(model, "default_vector", OWN)), similarity, found.size(1)


def _declared(args: argparse.Namespace) -> tuple[str | None, str]:
    """`declared_vector`, if ``--vector`` is that one or not given."""
    try:
        declared, similarity = declared_vector(args.encoder_model)
    except ValueError:
        if args.vector:
            return None, ""
        raise
    return (declared, similarity) if args.vector in (None, declared) else (None, "")


def report(path: Path) -> None:
    """Print the contents of the store."""
    reader = VectorReader(path, shard=True)
    info, layout, summary = reader.info, reader.header.layout, reader.header.finished
    why = "".join(f", {count:,} {name.replace('_', ' ')}" for name, count in reader.header.missing.items())
    length = summary["mean_length"]
    print(
        f"{path}: {layout.file_bytes:,} bytes, {summary['scored_rows']:,} vectors `{info.vector}` of {info.width} numbers in "
        f"{info.dtype}{'' if length is None else f', mean length {length:.3f}'}{why}"
    )
