"""``fairseq-bert-kd entities``: which pieces of a data folder's sentences name which entity."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.alignment import check_tokenizer
from fairseq_bert_kd.storage.entity_mentions import ALL, COLUMNS, FILE, FIRST, write_mentions
from fairseq_bert_kd.storage.entity_vectors import read_entity_vectors
from fairseq_bert_kd.storage.fairseq_data import open_sides, sentence_files
from fairseq_bert_kd.storage.sentence_data import read_spec
from fairseq_bert_kd.text_lines import open_lines
from fairseq_bert_kd.tokenization.dictionary import load_dictionary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.mentions import DictionaryLinker, Mention, align_mentions, outermost

HELP = "which pieces of prepared sentences name which entity, for --arch entity_encoder; prints the coverage"
EXAMPLE = """examples:
  fairseq-bert-kd entities data-bin --vectors graph.safetensors --train train.jsonl --valid valid.jsonl
  fairseq-bert-kd entities data-bin --vectors graph.safetensors --linker dictionary --names names.tsv --subset train,valid

a line of a .jsonl file, one per row of the split, offsets in characters:
  {"text": "Bob Dylan wrote", "mentions": [[0, 9, "Q392"]]}
of rows with two texts, the number of the text first:
  {"texts": ["a tree", "a plant"], "mentions": [[0, 2, 6, "Q10884"], [1, 2, 7, "Q756"]]}"""
SPLITS = ("train", "valid", "test")


class RowMentions(NamedTuple):
    """Texts of a row, and its mentions in characters of each."""

    texts: list[str]
    mentions: list[list[Mention]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("data", help="folder that `prepare-sentences` wrote; the mentions go into it")
    parser.add_argument(
        "--vectors",
        required=True,
        metavar="FILE",
        help="entity vectors, a .safetensors file with its ids beside it",
    )
    for split in SPLITS:
        parser.add_argument(f"--{split}", metavar="FILE.jsonl", help=f"mentions of the rows of {split}")
    parser.add_argument(
        "--linker", choices=("dictionary",), help="find mentions by their names, instead of files"
    )
    parser.add_argument(
        "--names",
        metavar="FILE",
        help="of the linker: entity id and name with a tab between, several names each on their own line",
    )
    parser.add_argument(
        "--subset", default="train,valid", help="splits that the linker reads (default: %(default)s)"
    )
    parser.add_argument(
        "--tokenizer", help="folder or hub name (default: the one that the data were prepared with)"
    )
    parser.add_argument(
        "--entity-span",
        choices=(FIRST, ALL),
        default=FIRST,
        help="which pieces of a mention carry its vector: the first one (the paper), or all (the released data) (default: %(default)s)",
    )
    parser.add_argument(
        "--unknown-entities",
        choices=("none", "error"),
        default="none",
        help="mentions of entities without a vector: carry none and are counted, or are refused (default: %(default)s)",
    )
    parser.add_argument(
        "--min-coverage",
        type=float,
        default=20.0,
        help="least share of mentions, in percent, that must have a vector in each split (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace mentions that are there")


def main(args: argparse.Namespace) -> None:
    if (Path(args.data) / FILE).exists() and not args.overwrite:
        raise FileExistsError(f"`{args.data}` has mentions already; pass --overwrite to replace them")
    files = {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    if bool(files) == bool(args.linker):
        raise ValueError("give either files of mentions (--train, --valid, --test) or --linker dictionary")
    if args.linker and not args.names:
        raise ValueError("--linker dictionary needs --names, a file of entity ids and names")
    vectors = read_entity_vectors(args.vectors)
    table = {name: number for number, name in enumerate(vectors.ids, start=1)}
    folder = _Folder(args.data, args.tokenizer)
    linker = DictionaryLinker(_names(args.names)) if args.linker else None
    splits = {}
    for split in files or args.subset.split(","):
        rows = folder.texts(split)
        read = _linked(rows, linker, folder) if linker else _read(files[split])
        splits[split] = folder.align(split, rows, read, table, args)
    write_mentions(args.data, vectors.digest(), args.entity_span, splits)


def _names(path: str) -> dict[str, str]:
    """Entity of each name; the first one, where several have it."""
    names: dict[str, str] = {}
    for number, line in enumerate(open_lines(path), start=1):
        entity, tab, name = line.rstrip("\r\n").partition("\t")
        if not (entity and tab and name.strip()):
            raise ValueError(
                f"{path}, line {number:,}: expected an entity id, a tab and a name, got {line.rstrip()[:60]!r}"
            )
        names.setdefault(name, entity)
    return names


def _read(path: str) -> Iterator[RowMentions]:
    """Rows of a file of mentions.

    Raises:
        ValueError: a line of another form.
    """
    for number, line in enumerate(open_lines(path), start=1):
        try:
            fields = json.loads(line)
            texts = fields["texts"] if "texts" in fields else [fields["text"]]
            mentions: list[list[Mention]] = [[] for _ in texts]
            for *which, begin, end, entity in fields["mentions"]:
                [text] = which or [0]
                mentions[text].append(Mention(int(begin), int(end), str(entity)))
        except (ValueError, KeyError, TypeError, IndexError):
            raise ValueError(
                f"{path}, line {number:,}: expected a JSON object with a text and its mentions (see `fairseq-bert-kd entities "
                f"--help`), got {line.rstrip()[:60]!r}"
            ) from None
        yield RowMentions(texts, mentions)


def _linked(
    rows: Sequence[list[list[int]]], linker: DictionaryLinker, folder: "_Folder"
) -> Iterator[RowMentions]:
    """Texts as the tokenizer left them, with the mentions that a linker finds."""
    for row in rows:
        texts = [folder.tokenizer.decode([folder.dictionary[piece] for piece in text]) for text in row]
        yield RowMentions(texts, [linker.link(text) for text in texts])


class _Folder:
    """A folder of prepared sentences, with its tokenizer and dictionary."""

    def __init__(self, path: str, tokenizer: str | None):
        self.path, self.spec = path, read_spec(path)
        name = tokenizer or self.spec.tokenizer_name
        self.tokenizer = HfTokenizer(name)
        check_tokenizer(f"data folder `{path}`", self.spec.tokenizer, self.tokenizer.digest(), name)
        self.dictionary: Any = load_dictionary(path, self.spec)

    def texts(self, split: str) -> list[list[list[int]]]:
        """Pieces of each text of each row, without end of sentence."""
        names = [f"input{number}" for number in range(self.spec.texts)]
        sides = open_sides(sentence_files(self.path, split, names), split)
        return [[side[row][:-1].tolist() for side in sides.values()] for row in range(len(sides["input0"]))]

    def align(
        self,
        split: str,
        rows: Sequence[list[list[int]]],
        read: Iterator[RowMentions],
        table: dict[str, int],
        args: argparse.Namespace,
    ) -> NDArray[np.int64]:
        """``(mentions, 5)`` of a split, and print what became of them.

        Raises:
            ValueError: other texts than the folder's, a mention that is not one, or too few entities with vectors.
        """
        found, counts = [], Counter[str]()
        unknown = Counter[str]()
        number = -1
        for number, row in enumerate(read):
            if number >= len(rows):
                raise ValueError(
                    f"{split}: more lines of mentions than the {len(rows):,} rows of the data; give the file of this split"
                )
            place = f"{split}, row {number + 1:,}"
            for text, mentions in enumerate(self._aligned(row, rows[number], place)):
                kept = outermost(mentions)
                counts["mentions"] += len(mentions)
                counts["nested"] += len(mentions) - len(kept)
                for begin, end, entity in kept:
                    if end > len(rows[number][text]):
                        counts["cut"] += 1
                    elif entity not in table:
                        unknown[entity] += 1
                    else:
                        found.append((number, text, begin, end, table[entity]))
        if number + 1 != len(rows):
            raise ValueError(
                f"{split}: {number + 1:,} lines of mentions for {len(rows):,} rows of the data; give one line per row"
            )
        _report(split, len(rows), found, counts, unknown, args)
        return np.array(found, np.int64).reshape(-1, COLUMNS)

    def _aligned(self, row: RowMentions, pieces: list[list[int]], place: str) -> Iterator[list[Mention]]:
        """Mentions of each text in pieces."""
        if len(row.texts) != len(pieces):
            raise ValueError(
                f"{place}: {len(row.texts)} texts where the data have {len(pieces)}; give the file of this split"
            )
        for text, mentions, stored in zip(row.texts, row.mentions, pieces, strict=True):
            ids = [self.dictionary.index(piece) for piece in self.tokenizer.encode(text)]
            if ids[: len(stored)] != stored:
                raise ValueError(
                    f"{place}: the text {text[:60]!r} is not that of the data; give the mentions of this split, in its order"
                )
            try:
                yield align_mentions(self.tokenizer, text, mentions)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None


def _report(
    split: str,
    rows: int,
    found: Sequence[tuple[int, ...]],
    counts: Counter[str],
    unknown: Counter[str],
    args: argparse.Namespace,
) -> None:
    """Print the coverage of a split; ValueError if it is too low."""
    without = sum(unknown.values())
    linked = len(found) + without
    coverage = 100 * len(found) / linked if linked else 0.0
    marked = len({row for row, *_ in found})
    print(
        f"{split}: {counts['mentions']:,} mentions; {len(found):,} carry a vector ({coverage:.1f} % of those inside the cut), in {marked:,} "
        f"of {rows:,} rows; {without:,} of {len(unknown):,} entities have none, {counts['nested']:,} overlap a longer one, "
        f"{counts['cut']:,} lie behind the cut"
    )
    if unknown and args.unknown_entities == "error":
        raise ValueError(
            f"{split}: {without:,} mentions are of entities without a vector (first: {min(unknown)}); leave --unknown-entities error "
            "out, or give vectors that have them"
        )
    if coverage < args.min_coverage:
        raise ValueError(
            f"{split}: {coverage:.1f} % of the mentions have a vector, less than --min-coverage {args.min_coverage:g}: such vectors can "
            "hardly help; give vectors of another graph, or a lower number"
        )
