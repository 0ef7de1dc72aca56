"""fairseq's binarised data, read without fairseq: its memory-mapped format and its dictionaries.

fairseq's reader goes through the whole file when it opens one and gives every item as int64; ours opens in constant
time. It also recognises a fault of fairseq: under numpy 2, ``merge_file_`` adds up byte positions in int32, so past
2 GiB they are wrong. ``fairseq-preprocess --workers N`` uses that function.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd import compat
from fairseq_bert_kd.text_lines import BYTE_ORDER_MARK, open_lines

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQ")  # magic, version, dtype code, items
_OLD_MAGIC = b"TNTIDX\x00\x00"
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}
LABELS_FILE = "labels.json"  # in a folder of prepare-sentences, see `sentence_data`
SPECIAL_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
_BLOCK = 1 << 20  # items checked together


class IndexedTokens:
    """One side of a split, ``train.de-en.en`` with its ``.idx`` and ``.bin``.

    Attributes:
        sizes: ``(sentences,)`` int32 tokens of each sentence, end of sentence included.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: not in fairseq's mmap format, or an index of a wrong size.
    """

    def __init__(self, prefix: str | Path):
        self.prefix = str(Path(prefix).absolute())
        index, data = Path(f"{self.prefix}.idx"), Path(f"{self.prefix}.bin")
        for path in (index, data):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} does not exist; run fairseq-preprocess, or check the folder's name"
                )
        with open(index, "rb") as file:
            head = file.read(_HEADER.size)
        magic, version, code, count = _HEADER.unpack(head.ljust(_HEADER.size, b"\0"))
        if magic != _MAGIC:
            raise ValueError(_another_format(index))
        if version != 1 or code not in _DTYPES:
            raise ValueError(
                f"{index} has version {version} and type code {code}, unknown here; binarise again"
            )
        self.dtype = np.dtype(_DTYPES[code])
        expected = _HEADER.size + 12 * count
        if index.stat().st_size != expected:
            raise ValueError(
                f"{index} is damaged: {index.stat().st_size} bytes instead of {expected}; binarise again"
            )
        mapped = _map(index)
        self.sizes: NDArray[np.int32] = mapped[_HEADER.size :][: 4 * count].view("<i4")
        self._pointers: NDArray[np.int64] = mapped[_HEADER.size + 4 * count :].view("<i8")
        self._data = _map(data)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def tokens(self) -> NDArray[Any]:
        """Ids of all sentences one after the other, a read-only view in the stored type."""
        return self._data[: self._data.size // self.dtype.itemsize * self.dtype.itemsize].view(self.dtype)

    def __getitem__(self, sentence: int) -> NDArray[Any]:
        """Token ids, a read-only view in the stored type."""
        start = int(self._pointers[sentence])
        return self._data[start : start + int(self.sizes[sentence]) * self.dtype.itemsize].view(self.dtype)

    def check(self) -> None:
        """Raise ValueError for byte positions that do not follow from the sizes, or a data file of a wrong size."""
        place = 0
        for start in range(0, len(self), _BLOCK):
            sizes = self.sizes[start : start + _BLOCK].astype(np.int64)
            ends = place + np.cumsum(sizes * self.dtype.itemsize)
            wrong = self._pointers[start : start + _BLOCK] != np.concatenate([[place], ends[:-1]])
            if wrong.any():
                sentence = start + int(wrong.argmax())
                raise ValueError(
                    f"{self.prefix}.idx is damaged from sentence {sentence} on: it points to byte "
                    f"{self._pointers[sentence]} instead of {int(np.concatenate([[place], ends])[wrong.argmax()])}. "
                    "Under numpy 2, fairseq overflows there when it merges parts beyond 2 GiB; run fairseq-preprocess "
                    "again with --workers 1"
                )
            place = int(ends[-1])
        if self._data.size != place:
            if compat.is_lfs_pointer(f"{self.prefix}.bin"):
                raise ValueError(compat.file_fault(f"{self.prefix}.bin"))
            raise ValueError(
                f"{self.prefix}.bin has {self._data.size} bytes, its index says {place}; copy it again or run "
                "fairseq-preprocess again"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"prefix": self.prefix}  # a map does not travel

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["prefix"])  # type: ignore[misc]


def _another_format(index: Path) -> str:
    """What an index is that is not in fairseq's mmap format, and the next step."""
    with open(index, "rb") as file:
        old = file.read(len(_OLD_MAGIC)) == _OLD_MAGIC
    if compat.is_lfs_pointer(index):
        return compat.file_fault(index)
    what = ""
    if old:
        what = ", but in its older one (--dataset-impl cached or lazy), of which no store can be made"
    return (
        f"{index} is not in fairseq's mmap format{what}; binarise with `fairseq-preprocess --dataset-impl mmap`, its "
        "default"
    )


class SideFiles(NamedTuple):
    """Files of one side of a split.

    Attributes:
        prefix: path without ``.idx`` and ``.bin``.
        dictionary: path of the side's ``dict.txt``.
    """

    prefix: str
    dictionary: Path


def translation_files(
    folder: str | Path, split: str, source_lang: str, target_lang: str
) -> dict[str, SideFiles]:
    """Sides ``source`` and ``target`` of a split; like fairseq, also from files of the other direction.

    Raises:
        FileNotFoundError: neither direction is there.
        ValueError: the split is raw text.
    """
    folder = Path(folder)
    prefixes = [
        folder / f"{split}.{pair}"
        for pair in (f"{source_lang}-{target_lang}", f"{target_lang}-{source_lang}")
    ]
    for prefix in prefixes:
        if Path(f"{prefix}.{source_lang}.idx").exists():
            sides = {"source": source_lang, "target": target_lang}
            return {
                side: SideFiles(f"{prefix}.{lang}", folder / f"dict.{lang}.txt")
                for side, lang in sides.items()
            }
    for prefix in prefixes:
        if Path(f"{prefix}.{source_lang}").is_file():
            raise ValueError(
                f"{prefix}.{source_lang} is raw text (--dataset-impl raw), of which no store can be made; binarise with "
                "`fairseq-preprocess --dataset-impl mmap`, its default"
            )
    raise FileNotFoundError(
        f"Dataset not found: {split} of {source_lang}-{target_lang} in {folder}; run fairseq-preprocess, or name "
        "another split with --subset"
    )


def sentence_files(
    folder: str | Path, split: str, sides: Sequence[str] = ("input0",)
) -> dict[str, SideFiles]:
    """Sides of fairseq's ``sentence_prediction`` layout, each in a folder of its own: ``input0/train.idx``.

    Args:
        folder: holds the sides' folders.
        split: "train" for example.
        sides: ``input0``, ``input1``, ``label``.

    Raises:
        FileNotFoundError: a side is not there.
    """
    files = {
        side: SideFiles(str(Path(folder) / side / split), Path(folder) / side / "dict.txt") for side in sides
    }
    for side, (prefix, _) in files.items():
        if not Path(f"{prefix}.idx").exists():
            advice = f"run fairseq-preprocess with --destdir {Path(folder) / side} --only-source"
            if (Path(folder) / LABELS_FILE).exists():
                advice = "name one that is there, or prepare the folder with it (fairseq-bert-kd prepare-sentences)"
            raise FileNotFoundError(
                f"{prefix}.idx, side `{side}` of split `{split}`, does not exist; {advice}"
            )
    return files


def text_files(folder: str | Path, split: str, language: str | None = None) -> SideFiles:
    """The one side of a split of single sentences.

    fairseq-preprocess --only-source writes ``train.idx`` or, with a language, ``train.en-None.en.idx``;
    fairseq-bert-kd prepare-sentences writes ``input0/train.idx``.

    Args:
        folder: data folder.
        split: "train" for example.
        language: language to choose among several of a folder.

    Raises:
        FileNotFoundError: the split is not there.
        ValueError: the folder holds pairs, or several languages.
    """
    folder = Path(folder)
    named = sorted(folder.glob(f"{split}.{language or '*'}-None.*.idx"))
    if len(named) > 1:
        raise ValueError(
            f"{folder} has `{split}` in several languages ({', '.join(path.stem for path in named)}); choose one with "
            "--source-lang"
        )
    for file in named:
        lang = file.stem.rsplit(".", 1)[1]
        return SideFiles(str(file.with_suffix("")), folder / f"dict.{lang}.txt")
    for place in (folder, folder / "input0"):
        if (place / f"{split}.idx").exists():
            if place != folder and (folder / "input1" / f"{split}.idx").exists():
                raise ValueError(
                    f"{folder} holds pairs of sentences, and single ones are needed; give {place} to use the first of each"
                )
            return SideFiles(str(place / split), place / "dict.txt")
    if any(folder.glob(f"{split}.*-*.*.idx")):
        raise ValueError(
            f"{folder} holds `{split}` as pairs of a source and a target, and single sentences are needed; binarise one "
            "language alone (fairseq-preprocess --only-source), with the dictionary of the student if there is one "
            "(--srcdict)"
        )
    raise FileNotFoundError(
        f"split `{split}` of single sentences is not in {folder}; write it with fairseq-preprocess --only-source, or with "
        "fairseq-bert-kd prepare-sentences --task plain"
    )


class Sides(dict[str, Any]):
    """Sides of a split by name, each a sequence of ids by sentence with ``sizes``: ``sides["source"][3]``."""

    def hashes(self, sentence: int) -> dict[str, int]:
        """Hash of a sentence on each side, see `sentence_hash`."""
        return {side: sentence_hash(tokens[sentence]) for side, tokens in self.items()}


def open_sides(files: Mapping[str, SideFiles], split: str) -> Sides:
    """Open sides, checked against each other and for fairseq's overflow.

    Args:
        files: files by side.
        split: name of the split, for messages.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a side is damaged, or has another number of sentences.
    """
    sides = Sides({side: IndexedTokens(prefix) for side, (prefix, _) in files.items()})
    first, *others = sides
    for other in others:
        check_parallel(split, len(sides[first]), len(sides[other]), (first, other))
    for tokens in sides.values():
        tokens.check()
    return sides


def open_pairs(folder: str | Path, split: str, source_lang: str, target_lang: str) -> Sides:
    """Sides ``source`` and ``target`` of a split, see `open_sides`."""
    return open_sides(translation_files(folder, split, source_lang, target_lang), split)


def check_parallel(split: str, one: int, other: int, sides: tuple[str, str] = ("source", "target")) -> None:
    """Raise ValueError when two sides have different numbers of sentences."""
    if one != other:
        raise ValueError(
            f"{sides[0]} and {sides[1]} of split `{split}` have different numbers of sentences ({one} and {other}); "
            "give fairseq-preprocess files with the same number of lines (`fairseq-bert-kd tokenize --parallel` "
            "checks that)"
        )


def sentence_hash(tokens: Any) -> int:
    """BLAKE2b with 8 bytes over the ids as little-endian int32, end of sentence included; as uint64."""
    ids = np.ascontiguousarray(tokens, dtype="<i4")
    return int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest(), "little")


def dictionary_digest(symbols: Iterable[str]) -> str:
    """sha256 of the symbols in id order, hexadecimal; each is preceded by its uint32 length in bytes."""
    digest = hashlib.sha256()
    for symbol in symbols:
        encoded = symbol.encode("utf-8", errors="surrogatepass")
        digest.update(struct.pack("<I", len(encoded)) + encoded)
    return digest.hexdigest()


def symbol_name(symbols: Sequence[str], token: int) -> str:
    """A token's symbol; ``[id N]`` where the dictionary does not have it."""
    return symbols[token] if 0 <= token < len(symbols) else f"[id {token}]"


def encode_dictionary(symbols: Sequence[str]) -> bytes:
    """A store's dictionary section: UTF-8, a line feed after each symbol; ValueError for a symbol that holds one."""
    bad = next((symbol for symbol in symbols if "\n" in symbol), None)
    if bad is not None:
        raise ValueError(f"a dictionary symbol must not hold a line feed, got {bad!r}; fix the dictionary")
    return "".join(symbol + "\n" for symbol in symbols).encode("utf-8", errors="surrogatepass")


def decode_dictionary(raw: bytes) -> list[str]:
    """The inverse of `encode_dictionary`; ValueError for bytes that are not UTF-8 or end without a line feed."""
    *symbols, rest = raw.decode("utf-8", errors="surrogatepass").split("\n")
    if rest:
        raise ValueError(f"its last line has no line feed: {rest[:40]!r}")
    return symbols


def read_dictionary(path: str | Path) -> list[str]:
    """Symbols of a ``dict.*.txt`` in id order, as fairseq counts them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not ``symbol count [#fairseq:overwrite]``, or text that is not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"dictionary {path} does not exist; give the folder that fairseq-preprocess wrote"
        )
    with open(path, "rb") as file:
        if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            raise ValueError(
                f"{path} begins with a byte order mark, which fairseq takes for a part of the first symbol; save it "
                "without the mark"
            )
    symbols = list(SPECIAL_SYMBOLS)
    known = set(symbols)
    for number, line in enumerate(open_lines(path), start=1):
        try:
            symbol, count = line.rstrip().rsplit(" ", 1)
            overwrites = count == "#fairseq:overwrite"
            if overwrites:
                symbol, count = symbol.rsplit(" ", 1)
            int(count)
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: expected `symbol count`, got {line.rstrip()!r}; fix the line"
            ) from None
        if symbol in known and not overwrites:
            raise ValueError(f"{path}, line {number}: {symbol!r} is there twice; remove one of the lines")
        known.add(symbol)
        symbols.append(symbol)
    return symbols


def _map(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file; an empty one cannot be mapped."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
