"""What the user reads when a model folder cannot be loaded: the file, what it is, the next step."""

import json
import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file

from fairseq_bert_kd.modules.pretrained_encoder import masked_lm_with_random_weights, pretrained_masked_lm
from fairseq_bert_kd.modules.weight_files import unreadable_files
from tests.tiny_chain import build_teacher_folder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
HARMFUL = ("weights_only", "ignore_mismatched_sizes", "trust_remote_code", "header too large", "zip archive")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return build_teacher_folder("bert", tmp_path_factory.mktemp("sound") / "bert")


@pytest.fixture
def folder(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "bert")
    return tmp_path / "bert"


def as_bin(folder, old_format=False):
    """The weights as torch writes them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(weights, path, _use_new_zipfile_serialization=not old_format)
    return path


def in_shards(folder):
    """The weights in several files and an index."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    return sorted(folder.glob("model-*.safetensors"))[-1]


FILES = {
    "safetensors": lambda folder: folder / "model.safetensors",
    "bin": as_bin,
    "old bin": lambda folder: as_bin(folder, old_format=True),
    "shard": in_shards,
    "index": lambda folder: in_shards(folder) and next(folder.glob("*.index.json")),
    "config": lambda folder: folder / "config.json",
}


@pytest.mark.parametrize("kind", FILES)
def test_whole_folders_load_and_no_file_is_blamed(folder, kind):
    FILES[kind](folder)
    assert pretrained_masked_lm(str(folder)).dtype == torch.float32
    assert list(unreadable_files(str(folder))) == []


DAMAGES = {
    "pointer": (lambda content: POINTER, r"is a Git LFS pointer, not the file itself: run `git lfs pull`"),
    "half": (
        lambda content: content[: len(content) // 2],
        "is damaged or cut off: copy or download it again",
    ),
    "empty": (lambda content: b"", "is empty: copy or download it again"),
    "page": (lambda content: b"<!DOCTYPE html><title>404</title>\n", "is damaged or cut off"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", FILES)
def test_the_file_that_cannot_be_read_is_named(folder, kind, damage):
    path = FILES[kind](folder)
    change, said = DAMAGES[damage]
    path.write_bytes(change(path.read_bytes()))
    if kind == "old bin" and damage == "half":
        said = "cannot load"  # where such a file ends cannot be told
    with pytest.raises(ValueError, match=said) as refusal:
        pretrained_masked_lm(str(folder))
    message = str(refusal.value)
    assert message.startswith(f"cannot load `{folder}` as a masked language model: ")
    if said != "cannot load":
        assert f"`{path}`" in message
    shown = message + str(refusal.value.__cause__)
    assert not [word for word in HARMFUL if word in shown]


class Foreign:
    """Unpickling one would run what it names."""

    def __reduce__(self):
        return print, ("run",)


def test_weights_that_hold_code_are_refused_without_advice_to_run_it(folder):
    path = as_bin(folder)
    torch.save({"weight": Foreign()}, path)
    with pytest.raises(ValueError, match="its weights are not a file of tensors alone") as refusal:
        pretrained_masked_lm(str(folder))
    assert not [word for word in HARMFUL if word in str(refusal.value)]
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("vocab_size", 400, "`bert.embeddings.word_embeddings.weight` is 400 x 32 by config.json and 354 x 32 in the weights"),
        ("vocab_size", 300, "is 300 x 32 by config.json and 354 x 32 in the weights"),
        ("hidden_size", 64, "is 354 x 64 by config.json and 354 x 32 in the weights"),
        ("max_position_embeddings", 128, "is 128 x 32 by config.json and 64 x 32 in the weights"),
        ("intermediate_size", 32, "weights differ in size, .* is 32 by config.json and 64 in the weights"),
    ],
)  # fmt: skip
def test_a_config_of_another_model_is_refused_by_its_sizes(folder, setting, value, said):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {setting: value}))
    if transformers.__version__ < "5":  # which does not say it
        said = re.sub(r"and [\d x]+ in", "and of another size in", said)
    with pytest.raises(ValueError, match=said):
        pretrained_masked_lm(str(folder))


def test_random_weights_need_no_file_of_weights_but_a_config_that_can_be_read(folder):
    (folder / "model.safetensors").write_bytes(POINTER)
    masked_lm_with_random_weights(str(folder))
    (folder / "config.json").write_bytes(POINTER)
    with pytest.raises(ValueError, match=r"config\.json` is a Git LFS pointer"):
        masked_lm_with_random_weights(str(folder))


def test_a_name_that_is_no_folder_is_still_explained():
    with pytest.raises(
        ValueError, match="cannot load `no/such-model` as a masked language model: .*hub name"
    ):
        pretrained_masked_lm("no/such-model")


def test_a_missing_package_is_not_blamed_on_the_files(folder, monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("needs sentencepiece")

    monkeypatch.setattr(transformers.AutoModelForMaskedLM, "from_pretrained", missing)
    with pytest.raises(ImportError, match="needs sentencepiece"):
        pretrained_masked_lm(str(folder))
