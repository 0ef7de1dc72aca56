"""Which n-grams of a reference an output has, and where in the reference they stand; ours."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.evaluation.text_metrics import DEFAULT_TOKENIZER, word_splitter


def matched_ngrams(prediction: Sequence[str], reference: Sequence[str], order: int) -> NDArray[np.bool_]:
    """``(reference n-grams,)`` whether the prediction has each; an n-gram counts as often as it occurs there, first ones first.

    Args:
        prediction: words of an output.
        reference: words of its reference.
        order: n.
    """
    left = Counter(_ngrams(prediction, order))
    matched = []
    for ngram in _ngrams(reference, order):
        matched.append(left[ngram] > 0)
        left[ngram] -= 1
    return np.array(matched, dtype=np.bool_)


def position_counts(
    predictions: Sequence[str],
    references: Sequence[str],
    order: int,
    bins: int,
    lowercase: bool,
    tokenize: str = DEFAULT_TOKENIZER,
) -> NDArray[np.int64]:
    """``(sentences, bins, 2)`` matched n-grams and n-grams of each reference, by their place in it.

    An n-gram with its middle in the first of ``bins`` equal parts of the reference is in bin 0, and so on.

    Args:
        predictions: ``(sentences,)`` outputs.
        references: ``(sentences,)``.
        order: n.
        bins: parts of a reference.
        lowercase: compare without case.
        tokenize: sacreBLEU's tokenizer, whose words are counted.
    """
    split = word_splitter(tokenize)

    def words(text: str) -> list[str]:
        return split(text.lower() if lowercase else text)

    counts = np.zeros((len(references), bins, 2), dtype=np.int64)
    for row, prediction, reference in zip(counts, predictions, references, strict=True):
        matched = matched_ngrams(words(prediction), words(reference), order)
        places = (2 * np.arange(len(matched)) + 1) * bins // (2 * max(len(matched), 1))
        np.add.at(row[:, 0], places, matched)
        np.add.at(row[:, 1], places, 1)
    return counts


def _ngrams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]
