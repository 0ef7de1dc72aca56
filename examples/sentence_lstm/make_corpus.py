"""A corpus of unlabelled sentences of several kinds, without any sentence of the evaluation sets.

    python make_corpus.py --data DATA --destdir text --sentences 60000

Every source gives as many sentences as the others, or all that it has: paraphrases of Quora's training clusters, everyday
sentences (Tatoeba), image captions (Multi30k), reviews' phrases (SST-2), descriptions of facts (WebNLG), and sentences of
abstracts (ACL).
"""

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from fairseq_bert_kd.text_lines import open_lines

WORDS = range(2, 61)  # of a sentence that is taken
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
NOT_LETTERS = re.compile(r"\W+")
EVALUATION = {  # file -> columns of its sentences
    "glue/STS-B/sts-train.csv.gz": (5, 6),
    "glue/STS-B/sts-dev.csv.gz": (5, 6),
    "glue/STS-B/sts-test.csv.gz": (5, 6),
    "glue/SST-2/dev.tsv.gz": (1,),
    "glue/SST-2/test.tsv.gz": (1,),
    "glue/MRPC/msr_paraphrase_train.txt.gz": (3, 4),
    "glue/MRPC/msr_paraphrase_test.txt.gz": (3, 4),
    "glue/RTE/train.tsv.gz": (1, 2),
    "glue/RTE/dev.tsv.gz": (1, 2),
    "glue/RTE/test.tsv.gz": (1, 2),
}


def quora(data: Path) -> Iterator[str]:
    for line in open_lines(data / "paraphrase/quora_pairs.tsv.gz"):
        _, split, _, source, target = line.split("\t")
        if split == "train":
            yield from (source, target)


def tatoeba(data: Path) -> Iterator[str]:
    return open_lines(data / "tatoeba_de-en/train.en.gz")


def multi30k(data: Path) -> Iterator[str]:
    return open_lines(data / "multi30k/train.en.gz")


def sst2(data: Path) -> Iterator[str]:
    for line in open_lines(data / "glue/SST-2/train.tsv.gz"):
        yield line.split("\t")[1]


def webnlg(data: Path) -> Iterator[str]:
    for line in open_lines(data / "entities/webnlg/train.jsonl.gz"):
        yield json.loads(line)["text"]


def acl(data: Path) -> Iterator[str]:
    for line in open_lines(data / "acl_titles/train.tsv.gz"):
        yield from SENTENCE_END.split(line.split("\t")[0])


SOURCES: dict[str, Callable[[Path], Iterator[str]]] = {
    "quora": quora, "tatoeba": tatoeba, "multi30k": multi30k, "sst2": sst2, "webnlg": webnlg, "acl": acl,
}  # fmt: skip


def key(sentence: str) -> str:
    """What two spellings of a sentence share: its letters and digits."""
    return NOT_LETTERS.sub(" ", sentence.lower()).strip()


def evaluation_keys(data: Path) -> set[str]:
    found = set()
    for name, columns in EVALUATION.items():
        for line in open_lines(data / name):
            fields = line.split("\t")
            found.update(key(fields[column]) for column in columns if column < len(fields))
    return found


def gather(data: Path, without: list[str]) -> dict[str, list[str]]:
    """Sentences of each source in a fixed random order, none twice and none of the evaluation sets."""
    seen, found = evaluation_keys(data), {}
    for name, read in SOURCES.items():
        if name in without:
            continue
        kept = []
        for sentence in map(str.strip, read(data)):
            if len(sentence.split()) in WORDS and (known := key(sentence)) and known not in seen:
                seen.add(known)
                kept.append(sentence)
        random.Random(0).shuffle(kept)
        found[name] = kept
    return found


def shares(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Equal shares of the total; what a source lacks, the others give."""
    taken, left = dict.fromkeys(sizes, 0), min(total, sum(sizes.values()))
    while left:
        wanting = [name for name in sizes if taken[name] < sizes[name]]
        equal = max(left // len(wanting), 1)
        for name in wanting:
            share = min(sizes[name] - taken[name], equal, left)
            taken[name] += share
            left -= share
    return taken


def write(destdir: Path, split: str, sentences: dict[str, list[str]]) -> None:
    everything = [sentence for kept in sentences.values() for sentence in kept]
    random.Random(1).shuffle(everything)
    (destdir / f"{split}.txt").write_text("".join(f"{line}\n" for line in everything), encoding="utf-8")
    counts = ", ".join(f"{name} {len(kept):,}" for name, kept in sentences.items())
    print(f"{split}: {len(everything):,} sentences ({counts})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, type=Path, help="folder with the sources' files")
    parser.add_argument("--destdir", required=True, type=Path)
    parser.add_argument("--sentences", type=int, default=60_000, help="of the training split")
    parser.add_argument("--valid", type=int, default=1_000, help="sentences of the validation split")
    parser.add_argument("--without", nargs="*", default=[], choices=SOURCES, help="sources that are left out")
    args = parser.parse_args()
    sources = gather(args.data, args.without)
    if not any(sources.values()):
        sys.exit(f"{args.data} holds no sentence of {', '.join(sources)}")
    valid = shares({name: len(kept) // 10 for name, kept in sources.items()}, args.valid)
    train = shares({name: len(kept) - valid[name] for name, kept in sources.items()}, args.sentences)
    args.destdir.mkdir(parents=True, exist_ok=True)
    write(args.destdir, "valid", {name: kept[: valid[name]] for name, kept in sources.items()})
    write(
        args.destdir,
        "train",
        {name: kept[valid[name] : valid[name] + train[name]] for name, kept in sources.items()},
    )


if __name__ == "__main__":
    main()
