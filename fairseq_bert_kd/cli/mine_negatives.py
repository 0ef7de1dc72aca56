"""``fairseq-bert-kd mine-negatives``: pairs of paraphrases and mined pairs that are none, to train an evaluator on."""

import argparse
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.output_files import check_new_file, write_text
from fairseq_bert_kd.text_lines import open_lines

logger = logging.getLogger(__name__)

HELP = "pairs of paraphrases, and mined pairs that are none, as a table for prepare-sentences --task qqp"
EXAMPLE = """examples:
  fairseq-bert-kd mine-negatives --input pairs.tsv --output train.tsv --sentence-encoder sentence-transformers/all-MiniLM-L6-v2
  fairseq-bert-kd mine-negatives --input pairs.tsv --output train.tsv --kinds random --ratio 2 --held-out test.tsv

Tables are tab-separated with a header, in UTF-8, and may be compressed by gzip (.gz)."""
KINDS = ("hard", "random")
CLASSES = ("not_duplicate", "duplicate")
HEADER = "question1\tquestion2\tis_duplicate"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, metavar="FILE", help="table of pairs of paraphrases")
    parser.add_argument("--output", required=True, metavar="FILE", help="table to write")
    parser.add_argument(
        "--columns",
        default="cluster,source,target",
        metavar="CLUSTER,FIRST,SECOND",
        help="names of the columns: number of the cluster of paraphrases, and the two sentences (default: %(default)s)",
    )
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="take only the rows whose column `split` has this value (default: all rows)",
    )
    parser.add_argument("--pairs", type=int, metavar="N", help="take the first N pairs only (default: all)")
    parser.add_argument(
        "--kinds",
        default="hard,random",
        help="kinds of negatives, shared out equally. hard: the nearest sentence of another cluster by --sentence-encoder, the next one where "
        "a sentence needs several; random: any sentence of another cluster (default: %(default)s)",
    )
    parser.add_argument(
        "--ratio", type=float, default=1.0, metavar="R", help="negatives per pair (default: %(default)s)"
    )
    parser.add_argument(
        "--sentence-encoder",
        "--encoder",  # its name before `rerank` and `score` had one
        metavar="PATH",
        help="folder or hub name of a transformers encoder of sentences, or checkpoint of a sentence LSTM, for hard negatives",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the draws (default: %(default)s)")
    parser.add_argument(
        "--held-out",
        nargs="+",
        default=[],
        metavar="FILE",
        help="tables with sentences that must not be among the input's: any column of a row counts",
    )
    parser.add_argument(
        "--allow-overlap",
        action="store_true",
        help="go on where sentences of --held-out are among the input's",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


class Pairs(NamedTuple):
    """Pairs of paraphrases.

    Attributes:
        texts: ``(sentences,)`` each once.
        clusters: ``(sentences,)`` cluster of each.
        pairs: ``(pairs, 2)`` numbers of sentences.
    """

    texts: list[str]
    clusters: NDArray[np.int64]
    pairs: NDArray[np.int64]


def main(args: argparse.Namespace) -> None:
    """Read the pairs, mine, check, write.

    Raises:
        ValueError: options or a table that do not fit, or sentences shared with ``--held-out``.
        FileExistsError: the output exists.
    """
    kinds = check_options(args)
    from fairseq_bert_kd.data.negatives import check_negatives

    table = read_pairs(args.input, args.columns, args.split, args.pairs)
    check_held_out(table.texts, args.held_out, args.allow_overlap)
    rng = np.random.default_rng(args.seed)
    count = round(args.ratio * len(table.pairs))
    if not count:
        raise ValueError(
            f"--ratio {args.ratio:g} of {len(table.pairs)} pairs is no negative at all, and an evaluator learns from both kinds; raise it"
        )
    order = rng.permutation(len(table.pairs))
    rows = table.pairs[np.resize(order, count), 0]  # every pair as often as another
    of_row = shared_out(len(order), count, len(kinds))
    negatives = mine(table, rows, of_row, kinds, args.sentence_encoder, args.seed)
    check_negatives(table.clusters, rows, negatives)
    labelled = [(first, second, 1) for first, second in table.pairs.tolist()]
    labelled += [(first, second, 0) for first, second in zip(rows.tolist(), negatives.tolist(), strict=True)]
    lines = [HEADER]
    for place in rng.permutation(len(labelled)).tolist():
        first, second, label = labelled[place]
        lines.append(f"{table.texts[first]}\t{table.texts[second]}\t{CLASSES[label]}")
    write_text(args.output, "".join(f"{line}\n" for line in lines))
    print(
        f"{args.output}: {len(table.pairs):,} pairs of paraphrases and {count:,} that are none ({', '.join(kinds)}), of "
        f"{len(table.texts):,} sentences in {len(set(table.clusters.tolist())):,} clusters"
    )


def check_options(args: argparse.Namespace) -> list[str]:
    """The kinds of negatives.

    Raises:
        ValueError, FileExistsError: as in `main`.
    """
    kinds = args.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"--kinds must be of {', '.join(KINDS)}, got `{unknown[0]}`; correct it")
    if ("hard" in kinds) != bool(args.sentence_encoder):
        option = "--sentence-encoder"
        said = f"needs {option}" if "hard" in kinds else f"are not asked for; leave {option} out"
        raise ValueError(f"hard negatives: --kinds {args.kinds} {said}")
    if args.ratio <= 0:
        raise ValueError(f"--ratio must be above 0, got {args.ratio:g}; 1 is one negative per pair")
    if args.pairs is not None and args.pairs < 2:
        raise ValueError(f"--pairs must be at least 2, got {args.pairs}; leave it out to take all")
    check_new_file("--output", args.output, args.overwrite)
    return kinds


def read_pairs(path: str, columns: str, split: str | None, limit: int | None) -> Pairs:
    """Pairs of a table, each once and none of a sentence with itself; case and white space make no other sentence.

    Raises:
        ValueError: missing columns or sentences, a sentence in two clusters, or fewer than two clusters.
    """
    from fairseq_bert_kd.data.negatives import plain

    numbers: dict[str, int] = {}  # by plain text
    texts: list[str] = []
    clusters: list[str] = []
    pairs: dict[tuple[int, int], None] = {}
    left_out = 0
    for number, cluster, *sides in _rows(path, columns, split):
        first, second = map(plain, sides)
        if first == second or (numbers.get(first), numbers.get(second)) in pairs:
            left_out += 1
            continue
        for text, side in zip((first, second), sides, strict=True):
            if numbers.setdefault(text, len(numbers)) == len(texts):
                texts.append(side)
                clusters.append(cluster)
            elif clusters[numbers[text]] != cluster:
                raise ValueError(
                    f"`{path}`, line {number}: {side!r} is in clusters {clusters[numbers[text]]} and {cluster}; join them, since "
                    "all its paraphrases are paraphrases of each other"
                )
        pairs[numbers[first], numbers[second]] = None
        if limit and len(pairs) == limit:
            break
    if not clusters and split:
        raise ValueError(f"`{path}` has no row whose column `split` is `{split}`; correct --split")
    if len(set(clusters)) < 2:
        raise ValueError(
            f"negatives come from another cluster, `{path}` has {len(set(clusters))}; give more pairs"
        )
    if left_out:
        logger.info(
            "`%s`: %d pairs left out, repeated or of a sentence with itself, case aside", path, left_out
        )
    _, of_sentence = np.unique(clusters, return_inverse=True)
    return Pairs(texts, of_sentence.astype(np.int64), np.array(list(pairs), dtype=np.int64))


def _rows(path: str, columns: str, split: str | None) -> Iterator[tuple[int, str, str, str]]:
    """Line number, cluster and two sentences of each row of a table.

    Raises:
        ValueError: not three columns, some that the table or a line does not have, or a row without one of its sentences.
    """
    names = columns.split(",")
    if len(names) != 3:
        raise ValueError(
            f"--columns names three columns, cluster and two sentences, got `{columns}`; the default is cluster,source,target"
        )
    lines = (line.split("\t") for line in open_lines(path))
    header = next(lines, None)
    if header is None:
        raise ValueError(
            f"`{path}` is empty; give a tab-separated table whose header has the columns {', '.join(names)}"
        )
    wanted = [*names, *(["split"] if split else [])]
    if missing := [name for name in wanted if name not in header]:
        raise ValueError(
            f"`{path}` has no column `{missing[0]}`; its header is {', '.join(header)}. Correct --columns or --split"
        )
    places = [header.index(name) for name in wanted]
    for number, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise ValueError(
                f"`{path}`, line {number}: {len(line)} columns, the header has {len(header)}; correct the line"
            )
        cluster, first, second, *in_split = (line[place] for place in places)
        if split and in_split != [split]:
            continue
        for name, text in zip(names[1:], (first, second), strict=True):
            if not text.strip():
                raise ValueError(
                    f"`{path}`, line {number}: no sentence in column `{name}`, and a pair has two; take the line out"
                )
        yield number, cluster, first, second


def check_held_out(texts: Sequence[str], files: Sequence[str], allowed: bool) -> None:
    """Check that no sentence is in a held-out table.

    Raises:
        ValueError: some are, and this is not allowed.
    """
    from fairseq_bert_kd.data.negatives import shared_sentences

    for file in files:
        theirs = [text for line in open_lines(file) for text in line.split("\t")]
        shared = shared_sentences(texts, theirs)
        if not shared:
            continue
        said = f"{len(shared)} of {len(texts)} sentences are in `{file}` too, the first is {shared[0]!r}"
        if not allowed:
            raise ValueError(
                f"{said}: what is learned from them is no measure there. Split by cluster, or pass --allow-overlap to go on"
            )
        logger.warning("%s", said)


def shared_out(pairs: int, count: int, kinds: int) -> NDArray[np.int64]:
    """``(count,)`` number of the kind of each negative: the kinds in turn, and from round to round of all pairs the next one."""
    places = np.arange(count)
    return (places % pairs + places // pairs) % kinds


def mine(
    table: Pairs,
    rows: NDArray[np.int64],
    of_row: NDArray[np.int64],
    kinds: Sequence[str],
    encoder: str | None,
    seed: int,
) -> NDArray[np.int64]:
    """A negative for each of ``(n,)`` sentences, of the kind whose number ``of_row`` holds."""
    from fairseq_bert_kd.data.negatives import nearest_negatives, random_negatives

    found = np.empty(len(rows), dtype=np.int64)
    for number, kind in enumerate(kinds):
        places = of_row == number
        if kind == "random":
            found[places] = random_negatives(table.clusters, rows[places], seed)
        else:
            import fairseq_bert_kd.tasks  # noqa: F401  registers the task of sentence models
            from fairseq_bert_kd.rewards.interface import best_device
            from fairseq_bert_kd.rewards.similarity import load_vectors

            assert encoder
            means = load_vectors(encoder, "--sentence-encoder")
            means.to(best_device())
            vectors = means.of_texts(table.texts).cpu()
            found[places] = nearest_negatives(vectors, table.clusters, rows[places])
    return found
