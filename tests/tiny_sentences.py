"""Tables of sentences, their folders, and a model of a few numbers for fairseq's sentence_prediction interface."""

import random
from pathlib import Path

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from torch import nn

from fairseq_bert_kd.cli.main import cli_main
from tests.tiny_chain import PLUGIN, WORDS, run_fairseq

GOOD, BAD = ("eat", "man", "near", "people"), ("auf", "der", "ein", "und")


@register_model("tiny_sentences", dataclass=FairseqDataclass)
class TinySentences(BaseFairseqModel):
    """Mean of embeddings; a pair is both means, and their absolute difference."""

    positions = 1000

    def __init__(self, symbols, pad):
        super().__init__()
        self.embeddings = nn.Embedding(symbols, 16, padding_idx=pad)
        self.classification_heads = nn.ModuleDict()

    @classmethod
    def build_model(cls, cfg, task):
        model = cls(len(task.source_dictionary), task.source_dictionary.pad())
        model.texts = task.spec.texts
        return model

    def register_classification_head(self, name, num_classes=None, inner_dim=None, **_):
        self.classification_heads[name] = nn.Linear(16 * (3 if self.texts == 2 else 1), num_classes)

    def sentence_vectors(self, tokens, lengths, vector=None):
        return self.embeddings(tokens).sum(dim=1) / lengths[:, None]

    def forward(self, texts, lengths, features_only=False, classification_head_name=None):
        vectors = [self.sentence_vectors(*text) for text in zip(texts, lengths, strict=True)]
        if len(vectors) == 2:
            vectors.append((vectors[0] - vectors[1]).abs())
        return self.classification_heads[classification_head_name](torch.cat(vectors, dim=1)), {}

    def max_positions(self):
        return self.positions


def write_table(path: Path, rows: int, seed: int = 0, pairs: bool = False, labels=("bad", "good")) -> Path:
    """A table with header: the label of a sentence is its last word's kind."""
    rng = random.Random(seed)
    columns = ("text", "other") if pairs else ("text",)
    lines = ["\t".join((*columns, "label"))]
    for _ in range(rows):
        label = rng.randrange(2)
        texts = [
            " ".join([*rng.choices(WORDS[:6], k=rng.randint(1, 6)), rng.choice((BAD, GOOD)[label])])
            for _ in columns
        ]
        lines.append("\t".join((*texts, labels[label])))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def prepare(tokenizer: Path, folder: Path, *arguments: object) -> int:
    """``fairseq-bert-kd prepare-sentences`` in this process; its exit status."""
    words = ["prepare-sentences", "--tokenizer", tokenizer, "--destdir", folder, *arguments]
    return cli_main(list(map(str, words)))


def train(data: Path, save_dir: Path, *arguments: object, updates: int = 2) -> Path:
    """Train a tiny model with fairseq's own criterion; the path of its last checkpoint."""
    run_fairseq(
        "train", data, "--user-dir", PLUGIN, "--task", "sentence_prediction_with_teacher", "--arch", "tiny_sentences",
        "--criterion", "sentence_prediction", "--optimizer", "adam", "--lr", 0.1, "--batch-size", 8, "--max-update",
        updates, "--save-dir", save_dir, "--no-epoch-checkpoints", "--num-workers", 0, "--no-progress-bar", "--cpu",
        *arguments,
    )  # fmt: skip
    return save_dir / "checkpoint_last.pt"
