"""Does a store belong to these data? One list of differences: training raises the first, `store verify` reports them.

The data are given by side name, the sides that the store's schema hashes. A side is a sequence of ids by sentence with
``sizes``; one that the caller cannot give is left out.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import dictionary_digest, sentence_hash
from fairseq_bert_kd.storage.schema import StoreInfo
from fairseq_bert_kd.storage.topk_store import TopKReader

SAMPLED_SENTENCES = 1000  # sentences whose ids are compared by default
_SPECIAL_SYMBOLS = 4  # before the first line of a dictionary's file


# ---------------------------------------------------------------- differences


def dictionary_differences(
    info: StoreInfo, stored: Callable[[], Sequence[str]], symbols: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """A line for each dictionary that is not the one that the store was made with.

    Args:
        info: info of the store.
        stored: gives the store's own dictionary, or raises ValueError; called where the digests differ.
        symbols: dictionaries of the data by side, in id order.
    """
    for side, (name, digest) in info.dictionaries().items():
        if digest and side in symbols and dictionary_digest(symbols[side]) != digest:
            where = ""
            if side == info.dictionary_side:
                with suppress(ValueError):  # a damaged one is reported elsewhere
                    where = f": {_first_difference(stored(), symbols[side], name)}"
            yield f"was made with another {side} dictionary than {name}{where}"


def _first_difference(stored: Sequence[str], here: Sequence[str], name: str) -> str:
    pairs = enumerate(zip(stored, here, strict=False))
    first = next((i for i, (one, other) in pairs if one != other), min(len(stored), len(here)))
    line = f" (line {first - _SPECIAL_SYMBOLS + 1} of {name})" if first >= _SPECIAL_SYMBOLS else ""
    was, now = (f"`{side[first]}`" if first < len(side) else "absent" for side in (stored, here))
    return f"symbol {first}{line} was {was}, it is {now} here ({len(stored)} and {len(here)} symbols)"


def size_differences(sentences: int, sides: Mapping[str, Any]) -> Iterator[str]:
    """A line for each side with another number of sentences than the store's corpus."""
    for side, tokens in sides.items():
        if len(tokens) != sentences:
            word = "shorter" if sentences < len(tokens) else "longer"
            yield f"is {word} than the data: {sentences} sentences against {len(tokens)} of the {side}"


def sentence_differences(
    info: StoreInfo, number: int, rows: int, hashes: Mapping[str, Any], sides: Mapping[str, Any]
) -> Iterator[str]:
    """A line for each side of a sentence whose tokens are not those that the teacher scored.

    Args:
        info: info of the store.
        number: corpus index of the sentence.
        rows: its rows in the store.
        hashes: its stored hashes by side.
        sides: the data; a side that ends before the sentence is left out.
    """
    sentence = f"sentence {number} (line {number + 1} of the text)"
    for side, tokens in sides.items():
        if number >= len(tokens):
            continue
        if side == info.row_side and tokens.sizes[number] != rows:
            yield f"has {rows} rows for {sentence}, its {side} has {tokens.sizes[number]} tokens with end of sentence"
        elif sentence_hash(tokens[number]) != hashes[side]:
            yield f"was made from another text: the {side} of {sentence} has other tokens here"


# ---------------------------------------------------------------- training


def check_sentences(reader: Any, sides: Mapping[str, Any], everything: bool = False) -> int:
    """Raise ValueError for a store whose sentences are not these: number, lengths, and hashes of the ids.

    Args:
        reader: the store.
        sides: the data by side.
        everything: compare the ids of all sentences, not of a sample spread over the corpus.

    Returns:
        Sentences whose ids were compared.
    """
    for line in size_differences(len(reader), sides):
        raise _other_data(reader, line)
    chosen = np.arange(len(reader)) if everything else sampled_sentences(len(reader))
    row_side = reader.info.row_side
    if row_side in sides:
        differs = reader.lengths != np.asarray(sides[row_side].sizes)
        chosen = np.concatenate([np.flatnonzero(differs)[:1], chosen])
    for sentence in map(int, chosen):  # a list of all would take a gigabyte of a large corpus
        rows, hashes = len(reader.rows(sentence)), reader.hashes(sentence)
        for line in sentence_differences(reader.info, sentence, rows, hashes, sides):
            raise _other_data(reader, line)
    return len(chosen)


def sampled_sentences(sentences: int) -> NDArray[np.int64]:
    """Up to `SAMPLED_SENTENCES` indices: the first, the last and others drawn with a fixed seed, ascending."""
    if sentences <= SAMPLED_SENTENCES:
        return np.arange(sentences)
    between = np.random.default_rng(0).choice(sentences - 2, SAMPLED_SENTENCES - 2, replace=False) + 1
    return np.concatenate([[0], np.sort(between), [sentences - 1]])


def _other_data(reader: Any, line: str) -> ValueError:
    return ValueError(
        f"store {reader.path} {line}; binarise the text that the teacher scored, or "
        f"{reader.info.rebuild_command(reader.path)}"
    )


def check_dictionaries(reader: Any, symbols: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError for a store that was made with other dictionaries.

    Args:
        reader: the store.
        symbols: the student's dictionaries by side, in id order.
    """
    for line in dictionary_differences(reader.info, lambda: reader.symbols(), symbols):
        raise ValueError(
            f"store {reader.path} {line}; binarise with those dictionaries (fairseq-preprocess --srcdict, "
            f"--tgtdict; prepare-sentences --like), or {reader.info.rebuild_command(reader.path)}"
        )


# ---------------------------------------------------------------- training from token rows


def check_settings(reader: TopKReader, split: str, source_lang: str, target_lang: str, topk: int) -> None:
    """Raise ValueError for a store of another split or direction, or with fewer tokens than requested."""
    name, info = f"top-k store {reader.path}", reader.info
    rebuild = functools.partial(info.rebuild_command, reader.path)
    stored = f"{info.split} {info.source_lang}-{info.target_lang}"
    requested = f"{split} {source_lang}-{target_lang}"
    if stored != requested:
        raise ValueError(
            f"{name} was made for {stored}, the data are {requested}; {rebuild()} for this split"
        )
    if info.fold is not None:
        raise ValueError(
            f"{name} holds fold {info.fold} alone; join the stores of all folds with `fairseq-bert-kd store merge`"
        )
    if not 1 <= topk <= info.k:
        raise ValueError(
            f"{name} holds the {info.k} best tokens, --kd-topk is {topk}; set it to 1 to {info.k}, or {rebuild(f'--topk {topk}')}"
        )


def check_contents(
    reader: TopKReader,
    topk: int,
    temperatures: Sequence[tuple[str, float]],
    samples: bool,
) -> None:
    """Raise ValueError, with what to run, for a store whose rows lack what an objective needs.

    Args:
        reader: the store.
        topk: ``--kd-topk``.
        temperatures: option and temperature at which a log-normaliser is needed.
        samples: tokens drawn from the rest are needed, and with them all stored tokens.
    """
    name, info = f"top-k store {reader.path}", reader.info
    rebuild = functools.partial(info.rebuild_command, reader.path)
    stored = ", ".join(f"{value:g}" for value in info.temperatures) or "none"
    for option, temperature in temperatures:
        if not np.isclose(info.temperatures, temperature, rtol=1e-6, atol=0).any():
            choosing = option if option.endswith("-temperature") else "--kd-temperature"
            needed = " ".join(f"{value:g}" for value in sorted({*info.temperatures, temperature}))
            raise ValueError(
                f"{option} needs the teacher's mass outside the stored tokens at temperature {temperature:g}; {name} has it "
                f"at {stored}: choose one of these with {choosing}, or {rebuild(f'--temperatures {needed}')}"
            )
    if samples and not info.samples:
        raise ValueError(
            f"--kd-objective sampled needs tokens drawn from the teacher, {name} has none; {rebuild('--samples 8')}, or "
            "choose another objective"
        )
    if samples and topk != info.k:
        raise ValueError(
            f"--kd-objective sampled needs every stored token, because the others were drawn outside of these: {name} holds "
            f"{info.k}, --kd-topk is {topk}; set --kd-topk {info.k}"
        )


def check_tokenizer(what: str, teachers_digest: str, tokenizer_digest: str, name: str) -> None:
    """Raise ValueError for a teacher that had another tokenizer.

    Args:
        what: the teacher or its store, for the message.
        teachers_digest: digest of the tokenizer that the teacher was trained with; "" where not known.
        tokenizer_digest: digest of the tokenizer that made the student's pieces.
        name: name of that tokenizer, for the message.
    """
    if teachers_digest not in ("", tokenizer_digest):
        raise ValueError(
            f"{what} comes from a teacher with another tokenizer than `{name}` (digest {teachers_digest[:12]}, this one "
            f"{tokenizer_digest[:12]}); tokenise and binarise with the teacher's tokenizer, or train a teacher with this one"
        )
