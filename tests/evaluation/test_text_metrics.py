import sys

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import signatures, table_metrics
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from tests.report.small_experiments import BETTER, REFERENCE, WORSE

EVERYTHING = np.arange(len(REFERENCE))


def output(texts=WORSE, references=REFERENCE, metric="bleu", **settings):
    return SystemOutput(table_metrics(metric, MetricSettings(**settings)), texts, references)


@pytest.mark.parametrize("lowercase", [False, True])
def test_corpus_scores_are_sacrebleus(lowercase):
    texts = [text.lower() for text in WORSE]
    scores = output(texts, lowercase=lowercase).scores
    bleu = BLEU(lowercase=lowercase).corpus_score(texts, [REFERENCE])
    assert list(scores) == ["bleu", "chrf2", "length_ratio"]
    assert scores["bleu"] == bleu.score
    assert scores["chrf2"] == CHRF(lowercase=lowercase).corpus_score(texts, [REFERENCE]).score
    assert scores["length_ratio"] == bleu.sys_len / bleu.ref_len


@pytest.mark.parametrize("name", ["bleu", "length_ratio"])
def test_the_whole_corpus_as_a_subset_has_the_corpus_score(name):
    scored = output()
    assert scored.subset_score(name, EVERYTHING) == pytest.approx(scored.scores[name], abs=1e-12)


@pytest.mark.parametrize("sentences", [[1], [0, 0, 3], [5, 4, 1, 1]])
def test_a_subset_has_the_score_of_these_sentences(sentences):
    expected = BLEU().corpus_score([WORSE[i] for i in sentences], [[REFERENCE[i] for i in sentences]]).score
    assert output().subset_score("bleu", np.array(sentences)) == pytest.approx(expected, abs=1e-12)


def test_rouge_by_hand():
    scored = output(["the cat sat"], ["the cat was sitting"], "rouge")
    # stemmed: the cat sat against the cat wa sit; 2 of 3 and 2 of 4 words, 1 of 2 and 1 of 3 pairs
    assert scored.scores == {
        "rouge1": pytest.approx(100 * 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
        "rouge2": pytest.approx(100 * 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)),
        "rougeL": pytest.approx(100 * 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
        "chrf2": scored.scores["chrf2"],
        "length_ratio": 3 / 4,
    }


def test_rouge_is_the_mean_of_the_sentences():
    scored = output(["a b", "c"], ["a b", "d"], "rouge")
    assert scored.scores["rougeL"] == pytest.approx(50)
    assert scored.subset_score("rougeL", np.array([0, 0, 1])) == pytest.approx(200 / 3)


def test_signatures_are_listed_once():
    bleu, chrf = BLEU(), CHRF()
    for scorer in (bleu, chrf):
        scorer.corpus_score(["a"], [["a"]])
    assert signatures(output().metrics) == {
        "BLEU": str(bleu.get_signature()),
        "chrF2": str(chrf.get_signature()),
    }
    listed = signatures(output(metric="rouge").metrics)
    assert list(listed) == ["ROUGE", "chrF2", "length ratio"]
    assert listed["ROUGE"].startswith("F1|use_stemmer:True|split_summaries:False|")
    assert listed["length ratio"] == str(bleu.get_signature())


def test_sentence_chrf_is_sacrebleus():
    expected = [
        CHRF().sentence_score(text, [reference]).score
        for text, reference in zip(BETTER, REFERENCE, strict=True)
    ]
    assert output(BETTER).sentence_scores("chrf2").tolist() == expected


def test_bleu_has_no_sentence_scores():
    with pytest.raises(ValueError, match="bleu has no scores of single sentences"):
        output().sentence_scores("bleu")


def test_empty_texts_have_scores():
    scored = output(["", "b"], ["a", ""], "rouge")
    assert scored.scores["rouge1"] == 0
    assert scored.subset_score("length_ratio", np.array([0])) == 0


def test_tokenizers_and_packages_that_are_not_available(monkeypatch):
    with pytest.raises(ValueError, match="sacreBLEU has no tokenizer `14a`; it has 13a, char"):
        output(tokenize="14a")
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(
        ImportError, match=r"a report needs rouge-score .*\n  pip install 'fairseq-bert-kd\[report\]'"
    ):
        output(metric="rouge")
