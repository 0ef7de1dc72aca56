"""``score --sources``: measures of paraphrases beside BLEU."""

import json

import numpy as np
import pytest

from fairseq_bert_kd.cli.main import cli_main
from tests.rewards.case_readers import evaluator_reading

SOURCES = ["how do i learn to code ?", "what is a good book ?", "who is he ?"]
REFERENCES = ["how can i learn to program ?", "which book is good ?", "who is that man ?"]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "sources").write_text("".join(f"{text}\n" for text in SOURCES), encoding="utf-8")
    (tmp_path / "references").write_text("".join(f"{text}\n" for text in REFERENCES), encoding="utf-8")
    (tmp_path / "all").write_text(
        "".join(f"{text}\tan other\n" if i else f"{text}\n" for i, text in enumerate(REFERENCES)),
        encoding="utf-8",
    )
    for name, texts in {"copied": SOURCES, "right": REFERENCES}.items():
        lines = "".join(f"D-{i}\t-0.1\t{text}\n" for i, text in enumerate(texts))
        (tmp_path / f"{name}.out").write_text(lines, encoding="utf-8")
    return tmp_path


def score(files, *arguments):
    outputs = [f"{name}={files / name}.out" for name in ("copied", "right")]
    return cli_main(["score", "--reference", str(files / "references"), *outputs, *map(str, arguments)])


def test_table_and_results(files, capsys):
    results = files / "results.json"
    options = ("--sources", files / "sources", "--all-references", files / "all", "--json", results)
    assert score(files, *options) == 0
    said = capsys.readouterr().out
    found = json.loads(results.read_text(encoding="utf-8"))["paraphrases"]
    assert list(found) == ["(source copied)", "copied", "right"]
    assert found["copied"] == found["(source copied)"]
    [copied], [right] = found["copied"], found["right"]
    assert (copied["copy_rate"], right["copy_rate"]) == (100, 0)
    assert copied["source_bleu"] == pytest.approx(100)
    assert right["bleu"] == pytest.approx(100)
    assert right["ibleu_0.9"] == pytest.approx(90 - 0.1 * right["source_bleu"])
    assert right["rouge1"] == pytest.approx(100)
    shares = np.array([3, 2, *[1] * 12]) / 17  # ? three times, is twice
    assert right["word_entropy"] == pytest.approx(-(shares * np.log2(shares)).sum())
    assert "source-BLEU" in said
    signatures = json.loads(results.read_text(encoding="utf-8"))["paraphrase_signatures"]
    assert signatures["BLEU"].startswith("nrefs:var|case:mixed")
    assert "use_stemmer:True" in signatures["ROUGE"]
    assert all(f"{name}: {signature}" in said.splitlines() for name, signature in signatures.items())
    assert "evaluator" not in said


def test_what_was_trained_on_is_counted(files, capsys):
    """A line of one file and a column of another, case and white space aside; each test sentence once."""
    (files / "train.txt").write_text(f"{REFERENCES[0].upper()}\nelse\n{REFERENCES[0]}\n", encoding="utf-8")
    (files / "train.tsv").write_text(f"else\twhat is a  good book ?\t{REFERENCES[2]}\n", encoding="utf-8")
    options = ("--sources", files / "sources", "--json", files / "scores.json")
    assert score(files, *options, "--training", files / "train.txt", files / "train.tsv") == 0
    said = capsys.readouterr().out
    assert "2 of 3 references (66.7%) are in the training text" in said
    assert "1 of 3 sources (33.3%) are in the training text" in said
    results = json.loads((files / "scores.json").read_text(encoding="utf-8"))
    assert results["in_training_text"] == {"references": 2, "sources": 1}
    assert score(files) == 0
    assert "training text" not in capsys.readouterr().out
    assert score(files, "--training", files / "nothing") == 2
    assert "BLEU" not in capsys.readouterr().out  # said before the work


def test_another_tokenizer_is_that_of_both_tables(tmp_path, capsys):
    texts = ["\u732b\u5728\u8fd9\u91cc\u7761\u89c9", "\u72d7\u5728\u90a3\u91cc\u5403\u996d"]
    for name in ("sources", "references"):
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    for name in ("copied", "right"):
        lines = "".join(f"D-{i}\t-0.1\t{text[:4]}\n" for i, text in enumerate(texts))
        (tmp_path / f"{name}.out").write_text(lines, encoding="utf-8")
    options = ("--sources", tmp_path / "sources", "--tokenize", "zh", "--json", tmp_path / "json")
    assert score(tmp_path, *options) == 0
    found = json.loads((tmp_path / "json").read_text(encoding="utf-8"))
    [first], [second] = found["systems"]["right"], found["paraphrases"]["right"]
    assert first["bleu"] == pytest.approx(second["bleu"])
    assert 0 < second["bleu"] < 100
    assert second["length"] == pytest.approx(100 * 8 / 12)
    assert second["distinct_1"] == pytest.approx(100 * 6 / 8)  # two characters stand in both
    assert found["paraphrases"]["(source copied)"][0]["source_bleu"] == pytest.approx(100)


def test_cosine_of_an_encoder(chain, files):
    """That with the source, not with the reference."""
    options = ("--sources", files / "sources", "--sentence-encoder", chain.bert, "--json", files / "json")
    assert score(files, *options) == 0
    found = json.loads((files / "json").read_text(encoding="utf-8"))["paraphrases"]
    cosines = {name: run["cosine"] for name, [run] in found.items()}
    assert [cosines[name] for name in ("(source copied)", "copied")] == pytest.approx([100, 100], abs=1e-3)
    assert cosines["right"] < 99.9


def test_a_pair_that_two_systems_share_is_scored_once(files, monkeypatch):
    asked = []
    evaluator = evaluator_reading(lower_case=True)
    monkeypatch.setattr("fairseq_bert_kd.rewards.evaluator.load_evaluator", lambda *_, **__: evaluator)
    monkeypatch.setattr(evaluator, "score_pairs", lambda *sides: asked.extend(zip(*sides, strict=True)) or np.full(len(sides[0]), 0.25))  # fmt: skip
    (files / "right.out").write_text(f"D-0\t-0.1\tnew\nD-1\t-0.1\t{SOURCES[1]}\nD-2\t-0.1\t{SOURCES[2]}\n", encoding="utf-8")  # fmt: skip
    assert score(files, "--sources", files / "sources", "--evaluator", "x.pt", "--json", files / "json") == 0
    assert asked == [*zip(SOURCES, SOURCES, strict=True), (SOURCES[0], "new")]
    found = json.loads((files / "json").read_text(encoding="utf-8"))["paraphrases"]
    assert [run["evaluator"] for [run] in found.values()] == [25, 25, 25]


@pytest.mark.parametrize("option", ["--evaluator", "--held-out-evaluator"])
def test_lower_case_is_not_for_an_evaluator_that_reads_case(files, capsys, monkeypatch, option):
    """It knows the sources as they are in the file, whatever is compared."""
    evaluator = evaluator_reading(lower_case=False)
    monkeypatch.setattr("fairseq_bert_kd.rewards.evaluator.load_evaluator", lambda *_, **__: evaluator)
    monkeypatch.setattr(evaluator, "score_pairs", lambda sources, _: np.ones(len(sources)))
    (files / "cased").write_text("".join(f"{text.capitalize()}\n" for text in SOURCES), encoding="utf-8")
    assert score(files, "--sources", files / "cased", option, "x.pt") == 2
    said = capsys.readouterr().err
    assert "no output has: source 'How do i learn to code ?', output 'how do i learn to code ?'" in said


def test_the_evaluator_that_is_held_out_is_another_one(files, capsys):
    both = ("--evaluator", files / "sources", "--held-out-evaluator", files / "sources")
    assert score(files, "--sources", files / "sources", *both) == 2
    assert "are the same checkpoint, and what rewards cannot judge" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--all-references", "all"), "--all-references is for paraphrases: give --sources"),
        (("--evaluator", "x.pt"), "--evaluator is for paraphrases: give --sources"),
        (("--sources", "short"), "has 1 lines, the reference 3"),
        (
            ("--sources", "sources", "--all-references", "gap"),
            "line 2: no reference; every sentence needs one",
        ),
    ],
)
def test_refused(files, capsys, monkeypatch, options, message):
    monkeypatch.chdir(files)
    (files / "short").write_text("a\n", encoding="utf-8")
    (files / "gap").write_text("a\n\nb\n", encoding="utf-8")
    assert score(files, *options) == 2
    assert message in capsys.readouterr().err


def test_sources_of_another_text_are_warned_of(tmp_path, caplog):
    texts = ["a man sits there", "he is near it", "people eat apples", "the dog is in", "two men eat there"]
    others = [f"{text} today" for text in texts]
    lines = [f"S-{i}\t{texts[i]}\nT-{i}\t{text}\nD-{i}\t-1\t{text}\n" for i, text in enumerate(others)]
    for name in ("right", "copied"):
        (tmp_path / f"{name}.out").write_text("".join(lines), encoding="utf-8")
    for name, sides in (("sources", texts), ("references", others)):
        (tmp_path / name).write_text("".join(f"{text}\n" for text in sides), encoding="utf-8")
    assert score(tmp_path, "--sources", tmp_path / "sources") == 0
    assert "not the text of the test set" not in caplog.text
    assert score(tmp_path, "--sources", tmp_path / "references") == 0
    assert "--sources are not the text of the test set that was decoded" in caplog.text
