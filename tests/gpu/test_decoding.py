"""fairseq-generate in half precision against float32 on the CPU."""

import re

import pytest

from tests.test_chain import hypotheses
from tests.tiny_chain import PLUGIN, run_fairseq, train_student


@pytest.fixture(scope="module")
def student(chain, tmp_path_factory):
    return train_student(chain.data, tmp_path_factory.mktemp("student"), updates=20)


def generate(chain, checkpoint, *arguments):
    return run_fairseq(
        "generate", chain.data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--path", checkpoint,
        "--gen-subset", "test", "--beam", 2, "--max-len-b", 10, "--bpe", "hf_tokenizer", "--hf-tokenizer",
        chain.bert, *arguments,
    )  # fmt: skip


@pytest.mark.parametrize("precision", [(), ("--fp16",)], ids=["fp32", "fp16"])
def test_every_sentence_is_translated(chain, student, device, precision):
    texts = hypotheses(generate(chain, student, *precision, *device.options))
    assert sorted(texts) == list(range(20))
    assert any(texts.values())


@pytest.mark.parametrize(("precision", "tolerance"), [((), 1e-2), (("--fp16",), 0.1)], ids=["fp32", "fp16"])
def test_references_score_as_on_the_cpu(chain, student, device, precision, tolerance):
    def scores(*arguments):
        printed = generate(chain, student, "--score-reference", *arguments)
        return {
            int(key): float(score) for key, score in re.findall(r"^H-(\d+)\t(\S+)\t", printed, flags=re.M)
        }

    expected, found = scores("--cpu"), scores(*precision, *device.options)
    assert found.keys() == expected.keys() == set(range(20))
    for key, score in expected.items():
        assert found[key] == pytest.approx(score, abs=tolerance)
