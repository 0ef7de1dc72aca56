"""Proves that a store belongs to the data that a student is about to learn from."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairseq_bert_kd.storage.fairseq_data import sentence_hash
from fairseq_bert_kd.storage.header import rebuild_command
from fairseq_bert_kd.storage.store_info import dictionary_digest
from fairseq_bert_kd.storage.topk_store import TopKReader

SAMPLED_SENTENCES = 1000  # whose ids are compared by default
_BLOCK = 1 << 20  # sentences whose lengths are compared together


def check_settings(reader: TopKReader, split: str, source_lang: str, target_lang: str, topk: int) -> None:
    """Refuse a store of another split or direction, or with fewer tokens than asked for.

    Raises:
        ValueError: with both values and what to run.
    """
    name, info, rebuild = f"top-k store {reader.path}", reader.info, rebuild_command(reader.path)
    stored = f"{info.split} {info.source_lang}-{info.target_lang}"
    wanted = f"{split} {source_lang}-{target_lang}"
    if stored != wanted:
        raise ValueError(f"{name} was made for {stored}, the data are {wanted}; {rebuild} for this split")
    if not 1 <= topk <= info.k:
        raise ValueError(
            f"{name} holds the {info.k} best tokens, --kd-topk asks for {topk}; ask for 1 to {info.k}, or {rebuild} "
            f"and --topk {topk}"
        )


def check_contents(
    reader: TopKReader,
    topk: int,
    temperatures: Sequence[tuple[str, float]],
    samples: bool,
) -> None:
    """Refuse a store whose rows lack what an objective needs.

    Args:
        reader: the store.
        topk: ``--kd-topk``.
        temperatures: option and temperature at which a log-normaliser is needed.
        samples: tokens drawn from the rest are needed, and with them all stored tokens.

    Raises:
        ValueError: what is missing, and what to run.
    """
    name, info = f"top-k store {reader.path}", reader.info
    stored = ", ".join(f"{value:g}" for value in info.temperatures) or "none"
    for option, temperature in temperatures:
        if not np.isclose(info.temperatures, temperature, rtol=1e-6, atol=0).any():
            raise ValueError(
                f"{option} needs the teacher's mass outside the stored tokens at temperature {temperature:g}; {name} has it "
                f"at {stored}: choose one of these with --kd-temperature, or {rebuild_command(reader.path)} --temperatures "
                f"{' '.join(f'{value:g}' for value in sorted({*info.temperatures, temperature}))}"
            )
    if samples and not info.samples:
        raise ValueError(
            f"--kd-objective sampled needs tokens drawn from the teacher, {name} has none; {rebuild_command(reader.path)} "
            "--samples 8, or choose another objective"
        )
    if samples and topk != info.k:
        raise ValueError(
            f"--kd-objective sampled needs every stored token, because the others were drawn outside of these: {name} holds "
            f"{info.k}, --kd-topk asks for {topk}; set --kd-topk {info.k}"
        )


def check_dictionaries(reader: TopKReader, source: Sequence[str], target: Sequence[str]) -> None:
    """Refuse a store that was made with other dictionaries.

    Args:
        reader: the store.
        source: symbols of the student's source dictionary in id order.
        target: of its target dictionary.

    Raises:
        ValueError: the first symbol that differs, and what to run.
    """
    name, info, rebuild = f"top-k store {reader.path}", reader.info, rebuild_command(reader.path)
    if info.dictionary_digest != dictionary_digest(target):
        stored = reader.symbols()
        pairs = zip(stored, target, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(stored), len(target)))
        raise ValueError(
            f"{name} was made with another target dictionary: symbol {first} (line {first - 3} of dict."
            f"{info.target_lang}.txt) was {_symbol(stored, first)}, it is {_symbol(target, first)} here ({len(stored)} "
            f"and {len(target)} symbols); binarise with that dictionary (fairseq-preprocess --tgtdict), or {rebuild}"
        )
    if info.source_dictionary_digest not in ("", dictionary_digest(source)):
        raise ValueError(
            f"{name} was made with another source dictionary; binarise with that one (fairseq-preprocess --srcdict), "
            f"or {rebuild}"
        )


def check_tokenizer(what: str, teachers_digest: str, tokenizer_digest: str, name: str) -> None:
    """Refuse a teacher that had another tokenizer.

    Args:
        what: the teacher or its store, for the message.
        teachers_digest: of the tokenizer that the teacher was trained with; "" where it is not known.
        tokenizer_digest: of the tokenizer that made the student's pieces.
        name: of that tokenizer, for the message.

    Raises:
        ValueError: the digests differ.
    """
    if teachers_digest not in ("", tokenizer_digest):
        raise ValueError(
            f"{what} comes from a teacher with another tokenizer than `{name}` (digest {teachers_digest[:12]}, this one "
            f"{tokenizer_digest[:12]}); tokenise and binarise with the teacher's tokenizer, or train a teacher with this one"
        )


def check_sentences(
    reader: TopKReader,
    lengths: ArrayLike,
    read: Callable[[int], tuple[Any | None, Any]],
    everything: bool = False,
) -> int:
    """Refuse a store whose sentences are not these: number, target lengths, and hashes of the ids.

    Args:
        reader: the store.
        lengths: ``(sentences,)`` target lengths, end of sentence included.
        read: source and target ids of a sentence; None for a source that cannot be told (cut off by the task).
        everything: compare the ids of all sentences, not of a sample spread over the corpus.

    Returns:
        Sentences whose ids were compared.

    Raises:
        ValueError: the first difference, and what to run.
    """
    name, rebuild = f"top-k store {reader.path}", rebuild_command(reader.path)
    targets = np.asarray(lengths)
    if len(reader) != targets.size:
        word = "shorter" if len(reader) < targets.size else "longer"
        raise ValueError(
            f"{name} is {word} than the data: {len(reader)} sentences against {targets.size}; binarise the text that "
            f"the teacher scored, or {rebuild}"
        )
    for start in range(0, len(reader), _BLOCK):
        stored = reader.lengths_of(start, start + _BLOCK)
        differs = stored != targets[start : start + _BLOCK]
        if differs.any():
            i = int(differs.argmax())
            raise ValueError(
                f"{name} has {stored[i]} rows for sentence {start + i} (line {start + i + 1} of the text), its target "
                f"has {targets[start + i]} tokens with end of sentence; binarise the text that the teacher scored, or "
                f"{rebuild}"
            )
    chosen = np.arange(len(reader)) if everything else sampled_sentences(len(reader))
    for sentence in map(int, chosen):
        source, target = read(sentence)
        stored_source, stored_target = reader.hashes(sentence)
        for side, ids, expected in (("source", source, stored_source), ("target", target, stored_target)):
            if ids is not None and sentence_hash(ids) != expected:
                raise ValueError(
                    f"{name} was made from another text: the {side} of sentence {sentence} (line {sentence + 1} of "
                    f"the text) has other tokens here; binarise the text that the teacher scored, or {rebuild}"
                )
    return len(chosen)


def sampled_sentences(sentences: int) -> NDArray[np.int64]:
    """Up to `SAMPLED_SENTENCES` indices: the first, the last and others drawn with a fixed seed, ascending."""
    if sentences <= SAMPLED_SENTENCES:
        return np.arange(sentences)
    between = np.random.default_rng(0).choice(sentences - 2, SAMPLED_SENTENCES - 2, replace=False) + 1
    return np.concatenate([[0], np.sort(between), [sentences - 1]])


def _symbol(symbols: Sequence[str], index: int) -> str:
    return f"`{symbols[index]}`" if index < len(symbols) else "absent"
