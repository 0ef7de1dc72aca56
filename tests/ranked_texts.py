"""Labelled pairs, and texts on which an evaluator goes on to learn, as several tests rank them."""

from pathlib import Path

from tests.tiny_sentences import prepare, write_table

SOURCES = ["a man", "he is near", "people eat", "the man is in"] * 6
REFERENCES = ["the man", "he is at the", "the people eat", "in is the man"] * 6
SAMPLES = ["a a a", "he is at the", "", "und und der"] * 6


def prepare_pairs(tokenizer: Path, folder: Path) -> Path:
    """The data folder of 40 labelled pairs for training and 40 for validation."""
    tables = [
        argument
        for seed, split in enumerate(("train", "valid"))
        for argument in (f"--{split}", write_table(folder / f"{split}.tsv", 40, seed, pairs=True))
    ]
    columns = ("--columns", "text,other", "--label-column", "label")
    assert prepare(tokenizer, folder / "data", *columns, *tables) == 0
    return folder / "data"


def write_texts(folder: Path) -> Path:
    """The folder, with sources, references, and samples as fairseq-generate writes them."""
    for name, texts in (("sources", SOURCES), ("references", REFERENCES)):
        (folder / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    samples = "".join(f"D-{i}\t0\t{text}\n" for i, text in enumerate(SAMPLES))
    (folder / "samples").write_text(samples, encoding="utf-8")
    return folder


def ranking(texts: Path) -> tuple:
    """Task and criterion on these texts."""
    return (
        "--task", "ranking_margin", "--criterion", "ranking_margin", "--ranking-positive", "good", "--ranking-sources",
        texts / "sources", "--ranking-references", texts / "references", "--ranking-samples", texts / "samples",
    )  # fmt: skip
