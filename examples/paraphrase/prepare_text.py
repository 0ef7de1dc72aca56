"""Quora's paraphrases by cluster as training text, and what the evaluators learn from.

    python prepare_text.py --data DIR [--pairs N] [--test-pairs N]

Reads ``quora_pairs.tsv.gz`` (columns cluster, split, source, target) and ``quora_labelled.tsv.gz`` (split, label, question1,
question2), and for the judge alone, where they are, ``twitter_url_labelled.tsv.gz`` and ``pan_test.tsv.gz`` (label, sentence1,
sentence2). Writes into ``text/``: train, valid and test, all references of a sentence, labelled pairs of which one half of the
training set is the evaluator's and the other the held-out evaluator's, and in ``judged/`` the tables for the judge.

Pairs of equal sides and repeated pairs are left out; valid and test have each source once. Labelled pairs get the form of the
pairs of paraphrases: lower case, words apart, no final question mark. Whole clusters lie on one side of the split; that no
sentence of valid or test is in training is checked, and labelled pairs with such a sentence are left out. No sentence is in
both halves.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fairseq_bert_kd.data.negatives import shared_sentences
from fairseq_bert_kd.text_lines import open_lines

Row = dict[str, str]
HEADER = "question1\tquestion2\tis_duplicate"
# tables of labelled pairs that only the judge reads: name -> file
OTHERS = {"twitter": "twitter_url_labelled.tsv.gz", "pan": "pan_test.tsv.gz"}


def rows(path: Path) -> list[Row]:
    """Rows of a table with a header."""
    header, *lines = (line.split("\t") for line in open_lines(path))
    return [dict(zip(header, line, strict=True)) for line in lines]


def write(name: str, lines: Iterable[str]) -> None:
    Path("text", name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def different_pairs(pairs: Sequence[Row]) -> list[Row]:
    """Pairs of two sentences, each pair once."""
    once: dict[tuple[str, str], Row] = {}
    for row in pairs:
        once.setdefault((row["source"], row["target"]), row)
    return [row for row in once.values() if row["source"] != row["target"]]


def first_of_source(pairs: Sequence[Row]) -> list[Row]:
    """The first pair of each source."""
    first: dict[str, Row] = {}
    for row in pairs:
        first.setdefault(row["source"], row)
    return list(first.values())


def plain(text: str) -> str:
    """A raw question in the form of the pairs of paraphrases: "What's C++?" is "what 's c++"."""
    from nltk.tokenize import NLTKWordTokenizer  # rouge-score brings it

    words = NLTKWordTokenizer().tokenize(text.lower())
    return " ".join(words[:-1] if words[-1:] == ["?"] else words)


def labelled_pairs(found: Sequence[Row], names: tuple[str, str]) -> list[tuple[str, str, str]]:
    """Both sentences in plain form, and the label."""
    return [(plain(row[names[0]]), plain(row[names[1]]), row["label"]) for row in found]


def halves(pairs: Sequence[tuple[str, str, str]]) -> tuple[list, list]:
    """Two halves in the order of the pairs; pairs that share a sentence, also through others, are in one of them."""
    number = {
        text: place for place, text in enumerate(dict.fromkeys(t for *texts, _ in pairs for t in texts))
    }
    first, second = ([number[pair[side]] for pair in pairs] for side in (0, 1))
    links = coo_array(([1] * len(pairs), (first, second)), shape=(len(number), len(number)))
    _, component = connected_components(links, directed=False)
    sizes = Counter(component[place] for place in first)
    half_of, filled = {}, [0, 0]
    for name, size in sizes.items():
        half_of[name] = filled.index(min(filled))
        filled[half_of[name]] += size
    one, other = (
        [pair for pair, place in zip(pairs, first, strict=True) if half_of[component[place]] == half]
        for half in (0, 1)
    )
    return one, other


def sentences(pairs: Sequence[Row]) -> list[str]:
    return [text for row in pairs for text in (row["source"], row["target"])]


def write_labelled(args: argparse.Namespace, held: list[str]) -> None:
    """Labelled pairs to learn from without those of held sentences, and those to judge by."""
    labelled = rows(Path(args.data, "quora_labelled.tsv.gz"))
    for split in ("train", "valid", "test"):
        found = labelled_pairs([r for r in labelled if r["split"] == split], ("question1", "question2"))
        if split != "test":
            shared = set(shared_sentences([text for *texts, _ in found for text in texts], held))
            kept = [row for row in found if not shared & {row[0], row[1]}]
            print(
                f"labelled {split}: {len(kept):,} pairs; {len(found) - len(kept)} with a sentence of valid or test left out"
            )
            found = kept
        tables = {f"labelled.{split}": found}
        if split == "train":
            tables = dict(zip(("labelled.train", "held-out.train"), halves(found), strict=True))
            print(" and ".join(f"{name} {len(table):,}" for name, table in tables.items()))
        for name, table in tables.items():
            write(f"{name}.tsv", [HEADER, *map("\t".join, table)])
    Path("text", "judged").mkdir(exist_ok=True)
    for name, file in OTHERS.items():
        if (path := Path(args.data, file)).exists():
            table = rows(path)
            every = -(-len(table) // (args.test_pairs or len(table)))  # they may stand in order of labels
            others = labelled_pairs(table[::every], ("sentence1", "sentence2"))
            write(f"judged/{name}.tsv", [HEADER, *map("\t".join, others)])


def main(args: argparse.Namespace) -> None:
    Path("text").mkdir(exist_ok=True)
    given = rows(Path(args.data, "quora_pairs.tsv.gz"))
    pairs = different_pairs(given)
    of_cluster: dict[str, dict[str, None]] = defaultdict(dict)
    by_split: dict[str, list[Row]] = defaultdict(list)
    for row in pairs:
        of_cluster[row["cluster"]] |= {row["source"]: None, row["target"]: None}
        by_split[row["split"]].append(row)
    sets = {
        "train": by_split["train"][: args.pairs],
        "valid": first_of_source(by_split["valid"])[: args.test_pairs],
        "test": first_of_source(by_split["test"])[: args.test_pairs],
    }
    for split, chosen in sets.items():
        write(f"{split}.source", [row["source"] for row in chosen])
        write(f"{split}.target", [row["target"] for row in chosen])
        references = (
            [text for text in of_cluster[row["cluster"]] if text != row["source"]] for row in chosen
        )
        write(f"{split}.references", map("\t".join, references))
    held = sentences([*by_split["valid"], *by_split["test"]])
    if shared := shared_sentences(sentences(sets["train"]), held):
        raise SystemExit(
            f"{len(shared)} sentences of valid or test are in training, the first is {shared[0]!r}"
        )
    print(f"{len(given):,} pairs, {len(pairs):,} different ones of two sentences")
    clusters = len({row["cluster"] for row in sets["train"]})
    print(f"train {len(sets['train']):,} pairs of {clusters:,} clusters")
    print(f"valid {len(sets['valid']):,}, test {len(sets['test']):,} sources; no sentence is in training")
    write_labelled(args, held)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument(
        "--test-pairs", type=int, help="sources of valid and test, and pairs of other sets of the judge"
    )
    main(parser.parse_args())
