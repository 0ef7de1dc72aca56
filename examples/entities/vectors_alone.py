"""Relations by the entities' vectors alone, without text: logistic regression on head, tail and their difference.

    python examples/entities/vectors_alone.py graph.safetensors text/train.1000.1 text/valid text/test > relations.txt

Reads the .jsonl and .label that prepare_text.py wrote. The strength of the regularisation is chosen on the second set. Prints the relation
of each pair of the third. An entity without a vector has zeros.
"""

import argparse
import json

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fairseq_bert_kd.storage.entity_vectors import read_entity_vectors
from fairseq_bert_kd.text_lines import open_lines

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vectors", help="file of entity vectors")
    parser.add_argument(
        "sets", nargs=3, help="what to learn from, to choose on and to predict, without endings"
    )
    args = parser.parse_args()
    vectors = read_entity_vectors(args.vectors)
    numbers = {name: number for number, name in enumerate(vectors.ids, start=1)}
    table = vectors.table()

    def features(stem: str) -> np.ndarray:
        rows = (json.loads(line)["mentions"] for line in open_lines(f"{stem}.jsonl"))
        ends = np.array([[numbers.get(entity, 0) for *_, entity in mentions] for mentions in rows])
        head, tail = table[ends[:, 0]], table[ends[:, 1]]
        return np.concatenate([head, tail, tail - head], axis=1)

    train, valid, test = map(features, args.sets)
    learned, known = ([line.strip() for line in open_lines(f"{stem}.label")] for stem in args.sets[:2])
    scaler = StandardScaler().fit(train)
    models = [
        LogisticRegression(C=strength, max_iter=300).fit(scaler.transform(train), learned)
        for strength in STRENGTHS
    ]
    best = max(models, key=lambda model: model.score(scaler.transform(valid), known))
    print(*best.predict(scaler.transform(test)), sep="\n")


if __name__ == "__main__":
    main()
