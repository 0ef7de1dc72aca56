"""The only place that maps symbols of a fairseq dictionary to teacher ids."""

import re
from dataclasses import dataclass

import numpy as np
from fairseq.data import Dictionary
from numpy.typing import NDArray

from fairseq_bert_kd.functional.pair_input import PairFormat
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

MADEUPWORD = re.compile(r"madeupword\d{4}")  # fairseq pads dictionaries to a multiple of 8 with these
SHOWN = 8  # symbols named in a refusal


@dataclass(frozen=True)
class TeacherVocabulary:
    """How a teacher reads the student's dictionaries.

    Attributes:
        source_ids: ``(source dictionary,)`` int64 teacher id of each source symbol.
        target_ids: ``(target dictionary,)`` int64 teacher id of each target symbol.
        pair_format: the teacher's special ids.
        digests: what this was made with, by name: ``tokenizer``, ``source_dictionary``,
            ``target_dictionary``.
    """

    source_ids: NDArray[np.int64]
    target_ids: NDArray[np.int64]
    pair_format: PairFormat
    digests: dict[str, str]


def teacher_vocabulary(tokenizer: HfTokenizer, source: Dictionary, target: Dictionary) -> TeacherVocabulary:
    """Map both dictionaries, or refuse with what the teacher does not know."""
    template = tokenizer.pair_template()
    pair_format = PairFormat(
        prefix=tuple(template.prefix),
        middle=tuple(template.middle),
        mask=tokenizer.mask_id,
        pad=tokenizer.pad_id,
        source_segment=template.source_segment,
        target_segment=template.target_segment,
    )
    return TeacherVocabulary(
        source_ids=map_dictionary(tokenizer, source, template.last, "source"),
        target_ids=map_dictionary(tokenizer, target, template.last, "target"),
        pair_format=pair_format,
        digests={"tokenizer": tokenizer.digest(), **dictionary_digests(source, target)},
    )


def dictionary_digests(source: Dictionary, target: Dictionary) -> dict[str, str]:
    """Digests by which a checkpoint recognises the dictionaries that it was trained with."""
    return {
        "source_dictionary": dictionary_digest(source.symbols),
        "target_dictionary": dictionary_digest(target.symbols),
    }


def map_dictionary(
    tokenizer: HfTokenizer, dictionary: Dictionary, last_id: int, side: str
) -> NDArray[np.int64]:
    """Teacher id of every dictionary symbol; several symbols may share one.

    fairseq's end of sentence is the token that closes the teacher's input (``last_id``), its start and
    padding are the teacher's own, its unknown symbol and its filler words are the teacher's unknown.

    Args:
        tokenizer: the teacher's.
        dictionary: the student's, of one side.
        last_id: teacher id that closes its input.
        side: "source" or "target", for the message.

    Raises:
        ValueError: symbols that the tokenizer does not know, with their count and the likely cause.
    """
    special = {
        dictionary.bos_index: tokenizer.cls_id,
        dictionary.pad_index: tokenizer.pad_id,
        dictionary.eos_index: last_id,
        dictionary.unk_index: tokenizer.unk_id,
    }
    ids = np.full(len(dictionary), -1, dtype=np.int64)
    unknown = []
    for index, symbol in enumerate(dictionary.symbols):
        if index in special:
            ids[index] = special[index]
            continue
        teacher_id = tokenizer.unk_id if MADEUPWORD.fullmatch(symbol) else tokenizer.piece_to_id(symbol)
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
            "with another tokenizer (or not at all) before fairseq-preprocess: run `fairseq-bert-kd tokenize` "
            "with this teacher's tokenizer, then fairseq-preprocess again."
        )
    return ids
