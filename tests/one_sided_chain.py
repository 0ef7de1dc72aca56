"""A masked language model of single sentences, trained for two updates from an encoder without a head."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.tiny_chain import PLUGIN, run_fairseq, train_teacher

BERT_REPLACEMENT = ("--cmlm-keep", 0.1, "--cmlm-random", 0.1)


@dataclass(frozen=True)
class OneSidedChain:
    """What `build_one_sided_chain` made.

    Attributes:
        encoder: folder of an encoder without head, and of its tokenizer.
        pieces: tokenised text, ``train`` and ``valid``, without and with a language in the name.
        data: what fairseq-preprocess --only-source wrote.
        checkpoint: the trained model.
    """

    encoder: Path
    pieces: Path
    data: Path
    checkpoint: Path


def preprocess_one(pieces: Path, out: Path, *language: object) -> None:
    run_fairseq(
        "preprocess", "--user-dir", PLUGIN, "--only-source", *language, "--trainpref", pieces / "train",
        "--validpref", pieces / "valid", "--destdir", out, "--workers", 1,
    )  # fmt: skip


def without_head(bert: Path, folder: Path) -> Path:
    """The model as MiniLM is published: an encoder alone."""
    import transformers

    shutil.copytree(bert, folder)
    encoder = transformers.AutoModelForMaskedLM.from_pretrained(folder).base_model
    (folder / "model.safetensors").unlink()
    encoder.save_pretrained(folder)
    return folder


def build_one_sided_chain(bert: Path, tokenised: Path, folder: Path) -> OneSidedChain:
    """Build all of it.

    Args:
        bert: folder of a masked language model and its tokenizer.
        tokenised: folder of ``train.en`` and ``valid.en``.
        folder: folder to write.
    """
    pieces = folder / "pieces"
    pieces.mkdir(parents=True)
    for split in ("train", "valid"):
        for name in (split, f"{split}.en", f"{split}.de"):  # with a language fairseq expects it in the name
            shutil.copy(tokenised / f"{split}.en", pieces / name)
    preprocess_one(pieces, folder / "data")
    encoder = without_head(bert, folder / "encoder")
    checkpoint = train_teacher(
        folder / "data", encoder, folder / "mlm", "--cmlm-one-sided", *BERT_REPLACEMENT
    )
    return OneSidedChain(encoder, pieces, folder / "data", checkpoint)
