"""Stores of token rows: reader, writer, and the name of the file beside the binarised data."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import decode_dictionary, dictionary_digest, encode_dictionary
from fairseq_bert_kd.storage.header import damaged
from fairseq_bert_kd.storage.reader import StoreReader
from fairseq_bert_kd.storage.shards import WHOLE, Shard
from fairseq_bert_kd.storage.store_folders import check_store_name
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.writer import StoreWriter

DEFAULT_NAME = "default"  # name of a store that is the only one of its data


class TopKReader(StoreReader):
    """Reads a store of token rows, see `StoreReader`."""

    schema: ClassVar[type[TopKInfo]] = TopKInfo
    info: TopKInfo

    def symbols(self) -> list[str]:
        """The target dictionary in id order; ValueError where it is damaged."""
        try:
            return decode_dictionary(self.checked_blob("dictionary"))
        except ValueError as error:
            raise damaged(self.path, f"its dictionary: {error}", self.info) from None


class TopKWriter(StoreWriter):
    """Writes a store of token rows, see `StoreWriter`.

    Args:
        path: final path of the whole store, see `store_path`.
        info: statement of the creator.
        lengths: ``(corpus sentences,)`` integers, target tokens of every sentence, end of sentence included.
        symbols: the target dictionary in id order.
        shard: part of the corpus to write.
        overwrite: replace an existing store, and throw away unfinished work that had other settings.
    """

    info: TopKInfo

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: TopKInfo,
        lengths: NDArray[Any],
        symbols: Sequence[str],
        shard: Shard = WHOLE,
        overwrite: bool = False,
    ):
        info.check()
        if len(symbols) != info.dictionary_size or dictionary_digest(symbols) != info.dictionary_digest:
            raise ValueError("symbols are not the dictionary that info describes; pass the same one")
        super().__init__(path, info, lengths, {"dictionary": encode_dictionary(symbols)}, shard, overwrite)


def store_path(
    data_dir: str | os.PathLike[str], split: str, source_lang: str, target_lang: str, name: str = DEFAULT_NAME
) -> Path:
    """Path of the store of a split: ``train.de-en.en.topk`` beside the binarised data, or in another folder.

    Args:
        data_dir: folder of the data, or of the stores of one data folder.
        split: "train", for example.
        source_lang: source language, as in the data's file names.
        target_lang: target language, as in the data's file names.
        name: name among several stores of the same data, ``train.de-en.en.NAME.topk``.

    Raises:
        ValueError: a name with characters other than letters, digits, ``_`` and ``-``.
    """
    check_store_name(name)
    middle = "" if name == DEFAULT_NAME else f".{name}"
    return Path(data_dir) / f"{split}.{source_lang}-{target_lang}.{target_lang}{middle}.{TopKInfo.suffix}"
