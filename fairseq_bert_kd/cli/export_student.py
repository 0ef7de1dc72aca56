"""``fairseq-bert-kd export-student``: a student for programs that do not know this plugin."""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from fairseq_bert_kd.cli import export_fairseq, export_onnx, export_transformers
from fairseq_bert_kd.compat import load_checkpoint, model_settings
from fairseq_bert_kd.modules.sentence_checkpoints import untrained_head

HELP = "write a student's checkpoint in another format, without optimizer state and options of ours"
EXAMPLE = (
    "example: fairseq-bert-kd export-student student/checkpoint_best.pt --data data-bin --output student.pt"
)
# each has SUMMARY, OPTIONS (flag -> arguments of `add_argument`) and `write(state, output, args)`, which writes a file or a
# folder and returns a line about it
FORMATS = {"fairseq": export_fairseq, "transformers": export_transformers, "onnx": export_onnx}
# of models that have one only; not hf_masked_lm: whoever gives a teacher's checkpoint may want its student's
FORMAT_OF = {
    "transformer": "fairseq",
    "lstm": "fairseq",
    "hf_encoder": "transformers",
    "sentence_lstm": "onnx",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", help="a student's checkpoint, written by fairseq-train or fairseq-hydra-train"
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="file or folder to write")
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="folder or hub name of the tokenizer of the student's training: compared with the checkpoint, and written into a "
        "folder of --format transformers or onnx (default there: the one that the training named, if it is still there)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")
    summaries = "; ".join(f"{name}: {module.SUMMARY}" for name, module in FORMATS.items())
    parser.add_argument(
        "--format", choices=FORMATS, default="fairseq", help=f"{summaries} (default: fairseq)"
    )
    for name, module in FORMATS.items():
        if module.OPTIONS:
            group = parser.add_argument_group(f"options of --format {name}")
            for flag, settings in module.OPTIONS.items():
                group.add_argument(flag, **settings)


def main(args: argparse.Namespace) -> None:
    """Write the student under a temporary name, then under its own.

    Raises:
        FileNotFoundError: no such checkpoint, or no folder for the output.
        FileExistsError: the output exists, or is a folder with files that are not of an export.
        ValueError: an option of another format, an output where the checkpoint is, or a checkpoint that the format cannot hold.
    """
    output = Path(args.output)
    output = output if output.name else output.resolve()  # of `.`
    _check_options(args)
    if not output.parent.is_dir():
        raise FileNotFoundError(f"the folder of --output `{output}` does not exist. Create it first.")
    _check_apart(output, Path(args.checkpoint))
    if output.exists() and not args.overwrite:
        raise FileExistsError(f"`{output}` exists; pass --overwrite to replace it")
    state = load_checkpoint(args.checkpoint)
    _check_model(state, args)
    temporary = output.with_name(f"{output.name}.{os.getpid()}.tmp")
    try:
        said = FORMATS[args.format].write(state, temporary, args)
        size = _size(temporary)
        _check_replaceable(output, temporary)
        _replace(output, temporary)
    finally:
        _remove(temporary)
    print(f"{output}: {said}, {size:,} bytes (before: {os.path.getsize(args.checkpoint):,})")
    if not args.encoder_only and (untrained := untrained_head(args.checkpoint, state)):
        print(f"warning: {untrained}; --format transformers --encoder-only leaves the head out")


def _check_options(args: argparse.Namespace) -> None:
    for name, module in FORMATS.items():
        for flag in module.OPTIONS:
            if name != args.format and getattr(args, flag.lstrip("-").replace("-", "_")):
                raise ValueError(f"{flag} is an option of --format {name}; add that, or leave {flag} out")


def _check_model(state: dict[str, Any], args: argparse.Namespace) -> None:
    """ValueError for a model that another format is for."""
    from fairseq.models import ARCH_MODEL_NAME_REGISTRY

    import fairseq_bert_kd.tasks  # noqa: F401  registers the models

    arch = model_settings(state)["_name"]
    model = ARCH_MODEL_NAME_REGISTRY.get(arch, arch)
    right = FORMAT_OF.get(model, args.format)
    if right != args.format:
        raise ValueError(
            f"`{args.checkpoint}` holds a `{model}` model, which --format {args.format} cannot hold; give --format {right}"
        )


def _check_apart(output: Path, checkpoint: Path) -> None:
    """Check that an output is neither the checkpoint nor a folder that holds it."""
    place = output.resolve()
    if not place.name or place in (checkpoint.resolve(), *checkpoint.resolve().parents):
        raise ValueError(
            f"--output `{output}` must be neither the checkpoint itself nor a folder that it is in. Choose another name."
        )


def _check_replaceable(output: Path, export: Path) -> None:
    """Check that nothing would be lost with a folder but an earlier export."""
    if not output.is_dir():
        return
    theirs, ours = ({file.relative_to(folder) for file in folder.rglob("*")} for folder in (output, export))
    if export.is_file() or theirs - ours:
        what = (
            f"`{min(theirs - ours)}`, which this export does not write"
            if theirs - ours
            else "no file to replace"
        )
        raise FileExistsError(
            f"--output `{output}` is a folder with {what}. Choose another name, or remove it first."
        )


def _size(path: Path) -> int:
    """Bytes of a file, or of the files of a folder."""
    files = [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]
    return sum(file.stat().st_size for file in files)


def _replace(output: Path, temporary: Path) -> None:
    """Give the output its name; a folder in its place is moved away first, since it cannot be replaced at once."""
    if output.is_dir() and not output.is_symlink():
        former = output.with_name(f"{output.name}.{os.getpid()}.former")
        os.replace(output, former)
        os.replace(temporary, output)
        _remove(former)
    else:
        if temporary.is_dir():
            output.unlink(missing_ok=True)
        os.replace(temporary, output)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
