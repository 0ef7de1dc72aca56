import json
import math
import shutil

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary, data_utils

from fairseq_bert_kd.cli import dump_teacher_topk
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from tests.tiny_chain import (
    build_teacher_folder,
    dump,
    preprocess,
    tokenize_corpus,
    train_teacher,
    write_corpus,
)


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
    target_ids = weights["target_ids"][target].tolist()
    for position in hidden_positions:
        target_ids[position] = mask
    ids = [cls, *weights["source_ids"][source[:-1]].tolist(), sep, *target_ids]
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
        ids, logits = reader.rows(sentence)
        source, target = sources[sentence], targets[sentence]
        assert len(ids) == len(target)  # end of sentence included
        for first in range(min(passes, len(target))):
            hidden = list(range(first, len(target), passes))
            expected = independent_logits(chain.teacher, dictionary, source, target, hidden)
            expected[:, never] = -math.inf
            expected = expected.log_softmax(-1)
            for position in hidden:
                values, _ = expected[position].topk(8)
                np.testing.assert_allclose(logits[position].astype(np.float32), values, atol=5e-3)
                # ids up to ties within rounding
                chosen = expected[position][torch.from_numpy(ids[position].astype(np.int64))]
                np.testing.assert_allclose(chosen, values, atol=1e-4)


def test_one_batch_or_many_give_the_same_rows(chain, data):
    assert dump(data, chain.teacher, "--subset", "test", "--max-tokens", 8192) == 0
    whole = TopKReader(store_path(data, "test", "de", "en"))
    expected = [tuple(array.copy() for array in whole.rows(i)) for i in range(len(whole))]
    assert dump(data, chain.teacher, "--subset", "test", "--max-tokens", 40, "--overwrite") == 0
    pieces = TopKReader(store_path(data, "test", "de", "en"))
    for sentence, (_, logits) in enumerate(expected):
        np.testing.assert_allclose(
            pieces.rows(sentence)[1].astype(np.float32), logits.astype(np.float32), atol=5e-3
        )


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
    assert info.teacher_digest == dump_teacher_topk.file_digest(str(chain.teacher))
    assert set(info.versions) == {"fairseq-bert-kd", "torch", "transformers", "numpy"}


def test_the_original_weights_are_not_needed(chain, data, tmp_path):
    settings = torch.load(chain.teacher, weights_only=True)
    settings["cfg"]["model"]["teacher_model"] = str(tmp_path / "not there")
    torch.save(settings, tmp_path / "teacher.pt")
    assert dump(data, tmp_path / "teacher.pt", "--subset", "valid") == 0


def test_half_precision_is_close(chain, data):
    assert dump(data, chain.teacher, "--subset", "valid") == 0
    full = TopKReader(store_path(data, "valid", "de", "en")).rows(0)[1].astype(np.float32)
    assert dump(data, chain.teacher, "--subset", "valid", "--precision", "bf16", "--overwrite") == 0
    half = TopKReader(store_path(data, "valid", "de", "en")).rows(0)[1].astype(np.float32)
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
    covered = sum(not reader.is_missing(i) for i in range(60))
    assert 0 < covered < 60
    assert f"sentences with teacher rows: {covered} of 60" in capsys.readouterr().out


def plan(lengths, passes, max_tokens):
    src, tgt = (np.array(side, np.int64) for side in zip(*lengths, strict=True))
    return dump_teacher_topk.plan_scoring(src, tgt, np.ones(len(src), bool), passes, max_tokens)


def test_plan_scores_every_position_once_within_the_token_budget():
    lengths = [(3, 2), (1, 9), (8, 4), (0, 1), (5, 30)]
    made = plan(lengths, passes=4, max_tokens=70)
    seen = []
    for batch in made.batches:
        items = [(made.sentences[i], made.passes[i]) for i in batch]
        assert max(sum(lengths[s]) for s, _ in items) * len(items) <= 70
        for sentence, number in items:
            seen += [
                (sentence, position) for position in range(lengths[sentence][1]) if position % 4 == number
            ]
    assert sorted(seen) == [(s, p) for s, (_, tgt) in enumerate(lengths) for p in range(tgt)]
    assert made.tokens == 2 * 5 + 4 * 10 + 4 * 12 + 1 * 1 + 4 * 35


def test_plan_refuses_a_budget_below_the_longest_pair():
    with pytest.raises(ValueError, match="--max-tokens 20 is below the longest pair of 35 tokens"):
        plan([(5, 30)], passes=4, max_tokens=20)


def refusal(capsys, data, checkpoint, *arguments):
    assert dump(data, checkpoint, *arguments) == 2
    return capsys.readouterr().err


def test_existing_store_is_kept_unless_told(chain, capsys):
    path = store_path(chain.data, "train", "de", "en")
    before = path.read_bytes()
    assert "exists; pass --overwrite" in refusal(capsys, chain.data, chain.teacher)
    assert path.read_bytes() == before


def test_bad_arguments_are_refused_with_the_rule(chain, data, capsys):
    assert "--topk must be at least 1, got 0" in refusal(capsys, data, chain.teacher, "--topk", 0)
    assert "--passes must be at least 1, got 0" in refusal(capsys, data, chain.teacher, "--passes", 0)
    assert "symbols of the target dictionary that can be targets" in refusal(
        capsys, data, chain.teacher, "--topk", 5000
    )
    assert "does not exist" in refusal(capsys, data, data / "no.pt")
    assert "Dataset not found" in refusal(capsys, data, chain.teacher, "--subset", "nothing")
    assert not list(data.glob("*.topk*"))


def test_whole_dictionary_can_be_stored(chain, data, capsys):
    dictionary, *_ = load_pairs(data, "valid")
    candidates = len(dictionary) - int(dump_teacher_topk.never_a_target(dictionary).sum())
    assert dump(data, chain.teacher, "--subset", "valid", "--topk", candidates) == 0
    logits = TopKReader(store_path(data, "valid", "de", "en")).rows(0)[1].astype(np.float64)
    np.testing.assert_allclose(np.exp(logits).sum(-1), 1.0, atol=5e-3)
    assert "hold 100.00 % of its mass" in capsys.readouterr().out


def test_data_of_another_dictionary_are_refused(chain, tmp_path, capsys):
    write_corpus(tmp_path / "raw", train=40, seed=5)
    (tmp_path / "raw" / "train.en").write_text("a house\n" * 40, encoding="utf-8")
    tokenize_corpus(tmp_path / "raw", tmp_path / "pieces", chain.bert)
    preprocess(tmp_path / "pieces", tmp_path / "data", "--joined-dictionary")
    message = refusal(capsys, tmp_path / "data", chain.teacher)
    assert "is not the one that this teacher was trained with" in message


def test_student_checkpoint_is_no_teacher(chain, data, tmp_path, capsys):
    from tests.tiny_chain import train_student

    student = train_student(data, tmp_path / "student", "--kd-weight", 0, updates=1)
    assert "is no teacher: it holds a `transformer` model" in refusal(capsys, data, student)


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
