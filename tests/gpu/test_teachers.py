"""Dumps on a GPU, with pinned buffers and several batches in flight, against the CPU's store."""

import shutil

import numpy as np
import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.topk_store import TopKReader
from tests.tiny_chain import dump

# of a logit relative to the best; a tiny teacher's logits are below 10, and float32 may be TF32
TOLERANCE = {"fp32": 2e-2, "fp16": 5e-2, "bf16": 0.3}
STORE = "train.de-en.en.topk"
MANY_BATCHES = ["--max-tokens", 64, "--chunk-sentences", 16]


@pytest.fixture
def data(chain, tmp_path):
    shutil.copytree(chain.data, tmp_path / "data")
    return tmp_path / "data"


def rows_of(data, *arguments, device=("--cpu",)):
    assert dump(*arguments, "--overwrite", device=device) == 0
    reader = TopKReader(data / STORE)
    return [reader.rows(sentence).copy() for sentence in range(len(reader))]


def logits_by_id(row):
    return dict(zip(row["topk_ids"].tolist(), row["topk_logits"].astype(float), strict=True))


def check_agreement(found, expected, tolerance):
    """Tokens that both stores hold have the same logits; one that only one holds is about as unlikely as the last."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours["log_normalisers"], theirs["log_normalisers"], atol=tolerance)
        for one, other in zip(ours, theirs, strict=True):
            here, there = logits_by_id(one), logits_by_id(other)
            for token in here.keys() | there.keys():
                last = min(here.values()), min(there.values())
                assert here.get(token, last[0]) == pytest.approx(there.get(token, last[1]), abs=tolerance)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_store_agrees_with_that_of_the_cpu(chain, data, device, precision):
    expected = rows_of(data, data, chain.teacher)
    found = rows_of(data, data, chain.teacher, *MANY_BATCHES, "--precision", precision, device=device.options)
    check_agreement(found, expected, TOLERANCE[precision])


def test_gold_and_drawn_tokens_agree_with_their_logits(chain, data, device):
    options = ["--gold", "--samples", 4]
    expected = rows_of(data, data, chain.teacher, *options)
    found = rows_of(data, data, chain.teacher, *options, *MANY_BATCHES, device=device.options)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours["gold_id"], theirs["gold_id"])
        np.testing.assert_allclose(
            ours["gold_logit"].astype(float), theirs["gold_logit"].astype(float), atol=TOLERANCE["fp32"]
        )
        for row in ours:
            stored = logits_by_id(row)
            for token, logit in zip(
                row["sample_ids"].tolist(), row["sample_logits"].astype(float), strict=True
            ):
                assert stored.get(token, logit) == pytest.approx(logit, abs=TOLERANCE["fp32"])


def test_shards_of_both_devices_are_not_merged(chain, data, device, capsys):
    if device.name == "cpu":
        pytest.skip("needs another device than the CPU")
    alike = ["--precision", "fp32", "--max-tokens", 8192, "--overwrite"]
    for shard, options in (("1/2", device.options), ("2/2", ("--cpu",))):
        assert dump(data, chain.teacher, "--shard", shard, *alike, device=options) == 0
    assert cli_main(["store", "merge", *map(str, sorted(data.glob(f"{STORE}.shard-*")))]) != 0
    assert "are not of one dump (device: " in capsys.readouterr().err


def test_compiled_teacher(chain, data, device):
    if device.name == "cpu":
        pytest.skip("compiling for a CPU takes longer than the rest of these tests")
    pytest.importorskip("triton")
    expected = rows_of(data, data, chain.teacher)
    found = rows_of(data, data, chain.teacher, "--compile", device=device.options)
    check_agreement(found, expected, TOLERANCE["fp32"])
