"""Maps symbols of a fairseq dictionary to teacher ids, and names those that no target holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.piece_codecs import FAIRSEQ_SPECIALS

if TYPE_CHECKING:  # a command reports a broken fairseq by itself, so importing this file must not need it
    from fairseq.data import Dictionary

FILLER = re.compile(r"madeupword\d{4}")  # fairseq pads dictionaries to a multiple of 8 with these
SHOWN = 8  # symbols named in a message


@dataclass(frozen=True)
class TeacherVocabulary:
    """The student's dictionaries in the teacher's ids.

    Attributes:
        source_to_teacher: ``(source dictionary,)`` int64 teacher id of each source symbol.
        target_to_teacher: ``(target dictionary,)`` int64 teacher id of each target symbol.
        text_format: the teacher's special ids.
        digests: digests of what this was made with, by name: ``tokenizer``, ``source_dictionary``,
            ``target_dictionary``.
    """

    source_to_teacher: NDArray[np.int64]
    target_to_teacher: NDArray[np.int64]
    text_format: TextFormat
    digests: dict[str, str]


def teacher_vocabulary(tokenizer: HfTokenizer, source: Dictionary, target: Dictionary) -> TeacherVocabulary:
    """Map both dictionaries.

    Raises:
        ValueError: symbols that the teacher does not know, or a tokenizer that lays out pairs in another way.
    """
    return TeacherVocabulary(
        source_to_teacher=map_dictionary(tokenizer, source, "source"),
        target_to_teacher=map_dictionary(tokenizer, target, "target"),
        text_format=tokenizer.text_format(),
        digests={"tokenizer": tokenizer.digest(), **dictionary_digests(source, target)},
    )


def full_dictionary(tokenizer: HfTokenizer) -> str:
    """A ``dict.txt`` of the tokenizer's whole vocabulary, with which no text that it tokenises holds an unknown symbol.

    For ``fairseq-preprocess --srcdict`` (and ``--tgtdict``). A dictionary from the training text is smaller, and every piece
    that this text does not hold is unknown to it. A WordPiece that begins a word is there twice, with and without the mark
    of missing white space. Counts are 1; fairseq reads their order only.
    """
    return "".join(f"{symbol} 1\n" for symbol in tokenizer.all_symbols())


def excluded_ids(dictionary: Dictionary) -> NDArray[np.int64]:
    """``(n,)`` ids of start, padding and fairseq's filler words, which no target holds."""
    never = (dictionary.bos_index, dictionary.pad_index)
    symbols = enumerate(dictionary.symbols)
    return np.array(
        [index for index, symbol in symbols if index in never or FILLER.fullmatch(symbol)], np.int64
    )


def dictionary_digests(source: Dictionary, target: Dictionary) -> dict[str, str]:
    """Digests by which a checkpoint recognises the dictionaries that it was trained with."""
    return {
        "source_dictionary": dictionary_digest(source.symbols),
        "target_dictionary": dictionary_digest(target.symbols),
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
