import multiprocessing

import numpy as np
import pytest
import torch
from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset
from torch.utils.data import DataLoader

from fairseq_bert_kd.batch import TEACHER, TeacherRequirements, unpack
from fairseq_bert_kd.data.distilled_pair_dataset import DistilledPairDataset
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.schema import SCORED, TOO_LONG, ChunkData, empty_records
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter

VOCAB = 1000
POSITIONS = 20  # teacher ids are POSITIONS * sentence + position, then the same from the other end
SENTENCES = 40
RNG = np.random.default_rng(0)
SRC_LENGTHS = RNG.integers(2, 12, SENTENCES).tolist()
TGT_LENGTHS = RNG.integers(2, 12, SENTENCES).tolist()
MISSING = (3, 30)


def first_id(sentence, position):
    return POSITIONS * sentence + position


def teacher_row(sentence, position, k):
    """Ids and float16 logits that say where they belong."""
    ids = [(first_id(sentence, position) + 301 * rank) % VOCAB for rank in range(k)]
    logits = -np.arange(k) * (1 + sentence / 64 + position / 1024)
    return ids, logits.astype(np.float16)


def write_store(path, sentences, k):
    """Store of some sentences of the corpus."""
    rows = [
        [teacher_row(sentence, position, k) for position in range(TGT_LENGTHS[sentence])]
        for sentence in sentences
    ]
    return write_rows(path, k, rows, missing=[sentence in MISSING for sentence in sentences])


def write_rows(path, k, rows, missing):
    """Store of the given ``(ids, logits)`` of every position of every sentence, in chunks of seven."""
    symbols = [str(index) for index in range(VOCAB)]
    info = TopKInfo(
        k=k, dictionary_size=VOCAB, dictionary_digest=dictionary_digest(symbols), split="train", source_lang="de",
        target_lang="en", passes=7, teacher="t", teacher_digest="0" * 64, mask_ratio=0.15, versions={},
        temperatures=(), chunk_sentences=7,
    )  # fmt: skip
    with TopKWriter(path, info, np.array([len(sentence) for sentence in rows]), symbols) as writer:
        for chunk in reversed(writer.chunks()):
            sentences = writer.sentences(chunk)
            records = empty_records(int(writer.lengths(chunk).sum()), info)
            flat = [(missing[i], row) for i in sentences for row in rows[i]]
            for record, (absent, (ids, logits)) in zip(records, flat, strict=True):
                if not absent:
                    record["topk_ids"], record["topk_logits"] = ids, logits
            status = np.array([TOO_LONG if missing[i] else SCORED for i in sentences], np.uint8)
            hashes = np.zeros(len(sentences), "<u8")
            writer.write_chunk(
                chunk, ChunkData({"source": hashes, "target": hashes}, writer.lengths(chunk), status, records)
            )
        writer.finish()
    return TopKReader(path)


def language_pairs():
    """Targets that say which sentence they are; the source has an unrelated length."""
    dictionary = Dictionary()
    for token in range(VOCAB - len(dictionary)):
        dictionary.add_symbol(f"w{token}")
    sources = [torch.tensor([10] * (n - 1) + [dictionary.eos()]) for n in SRC_LENGTHS]
    targets = [torch.tensor([100 + i] * (n - 1) + [dictionary.eos()]) for i, n in enumerate(TGT_LENGTHS)]
    return LanguagePairDataset(
        ListDataset(sources, SRC_LENGTHS), SRC_LENGTHS, dictionary,
        ListDataset(targets, TGT_LENGTHS), TGT_LENGTHS, dictionary, shuffle=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """By name: one store of all sentences, or ``train`` of 25 and ``train1`` of 15."""
    folder = tmp_path_factory.mktemp("stores")
    everything = list(range(SENTENCES))
    return {
        "one": [write_store(folder / "train.topk", everything, k=4)],
        "two": [
            write_store(folder / "a.topk", everything[:25], k=4),
            write_store(folder / "b.topk", everything[25:], k=3),
        ],
    }


def distilled(readers, topk, pairs=None):
    return DistilledPairDataset(pairs or language_pairs(), [StoreRows(readers, TeacherRequirements(topk))])


def shuffled_batches(dataset):
    np.random.seed(1)
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_tokens=60)
    np.random.shuffle(batches)
    return batches


def assert_own_rows(batch, topk):
    """Every row of the teacher stands beside the sentence and the position that it was written for."""
    [teacher] = batch[TEACHER]
    logits = unpack(teacher)["topk_logits"]
    assert teacher["topk_ids"].shape == logits.shape == (*batch["target"].shape, topk)
    for row, sentence in enumerate(batch["id"].tolist()):
        for position in range(batch["target"].size(1)):
            has_row = position < TGT_LENGTHS[sentence] and sentence not in MISSING
            assert teacher["present"][row, position] == has_row
            if not has_row:
                assert teacher["topk_ids"][row, position].tolist() == [0] * topk
                assert logits[row, position].tolist() == [0.0] * topk
                continue
            expected_ids, expected_logits = teacher_row(sentence, position, topk)
            assert teacher["topk_ids"][row, position].tolist() == expected_ids
            assert logits[row, position].tolist() == expected_logits.tolist()
            if position < TGT_LENGTHS[sentence] - 1:
                assert batch["target"][row, position] == 100 + sentence


@pytest.mark.parametrize("layout", ["one", "two"])
def test_every_sentence_meets_its_own_rows(stores, layout):
    dataset = distilled(stores[layout], 3)
    seen, resorted = [], 0
    for batch_ids in shuffled_batches(dataset):
        batch = dataset.collater([dataset[index] for index in batch_ids])
        resorted += batch["id"].tolist() != list(batch_ids)
        assert_own_rows(batch, topk=3)
        seen += batch["id"].tolist()
    assert sorted(seen) == list(range(SENTENCES))
    assert resorted > 2  # fairseq did change the order, or this test shows nothing


def test_batch_by_hand(tmp_path):
    rows = [[([2, 9], [0.0, -1.0])], [([7, 8], [0.0, -2.0]), ([2, 5], [0.0, -8.0])]]
    reader = write_rows(tmp_path / "s", 2, rows, missing=[False, False])
    dictionary = Dictionary()
    for token in range(16):
        dictionary.add_symbol(str(token))
    sources, targets = [[5, 2], [5, 6, 2]], [[2], [7, 2]]
    pairs = LanguagePairDataset(
        ListDataset([torch.tensor(row) for row in sources]), [2, 3], dictionary,
        ListDataset([torch.tensor(row) for row in targets]), [1, 2], dictionary,
    )  # fmt: skip
    dataset = distilled([reader], 2, pairs)
    batch = dataset.collater([dataset[0], dataset[1]])
    assert batch["id"].tolist() == [1, 0]  # longer source first
    assert batch["target"].tolist() == [[7, 2], [2, dictionary.pad()]]
    [teacher] = batch[TEACHER]
    assert teacher["topk_ids"].tolist() == [[[7, 8], [2, 5]], [[2, 9], [0, 0]]]
    assert unpack(teacher)["topk_logits"].tolist() == [
        [[0.0, -2.0], [0.0, -8.0]],
        [[0.0, -1.0], [0.0, 0.0]],
    ]
    assert teacher["present"].tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("topk", [1, 2, 4])
def test_first_of_the_stored_tokens_are_taken(stores, topk):
    dataset = distilled(stores["one"], topk)
    assert_own_rows(dataset.collater([dataset[index] for index in (8, 2, 5)]), topk)


def test_batch_across_both_stores(stores):
    dataset = distilled(stores["two"], 2)
    assert_own_rows(dataset.collater([dataset[index] for index in (39, 24, 25, 0, 26)]), topk=2)


def test_missing_sentences_are_not_present(stores):
    dataset = distilled(stores["two"], 2)
    batch = dataset.collater([dataset[index] for index in (3, 4, 30)])
    present = dict(zip(batch["id"].tolist(), batch[TEACHER][0]["present"].any(1).tolist(), strict=True))
    assert present == {3: False, 4: True, 30: False}


def test_rows_are_as_wide_as_the_padded_target(stores):
    dataset = distilled(stores["one"], 2)
    batch = dataset.collater([dataset[4], dataset[5]], pad_to_length={"source": 15, "target": 17})
    assert batch["target"].shape == (2, 17)
    assert_own_rows(batch, topk=2)


def test_types(stores):
    dataset = distilled(stores["one"], 2)
    [teacher] = dataset.collater([dataset[0]])[TEACHER]
    types = {name: tensor.dtype for name, tensor in teacher.items() if isinstance(tensor, torch.Tensor)}
    assert types == {"topk_ids": torch.int32, "topk_logits": torch.int16, "present": torch.bool}
    assert (teacher["temperatures"], teacher["weight"], teacher["gold_stored"]) == ((), 1.0, False)


def test_rest_of_the_batch_is_fairseqs(stores):
    pairs = language_pairs()
    dataset = distilled(stores["one"], 2, pairs)
    samples = [dataset[index] for index in (7, 1, 9)]
    ours, plain = dataset.collater(samples), pairs.collater(samples)
    assert set(ours) == {*plain, TEACHER}
    assert torch.equal(ours["target"], plain["target"])
    assert TEACHER not in ours["net_input"]  # fairseq passes that to the model


def test_no_samples_give_an_empty_batch(stores):
    assert distilled(stores["one"], 2).collater([]) == {}


def test_stores_of_another_number_of_sentences_are_caught(stores):
    with pytest.raises(AssertionError, match="25"):
        distilled(stores["two"][:1], 2)


def test_repeated_first_part_meets_its_rows_again(stores):
    """As fairseq's --upsample-primary: its ids count through every repetition."""
    repeated = StoreRows(stores["two"], TeacherRequirements(2), upsample_first=3)
    assert len(repeated) == 3 * 25 + 15
    once = StoreRows(stores["two"], TeacherRequirements(2)).teacher_batch(
        np.array([7, 7, 24, 0, 25, 39]), width=12
    )
    again = repeated.teacher_batch(np.array([7, 57, 49, 50, 75, 89]), width=12)
    for name in ("topk_ids", "topk_logits", "present"):
        assert torch.equal(once[name], again[name])


def test_several_teachers_stand_in_their_order(stores):
    teachers = [
        StoreRows(stores["one"], TeacherRequirements(2), weight=0.25),
        StoreRows(stores["two"], TeacherRequirements(3)),
    ]
    dataset = DistilledPairDataset(language_pairs(), teachers)
    first, second = dataset.collater([dataset[4], dataset[26]])[TEACHER]
    assert (first["weight"], second["weight"]) == (0.25, 1.0)
    assert (first["topk_ids"].size(-1), second["topk_ids"].size(-1)) == (2, 3)
    assert torch.equal(first["topk_ids"], second["topk_ids"][..., :2])


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_mixed_precision_leaves_the_teacher_alone(stores, precision):
    dataset = distilled(stores["one"], 2)
    batch = dataset.collater([dataset[4], dataset[5]])
    batch["control"] = torch.tensor([1.0])

    def convert(tensor):  # as in fairseq/trainer.py, _fp_convert_sample
        return tensor.to(dtype=precision) if tensor.dtype is torch.float32 else tensor

    converted = utils.apply_to_sample(convert, batch)
    assert converted["control"].dtype == precision
    assert converted[TEACHER][0].keys() == batch[TEACHER][0].keys()
    for name in ("topk_ids", "topk_logits", "present"):
        ours, original = converted[TEACHER][0][name], batch[TEACHER][0][name]
        assert ours.dtype == original.dtype
        assert torch.equal(ours, original)
    assert_own_rows(converted, topk=2)


@pytest.mark.slow
def test_spawned_worker_reads_the_same_rows(stores):
    dataset = distilled(stores["two"], 2)
    loader = DataLoader(
        dataset,
        batch_sampler=[[24, 3, 25, 39], [30, 0, 1]],
        collate_fn=dataset.collater,
        num_workers=1,
        multiprocessing_context=multiprocessing.get_context("spawn"),
    )
    batches = list(loader)
    assert [sorted(batch["id"].tolist()) for batch in batches] == [[3, 24, 25, 39], [0, 1, 30]]
    for batch in batches:
        assert_own_rows(batch, topk=2)
