"""Measures of paraphrases: overlap with the source, copies, variety.

BLEU against the source is called "self-BLEU" by writers on paraphrases, which elsewhere is BLEU among a system's outputs; here it
is source-BLEU. iBLEU is that of Sun & Zhou (2012), distinct-n that of Li et al. (2016), the entropy of words that of Zhang et al.
(2018, Ent-n with n = 1), in bits.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU
from sacrebleu.metrics.lib_ter import BeamEditDistance

from fairseq_bert_kd.evaluation.metric import check_pairs
from fairseq_bert_kd.evaluation.text_metrics import DEFAULT_TOKENIZER, word_counts, word_splitter

IBLEU_WEIGHTS = (0.9, 0.8)  # of BLEU against the references; the rest weighs source-BLEU
BLEU_COUNTS = ("sys_len", "ref_len", *(f"{kind}_{n}" for kind in ("counts", "totals") for n in range(1, 5)))


@functools.cache
def _sentence_scorer(tokenize: str) -> Any:
    return BLEU(effective_order=True, tokenize=tokenize, force=True)


def sentence_bleu(
    texts: Sequence[str], others: Sequence[str], tokenize: str = DEFAULT_TOKENIZER
) -> NDArray[np.float64]:
    """``(texts,)`` sacreBLEU of single sentences, 0 to 1: exponential smoothing, no orders longer than the sentence."""
    scorer, pairs = _sentence_scorer(tokenize), zip(texts, others, strict=True)
    return np.array([min(scorer.sentence_score(text, [other]).score / 100, 1.0) for text, other in pairs])


def corpus_bleu(
    texts: Sequence[str], others: Sequence[str], lowercase: bool = False, tokenize: str = DEFAULT_TOKENIZER
) -> Any:
    """sacreBLEU's score of texts against one other text each, 0 to 100 in ``score``, with its counts."""
    return BLEU(lowercase=lowercase, tokenize=tokenize, force=True).corpus_score(list(texts), [list(others)])


def bleu_counts(bleu: Any) -> dict[str, int]:
    """The numbers, by name of `BLEU_COUNTS`, that are added up over parts of a corpus."""
    return dict(zip(BLEU_COUNTS, (bleu.sys_len, bleu.ref_len, *bleu.counts, *bleu.totals), strict=True))


def bleu_of_counts(counts: Mapping[str, float]) -> float:
    """Corpus BLEU of the sums of `bleu_counts`."""
    sys_len, ref_len, *grams = (int(counts[name]) for name in BLEU_COUNTS)
    return float(BLEU.compute_bleu(grams[:4], grams[4:], sys_len, ref_len, smooth_method="exp").score)


def source_bleu(
    texts: Sequence[str], sources: Sequence[str], lowercase: bool = False, tokenize: str = DEFAULT_TOKENIZER
) -> float:
    """Corpus BLEU of texts against their sources, 0 to 100."""
    return float(corpus_bleu(texts, sources, lowercase, tokenize).score)


def references_signature(
    references: Sequence[Sequence[str]], lowercase: bool = False, tokenize: str = DEFAULT_TOKENIZER
) -> str:
    """sacreBLEU's signature of `several_references_bleu`; ``nrefs:var`` where texts have different numbers of references."""
    scorer = BLEU(lowercase=lowercase, tokenize=tokenize, force=True)
    scorer.corpus_score(["a", "a"], _columns([min(references, key=len), max(references, key=len)]))
    return str(scorer.get_signature())


def several_references_bleu(
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
    lowercase: bool = False,
    tokenize: str = DEFAULT_TOKENIZER,
) -> float:
    """Corpus BLEU, 0 to 100, against several references of each text; their numbers may differ.

    Args:
        texts: ``(texts,)``.
        references: references of each text, at least one.
        lowercase: whether case is ignored.
        tokenize: sacreBLEU's tokenizer.
    """
    scorer = BLEU(lowercase=lowercase, tokenize=tokenize, force=True)
    return float(scorer.corpus_score(list(texts), _columns(references)).score)


def _columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """One list per reference, as sacreBLEU takes them; it skips None."""
    most = max(map(len, references))
    return [[row[i] if i < len(row) else None for row in references] for i in range(most)]


def ibleu(bleu: float, of_source: float, weight: float) -> float:
    """``weight * BLEU - (1 - weight) * source-BLEU`` (Sun & Zhou 2012)."""
    return weight * bleu - (1 - weight) * of_source


def copies(texts: Sequence[str], sources: Sequence[str]) -> NDArray[np.bool_]:
    """``(texts,)`` whether a text has exactly the words of its source, case and white space aside."""
    pairs = zip(texts, sources, strict=True)
    return np.array(
        [text.lower().split() == source.lower().split() for text, source in pairs], dtype=np.bool_
    )


def edit_distances(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.int64]:
    """``(texts,)`` words to insert, delete or replace: sacreBLEU's TER without shifts, whose beam may miss a few of texts unlike in length."""
    pairs = zip(texts, others, strict=True)
    return np.array(
        [BeamEditDistance(other.split())(text.split())[0] for text, other in pairs], dtype=np.int64
    )


def distance_places(distances: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(pairs,)`` rank of each distance over their number, above 0 to 1; equal distances share their mean rank."""
    from scipy.stats import rankdata

    return rankdata(distances) / len(distances)


def distinct(texts: Sequence[str], order: int, tokenize: str = DEFAULT_TOKENIZER) -> float:
    """Different n-grams over all n-grams of the texts together, in per cent (Li et al. 2016); 0 without any."""
    split = word_splitter(tokenize)
    grams = [
        tuple(words[i : i + order]) for words in map(split, texts) for i in range(len(words) - order + 1)
    ]
    return 100.0 * len(set(grams)) / max(len(grams), 1)


def word_entropy(texts: Sequence[str], tokenize: str = DEFAULT_TOKENIZER) -> float:
    """Entropy, in bits, of the distribution of all words of the texts together; 0 without words.

    A generator that has become peaky writes the same words again and again. The entropy of the distributions from which it
    draws is in the log of its training (``entropy``); text alone does not tell it.
    """
    split = word_splitter(tokenize)
    counts = np.array(
        list(Counter(word for text in texts for word in split(text)).values()), dtype=np.float64
    )
    shares = counts / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum())


def paraphrase_scores(
    texts: Sequence[str],
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    lowercase: bool = False,
    tokenize: str = DEFAULT_TOKENIZER,
) -> Mapping[str, float]:
    """Scores by name, in per cent but for the entropy, which is in bits.

    They are ``bleu``, ``source_bleu``, ``ibleu_0.9``, ``ibleu_0.8``, ``copy_rate``, ``distinct_1``, ``distinct_2``,
    ``word_entropy`` and ``length``, words of the texts over those of the first references.

    Args:
        texts: ``(texts,)`` a system's output.
        sources: ``(texts,)`` what it read.
        references: references of each text, at least one.
        lowercase: whether BLEU ignores case; copies are always compared without.
        tokenize: sacreBLEU's tokenizer, for BLEU, n-grams and lengths.

    Raises:
        ValueError: unequal lengths, or nothing to score.
    """
    check_pairs(texts, sources)
    check_pairs(texts, references)
    bleu, of_source = (
        several_references_bleu(texts, references, lowercase, tokenize),
        source_bleu(texts, sources, lowercase, tokenize),
    )
    lengths = [word_counts(side, tokenize).sum() for side in (texts, [row[0] for row in references])]
    return {
        "bleu": bleu,
        "source_bleu": of_source,
        **{f"ibleu_{weight:g}": ibleu(bleu, of_source, weight) for weight in IBLEU_WEIGHTS},
        "copy_rate": 100.0 * float(copies(texts, sources).mean()),
        **{f"distinct_{order}": distinct(texts, order, tokenize) for order in (1, 2)},
        "word_entropy": word_entropy(texts, tokenize),
        "length": 100.0 * float(lengths[0] / max(lengths[1], 1)),
    }
