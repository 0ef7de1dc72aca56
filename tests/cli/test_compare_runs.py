"""Paired tests over the runs of several experiments."""

import json

import pytest

from examples.fill_tables import paired_runs_table
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.report.compare_runs import runs_rows


def experiment(title, scores, **changes):
    """An experiment of a results file; ``scores`` by system and seed."""
    runs = [
        {
            "system": system,
            "seed": seed,
            "label": f"the {system} one",
            "scores": {"test": {"accuracy": score}},
        }
        for system, by_seed in scores.items()
        for seed, score in by_seed.items()
    ]
    compared = {"subset": "test", "metric": "accuracy"}
    return {
        "title": title,
        "metric": "accuracy",
        "baseline": "plain",
        "runs": runs,
        "compared": compared,
    } | changes


def experiments():
    """Six paired runs: smoothed is better by 1 to 5 in five, and equal in one, over plain."""
    plain = {1: 50.0, 2: 60.0, 3: 70.0}
    one = {"plain": plain, "smoothed": {1: 51.0, 2: 62.0, 3: 73.0}, "control": {1: 50.0, 2: 60.0, 3: 71.0}}
    two = {"plain": plain, "smoothed": {1: 54.0, 2: 65.0, 3: 70.0}, "control": {1: 50.0, 2: 61.0}}
    return [experiment("one", one), experiment("two", two)]


def test_runs_of_all_experiments_by_hand():
    smoothed, control = runs_rows(experiments())
    assert smoothed.label == "the smoothed one"
    assert smoothed.test.gain.mean == pytest.approx(15 / 6)
    assert smoothed.test[1:4] == (5, 1, 0)
    assert (smoothed.test.sign_p, smoothed.test.wilcoxon_p) == pytest.approx((2 / 2**5, 2 / 2**5))
    assert (control.test.gain.n, control.unpaired) == (5, 1)
    [over_control] = runs_rows(experiments(), "control", ["smoothed"])
    assert over_control.test.gain.mean == pytest.approx((1 + 2 + 2 + 4 + 4) / 5)


def test_experiments_of_one_title_are_two():
    """As `title` is the task's name where a file of settings gives none, and `pairs=` or `seeds=` with another `out` changes neither."""
    one, two = experiments()
    assert runs_rows([one, two | {"title": "one"}]) == runs_rows([one, two])


def test_other_scores_are_not_put_together():
    """A metric that cannot be computed is replaced by another one, and a set that is missing by another one."""
    one, two = experiments()
    for key, value in (("metric", "chrf2"), ("subset", "valid")):
        other = two | {"compared": two["compared"] | {key: value}}
        with pytest.raises(ValueError, match=f"differ in their (compared )?{key} .*{value}"):
            runs_rows([one, other])


def test_command_prints_what_a_page_shows(tmp_path, capsys):
    paths, made = [tmp_path / "one.json", tmp_path / "two.json"], experiments()
    for run in [*made[0]["runs"], *made[1]["runs"]]:
        if run["system"] == "control":
            run["label"] = "control | its name"
    for path, record in zip(paths, made, strict=True):
        path.write_text(json.dumps({"experiments": [record]}))
    assert cli_main(["compare-runs", *map(str, paths)]) == 0
    printed = capsys.readouterr().out
    assert printed.replace("\u00a0", " ") == paired_runs_table(made)
    assert r"| control \| its name | the plain one |" in printed
    row = next(line for line in printed.splitlines() if "smoothed" in line)
    assert "| the plain one | 6 | +2.50" in row
    assert "| 5, 1, 0 | 0.062 | 0.062 |" in row
    assert "5 (1 without a partner)" in printed


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ({}, ["--baseline", "nobody"], "no system `nobody` has a score; there are: plain, smoothed, control"),
        ({"metric": "f1"}, [], "differ in their metric (accuracy, f1)"),
        ({"baseline": "control"}, [], "differ in their baseline (plain, control)"),
        ({"runs": []}, ["--systems", "smoothed", "other"], "no system `other` has a score"),
        (
            {"runs": experiments()[0]["runs"]},
            [],
            "`one` and `two` have the same texts, and the runs of one with",
        ),
        (
            {"runs": experiments()[0]["runs"][:4]},
            [],
            "are among the other's: they are no further runs; leave one",
        ),
    ],
)
def test_refused(tmp_path, capsys, changes, arguments, said):
    one, two = experiments()
    (tmp_path / "results.json").write_text(json.dumps({"experiments": [one, two | changes]}))
    assert cli_main(["compare-runs", str(tmp_path / "results.json"), *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["[]", '{"experiments": []}', '{"experiments": [{"title": "x"}]}', '{"experiments": ["x"]}', "{"],
)
def test_a_file_that_is_no_results_file(tmp_path, capsys, content):
    (tmp_path / "x.json").write_text(content)
    assert cli_main(["compare-runs", str(tmp_path / "x.json")]) == 2
    assert "is no results file" in capsys.readouterr().err
