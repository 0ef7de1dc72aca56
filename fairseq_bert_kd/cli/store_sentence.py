"""What ``store show`` says of a sentence, whatever the schema."""

from collections.abc import Iterator, Sequence
from typing import Any

from fairseq_bert_kd.storage.alignment import sentence_differences
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, Sides, read_dictionary
from fairseq_bert_kd.storage.reader import StoreReader
from fairseq_bert_kd.storage.schema import SCORED

_WHY_MISSING = {
    "too_long": "longer than the teacher can read",
    "not_finite": "the teacher's numbers were not finite",
    "not_imported": "the imported table does not hold it",
    "other_fold": "it is in another fold, for another teacher",
}


def find_sentence(reader: StoreReader, number: int) -> int:
    """Index in the file of a sentence by its corpus index, its chunk checked.

    Raises:
        ValueError: not in the corpus, or in another shard, or damaged.
    """
    corpus, shard, size = reader.header.corpus_sentences, reader.header.shard, reader.info.chunk_sentences
    if not 0 <= number < corpus:
        raise ValueError(f"SENTENCE must be from 0 to {corpus - 1}, a corpus index, got {number}")
    chunk, offset = divmod(number, size)
    index = chunk % shard.count
    if index != shard.index:
        raise ValueError(
            f"sentence {number} is in shard {index + 1}/{shard.count}, {reader.path} is shard {shard}; name that file"
        )
    reader.checked_chunk(reader.local(chunk))
    return reader.local(chunk) * size + offset


def sides_of_sentence(
    reader: StoreReader, number: int, index: int, folder: str
) -> tuple[dict[str, list[int]], dict[str, Sequence[str]]]:
    """Ids of a sentence in the data, and the dictionaries, by side.

    Args:
        reader: the store.
        number: corpus index of the sentence.
        index: its index in the file.
        folder: the data.

    Raises:
        FileNotFoundError: a file of the data is absent.
        ValueError: the sentence of the data is not the one that the teacher scored.
    """
    files = reader.info.files(folder)
    sides = Sides({side: IndexedTokens(prefix) for side, (prefix, _) in files.items()})
    lines = [
        f"is longer than the {side} in {folder}" for side, tokens in sides.items() if number >= len(tokens)
    ]
    lines += sentence_differences(reader.info, number, len(reader.rows(index)), reader.hashes(index), sides)
    if lines:
        raise ValueError(
            f"store {reader.path} {lines[0]}; `fairseq-bert-kd store verify --data` lists all differences, or leave out "
            "--data"
        )
    ids: dict[str, Any] = {side: tokens[number].tolist() for side, tokens in sides.items()}
    return ids, {side: read_dictionary(files[side].dictionary) for side in sides}


def why_missing(reader: StoreReader, index: int) -> Iterator[str]:
    """A line for a sentence without rows."""
    status, names = reader.status(index), reader.info.statuses
    if status != SCORED:
        name = names[status] if status < len(names) else str(status)
        yield f"the teacher has not scored it: {_WHY_MISSING.get(name, 'for an unknown reason')} ({name})"
