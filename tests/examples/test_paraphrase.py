"""The paraphrase experiment: its text, its steps and their order."""

import contextlib
import gzip
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from examples.paraphrase import judge_evaluator
from examples.paraphrase.judge_evaluator import (
    best_threshold,
    judged,
    measures,
    read_pairs,
    verdict,
    word_overlap,
)
from examples.paraphrase.prepare_text import halves, main, plain
from examples.paraphrase.report_scores import further_scores_record
from examples.workflow import paraphrase
from examples.workflow.settings import load
from fairseq_bert_kd.report.read_experiment import Run
from fairseq_bert_kd.report.read_further_scores import further_scores
from fairseq_bert_kd.report.read_tables import further_table

PAIRS = [
    ("1", "train", "a man", "the man"), ("1", "train", "a man", "he is a man"), ("2", "train", "who", "what"),
    ("3", "train", "eat", "people eat"), ("4", "train", "sit", "they sit"), ("5", "valid", "in", "inside"),
    ("6", "test", "on", "upon"), ("6", "test", "upon", "on top"),
]  # fmt: skip
LABELLED = [
    ("train", "1", "7", "Don't a?", "b"), ("train", "0", "6", "Upon?", "b"), ("valid", "0", "8", "c", "d"),
    ("test", "1", "9", "e", "f"),
]  # fmt: skip


def write(path, header, rows):
    lines = ["\t".join(row) for row in (header, *rows)]
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "quora_pairs.tsv.gz", ("cluster", "split", "source", "target"), PAIRS)
    header = ("split", "label", "quora_id", "question1", "question2")
    write(folder / "quora_labelled.tsv.gz", header, LABELLED)
    return folder


def prepare(data, pairs=20_000, test_pairs=None):
    """Run prepare_text.py in the folder above its data."""
    with contextlib.chdir(data.parent):
        main(Namespace(data=data, pairs=pairs, test_pairs=test_pairs))


def lines(data, name):
    return (data.parent / "text" / name).read_text(encoding="utf-8").splitlines()


def test_text_by_cluster(data, capsys):
    prepare(data, pairs=3)
    assert lines(data, "train.source") == ["a man", "a man", "who"]
    assert lines(data, "test.references") == ["upon\ton top", "on\ton top"]
    assert lines(data, "labelled.test.tsv") == ["question1\tquestion2\tis_duplicate", "e\tf\t1"]
    assert lines(data, "labelled.train.tsv")[1:] == ["do n't a\tb\t1"]  # the other one has a sentence of test
    assert "labelled train: 1 pairs; 1 with a sentence of valid or test left out" in capsys.readouterr().out


def test_repeated_pairs_and_equal_sides_are_left_out(data, capsys):
    """Of valid and test the first pair of a source is kept; the other targets are references."""
    more = [
        ("1", "train", "a man", "the man"), ("1", "train", "a man", "a man"), ("6", "test", "on", "above"),
        ("8", "test", "so", "so"),
    ]  # fmt: skip
    write(data / "quora_pairs.tsv.gz", ("cluster", "split", "source", "target"), [*PAIRS, *more])
    prepare(data)
    assert lines(data, "train.source") == ["a man", "a man", "who", "eat", "sit"]
    assert lines(data, "train.target") == ["the man", "he is a man", "what", "people eat", "they sit"]
    assert lines(data, "test.source") == ["on", "upon"]
    assert lines(data, "test.target") == ["upon", "on top"]
    assert lines(data, "test.references") == ["upon\ton top\tabove", "on\ton top\tabove"]
    assert "12 pairs, 9 different ones of two sentences" in capsys.readouterr().out


def test_evaluators_learn_from_halves_without_a_common_sentence():
    pairs = [
        ("a", "b", "1"),
        ("c", "d", "0"),
        ("b", "e", "0"),
        ("f", "g", "1"),
        ("d", "d", "1"),
        ("e", "a", "1"),
    ]
    assert halves(pairs) == (
        [("a", "b", "1"), ("b", "e", "0"), ("e", "a", "1")],
        [("c", "d", "0"), ("f", "g", "1"), ("d", "d", "1")],
    )
    assert halves(pairs[:1]) == (pairs[:1], [])


def test_labelled_pairs_of_other_origin_are_for_the_judge(data):
    header, row = ("label", "votes_of_6", "sentence1", "sentence2"), ("1", "5", "How , A ?", "b")
    write(data / "twitter_url_labelled.tsv.gz", header, [row] * 4)
    prepare(data, test_pairs=2)
    assert lines(data, "judged/twitter.tsv") == ["question1\tquestion2\tis_duplicate"] + ["how , a\tb\t1"] * 2


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("What's the best, in C++?", "what 's the best , in c++"),
        ("Is it? Why don't you?", "is it ? why do n't you"),
        ("", ""),
    ],
)
def test_plain_form_of_a_raw_question(raw, expected):
    assert plain(raw) == expected


def test_a_shared_sentence_ends_it(data):
    write(
        data / "quora_pairs.tsv.gz",
        ("cluster", "split", "source", "target"),
        [*PAIRS, ("7", "test", "On", "A man")],
    )
    with pytest.raises(
        SystemExit, match="1 sentences of valid or test are in training, the first is 'a man'"
    ):
        prepare(data)


def steps_of(tmp_path, *given):
    settings, kind = load("paraphrase", [f"out={tmp_path}", "teacher=encoder", "data=data", *given])
    assert kind is paraphrase
    return {step.name: step for step in kind.steps(settings)}


def test_every_row_has_its_steps_after_what_they_need(tmp_path):
    steps = steps_of(tmp_path, "all", "seeds=[1]")
    rows = {name.split("/")[1] for name in steps if name.startswith("students/")}
    assert {"likelihood.1", "continued.1", "reranked.1", "evaluator.1", "constant.1", "irl.1", "kl.1"} <= rows
    done = set()
    for step in steps.values():
        assert set(step.after) <= done, step.name
        done.add(step.name)
    for row in rows:
        assert {f"outputs/{row}.valid", f"outputs/{row}.test"} <= done


def test_rows_of_one_budget_differ_in_their_options_alone(tmp_path):
    steps = steps_of(tmp_path, "all", "seeds=[1]")
    commands = {
        name: steps[f"students/{name}.1"].command
        for name in ("continued", "evaluator", "rouge-2", "shuffled")
    }
    common = commands["evaluator"].replace("students/evaluator.1", "students/X")
    for name, command in commands.items():
        assert command.replace(f"students/{name}.1", "students/X").startswith(common.rstrip())
    assert commands["continued"].endswith("--rl-weight 0")


def number(command, option):
    return int(command.split(f"{option} ")[1].split()[0])


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds_share_one_budget(tmp_path, rounds):
    steps = steps_of(tmp_path, "irl", "evaluator", "seeds=[1]", f"systems.irl.rounds={rounds}")
    trainings = [steps["students/irl.1"].command]
    trainings += [step.command for name, step in steps.items() if name.startswith("irl.1/round")]
    whole = steps["students/evaluator.1"].command
    assert len(trainings) == rounds
    assert sum(number(command, "--max-update") for command in trainings) == number(whole, "--max-update")
    for command in trainings:
        assert number(command, "--total-num-update") == number(command, "--max-update")
        assert number(command, "--warmup-updates") == number(whole, "--warmup-updates") // rounds
        assert number(command, "--validate-interval-updates") == 250 // rounds


def test_the_constant_reward_has_a_partner_that_differs_by_the_reward_alone(tmp_path):
    steps = steps_of(tmp_path, "seeds=[1]")
    constant, partner = (
        steps[f"students/{name}.1"].command.replace(name, "X") for name in ("constant", "reinforce")
    )
    assert constant.replace(" --rl-control X", "") == partner


def test_both_evaluators_have_an_architecture_of_their_own(tmp_path):
    given = [
        f"out={tmp_path}",
        "teacher=encoder",
        "data=data",
        "evaluator_model='--arch decomposable_attention'",
    ]
    settings, kind = load("paraphrase", given)
    with pytest.raises(
        ValueError, match="are both of --arch decomposable_attention: the held-out evaluator would"
    ):
        kind.check(settings)


def test_inverse_reinforcement_goes_in_rounds(tmp_path):
    steps = steps_of(tmp_path, "irl", "seeds=[1]", "systems.irl.rounds=2")
    order = [name for name in steps if name.startswith("irl.1/") or name == "students/irl.1"]
    assert order == [
        "irl.1/samples1",
        "irl.1/evaluator1",
        "irl.1/round1",
        "irl.1/samples2",
        "irl.1/evaluator2",
        "students/irl.1",
    ]
    assert "--rl-evaluator students/irl.1/evaluator1/checkpoint_last.pt" in steps["irl.1/round1"].command
    assert "--path students/irl.1/round1/checkpoint_best.pt" in steps["irl.1/samples2"].command
    for number in (1, 2):  # each round draws anew
        assert f" --seed {1 + number} " in steps[f"irl.1/samples{number}"].command
    last = steps["students/irl.1"].command
    assert last.endswith("--rl-evaluator students/irl.1/evaluator2/checkpoint_last.pt")
    assert "--finetune-from-model students/irl.1/round1/checkpoint_best.pt" in last


def test_every_training_says_that_it_goes_on_after_a_kill(tmp_path):
    """fairseq-train does; so its log must go on too, and another command must not go on from its checkpoint."""
    for name, step in steps_of(tmp_path, "all", "seeds=[1]").items():
        assert step.resumes == step.command.startswith("fairseq-train"), name


def test_missing_data_are_named(tmp_path):
    settings, kind = load("paraphrase", [f"out={tmp_path}", "teacher=encoder", f"data={tmp_path}"])
    with pytest.raises(ValueError, match=r"must hold quora_pairs.tsv.gz, which it does not"):
        kind.check(settings)


def test_measures_of_an_evaluator():
    """Three of the four orders of positive and negative are right; overlap by hand."""
    labels, scores = np.array([1, 1, 0, 0]), np.array([0.9, 0.3, 0.4, 0.1])
    assert measures(labels, scores, 0.5) == {"accuracy": 75, "auc": 75}
    assert best_threshold(labels, np.array([0.4, 0.3, 0.2, 0.1])) == 0.3
    assert best_threshold(np.array([0, 0]), np.array([0.4, 0.3])) == np.inf
    assert word_overlap(["A b c", ""], ["a b d", ""]).tolist() == [0.5, 0]


def test_the_judge_says_where_an_evaluator_is_below_word_overlap(tmp_path):
    rows = [("a b", "a b", 1), ("a b", "a c", 1), ("a b", "c d", 0), ("a", "b", 0)]
    table = tmp_path / "pairs.tsv"
    table.write_text(
        "".join(f"{a}\t{b}\t{label}\n" for a, b, label in [("q1", "q2", "d"), *rows]), encoding="utf-8"
    )
    scorers = {
        "evaluator": lambda first, second: np.array([0.9, 0.2, 0.3, 0.1]),
        "word overlap": word_overlap,
    }
    found = judged(read_pairs(table), scorers, {"evaluator": 0.5, "word overlap": 0.3})
    assert found == {
        "pairs": 4, "evaluator": {"accuracy": 75, "auc": 75}, "word overlap": {"accuracy": 100, "auc": 100},
        "the larger class": {"accuracy": 50},
    }  # fmt: skip
    assert "evaluator: area under the curve 75.0, word overlap has 100.0" in verdict("evaluator", found)
    assert verdict("evaluator", found | {"word overlap": {"auc": 70}}) == ""
    shown = further_table("judges", judge_evaluator.table({"pairs": found}, ["said."]))
    assert shown.head == ["judge", "pairs, 4 pairs: right, %", "pairs, 4 pairs: area under the curve, %"]
    assert shown.rows == [
        ["evaluator", "75", "75"],
        ["word overlap", "100", "100"],
        ["the larger class", "50", ""],
    ]
    assert shown.remarks == ["said."]


@pytest.mark.parametrize(
    "given", [["a.pt"], ["=a.pt"], ["one="], ["one=a.pt", "one=b.pt"], ["word overlap=a.pt"]]
)
def test_every_judge_has_a_name_of_its_own(given):
    with pytest.raises(ValueError, match="--evaluator must be NAME=CHECKPOINT"):
        judge_evaluator.named(given)


def test_the_judge_computes_on_the_gpu(tmp_path, monkeypatch):
    table, moved = tmp_path / "pairs.tsv", []
    table.write_text("q1\tq2\td\na b\ta b\t1\na\tb\t0\n", encoding="utf-8")
    judge = SimpleNamespace(to=moved.append, score_pairs=lambda first, second: np.array([0.9, 0.1]))
    monkeypatch.setattr("fairseq_bert_kd.rewards.evaluator.load_evaluator", lambda *_, **__: judge)
    monkeypatch.setattr("fairseq_bert_kd.rewards.interface.best_device", lambda: "gpu")
    given = {"evaluator": ["one=x.pt", "two=y.pt"], "pairs": str(table)}
    judge_evaluator.main(
        Namespace(**dict.fromkeys(("positive", "others", "fit", "encoder", "json")), **given)
    )
    assert moved == ["gpu", "gpu"]


def test_measures_reach_the_report_with_gains_by_the_held_out_evaluator():
    def scores(held_out, bleu):
        return {"bleu": bleu, "copy_rate": 5.0, "held_out": held_out}

    results = {
        "signatures": {"BLEU": "nrefs:1", "chrF2": "nrefs:1"},
        "paraphrases": {
            "(source copied)": [scores(90.0, 30.0)],
            "continued": [scores(50.0, 20.0), scores(52.0, 21.0)],
            "evaluator": [scores(55.0, 20.5), scores(56.0, 20.0)],
        },
    }
    record = further_scores_record(results, {"continued": [1, 3], "evaluator": [1, 3]})
    runs = [
        Run(name, seed, name, "main", "", "continued", "", None, None, 9)
        for name in ("continued", "evaluator")
        for seed in (1, 3)
    ]
    read = further_scores("paraphrases", record, runs, ("continued", "evaluator"))
    assert read.keys == ["held-out", "BLEU", "copies %"]
    assert read.rows[1].gains == {"held-out": {1: 5, 3: 4}, "BLEU": {1: 0.5, 3: -1}, "copies %": {1: 0, 3: 0}}
    assert read.signatures == {"test": {"BLEU": "nrefs:1"}}
    assert record["scores"][0]["system"] == "(source copied)"
    with pytest.raises(ValueError, match="`continued` has 2 scored outputs and 1 seeds"):
        further_scores_record(results, {"continued": [1]})


def test_the_judges_of_the_other_settings_are_changed_over(tmp_path):
    """The LSTM rewards and the encoder is held out, with budgets of their own."""
    given = ["teacher=bert", "data=data", "out=out", f"own.distilled={tmp_path}"]
    folder = Path(paraphrase.__file__).parents[1] / "paraphrase"
    found = {}
    for name in ("task", "lstm_evaluator"):
        settings, kind = load(folder / f"{name}.yaml", given)
        steps = {step.name: step.command for step in kind.steps(settings)}
        found[name] = [
            (paraphrase.architecture(steps[judge]), "--max-update 400 " in steps[judge])
            for judge in ("evaluator", "held-out")
        ]
        assert "--finetune-from-model" not in steps["students/likelihood.1"]
    assert found["task"] == [("hf_encoder", True), ("decomposable_attention", False)]
    assert found["lstm_evaluator"] == [("sentence_lstm", False), ("hf_encoder", True)]
    assert str(tmp_path) in steps["evaluator"]
