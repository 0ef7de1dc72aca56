"""Text in Moses's tokens <-> the text that teacher and student read.

The paper's files are tokenised by Moses, with escapes (``don &apos;t``) and, where its tokeniser was told to split
hyphens, ``low @-@ cost``. BERT knows neither, so its authors unescape the text and show it ``-`` for ``@-@``. We
write ``don 't`` and ``low-cost``: the same BERT tokens (``low - cost``), and the way back is Moses's own rule.
"""

import importlib
import re
from functools import cache
from typing import Any

# a split hyphen: Moses's mark, or the one of the files that Stanford prepared for WMT14
_SPLIT_HYPHEN = re.compile(r"(?<=\S) (?:@-@|##AT##-##AT##) (?=\S)")
_HYPHEN_IN_WORD = re.compile(r"([^\W_])-(?=[^\W_])")  # Moses's option -a
_COMPOUND = re.compile(r"(\S)-(\S)")


def readable(tokens: str) -> str:
    """Moses's tokens as teacher and student read them: without escapes, hyphens back in their words."""
    return _SPLIT_HYPHEN.sub("-", _moses("MosesDetokenizer", "en").unescape_xml(tokens))


def as_moses_tokens(text: str, split_hyphens: bool) -> str:
    """The way back: Moses's tokens of text that `readable` gave, or that a student trained on it wrote.

    Args:
        text: words as Moses separates them.
        split_hyphens: write ``low @-@ cost`` for ``low-cost``; see `splits_hyphens`.
    """
    text = _HYPHEN_IN_WORD.sub(r"\1 @-@ ", text) if split_hyphens else text
    return _moses("MosesTokenizer", "en").escape_xml(" ".join(text.split()))


def splits_hyphens(tokens: list[str]) -> bool:
    """Whether lines were tokenised with Moses's option -a."""
    return any("@-@" in line.split() for line in tokens)


def tokenise(text: str, language: str, split_hyphens: bool = False) -> str:
    """Moses's tokens of raw text, with escapes."""
    return _moses("MosesTokenizer", language).tokenize(
        text, aggressive_dash_splits=split_hyphens, return_str=True
    )


def detokenise(tokens: str, language: str) -> str:
    """Raw text of Moses's tokens, without escapes."""
    return _moses("MosesDetokenizer", language).detokenize(_SPLIT_HYPHEN.sub("-", tokens).split())


def split_compounds(tokens: str) -> str:
    """Compounds in the ``##AT##`` form: what papers on WMT14 English-German score, for historical reasons.

    The rule is the one of tensor2tensor's ``get_ende_bleu.sh``, which leaves every second hyphen of ``a-b-c`` alone.
    Hyphens that Moses split are joined first.
    """
    return _COMPOUND.sub(r"\1 ##AT##-##AT## \2", _SPLIT_HYPHEN.sub("-", tokens))


@cache
def _moses(kind: str, language: str) -> Any:
    return getattr(importlib.import_module("sacremoses"), kind)(lang=language)
