"""Tiny teachers, corpora and fairseq runs that several tests share."""

import contextlib
import io
import json
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch

from tests.tokenization.tiny_tokenizers import build_tokenizer

PLUGIN = Path(__file__).parents[1] / "fairseq_bert_kd"
# whole pieces of the tiny BERT vocabulary
WORDS = [
    "a",
    "am",
    "an",
    "and",
    "are",
    "at",
    "auf",
    "der",
    "eat",
    "ein",
    "he",
    "in",
    "is",
    "man",
    "men",
    "near",
    "on",
    "people",
    "sit",
    "the",
    "to",
    "und",
]

# name -> tokenizer of tests/tokenization/tiny_tokenizers.py, model type of transformers, settings
TEACHERS = {
    "bert": ("bert_uncased", "bert", {}),
    "distilbert": ("bert_uncased", "distilbert", {}),
    "electra": ("bert_uncased", "electra", {"embedding_size": 16}),
    "roberta": ("roberta", "roberta", {"type_vocab_size": 1}),
    "xlmr": ("xlmr", "xlm-roberta", {"type_vocab_size": 1}),
}


def build_teacher_folder(name: str, folder: Path, max_positions: int = 64, dim: int = 32) -> Path:
    """A folder with a tokenizer and a random masked language model, as from a hub."""
    import transformers  # here: it takes seconds, and many tests need only the rest of this module

    kind, model_type, settings = TEACHERS[name]
    build_tokenizer(kind, folder)
    vocab = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = vocab["added_tokens"]
    model_vocab = vocab["model"]["vocab"]
    size = max([len(model_vocab)] + [token["id"] + 1 for token in tokens])
    if name == "distilbert":
        sizes = {"dim": dim, "n_layers": 2, "n_heads": 2, "hidden_dim": 2 * dim}
    else:
        sizes = {
            "hidden_size": dim,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 2 * dim,
        }
    if name in ("roberta", "xlmr"):
        settings = settings | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
        max_positions += 2  # their positions start after the padding index
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=size, max_position_embeddings=max_positions, **sizes, **settings
    )
    torch.manual_seed(0)
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return folder


def write_corpus(
    folder: Path, train: int = 120, others: int = 20, seed: int = 0, lengths: tuple[int, int] = (1, 8)
) -> None:
    """``{train,valid,test}.{de,en}``: the target is the source in reverse order."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("valid", others), ("test", others)):
        lines = [[rng.choice(WORDS) for _ in range(rng.randint(*lengths))] for _ in range(count)]
        (folder / f"{split}.de").write_text(
            "".join(" ".join(line) + "\n" for line in lines), encoding="utf-8"
        )
        (folder / f"{split}.en").write_text(
            "".join(" ".join(reversed(line)) + "\n" for line in lines), encoding="utf-8"
        )


def tokenize_corpus(raw: Path, out: Path, tokenizer_folder: Path) -> None:
    from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

    tokenizer = HfTokenizer(str(tokenizer_folder))
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(raw.iterdir()):
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        pieces = tokenizer.encode_batch(lines)
        (out / path.name).write_text("".join(" ".join(line) + "\n" for line in pieces), encoding="utf-8")


def run_fairseq(tool: str, *arguments: object) -> str:
    """Run ``fairseq-<tool>`` in this process; its standard output."""
    import fairseq_cli.generate
    import fairseq_cli.preprocess
    import fairseq_cli.train
    import fairseq_cli.validate

    command = getattr(fairseq_cli, tool).cli_main
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [f"fairseq-{tool}", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
    ):
        command()
    return out.getvalue()


@contextlib.contextmanager
def logged(name: str):
    """Messages logged under ``name``, as a list.

    Listens below the root, whose handlers fairseq takes away, and looks at the record's name: fairseq's
    progress bars rename their logger to "valid" or "train_inner" while they log.
    """
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == name:
                messages.append(record.getMessage())

    handler, loggers = Collect(), [logging.getLogger("fairseq"), logging.getLogger("fairseq_bert_kd")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


def preprocess(pieces: Path, out: Path, *arguments: object) -> None:
    run_fairseq(
        "preprocess", "--user-dir", PLUGIN, "--task", "translation_with_teacher", "-s", "de", "-t", "en",
        "--trainpref", pieces / "train", "--validpref", pieces / "valid", "--testpref", pieces / "test",
        "--destdir", out, "--workers", 1, *(arguments or ("--joined-dictionary",)),
    )  # fmt: skip


CPU = ("--cpu",)


def train_teacher(
    data: Path, model: Path, save_dir: Path, *arguments: object, updates: int = 2, device: Sequence[str] = CPU
) -> Path:
    """Train a C-MLM teacher; the path of its last checkpoint."""
    run_fairseq(
        "train", data, "--user-dir", PLUGIN, "--task", "conditional_masked_lm",
        "--criterion", "conditional_masked_lm", "--arch", "hf_masked_lm", "--teacher-model", model,
        "--optimizer", "adam", "--lr", 1e-3, "--max-tokens", 512, "--max-update", updates, "--save-dir", save_dir,
        "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", *device, *arguments,
    )  # fmt: skip
    return save_dir / "checkpoint_last.pt"


def train_student(
    data: Path, save_dir: Path, *arguments: object, updates: int = 2, device: Sequence[str] = CPU
) -> Path:
    """Train a very small student; the path of its last checkpoint."""
    run_fairseq(
        "train", data, "--user-dir", PLUGIN, "--task", "translation_with_teacher",
        "--arch", "distilled_transformer_small", "--encoder-layers", 1, "--decoder-layers", 1, "--dropout", 0,
        "--criterion", "label_smoothed_cross_entropy_with_distillation", "--label-smoothing", 0.1,
        "--optimizer", "adam", "--lr", 3e-3, "--max-tokens", 512, "--max-update", updates, "--save-dir", save_dir,
        "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", *device, *arguments,
    )  # fmt: skip
    return save_dir / "checkpoint_last.pt"


def dump(data: Path, checkpoint: Path, *arguments: object, device: Sequence[str] = CPU) -> int:
    """``fairseq-bert-kd dump`` in this process; its exit status."""
    from fairseq_bert_kd.cli.main import cli_main

    return cli_main(["dump", str(data), "--path", str(checkpoint), *device, *map(str, arguments)])
