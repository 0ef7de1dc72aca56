"""Reads the shelve of Chen et al. 2020's dump_teacher_topk.py without unpickling anything of it."""

import dbm
import hashlib
import importlib
import io
import pickletools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

SAMPLED_VALUES = 64  # values that identify a dump
_LISTED = re.compile(rb"'([^'\\]*)', \((\d+), (\d+)\)\s*")  # a line of dbm.dumb's .dir
_DATABASES = ("dbm.gnu", "dbm.ndbm", "dbm.sqlite3")
_TORCH_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before 1.6, as in their image
_ZIP_MAGIC = b"PK\x03\x04"
# what pickling a bytes object writes; no opcode here makes or calls anything else
_BYTES_OPCODES = {"SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
_FRAME_OPCODES = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"}


class Dump:
    """Values of the authors' shelve by sentence, still encoded.

    The index of dbm.dumb is read here: the standard library's reader keeps Python objects of every key and
    evaluates each line as a literal.

    Args:
        path: of the shelve.
        sentences: of the data.

    Attributes:
        present: ``(sentences,)`` bool, True where the dump has the sentence.

    Raises:
        FileNotFoundError: no such shelve.
        ValueError: another kind of file, a damaged index, or a key that is no sentence of the data.
    """

    def __init__(self, path: str | Path, sentences: int):
        self.path = Path(path)
        kind = dbm.whichdb(str(path))
        if kind is None or (kind == "" and self.path.is_dir()):
            raise FileNotFoundError(
                f"shelve {path} does not exist; give the name without the ending that dbm adds, `targets/teacher/topk` "
                "for topk.dat and topk.dir"
            )
        if kind != "dbm.dumb" and kind not in _DATABASES:
            raise ValueError(
                f"{path} is no shelve: dbm does not know its form; give the `topk` of dump_teacher_topk.py"
            )
        self.present = np.zeros(sentences, dtype=np.bool_)
        self._database: Any = None
        if kind == "dbm.dumb":
            self._spans = np.zeros((sentences, 2), dtype=np.int64)  # first byte, bytes
            self._read_index()
            self._file = open(f"{path}.dat", "rb")  # noqa: SIM115 - closed by close()
        else:
            self._database = _open_database(kind, self.path)
            for key in _keys(self._database):
                self.present[self._sentence(key)] = True

    def value(self, sentence: int) -> bytes:
        """What the shelve holds for a sentence that is present; ValueError where the file is too short."""
        if self._database is not None:
            return bytes(self._database[str(sentence).encode()])
        start, size = map(int, self._spans[sentence])
        self._file.seek(start)
        value = self._file.read(size)
        if len(value) < size:
            raise ValueError(f"{self.path}.dat ends before its {size} bytes; copy the dump again")
        return value

    def digest(self) -> str:
        """sha256 over the keys and a sample of the values, hexadecimal; tells one dump from another."""
        digest = hashlib.sha256(np.packbits(self.present).tobytes())
        found = np.flatnonzero(self.present)
        for at in np.unique(np.linspace(0, len(found) - 1, SAMPLED_VALUES).astype(int)) if len(found) else ():
            sentence = int(found[at])
            try:
                digest.update(self.value(sentence))
            except ValueError as error:
                raise ValueError(f"sentence {sentence}: {error}") from None
        return digest.hexdigest()

    def close(self) -> None:
        (self._database if self._database is not None else self._file).close()

    def __enter__(self) -> "Dump":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_index(self) -> None:
        with open(f"{self.path}.dir", "rb") as lines:
            for number, line in enumerate(lines, start=1):
                listed = _LISTED.fullmatch(line)
                if not listed:
                    raise ValueError(
                        f"{self.path}.dir, line {number}: expected `'key', (first byte, bytes)`, got {line[:80]!r}; "
                        "copy the dump again"
                    )
                sentence = self._sentence(listed[1])
                self.present[sentence] = True
                try:
                    self._spans[sentence] = int(listed[2]), int(listed[3])
                except (OverflowError, ValueError):  # beyond int64, or too many digits for int()
                    raise ValueError(
                        f"{self.path}.dir, line {number}: impossible place; copy the dump again"
                    ) from None

    def _sentence(self, key: bytes) -> int:
        if not re.fullmatch(rb"0|[1-9][0-9]{0,17}", key):
            raise ValueError(
                f"{self.path} has the key {key[:40]!r}, which is no line number from 0; give the `topk` of "
                "dump_teacher_topk.py"
            )
        if int(key) >= len(self.present):
            raise ValueError(
                f"{self.path} has sentence {int(key)}, the data only {len(self.present)} sentences; binarise the .bert "
                "files that the dump was made from"
            )
        return int(key)


def _open_database(kind: str, path: Path) -> Any:
    try:
        module = importlib.import_module(kind)
    except ImportError:
        raise ValueError(
            f"{path} is a {kind} file, which this Python ({kind} is not in it) cannot read; import it with another "
            "Python, for example the system's"
        ) from None
    try:
        return module.open(str(path), "r")
    except module.error as error:
        raise ValueError(f"{path} cannot be read as {kind} ({error}); copy the dump again") from None


def _keys(database: Any) -> Iterable[bytes]:
    """All keys; dbm.gnu gives them one by one only like this."""
    if not hasattr(database, "firstkey"):
        yield from database.keys()
        return
    key = database.firstkey()
    while key is not None:
        yield key
        key = database.nextkey(key)


# ---------------------------------------------------------------- values


def unwrap(value: bytes) -> bytes:
    """The bytes in a pickle that holds just them, found without an unpickler.

    Raises:
        ValueError: anything else.
    """
    found: list[bytes] = []
    try:
        for opcode, argument, _ in pickletools.genops(value):
            if opcode.name in _BYTES_OPCODES:
                found.append(argument)  # type: ignore[arg-type]
            elif opcode.name not in _FRAME_OPCODES:
                raise ValueError(f"it has the opcode {opcode.name}")
    except ValueError as error:
        raise ValueError(f"its value is no pickled bytes object ({error}); nothing of it was run") from None
    if len(found) != 1:
        raise ValueError(
            f"its value pickles {len(found)} bytes objects instead of one; nothing of it was run"
        )
    return found[0]


def load_pair(saved: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(rows, k)`` and ids ``(rows, k)`` from what ``torch.save`` wrote, without running any code.

    Raises:
        ValueError: anything but a pair of such tensors.
    """
    # torch has two more forms, tar files and TorchScript; neither is theirs, and both were ways around safe loading
    known = saved.startswith(_TORCH_MAGIC) or (saved.startswith(_ZIP_MAGIC) and b"constants.pkl" not in saved)
    if not known:
        raise ValueError(f"its value begins with {saved[:8]!r}, which torch.save does not write")
    try:
        pair = torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types on a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"torch cannot safely load its value ({reason}); nothing of it was run") from None
    plain = isinstance(pair, tuple) and len(pair) == 2 and all(type(part) is torch.Tensor for part in pair)
    if not plain or any(part.layout != torch.strided or part.dim() != 2 for part in pair):
        raise ValueError("its value is not a pair of tensors (rows, k); the dump has another form")
    logits, ids = pair
    if (
        logits.dtype not in (torch.float16, torch.float32)
        or ids.dtype != torch.int64
        or logits.shape != ids.shape
    ):
        raise ValueError(
            f"logits must be float16 and ids int64 of the same shape, got {logits.dtype} {tuple(logits.shape)} and "
            f"{ids.dtype} {tuple(ids.shape)}"
        )
    return logits, ids
