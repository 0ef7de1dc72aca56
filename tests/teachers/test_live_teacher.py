"""A live teacher against the stores that dumps of the same pairs by the same teacher write."""

import copy
import math
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import LanguagePairDataset, data_utils

from fairseq_bert_kd.batch import TeacherRequirements, unpack
from fairseq_bert_kd.storage.fairseq_data import Sides, dictionary_digest
from fairseq_bert_kd.storage.shards import WHOLE
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from fairseq_bert_kd.teachers.live import LiveTeacher
from fairseq_bert_kd.teachers.load import Teacher, load_teacher
from fairseq_bert_kd.teachers.load_live import load_live_teacher
from fairseq_bert_kd.teachers.topk_dump import TopKDump
from fairseq_bert_kd.tokenization.dictionary import excluded_ids

TEMPERATURES = (1.0, 5.0, 10.0)
SETTINGS = {"passes": 7, "max_tokens": 256, "topk": 8, "temperatures": TEMPERATURES}
# source without, target with end of sentence; the teacher has 62 positions for both
LENGTHS = [(5, 6), (0, 3), (9, 1), (3, 7), (1, 8), (20, 25), (40, 30), (12, 15), (61, 1), (7, 2)]
TOO_LONG = 6


class Side:
    """Sentences in memory, as a data set and as a dump's side."""

    def __init__(self, sentences):
        self.sentences = sentences
        self.sizes = np.array([len(tokens) for tokens in sentences], np.int32)

    def __len__(self):
        return len(self.sentences)

    def __getitem__(self, index):
        return self.sentences[index]


@pytest.fixture(scope="module")
def loaded(chain):
    return load_teacher(str(chain.teacher), str(chain.data))


@pytest.fixture
def teacher(loaded):
    """A private copy, since a live teacher takes its model over."""
    return Teacher(copy.deepcopy(loaded.model), loaded.task, loaded.digest)


@pytest.fixture(scope="module")
def pairs(loaded):
    """Sentences of `LENGTHS` from the dictionary's words."""
    dictionary = loaded.task.target_dictionary
    excluded = {*excluded_ids(dictionary).tolist(), dictionary.eos()}
    words = [index for index in range(len(dictionary)) if index not in excluded]
    rng = random.Random(0)

    def sentence(length):
        return torch.tensor([rng.choice(words) for _ in range(length)] + [dictionary.eos()])

    sources, targets = (
        [sentence(lengths[side] - side) for lengths in LENGTHS] for side in (0, 1)
    )  # a target's length includes its end
    return Sides(source=Side(sources), target=Side(targets))


def make_sample(teacher, pairs, sentences, left_pad_source=True, **options):
    """What fairseq's data set gives for some sentences; it sorts them by source length."""
    task = teacher.task
    dataset = LanguagePairDataset(
        pairs["source"], pairs["source"].sizes, task.source_dictionary,
        pairs["target"], pairs["target"].sizes, task.target_dictionary,
        left_pad_source=left_pad_source, **options,
    )  # fmt: skip
    return dataset.collater([dataset[i] for i in sentences])


def dumped(teacher, pairs, path, passes=7, **settings):
    """The store of a dump."""
    symbols = teacher.task.target_dictionary.symbols
    info = TopKInfo(
        k=8, dictionary_size=len(symbols), dictionary_digest=dictionary_digest(symbols), split="train",
        source_lang="de", target_lang="en", passes=passes, teacher="", teacher_digest="", mask_ratio=0.15, versions={},
        temperatures=TEMPERATURES, max_tokens=8192, **settings,
    )  # fmt: skip
    TopKDump(teacher, pairs, info, torch.device("cpu")).run(path, WHOLE, overwrite=False)
    return TopKReader(path)


def normalisers(entry):
    return unpack(entry)["log_normalisers"]


def equal_to_store(entry, sample, reader):
    """Compare each position; the number of sentences that are there.

    Batches differ, and with them the last bits of the logits: numbers are compared within rounding, and one id in a
    hundred may have changed places with its neighbour.
    """
    width = sample["target"].size(1)
    positions = torch.arange(width)
    lengths = sample["target"].ne(1).sum(1)
    same, covered = [], 0
    for row, sentence in enumerate(sample["id"].tolist()):
        length, missing = int(lengths[row]), reader.is_missing(sentence)
        expected_present = (positions < length) & (not missing)
        torch.testing.assert_close(entry["present"][row], expected_present)
        for name, values in entry.items():
            if isinstance(values, torch.Tensor):
                assert not values[row, 0 if missing else length :].any(), name
        if missing:
            continue
        covered += 1
        stored = reader.rows(sentence)
        logits = unpack(entry)["topk_logits"][row, :length]
        np.testing.assert_allclose(logits, stored["topk_logits"].astype(np.float32), atol=5e-3)
        np.testing.assert_allclose(
            normalisers(entry)[row, :length], stored["log_normalisers"], atol=1e-4, rtol=0
        )
        same.append((entry["topk_ids"][row, :length].numpy() == stored["topk_ids"]).flatten())
    assert np.concatenate(same).mean() > 0.99
    return covered


@pytest.mark.parametrize("left_pad_source", [True, False])
def test_rows_are_those_of_the_command_s_store(chain, teacher, left_pad_source):
    dictionary = teacher.task.target_dictionary
    prefix = str(chain.data / "train.de-en.")
    langs = {"source": "de", "target": "en"}
    pairs = Sides(
        {side: data_utils.load_indexed_dataset(prefix + lang, dictionary) for side, lang in langs.items()}
    )
    reader = TopKReader(store_path(chain.data, "train", "de", "en"))
    live, order = LiveTeacher(teacher, **SETTINGS), random.Random(1).sample(range(120), 120)
    covered = 0
    for start in range(0, 120, 17):
        sample = make_sample(teacher, pairs, order[start : start + 17], left_pad_source)
        covered += equal_to_store(live.teacher_batch(sample), sample, reader)
    assert covered == 120


@pytest.mark.parametrize("left_pad_source", [True, False])
@pytest.mark.parametrize("max_tokens", [1, 70, 100_000])
@pytest.mark.parametrize("multiple", [1, 16])
def test_short_empty_and_too_long_sentences(teacher, pairs, tmp_path, left_pad_source, max_tokens, multiple):
    reader = dumped(teacher, pairs, tmp_path / "store")
    live = LiveTeacher(teacher, **SETTINGS | {"max_tokens": max_tokens})
    sentences = list(range(len(LENGTHS)))
    sample = make_sample(teacher, pairs, sentences, left_pad_source, pad_to_multiple=multiple)
    assert equal_to_store(live.teacher_batch(sample), sample, reader) == len(LENGTHS) - 1
    assert reader.is_missing(TOO_LONG)
    for sentence in sentences:  # each by itself, without padding
        sample = make_sample(teacher, pairs, [sentence], left_pad_source)
        entry = live.teacher_batch(sample)
        if sentence == TOO_LONG:
            assert not entry["present"].any()
        else:
            assert equal_to_store(entry, sample, reader) == 1


@pytest.mark.parametrize("passes", [1, 3, 100])
def test_every_number_of_passes_hides_what_a_dump_hides(teacher, pairs, tmp_path, passes):
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    entry = LiveTeacher(teacher, **SETTINGS | {"passes": passes}).teacher_batch(sample)
    reader = dumped(teacher, pairs, tmp_path / "store", passes=passes)
    assert equal_to_store(entry, sample, reader) == len(LENGTHS) - 1
    other = dumped(teacher, pairs, tmp_path / "other", passes=7)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        equal_to_store(entry, sample, other)


def test_types_and_shapes_are_those_of_the_contract(teacher, pairs):
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    entry = LiveTeacher(
        teacher, **SETTINGS | {"temperatures": [10, 1.0, 5.0, 1]}, samples=2, full=True
    ).teacher_batch(sample)
    shape, symbols = tuple(sample["target"].shape), len(teacher.task.target_dictionary)
    assert entry.pop("temperatures") == TEMPERATURES
    assert entry.pop("weight") == 1.0
    assert {name: (tuple(values.shape), values.dtype) for name, values in entry.items()} == {
        "topk_ids": ((*shape, 8), torch.int32),
        "topk_logits": ((*shape, 8), torch.int16),
        "log_normalisers": ((*shape, 3), torch.int32),
        "present": (shape, torch.bool),
        "gold_logit": (shape, torch.int16),
        "sample_ids": ((*shape, 2), torch.int32),
        "sample_logits": ((*shape, 2), torch.int16),
        "full_logits": ((*shape, symbols), torch.float32),
    }
    assert {"sample_ids", "full_logits"}.isdisjoint(LiveTeacher(teacher, **SETTINGS).teacher_batch(sample))


def test_gold_logits_are_those_of_a_dump(teacher, pairs, tmp_path):
    reader = dumped(teacher, pairs, tmp_path / "store", gold=True)
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    gold = unpack(LiveTeacher(teacher, **SETTINGS).teacher_batch(sample))["gold_logit"]
    for row, sentence in enumerate(sample["id"].tolist()):
        expected = reader.rows(sentence)["gold_logit"].astype(np.float32)
        np.testing.assert_allclose(gold[row, : len(expected)], expected, atol=5e-3)
        assert sentence == TOO_LONG or (expected < 0).any()


@pytest.mark.parametrize("full", [False, True])
def test_teacher_without_a_finite_value_gives_no_row(teacher, pairs, full):
    with torch.no_grad():
        for weights in teacher.model.parameters():
            weights.fill_(math.nan)
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    entry = LiveTeacher(teacher, **SETTINGS, samples=2, full=full).teacher_batch(sample)
    for name, values in entry.items():
        assert not isinstance(values, torch.Tensor) or not values.any(), name


def test_one_row_that_is_not_finite_takes_its_sentence_away(teacher, pairs):
    target = pairs["target"][5]
    poisoned = int(target[0])  # visible to the teacher in all passes but the first
    with torch.no_grad():
        embeddings = teacher.model.encoder.get_input_embeddings().weight
        embeddings[teacher.model.target_to_teacher[poisoned]] = math.nan
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    entry = LiveTeacher(teacher, **SETTINGS, full=True).teacher_batch(sample)
    for row, sentence in enumerate(sample["id"].tolist()):
        source, target = pairs["source"][sentence], pairs["target"][sentence]
        in_target = int((target == poisoned).sum())
        shown = bool((source == poisoned).any()) or 0 < in_target < len(target)
        there = 0 if shown or sentence == TOO_LONG else len(target)
        assert entry["present"][row].tolist() == [i < there for i in range(sample["target"].size(1))]
    assert entry["present"].any()
    assert not entry["present"][sample["id"].tolist().index(5)].any()
    for name, values in entry.items():
        assert not isinstance(values, torch.Tensor) or not values[~entry["present"]].any(), name


def test_full_logits_agree_with_top_k_normalisers_and_gold(teacher, pairs):
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    entry = LiveTeacher(teacher, **SETTINGS, full=True).teacher_batch(sample)
    present = entry["present"]
    full, ids = entry["full_logits"][present], entry["topk_ids"][present].long()
    best, order = full.topk(8)
    assert torch.equal(order, ids)
    assert (best[:, 0] == 0).all()
    assert torch.equal(best.half(), unpack(entry)["topk_logits"][present].half())
    for column, temperature in enumerate(TEMPERATURES):
        expected = torch.logsumexp(full.double() / temperature, dim=1).float()
        torch.testing.assert_close(normalisers(entry)[present][:, column], expected, atol=4e-3, rtol=0)
    gold = full.gather(1, sample["target"][present][:, None]).squeeze(1)
    assert torch.equal(gold.half(), unpack(entry)["gold_logit"][present].half())


def test_symbols_that_no_target_holds_have_minus_infinity(teacher, pairs):
    dictionary = teacher.task.target_dictionary
    excluded = torch.zeros(len(dictionary), dtype=torch.bool)
    excluded[excluded_ids(dictionary)] = True
    assert excluded[[dictionary.bos(), dictionary.pad()]].all()
    with torch.no_grad():
        teacher.model.head.projection.bias[excluded] = 100.0  # they would be the best
    entry = LiveTeacher(teacher, **SETTINGS, full=True).teacher_batch(make_sample(teacher, pairs, [0, 3, 5]))
    full = entry["full_logits"][entry["present"]]
    assert torch.isneginf(full[:, excluded]).all()
    assert full[:, ~excluded].isfinite().all()
    assert not excluded[entry["topk_ids"][entry["present"]].long()].any()


def test_draws_lie_outside_the_top_k_and_change_with_the_update(teacher, pairs):
    live = LiveTeacher(teacher, **SETTINGS, samples=5, full=True)
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    entry, again, later = (live.teacher_batch(sample, update) for update in (3, 3, 4))
    present = entry["present"]
    drawn, known = entry["sample_ids"][present], entry["topk_ids"][present]
    assert not (drawn[:, :, None] == known[:, None, :]).any()
    assert len(drawn.unique()) > 20
    exact = entry["full_logits"][present].gather(1, drawn.long())
    assert torch.equal(unpack(entry)["sample_logits"][present].half(), exact.half())
    assert torch.equal(entry["sample_ids"], again["sample_ids"])
    assert (entry["sample_ids"] != later["sample_ids"])[present].float().mean() > 0.8
    seeded = LiveTeacher(teacher, **SETTINGS, samples=5, seed=2).teacher_batch(sample, 3)
    assert (entry["sample_ids"] != seeded["sample_ids"])[present].float().mean() > 0.8


def test_draws_are_the_sentence_s_whatever_the_batch(teacher, pairs):
    live = LiveTeacher(teacher, **SETTINGS, samples=3)
    together = make_sample(teacher, pairs, range(len(LENGTHS)))
    row = together["id"].tolist().index(5)
    alone = live.teacher_batch(make_sample(teacher, pairs, [5]), 9)["sample_ids"][0]
    same = live.teacher_batch(together, 9)["sample_ids"][row, : len(alone)] == alone
    # A last bit of a logit may move a draw; other seeds agree in less than 0.2.
    assert same.float().mean() > 0.8


def test_update_0_draws_what_a_dump_stores(teacher, pairs, tmp_path):
    reader = dumped(teacher, pairs, tmp_path / "store", samples=3, sample_seed=4)
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    entry = LiveTeacher(teacher, **SETTINGS, samples=3, seed=4).teacher_batch(sample)
    same = []
    for row, sentence in enumerate(sample["id"].tolist()):
        stored = reader.rows(sentence)["sample_ids"]
        same.append((entry["sample_ids"][row, : len(stored)].numpy() == stored).flatten())
    assert np.concatenate(same).mean() > 0.8


def test_a_dump_draws_the_same_in_chunks_of_any_size(teacher, pairs, tmp_path):
    """And others for each sentence of a chunk, and for the first ones of two chunks."""
    one, other = (
        dumped(teacher, pairs, tmp_path / f"{size}", samples=3, sample_seed=4, chunk_sentences=size)
        for size in (len(LENGTHS), 2)
    )
    same = [(one.rows(i)["sample_ids"] == other.rows(i)["sample_ids"]).flatten() for i in range(len(LENGTHS))]
    assert np.concatenate(same).mean() > 0.8  # a last bit of a logit may move a draw


def test_gradient_flows_to_the_student_through_teacher_constants(teacher, pairs):
    sample = make_sample(teacher, pairs, [0, 3, 5])
    entry = LiveTeacher(teacher, **SETTINGS, samples=1, full=True).teacher_batch(sample)
    full = entry["full_logits"]
    torch.manual_seed(0)
    student = torch.randn(full.shape, requires_grad=True)
    lprobs = torch.log_softmax(student, dim=-1)
    teacher_probs = torch.softmax(full, dim=-1)
    loss = -(teacher_probs * lprobs).sum(-1)[entry["present"]].sum()  # saves the teacher's side for backward
    loss = loss - lprobs.gather(2, entry["topk_ids"].long()).sum() * 0.0
    loss = loss + (unpack(entry)["topk_logits"] * student[..., :8]).sum() * 0.0
    loss = loss + (full.nan_to_num(neginf=0.0) * student).sum() * 0.0
    loss.backward()
    expected = (torch.softmax(student, -1) - teacher_probs) * entry["present"][..., None]
    torch.testing.assert_close(student.grad, expected.detach(), atol=1e-5, rtol=1e-4)
    for name, values in entry.items():
        if isinstance(values, torch.Tensor):
            assert not values.is_inference(), name
            assert not values.requires_grad, name
    assert all(weights.grad is None for weights in teacher.model.parameters())


def all_states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def live_options(chain, **changes):
    """Options of a student's task."""
    options = {
        "kd_live_teacher": str(chain.teacher), "data": str(chain.data), "source_lang": "de", "target_lang": "en",
        "kd_live_passes": 7, "kd_live_max_tokens": 256, "kd_live_samples": 3,
    }  # fmt: skip
    return SimpleNamespace(**options | changes)


def test_random_numbers_of_the_student_go_on_undisturbed(chain, pairs):
    dictionary = load_teacher(str(chain.teacher), str(chain.data)).task.target_dictionary
    before = all_states()
    live = load_live_teacher(live_options(chain), TeacherRequirements(8, samples=True))
    assert all_states() == before
    dropout = [m.p for m in live.model.modules() if isinstance(m, torch.nn.Dropout)]
    assert max(dropout) > 0  # there is something to switch off
    sample = make_sample(Teacher(live.model, fake_task(dictionary), ""), pairs, [0, 3, 5])
    entry = live.teacher_batch(sample)
    assert all_states() == before
    torch.manual_seed(99)
    for name, values in live.teacher_batch(sample).items():
        assert not isinstance(values, torch.Tensor) or torch.equal(values, entry[name]), name


def fake_task(dictionary):
    class Task:
        source_dictionary = target_dictionary = dictionary

    return Task


def test_student_neither_trains_nor_saves_it(teacher):
    teacher.model.train().requires_grad_(True)

    class Student(torch.nn.Module):
        def __init__(self, live):
            super().__init__()
            self.live = live

    live = LiveTeacher(teacher, **SETTINGS)
    student = Student(live).train()
    assert student.state_dict() == {}
    assert list(student.parameters()) == []
    assert not any(module.training for module in live.model.modules())
    assert not any(weights.requires_grad for weights in live.model.parameters())


def rows_of_copy(teacher, sample, **settings):
    copied = Teacher(copy.deepcopy(teacher.model), teacher.task, "")
    return LiveTeacher(copied, **SETTINGS | settings, full=True).teacher_batch(sample)


def test_precision_is_the_caller_s_by_default(teacher, pairs):
    sample = make_sample(teacher, pairs, [0, 3, 5])
    exact = rows_of_copy(teacher, sample, samples=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rows_of_copy(teacher, sample)["full_logits"]
        told = rows_of_copy(teacher, sample, samples=2, precision=torch.float32)
    half = rows_of_copy(teacher, sample, precision=torch.bfloat16)["full_logits"]
    for name, values in told.items():
        assert not isinstance(values, torch.Tensor) or torch.equal(values, exact[name]), name
    for rough in (cast, half):
        assert rough.dtype == torch.float32
        assert not torch.equal(rough, exact["full_logits"])
        torch.testing.assert_close(rough, exact["full_logits"], atol=0.1, rtol=0.05)


def test_precision_casts_the_weights_and_nothing_else(teacher):
    live = LiveTeacher(teacher, **SETTINGS, precision=torch.bfloat16)
    assert {weights.dtype for weights in live.model.parameters()} == {torch.bfloat16}
    assert live.model.target_to_teacher.dtype == torch.int64


def test_logits_of_a_large_batch_are_made_in_slices(teacher, pairs, monkeypatch):
    sample = make_sample(teacher, pairs, range(len(LENGTHS)))
    whole = rows_of_copy(teacher, sample, max_tokens=4096, samples=2)
    symbols = len(teacher.task.target_dictionary)
    monkeypatch.setattr("fairseq_bert_kd.teachers.token_rows.SLICE_LOGITS", 3 * symbols)
    parts = rows_of_copy(teacher, sample, max_tokens=4096, samples=2)
    torch.testing.assert_close(parts["full_logits"], whole["full_logits"], atol=1e-4, rtol=1e-4)
    gold = [unpack(entry)["gold_logit"] for entry in (parts, whole)]
    torch.testing.assert_close(*gold, atol=4e-3, rtol=0)
    assert (parts["sample_ids"] == whole["sample_ids"]).float().mean() > 0.98


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"passes": 0}, "passes must be at least 1, got 0; the paper uses topk 8 and 7 passes"),
        ({"max_tokens": 0}, "max-tokens must be at least 1, got 0"),
        ({"topk": 0}, "topk must be at least 1, got 0"),
        ({"samples": -1}, "samples must not be negative, got -1"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"temperatures": [1.0, 0.0]}, "temperatures must be positive, got 0;"),
        ({"temperatures": [math.nan]}, "temperatures must be positive, got nan;"),
        (
            {"topk": 10_000},
            r"topk 10000 is above the \d+ symbols of the target dictionary that can be targets;",
        ),
    ],
)
def test_impossible_settings_are_refused(teacher, settings, message):
    with pytest.raises(ValueError, match=message):
        LiveTeacher(teacher, **SETTINGS | settings)


def test_whole_dictionary_leaves_nothing_to_draw(teacher, pairs):
    dictionary = teacher.task.target_dictionary
    candidates = len(dictionary) - len(excluded_ids(dictionary))
    entry = LiveTeacher(teacher, **SETTINGS | {"topk": candidates}).teacher_batch(
        make_sample(teacher, pairs, [0])
    )
    probs = torch.exp(unpack(entry)["topk_logits"].double() - normalisers(entry)[..., :1].double())
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, 6, dtype=torch.float64), atol=1e-6, rtol=0)
    with pytest.raises(
        ValueError, match=f"topk {candidates} and one to draw is above the {candidates} symbols"
    ):
        LiveTeacher(teacher, **SETTINGS | {"topk": candidates}, samples=1)


def test_batches_of_another_layout_are_refused(teacher, pairs):
    live = LiveTeacher(teacher, **SETTINGS)
    with pytest.raises(
        ValueError, match="that of sentence 0 begins with 2 padding symbols .* leave out --left-pad-target"
    ):
        live.teacher_batch(make_sample(teacher, pairs, [0, 4], left_pad_target=True))
    for side, sentence in (("source", 3), ("target", 0)):
        sample = make_sample(teacher, pairs, [0, 3])
        tokens = sample["net_input"]["src_tokens"] if side == "source" else sample["target"]
        row = sample["id"].tolist().index(sentence)
        tokens[row, tokens[row].tolist().index(2)] = 7
        with pytest.raises(
            ValueError, match=rf"the {side} of sentence {sentence} must end .* \(2\), got symbol 7"
        ):
            live.teacher_batch(sample)


def test_teacher_of_another_student_is_refused(chain, tmp_path):
    data = shutil.copytree(chain.data, tmp_path / "data")
    with pytest.raises(ValueError, match="was trained for de-en, the student learns en-de; give a teacher"):
        load_live_teacher(live_options(chain, source_lang="en", target_lang="de"), TeacherRequirements(8))
    with open(data / "dict.en.txt", "a", encoding="utf-8") as file:
        file.write("another 1\n")
    with pytest.raises(ValueError, match="fairseq-preprocess --srcdict/--tgtdict"):
        load_live_teacher(live_options(chain, data=str(data)), TeacherRequirements(8))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_live_teacher(live_options(chain, kd_live_teacher="nothing.pt"), TeacherRequirements(8))
