"""A file that cannot be written is refused before any work: with --overwrite a folder was noticed after all of it."""

import os

import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.output_files import check_new_file, whole_file, write_text


def test_file_that_is_there(tmp_path):
    path = tmp_path / "out"
    check_new_file("--output", path, overwrite=False)
    path.touch()
    with pytest.raises(FileExistsError, match=r"--output `.*out` exists; pass --overwrite to replace it"):
        check_new_file("--output", path, overwrite=False)
    check_new_file("--output", path, overwrite=True)


def test_device():
    with pytest.raises(ValueError, match=f"--json `{os.devnull}` is a device; name a file"):
        check_new_file("--json", os.devnull, overwrite=True)


def test_text_replaces_what_a_link_names(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for text in ("é\n", "ü\n"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "file").read_text(encoding="utf-8") == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]
    assert (tmp_path / "link").is_symlink()


def test_file_stays_as_it_was_where_the_work_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def work():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("file", "before")]


def test_absent_folder(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"folder of --json `.*/no/x` does not exist. Create it"):
        check_new_file("--json", tmp_path / "no" / "x", overwrite=True)
    monkeypatch.chdir(tmp_path)
    check_new_file("--json", "x", overwrite=False)  # of the folder in which one is


@pytest.mark.parametrize(
    ("command", "work"),
    [
        (["score", "--reference", "text", "text", "--json"], "score_translations.read_lines"),
        (["gains", "--reference", "text", "a=text", "b=text", "--json"], "gains.read_reference"),
        (["rerank", "text", "--by", "mbr", "--output"], "rerank.read_nbest"),
        (["mine-negatives", "--input", "text", "--kinds", "random", "--output"], "mine_negatives.read_pairs"),
        (["encode", "text", "--path", "bert", "--output"], "encode.LineEncoder"),
        (["augment", "text", "--task", "sst2", "--masked-lm", "bert", "--output"], "augment.header"),
        (["evaluate-sentences", "data", "--path", "text", "--json"], "sentence_predictions.load"),
    ],
)
def test_folder_in_the_place_of_a_file_is_refused_before_the_work(
    tmp_path, monkeypatch, capsys, command, work
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("a\n", encoding="utf-8")
    os.mkdir("folder")
    monkeypatch.setattr(f"fairseq_bert_kd.cli.{work}", None, raising=False)  # not reached
    assert cli_main([*command, "folder", "--overwrite"]) == 2
    assert "`folder` is a folder; name a file" in capsys.readouterr().err
