"""A linear classifier on a model's sentence vectors, which stay as they are: what do the vectors know of the labels?

    python linear_probe.py MODEL --data DATA --train text/train.1.tsv --table text/test.tsv > predictions

MODEL is a checkpoint, or a folder or hub name of a transformers encoder; DATA is a folder of prepared sentences with its dictionary. The
classifier is scikit-learn's logistic regression, its regularisation chosen by four-fold cross-validation on the training table.
Prints the label of each row of the other table, one per line.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairseq_bert_kd.text_lines import open_lines

FOLDS, STRENGTHS, ITERATIONS = 4, 8, 1000


def labels_and_sentences(table: str) -> tuple[list[str], list[str]]:
    """Columns of a table with a header: label, sentence."""
    _, *rows = (line.rstrip("\r\n").split("\t") for line in open_lines(table))
    return [row[0] for row in rows], [row[1] for row in rows]


def encoded(sentences: list[str], model: str, data: str, vector: str | None) -> NDArray[np.float32]:
    """``(sentences, d)`` vectors, as `fairseq-bert-kd encode` gives them."""
    with tempfile.TemporaryDirectory() as folder:
        text, vectors = Path(folder, "text"), Path(folder, "vectors.npy")
        text.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
        command = ["fairseq-bert-kd", "encode", str(text), "--path", model, "--data", data, "--output", str(vectors)]  # fmt: skip
        subprocess.run([*command, *(["--vector", vector] if vector else [])], check=True, stdout=sys.stderr)
        return np.load(vectors)


def predictions(train: NDArray[np.float32], labels: list[str], other: NDArray[np.float32]) -> list[str]:
    """Labels of the other vectors by logistic regression on the training vectors."""
    regression = LogisticRegressionCV(Cs=STRENGTHS, cv=FOLDS, max_iter=ITERATIONS)
    return make_pipeline(StandardScaler(), regression).fit(train, labels).predict(other).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="checkpoint, or folder or hub name")
    parser.add_argument("--data", required=True, help="folder of prepared sentences")
    parser.add_argument("--vector", help="which of the model's vectors (default: its own)")
    for name in ("train", "table"):
        parser.add_argument(f"--{name}", required=True, help="label and sentence, with a header")
    args = parser.parse_args()
    labels, sentences = labels_and_sentences(args.train)
    _, others = labels_and_sentences(args.table)
    vectors = encoded(sentences + others, args.model, args.data, args.vector)
    for label in predictions(vectors[: len(labels)], labels, vectors[len(labels) :]):
        print(label)


if __name__ == "__main__":
    main()
