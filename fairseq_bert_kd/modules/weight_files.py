"""Finds the file of a transformers model folder that cannot be read, without loading it."""

import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fairseq_bert_kd import compat

PATTERNS = ("config.json", "*.index.json", "*.safetensors", "*.bin")
_LENGTH = struct.Struct("<Q")  # first bytes of a safetensors file: bytes of its JSON header
_OLD_PICKLE = b"\x80\x02"  # first bytes of what torch wrote before 1.6


def unreadable_files(folder: str) -> Iterator[str]:
    """A sentence for each unreadable file of a model folder, see `compat.file_fault`; none for a hub name."""
    for pattern in PATTERNS if Path(folder).is_dir() else ():
        for path in sorted(Path(folder).glob(pattern)):
            if path.is_file() and not _is_whole(path):
                yield compat.file_fault(path)


def _is_whole(path: Path) -> bool:
    """Whether a file begins and ends as its kind must."""
    with open(path, "rb") as file:
        head = file.read(_LENGTH.size)
    if path.suffix == ".json":
        try:
            return isinstance(json.loads(path.read_bytes()), dict)
        except ValueError:
            return False
    if path.suffix == ".safetensors":
        return path.stat().st_size == _safetensors_size(path)
    # a zip file's table of contents stands at its end; of the old format only the beginning can be told
    return head.startswith(_OLD_PICKLE) or zipfile.is_zipfile(path)


def _safetensors_size(path: Path) -> int:
    """Bytes that the header of a safetensors file names; -1 for what has no such header."""
    with open(path, "rb") as file:
        prefix = file.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            return -1
        (header_bytes,) = _LENGTH.unpack(prefix)
        try:
            header = json.loads(file.read(min(header_bytes, path.stat().st_size)))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return -1
    return _LENGTH.size + header_bytes + max(ends, default=0)
