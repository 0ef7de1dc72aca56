import json
import re
import subprocess
import sys

import pytest

from fairseq_bert_kd.cli.main import cli_main
from tests.report.small_experiments import write_experiment


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "out")


@pytest.fixture
def run(tmp_path, capsys):
    def run(*arguments):
        status = cli_main(["report", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_page_results_and_figures(run, folder, tmp_path):
    page, results, figures = tmp_path / "new/report.html", tmp_path / "results.json", tmp_path / "figures"
    arguments = (folder, "--output", page, "--results", results, "--figures", figures)
    status, out, _ = run(*arguments)
    assert status == 0
    names = ["learning_curves.png", "gain_by_length.png", "gain_by_position.png", "k_and_t.png", "gains.png"]
    assert out.splitlines() == [str(path) for path in (page, results, *(figures / name for name in names))]
    assert all((figures / name).read_bytes().startswith(b"\x89PNG") for name in names)
    before = page.read_bytes(), results.read_bytes()
    assert run(*arguments)[0] == 2
    assert run(*arguments, "--overwrite")[0] == 0
    assert (page.read_bytes(), results.read_bytes()) == before


def test_scores_are_those_of_the_score_command(run, folder, tmp_path, capsys):
    files = {
        name: ",".join(f"{folder}/outputs/{name}.{seed}.test.out" for seed in (1, 2))
        for name in ("plain", "distilled")
    }
    command = [
        "score",
        "--reference",
        str(folder / "text/test.en"),
        *(f"{name}={paths}" for name, paths in files.items()),
    ]
    assert cli_main([*command, "--json", str(tmp_path / "scores.json")]) == 0
    printed = capsys.readouterr().out
    run(folder, "--out", tmp_path / "report.html", "--results", tmp_path / "results.json")
    scored = json.loads((tmp_path / "scores.json").read_text())
    reported = json.loads((tmp_path / "results.json").read_text())["experiments"][0]
    assert reported["signatures"] == scored["signatures"]
    for entry in reported["runs"]:
        expected = scored["systems"][entry["system"]][entry["seed"] - 1]
        assert entry["scores"]["test"]["bleu"] == expected["bleu"]
        assert entry["scores"]["test"]["chrf2"] == expected["chrf2"]
        assert entry["scores"]["test"]["length_ratio"] == expected["length_ratio"]
    gain = reported["compared"]["systems"]["distilled"]["mean_gain"]
    assert re.search(rf"distilled against plain: \+{gain:.2f} BLEU", printed)


@pytest.mark.parametrize(
    ("existing", "arguments"),
    [
        ("report.html", []),
        ("results.json", ["--results", "results.json"]),
        ("figures/gains.png", ["--figures", "figures"]),
    ],
)
def test_nothing_is_replaced_without_overwrite(run, folder, tmp_path, monkeypatch, existing, arguments):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / existing
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    status, _, err = run(folder, "--out", "report.html", *arguments)
    assert status == 2
    assert f"`{existing}` exists; pass --overwrite to replace it" in err
    assert path.read_text() == "precious"
    assert existing == "report.html" or not (tmp_path / "report.html").exists()


def test_user_errors(run, folder, tmp_path, capsys):
    out = ("--out", tmp_path / "r.html")
    (tmp_path / "empty").mkdir()
    assert "empty` is not an experiment: it has no experiment.json" in run(tmp_path / "empty", *out)[2]
    assert "none` is not an experiment" in run(tmp_path / "none", *out)[2]
    assert "an experiment is given twice" in run(folder, f"{folder}/", *out)[2]
    (tmp_path / "link").symlink_to(folder)
    assert "an experiment is given twice" in run(folder, tmp_path / "link", *out)[2]
    assert "--output and --results are both" in run(folder, *out, "--results", tmp_path / "r.html")[2]
    assert "is a folder; name a file" in run(folder, "--out", tmp_path)[2]
    assert not (tmp_path / "r.html").exists()
    with pytest.raises(SystemExit):
        run(folder, *out, "--sentences", "a")
    assert "expected numbers like 3,17, got 'a'" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_without_the_extra(run, folder, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    status, _, err = run(folder, "--out", tmp_path / "r.html")
    assert status == 2
    assert f"a report needs {module}" in err
    assert "pip install 'fairseq-bert-kd[report]'" in err


def test_requested_sentences_are_shown(run, folder, tmp_path):
    run(folder, "--out", tmp_path / "r.html", "--sentences", "4,77")
    page = (tmp_path / "r.html").read_text()
    assert "Training sentence 4" in page
    assert "77 is left out: the store has sentences 0 to 4" in page


LIGHT = """
import json, sys
from fairseq_bert_kd.cli.main import cli_main
status = cli_main(sys.argv[1:])
heavy = {"torch", "fairseq", "transformers", "tokenizers"} & set(sys.modules)
json.dump([status, sorted(heavy)], sys.stderr)
"""


def test_a_report_needs_neither_torch_nor_fairseq(folder, tmp_path):
    command = [sys.executable, "-c", LIGHT, "report", str(folder), "--out", str(tmp_path / "r.html")]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(child.stderr.splitlines()[-1].removeprefix("\n")) == [0, []]
