"""On-disk store of a teacher's top-k logits: one file per data split, knows numpy only.

Every target position of every sentence, end of sentence included, in corpus order, has one row: k ids of the
student's target dictionary and k teacher logits, sorted by descending logit. A value is the teacher's logit
minus the log-normaliser over the whole dictionary at temperature 1, so 0 is certainty. float16 keeps it
within 2**-8 above -16, that is half a percent in probability. A sentence without rows is *missing*: the
teacher could not score it (too long, for example).

Layout of version 1, little-endian, without holes except zero padding:

====================  ==========================  ===================================================
byte                  type                        content
====================  ==========================  ===================================================
0                     8 bytes                     magic ``KDTOPK\\r\\n`` (written last, by ``finish``)
8                     uint32                      format version, 1
12                    uint32                      n, bytes of the JSON header
16                    n bytes                     UTF-8 JSON object, then zeros to a multiple of 64
``sections.offsets``  int64 (sentences + 1,)      rows of sentence i are ``offsets[i]:offsets[i + 1]``
``sections.ids``      uint16 or int32 (rows, k)   uint16 up to a dictionary size of 65536
``sections.logits``   float16 (rows, k)           the file ends with the last one
====================  ==========================  ===================================================

Sections start at the next multiple of 64. The JSON object has the fields of `StoreInfo` and ``rows``,
``sentences``, ``missing_sentences``, ``id_dtype``, ``logit_dtype``, ``value_kind`` and ``sections``.
"""

import errno
import hashlib
import json
import operator
import os
import struct
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, SupportsIndex, get_origin

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAGIC = b"KDTOPK\r\n"  # the line end shows a copy in text mode
VERSION = 1
VALUE_KIND = "logits minus the log-normaliser over the whole dictionary at temperature 1"
REBUILD = "rebuild it with `fairseq-bert-kd dump`"

_PREFIX = struct.Struct("<8sII")  # magic, version, bytes of JSON
_ALIGNMENT = 64  # bytes, one cache line
_OFFSET, _LOGIT = np.dtype("<i8"), np.dtype("<f2")


@dataclass(frozen=True)
class StoreInfo:
    """What the creator of a store says about it.

    Attributes:
        k: teacher tokens per row.
        dictionary_size: symbols of the student's target dictionary, special ones included.
        dictionary_digest: of the same symbols, see `dictionary_digest`.
        split: "train", for example.
        source_lang: as in the data's file names.
        target_lang: as in the data's file names.
        passes: mask plan; position t of a sentence was masked and scored in pass ``t % passes``.
        teacher: name of the teacher.
        teacher_digest: sha256 of the teacher's checkpoint, hexadecimal.
        mask_ratio: share of target tokens masked while the teacher was trained, 0 to 1.
        versions: tool to version.
    """

    k: int
    dictionary_size: int
    dictionary_digest: str
    split: str
    source_lang: str
    target_lang: str
    passes: int
    teacher: str
    teacher_digest: str
    mask_ratio: float
    versions: dict[str, str]


class _Sections(NamedTuple):
    """First byte of each section, and of what would follow the last."""

    offsets: int
    ids: int
    logits: int
    end: int


def store_path(data_dir: str | os.PathLike[str], split: str, source_lang: str, target_lang: str) -> Path:
    """Where the store of a split lies: ``train.de-en.en.topk`` beside the binarised data."""
    return Path(data_dir) / f"{split}.{source_lang}-{target_lang}.{target_lang}.topk"


def dictionary_digest(symbols: Iterable[str]) -> str:
    """sha256 of the symbols in id order, hexadecimal; each is preceded by its uint32 length in bytes."""
    digest = hashlib.sha256()
    for symbol in symbols:
        encoded = symbol.encode("utf-8", errors="surrogatepass")
        digest.update(struct.pack("<I", len(encoded)) + encoded)
    return digest.hexdigest()


class TopKWriter:
    """Writes a store in any row order, first under a temporary name beside the final one.

    As a context manager it finishes on leaving, and after an exception removes the temporary file; an old
    store is replaced in one step or stays as it is.

    Args:
        path: final name, see `store_path`.
        info: header fields.
        lengths: ``(sentences,)`` integers, rows of each sentence, 0 for a missing one.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is False.
        FileNotFoundError: the folder does not exist.
        ValueError: impossible ``info`` (k above the dictionary size, ...) or ``lengths``.
        OSError: no room on the disk for the whole store.
    """

    def __init__(
        self, path: str | os.PathLike[str], info: StoreInfo, lengths: ArrayLike, overwrite: bool = False
    ):
        self.path = Path(path).absolute()
        self.info = info
        self._overwrite = overwrite
        self._refuse_target()
        _check_info(info, "StoreInfo")
        self._offsets = _offsets(lengths)
        rows = int(self._offsets[-1])
        header, sections = _make_header(info, self._offsets)
        self._written = np.zeros(rows, dtype=np.bool_)
        self._open = True
        self._temporary = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.tmp")
        self._file = open(self._temporary, "x+b")  # noqa: SIM115 - open until finish or discard
        try:
            _reserve(self._file, sections.end)
            # The magic comes last: an unfinished file is not taken for a store.
            self._file.write(bytes(len(MAGIC)) + header[len(MAGIC) :])
            self._file.seek(sections.offsets)
            self._file.write(self._offsets.astype(_OFFSET).tobytes())
            self._file.flush()
            self._map = np.memmap(self._file, dtype=np.uint8, mode="r+")
            self._ids = _matrix(self._map, sections.ids, rows, info.k, _id_dtype(info.dictionary_size))
            self._logits = _matrix(self._map, sections.logits, rows, info.k, _LOGIT)
        except BaseException:
            self.discard()
            raise

    def write(
        self, sentence_ids: ArrayLike, positions: ArrayLike, topk_ids: ArrayLike, topk_logits: ArrayLike
    ) -> None:
        """Write n rows, or none of them if one is refused.

        Args:
            sentence_ids: ``(n,)`` corpus indices.
            positions: ``(n,)`` target positions in their sentences, from 0.
            topk_ids: ``(n, k)`` ids of the target dictionary.
            topk_logits: ``(n, k)`` floats as in the module's description, descending.

        Raises:
            ValueError: wrong shape, a position outside its sentence, a row written before, an id outside
                the dictionary, a logit that is not finite in float16, a row that does not descend.
        """
        assert self._open, f"{self.path} was finished or discarded before this write"
        sentences, places = _integers(sentence_ids, "sentence_ids"), _integers(positions, "positions")
        ids, logits = _integers(topk_ids, "topk_ids"), np.asarray(topk_logits)
        shapes = sentences.shape, places.shape, ids.shape, logits.shape
        n, k = sentences.size, self.info.k
        if shapes != ((n,), (n,), (n, k), (n, k)):
            raise ValueError(
                f"sentence_ids, positions, topk_ids, topk_logits must have shapes (n,), (n,), (n, {k}), "
                f"(n, {k}), got {shapes}; pass one row for each position"
            )
        rows = self._find_rows(sentences, places)
        with np.errstate(over="ignore"):  # beyond float16 is infinite, refused below
            half = logits.astype(_LOGIT)

        def refuse(bad: NDArray[np.bool_], rule: str, values: NDArray[Any]) -> None:
            if bad.any():
                i = int(bad.any(axis=1).argmax())
                raise ValueError(
                    f"sentence {sentences[i]}, position {places[i]}: {rule}, got {values[i].tolist()}"
                )

        size = self.info.dictionary_size
        refuse(
            (ids < 0) | (ids >= size),
            f"topk_ids must lie in the dictionary of {size}; pass ids of the student's target dictionary",
            ids,
        )
        refuse(
            ~np.isfinite(half), "topk_logits must be finite in float16; check the teacher's output", logits
        )
        refuse(
            logits[:, 1:] > logits[:, :-1],
            "topk_logits must descend; sort the row, ids and logits together",
            logits,
        )
        self._ids[rows] = ids
        self._logits[rows] = half
        self._written[rows] = True

    def finish(self) -> None:
        """Check that every row was written, bring the file to disk and give it its final name.

        Raises:
            ValueError: rows are missing; they can still be written.
            FileExistsError: another process wrote ``path`` meanwhile.
        """
        assert self._open, f"{self.path} was finished or discarded before"
        absent = self._written.size - int(np.count_nonzero(self._written))
        if absent:
            row = int(self._written.argmin())
            sentence = int(np.searchsorted(self._offsets, row, side="right")) - 1
            raise ValueError(
                f"{absent} of {self._written.size} rows were not written to {self.path}, first sentence "
                f"{sentence}, position {row - self._offsets[sentence]}; score every position, or give a "
                "sentence that the teacher cannot score the length 0"
            )
        self._refuse_target()
        self._map[: len(MAGIC)] = np.frombuffer(MAGIC, dtype=np.uint8)
        self._map.flush()
        os.fsync(self._file.fileno())
        os.replace(self._temporary, self.path)
        self._open = False
        self._file.close()
        del self._map, self._ids, self._logits  # no way back into the finished file
        _sync_folder(self.path.parent)

    def discard(self) -> None:
        """Remove the temporary file; nothing happens after `finish`."""
        if self._open:
            self._open = False
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> "TopKWriter":
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        try:
            if exception_type is None and self._open:
                self.finish()
        finally:
            self.discard()

    def _refuse_target(self) -> None:
        if self.path.is_dir():
            raise FileExistsError(f"top-k store {self.path} is a folder; choose a file name")
        if self.path.exists() and not self._overwrite:
            raise FileExistsError(f"top-k store {self.path} exists; pass --overwrite to replace it")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"the folder of top-k store {self.path} does not exist; run fairseq-preprocess or create it"
            )

    def _find_rows(self, sentences: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """``(n,)`` rows to write [batch row -> store row], each free and named once."""
        count = self._offsets.size - 1
        outside = (sentences < 0) | (sentences >= count)
        if outside.any():
            raise ValueError(
                f"sentence_ids must lie in the {count} sentences of the store, got "
                f"{sentences[outside.argmax()]}; pass corpus indices, not batch rows"
            )
        starts = self._offsets[sentences]
        lengths = self._offsets[sentences + 1] - starts
        outside = (places < 0) | (places >= lengths)
        if outside.any():
            i = outside.argmax()
            raise ValueError(
                f"positions must lie in their sentence: sentence {sentences[i]} has {lengths[i]} rows, got "
                f"position {places[i]}; count from 0 without padding"
            )
        rows: NDArray[np.int64] = starts + places
        repeated = np.ones(rows.size, dtype=np.bool_)
        repeated[np.unique(rows, return_index=True)[1]] = False
        repeated |= self._written[rows]
        if repeated.any():
            i = repeated.argmax()
            raise ValueError(
                f"a row is written once, got sentence {sentences[i]}, position {places[i]} again; "
                "check that the passes do not overlap"
            )
        return rows


class TopKReader:
    """Reads a store through a memory map, opened in constant time; copies into other processes reopen it.

    Attributes:
        path: absolute.
        info: what the creator said.
        missing_sentences: number of sentences without rows.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a store, another format version, a header that contradicts itself, a file that is
            shorter or longer than its header says.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()
        if not self.path.exists():
            raise FileNotFoundError(
                f"top-k store {self.path} does not exist; write it with `fairseq-bert-kd dump`"
            )
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, start = _read_header(file, size, self.path)
            self.info, sections = _parse_header(header, start, self.path)
            if size != sections.end:
                raise _wrong_size(self.path, size, sections.end)
            mapped = np.memmap(file, dtype=np.uint8, mode="r")
        rows, sentences = header["rows"], header["sentences"]
        self.missing_sentences: int = header["missing_sentences"]
        self._offsets = _matrix(mapped, sections.offsets, sentences + 1, 1, _OFFSET)[:, 0]
        self._ids = _matrix(mapped, sections.ids, rows, self.info.k, _id_dtype(self.info.dictionary_size))
        self._logits = _matrix(mapped, sections.logits, rows, self.info.k, _LOGIT)
        if self._offsets[0] != 0 or self._offsets[-1] != rows:
            raise _damaged(
                self.path, f"offsets run from {self._offsets[0]} to {self._offsets[-1]}, not 0 to {rows}"
            )

    def __len__(self) -> int:
        """Sentences, missing ones included."""
        return self._offsets.size - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """``(sentences,)`` rows of each sentence, 0 for a missing one."""
        return np.diff(self._offsets).astype(np.int64, copy=False)

    def rows(self, index: SupportsIndex) -> tuple[NDArray[Any], NDArray[np.float16]]:
        """Ids and logits of one sentence, each ``(rows, k)``: read-only views in the stored types.

        Raises:
            IndexError: ``index`` is not in ``range(len(self))``.
        """
        start, end = self._span(index)
        return self._ids[start:end], self._logits[start:end]

    def is_missing(self, index: SupportsIndex) -> bool:
        """Whether the sentence has no rows; IndexError as in `rows`."""
        start, end = self._span(index)
        return start == end

    def gather(
        self, sentence_ids: ArrayLike, width: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float16], NDArray[np.bool_]]:
        """Rows of a mini-batch, padded on the right with zeros.

        Args:
            sentence_ids: ``(batch,)`` corpus indices, in any order, repeats allowed.
            width: positions of the result, at least the rows of the longest sentence.

        Returns:
            ``topk_ids`` and ``topk_logits``, ``(batch, width, k)``, and ``present``, ``(batch, width)``,
            True where the store has a row.

        Raises:
            IndexError: a sentence that is not in ``range(len(self))``.
            ValueError: a sentence with more than ``width`` rows.
        """
        sentences = _integers(sentence_ids, "sentence_ids")
        outside = (sentences < 0) | (sentences >= len(self))
        if outside.any():
            raise self._out_of_range(int(sentences[outside.argmax()]))
        starts = self._offsets[sentences]
        lengths = self._offsets[sentences + 1] - starts
        if lengths.size and lengths.max() > width:
            i = lengths.argmax()
            raise ValueError(
                f"width must cover every row: sentence {sentences[i]} has {lengths[i]}, got width {width}; "
                "pass the padded target length, end of sentence included"
            )
        steps = np.arange(width)
        present = steps < lengths[:, None]  # (batch, width)
        store_rows = (starts[:, None] + steps)[present]  # (present rows,)
        topk_ids = np.zeros((*present.shape, self.info.k), dtype=np.int32)
        topk_logits = np.zeros(topk_ids.shape, dtype=np.float16)
        topk_ids[present] = self._ids[store_rows]
        topk_logits[present] = self._logits[store_rows]
        return topk_ids, topk_logits, present

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # a map does not travel

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def _span(self, index: SupportsIndex) -> tuple[int, int]:
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise self._out_of_range(i)
        return int(self._offsets[i]), int(self._offsets[i + 1])

    def _out_of_range(self, index: int) -> IndexError:
        return IndexError(
            f"sentence {index} is not in top-k store {self.path} of {len(self)} sentences; "
            "pass a corpus index from 0"
        )


def check_alignment(
    reader: TopKReader,
    lengths: ArrayLike,
    dictionary_size: int,
    dictionary_digest: str,
    split: str,
    source_lang: str,
    target_lang: str,
    topk: int,
) -> None:
    """Refuse a store that was not made for these data.

    Args:
        reader: the store.
        lengths: ``(sentences,)`` target lengths in corpus order, end of sentence included.
        dictionary_size: symbols of the target dictionary.
        dictionary_digest: see the function of that name.
        split: name of the split.
        source_lang: source language.
        target_lang: target language.
        topk: teacher tokens per position that training asks for.

    Raises:
        ValueError: the first difference found, with both values.
    """
    name, info = f"top-k store {reader.path}", reader.info
    stored = f"{info.split} {info.source_lang}-{info.target_lang}"
    wanted = f"{split} {source_lang}-{target_lang}"
    if stored != wanted:
        raise ValueError(f"{name} was made for {stored}, the data are {wanted}; {REBUILD} for this split")
    if info.dictionary_size != dictionary_size:
        raise ValueError(
            f"{name} was made with a target dictionary of {info.dictionary_size} symbols, this one has "
            f"{dictionary_size}; use that dictionary or {REBUILD}"
        )
    if info.dictionary_digest != dictionary_digest:
        raise ValueError(
            f"{name} was made with another target dictionary of the same size (digest "
            f"{info.dictionary_digest[:12]}, this one {dictionary_digest[:12]}); use that one or {REBUILD}"
        )
    if not 1 <= topk <= info.k:
        raise ValueError(
            f"{name} holds the {info.k} best tokens, asked for {topk}; ask for 1 to {info.k} or {REBUILD}"
        )
    targets = _integers(lengths, "lengths")
    if len(reader) != targets.size:
        word = "shorter" if len(reader) < targets.size else "longer"
        raise ValueError(
            f"{name} is {word} than the data: {len(reader)} sentences against {targets.size}; "
            f"{REBUILD} from these data"
        )
    differs = (reader.lengths != targets) & (reader.lengths != 0)
    if differs.any():
        i = differs.argmax()
        raise ValueError(
            f"{name} has {reader.lengths[i]} rows for sentence {i}, its target has {targets[i]} tokens with "
            f"end of sentence ({np.count_nonzero(differs)} sentences differ); {REBUILD} from these data"
        )


def _check_info(info: StoreInfo, where: str) -> None:
    """ValueError for a field of a wrong type or an impossible number; ``where`` opens the message."""
    for field in fields(info):
        value, kind = getattr(info, field.name), get_origin(field.type) or field.type
        if not isinstance(value, (int, float) if kind is float else kind):  # type: ignore[arg-type]
            expected = getattr(kind, "__name__", kind)
            raise ValueError(f"{where}: {field.name} must be {expected}, got {value!r}")
    for name in ("k", "dictionary_size", "passes"):
        if getattr(info, name) < 1:
            raise ValueError(f"{where}: {name} must be at least 1, got {getattr(info, name)}")
    if info.k > info.dictionary_size:
        raise ValueError(
            f"{where}: k={info.k} exceeds the dictionary of {info.dictionary_size} symbols; ask for less"
        )
    if info.dictionary_size > 2**31:
        raise ValueError(f"{where}: dictionary_size must fit int32 ids, got {info.dictionary_size}")
    if not 0 <= info.mask_ratio <= 1:
        raise ValueError(f"{where}: mask_ratio must be a share from 0 to 1, got {info.mask_ratio}")


def _integers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {array.dtype}; convert them before")
    return array.astype(np.int64, copy=False)


def _offsets(lengths: ArrayLike) -> NDArray[np.int64]:
    """``(sentences + 1,)`` first row of each sentence, then the number of rows."""
    counts = _integers(lengths, "lengths")
    if counts.ndim != 1 or (counts < 0).any():
        raise ValueError(
            f"lengths must be (sentences,) and not negative, got shape {counts.shape}, least "
            f"{counts.min(initial=0)}; pass one row count for each sentence, 0 where the teacher has none"
        )
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _id_dtype(dictionary_size: int) -> np.dtype[Any]:
    return np.dtype("<u2" if dictionary_size <= 2**16 else "<i4")


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _layout(json_bytes: int, sentences: int, rows: int, info: StoreInfo) -> _Sections:
    offsets = _aligned(_PREFIX.size + json_bytes)
    ids = _aligned(offsets + (sentences + 1) * _OFFSET.itemsize)
    logits = _aligned(ids + rows * info.k * _id_dtype(info.dictionary_size).itemsize)
    return _Sections(offsets, ids, logits, end=logits + rows * info.k * _LOGIT.itemsize)


def _section_starts(sections: _Sections) -> dict[str, int]:
    return {"offsets": sections.offsets, "ids": sections.ids, "logits": sections.logits}


def _derived_fields(info: StoreInfo, sections: _Sections) -> dict[str, Any]:
    """Header fields that follow from others: written for a reader of the file, compared on opening."""
    return {
        "id_dtype": _id_dtype(info.dictionary_size).name,
        "logit_dtype": _LOGIT.name,
        "value_kind": VALUE_KIND,
        "sections": _section_starts(sections),
    }


def _make_header(info: StoreInfo, offsets: NDArray[np.int64]) -> tuple[bytes, _Sections]:
    """Everything before the padding, and where the sections lie."""
    sentences, rows = offsets.size - 1, int(offsets[-1])
    missing = int(np.count_nonzero(np.diff(offsets) == 0))
    counts = {"rows": rows, "sentences": sentences, "missing_sentences": missing}
    encoded, sections = b"", _layout(0, sentences, rows, info)
    while True:  # section starts stand in the text that moves them; they only grow, so this ends
        header = {**asdict(info), **counts, **_derived_fields(info, sections)}
        encoded = json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
        settled, sections = sections, _layout(len(encoded), sentences, rows, info)
        if settled == sections:
            return _PREFIX.pack(MAGIC, VERSION, len(encoded)) + encoded, sections


def _read_header(file: BinaryIO, size: int, path: Path) -> tuple[dict[str, Any], int]:
    """The JSON object and its number of bytes."""
    prefix = file.read(_PREFIX.size)
    if prefix[: len(MAGIC)] != MAGIC:
        raise ValueError(
            f"{path} is not a top-k store: it begins with {prefix[: len(MAGIC)]!r}, not {MAGIC!r}; "
            "check the path, or write a store with `fairseq-bert-kd dump`"
        )
    if len(prefix) < _PREFIX.size:
        raise _wrong_size(path, size, _PREFIX.size)
    _, version, json_bytes = _PREFIX.unpack(prefix)
    if version != VERSION:
        step = f"upgrade the package or {REBUILD}" if version > VERSION else REBUILD
        raise ValueError(
            f"top-k store {path} has format version {version}, this code reads version {VERSION}; {step}"
        )
    if size < _PREFIX.size + json_bytes:
        raise _wrong_size(path, size, _PREFIX.size + json_bytes)
    try:
        header = json.loads(file.read(json_bytes).decode("utf-8"))
    except ValueError as error:  # bad JSON or bad UTF-8
        raise _damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(path, f"it is a JSON {type(header).__name__}, not an object")
    return header, json_bytes


def _parse_header(header: Mapping[str, Any], json_bytes: int, path: Path) -> tuple[StoreInfo, _Sections]:
    """Fields and section starts, once they agree with one another."""
    names = [field.name for field in fields(StoreInfo)]
    counts = ("rows", "sentences", "missing_sentences")
    absent = [name for name in (*names, *counts) if name not in header]
    if absent:
        raise _damaged(path, f"it lacks {', '.join(absent)}")
    info = StoreInfo(**{name: header[name] for name in names})
    _check_info(info, f"header of top-k store {path} is damaged ({REBUILD})")
    for name in counts:
        if not isinstance(header[name], int) or header[name] < 0:
            raise _damaged(path, f"{name} is {header[name]!r}, not a count")
    sections = _layout(json_bytes, header["sentences"], header["rows"], info)
    for name, value in _derived_fields(info, sections).items():
        if header.get(name) != value:
            raise _damaged(path, f"{name} is {header.get(name)!r}, the other fields give {value!r}")
    return info, sections


def _wrong_size(path: Path, size: int, expected: int) -> ValueError:
    word = "truncated" if size < expected else "over-long"
    return ValueError(
        f"top-k store {path} is {word}: {size} bytes, its header says {expected}; copy it again or {REBUILD}"
    )


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"header of top-k store {path} is damaged: {what}; copy it again or {REBUILD}")


def _matrix(mapped: NDArray[np.uint8], start: int, rows: int, k: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """``(rows, k)`` view of the map as a plain array."""
    section = mapped[start : start + rows * k * dtype.itemsize]
    return section.view(np.ndarray).view(dtype).reshape(rows, k)


def _reserve(file: BinaryIO, size: int) -> None:
    """Give the file its size; a full disk fails here rather than as a bus error in the map."""
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems that cannot reserve
                raise


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder durable, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
