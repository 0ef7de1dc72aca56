"""Maps symbols of a fairseq dictionary to teacher ids, and names those that no target holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.sentence_data import SentenceSpec
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

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
        shown = ", ".join(repr(symbol) for symbol in unknown[:SHOWN])
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise ValueError(
            f"every symbol of the {side} dictionary must be a piece of the teacher's tokenizer, but "
            f"{len(unknown):,} of {len(dictionary):,} are not: {shown}{more}. Likely the text was tokenised "
            "with another tokenizer (or not at all). Run `fairseq-bert-kd tokenize` with this teacher's tokenizer, then "
            "fairseq-preprocess again."
        )
    return ids
