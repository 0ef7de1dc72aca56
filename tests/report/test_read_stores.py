import pytest

from fairseq_bert_kd.evaluation.fairseq_output import read_lines
from fairseq_bert_kd.report.read_experiment import Note, Notes, read_experiment
from fairseq_bert_kd.report.read_stores import left_to_right_counterpart, read_stores
from fairseq_bert_kd.report.soft_labels import TokenBar, choose_sentences, soft_labels
from fairseq_bert_kd.storage.topk_store import TopKReader
from tests.report.small_experiments import write_experiment, write_text
from tests.storage.small_stores import (
    LOGITS,
    PAIRS,
    assemble,
    flip,
    header_of,
    make_corpus,
    make_info,
    make_parts,
    write_data,
    write_store,
)

NAME = "train.de-en.en.topk"


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "out", runs=False)


def stores_of(folder):
    notes = Notes(folder)
    experiment = read_experiment(folder, notes)
    notes.clear()
    return experiment, read_stores(experiment, notes), notes


def labels(folder, sentences, other=None, name="default"):
    experiment, stores, notes = stores_of(folder)
    shown = soft_labels(experiment, stores[name], stores.get(other), sentences, notes)
    return shown, notes


def test_captured_mass_by_hand(folder):
    _, stores, notes = stores_of(folder)
    stat = stores["default"]
    assert notes == []
    assert stat.mass[1.0] == pytest.approx({1: 1 / 2, 2: 3 / 4, 3: 7 / 8}, rel=1e-3)
    mass = {1: 1 / 8, 2: (1 + 2**-0.1) / 8, 3: (1 + 2**-0.1 + 2**-0.2) / 8}
    assert stat.mass[10.0] == pytest.approx(mass, rel=1e-3)
    assert stat.stat.rows == 11  # 13 rows, 2 of them of a missing sentence
    assert stat.scored_share == pytest.approx(11 / 13)
    assert (stat.gold_accuracy, stat.gold_perplexity) == (None, None)
    assert stat.temperature == 1


def test_mass_of_random_rows_is_that_of_all_rows(folder):
    corpus = make_corpus(missing=0.3, seed=5, k=6)
    path = folder / "data-bin/train.de-en.en.other.topk"
    corpus.write(path)
    stat = stores_of(folder)[1]["other"]
    masses = TopKReader(path).header.summary["captured_mass"]
    assert [by_tokens[6] for by_tokens in stat.mass.values()] == pytest.approx(masses, rel=1e-6)
    assert all(list(by_tokens) == [1, 2, 4, 6] for by_tokens in stat.mass.values())


def test_names_and_places(folder):
    write_store(folder / "data-bin/train.de-en.en.b.topk")
    write_store(folder / "data-bin/train.de-en.en.a.topk", make_info(temperatures=()))
    write_store(write_data(folder / "data-separate") / NAME)
    _, stores, notes = stores_of(folder)
    assert list(stores) == ["default", "a", "b", "separate"]
    assert stores["a"].mass == {}
    assert notes == []


def test_damaged_and_absent_stores(tmp_path):
    folder = write_experiment(tmp_path / "out")
    path = folder / "data-bin" / NAME
    flip(path, header_of(path).layout.starts["records"])
    _, stores, notes = stores_of(folder)
    assert stores == {}
    assert notes[0].where == f"data-bin/{NAME}"
    assert "does not match its digest" in notes[0].text
    assert str(folder) not in notes[0].text
    assert notes[1:] == [
        Note("data-bin", "a run names the store `default`, which is missing or not readable")
    ]


def test_a_store_that_a_run_names_and_that_is_not_there(tmp_path):
    folder = write_experiment(tmp_path / "out")
    (folder / "data-bin" / NAME).rename(folder / "data-bin/train.de-en.en.else.topk")
    assert stores_of(folder)[2] == [
        Note("data-bin", "a run names the store `default`, which is missing or not readable")
    ]


def test_soft_labels_by_hand(folder):
    write_store(folder / "data-bin/train.de-en.en.x.topk", make_info())
    (shown,), notes = labels(folder, [0], name="x")
    assert notes == []
    assert (shown.number, shown.source, shown.target) == (0, None, None)  # the raw text has other lines
    first, second, third = shown.positions
    assert first.gold == "a"
    assert first.tokens == [
        TokenBar("a", pytest.approx(1 / 2, rel=1e-3), None, True),
        TokenBar("b", pytest.approx(1 / 4, rel=1e-3), None, False),
        TokenBar("c", pytest.approx(1 / 8, rel=1e-3), None, False),
    ]
    assert first.rest == pytest.approx(1 / 8, rel=1e-2)
    assert [token.is_gold for token in second.tokens] == [False, True, False]
    assert third.gold == "</s>"
    assert first.gold_prob == pytest.approx(1 / 2, rel=1e-3)  # that of its stored token
    assert first.gold_other is None


def test_unlikely_tokens_are_part_of_the_rest_but_for_the_target_s_own(folder, monkeypatch):
    """Of a half, a quarter and an eighth those below 0.3."""
    monkeypatch.setattr("fairseq_bert_kd.report.soft_labels.LEAST", 0.3)
    write_store(folder / "data-bin/train.de-en.en.x.topk", make_info())
    (shown,), _ = labels(folder, [0], name="x")
    first, second, _ = shown.positions
    assert [(bar.is_gold, round(bar.prob, 2)) for bar in first.tokens] == [(True, 0.5)]
    assert [(bar.is_gold, round(bar.prob, 2)) for bar in second.tokens] == [(False, 0.5), (True, 0.25)]
    assert (first.rest, second.rest) == (pytest.approx(0.5, rel=1e-2), pytest.approx(0.25, rel=1e-2))


def test_raw_text_where_its_lines_are_the_stores_sentences(folder):
    for language in ("de", "en"):
        write_text(folder / f"text/train.{language}", [f"{language} {i}" for i in range(len(PAIRS))])
    (shown,), _ = labels(folder, [3])
    assert (shown.source, shown.target) == ("de 3", "en 3")
    assert read_lines(folder / "text/train.de")[3] == "de 3"


def test_missing_and_unknown_sentences(folder):
    shown, notes = labels(folder, [1, 99, -1])
    assert [(item.number, item.positions) for item in shown] == [(1, [])]
    assert notes == [
        Note("--sentences", f"{n} is left out: the store has sentences 0 to 4") for n in (99, -1)
    ]


def test_target_tokens_are_those_of_the_store_or_of_its_data(folder):
    write_store(folder / "data-bin/train.de-en.en.x.topk", make_info())
    (shown,), notes = labels(folder, [0], name="x")
    assert [position.gold for position in shown.positions] == ["a", "b", "</s>"]
    assert notes == []
    write_data(folder / "data-bin", PAIRS[::-1])
    (shown,), notes = labels(folder, [0], name="x")
    assert [position.gold for position in shown.positions] == [None] * 3
    assert notes[0].text.startswith("does not hold the data of the store `x`: their sentences differ")
    (shown,), notes = labels(folder, [0])
    assert [position.gold for position in shown.positions] == ["b"] * 3  # the store's own
    assert notes[0].text.startswith("does not hold the data of the store `default`: their sentences differ")
    for path in (folder / "data-bin").glob("train.*.bin"):
        path.unlink()
    (shown,), notes = labels(folder, [0])
    assert [position.gold for position in shown.positions] == ["b"] * 3
    assert notes == []


def left_to_right(folder, logit):
    """A store beside the default one whose gold token has another logit."""
    info = make_info(gold=True, mask_plan="left-to-right", passes=1)
    parts = make_parts(info)
    for chunk in parts.chunks:
        chunk.records["gold_logit"][chunk.scored] = logit
    assemble(folder / "data-bin/train.de-en.en.left-to-right.topk", parts)


def test_beside_the_left_to_right_teacher(folder):
    left_to_right(folder, LOGITS[2])
    _, stores, _ = stores_of(folder)
    other = left_to_right_counterpart(stores["default"], stores)
    assert other is stores["left-to-right"]
    assert left_to_right_counterpart(other, stores) is None
    (shown,), _ = labels(folder, [0], other="left-to-right")
    assert shown.positions[0].gold_prob == pytest.approx(1 / 4, rel=1e-3)
    assert shown.positions[0].gold_other == pytest.approx(1 / 8, rel=1e-3)
    assert shown.positions[0].tokens[0].other == pytest.approx(1 / 2, rel=1e-3)
    write_store(folder / "data-bin/train.de-en.en.again.topk", make_info(gold=True))
    assert (
        left_to_right_counterpart(stores["default"], stores_of(folder)[1]).name == "left-to-right"
    )  # not another bidirectional one
    path = folder / "data-bin/train.de-en.en.left-to-right.topk"
    path.unlink()
    write_store(path, make_info(mask_plan="left-to-right", passes=1), pairs=PAIRS[:3])
    assert left_to_right_counterpart(stores["default"], stores_of(folder)[1]) is None  # another corpus


def test_the_first_sentences_of_some_length_are_chosen(folder):
    pairs = [([5, 2], [4] * length + [2]) for length in (7, 1, 7, 7, 16, 15)]
    write_store(folder / "data-bin/train.de-en.en.x.topk", make_info(), pairs, missing=(2,))
    stat = stores_of(folder)[1]["x"]
    assert choose_sentences(stat, 9) == [0, 3, 5]  # one is too short, one is missing, one is too long
    assert choose_sentences(stat, 2) == [0, 3]
