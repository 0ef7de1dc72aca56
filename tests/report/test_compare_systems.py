from dataclasses import replace

import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.metrics.bleu import _get_tokenizer as real

from fairseq_bert_kd.evaluation.registry import signatures
from fairseq_bert_kd.evaluation.significance import BOOTSTRAP_LEVEL, PairedResult, Spread
from fairseq_bert_kd.report.compare_systems import SystemRow, main_row, system_rows, verdict
from fairseq_bert_kd.report.read_experiment import Note, Notes, read_experiment
from fairseq_bert_kd.report.read_scores import read_outputs
from tests.report.small_experiments import (
    BETTER,
    REFERENCE,
    WORSE,
    add_run,
    experiment_record,
    write_experiment,
    write_json,
    write_output,
    write_text,
)
from tests.tokenization.tiny_tokenizers import build_tokenizer


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "out", store=False)


def read(folder, subset="test"):
    notes = Notes(folder)
    results = read_outputs(read_experiment(folder, notes), subset, notes)
    return results, system_rows(results, notes) if results else {}, notes


def bleu(texts):
    return BLEU().corpus_score(texts, [REFERENCE]).score


def test_gains_are_paired_by_seed(folder):
    write_output(folder / "outputs/distilled.2.test.out", REFERENCE)
    results, rows, notes = read(folder)
    plain, distilled = rows["main"]
    gains = {1: bleu(BETTER) - bleu(WORSE), 2: bleu(REFERENCE) - bleu(WORSE)}
    assert notes == []
    assert plain.scores == {1: bleu(WORSE), 2: bleu(WORSE)}
    assert plain.spreads["bleu"] == Spread(pytest.approx(bleu(WORSE)), 0.0, 2)
    assert (plain.gains, plain.baseline, plain.gain, plain.p) == ({}, None, None, {})
    assert distilled.gains == pytest.approx(gains)
    assert distilled.gain.mean == pytest.approx(sum(gains.values()) / 2)
    assert distilled.gain.sd == pytest.approx(abs(gains[2] - gains[1]) / 2**0.5)  # n - 1 = 1
    assert set(distilled.p) == {1, 2}
    assert (results.main_metric, results.unit) == ("bleu", "BLEU")


def test_only_seeds_that_both_have_count(folder):
    (folder / "outputs/plain.2.test.out").unlink()
    add_run(folder, "distilled", 3, BETTER)
    _, rows, notes = read(folder)
    distilled = rows["main"][1]
    assert (list(distilled.scores), list(distilled.gains), distilled.gain.sd) == ([1, 2, 3], [1], None)
    assert rows["main"][0].missing == [2, 3]
    assert notes == [
        Note("outputs/plain.2.test.out", "missing: the run is not scored"),
        Note("students/plain", "no score with seed 2, 3"),
    ]


def test_groups_and_their_order(folder):
    for k in (16, 2, 1):
        add_run(folder, f"topk-{k}", 1, WORSE, group="topk", value=str(k), label=f"k = {k}")
    add_run(folder, "odd", 1, WORSE, group="topk", baseline="gone")
    for name in ("z", "a"):
        add_run(
            folder,
            f"plain-{name}",
            1,
            WORSE,
            group="student",
            baseline=f"plain-{name}",
            label=f"plain, {name}",
        )
        add_run(
            folder,
            f"distilled-{name}",
            1,
            BETTER,
            group="student",
            baseline=f"plain-{name}",
            label=f"kd, {name}",
        )
    add_run(folder, "alone", 1, WORSE, group="teacher", baseline=None)
    _, rows, notes = read(folder)
    assert list(rows) == ["main", "topk", "teacher", "student"]
    assert {group: [row.system for row in made] for group, made in rows.items()} == {
        "main": ["plain", "distilled"],
        "teacher": ["alone"],
        "topk": ["topk-1", "topk-2", "topk-16", "odd"],
        "student": ["plain-a", "distilled-a", "plain-z", "distilled-z"],
    }
    assert rows["student"][1].gain.mean == bleu(BETTER) - bleu(WORSE)
    assert rows["topk"][0].p == {}  # ablations are not tested
    noted = [(note.where, note.text) for note in notes]
    assert rows["teacher"][0].gain is None
    assert (
        "students/odd", "no run of its baseline `gone` has a score with the same seed: no gain",
    ) in noted  # fmt: skip


def test_outputs_that_cannot_be_scored_are_noted_and_the_rest_is_shown(folder):
    write_output(folder / "outputs/plain.1.test.out", WORSE[:4])
    write_output(folder / "outputs/plain.2.test.out", [*WORSE, "one more"])
    write_text(folder / "outputs/distilled.2.test.out", ["nothing"])
    results, _, notes = read(folder)
    assert list(results.outputs) == ["distilled.1"]
    noted = {note.where: note.text for note in notes}
    assert "translates 4 of 6 sentences, first missing: 4" in noted["outputs/plain.1.test.out"]
    assert "has sentence 6, the reference only 6 lines" in noted["outputs/plain.2.test.out"]
    assert "has no `D-` lines" in noted["outputs/distilled.2.test.out"]
    assert str(folder) not in "".join(noted.values())


@pytest.mark.parametrize(("content", "noted"), [(None, "not readable"), ("", "empty")])
def test_without_a_reference_nothing_is_scored(folder, content, noted):
    path = folder / "text/test.en"
    path.unlink()
    if content is not None:
        path.write_text(content)
    results, _, notes = read(folder)
    assert results is None
    assert noted in notes[0].text


def test_a_source_of_another_length_is_not_shown(folder):
    write_text(folder / "text/test.de", ["one"])
    results, _, notes = read(folder)
    assert results.sources is None
    assert notes == [Note("text/test.de", "not as long as the reference: it is not shown")]


def test_the_main_comparison_may_be_absent(tmp_path):
    _, rows, notes = read(write_experiment(tmp_path / "out", store=False, baseline="none", main="nothing"))
    assert Note("", "no run of the baseline `none`: the main comparison is missing") in notes
    assert Note("", "no run of the main system `nothing`: the main comparison is missing") in notes
    assert len(rows["main"]) == 2


def test_the_main_system_is_tested_whatever_its_group(folder):
    for seed in (1, 2):
        add_run(folder, "distilled", seed, BETTER, group="objective")
    assert set(read(folder)[1]["objective"][0].p) == {1, 2}


@pytest.mark.parametrize(
    ("changes", "metric", "noted"),
    [
        (
            {"metric": "comet"},
            "chrf2",
            "`comet` is not a metric; the metrics are accuracy, bleu, chrf, chrf2, f1,",
        ),
        ({"bleu_tokenize": "13b"}, "bleu", "sacreBLEU has no tokenizer `13b`"),
    ],
)
def test_a_metric_that_cannot_be_computed(folder, changes, metric, noted):
    write_json(folder / "experiment.json", experiment_record(**changes))
    results, rows, notes = read(folder)
    assert results.main_metric == metric
    assert noted in notes[0].text
    assert rows["main"][1].gain.mean > 0


@pytest.mark.parametrize("error", [RuntimeError("needs mecab"), OSError("no network")])
def test_a_tokenizer_that_has_to_be_installed_or_fetched(folder, monkeypatch, error):
    class Absent:
        def __init__(self, **options):
            raise error

    monkeypatch.setattr(
        "sacrebleu.metrics.bleu._get_tokenizer", lambda name: Absent if name == "ja-mecab" else real(name)
    )
    write_json(folder / "experiment.json", experiment_record(bleu_tokenize="ja-mecab"))
    _, rows, notes = read(folder)
    assert notes == [
        Note("metric", f"sacreBLEU's tokenizer `ja-mecab` is not available: {error}; 13a is used")
    ]
    assert rows["main"][1].gain.mean == pytest.approx(bleu(BETTER) - bleu(WORSE))


def test_texts_go_through_the_rules_of_a_tokenizer(folder, tmp_path):
    """What an uncased student cannot write is no error then; without, the notes say what is counted."""
    build_tokenizer("bert_uncased", tmp_path / "bert")
    accented = [text.replace("a", "Ä") for text in REFERENCE]
    (folder / "text/test.en").write_text("".join(f"{text}\n" for text in accented), encoding="utf-8")
    lower = [text.lower() for text in REFERENCE]
    for seed in (1, 2):
        add_run(folder, "distilled", seed, lower)
        add_run(folder, "plain", seed, lower)
    results, _, notes = read(folder)
    assert results.outputs["plain.1"].scores["bleu"] < 100
    assert "the reference has letters with accents" in " ".join(note.text for note in notes)
    write_json(folder / "experiment.json", experiment_record(normalise_like=str(tmp_path / "bert")))
    results, _, notes = read(folder)
    assert results.outputs["plain.1"].scores["bleu"] == pytest.approx(100)
    assert notes == []
    assert all("|norm:bert-" in signature for signature in signatures(results.metrics).values())
    write_json(folder / "experiment.json", experiment_record(normalise_like=str(tmp_path / "nothing")))
    _, _, notes = read(folder)
    assert "texts are compared as they are: cannot load a tokenizer" in " ".join(note.text for note in notes)


def test_a_main_system_with_its_own_baseline(folder):
    for seed in (1, 2):
        add_run(folder, "other", seed, REFERENCE)
        add_run(folder, "distilled", seed, BETTER, baseline="other")
    _, rows, notes = read(folder)
    assert main_row(rows, "distilled").gain.mean == pytest.approx(bleu(BETTER) - 100)
    assert notes == []


def test_seeds_of_a_system_with_different_options_are_noted(folder):
    add_run(folder, "distilled", 2, BETTER, options="--kd-weight 0.9", updates=200)
    _, _, notes = read(folder)
    assert [note.where for note in notes] == ["students/distilled"]
    assert notes[0].text == "seeds 1 and 2 differ in updates, options: not one system"


def test_rouge(folder):
    write_json(folder / "experiment.json", experiment_record(metric="rouge"))
    results, rows, _ = read(folder)
    assert results.main_metric == "rougeL"
    assert list(rows["main"][0].spreads) == ["rouge1", "rouge2", "rougeL", "chrf2", "length_ratio"]
    assert rows["main"][1].test.signature.startswith("paired bootstrap of sentence F1|bs:1000|seed:12345")


def test_without_rouge_score(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    write_json(folder / "experiment.json", experiment_record(metric="rouge"))
    results, _, notes = read(folder)
    assert results.main_metric == "chrf2"
    assert notes[0].text.startswith(
        "rouge cannot be computed, chrF2 is compared instead: a report needs rouge-score"
    )


ROW = SystemRow(
    system="x", group="main", label="x", value="", baseline="plain", options="", scores={}, spreads={}, gains={}, tests={}, missing=[]
)  # fmt: skip


@pytest.mark.parametrize(
    ("gains", "p", "words"),
    [
        ([], [], "there is nothing to compare yet"),
        (
            [2.0], [0.01],
            "one seed only (p < 0.05 over sentences): the spread between seeds is not known, and a difference "
            "may be noise",
        ),
        ([2.0], [0.3], "one seed only (p ≥ 0.05 over sentences): the spread"),
        ([2.0], [0.05], "one seed only (p ≥ 0.05 over sentences): the spread"),
        ([0.2, 0.2, 1.6], [0.01] * 3, "within the spread of the seeds (p < 0.05 in 3 of 3 seeds): no difference is shown"),
        ([1.0, -0.5, 0.1], [0.01, 0.2, 0.9], "within the spread of the seeds (p < 0.05 in 1 of 3 seeds): no difference is shown"),
        ([0.0, 0.0], [1.0, 1.0], "within the spread of the seeds (p < 0.05 in 0 of 2 seeds)"),
        (
            [1.0, 1.2, 1.4], [0.01, 0.02, 0.03],
            "better with every seed, and each time beyond sampling noise (p < 0.05 in 3 of 3 seeds)",
        ),
        (
            [1.0, 1.2, 1.4], [0.01, 0.2, 0.03],
            "better with every seed, beyond sampling noise in only 2 of them (p < 0.05 in 2 of 3 seeds)",
        ),
        ([-1.0, -1.2], [0.3, 0.2], "worse with every seed, within sampling noise each time (p < 0.05 in 0 of 2 seeds)"),
        ([-0.1, 1.0, 1.1, 1.0], [0.9, 0.01, 0.01, 0.01], "better on average, but not with every seed, beyond sampling noise in only 3"),
        (
            [3.0, 3.0, 3.0, 3.0, -0.6], [0.01] * 5,
            "better on average, but not with every seed, beyond sampling noise in only 4 of them (p < 0.05 in 4 of 5 seeds, "
            "and in 1 the other way)",
        ),
        (
            [2.0, 2.0, 2.0, 2.0, -0.3], [0.2, 0.2, 0.2, 0.2, 0.01],
            "better on average, but not with every seed, within sampling noise each time (p < 0.05 in 0 of 5 seeds, and in 1 "
            "the other way)",
        ),
    ],
)  # fmt: skip
def test_verdict(gains, p, words):
    tests = {seed: PairedResult(value, "", "") for seed, value in enumerate(p)}
    row = replace(ROW, gains=dict(enumerate(gains)), tests=tests)
    assert verdict(row).startswith(words)


def test_a_verdict_by_the_bootstrap_has_its_own_level():
    """Its p is about half of a two-sided one."""
    tests = {seed: PairedResult(p, "", "", BOOTSTRAP_LEVEL) for seed, p in enumerate((0.01, 0.04))}
    words = verdict(replace(ROW, gains={0: 1.0, 1: 1.2}, tests=tests))
    assert (
        words == "better with every seed, beyond sampling noise in only 1 of them (p < 0.025 in 1 of 2 seeds)"
    )


def write_predictions(folder, metric, references, outputs):
    """The experiment with predictions of another kind, one per line; ``outputs`` by name of the run."""
    write_json(folder / "experiment.json", experiment_record(metric=metric))
    write_text(folder / "text/test.en", references)
    for name, predictions in outputs.items():
        write_text(folder / f"outputs/{name}.test.out", predictions)


def test_an_experiment_of_classes(folder):
    right = ["yes", "no", "yes", "yes", "no", "no"]
    worse = ["no", "no", "no", "no", "no", "no"]
    outputs = {"plain.1": worse, "plain.2": worse, "distilled.1": right, "distilled.2": [*right[:5], "yes"]}
    write_predictions(folder, "accuracy", right, outputs)
    results, rows, notes = read(folder)
    plain, distilled = rows["main"]
    assert notes == []
    assert plain.scores == {1: 50.0, 2: 50.0}
    assert distilled.gains == {1: 50.0, 2: pytest.approx(100 / 3)}
    assert distilled.p == {1: 0.25, 2: 0.625}  # 3 of 3 and 3 of 4 sentences: 2 / 8 and 2 * (1 + 4) / 16
    assert (distilled.test.signature, results.unit) == ("McNemar|exact", "accuracy")


def test_an_experiment_of_numbers(folder):
    numbers = ["1", "2", "3", "4", "5", "6"]
    swapped = ["2", "1", "3", "4", "5", "6.5"]
    outputs = {"plain.1": swapped, "plain.2": ["3"] * 6, "distilled.1": numbers, "distilled.2": ["1", "x"]}
    write_predictions(folder, "spearman", numbers, outputs)
    results, rows, notes = read(folder)
    assert list(results.metrics) == ["spearman", "pearson"]
    assert rows["main"][0].scores == {1: pytest.approx(100 * (1 - 6 * 2 / (6 * 35)))}
    assert rows["main"][1].scores == {1: pytest.approx(100)}
    noted = {note.where: note.text for note in notes}
    assert "not scored: spearman is not defined: one side is constant" in noted["outputs/plain.2.test.out"]
    assert (
        "could not convert string to float: 'x'; write one number per line"
        in noted["outputs/distilled.2.test.out"]
    )
