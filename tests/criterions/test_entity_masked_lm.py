"""MLM and entity prediction: the loss by hand, the noise in batches, and a run by the commands."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.criterions.entity_masked_lm import EntityMaskedLMCriterion
from fairseq_bert_kd.data.masked_entities import noisy
from fairseq_bert_kd.storage.entity_mentions import Mentions, MentionsByRow
from fairseq_bert_kd.teachers.load_masked_lm import load_masked_lm
from tests.tiny_chain import PLUGIN, WORDS, build_teacher_folder, logged, run_fairseq

PREDICTED = torch.tensor([[True, False, False], [False, True, False]])
ALIGNED = torch.tensor([[True, True, False], [False, False, False]])


class Stub(nn.Module):
    """Two masked tokens with probabilities 1/2 and 1/4 of the gold one; entities as in section 5.5 of the specification."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]).log())
        self.features = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 9.0]]))
        self.entities = SimpleNamespace(vectors=torch.tensor([[0.0, 0], [1, 0], [5, 5], [0, 1]]))

    def forward(self, texts, predicted, aligned):
        return self.logits[: int(predicted.sum())], self.features[: int(aligned.sum())]


def sample(labels, predicted=PREDICTED):
    labels = torch.tensor(labels)
    return {
        "nsentences": 2,
        "ntokens": 6,
        "net_input": {"texts": (), "predicted": predicted, "aligned": labels != 0},
        "entity_labels": labels,
        "target": torch.tensor([[0, 0, 2], [1, 1, 2]]),
    }


def test_loss_by_hand():
    """Candidates are entities 1 and 3, so the scores are (1, 0) and (0, 9)."""
    model, criterion = Stub(), EntityMaskedLMCriterion(SimpleNamespace(target_dictionary=None))
    loss, size, log = criterion(model, sample([[1, 3, 0], [0, 0, 0]]))
    tokens = math.log(2) + math.log(4)
    entities = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-9))
    assert size == 2
    torch.testing.assert_close(loss.item(), tokens + entities * 2 / 2, atol=1e-5, rtol=0)
    assert log["entities_correct"] == 2
    assert log["chance"] == 1.0  # of two rows one would be right
    loss, _, _ = criterion(model, sample([[3, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(loss.item(), tokens, atol=1e-5, rtol=0)  # one candidate


def test_entities_weigh_as_much_as_masked_tokens_whatever_their_number():
    """One masked token and two entities: fairseq divides the sum by 1, so the entities come in by their mean."""
    criterion = EntityMaskedLMCriterion(SimpleNamespace(target_dictionary=None))
    one_token = PREDICTED & torch.tensor([[True], [False]])
    loss, size, _ = criterion(Stub(), sample([[1, 3, 0], [0, 0, 0]], one_token))
    entities = math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-9))
    assert size == 1
    torch.testing.assert_close(loss.item(), math.log(2) + entities / 2, atol=1e-5, rtol=0)


def test_a_batch_without_entities_has_a_gradient_everywhere():
    model, criterion = Stub(), EntityMaskedLMCriterion(SimpleNamespace(target_dictionary=None))
    loss, _, _ = criterion(model, sample([[0, 0, 0], [0, 0, 0]]))
    loss.backward()
    assert model.features.grad is not None
    assert not model.features.grad.any()


def test_labels_are_the_clean_entities_and_noise_follows_the_epoch():
    rows = np.array([(row, 0, 1, 2, 1 + row % 7, 0) for row in range(400)])
    by_row = MentionsByRow(Mentions(rows, "", "first"), 400, 1)
    show = noisy(by_row, table_size=1000, seed=1, training=True)
    shown = [show(row, [3], np.zeros(3, bool), 1) for row in range(400)]
    assert all(one.labels.tolist() == [0, 1 + row % 7, 0] for row, one in enumerate(shown))
    seen = np.array([one.seen[0] for one in shown])
    assert not seen[:, [0, 2]].any()
    hidden = (seen[:, 1] == 0).mean()
    kept = (seen[:, 1] == rows[:, 4]).mean()
    assert 0.08 < hidden < 0.22  # 15 %, six standard deviations apart on either side
    assert 0.70 < kept < 0.90
    again = [show(row, [3], np.zeros(3, bool), 2).seen[0].tolist() for row in range(400)]
    assert again != seen.tolist()
    fixed = noisy(by_row, table_size=1000, seed=1, training=False)
    for row in range(20):
        one, other = (fixed(row, [3], np.zeros(3, bool), epoch).seen[0] for epoch in (1, 2))
        assert one.tolist() == other.tolist()


def cli(*words):
    assert cli_main(list(map(str, words))) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entity-mlm")
    build_teacher_folder("bert", folder / "bert")
    for split in ("train", "valid"):
        lines = (" ".join(WORDS[i : i + 4]) for i in range(12))
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    cli("prepare-sentences", "--tokenizer", folder / "bert", "--task", "plain", "--train", folder / "train.txt", "--valid", folder / "valid.txt", "--destdir", folder / "data")  # fmt: skip
    np.save(folder / "array.npy", np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32))
    (folder / "ids.txt").write_text("".join(f"{word}\n" for word in WORDS[:8]))
    (folder / "names.tsv").write_text("".join(f"{word}\t{word}\n" for word in WORDS[:8]))
    cli("entity-vectors", "--array", folder / "array.npy", "--array-ids", folder / "ids.txt", "--output", folder / "graph.safetensors")  # fmt: skip
    cli("entities", folder / "data", "--vectors", folder / "graph.safetensors", "--linker", "dictionary", "--names", folder / "names.tsv")  # fmt: skip
    return folder


def train(folder, *options):
    run_fairseq(
        "train", folder / "data", "--user-dir", PLUGIN, "--task", "conditional_masked_lm", "--cmlm-one-sided",
        "--cmlm-keep", 0.1, "--cmlm-random", 0.1, "--arch", "hf_masked_lm", "--teacher-model", folder / "bert",
        "--entity-vectors", folder / "graph.safetensors", "--optimizer", "adam", "--lr", 0.001, "--batch-size", 6,
        "--max-update", 2, "--save-dir", folder / "model", "--no-epoch-checkpoints", "--num-workers", 0,
        "--no-progress-bar", "--cpu", *options,
    )  # fmt: skip


def test_a_run(folder, caplog):
    with pytest.raises(ValueError, match="and --entity-vectors needs --criterion entity_masked_lm"):
        train(folder, "--criterion", "conditional_masked_lm")
    train(folder, "--criterion", "entity_masked_lm")
    with logged("fairseq_bert_kd.models.masked_lm_teacher") as messages:
        model, _ = load_masked_lm(str(folder / "model" / "checkpoint_last.pt"))
    assert any("is used without them" in message for message in messages)
    assert model.entity_head is not None
    assert model.entities.vectors.shape == (9, 8)
    assert not model.entities.vectors[0].any()
