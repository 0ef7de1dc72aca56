import json
import re
from dataclasses import replace

import pytest

from examples.fill_tables import PLACE, filled, groups_of, growth_table, markdown_tables, pages
from fairseq_bert_kd.report.experiment_report import make_report
from fairseq_bert_kd.report.results_file import experiment_record, write_results
from fairseq_bert_kd.storage.folds import FoldTeacher
from tests.report.small_experiments import (
    BETTER,
    REFERENCE,
    WORSE,
    add_run,
    done,
    log_lines,
    write_experiment,
    write_text,
)
from tests.storage.small_stores import PAIRS, make_info, write_data, write_store


def cells(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]


def test_the_main_table_has_what_the_results_file_says(tmp_path):
    record = experiment_record(make_report(write_experiment(tmp_path / "toy", store=False)))
    head, _, plain, distilled = cells(markdown_tables(record))
    assert head == ["", "BLEU by seed", "mean ± sd", "chrF2", "length ratio", "gain", "p by seed"]
    scores = {(run["system"], run["seed"]): run["scores"]["test"] for run in record["runs"]}
    assert plain[:2] == [
        "plain",
        ", ".join(f"{seed}: {scores['plain', seed]['bleu']:.2f}" for seed in (1, 2)),
    ]
    assert plain[-2:] == ["", ""]
    compared = record["compared"]["systems"]["distilled"]
    assert distilled[-2] == f"+{compared['mean_gain']:.2f} ± {compared['sd_gain']:.2f}"
    assert distilled[-1] == ", ".join(f"{seed}: {p:.3f}" for seed, p in compared["p"].items())


def test_an_ablation_is_below_the_main_systems_in_the_order_of_its_values(tmp_path):
    folder = write_experiment(tmp_path / "toy", store=False)
    add_run(folder, "topk-64", 1, REFERENCE, group="topk", value="64", label="k = 64")
    add_run(folder, "topk-8", 1, BETTER, group="topk", value="8", label="k = 8 | eight")
    add_run(folder, "weight-1", 1, None, group="weight", value="1")
    record = experiment_record(make_report(folder))
    assert groups_of(record) == ["main", "topk"]
    text = markdown_tables(record, ["topk"])
    assert text.startswith("**Teacher tokens per position, k**\n\n| ")
    assert [row[0] for row in cells(text.replace(r" \| ", " or "))[2:]] == [
        "plain",
        "distilled",
        "k = 8 or eight",
        "k = 64",
    ]
    *_, last = cells(text)
    assert last[1:3] == ["1", "100.00"]
    gain = record["compared"]["systems"]["topk-64"]["gains"]["1"]
    assert last[3:] == [f"+{gain:.2f}", f"1: +{gain:.2f}"]


def test_a_run_whose_output_is_not_there_yet_is_left_out(tmp_path):
    folder = write_experiment(tmp_path / "toy", store=False, runs=False)
    add_run(folder, "plain", 1, WORSE)
    add_run(folder, "plain", 2, None)
    add_run(folder, "distilled", 1, None)
    _, _, plain = cells(markdown_tables(experiment_record(make_report(folder))))
    assert plain[0] == "plain"
    assert "," not in plain[1]


def test_stores_and_times_have_tables_of_their_own(tmp_path):
    folder = write_experiment(tmp_path / "toy", store=False)
    info = replace(make_info(gold=True), teacher="teacher/checkpoint_best.pt")
    write_store(write_data(folder / "data-bin") / "train.de-en.en.topk", info, PAIRS)
    record = experiment_record(make_report(folder))
    text = markdown_tables(record, ["stores", "times"])
    stores, times = (cells(part) for part in text.split("\n\n"))
    row = dict(zip(stores[0], stores[2], strict=True))
    store = record["stores"]["default"]
    assert row["store"] == "default"
    assert row["masked accuracy, perplexity (validation)"] == "62.4 %, 4.00"
    assert (
        row["accuracy, perplexity (training targets)"] == "–"
    )  # this store was written without their counts
    store |= {"gold_accuracy": 0.789, "gold_perplexity": 2.866}
    assert "| 78.9 %, 2.87 |" in markdown_tables(record, ["stores"])
    assert row["k = 1 holds at T = 1"] == f"{100 * store['captured_mass']['1']['1']:.1f} %"
    assert row["k = 64 holds at T = 1"] == "–"  # it stores three
    assert times[2:] == [
        ["teacher", "1", "13 min 32 s"],
        ["students/plain", "2", "1 min 40 s"],
        ["outputs/plain", "1", "7 s"],
    ]


def test_a_store_out_of_fold_shows_what_the_teachers_of_its_folds_know(tmp_path):
    folder = write_experiment(tmp_path / "toy", store=False)
    teachers = tuple(FoldTeacher(f"{i}/2", f"teacher-fold-{i}-of-2/checkpoint_best.pt", "d") for i in (1, 2))
    info = replace(make_info(gold=True), teacher="one teacher for each fold", folds=teachers)
    write_store(write_data(folder / "data-bin") / "train.de-en.en.folds-2.topk", info, PAIRS)
    for number, accuracy in ((1, 60.0), (2, 61.0)):
        lines = [line.replace("bleu 20.5", f"masked_accuracy {accuracy}") for line in log_lines(200 * number)]
        write_text(folder / "logs" / f"teacher-fold-{number}-of-2.log", [*lines, done()])
    record = experiment_record(make_report(folder))
    assert [teacher["fold"] for teacher in record["stores"]["folds-2"]["folds"]] == ["1/2", "2/2"]
    head, _, row = cells(markdown_tables(record, ["stores"]))
    row = dict(zip(head, row, strict=True))
    assert row["teacher's updates"] == "200 to 400"
    assert row["masked accuracy, perplexity (validation)"] == "60.5 %, 10.00"  # of 60 and 61 %, 16 and 4


def test_a_group_without_scores_is_an_error_and_nothing_at_all_gives_no_table(tmp_path):
    folder = write_experiment(tmp_path / "toy", store=False, runs=False)
    record = experiment_record(make_report(folder))
    assert markdown_tables(record).strip() == ""
    with pytest.raises(ValueError, match="group `topk` has a score; there are: none"):
        markdown_tables(record, ["topk"])


def growing(folder, numbers):
    """Records of experiments that differ in their training text."""
    records = []
    for number in numbers:
        made = write_experiment(folder / f"pairs-{number}", store=False)
        records.append(experiment_record(make_report(made)) | {"training_pairs": number})
    return records


def test_experiments_of_a_task_share_one_table_by_their_training_pairs(tmp_path):
    large, small = growing(tmp_path, (5000, 1000))
    compared = small["compared"]["systems"]["distilled"]
    small["teachers"]["teacher"] |= {
        "updates": 1234,
        "best_at": 900,
        "masked_accuracy": 41.25,
        "perplexity": 40.0,
    }
    compared |= {"mean_gain": -1.5, "sd_gain": 0.25}
    head, _, first, second = cells(growth_table([large, small]))
    assert head == [
        "training pairs",
        "teacher's updates",
        "masked accuracy, perplexity (validation)",
        "plain, BLEU",
        "distilled, BLEU",
        "gain",
        "p by seed",
    ]
    main = {row[0]: row for row in cells(markdown_tables(large, ["main"]))}
    assert second[0] == "5,000"
    assert second[3:] == [main["plain"][2], main["distilled"][2], *main["distilled"][-2:]]
    assert first[:3] == ["1,000", "900 of 1,234", "41.2 %, 40.00"]  # a later checkpoint was worse
    assert second[1] == f"{large['teachers']['teacher']['updates']:,}"
    assert first[5] == "−1.50 ± 0.25"


def test_experiments_that_differ_do_not_share_one_table(tmp_path):
    one, other = growing(tmp_path, (1000, 5000))
    with pytest.raises(ValueError, match="same task, size, teacher, baseline, main, metric"):
        growth_table([one, other | {"task": "another"}])
    with pytest.raises(ValueError, match="same task, size, teacher, baseline, main, metric, lowercase"):
        growth_table([one, other | {"lowercase": True}])
    with pytest.raises(ValueError, match="must have the same reference, theirs differ"):
        growth_table([one, other | {"text_sha256": {"test.en": "another"}}])
    with pytest.raises(ValueError, match="own number of training pairs, these have 1000, 1000"):
        growth_table([one, other | {"training_pairs": 1000}])
    with pytest.raises(ValueError, match="these have None, 5000"):
        growth_table([one | {"training_pairs": None}, other])
    other["runs"] = [run for run in other["runs"] if run["system"] == "plain"]
    with pytest.raises(ValueError, match="5,000 pairs has no gain of `distilled` over `plain` yet"):
        growth_table([one, other])


def test_a_page_can_have_the_table_of_all_experiments_of_a_file(tmp_path):
    folders = [write_experiment(tmp_path / name, store=False) for name in ("one", "two")]
    write_text = folders[0] / "text" / "train.de"
    write_text.write_text(write_text.read_text() + "ein Satz mehr\n")
    reports = [make_report(folder) for folder in folders]
    write_results(tmp_path / "results.json", reports)
    page = tmp_path / "README.md"
    page.write_text("<!-- table: results.json training-pairs -->\n<!-- end of table -->\n")
    numbers = sorted(report.training_pairs for report in reports)
    assert [row[0] for row in cells(filled(page))[2:]] == [f"{number:,}" for number in numbers]


def test_places_in_a_page_are_filled_and_the_rest_is_kept(tmp_path):
    write_results(tmp_path / "results.json", [make_report(write_experiment(tmp_path / "toy", store=False))])
    page = tmp_path / "README.md"
    page.write_text("before\n\n<!-- table: results.json main -->\nold\n<!-- end of table -->\n\nafter\n")
    text = filled(page)
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert cells(text) == cells(
        markdown_tables(json.loads((tmp_path / "results.json").read_text())["experiments"][0])
    )
    page.write_text(text)
    assert filled(page) == text
    page.write_text(text.replace("results.json main", "results.json weight"))
    with pytest.raises(
        ValueError, match=re.escape(f"{page}, `results.json`: no system of the group `weight`")
    ):
        filled(page)
    page.write_text(text.replace("results.json main", "results.json 'learning rate'"))
    with pytest.raises(ValueError, match="no system of the group `learning rate`"):
        filled(page)


@pytest.mark.parametrize(
    "rest", ["", "kept\n<!-- table: results.json main -->\nold\n<!-- end of table -->\n"]
)
def test_a_place_without_an_end_takes_nothing_with_it(tmp_path, rest):
    write_results(tmp_path / "results.json", [make_report(write_experiment(tmp_path / "toy", store=False))])
    page = tmp_path / "README.md"
    page.write_text(f"<!-- table: results.json main -->\nold\n{rest}")
    with pytest.raises(ValueError, match=re.escape(f"{page} lacks `<!-- end of table -->` after")):
        filled(page)


@pytest.mark.parametrize("page", pages(), ids=lambda page: f"{page.parent.name}/{page.name}")
def test_tables_in_our_pages_are_those_of_the_results_files(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- table:") == len(PLACE.findall(text))
    assert filled(page) == text


def test_results_name_no_folder_of_a_machine():
    files = [file for page in pages() for file in page.parent.glob("results/*.json")]
    assert files
    for file in files:
        assert re.findall(r"(?<![\w.\])}*])/\w+/[\w/.-]*", file.read_text(encoding="utf-8")) == [], file


def test_gains_by_length_and_position(tmp_path):
    interval = {"low": -0.25, "high": 1.5}
    gains = {
        "baseline": "plain", "system": "distilled", "metric": "bleu", "order": 2,
        "reference_length": [{"shortest": 5, "longest": 10, "sentences": 1290, "gain": -0.034, **interval}],
        "position": [{"first": 0, "last": 20, "ngrams": 2397, "baseline": 50.188, "gain": 0.862, **interval}],
    }  # fmt: skip
    (tmp_path / "gains.json").write_text(json.dumps(gains))
    page = tmp_path / "page.md"
    page.write_text("<!-- table: gains.json position reference_length -->\n<!-- end of table -->\n")
    text = filled(page)
    assert "| part of the reference | 2-grams | plain | gain, per 100 | interval |" in text
    assert "| 0 to 20 % | 2,397 | 50.19 | +0.86 | −0.25 to +1.50 |" in text
    assert "| words of the reference | sentences | gain, BLEU | interval |" in text
    assert "| 5 to 10 | 1,290 | −0.03 | −0.25 to +1.50 |" in text
    page.write_text(text.replace("gains.json position", "gains.json source_length"))
    with pytest.raises(
        ValueError, match="no gains of the name `source_length`; there are: reference_length, position"
    ):
        filled(page)


def test_files_of_one_table_each_share_it(tmp_path):
    def table(name, **changed):
        record = {"format": 1, "title": "Ranking", "head": ["", "MRR"], "rows": [[name, 0.25]]} | changed
        (tmp_path / f"{name}.json").write_text(json.dumps(record))

    table("one")
    table("two")
    page = tmp_path / "page.md"
    page.write_text("<!-- table: one.json two.json -->\n<!-- end of table -->\n")
    assert filled(page).splitlines()[2:6] == [
        "|  | MRR |",
        "| --- | --- |",
        "| one | 0.25 |",
        "| two | 0.25 |",
    ]
    table("two", head=["", "Hits@1"])
    with pytest.raises(
        ValueError, match=r"must have the same columns, these have \[\['', 'Hits@1'\], \['', 'MRR'\]\]"
    ):
        filled(page)
