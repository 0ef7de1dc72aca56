"""fairseq's binarised data, read without fairseq: its memory-mapped format and its dictionaries.

The host's reader goes through the whole file when it opens one and gives every item as int64; ours opens in
constant time. It also recognises a fault of the host: under numpy 2, ``merge_file_`` (which
``fairseq-preprocess --workers N`` uses) adds up byte positions in int32, so past 2 GiB they are wrong.
"""

import hashlib
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQ")  # magic, version, dtype code, items
_DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}
_SPECIAL_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
_BLOCK = 1 << 20  # items looked at together


class IndexedTokens:
    """One side of a split, ``train.de-en.en`` with its ``.idx`` and ``.bin``.

    Attributes:
        sizes: ``(sentences,)`` int32 tokens of each sentence, end of sentence included.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: not in the host's mmap format, or damaged, see `check`.
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
            raise ValueError(
                f"{index} is not in fairseq's mmap format; binarise with `fairseq-preprocess --dataset-impl mmap`, "
                "its default"
            )
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

    def __getitem__(self, sentence: int) -> NDArray[Any]:
        """Token ids, a read-only view in the stored type."""
        start = int(self._pointers[sentence])
        return self._data[start : start + int(self.sizes[sentence]) * self.dtype.itemsize].view(self.dtype)

    def check(self) -> None:
        """Refuse byte positions that do not follow from the sizes, and a data file of a wrong size."""
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
            raise ValueError(
                f"{self.prefix}.bin has {self._data.size} bytes, its index says {place}; copy it again or run "
                "fairseq-preprocess again"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"prefix": self.prefix}  # a map does not travel

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["prefix"])  # type: ignore[misc]


def is_mmap(prefix: str | Path) -> bool:
    """Whether ``prefix.idx`` is in the host's mmap format."""
    with open(f"{prefix}.idx", "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class Pairs(NamedTuple):
    """Both sides of a split, item by item."""

    source: Any
    target: Any


def data_prefixes(folder: str | Path, split: str, source_lang: str, target_lang: str) -> tuple[str, str]:
    """Source and target prefix of a split; the host also reads files of the other direction.

    Raises:
        FileNotFoundError: neither direction is there.
    """
    for pair in (f"{source_lang}-{target_lang}", f"{target_lang}-{source_lang}"):
        prefix = Path(folder) / f"{split}.{pair}"
        if Path(f"{prefix}.{source_lang}.idx").exists():
            return f"{prefix}.{source_lang}", f"{prefix}.{target_lang}"
    raise FileNotFoundError(
        f"Dataset not found: {split} of {source_lang}-{target_lang} in {folder}; run fairseq-preprocess, or name "
        "another split with --subset"
    )


def open_pairs(folder: str | Path, split: str, source_lang: str, target_lang: str) -> Pairs:
    """Both sides of a split, checked against each other and for the host's overflow."""
    source, target = map(IndexedTokens, data_prefixes(folder, split, source_lang, target_lang))
    refuse_unequal(split, len(source), len(target))
    source.check()
    target.check()
    return Pairs(source, target)


def refuse_unequal(split: str, sources: int, targets: int) -> None:
    """ValueError when the sides have different numbers of sentences."""
    if sources != targets:
        raise ValueError(
            f"source and target of split `{split}` have different numbers of sentences ({sources} and {targets}); "
            "give fairseq-preprocess files with the same number of lines (`fairseq-bert-kd tokenize --parallel` "
            "checks that)"
        )


def sentence_hash(tokens: Any) -> int:
    """BLAKE2b with 8 bytes over the ids as little-endian int32, end of sentence included; as uint64."""
    ids = np.ascontiguousarray(tokens, dtype="<i4")
    return int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest(), "little")


def read_dictionary(path: str | Path) -> list[str]:
    """Symbols of a ``dict.*.txt`` in id order, as the host counts them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not ``symbol count [#fairseq:overwrite]``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"dictionary {path} does not exist; give the folder that fairseq-preprocess wrote"
        )
    symbols = list(_SPECIAL_SYMBOLS)
    known = set(symbols)
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                symbol, count = line.rstrip().rsplit(" ", 1)
                overwrites = count == "#fairseq:overwrite"
                if overwrites:
                    symbol, count = symbol.rsplit(" ", 1)
                int(count)
            except ValueError:
                raise ValueError(
                    f"{path}, line {number}: expected `symbol count`, got {line.rstrip()!r}; mend the line"
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
