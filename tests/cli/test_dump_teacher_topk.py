import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary, data_utils

from fairseq_bert_kd.cli.run_dump import check_same_infos, say_room, shards_of_another_split
from fairseq_bert_kd.storage.merge import merge_shards
from fairseq_bert_kd.storage.shards import WHOLE, Shard, shard_path
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from fairseq_bert_kd.storage.verify import verify_store
from fairseq_bert_kd.storage.work_file import work_path
from fairseq_bert_kd.teachers import distributed
from fairseq_bert_kd.teachers.chunk_scorer import ChunkScorer
from fairseq_bert_kd.teachers.distributed import launch
from fairseq_bert_kd.teachers.dump import StoreDump
from fairseq_bert_kd.tokenization.dictionary import excluded_ids
from tests import tiny_chain
from tests.cli.launched_work import divide_by_nothing, open_what_is_not_there, write_after_the_other
from tests.storage.small_stores import make_info
from tests.tiny_chain import (
    build_teacher_folder,
    dump,
    preprocess,
    tokenize_corpus,
    train_teacher,
    write_corpus,
)
from tests.two_workers import free_port


@pytest.fixture
def data(chain, tmp_path):
    """A private copy of the data folder, without its store."""
    shutil.copytree(chain.data, tmp_path / "data")
    store_path(tmp_path / "data", "train", "de", "en").unlink()
    return tmp_path / "data"


def load_pairs(data, split):
    dictionary = Dictionary.load(str(data / "dict.en.txt"))
    prefix = str(data / f"{split}.de-en.")
    return dictionary, *(data_utils.load_indexed_dataset(prefix + lang, dictionary) for lang in ("de", "en"))


def independent_logits(checkpoint, dictionary, source, target, hidden_positions):
    """Teacher logits by transformers alone, from the checkpoint's raw tensors, one unpadded pair.

    Knows the layout [CLS] source [SEP] target [SEP] and nothing of our model class.
    """
    import transformers

    state = torch.load(checkpoint, weights_only=True)
    spec = json.loads(state["cfg"]["model"]["teacher_spec"])
    weights = state["model"]
    config = transformers.BertConfig(**{k: v for k, v in spec["config"].items() if k != "model_type"})
    bert = transformers.BertModel(config, add_pooling_layer=False).eval()
    bert.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}
    )
    cls, sep, mask = 2, 3, 4  # tests/tokenization/tiny_tokenizers.py
    target_ids = weights["target_to_teacher"][target].tolist()
    for position in hidden_positions:
        target_ids[position] = mask
    ids = [cls, *weights["source_to_teacher"][source[:-1]].tolist(), sep, *target_ids]
    segments = [0] * (len(source) + 1) + [1] * len(target)
    with torch.no_grad():
        hidden = bert(torch.tensor([ids]), token_type_ids=torch.tensor([segments]))[0][0, -len(target) :]
        hidden = torch.nn.functional.gelu(
            hidden @ weights["head.dense.weight"].T + weights["head.dense.bias"]
        )
        hidden = torch.nn.functional.layer_norm(
            hidden,
            hidden.shape[-1:],
            weights["head.layer_norm.weight"],
            weights["head.layer_norm.bias"],
            1e-12,
        )
        logits = hidden @ weights["head.projection.weight"].T + weights["head.projection.bias"]
    assert target_ids.count(sep) == (0 if len(target) - 1 in hidden_positions else 1)
    return logits  # (tgt_len, dictionary)


@pytest.mark.parametrize(("passes", "max_tokens"), [(7, 8192), (3, 60), (1, 64)])
def test_top_k_equals_an_independent_computation_for_every_position(chain, data, passes, max_tokens):
    assert dump(data, chain.teacher, "--subset", "valid", "--passes", passes, "--max-tokens", max_tokens) == 0
    dictionary, sources, targets = load_pairs(data, "valid")
    reader = TopKReader(store_path(data, "valid", "de", "en"))
    never = [dictionary.bos(), dictionary.pad()]
    never += [i for i, symbol in enumerate(dictionary.symbols) if symbol.startswith("madeupword")]
    assert len(reader) == len(targets) == 20
    for sentence in range(len(reader)):
        rows = reader.rows(sentence)
        source, target = sources[sentence], targets[sentence]
        assert len(rows) == len(target)  # end of sentence included
        for first in range(min(passes, len(target))):
            hidden = list(range(first, len(target), passes))
            expected = independent_logits(chain.teacher, dictionary, source, target, hidden)
            expected[:, never] = -math.inf
            for position in hidden:
                logits = expected[position] - expected[position].max()
                values, _ = logits.topk(8)
                row = rows[position]
                np.testing.assert_allclose(row["topk_logits"].astype(np.float32), values, atol=5e-3)
                # ids up to ties within rounding
                chosen = logits[torch.from_numpy(row["topk_ids"].astype(np.int64))]
                np.testing.assert_allclose(chosen, values, atol=1e-4)
                normalisers = [torch.logsumexp(logits / t, 0) for t in (1.0, 5.0, 10.0)]
                np.testing.assert_allclose(row["log_normalisers"], normalisers, atol=1e-3)


def test_one_batch_or_many_give_the_same_rows(chain, data):
    assert dump(data, chain.teacher, "--subset", "test", "--max-tokens", 8192) == 0
    whole = TopKReader(store_path(data, "test", "de", "en"))
    expected = [whole.rows(i).copy() for i in range(len(whole))]
    assert dump(data, chain.teacher, "--subset", "test", "--max-tokens", 40, "--overwrite") == 0
    pieces = TopKReader(store_path(data, "test", "de", "en"))
    for sentence, rows in enumerate(expected):
        for name in ("topk_logits", "log_normalisers"):
            now = pieces.rows(sentence)[name].astype(np.float32)
            np.testing.assert_allclose(now, rows[name].astype(np.float32), atol=5e-3)


def test_header_tells_where_the_rows_come_from(chain):
    info = TopKReader(store_path(chain.data, "train", "de", "en")).info
    assert (info.k, info.passes, info.split, info.source_lang, info.target_lang) == (
        8,
        7,
        "train",
        "de",
        "en",
    )
    assert info.mask_ratio == pytest.approx(0.15)
    assert info.teacher_digest == hashlib.sha256(chain.teacher.read_bytes()).hexdigest()
    assert info.teacher == "teacher/checkpoint_last.pt"
    assert (info.precision, info.device, info.temperatures) == ("fp32", "cpu", (1.0, 5.0, 10.0))
    assert len(info.tokenizer_digest) == len(info.source_dictionary_digest) == 64
    assert set(info.versions) == {"fairseq-bert-kd", "torch", "transformers", "numpy"}


def test_the_original_weights_are_not_needed(chain, data, tmp_path):
    settings = torch.load(chain.teacher, weights_only=True)
    settings["cfg"]["model"]["teacher_model"] = str(tmp_path / "not there")
    torch.save(settings, tmp_path / "teacher.pt")
    assert dump(data, tmp_path / "teacher.pt", "--subset", "valid") == 0


def test_half_precision_is_close(chain, data):
    assert dump(data, chain.teacher, "--subset", "valid") == 0
    full = TopKReader(store_path(data, "valid", "de", "en")).rows(0)["topk_logits"].astype(np.float32)
    assert dump(data, chain.teacher, "--subset", "valid", "--precision", "bf16", "--overwrite") == 0
    half = TopKReader(store_path(data, "valid", "de", "en")).rows(0)["topk_logits"].astype(np.float32)
    np.testing.assert_allclose(half, full, atol=0.1)


def test_pairs_beyond_the_positions_are_stored_as_missing(tmp_path, caplog, capsys):
    bert = build_teacher_folder("bert", tmp_path / "bert", max_positions=12)
    write_corpus(tmp_path / "raw", train=60)
    tokenize_corpus(tmp_path / "raw", tmp_path / "pieces", bert)
    preprocess(tmp_path / "pieces", tmp_path / "data")
    teacher = train_teacher(tmp_path / "data", bert, tmp_path / "teacher")
    assert "source and target together are longer than 10 tokens" in caplog.text
    assert dump(tmp_path / "data", teacher) == 0
    _, sources, targets = load_pairs(tmp_path / "data", "train")
    reader = TopKReader(store_path(tmp_path / "data", "train", "de", "en"))
    for sentence, (source, target) in enumerate(zip(sources, targets, strict=True)):
        assert reader.is_missing(sentence) == (len(source) - 1 + len(target) > 10)
        assert TopKInfo.status_names[reader.status(sentence)] == (
            "too_long" if reader.is_missing(sentence) else "scored"
        )
    covered = sum(not reader.is_missing(i) for i in range(60))
    assert 0 < covered < 60
    assert f"sentences with teacher rows: {covered} of 60" in (out := capsys.readouterr().out)
    assert f"missing: {60 - covered} too long" in out
    assert f"{60 - covered} of 60 pairs" in caplog.text


def refusal(capsys, data, checkpoint, *arguments):
    assert dump(data, checkpoint, *arguments) == 2
    return capsys.readouterr().err


def test_existing_store_of_other_settings_is_kept_by_default(chain, capsys):
    path = store_path(chain.data, "train", "de", "en")
    before = path.read_bytes()
    message = refusal(capsys, chain.data, chain.teacher, "--topk", 4)
    assert "exists and differs (k: 8 against 4); pass --overwrite" in message
    assert path.read_bytes() == before


def test_finished_store_is_left_alone_by_the_same_command(chain, capsys, monkeypatch):
    """After one look at its sentences: a large corpus takes a while."""
    path = store_path(chain.data, "train", "de", "en")
    before, check, looked_at = path.stat(), StoreDump.check_unchanged_data, []
    monkeypatch.setattr(
        StoreDump, "check_unchanged_data", lambda *args: (looked_at.append(args), check(*args))
    )
    assert dump(chain.data, chain.teacher) == 0
    assert "is complete already: nothing to score" in capsys.readouterr().out
    assert path.stat() == before
    assert len(looked_at) == 1


def test_finished_store_of_data_that_changed_is_not_called_complete(chain, data, capsys):
    path = store_path(data, "train", "de", "en")
    assert dump(data, chain.teacher) == 0
    before = path.read_bytes()
    source = data / "train.de-en.de.bin"
    content = bytearray(source.read_bytes())
    content[0:2], content[2:4] = content[2:4], content[0:2]  # two source tokens of the first sentence
    assert bytes(content) != source.read_bytes()
    source.write_bytes(content)
    message = refusal(capsys, data, chain.teacher)
    assert "exists and is of other data: sentence 0 has another source now; pass --overwrite" in message
    assert path.read_bytes() == before
    assert dump(data, chain.teacher, "--overwrite") == 0
    assert verify_store(path, data) == []


def test_what_cannot_be_done_is_said_before_anything_is_scored(chain, data, tmp_path, capsys):
    assert "Dataset not found" in refusal(capsys, data, chain.teacher, "--subset", "valid,vlaid")
    shutil.copytree(data, tmp_path / "second")
    assert dump(tmp_path / "second", chain.teacher, "--subset", "valid", "--topk", 4) == 0
    both = f"{data}:{tmp_path / 'second'}"
    message = refusal(capsys, both, chain.teacher, "--subset", "valid")
    assert "exists and differs (k: 4 against 8)" in message
    (tmp_path / "second" / "dict.en.txt").write_text("other 1\n", encoding="utf-8")
    assert "is not the dictionary" in refusal(capsys, both, chain.teacher, "--subset", "valid")
    assert not list(data.glob("*valid*topk*"))


@pytest.mark.slow
def test_an_error_in_another_process_is_raised_as_in_this_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file or directory.*no.pt") as raised:
        launch(open_what_is_not_there, tmp_path / "no.pt", cpu=True, world_size=2)
    assert "Traceback" not in str(raised.value)
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="ZeroDivisionError"):
        launch(divide_by_nothing, 1, cpu=True, world_size=2)  # not a user error


@pytest.mark.slow
def test_processes_that_are_started_here_wait_for_each_other(tmp_path):
    launch(write_after_the_other, tmp_path, cpu=True, world_size=2)
    assert (tmp_path / "1").read_text() == "after 0 of 2"


def test_bad_arguments_are_refused_with_the_rule(chain, data, capsys):
    assert "topk must be at least 1, got 0" in refusal(capsys, data, chain.teacher, "--topk", 0)
    assert "passes must be at least 1, got 0" in refusal(capsys, data, chain.teacher, "--passes", 0)
    assert "symbols of the target dictionary that can be targets" in refusal(
        capsys, data, chain.teacher, "--topk", 5000
    )
    assert "max-tokens must be at least 1, got 0" in refusal(capsys, data, chain.teacher, "--max-tokens", 0)
    message = refusal(capsys, data, chain.teacher, "--samples", 2, "--seed", -1)
    assert "seed must not be negative, got -1" in message
    assert "does not exist" in refusal(capsys, data, data / "no.pt")
    assert "Dataset not found" in refusal(capsys, data, chain.teacher, "--subset", "nothing")
    assert not list(data.glob("*.topk*"))


def test_whole_dictionary_can_be_stored(chain, data, capsys):
    dictionary, *_ = load_pairs(data, "valid")
    candidates = len(dictionary) - len(excluded_ids(dictionary))
    assert dump(data, chain.teacher, "--subset", "valid", "--topk", candidates) == 0
    rows = TopKReader(store_path(data, "valid", "de", "en")).rows(0)
    probs = np.exp(rows["topk_logits"].astype(np.float64) - rows["log_normalisers"][:, :1])
    np.testing.assert_allclose(probs.sum(-1), 1.0, atol=1e-6)  # exact: rounding is in the normaliser
    assert "hold 100.00 % of its mass at temperature 1\n" in capsys.readouterr().out


def test_data_of_another_dictionary_are_refused(chain, tmp_path, capsys):
    write_corpus(tmp_path / "raw", train=40, seed=5)
    (tmp_path / "raw" / "train.en").write_text("a house\n" * 40, encoding="utf-8")
    tokenize_corpus(tmp_path / "raw", tmp_path / "pieces", chain.bert)
    preprocess(tmp_path / "pieces", tmp_path / "data", "--joined-dictionary")
    message = refusal(capsys, tmp_path / "data", chain.teacher)
    assert "is not the one that this teacher was trained with" in message


def test_student_checkpoint_is_not_a_teacher(chain, data, tmp_path, capsys):
    from tests.tiny_chain import train_student

    student = train_student(data, tmp_path / "student", "--kd-weight", 0, updates=1)
    assert "is not a teacher: it holds a `transformer` model" in refusal(capsys, data, student)


def test_checkpoint_with_foreign_objects_is_refused_and_not_run(chain, data, tmp_path, capsys):
    marker = tmp_path / "code ran"
    state = torch.load(chain.teacher, weights_only=True)
    state["extra_state"]["surprise"] = Touch(str(marker))
    torch.save(state, tmp_path / "bad.pt")
    message = refusal(capsys, data, tmp_path / "bad.pt")
    assert "carries objects other than tensors and settings" in message
    with pytest.raises(Exception, match="weights_only|Weights only"):
        checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "bad.pt"))
    assert not marker.exists()


class Touch:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


SMALL_CHUNKS = ("--chunk-sentences", 16, "--max-tokens", 120)


@pytest.fixture(scope="module")
def undisturbed(chain, tmp_path_factory):
    """Bytes of a store of eight chunks, made in one go, with everything that can be stored."""
    folder = tmp_path_factory.mktemp("undisturbed") / "data"
    shutil.copytree(chain.data, folder)
    assert dump(folder, chain.teacher, *SMALL_CHUNKS, "--gold", "--samples", 2, "--overwrite") == 0
    path = store_path(folder, "train", "de", "en")
    assert verify_store(path, folder) == []
    return path.read_bytes()


@pytest.mark.parametrize("order", [[1, 0], [6, 2, 4, 0, 1, 5, 3]])
def test_shards_in_any_order_join_to_the_same_bytes(chain, data, undisturbed, order):
    path, count = store_path(data, "train", "de", "en"), len(order)
    for index in order:
        assert (
            dump(
                data,
                chain.teacher,
                *SMALL_CHUNKS,
                "--gold",
                "--samples",
                2,
                "--shard",
                f"{index + 1}/{count}",
            )
            == 0
        )
    assert not path.exists()
    merge_shards([shard_path(path, Shard(index, count)) for index in order], path)
    assert path.read_bytes() == undisturbed


@pytest.mark.parametrize("batches", [0, 1, 7, 12])
def test_interrupted_dump_goes_on_to_the_same_bytes(chain, data, undisturbed, batches, monkeypatch, caplog):
    launch, left = ChunkScorer.enqueue, [batches]

    def stop_after_some(self, prepared):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return launch(self, prepared)

    options = (*SMALL_CHUNKS, "--gold", "--samples", 2)
    path = store_path(data, "train", "de", "en")
    with monkeypatch.context() as patched:
        patched.setattr(ChunkScorer, "enqueue", stop_after_some)
        with pytest.raises(KeyboardInterrupt):
            dump(data, chain.teacher, *options)
    assert not path.exists()
    assert work_path(path).exists()
    assert dump(data, chain.teacher, *options) == 0
    assert ("chunks are there already: going on" in caplog.text) == (batches > 7)
    assert path.read_bytes() == undisturbed
    assert not work_path(path).exists()


def test_changed_data_are_scored_anew_after_an_interruption(chain, data, undisturbed, monkeypatch, caplog):
    path = store_path(data, "train", "de", "en")
    finish = "fairseq_bert_kd.storage.topk_store.TopKWriter.finish"
    with monkeypatch.context() as patched:
        patched.setattr(finish, lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            dump(data, chain.teacher, *SMALL_CHUNKS)
    source = data / "train.de-en.de.bin"
    content = bytearray(source.read_bytes())
    content[0:2], content[2:4] = content[2:4], content[0:2]  # two source tokens of the first sentence
    assert bytes(content) != source.read_bytes()
    source.write_bytes(content)
    assert dump(data, chain.teacher, *SMALL_CHUNKS) == 0
    assert "the data changed since the dump began (sentence 0)" in caplog.text
    assert verify_store(path, data) == []


def test_unfinished_work_of_other_settings_is_refused_or_thrown_away(chain, data, monkeypatch, capsys):
    monkeypatch.setattr(ChunkScorer, "score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        dump(data, chain.teacher)
    monkeypatch.undo()
    said = "unfinished work of a command with other settings (k: 8 against 5)"
    assert said in refusal(capsys, data, chain.teacher, "--topk", 5)
    assert said in refusal(capsys, data, chain.teacher, "--topk", 5, "--subset", "valid,train")
    assert not list(data.glob("*valid*topk*"))  # nothing was scored
    # of two processes, the first one would join the parts under this name
    monkeypatch.setattr(distributed, "launch", lambda work, args, **_: work(args, 0, 2))
    assert said in refusal(capsys, data, chain.teacher, "--topk", 5)
    monkeypatch.undo()
    assert dump(data, chain.teacher, "--topk", 5, "--overwrite") == 0
    assert TopKReader(store_path(data, "train", "de", "en")).info.k == 5


def test_sentence_with_a_value_that_is_not_finite_is_missing(chain, data, tmp_path, capsys):
    state = torch.load(chain.teacher, weights_only=True)
    _, sources, targets = load_pairs(data, "valid")
    poisoned = int(targets[4][0])  # seen by the teacher wherever this token is not masked
    row = state["model"]["target_to_teacher"][poisoned]
    state["model"]["encoder.embeddings.word_embeddings.weight"][row] = math.nan
    torch.save(state, tmp_path / "poisoned.pt")
    assert dump(data, tmp_path / "poisoned.pt", "--subset", "valid") == 0
    reader = TopKReader(store_path(data, "valid", "de", "en"))
    statuses = [TopKInfo.status_names[reader.status(i)] for i in range(len(reader))]
    for sentence, status in enumerate(statuses):
        # shown to the teacher in some pass, as a source or a target token
        in_target = (targets[sentence] == poisoned).sum()
        shown = (sources[sentence] == poisoned).any() or (in_target and len(targets[sentence]) > in_target)
        assert status == ("not_finite" if shown else "scored"), sentence
    assert "not_finite" in statuses
    assert "scored" in statuses
    assert f"missing: {statuses.count('not_finite')} not finite" in capsys.readouterr().out
    assert verify_store(reader.path, data) == []


def test_gold_and_samples_are_stored(chain, data):
    assert (
        dump(data, chain.teacher, "--subset", "valid", "--gold", "--samples", 4, "--temperatures", 2, 1) == 0
    )
    reader = TopKReader(store_path(data, "valid", "de", "en"))
    assert (reader.info.gold, reader.info.samples, reader.info.temperatures) == (True, 4, (1.0, 2.0))
    _, _, targets = load_pairs(data, "valid")
    nll = []
    for sentence, target in enumerate(targets):
        rows = reader.rows(sentence)
        np.testing.assert_array_equal(rows["gold_id"], target.numpy())
        nll.append(rows["log_normalisers"][:, 0] - rows["gold_logit"].astype(np.float32))
    assert reader.header.summary["gold_nll"] == pytest.approx(np.concatenate(nll).mean(), rel=1e-3)
    assert verify_store(reader.path, data) == []


def test_plan_writes_nothing(chain, data, capsys):
    before = sorted(data.iterdir())
    assert dump(data, chain.teacher, "--plan", "--passes", 3) == 0
    out = capsys.readouterr().out
    _, sources, targets = load_pairs(data, "train")
    positions = sum(len(target) for target in targets)
    tokens = sum(
        (len(source) - 1 + len(target)) * min(len(target), 3)
        for source, target in zip(sources, targets, strict=True)
    )
    assert f"target positions {positions:>15,}" in out
    assert f"tokens to score  {tokens:>15,}" in out
    assert f"bytes            {positions * 44 + 25 * 120:>15,}" in out
    assert "tokens/s on one cpu" in out
    assert sorted(data.iterdir()) == before


def test_several_splits_and_folders(chain, data, tmp_path):
    shutil.copytree(data, tmp_path / "second")
    assert dump(f"{data}:{tmp_path / 'second'}", chain.teacher, "--subset", "valid,test") == 0
    for folder in (data, tmp_path / "second"):
        for split in ("valid", "test"):
            assert verify_store(store_path(folder, split, "de", "en"), folder) == []
    first, second = (store_path(folder, "valid", "de", "en") for folder in (data, tmp_path / "second"))
    assert first.read_bytes() == second.read_bytes()


def test_folder_with_another_dictionary_is_refused(chain, data, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "second")
    lines = (tmp_path / "second" / "dict.en.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "second" / "dict.en.txt").write_text(
        "\n".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8"
    )
    message = refusal(capsys, f"{data}:{tmp_path / 'second'}", chain.teacher, "--subset", "valid")
    assert "second/dict.en.txt is not the dictionary that the teacher was trained with" in message


@pytest.mark.parametrize(
    ("earlier", "parts", "unread"),
    [
        (["1-of-8", "3-of-8.partial"], [Shard(i, 8) for i in range(8)], []),  # the same ones: gone on with
        (["1-of-8", "3-of-8.partial"], [Shard(i, 4) for i in range(4)], ["1-of-8", "3-of-8.partial"]),
        (["1-of-8", "x-of-8"], [Shard(0, 1)], ["1-of-8"]),
        (["1-of-4", "3-of-4"], [Shard(1, 2)], []),  # shard 1/2 on two GPUs, beside 2/2
        (["2-of-4", "3-of-4"], [Shard(1, 2)], ["2-of-4"]),
    ],
)
def test_work_that_another_number_of_processes_left_is_found(tmp_path, earlier, parts, unread):
    path = tmp_path / "train.de-en.en.topk"
    for name in earlier:
        (tmp_path / f"{path.name}.shard-{name}").touch()
    assert [file.name.rpartition("shard-")[2] for file in shards_of_another_split(path, parts)] == unread


def test_work_that_one_process_left_is_found_by_several(tmp_path):
    path = tmp_path / "train.de-en.en.topk"
    work_path(path).touch()
    assert shards_of_another_split(path, [Shard(0, 2), Shard(1, 2)]) == [work_path(path)]
    assert shards_of_another_split(path, [WHOLE]) == []  # gone on with


def test_processes_on_other_devices_are_refused_before_they_score():
    """Their parts would be refused by the merge, after the work."""
    one = make_info(device="NVIDIA A100")
    check_same_infos([one, one])
    with pytest.raises(ValueError, match="device: 'NVIDIA A100' against 'NVIDIA H100'.*CUDA_VISIBLE_DEVICES"):
        check_same_infos([one, one, replace(one, device="NVIDIA H100")])


def test_too_little_memory_of_a_gpu_names_the_budget_and_what_goes_on(chain, data, monkeypatch, capsys):
    def score(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more")

    monkeypatch.setattr(ChunkScorer, "score", score)
    message = refusal(capsys, data, chain.teacher)
    assert (
        "a batch of --max-tokens 8192 (CUDA out of memory. Tried to allocate 2 GiB). Free it and" in message
    )
    monkeypatch.undo()
    assert "max_tokens: 8192 against 64" in refusal(capsys, data, chain.teacher, "--max-tokens", 64)
    assert dump(data, chain.teacher, "--max-tokens", 64, "--overwrite") == 0


@pytest.mark.parametrize(("free", "said"), [(1499, True), (1500, False)])
def test_room_for_parts_and_the_store_that_joins_them(tmp_path, monkeypatch, free, said):
    """A store of 1,000 bytes in two parts, of which one is there already."""
    path, dumped = tmp_path / "train.de-en.en.topk", SimpleNamespace(count=lambda shard: {"bytes": 1000})
    work_path(shard_path(path, Shard(1, 2))).write_bytes(bytes(500))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with tiny_chain.logged("fairseq_bert_kd.cli.run_dump") as messages:
        say_room(dumped, path, [Shard(0, 2), Shard(1, 2)])
    assert len(messages) == said
    assert all("need 1,500 more bytes until the parts are removed, and" in message for message in messages)


def test_scoring_anew_what_another_number_of_processes_left_is_said(chain, data):
    assert dump(data, chain.teacher, *SMALL_CHUNKS, "--shard", "2/2") == 0
    for again in (True, False):
        with tiny_chain.logged("fairseq_bert_kd.cli.run_dump") as messages:
            assert dump(data, chain.teacher, *SMALL_CHUNKS, *(["--shard", "2/2"] if again else [])) == 0
        said = [
            message for message in messages if "shard-2-of-2: an earlier run has scored sentences" in message
        ]
        assert len(said) == (0 if again else 1)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_impossible_shards_are_refused(chain, data, capsys, shard):
    assert f"--shard must be I/N with I from 1 to N, got `{shard}`" in refusal(
        capsys, data, chain.teacher, "--shard", shard
    )


@pytest.mark.slow
@pytest.mark.parametrize("before", [(), ("1/2",), ("1/2", "2/2")])
def test_two_processes_under_torchrun_give_the_same_bytes(chain, data, undisturbed, before):
    """Also when a run before was lost after some shards, or all of them, and before they were joined."""
    for shard in before:
        assert dump(data, chain.teacher, *SMALL_CHUNKS, "--gold", "--samples", 2, "--shard", shard) == 0
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port()),
        "-m", "fairseq_bert_kd", "dump", str(data), "--path", str(chain.teacher), "--cpu",
        *map(str, SMALL_CHUNKS), "--gold", "--samples", "2",
    ]  # fmt: skip
    child = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tiny_chain.PLUGIN.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHON_EXEC": sys.executable},
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-3000:]
    assert "sentences with teacher rows: 120 of 120" in child.stdout
    assert store_path(data, "train", "de", "en").read_bytes() == undisturbed
    assert not list(data.glob("*.shard-*"))
