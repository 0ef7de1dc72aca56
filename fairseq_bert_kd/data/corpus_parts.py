"""The binarised files that make up a corpus, and faults in them that fairseq does not see."""

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fairseq.data import Dictionary, data_utils, indexed_dataset

from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, check_parallel, text_files


class CorpusPart(NamedTuple):
    """One of the binarised corpora that fairseq concatenates for a split.

    Attributes:
        folder: data folder.
        name: ``train``, ``train1``, ...
        prefixes: path of each side without ``.idx`` and ``.bin``, by the side's name: source, target, input0, ...
    """

    folder: str
    name: str
    prefixes: Mapping[str, str]


def translation_parts(cfg: Any, folder: str, split: str, combine: bool) -> list[CorpusPart]:
    """The parts of a split of a translation task, each with a source and a target.

    Args:
        cfg: options of the task.
        folder: one data folder.
        split: ``train`` for example.
        combine: whether ``train1``, ``train2``, ... belong to it.
    """
    source, target = cfg.source_lang, cfg.target_lang
    parts: list[CorpusPart] = []
    for count in itertools.count():
        name = f"{split}{count or ''}"
        for a, b in ((source, target), (target, source)):  # fairseq also reads files of the other direction
            prefix = os.path.join(folder, f"{name}.{a}-{b}.")
            if indexed_dataset.dataset_exists(prefix + source, impl=cfg.dataset_impl):
                parts.append(CorpusPart(folder, name, {"source": prefix + source, "target": prefix + target}))
                break
        else:
            return parts
        if not combine:
            return parts
    raise AssertionError("unreachable")


def text_parts(folder: str, split: str, combine: bool, language: str | None = None) -> list[CorpusPart]:
    """The parts of a split of single sentences, whose only side is ``target``.

    Args:
        folder: one data folder.
        split: ``train`` for example.
        combine: whether ``train1``, ``train2``, ... belong to it.
        language: language to choose, see `fairseq_data.text_files`.

    Raises:
        FileNotFoundError: the split is not there.
        ValueError: the folder holds pairs, or several languages.
    """
    parts = [CorpusPart(folder, split, {"target": text_files(folder, split, language).prefix})]
    while combine:
        name = f"{split}{len(parts)}"
        try:
            parts.append(CorpusPart(folder, name, {"target": text_files(folder, name, language).prefix}))
        except FileNotFoundError:
            break
    return parts


def language_pair(folder: str, source: str | None, target: str | None) -> tuple[str, str]:
    """Source and target language of a data folder, read from its file names, as far as they are not given.

    fairseq splits names at every hyphen, so ``dict.zh-Hant.txt`` is a pair to it.

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: no pair, or several.
    """
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"the data folder {os.path.abspath(folder)} does not exist; give the folder that fairseq-preprocess wrote, to "
            "fairseq-hydra-train by its absolute path"
        )
    names = [name.split(".") for name in sorted(os.listdir(folder))]
    languages = [parts[1] for parts in names if parts[0] == "dict" and len(parts) == 3]
    stated = {parts[1] for parts in names if len(parts) > 2}
    pairs = [
        (one, other)
        for one, other in itertools.permutations(languages, 2)
        if f"{one}-{other}" in stated and source in (None, one) and target in (None, other)
    ]
    if len(pairs) == 1:
        return pairs[0]
    found = (
        f"several pairs ({', '.join(map('-'.join, pairs))})"
        if pairs
        else "no pair (SPLIT.SRC-TGT.LANG.idx, dict.LANG.txt)"
    )
    raise ValueError(
        f"the file names in {folder} tell {found}; give --source-lang and --target-lang, or check the folder's name"
    )


def check_parts(parts: Iterable[CorpusPart], dataset_impl: Any = None) -> list[dict[str, IndexedTokens]]:
    """Check the index of every side, and that all sides of a part have as many sentences, and one at least.

    Not checked are raw text, fairseq's Huffman format, sides that are not there (a test set without targets), and what is
    read with ``--dataset-impl lazy``.

    Args:
        parts: parts of a corpus.
        dataset_impl: format by which fairseq will read them; None if it looks at the files.

    Returns:
        The checked sides of each part, by name.

    Raises:
        ValueError: an index that fairseq damaged or reads wrongly, sides of unequal length, or an empty part.
    """
    checked = []
    for part in parts:
        sides = {
            side: IndexedTokens(prefix)
            for side, prefix in part.prefixes.items()
            if _is_mmap(prefix, dataset_impl)
        }
        for tokens in sides.values():
            tokens.check()
        for one, other in itertools.pairwise(sides):
            check_parallel(part.name, len(sides[one]), len(sides[other]), (one, other))
        if not all(sides.values()):
            raise ValueError(
                f"split `{part.name}` in {part.folder} has no sentence ({next(iter(sides.values())).prefix}.bin is empty), and "
                "fairseq cannot read that; give fairseq-preprocess a text with lines, or leave the split out"
            )
        checked.append(sides)
    return checked


def open_side(prefix: str, dictionary: Dictionary, dataset_impl: Any = None) -> Any:
    """A side's ids by sentence, with ``sizes``, opened in constant time where it is in the mmap format.

    fairseq's own reader of that format goes through the whole file when it opens one.

    Args:
        prefix: path of the side, see `CorpusPart`.
        dictionary: its dictionary, for raw text.
        dataset_impl: as in `check_parts`.
    """
    if _is_mmap(prefix, dataset_impl):
        return IndexedTokens(prefix)
    return data_utils.load_indexed_dataset(prefix, dictionary, dataset_impl)


def _is_mmap(prefix: str, dataset_impl: Any) -> bool:
    """Whether fairseq reads a side in its mmap format; an older one under the same name is refused before."""
    huffman = indexed_dataset.HuffmanMMapIndexedDataset.exists(prefix)
    return str(dataset_impl) != "lazy" and os.path.isfile(f"{prefix}.idx") and not huffman


def check_same_dictionaries(folders: Sequence[str], dictionaries: Mapping[str, Dictionary]) -> None:
    """Check that all data folders were binarised with the dictionaries of the first one.

    fairseq reads the ids of all folders (``a:b``) with the dictionaries of the first. Another dictionary would turn every
    word into a different one, without a message. A folder without dictionaries passes, and counts may differ.

    Args:
        folders: the data folders.
        dictionaries: dictionaries of the first folder, by the file's place in it: ``dict.en.txt``.

    Raises:
        ValueError: names the first symbol that differs.
    """
    for folder in folders[1:]:
        for name, first in dictionaries.items():
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                continue
            symbols = Dictionary.load(path).symbols
            pairs = itertools.zip_longest(symbols, first.symbols, fillvalue="(none)")
            for number, (symbol, expected) in enumerate(pairs):
                if symbol != expected:
                    raise ValueError(
                        f"{name} in {folder} is another dictionary: symbol {number} is `{symbol}` there and "
                        f"`{expected}` in {folders[0]} ({len(symbols)} and {len(first.symbols)} symbols). Binarise all "
                        "folders with the same dictionaries (fairseq-preprocess --srcdict/--tgtdict)"
                    )
