"""Vectors of entities on disk: a safetensors file, and their ids beside it, one per line."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.output_files import whole_file
from fairseq_bert_kd.text_lines import open_lines

TENSOR = "entities"
RELATIONS = "relations"
IDS = "ids_sha256"  # key of the metadata; files that others wrote have none


@dataclass(frozen=True)
class EntityVectors:
    """Vectors by entity.

    Attributes:
        ids: distinct ids of the entities.
        vectors: ``(entities, dim)`` float32.
    """

    ids: tuple[str, ...]
    vectors: NDArray[np.float32]

    def table(self) -> NDArray[np.float32]:
        """``(entities + 1, dim)``: row 0 is zeros, for no entity, and entity i has row i + 1."""
        return np.concatenate([np.zeros((1, self.vectors.shape[1]), np.float32), self.vectors])

    def digest(self) -> str:
        """Hexadecimal sha256 of ids and vectors."""
        hashed = hashlib.sha256("\n".join(self.ids).encode())
        hashed.update(np.ascontiguousarray(self.vectors, "<f4").reshape(-1).data)
        return hashed.hexdigest()


def _ids_digest(ids: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def ids_path(path: str | Path) -> Path:
    """File of the ids that belong to a file of vectors."""
    return Path(path).with_suffix(".txt")


def read_entity_vectors(path: str | Path) -> EntityVectors:
    """Read what `write_entity_vectors` wrote.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: no vectors of this kind, or of complex or bfloat16 numbers, other ids than they were written with, an id twice, or a number that is not finite.
    """
    from safetensors import SafetensorError, safe_open

    for needed in (Path(path), ids_path(path)):
        if not needed.is_file():
            raise FileNotFoundError(
                f"`{needed}` does not exist; give the .safetensors file that `fairseq-bert-kd entity-vectors` wrote, with its "
                ".txt file of ids beside it"
            )
    try:
        with safe_open(str(path), framework="np") as file:
            vectors = file.get_tensor(TENSOR)
            stated = (file.metadata() or {}).get(IDS)
    except (SafetensorError, KeyError):
        raise ValueError(
            f"`{path}` holds no entity vectors; make them with `fairseq-bert-kd entity-vectors`"
        ) from None
    except TypeError:  # numpy has no bfloat16
        vectors = None
    if vectors is None or vectors.dtype.kind not in "fiu":
        said = "a type that numpy does not know" if vectors is None else vectors.dtype.name
        raise ValueError(
            f"`{path}` holds vectors of {said}, expected float32; save them again as such, or take them from an array with "
            "`fairseq-bert-kd entity-vectors --array`"
        )
    vectors = vectors.astype(np.float32, copy=False)
    ids = tuple(line.rstrip("\n") for line in open_lines(ids_path(path)))
    if stated not in (None, _ids_digest(ids)):
        raise ValueError(
            f"`{ids_path(path)}` does not hold the ids that `{path}` was written with; write both again with "
            "`fairseq-bert-kd entity-vectors --overwrite`"
        )
    check_vectors(ids, vectors, str(path))
    return EntityVectors(ids, vectors)


def check_vectors(ids: tuple[str, ...], vectors: NDArray[np.float32], name: str) -> None:
    """ValueError for ids and vectors that do not fit together."""
    if vectors.ndim != 2 or len(ids) != len(vectors) or not vectors.size:
        raise ValueError(
            f"`{name}`: expected a vector for each of {len(ids):,} ids, got an array of shape {vectors.shape}; give both from "
            "the same origin"
        )
    if len(set(ids)) != len(ids):
        raise ValueError(f"`{name}`: an entity's id stands there twice; remove one of them")
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = ids[int(bad.argmax())]
        raise ValueError(
            f"`{name}`: {bad.sum():,} vectors have numbers that are not finite (first: {first}); train them again with a lower "
            "learning rate"
        )


def write_entity_vectors(
    path: str | Path, vectors: EntityVectors, relations: NDArray[np.float32] | None = None
) -> None:
    """Write vectors and ids under temporary names, then give them their own."""
    from safetensors.numpy import save_file

    tensors = {TENSOR: vectors.vectors} | ({} if relations is None else {RELATIONS: relations})
    with whole_file(path) as temporary, whole_file(ids_path(path)) as temporary_ids:
        save_file(tensors, str(temporary), metadata={IDS: _ids_digest(vectors.ids)})
        temporary_ids.write_text("".join(f"{name}\n" for name in vectors.ids), encoding="utf-8")
