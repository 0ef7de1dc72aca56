"""Tokenised BLEU, detokenised sacreBLEU and ROUGE of an experiment's students."""

import json
import math
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).resolve().parents[3] / "examples" / "recipes"
sys.path.insert(0, str(RECIPES))

import moses_bleu  # noqa: E402
import rouge_scores  # noqa: E402

TOKENS = ["the low-cost shop &apos;s door is open .", "Jack &amp; Jill went up the hill ."]
TEXT = ["the low-cost shop 's door is open .", "Jack & Jill went up the hill ."]


def student(out, name, texts, subset="test"):
    system, seed = name.rsplit(".", 1)
    (out / "students" / name).mkdir(parents=True, exist_ok=True)
    (out / "students" / name / "run.json").write_text(json.dumps({"system": system, "seed": int(seed)}))
    (out / "outputs").mkdir(exist_ok=True)
    lines = "".join(f"D-{place}\t-0.5\t{text}\n" for place, text in enumerate(texts))
    (out / "outputs" / f"{name}.{subset}.out").write_text(lines, encoding="utf-8")


def experiment(out, tokens=TOKENS, raw=None):
    (out / "reference").mkdir(parents=True)
    for subset in ("valid", "test"):
        (out / f"reference/{subset}.tok").write_text("".join(f"{line}\n" for line in tokens))
        if raw:
            (out / f"reference/{subset}.raw").write_text("".join(f"{line}\n" for line in raw))
    return out


def scores(monkeypatch, module, out, *arguments):
    monkeypatch.setattr(sys, "argv", ["score", str(out), *arguments])
    module.main()
    return json.loads(next(out.glob("scores-*.json")).read_text(encoding="utf-8"))


def test_bleu_by_hand():
    """6 tokens against 7: precisions 5/6 (the second `the` has no partner), 3/5, 2/4, 1/3."""
    expected = 100 * math.exp(1 - 7 / 6) * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    bleu = moses_bleu.multi_bleu(["the cat sat on the mat"], ["the cat sat on a mat ."])
    assert bleu == pytest.approx(expected)
    assert bleu == pytest.approx(45.48, abs=0.01)


def test_bleu_is_not_smoothed_and_takes_tokens_as_they_are():
    assert moses_bleu.multi_bleu(["a b c"], ["a b c"]) == 0  # no sentence has four tokens
    assert moses_bleu.multi_bleu(["a b c d e."], ["a b c d e ."]) < 100
    assert moses_bleu.multi_bleu(["A b c d"], ["a b c d"]) < 100
    assert moses_bleu.multi_bleu(["A b c d"], ["a b c d"], lowercase=True) == pytest.approx(100)


def test_text_as_the_references_say_it_scores_100_in_every_way(tmp_path, monkeypatch, capsys):
    out = experiment(tmp_path, raw=["the low-cost shop's door is open.", "Jack & Jill went up the hill."])
    for subset in ("valid", "test"):
        student(out, "plain.1", TEXT, subset)
    results = scores(monkeypatch, moses_bleu, out, "--language", "en", "--compounds")
    assert [(row["system"], row["seed"], row["subset"]) for row in results["scores"]] == [
        ("plain", 1, "valid"),
        ("plain", 1, "test"),
    ]
    for row in results["scores"]:
        assert [row[name] for name in ("tokenised", "compounds", "sacrebleu")] == pytest.approx([100] * 3)
    signatures = results["signatures"]["test"]
    assert signatures["tokenised"].startswith("multi-bleu.perl|case:mixed|tok:Moses (the official files')")
    assert signatures["compounds"].endswith("hyphens split:False|compounds:##AT##-##AT##")
    assert "tok:13a" in signatures["sacrebleu"]
    assert signatures["sacrebleu"].endswith("references:official")
    assert "plain                  1  test      tokenised 100.00" in capsys.readouterr().out


def test_split_hyphens_come_back_for_the_score(tmp_path, monkeypatch):
    out = experiment(
        tmp_path, tokens=["the low @-@ cost shop is open", "it is a state @-@ of @-@ the @-@ art shop"]
    )
    student(out, "plain.1", ["the low-cost shop is open", "it is a state-of-the-art shop"])
    results = scores(monkeypatch, moses_bleu, out, "--language", "en")
    assert results["scores"][0]["tokenised"] == pytest.approx(100)
    assert results["scores"][0]["sacrebleu"] == pytest.approx(100)
    assert "hyphens split:True" in results["signatures"]["test"]["tokenised"]
    assert "references:detokenised by sacremoses" in results["signatures"]["test"]["sacrebleu"]


def test_compounds_change_the_score(tmp_path, monkeypatch):
    out = experiment(tmp_path)
    student(out, "plain.1", ["the low-price shop 's door is open .", TEXT[1]])
    row = scores(monkeypatch, moses_bleu, out, "--language", "en", "--compounds")["scores"][0]
    split = "the low ##AT##-##AT## {} shop &apos;s door is open ."
    hypotheses, references = [split.format("price"), TOKENS[1]], [split.format("cost"), TOKENS[1]]
    assert row["compounds"] == pytest.approx(moses_bleu.multi_bleu(hypotheses, references))
    assert row["compounds"] != pytest.approx(row["tokenised"])


def test_raw_text_is_tokenised_by_moses_with_split_hyphens(tmp_path, monkeypatch):
    (tmp_path / "text").mkdir()
    for subset in ("valid", "test"):
        (tmp_path / f"text/{subset}.en").write_text("Jack's low-cost shop is open.\n")
    student(tmp_path, "plain.1", ["Jack's low-cost shop is open."])
    results = scores(monkeypatch, moses_bleu, tmp_path, "--language", "en")
    assert results["scores"][0]["tokenised"] == pytest.approx(100)
    assert "tok:Moses (sacremoses " in results["signatures"]["test"]["tokenised"]
    # the sentence has 9 tokens: Jack &apos;s low @-@ cost shop is open .
    references = moses_bleu.read_references(tmp_path, "test", "en")
    assert references.tokens == ["Jack &apos;s low @-@ cost shop is open ."]


def test_a_student_without_output_is_named_and_the_others_are_scored(tmp_path, monkeypatch, capsys):
    out = experiment(tmp_path)
    student(out, "distilled.2", TEXT)
    results = scores(monkeypatch, moses_bleu, out, "--language", "en")
    assert [row["system"] for row in results["scores"]] == ["distilled"]
    assert "distilled.2.valid.out is not there: not scored" in capsys.readouterr().out


def test_an_output_that_lacks_sentences_is_refused(tmp_path, monkeypatch):
    out = experiment(tmp_path)
    student(out, "plain.1", TEXT[:1])
    with pytest.raises(ValueError, match="translates 1 of 2 sentences"):
        scores(monkeypatch, moses_bleu, out, "--language", "en")


def test_rouge_takes_both_names_of_unknown_words_as_one(tmp_path, monkeypatch):
    (tmp_path / "text").mkdir()
    (tmp_path / "text/test.title").write_text("UNK wins #\n")
    student(tmp_path, "plain.1", ["<unk> wins ##"])
    results = scores(monkeypatch, rouge_scores, tmp_path, "--language", "title", "--subsets", "test")
    assert results["scores"][0]["rouge1"] == pytest.approx(100)


def test_rouge_of_three_sets_with_its_settings(tmp_path, monkeypatch, capsys):
    (tmp_path / "text").mkdir()
    for subset in ("valid", "testdev", "test"):
        (tmp_path / f"text/{subset}.title").write_text("police kill gunman\n")
        student(tmp_path, "plain.1", ["police kill gunman"], subset)
    arguments = "--language", "title", "--subsets", "valid", "testdev", "test"
    results = scores(monkeypatch, rouge_scores, tmp_path, *arguments)
    assert [row["subset"] for row in results["scores"]] == ["valid", "testdev", "test"]
    assert all(row["rougeL"] == pytest.approx(100) for row in results["scores"])
    signature = results["signatures"]["test"]["ROUGE"]
    assert signature.startswith("F1|use_stemmer:True|split_summaries:False|mean over sentences|rouge_score:")
    assert f"ROUGE: {signature}" in capsys.readouterr().out
