"""The chain of docs/out_of_fold.md on a tiny corpus: teachers without a fold, their dumps, one store, a student."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.data.masked_text_dataset import MaskedTextDataset
from fairseq_bert_kd.storage.fairseq_data import open_pairs
from fairseq_bert_kd.storage.folds import Fold, FoldTeacher, in_fold
from fairseq_bert_kd.storage.merge_folds import merge_folds
from fairseq_bert_kd.storage.topk import OTHER_FOLD
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter, store_path
from fairseq_bert_kd.storage.verify import verify_store
from fairseq_bert_kd.storage.writer import StoreWriter
from tests.tiny_chain import dump, logged, train_student, train_teacher

FOLDS = ("1/2", "2/2")
TASK = "fairseq_bert_kd.tasks.conditional_masked_lm"


@pytest.fixture(scope="module")
def folded(chain, tmp_path_factory):
    """Data with the stores of two folds, the checkpoints of their teachers, and which pairs each saw in training."""
    folder = tmp_path_factory.mktemp("folded")
    data = folder / "data"
    shutil.copytree(chain.data, data)
    store_path(data, "train", "de", "en").unlink()
    teachers, seen = [], []
    original = MaskedTextDataset.__getitem__
    for fold in FOLDS:
        ids = set()

        def noting(self, index, ids=ids):
            if self.shuffle_seed is not None:  # training
                ids.add(index)
            return original(self, index)

        MaskedTextDataset.__getitem__ = noting
        try:
            save_dir = folder / f"teacher-{fold[0]}"
            teachers.append(
                train_teacher(
                    data, chain.bert, save_dir, "--teacher-fold", fold, "--max-epoch", 1, updates=99
                )
            )
        finally:
            MaskedTextDataset.__getitem__ = original
        seen.append(ids)
        assert dump(data, teachers[-1], "--teacher-fold", fold, "--gold", "--chunk-sentences", 50) == 0
    return data, teachers, seen


def fold_stores(data):
    return sorted(map(str, data.glob("train.de-en.en.topk.fold-*-of-2")))


def test_teachers_have_not_seen_what_they_score(folded):
    data, _, seen = folded
    pairs = open_pairs(data, "train", "de", "en")
    for number, path in enumerate(fold_stores(data), 1):
        mine = in_fold(pairs, Fold(number, 2))
        assert 0 < mine.sum() < len(mine)
        reader = TopKReader(path)
        assert np.array_equal(reader.scored, mine)
        assert {reader.status(i) for i in np.flatnonzero(~mine)} == {OTHER_FOLD}
        assert seen[number - 1] == set(np.flatnonzero(~mine).tolist())  # all others, and only those
        assert verify_store(path) == []


def test_show_says_that_a_sentence_is_of_another_fold(folded, capsys):
    first = fold_stores(folded[0])[0]
    other = int(np.flatnonzero(~TopKReader(first).scored)[0])
    assert cli_main(["store", "show", first, str(other)]) == 0
    said = "the teacher has not scored it: it is in another fold, for another teacher (other_fold)"
    assert said in capsys.readouterr().out


def test_merged_store_has_each_sentence_by_its_own_teacher_and_trains_a_student(folded, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(folded[0], data)
    parts = fold_stores(data)
    assert cli_main(["store", "merge", *reversed(parts)]) == 0
    path = store_path(data, "train", "de", "en")
    assert verify_store(path) == []
    merged, readers = TopKReader(path), [TopKReader(part) for part in parts]
    assert [teacher.fold for teacher in merged.info.folds] == list(FOLDS)
    assert [teacher.teacher_digest for teacher in merged.info.folds] == [
        reader.info.teacher_digest for reader in readers
    ]
    assert merged.missing_sentences == 0
    for i in range(len(merged)):
        (owner,) = (reader for reader in readers if not reader.is_missing(i))
        assert merged.rows(i).tobytes() == owner.rows(i).tobytes()
    summaries = [reader.header.summary for reader in readers]
    right = sum(summary["gold_accuracy"] * summary["scored_rows"] for summary in summaries)
    assert merged.header.summary["gold_accuracy"] == pytest.approx(right / merged.header.layout.rows)
    capsys.readouterr()
    assert cli_main(["store", "stat", str(path)]) == 0
    out = capsys.readouterr().out
    assert "fold 2/2" in out
    assert "out of fold: each sentence by a teacher that was trained without it" in out
    assert cli_main(["store", "stat", str(path), "--json"]) == 0
    gold = json.loads(capsys.readouterr().out)["gold"]
    assert gold["accuracy"] == pytest.approx(merged.header.summary["gold_accuracy"])
    assert gold["perplexity"] == pytest.approx(np.exp(merged.header.summary["gold_nll"]), rel=1e-2)
    assert [gold["folds"][fold]["rows"] for fold in FOLDS] == [s["scored_rows"] for s in summaries]
    assert sum(gold["ranks"]) == gold["rows"]
    train_student(data, tmp_path / "student", "--kd-check", "all", updates=1)
    # the merge goes on where it stopped, and refuses to replace another store
    assert cli_main(["store", "merge", *parts]) == 0
    assert "was complete already" in capsys.readouterr().out
    assert cli_main(["store", "merge", *parts, "--overwrite", "--remove-shards"]) == 0
    assert not fold_stores(data)


def test_plan_counts_the_rows_that_the_store_of_a_fold_has(folded, capsys):
    """Those of other folds are zeros in it."""
    data, (first, _), _ = folded
    assert dump(data, first, "--teacher-fold", "1/2", "--gold", "--plan") == 0
    out = capsys.readouterr().out
    rows = TopKReader(fold_stores(data)[0]).header.layout.rows
    assert re.search(rf"target positions +{rows:,}\n", out)


def test_shards_of_folds_give_the_same_store(folded, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folded[0], data)
    whole = fold_stores(data)[0]
    content = Path(whole).read_bytes()
    for shard in ("1/2", "2/2"):
        options = ("--teacher-fold", "1/2", "--gold", "--chunk-sentences", 50, "--shard", shard)
        assert dump(data, folded[1][0], *options) == 0
    shards = sorted(map(str, data.glob("*.fold-1-of-2.shard-*")))
    assert cli_main(["store", "merge", *shards, "--output", str(tmp_path / "joined")]) == 0
    assert (tmp_path / "joined").read_bytes() == content


def test_a_merge_goes_on_after_a_kill_with_the_same_bytes(folded, tmp_path, monkeypatch):
    parts = fold_stores(folded[0])
    merge_folds(parts, tmp_path / "whole")
    wrote = []
    original = StoreWriter.copy_chunk

    def failing(self, chunk, data, entry):
        if wrote:
            raise OSError("killed")
        wrote.append(chunk)
        original(self, chunk, data, entry)

    with monkeypatch.context() as patch:
        patch.setattr("fairseq_bert_kd.storage.writer.StoreWriter.copy_chunk", failing)
        with pytest.raises(OSError, match="killed"):
            merge_folds(parts, tmp_path / "part")
    assert not (tmp_path / "part").exists()
    merge_folds(parts, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == (tmp_path / "whole").read_bytes()


def refused(capsys, *arguments):
    capsys.readouterr()
    assert cli_main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def test_a_teacher_that_has_seen_the_fold_is_refused(chain, folded, tmp_path, capsys):
    data, (first, _), _ = folded
    for checkpoint, fold, why in (
        (first, "2/2", "was trained with --teacher-fold 1/2"),
        (first, "1/4", "was trained with --teacher-fold 1/2"),
        (chain.teacher, "1/2", "was trained on all pairs"),
    ):
        err = refused(capsys, "dump", data, "--path", checkpoint, "--cpu", "--teacher-fold", fold)
        assert why in err
        assert "has seen sentences of this fold" in err
    err = refused(capsys, "dump", data, "--path", first, "--cpu")
    assert "give dump --teacher-fold 1/2 too" in err
    err = refused(capsys, "dump", data, "--path", first, "--cpu", "--subset", "valid,train1")
    assert "has seen the other pairs of `train1`" in err  # fairseq adds it to `train`
    with pytest.raises(ValueError, match="trained with --teacher-fold 1/2 and has seen all pairs but those"):
        train_student(data, tmp_path / "student", "--kd-live-teacher", first, updates=1)
    assert dump(data, first, "--subset", "valid", "--store-dir", tmp_path) == 0  # nobody has learned from it


def test_folds_that_are_no_division_are_refused(folded, tmp_path, capsys):
    data, *_ = folded
    first, second = fold_stores(data)
    assert "fold 2/2 is missing" in refused(capsys, "store", "merge", first)
    assert "fold 1/2 is given twice" in refused(capsys, "store", "merge", first, first, second)
    shutil.copytree(data, tmp_path / "data")
    reader = TopKReader(second)
    for name, folds in (
        ("overlap", (FoldTeacher("2/3", "t", "d"),)),
        ("seen", (FoldTeacher("2/2", "t", TopKReader(first).info.teacher_digest),)),
        ("wrong", (FoldTeacher("2/2", "t", "d"),)),
    ):
        info = replace(reader.info, folds=folds, teacher_digest=folds[0].teacher_digest)
        with TopKWriter(tmp_path / f"{name}.fold-2", info, reader.lengths, reader.symbols()) as writer:
            for chunk in writer.chunks():
                held = TopKReader(first) if name == "wrong" else reader
                writer.write_chunk(chunk, held.checked_chunk(chunk), gold_correct=0, gold_nll=0.0)
            writer.finish()
    out = tmp_path / "out"
    for name, why in (
        ("overlap", "folds of 2 and of 3 overlap"),
        ("seen", "is of the same checkpoint as another fold"),
        ("wrong", "does not hold exactly the sentences of its fold"),
    ):
        err = refused(capsys, "store", "merge", first, tmp_path / f"{name}.fold-2", "--output", out)
        assert why in err
    assert not out.exists()
    # one fold alone is no store to learn from
    shutil.copy(first, store_path(tmp_path / "data", "train", "de", "en"))
    with pytest.raises(ValueError, match="holds fold 1/2 alone"):
        train_student(tmp_path / "data", tmp_path / "student", updates=1)


def test_training_does_not_go_on_with_other_pairs(chain, folded, tmp_path):
    data, (first, _), _ = folded
    for number, options in enumerate((("--teacher-fold", "2/2"), ())):
        with pytest.raises(ValueError, match="trained with --teacher-fold 1/2"):
            train_teacher(
                data, chain.bert, tmp_path / str(number), "--restore-file", first, *options, updates=9
            )
    with pytest.raises(ValueError, match="trained with all pairs"):
        train_teacher(
            data, chain.bert, tmp_path / "c", "--finetune-from-model", chain.teacher, "--teacher-fold", "1/2"
        )
    with logged(TASK) as messages:
        train_teacher(
            data,
            chain.bert,
            tmp_path / "d",
            "--restore-file",
            first,
            "--teacher-fold",
            "1/2",
            "--max-epoch",
            1,
        )
    assert any("--teacher-fold 1/2:" in message for message in messages)
    with pytest.raises(ValueError, match="--cmlm-one-sided trains on single sentences"):
        train_teacher(data, chain.bert, tmp_path / "e", "--teacher-fold", "1/2", "--cmlm-one-sided")
