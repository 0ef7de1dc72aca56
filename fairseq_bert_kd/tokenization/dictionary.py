"""Maps symbols of a fairseq dictionary to teacher ids, and names those that no target holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.sentence_data import SentenceSpec
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.piece_codecs import BYTE_SYMBOL, FAIRSEQ_SPECIALS, GLUE, UNUSED

if TYPE_CHECKING:  # a command reports a broken fairseq by itself, so importing this file must not need it
    from fairseq.data import Dictionary

FILLER = re.compile(r"madeupword\d{4}")  # fairseq pads dictionaries to a multiple of 8 with these
SHOWN = 8  # symbols named in a message


@dataclass(frozen=True)
class TeacherVocabulary:
    """The student's dictionaries in the teacher's ids.

    Attributes:
        to_teacher: ``(dictionary,)`` int64 teacher id of each symbol, by side.
        text_format: the teacher's special ids.
        digests: digests of what this was made with, by name: ``tokenizer`` and, of each side, ``target_dictionary``.
    """

    to_teacher: dict[str, NDArray[np.int64]]
    text_format: TextFormat
    digests: dict[str, str]


@dataclass(frozen=True)
class SentenceVocabulary:
    """One dictionary of sentences in an encoder's ids.

    Attributes:
        token_to_encoder: ``(dictionary,)`` int64 encoder id of each symbol.
        text_format: the encoder's special ids.
        encoder_size: ids of the encoder's tokenizer, added tokens included.
        digests: digests of what this was made with, by name: ``tokenizer``, ``dictionary``.
    """

    token_to_encoder: NDArray[np.int64]
    text_format: TextFormat
    encoder_size: int
    digests: dict[str, str]


def sentence_vocabulary(tokenizer: HfTokenizer, dictionary: Dictionary) -> SentenceVocabulary:
    """Map the dictionary of sentences.

    Raises:
        ValueError: symbols that the encoder does not know, or a tokenizer that lays out texts in another way.
    """
    return SentenceVocabulary(
        token_to_encoder=map_dictionary(tokenizer, dictionary, "input"),
        text_format=tokenizer.text_format(),
        encoder_size=tokenizer.vocab_size,
        digests={"tokenizer": tokenizer.digest(), "dictionary": dictionary_digest(dictionary.symbols)},
    )


def token_ids(
    tokenizer: HfTokenizer, dictionary: Dictionary, texts: Sequence[str]
) -> list[NDArray[np.int64]]:
    """Ids of each text in a dictionary, end of sentence included."""
    index, eos = dictionary.index, dictionary.eos()
    return [np.array([*map(index, pieces), eos], dtype=np.int64) for pieces in tokenizer.encode_batch(texts)]


def full_dictionary(tokenizer: HfTokenizer) -> Dictionary:
    """Dictionary of every symbol that a text can have; two folders of one tokenizer then share it."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for symbol in tokenizer.all_symbols():
        dictionary.add_symbol(symbol)
    return dictionary


def load_dictionary(folder: str, spec: SentenceSpec) -> Dictionary:
    """Dictionary of a folder of prepared sentences.

    Args:
        folder: the folder.
        spec: its description.

    Raises:
        FileNotFoundError: it has none.
        ValueError: it is another one than the folder was prepared with.
    """
    from fairseq.data import Dictionary

    path = Path(folder) / "input0" / "dict.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"dictionary {path} does not exist; prepare the data again with `fairseq-bert-kd prepare-sentences`"
        )
    dictionary = Dictionary.load(str(path))
    if dictionary_digest(dictionary.symbols) != spec.dictionary:
        raise ValueError(
            f"{path} is not the dictionary that `{folder}` was prepared with; copy the folder again, or prepare the data again"
        )
    return dictionary


def teacher_vocabulary(tokenizer: HfTokenizer, dictionaries: Mapping[str, Dictionary]) -> TeacherVocabulary:
    """Map the dictionary of each side: source and target, or target alone.

    Raises:
        ValueError: symbols that the teacher does not know, or a tokenizer that lays out pairs in another way.
    """
    return TeacherVocabulary(
        to_teacher={
            side: map_dictionary(tokenizer, dictionary, side) for side, dictionary in dictionaries.items()
        },
        text_format=tokenizer.text_format(),
        digests={"tokenizer": tokenizer.digest(), **dictionary_digests(dictionaries)},
    )


def excluded_ids(dictionary: Dictionary) -> NDArray[np.int64]:
    """``(n,)`` ids of start, padding and fairseq's filler words, which no target holds."""
    never = (dictionary.bos_index, dictionary.pad_index)
    symbols = enumerate(dictionary.symbols)
    return np.array(
        [index for index, symbol in symbols if index in never or FILLER.fullmatch(symbol)], np.int64
    )


def piece_ids(dictionary: Dictionary) -> NDArray[np.int64]:
    """``(n,)`` ids of real pieces: no special, filler or unused symbols, no bytes, which the teacher may not know."""
    symbols = ((index, symbol.removeprefix(GLUE)) for index, symbol in enumerate(dictionary.symbols))
    return np.array(
        [
            index
            for index, symbol in symbols
            if index >= dictionary.nspecial
            and not FILLER.fullmatch(symbol)
            and not BYTE_SYMBOL.fullmatch(symbol)
            and not UNUSED.fullmatch(symbol)
        ],
        np.int64,
    )


def dictionary_digests(dictionaries: Mapping[str, Dictionary]) -> dict[str, str]:
    """Digests by which a checkpoint recognises the dictionaries that it was trained with, as ``target_dictionary``."""
    return {
        f"{side}_dictionary": dictionary_digest(dictionary.symbols)
        for side, dictionary in dictionaries.items()
    }


def map_dictionary(tokenizer: HfTokenizer, dictionary: Dictionary, side: str) -> NDArray[np.int64]:
    """Teacher id of every dictionary symbol; several symbols may share one.

    fairseq's end of sentence is the token that closes the teacher's input, its start and padding are the teacher's own,
    its unknown symbol and its filler words are the teacher's unknown.

    Args:
        tokenizer: tokenizer of the teacher.
        dictionary: the student's dictionary of one side.
        side: "source" or "target", for the message.

    Raises:
        ValueError: symbols that the tokenizer does not know, with their count and the likely cause.
    """
    special = {
        dictionary.bos_index: tokenizer.special_id("cls"),
        dictionary.pad_index: tokenizer.special_id("pad"),
        dictionary.eos_index: tokenizer.closing_id,
        dictionary.unk_index: tokenizer.unk_id,
    }
    ids = np.zeros(len(dictionary), dtype=np.int64)
    unknown = []
    for index, symbol in enumerate(dictionary.symbols):
        teacher_id = special.get(index, tokenizer.unk_id if FILLER.fullmatch(symbol) else None)
        teacher_id = tokenizer.piece_to_id(symbol) if teacher_id is None else teacher_id
        if teacher_id is None:
            unknown.append(symbol)
        else:
            ids[index] = teacher_id
    if unknown:
        raise ValueError(
            f"{_not_pieces(f'the {side} dictionary', unknown, len(dictionary))}. Likely the text was tokenised "
            "with another tokenizer (or not at all). Run `fairseq-bert-kd tokenize` with this teacher's tokenizer, then "
            "fairseq-preprocess again."
        )
    return ids


def check_pieces(tokenizer: HfTokenizer, symbols: Collection[str], what: str) -> None:
    """Check that symbols were made with a tokenizer: of a dictionary, a converted model, an output.

    Args:
        tokenizer: tokenizer that reads or writes them.
        symbols: fairseq's own special and filler symbols pass.
        what: where the symbols stand, for the message.

    Raises:
        ValueError: symbols that are not its pieces, with their count.
    """
    unknown = foreign_symbols(tokenizer, symbols)
    if unknown:
        raise ValueError(
            f"{_not_pieces(what, unknown, len(symbols))}. `{tokenizer.name}` is another tokenizer than the one that the "
            "text was tokenised with. Give that one."
        )


def foreign_symbols(tokenizer: HfTokenizer, symbols: Collection[str]) -> list[str]:
    """Symbols that are neither pieces of the tokenizer nor fairseq's own."""
    return [
        symbol
        for symbol in symbols
        if tokenizer.piece_to_id(symbol) is None
        and symbol not in FAIRSEQ_SPECIALS
        and not FILLER.fullmatch(symbol)
    ]


def _not_pieces(what: str, unknown: Sequence[str], symbols: int) -> str:
    shown = ", ".join(repr(symbol) for symbol in unknown[:SHOWN])
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    return (
        f"every symbol of {what} must be a piece of the teacher's tokenizer, but {len(unknown):,} of {symbols:,} are not: "
        f"{shown}{more}"
    )
