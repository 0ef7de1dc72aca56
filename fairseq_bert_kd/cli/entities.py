"""``fairseq-bert-kd entities``: which pieces of a data folder's sentences name which entity."""

import argparse
import functools
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.data.corpus_parts import language_pair
from fairseq_bert_kd.functional.entity_fusion import NO_ENTITY
from fairseq_bert_kd.storage.entity_mentions import (
    ALL,
    COLUMNS,
    FILE,
    FIRST,
    NO_ARGUMENT,
    SplitMentions,
    kept_splits,
    write_mentions,
)
from fairseq_bert_kd.storage.entity_vectors import read_entity_vectors
from fairseq_bert_kd.storage.fairseq_data import (
    LABELS_FILE,
    SPECIAL_SYMBOLS,
    IndexedTokens,
    Sides,
    open_pairs,
    open_sides,
    read_dictionary,
    sentence_files,
)
from fairseq_bert_kd.storage.sentence_data import check_tokenizer, read_spec
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
of rows with two texts, or a source and a target, the number of the text first:
  {"texts": ["a tree", "a plant"], "mentions": [[0, 2, 6, "Q10884"], [1, 2, 7, "Q756"]]}
"arguments" says which mentions are head and tail of a relation, or which one is to be typed, for --entity-markers:
  {"text": "Bob Dylan was born in Duluth", "mentions": [[0, 9, "Q392"], [22, 28, "Q485708"]], "arguments": [0, 1]}
"types" are the types of the mention that "arguments" names, any number of them:
  {"text": "Bob Dylan wrote", "mentions": [[0, 9, "Q392"]], "arguments": [0], "types": ["person", "artist"]}"""
SPLITS = ("train", "valid", "test")
UNKNOWN = SPECIAL_SYMBOLS.index("<unk>")


class RowMentions(NamedTuple):
    """Texts of a row, its mentions in characters of each, and those that are its arguments: text and place in its list."""

    texts: list[str]
    mentions: list[list[Mention]]
    arguments: Sequence[tuple[int, int]] = ()
    types: Sequence[str] = ()  # of the first argument
    # of texts that a linker read, where a mention inside a piece is left out
    pieces: list[list[str]] | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        help="folder that `prepare-sentences` wrote, or fairseq-preprocess of source and target; the mentions go into it",
    )
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
        "--subset", help="splits that the linker reads, separated by commas (default: train,valid)"
    )
    parser.add_argument(
        "--tokenizer", help="folder or hub name (default: the one that sentences were prepared with)"
    )
    for side in ("source", "target"):
        parser.add_argument(
            f"--{side}-lang", help=f"language of the {side} of pairs (default: that of the file names)"
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
    """Find the mentions, print their coverage, and write them.

    Raises:
        ValueError: options that contradict each other, mentions of another text, or too few entities with vectors.
        FileNotFoundError: a missing file or split.
        FileExistsError: there are mentions already.
    """
    files = {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    _check_options(args, files)
    vectors = read_entity_vectors(args.vectors)
    written = list(files) or (args.subset or "train,valid").split(",")
    _check_existing(args, written, vectors.digest())
    table = {name: number for number, name in enumerate(vectors.ids, start=1)}
    folder = _Sentences(args) if (Path(args.data) / LABELS_FILE).is_file() else _Pairs(args)
    linker = _linker(args.names, folder.tokenizer) if args.linker else None
    splits = {}
    for split in written:
        sides = list(folder.sides(split).values())
        read = _linked(sides, linker, folder) if linker is not None else _read(files[split])
        splits[split] = SplitMentions(sides, *folder.align(split, sides, read, table, args))
    if linker is not None:
        print(f"{len(linker.found):,} of {len(linker):,} names occur in the text, as the longest at a word")
    write_mentions(args.data, vectors.digest(), args.entity_span, splits)


def _check_options(args: argparse.Namespace, files: Mapping[str, str]) -> None:
    """ValueError for options that contradict each other; ``files`` are those of mentions, by split."""
    if not 0 <= args.min_coverage <= 100:  # which NaN is not
        raise ValueError(
            f"--min-coverage must be a share in percent, from 0 to 100, got {args.min_coverage:g}; give such a number"
        )
    if bool(files) == bool(args.linker):
        raise ValueError("give either files of mentions (--train, --valid, --test) or --linker dictionary")
    if bool(args.linker) != bool(args.names):
        raise ValueError(
            "--linker dictionary needs --names, a file of entity ids and names, and nothing else reads it"
        )
    if args.subset and files:
        raise ValueError(
            "--subset names the splits of --linker dictionary; leave it out beside files of mentions"
        )


def _check_existing(args: argparse.Namespace, written: Sequence[str], digest: str) -> None:
    """Refuse to replace mentions without --overwrite; say which ones end with it.

    Raises:
        FileExistsError: the folder has mentions of a split that would be written, or of other vectors or pieces.
    """
    if not (Path(args.data) / FILE).exists():
        return
    kept = kept_splits(args.data, digest, args.entity_span)
    if kept and not kept.keys() & {*written}:
        return
    if not args.overwrite:
        what = (
            f"of {', '.join(kept.keys() & {*written})}"
            if kept
            else "of other vectors or another --entity-span"
        )
        raise FileExistsError(f"`{args.data}` has mentions {what} already; pass --overwrite to replace them")
    if not kept:
        print(
            "the folder's mentions are of other vectors or another --entity-span: all of its splits are replaced"
        )


def _linker(names: str, tokenizer: HfTokenizer) -> DictionaryLinker:
    """The linker of a file of names, which it reads as the tokenizer leaves them; print how many name several entities."""
    linker = DictionaryLinker(_names(names), tokenizer.normalise)
    if linker.ambiguous:
        print(
            f"{len(linker.ambiguous):,} names of {names} stand there before, but for case, spaces or what the tokenizer takes away, "
            f"and name another entity (first: {linker.ambiguous[0]!r}); the first one counts"
        )
    return linker


def _names(path: str) -> Iterator[tuple[str, str]]:
    """Names and their entities."""
    for number, line in enumerate(open_lines(path), start=1):
        entity, tab, name = line.rstrip("\r\n").partition("\t")
        if not (entity and tab and name.strip()):
            raise ValueError(
                f"{path}, line {number:,}: expected an entity id, a tab and a name, got {line.rstrip()[:60]!r}"
            )
        yield name, entity


def _read(path: str) -> Iterator[RowMentions]:
    """Rows of a file of mentions.

    Raises:
        ValueError: a line of another form.
    """
    for number, line in enumerate(open_lines(path), start=1):
        try:
            fields = json.loads(line)
            texts = _strings(fields["texts"] if "texts" in fields else [fields["text"]])
            mentions: list[list[Mention]] = [[] for _ in texts]
            places = []
            for *which, begin, end, entity in fields["mentions"]:
                [text] = which or ([0] if len(texts) == 1 else [])
                places.append((text, len(mentions[_number(text)])))
                mentions[text].append(Mention(_number(begin), _number(end), _entity(entity)))
            arguments = [places[_number(mention)] for mention in fields.get("arguments", ())]
            types = _strings(fields.get("types", []))
        except (ValueError, KeyError, TypeError, IndexError):
            raise ValueError(
                f"{path}, line {number:,}: expected a JSON object with a text and its mentions, of two texts each with the number of "
                f"its text first (see `fairseq-bert-kd entities --help`), got {line.rstrip()[:60]!r}"
            ) from None
        yield RowMentions(texts, mentions, arguments, types)


def _number(value: Any) -> int:
    """A number of the file; ValueError for one below 0 or with a fraction, and for other values."""
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


def _entity(value: Any) -> str:
    """An entity's id, text or a whole number in the file; ValueError for other values."""
    if type(value) not in (str, int):
        raise ValueError(value)
    return str(value)


def _strings(values: Any) -> list[str]:
    """A list of strings of the file; ValueError for anything else, such as one string alone."""
    if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
        raise ValueError(values)
    return values


def _row(sides: Sequence[IndexedTokens], number: int) -> list[list[int]]:
    """Ids of the texts of a row, without end of sentence."""
    return [side[number][:-1].tolist() for side in sides]


def _linked(
    sides: Sequence[IndexedTokens], linker: DictionaryLinker, folder: "_Folder"
) -> Iterator[RowMentions]:
    """Texts as the tokenizer left them, with the mentions that a linker finds."""
    for number in range(len(sides[0])):
        texts = zip(folder.symbols, _row(sides, number), strict=True)
        pieces = [[symbols[piece] for piece in text] for symbols, text in texts]
        decoded = list(map(folder.tokenizer.decode, pieces))
        yield RowMentions(decoded, list(map(linker.link, decoded)), pieces=pieces)


class _Folder(ABC):
    """A data folder with its tokenizer and dictionaries.

    Attributes:
        tokenizer: that made the pieces.
        symbols: symbols of each text's dictionary.
    """

    tokenizer: HfTokenizer
    symbols: Sequence[Sequence[str]]

    @abstractmethod
    def sides(self, split: str) -> Sides:
        """Texts of a split, each item with end of sentence."""

    @functools.cached_property
    def numbers(self) -> list[dict[str, int]]:
        """Id of each symbol, for each text."""
        return [{symbol: number for number, symbol in enumerate(symbols)} for symbols in self.symbols]

    def align(
        self,
        split: str,
        sides: Sequence[IndexedTokens],
        read: Iterator[RowMentions],
        table: dict[str, int],
        args: argparse.Namespace,
    ) -> tuple[NDArray[np.int64], list[Sequence[str]]]:
        """``(mentions, 6)`` of a split and the types of each row; print what became of the mentions.

        Raises:
            ValueError: other texts than the folder's, a mention that is not one, or too few entities with vectors.
        """
        found, types, rows = _FoundMentions(table), [], len(sides[0])
        for number, row in enumerate(read):
            if number >= rows:
                raise ValueError(
                    f"{split}: more lines of mentions than the {rows:,} rows of the data; give the file of this split"
                )
            try:
                _check_arguments(row)
                self._align_row(row, number, _row(sides, number), found)
            except ValueError as error:
                raise ValueError(f"{split}, row {number + 1:,}: {error}") from None
            types.append(row.types)
        if len(types) != rows:
            raise ValueError(
                f"{split}: {len(types):,} lines of mentions for {rows:,} rows of the data; give one line per row"
            )
        found.report(split, rows, args)
        return np.array(found.mentions, np.int64).reshape(-1, COLUMNS), types

    def _align_row(
        self, row: RowMentions, number: int, stored: list[list[int]], found: "_FoundMentions"
    ) -> None:
        """Add the mentions of a row, of whose texts the data hold these ids."""
        if len(row.texts) != len(stored):
            raise ValueError(
                f"{len(row.texts)} texts where the data have {len(stored)}; give the file of this split"
            )
        for text, ids in enumerate(stored):
            mentions = self._in_pieces(row, text, ids)
            named = [
                (mentions[listed], argument)
                for argument, (side, listed) in enumerate(row.arguments, start=1)
                if side == text
            ]
            arguments = dict(named)
            kept = outermost(mentions, first=[mention for mention, _ in named])
            found.counts["mentions"] += len(row.mentions[text])
            found.counts["inside"] += len(row.mentions[text]) - len(mentions)
            found.counts["nested"] += len(mentions) - len(kept)
            for mention in kept:
                found.add(number, text, mention, arguments.get(mention, NO_ARGUMENT), len(ids))

    def _in_pieces(self, row: RowMentions, text: int, stored: list[int]) -> list[Mention]:
        """Mentions of one of a row's texts, in pieces."""
        words, mentions = row.texts[text], row.mentions[text]
        if row.pieces is not None:
            return align_mentions(self.tokenizer, words, row.pieces[text], mentions, skip_inside=True)
        symbols = self.tokenizer.encode(words)
        if [self.numbers[text].get(piece, UNKNOWN) for piece in symbols[: len(stored)]] != stored:
            raise ValueError(
                f"the text {words[:60]!r} is not that of the data; give the mentions of this split, in its order"
            )
        return align_mentions(self.tokenizer, words, symbols, mentions)


def _check_arguments(row: RowMentions) -> None:
    """ValueError for arguments that are one mention, or types of no argument."""
    if row.types and not row.arguments:
        raise ValueError(
            "`types` are those of the mention that `arguments` names, and it names none; add `arguments`, such as [0] for the "
            "first mention, or leave `types` out"
        )
    if len(set(row.arguments)) < len(row.arguments):
        raise ValueError("`arguments` name one mention twice; give each argument a mention of its own")


class _Sentences(_Folder):
    """A folder of `prepare-sentences`."""

    def __init__(self, args: argparse.Namespace):
        self._path = args.data
        self._spec = spec = read_spec(args.data)
        name = args.tokenizer or spec.tokenizer_name
        self.tokenizer = HfTokenizer(name)
        check_tokenizer(f"data folder `{args.data}`", spec.tokenizer, self.tokenizer.digest(), name)
        self.symbols = [load_dictionary(args.data, spec).symbols] * spec.texts

    def sides(self, split: str) -> Sides:
        return open_sides(sentence_files(self._path, split, self._spec.sides), split)


class _Pairs(_Folder):
    """A folder of fairseq-preprocess with sources and targets."""

    def __init__(self, args: argparse.Namespace):
        if not args.tokenizer:
            raise ValueError(
                f"`{args.data}` does not say which tokenizer made its pieces; give --tokenizer, a folder or hub name"
            )
        self._path = args.data
        self._languages = language_pair(args.data, args.source_lang, args.target_lang)
        self.tokenizer = HfTokenizer(args.tokenizer)
        self.symbols = [
            read_dictionary(Path(args.data) / f"dict.{language}.txt") for language in self._languages
        ]

    def sides(self, split: str) -> Sides:
        return open_pairs(self._path, split, *self._languages)


class _FoundMentions:
    """Mentions of a split in pieces, and how many there are without a vector, or were left out.

    Args:
        table: row of each entity in the table of vectors.

    Attributes:
        mentions: rows of the split's file, see `storage.entity_mentions`.
        counts: "mentions" in all, those whose end is "inside" a piece, those "nested" in longer ones, and those behind the "cut".
        unknown: mentions of each entity without a vector.
    """

    def __init__(self, table: dict[str, int]):
        self._table = table
        self.mentions: list[tuple[int, ...]] = []
        self.counts, self.unknown = Counter[str](), Counter[str]()

    def add(self, row: int, text: int, mention: Mention, argument: int, length: int) -> None:
        """Add a mention of a text of this many pieces."""
        begin, end, entity = mention
        if end > length:
            self.counts["cut"] += 1
            return
        if entity not in self._table:
            self.unknown[entity] += 1
        if entity in self._table or argument:
            self.mentions.append((row, text, begin, end, self._table.get(entity, NO_ENTITY), argument))

    def report(self, split: str, rows: int, args: argparse.Namespace) -> None:
        """Print the coverage of a split; ValueError if it is too low."""
        counts, unknown = self.counts, self.unknown
        without = sum(unknown.values())
        carrying = [mention for mention in self.mentions if mention[4] != NO_ENTITY]
        linked = len(carrying) + without
        if not linked and args.min_coverage > 0:
            raise ValueError(
                f"{split}: no mention inside the texts of {rows:,} rows; give mentions, or --min-coverage 0 for a split without entities"
            )
        coverage = 100 * len(carrying) / linked if linked else 0.0
        marked = len({row for row, *_ in carrying})
        inside = (
            f", {counts['inside']:,} names end inside a piece and are left out" if counts["inside"] else ""
        )
        of = "1 entity" if len(unknown) == 1 else f"{len(unknown):,} entities"
        print(
            f"{split}: {counts['mentions']:,} mentions; {len(carrying):,} carry a vector ({coverage:.1f} % of those inside the cut), in {marked:,} "
            f"of {rows:,} rows; {without:,} mentions, of {of}, have none, {counts['nested']:,} overlap a longer one, "
            f"{counts['cut']:,} lie behind the cut{inside}"
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
