"""Whether a top-k store belongs to a folder of fairseq-preprocess's output."""

import os
from pathlib import Path
from typing import NamedTuple

from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, data_prefixes, read_dictionary, sentence_hash
from fairseq_bert_kd.storage.records import ChunkData
from fairseq_bert_kd.storage.store_file import ChunkPlace, StoreFile
from fairseq_bert_kd.storage.store_info import dictionary_digest

_SPECIAL_SYMBOLS = 4  # before the first line of a dictionary's file


class DataSide(NamedTuple):
    """One side of the data that a store should belong to."""

    name: str
    tokens: IndexedTokens


def open_data(store: StoreFile, folder: str | os.PathLike[str]) -> tuple[list[str], list[DataSide]]:
    """What the data's indices and dictionaries say, and the sides that can be compared.

    Raises:
        FileNotFoundError: a file of the data is absent.
    """
    folder, info = Path(folder), store.info
    problems, sides = _dictionary_differences(store, folder), []
    prefixes = data_prefixes(folder, info.split, info.source_lang, info.target_lang)
    for name, prefix in zip(("source", "target"), prefixes, strict=True):
        try:
            tokens = IndexedTokens(prefix)
            tokens.check()
        except ValueError as error:
            problems.append(str(error))
            continue
        sides.append(DataSide(name, tokens))
        if len(tokens) != store.header.corpus_sentences:
            problems.append(
                f"it was made from {store.header.corpus_sentences} sentences, {prefix} has {len(tokens)}; "
                "give the folder that it was dumped from, or dump again"
            )
    return problems, sides


def _dictionary_differences(store: StoreFile, folder: Path) -> list[str]:
    """The first line of the target dictionary that differs, and whether the source dictionary does."""
    info, problems = store.info, []
    digests = {"target": info.dictionary_digest, "source": info.source_dictionary_digest}
    for side, lang in (("target", info.target_lang), ("source", info.source_lang)):
        path = folder / f"dict.{lang}.txt"
        if not digests[side]:
            continue  # an import may not know the source dictionary
        try:
            theirs = read_dictionary(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if dictionary_digest(theirs) != digests[side]:
            where = _first_difference(store, theirs) if side == "target" else "another digest"
            problems.append(f"it was made with another {side} dictionary than {path}: {where}; dump again")
    return problems


def _first_difference(store: StoreFile, theirs: list[str]) -> str:
    try:
        ours = store.symbols()
    except ValueError:
        return "another digest (and the store's own dictionary is damaged)"
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((i for i, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
    line = f"line {at - _SPECIAL_SYMBOLS + 1}" if at >= _SPECIAL_SYMBOLS else f"special symbol {at}"
    one, other = (repr(side[at]) if at < len(side) else "no symbol" for side in (ours, theirs))
    return f"{line} differs, the store has {one}, the data {other} ({len(ours)} and {len(theirs)} symbols in all)"


def sentence_problems(place: ChunkPlace, data: ChunkData, sides: list[DataSide]) -> list[str]:
    """A line for each sentence and side whose length or hash differs; sides of unequal length as far as they go."""
    problems = []
    for name, tokens in sides:
        hashes = data.source_hashes if name == "source" else data.target_hashes
        for i in range(max(0, min(place.sentences, len(tokens) - place.first))):
            ids, sentence = tokens[place.first + i], place.first + i
            if name == "target" and len(ids) != data.lengths[i]:
                problems.append(
                    f"sentence {sentence}: its target has {len(ids)} tokens in the data, {data.lengths[i]} in the store"
                )
            elif sentence_hash(ids) != hashes[i]:
                problems.append(
                    f"sentence {sentence}: its {name} in the data is not the one that the teacher saw"
                )
    return problems
