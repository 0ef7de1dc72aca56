import json
import re
from html.parser import HTMLParser

import pytest

from examples.fill_tables import markdown_tables
from fairseq_bert_kd.compat import file_digest
from fairseq_bert_kd.report.experiment_report import make_report, note_other_data
from fairseq_bert_kd.report.page import figure_paths, growth_panels, render, slugs, write_figures
from fairseq_bert_kd.report.read_experiment import Note
from fairseq_bert_kd.report.results_file import experiment_record, write_results
from fairseq_bert_kd.storage.topk_store import TopKReader
from tests.report import small_experiments
from tests.report.small_experiments import (
    BETTER,
    REFERENCE,
    WORSE,
    add_run,
    write_experiment,
    write_json,
    write_output,
    write_text,
)
from tests.storage.small_stores import make_info, write_store
from tests.tokenization.tiny_tokenizers import build_tokenizer

VOID = {"meta", "br", "hr", "img", "link", "input", "line", "circle", "path", "use", "rect"}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.headings, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "out")


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Report and page of an experiment without gaps; read only."""
    report = make_report(write_experiment(tmp_path_factory.mktemp("complete") / "out"), sentences=(0,))
    return report, render([report])


def test_a_complete_experiment(complete):
    report, text = complete
    page = Page(text)
    distilled = report.main
    assert report.notes == []
    assert "The student distilled scores" in page.text
    gain = distilled.gain.mean
    assert (
        f"a difference of +{gain:.2f} ± 0.00 BLEU (mean ± sd of the gains of 2 seeds), better with every seed"
        in page.text
    )
    for part in (
        "Main table", "Learning curves", "Length, position, k and T", "Teachers and their stores",
        "Sentences that differ most", "What the teacher sees", "Time", "Missing or odd",
    ):  # fmt: skip
        assert part in page.text
    assert "62.4" in page.text
    assert "7 passes" in page.text
    assert "the pieces on both sides (pieces of the same pass are masked too)" in page.text
    assert "13 min 32 s" in page.text
    assert "Nothing is missing" in page.text
    assert report.results.metrics["bleu"].signature in page.text
    assert "nrefs:1|bs:1000|seed:12345|case:mixed" in page.text
    assert [panel.name for panel in report.curves] == [
        "curve-train-nll-loss", "curve-valid-nll-loss", "curve-valid-loss", "curve-valid-bleu",
    ]  # fmt: skip


def test_outputs_side_by_side_where_rewards_trained_a_system(folder, complete):
    assert complete[0].side_by_side == []
    log = folder / "logs" / "students" / "distilled.1.log"
    log.write_text(log.read_text().replace("ppl=", "reward=0.5, ppl="))
    report = make_report(folder)
    assert len(report.side_by_side) == min(10, len(REFERENCE))
    assert report.side_by_side[0].reference == REFERENCE[0]
    assert dict(report.side_by_side[0].outputs) == {"distilled": BETTER[0], "plain": WORSE[0]}
    assert "Sentences side by side" in Page(render([report])).text


def test_beside_a_left_to_right_teacher(folder):
    info = make_info(gold=True, mask_plan="left-to-right", passes=1)
    write_store(folder / "data-bin/train.de-en.en.l2r.topk", info)
    page = Page(render([make_report(folder, sentences=(0,))]))
    assert (
        "The hollow bar is the left-to-right teacher’s probability of the same piece (store l2r )"
        in page.text
    )
    assert "left-to-right: 25.0 %" in page.text
    assert "do not compare" in page.text
    assert "1 pass, left to right" in page.text


def test_the_page_needs_nothing_else_and_is_accessible(complete):
    report, text = complete
    page = Page(text)
    assert not re.search(r"https?://|<script|<link|@import|url\(|src=(?!\"data:)", text)
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))
    assert page.all("th")
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert len(page.all("figcaption")) == len(page.all("figure")) > 4
    assert all(graphic.get("aria-label") for graphic in page.all("svg"))
    assert len(page.all("img")) == len(page.all("figure"))
    assert all(
        image["alt"] and image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img")
    )
    assert page.all("html") == [{"lang": "en-GB"}]
    texts = [attributes.get("lang") for attributes in page.all("dd") if "dir" in attributes]
    assert texts.count("de") == len(report.worst + report.best) > 0  # the store is of other texts
    assert texts.count("en") == len(texts) - texts.count("de")
    targets = {link["href"][1:] for link in page.all("a")}
    assert targets <= set(identifiers)


def test_the_same_folder_gives_the_same_bytes(complete):
    report, text = complete
    assert render([make_report(report.experiment.folder, sentences=(0,))]) == text


NASTY = '</script><b onclick="x">&amp; \x1b[31m \u202e שלום'


def test_what_comes_from_data_is_text(folder):
    reference = [NASTY, "", *REFERENCE[2:]]
    write_text(folder / "text/test.en", reference)
    write_text(folder / "text/test.de", [""] + [NASTY] * 5)
    for seed in (1, 2):
        write_output(folder / f"outputs/plain.{seed}.test.out", [f"{NASTY} x", "not empty", *WORSE[2:]])
        write_output(folder / f"outputs/distilled.{seed}.test.out", ["", "", *BETTER[2:]])
    add_run(folder, "odd", 1, WORSE, label=NASTY, group=NASTY, options=NASTY, value=NASTY)
    record = json.loads((folder / "experiment.json").read_text())
    record |= dict.fromkeys(("title", "teacher", "hardware", "code", "command", "size"), NASTY)
    (folder / "experiment.json").write_text(json.dumps(record))
    text = render([make_report(folder)])
    page = Page(text)
    assert not {"b", "script"} & {tag for tag, _ in page.tags}
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"&lt;/script&gt;&lt;b onclick=&#34;x&#34;&gt;&amp;amp; \x1b[31m \u202e שלום" in text
    assert "(empty)" in page.text
    assert any(attributes.get("dir") == "auto" for attributes in page.all("dd"))


def test_names_of_runs_from_elsewhere_cannot_break_out_of_a_figure(folder):
    for seed in (1, 2):
        add_run(folder, "distilled", seed, BETTER, label=f"{NASTY} \x00 \ud800")
    text = render([make_report(folder)])
    assert not {"b", "script"} & {tag for tag, _ in Page(text).tags}
    assert not set("\x00\x1b\u202e\ud800") & set(text)
    assert r"\ud800" in text


def test_a_main_system_with_another_baseline_is_shown_beside_it(tmp_path):
    reports = []
    for name in "ab":
        folder = write_experiment(tmp_path / name, baseline="absent", size=name)
        for seed in (1, 2):
            add_run(folder, "other", seed, REFERENCE, label="the other")
            add_run(folder, "distilled", seed, BETTER, baseline="other")
        reports.append(make_report(folder))
    text = Page(render(reports)).text
    assert "distilled against the other" in text
    assert "the other 100.00 ± 0.00" in " ".join(text.split())
    assert "distilled minus the other" in text


@pytest.mark.parametrize(
    ("remove", "absent", "note"),
    [
        ("outputs", "Main table", "missing: the run is not scored"),
        ("logs", "Learning curves", "missing: no learning curve"),
        ("data-bin", "What the teacher sees", "which is missing or not readable"),
        ("text", "Main table", "not readable"),
        ("steps.jsonl", "Wall-clock", "no times of the steps"),
        ("students", "Main table", "no run has begun yet"),
    ],
)
def test_half_finished_experiments_say_what_is_missing_and_show_the_rest(folder, remove, absent, note):
    import shutil

    path = folder / remove
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Page(render([make_report(folder)]))
    assert absent not in page.text
    assert note in page.text
    assert "Missing or odd" in page.text


def test_the_result_is_over_the_seeds_that_both_systems_have(folder):
    """Means over other seeds would not differ by the gain."""
    write_output(folder / "outputs/plain.2.test.out", REFERENCE)
    (folder / "outputs/distilled.2.test.out").unlink()
    report = make_report(folder)
    plain, distilled = (report.results.outputs[f"{name}.1"].scores["bleu"] for name in ("plain", "distilled"))
    text = Page(render([report])).text.replace("\u00a0", " ")
    assert (
        f"distilled scores {distilled:.2f} BLEU on the test set, plain {plain:.2f}: a difference of" in text
    )
    assert f"a difference of +{distilled - plain:.2f} BLEU (one seed)" in text


def test_an_experiment_that_has_just_begun(tmp_path):
    folder = write_experiment(tmp_path / "out", runs=False, store=False)
    for name in ("text", "logs"):
        (folder / name).rename(tmp_path / name)
    report = make_report(folder)
    assert "there is nothing to compare yet" in Page(render([report])).text
    record = experiment_record(report)
    assert (record["runs"], record["compared"]) == ([], {})


def test_an_experiment_whose_baseline_alone_is_scored(folder):
    for seed in (1, 2):
        (folder / f"outputs/distilled.{seed}.test.out").unlink()
    text = Page(render([make_report(folder)])).text
    assert "there is nothing to compare yet" in text
    assert "Main table" in text
    assert "paired bootstrap" not in text


@pytest.mark.parametrize(("named", "used"), [("zh", "zh"), ("13b", "13a")])
def test_words_are_counted_by_the_tokenizer_that_scores(folder, named, used):
    write_json(folder / "experiment.json", small_experiments.experiment_record(bleu_tokenize=named))
    report = make_report(folder)
    assert f"sacreBLEU’s {used} tokenizer" in report.length_panel.caption
    assert report.positions


def test_several_experiments_have_a_summary(tmp_path):
    reports = [
        make_report(write_experiment(tmp_path / "a")),
        make_report(write_experiment(tmp_path / "b", title="Another", size="gpu")),
        make_report(write_experiment(tmp_path / "c", title="Begun", size="gpu", runs=False)),
        make_report(write_experiment(tmp_path / "d", title="Summaries", task="ü x", metric="rouge")),
    ]
    assert slugs(reports) == ["toy-laptop", "toy-gpu", "toy-gpu-3", "--x"]
    text = render(reports)
    page = Page(text)
    assert "Experiments" in page.text
    assert page.headings.count(2) == 5
    assert "no gain yet" in page.text
    assert f"{reports[3].main.gain.mean:+.2f} ± 0.00 ROUGE-L" in page.text.replace("\u00a0", " ")
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def classes_experiment(folder, wrong, **changes):
    """An experiment of ten rows in which plain is right at six, and with each seed distilled wrong at as many as given."""
    changes = {"metric": "accuracy", **changes}
    write_json(folder / "experiment.json", small_experiments.experiment_record(**changes))
    write_text(folder / "text/test.en", ["yes"] * 10)
    for seed, errors in enumerate(wrong, start=1):
        for system, missed in (("plain", 4), ("distilled", errors)):
            record = small_experiments.run_record(system, seed)
            write_json(folder / f"students/{system}.{seed}/run.json", record)
            write_text(
                folder / f"outputs/{system}.{seed}.test.out", ["no"] * missed + ["yes"] * (10 - missed)
            )
    return make_report(folder)


def test_many_runs_are_tested_over_the_runs(tmp_path):
    report = classes_experiment(tmp_path, wrong=[1, 3, 2, 4, 0, 5, 2])  # gains 30, 10, 20, 0, 40, -10, 20
    text = Page(render([report])).text.replace("\u00a0", " ")
    # sign test of 5 and 1: 14/64; signed ranks 1.5 against 19.5: {}, 1.5, 1.5 of 64, twice
    assert "distilled plain 7 +15.71 ± 17.18 5, 1, 1 0.22 0.094" in text
    few = classes_experiment(tmp_path / "few", wrong=[1, 3, 2, 4, 0])
    assert "Over the runs" not in render([few])


def test_runs_of_several_experiments_are_tested_together(tmp_path):
    reports = [
        classes_experiment(tmp_path / "a", wrong=[3, 2, 1], title="First"),
        classes_experiment(tmp_path / "b", wrong=[0, 3, 2], title="Second"),
        classes_experiment(tmp_path / "c", wrong=[0, 0, 0], title="Other", task="another"),
    ]
    text = Page(render(reports)).text.replace("\u00a0", " ")
    assert "Over the runs of 2 experiments" in text
    assert "distilled plain 6 +21.67 ± 11.69 6, 0, 0 0.031" in text  # 2/64
    assert "First, Second: each run" in text


def test_a_copy_of_an_experiment_counts_once(tmp_path):
    runs = {"a": [3, 2, 1], "b": [3, 2, 1], "c": [0, 3, 2]}
    reports = [classes_experiment(tmp_path / name, wrong, title=name) for name, wrong in runs.items()]
    note_other_data(reports)
    noted = {
        note.text.split(",")[0] for report in reports for note in report.notes if note.where == "outputs"
    }
    assert noted == {"those of “a” in `a`: a copy of it"}
    text = Page(render(reports)).text.replace("\u00a0", " ")
    assert "Over the runs of 2 experiments" in text
    assert "distilled plain 6 +21.67 ± 11.69 6, 0, 0 0.031" in text
    assert "a, c: each run" in text


def test_experiments_with_more_and_less_training_text_show_how_the_gain_grows(tmp_path):
    folders = [write_experiment(tmp_path / name, store=False) for name in "abc"]
    for language in ("de", "en"):
        write_text(folders[1] / f"text/train.{language}", ["one", "two", "three"])
        write_text(folders[2] / f"text/train.{language}", REFERENCE[::-1])
    reports = [make_report(folder) for folder in folders]
    assert [experiment_record(report)["training_pairs"] for report in reports] == [6, 3, 6]
    (panel,) = growth_panels(reports[:2])
    mean = reports[0].main.gain.mean
    assert panel.alt == f"toy, laptop size: gain by number of training pairs: 3: {mean:+.2f}; 6: {mean:+.2f}."
    assert panel.alt in [image["alt"] for image in Page(render(reports[:2])).all("img")]
    assert "toy-laptop.gain_by_pairs.png" in [path.name for path in figure_paths(tmp_path, reports[:2])]
    write_figures(tmp_path / "figures", reports[:2])
    assert (tmp_path / "figures/toy-laptop.gain_by_pairs.png").stat().st_size > 1000
    assert not list(growth_panels([reports[0], reports[2]]))  # the same number
    missing = make_report(write_experiment(tmp_path / "d", store=False, size="gpu"))
    assert not list(growth_panels([reports[0], missing]))  # another size
    write_text(folders[1] / "text/test.en", REFERENCE[::-1])
    assert not list(growth_panels([reports[0], make_report(folders[1])]))  # another reference
    write_text(folders[1] / "text/test.en", REFERENCE)
    write_json(folders[1] / "experiment.json", small_experiments.experiment_record(lowercase=True))
    assert not list(growth_panels([reports[0], make_report(folders[1])]))  # scored otherwise


def test_other_data_under_the_same_name_are_noted(tmp_path):
    folders = [write_experiment(tmp_path / name, store=False) for name in "abc"]
    write_text(folders[1] / "text/train.en", ["other"])
    write_text(folders[2] / "text/test.en", REFERENCE[::-1])
    changed = small_experiments.experiment_record(lowercase=True, bleu_tokenize="none")
    write_json(folders[2] / "experiment.json", changed)
    reports = [make_report(folder) for folder in folders]
    for report in reports:
        report.notes.clear()
    note_other_data(reports)
    note = Note(
        "test.en, lowercase, bleu_tokenize",
        "not those of “Toy German-English”, which has the same task name `toy`: their scores are not comparable",
    )
    assert [report.notes for report in reports] == [[], [], [note]]


def test_one_tokenizer_in_two_places_is_one_way_of_scoring(tmp_path):
    """And in the third experiment another one of that name."""
    reports = []
    for name, kind in (("a", "bert_uncased"), ("b", "bert_uncased"), ("c", "bert_cased")):
        build_tokenizer(kind, tmp_path / f"machine_{name}" / "bert")
        folder = write_experiment(tmp_path / name, store=False)
        record = small_experiments.experiment_record(
            normalise_like=str(tmp_path / f"machine_{name}" / "bert")
        )
        write_json(folder / "experiment.json", record)
        reports.append(make_report(folder))
        reports[-1].notes.clear()
    note_other_data(reports)
    places = [[note.where for note in report.notes if note.where != "outputs"] for report in reports]
    assert places == [[], [], ["normalise_like"]]


def test_an_experiment_of_classes(folder):
    write_json(folder / "experiment.json", small_experiments.experiment_record(metric="accuracy"))
    write_text(folder / "text/test.en", ["yes", "no", "no"])
    write_text(folder / "text/test.de", ["one", "two", "three"])
    for seed in (1, 2):
        write_text(folder / f"outputs/plain.{seed}.test.out", ["yes", "yes", "yes"])
        write_text(folder / f"outputs/distilled.{seed}.test.out", ["yes", "no", "no"])
    report = make_report(folder)
    page = Page(render([report]))
    same = [note.where for note in report.notes if "the same as with seed 1" in note.text]
    assert same == [note.where for note in report.notes] == ["outputs/distilled.2", "outputs/plain.2"]
    assert "a difference of +66.67 ± 0.00 accuracy" in page.text
    assert (
        "p: McNemar’s exact test, two-sided. It is about other sentences like the 3 of the test set"
        in page.text
    )
    assert "Sentences that differ most" not in page.text
    assert "Length of the target" not in page.text
    assert "Teachers and their stores" in page.text
    record = experiment_record(report)
    assert record["signatures"] == {"accuracy": "accuracy|classes by name"}
    assert record["compared"]["test"] == "McNemar|exact"


def other_scores(**plain_2):
    """A file like those of the recipes; ``plain_2`` changes the second run of plain."""
    values = {("plain", 1): 20.0, ("distilled", 1): 21.5, ("plain", 2): 22.0, ("distilled", 2): 22.5}
    rows = [
        {"system": system, "seed": seed, "subset": "test", "tokenised": score, "sacrebleu": score + 1}
        for (system, seed), score in values.items()
    ]
    rows[2] |= plain_2
    signatures = {"test": {"tokenised": "multi-bleu.perl|case:lc", "sacrebleu": "nrefs:1"}}
    return {"format": 1, "signatures": signatures, "scores": rows}


def test_scores_of_the_experiments_own_script(folder, tmp_path):
    write_json(folder / "scores-tokenised.json", other_scores())
    report = make_report(folder)
    (other,) = report.further_scores
    assert (other.name, other.keys) == ("tokenised", ["tokenised", "sacrebleu"])
    plain, distilled = other.rows
    assert (plain.label, plain.seeds, plain.gains) == ("plain", [1, 2], {})
    assert plain.score("tokenised") == pytest.approx((21, 2**0.5, 2))
    assert distilled.gain("sacrebleu") == pytest.approx((1.0, 0.5**0.5, 2))
    text = Page(render([report])).text
    assert "Further scores: tokenised" in text
    assert "multi-bleu.perl|case:lc" in text
    assert "+1.00 ± 0.71" in text
    write_results(tmp_path / "results.json", [report])
    record = json.loads((tmp_path / "results.json").read_text())
    (experiment,) = record["experiments"]
    assert experiment["other_scores"] == {"tokenised": other_scores()}
    assert markdown_tables(experiment, ["scores-tokenised"]).splitlines() == [
        "|  | set | seeds | tokenised | sacrebleu | gain, tokenised |",
        "| --- | --- | --- | --- | --- | --- |",
        "| plain | test | 1, 2 | 21.00 ± 1.41 (20, 22) | 22.00 ± 1.41 (21, 23) |  |",
        "| distilled | test | 1, 2 | 22.00 ± 0.71 (21.5, 22.5) | 23.00 ± 0.71 (22.5, 23.5) | +1.00 ± 0.71 |",
    ]
    assert report.notes == []


def test_scores_that_do_not_fit_the_runs_are_left_out(folder):
    write_json(folder / "scores-tokenised.json", other_scores(seed=7, compounds=3.0))
    report = make_report(folder)
    plain, distilled = report.further_scores[0].rows
    assert (plain.seeds, distilled.seeds) == ([1], [1, 2])
    assert distilled.gain("tokenised") == (1.5, None, 1)
    assert (distilled.score("compounds"), distilled.gain("compounds")) == (None, None)
    assert "compounds" in render([report])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ('{"format": 1, "signatures": {}, "scores": []}', "it holds no score"),
        ('{"format": 2}', "format 2, this code reads format 1"),
        (json.dumps(other_scores(tokenised=float("nan"))), "a score is not finite"),
        (json.dumps(other_scores(tokenised="much")), "could not convert"),
        (json.dumps(other_scores() | {"signatures": {"tokenised": "case:lc"}}), "signatures must be by set"),
    ],
)
def test_files_without_scores_are_left_out(folder, content, reason):
    write_text(folder / "scores-tokenised.json", [content])
    report = make_report(folder)
    assert report.further_scores == []
    (note,) = report.notes
    assert note.where == "scores-tokenised.json"
    assert reason in note.text
    assert "Further scores" not in render([report])


JUDGES = {
    "format": 1, "title": "The judges", "head": ["judge", "right, %", "pairs"],
    "rows": [["one", 80.71, 1000], ["two <b>", None, 1234]], "remarks": ["Two is no judge."],
}  # fmt: skip


def test_tables_of_the_experiments_own_script(folder, tmp_path):
    write_json(folder / "table-judges.json", JUDGES)
    report = make_report(folder)
    (table,) = report.further_tables
    assert (table.name, table.rows) == ("judges", [["one", "80.71", "1,000"], ["two <b>", "", "1,234"]])
    text = Page(render([report])).text
    for shown in ("The judges", "two <b>", "80.71", "Two is no judge.", "table-judges.json"):
        assert shown in text
    write_results(tmp_path / "results.json", [report])
    (experiment,) = json.loads((tmp_path / "results.json").read_text())["experiments"]
    assert experiment["other_tables"] == {"judges": JUDGES}
    assert markdown_tables(experiment, ["table-judges"]).splitlines() == [
        "| judge | right, % | pairs |",
        "| --- | --- | --- |",
        "| one | 80.71 | 1,000 |",
        "| two <b> |  | 1,234 |",
    ]
    assert report.notes == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        (json.dumps(JUDGES | {"format": 2}), "format 2, this code reads format 1"),
        (json.dumps(JUDGES | {"rows": []}), "it has no row"),
        (json.dumps(JUDGES | {"head": []}), "it has no head"),
        (json.dumps(JUDGES | {"rows": [["one"]]}), "row 1 has 1 cells, the head has 3"),
        (json.dumps(JUDGES | {"rows": [["one", float("nan"), 1]]}), "a number is not finite"),
        (json.dumps(JUDGES | {"rows": [["one", [], 1]]}), "TypeError"),
    ],
)
def test_files_without_a_table_are_left_out(folder, content, reason):
    write_text(folder / "table-judges.json", [content])
    report = make_report(folder)
    assert report.further_tables == []
    (note,) = report.notes
    assert note.where == "table-judges.json"
    assert reason in note.text
    assert "The judges" not in render([report])


def test_numbers_that_json_has_not_are_null_in_the_results_file(folder, tmp_path):
    write_json(folder / "scores-tokenised.json", other_scores() | {"beside": [float("nan"), 1.5]})
    log = folder / "logs/teacher.log"
    log.write_text(log.read_text().replace("ppl 4.00", "ppl inf"))
    write_results(tmp_path / "results.json", [make_report(folder)])
    (experiment,) = json.loads((tmp_path / "results.json").read_text())["experiments"]
    assert experiment["other_scores"]["tokenised"]["beside"] == [None, 1.5]
    assert experiment["teachers"]["teacher"]["perplexity"] is None
    assert experiment["teachers"]["teacher"]["masked_accuracy"] == 62.4


def test_results_file(folder, tmp_path):
    report = make_report(folder)
    write_output(folder / "outputs/plain.1.valid.out", WORSE)
    write_results(tmp_path / "one.json", [report])
    write_results(tmp_path / "two.json", [make_report(folder, subset="valid")])
    record = json.loads((tmp_path / "one.json").read_text())
    assert list(record) == ["format", "written_by", "versions", "experiments"]
    assert {"python", "fairseq-bert-kd", "sacrebleu", "numpy"} <= set(record["versions"])
    (experiment,) = record["experiments"]
    assert experiment["code"] == "abc123"
    assert experiment["hardware"] == "2 CPU cores, no GPU"
    assert experiment["seconds"]["teacher"] == 812
    assert experiment["text_sha256"]["test.en"] == file_digest(folder / "text/test.en")
    assert len(experiment["text_sha256"]) == 6
    store = experiment["stores"]["default"]
    assert store["digest"] == TopKReader(folder / "data-bin/train.de-en.en.topk").header.digest
    assert list(store["captured_mass"]["1"]) == ["1", "2", "3"]
    assert store["captured_mass"]["1"]["3"] == pytest.approx(7 / 8, rel=1e-3)
    assert experiment["teachers"]["teacher"]["masked_accuracy"] == 62.4
    plain = next(run for run in experiment["runs"] if (run["system"], run["seed"]) == ("plain", 1))
    assert plain["updates_trained"] == 400
    assert plain["finished"] is True
    assert plain["scores"]["test"] == report.results.outputs["plain.1"].scores
    assert plain["scores"]["valid"] == plain["scores"]["test"]  # the same texts
    compared = experiment["compared"]
    assert (compared["subset"], compared["metric"]) == ("test", "bleu")
    assert compared["systems"]["distilled"]["mean_gain"] == report.main.gain.mean
    assert compared["systems"]["distilled"]["p"].keys() == {"1", "2"}
    other = json.loads((tmp_path / "two.json").read_text())["experiments"][0]
    assert other["compared"]["subset"] == "valid"
    assert other["runs"] == experiment["runs"]  # scores of both subsets, whatever the page is about
