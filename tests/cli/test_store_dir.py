"""Stores in another folder than their data, which may be read-only."""

import os
import shutil

import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.store_folders import store_folders
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from tests.tiny_chain import dump, logged, train_student


@pytest.fixture
def data(chain, tmp_path):
    """A private copy of the data folder, without its store."""
    shutil.copytree(chain.data, tmp_path / "data")
    store_path(tmp_path / "data", "train", "de", "en").unlink()
    return tmp_path / "data"


@pytest.fixture
def read_only(monkeypatch):
    """Makes a folder read-only to `os.access`, which is what a read-only mount does; root may write to the rest."""
    folders = set()
    allowed = os.access

    def access(path, mode):
        return not (mode & os.W_OK and os.path.abspath(path) in folders) and allowed(path, mode)

    monkeypatch.setattr(os, "access", access)
    return lambda folder: folders.add(str(folder))


def test_a_store_elsewhere_is_the_same_file_and_training_finds_it(chain, data, tmp_path):
    elsewhere = tmp_path / "stores" / "here"  # created
    assert dump(data, chain.teacher, "--store-dir", elsewhere) == 0
    assert not list(data.glob("*.topk"))
    [store] = elsewhere.iterdir()
    assert store.read_bytes() == store_path(chain.data, "train", "de", "en").read_bytes()
    with logged("fairseq_bert_kd.data.teacher_stores") as messages:
        train_student(data, tmp_path / "student", "--kd-store-dir", elsewhere, updates=1)
    assert any(f"teacher rows for train: {store}, k=8 of 8" in message for message in messages)


def test_shards_are_joined_elsewhere_too(chain, data, tmp_path):
    for shard in ("2/2", "1/2"):
        assert dump(data, chain.teacher, "--store-dir", tmp_path / "stores", "--shard", shard) == 0
    assert cli_main(["store", "merge", *map(str, (tmp_path / "stores").glob("*.shard-*"))]) == 0
    joined = store_path(tmp_path / "stores", "train", "de", "en")
    assert joined.read_bytes() == store_path(chain.data, "train", "de", "en").read_bytes()


def test_a_folder_that_cannot_be_written_to_is_refused_with_the_option(
    chain, data, tmp_path, capsys, read_only
):
    read_only(data)
    assert dump(data, chain.teacher) == 2
    said = capsys.readouterr().err
    assert f"{data}: nothing can be written there (read-only, or without permission)" in said
    assert "--store-dir" in said
    assert "--kd-store-dir" in said
    assert not list(data.glob("*.topk*"))
    assert dump(data, chain.teacher, "--store-dir", tmp_path / "stores") == 0
    read_only(tmp_path / "stores")
    assert dump(data, chain.teacher, "--store-dir", tmp_path / "stores") == 0  # finished: nothing is written
    assert "complete already" in capsys.readouterr().out


def test_plan_says_where_nothing_can_be_written(chain, data, tmp_path, capsys, read_only):
    assert dump(data, chain.teacher, "--plan", "--store-dir", tmp_path / "later" / "stores") == 0
    assert "nothing can be written there" not in capsys.readouterr().out
    assert not (tmp_path / "later").exists()
    read_only(data)
    assert dump(data, chain.teacher, "--plan") == 0
    said = capsys.readouterr().out
    assert "nothing can be written there" in said
    assert "--store-dir" in said


def test_an_import_goes_elsewhere_too(chain, tmp_path, capsys, read_only):
    pytest.importorskip("pyarrow")
    table = tmp_path / "rows.parquet"
    assert cli_main(["store", "export", str(store_path(chain.data, "train", "de", "en")), str(table)]) == 0
    command = [
        "store",
        "import",
        str(table),
        "--data",
        str(chain.data),
        "--source-lang",
        "de",
        "--target-lang",
        "en",
    ]
    assert cli_main([*command, "--store-dir", str(tmp_path / "stores")]) == 0
    assert len(TopKReader(store_path(tmp_path / "stores", "train", "de", "en"))) == 120
    read_only(chain.data)
    assert cli_main([*command, "--overwrite"]) == 2
    assert "nothing can be written there" in capsys.readouterr().err


def test_a_store_that_is_not_there_names_both_remedies(data, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"does not exist; write it with `fairseq-bert-kd dump`.*--kd-store-dir"
    ):
        train_student(data, tmp_path / "student", updates=1)


def test_one_folder_of_stores_for_each_data_folder():
    assert store_folders(["a", "b"], None, "--x") == ["a", "b"]
    assert store_folders(["a", "b"], os.pathsep.join("cd"), "--x") == ["c", "d"]
    with pytest.raises(
        ValueError, match=r"--x must name a folder for each data folder, .*: 2, got 1 \(`c`\)"
    ):
        store_folders(["a", "b"], "c", "--x")


def test_stores_of_two_data_folders_do_not_share_a_folder():
    assert store_folders(["a", "a", "b"], "c:c:d", "--x") == ["c", "c", "d"]  # a folder that counts twice
    with pytest.raises(
        ValueError,
        match=r"--x must name another folder for each .*/c would hold the stores of .*/a and of .*/b",
    ):
        store_folders(["a", "b"], "c:./c", "--x")
    with pytest.raises(
        ValueError, match=r"--x names two folders for the stores of .*/a: .*/c and .*/d; give one"
    ):
        store_folders(["a", "a"], "c:d", "--x")


def test_a_dump_does_not_write_one_store_over_another(chain, data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "second")
    shutil.copytree(data, tmp_path / "third")
    folders, stores = f"{tmp_path / 'second'}:{tmp_path / 'third'}", tmp_path / "stores"
    assert dump(folders, chain.teacher, "--store-dir", f"{stores}:{stores}", "--overwrite") == 2
    assert "--store-dir must name another folder for each data folder" in capsys.readouterr().err
    assert not stores.exists()
