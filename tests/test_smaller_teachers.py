"""Teachers with fewer layers and teachers that were never pre-trained, from training to a store."""

import re
import shutil

import pytest
import torch
import transformers

from fairseq_bert_kd.modules.pretrained_encoder import masked_lm_with_random_weights
from fairseq_bert_kd.teachers.load import load_teacher
from tests.tiny_chain import build_teacher_folder, dump, logged, train_teacher

MODEL = "fairseq_bert_kd.models.masked_lm_teacher"
FROZEN = ("--lr", 0)  # the checkpoint holds what training started from


def weights(checkpoint):
    return torch.load(checkpoint, weights_only=True)["model"]


def differing(one, other):
    return sorted(name for name in one if not torch.equal(one[name], other[name]))


@pytest.fixture
def model_folder(chain, tmp_path):
    """A private copy of the pre-trained model."""
    return shutil.copytree(chain.bert, tmp_path / "model")


def test_small_teacher_starts_from_the_first_layers_and_loads_alone(chain, model_folder, tmp_path):
    with logged(MODEL) as messages:
        small = train_teacher(chain.data, model_folder, tmp_path / "small", *FROZEN, "--teacher-layers", 1)
    assert messages == ["--teacher-layers: the first 1 of 2 layers"]
    whole = weights(train_teacher(chain.data, model_folder, tmp_path / "whole", *FROZEN))
    model_folder.rename(tmp_path / "moved away")
    kept = weights(small)
    assert {re.search(r"layer\.(\d)", name)[1] for name in kept if "layer." in name} == {"0"}
    assert differing(kept, whole) == []
    loaded = load_teacher(str(small), str(chain.data))
    assert loaded.model.encoder.config.num_hidden_layers == 1
    shutil.copytree(chain.data, tmp_path / "data")
    assert dump(tmp_path / "data", small, "--name", "small") == 0


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_that_the_model_has_not_are_refused(chain, tmp_path, layers):
    message = f"--teacher-layers {layers}: the layers to keep must be from 1 to 2, the layers of the pre-trained model, got {layers}"
    with pytest.raises(ValueError, match=message):
        train_teacher(chain.data, chain.bert, tmp_path / "teacher", "--teacher-layers", layers)
    assert not list((tmp_path / "teacher").iterdir())  # no checkpoint


def test_random_weights_need_none_on_disk_and_follow_the_seed(chain, model_folder, tmp_path):
    (model_folder / "model.safetensors").unlink()
    found = []
    for run, seed in enumerate((1, 1, 2)):
        with logged(MODEL) as messages:
            path = train_teacher(
                chain.data,
                model_folder,
                tmp_path / f"{run}",
                *FROZEN,
                "--teacher-random-weights",
                "--seed",
                seed,
            )
        assert "and random weights" in messages[0]
        assert "nothing pre-trained was loaded" in messages[0]
        found.append(weights(path))
    assert differing(found[0], found[1]) == []
    name = "encoder.encoder.layer.1.output.dense.weight"
    assert name in differing(found[0], found[2])
    assert found[0][name].std() == pytest.approx(0.02, rel=0.1)  # BERT's own initialisation
    assert (found[0]["encoder.embeddings.LayerNorm.weight"] == 1).all()


def test_random_weights_are_not_the_pretrained_ones_and_the_head_starts_from_their_embeddings(
    chain, model_folder, tmp_path
):
    path = train_teacher(chain.data, model_folder, tmp_path / "random", *FROZEN, "--teacher-random-weights")
    random, pretrained = (
        weights(path),
        weights(train_teacher(chain.data, model_folder, tmp_path / "b", *FROZEN)),
    )
    assert random.keys() == pretrained.keys()
    assert "encoder.embeddings.word_embeddings.weight" in differing(random, pretrained)
    embeddings = random["encoder.embeddings.word_embeddings.weight"]
    assert torch.equal(random["head.projection.weight"], embeddings[random["target_to_teacher"]])
    assert not random["head.projection.bias"].any()


def test_options_combine(chain, tmp_path):
    options = ("--teacher-random-weights", "--teacher-layers", 1, "--teacher-attention", "left-to-right")
    loaded = load_teacher(str(train_teacher(chain.data, chain.bert, tmp_path, *options)), str(chain.data))
    assert loaded.model.attention == "left-to-right"
    assert len(loaded.model.encoder.encoder.layer) == 1


def test_folder_without_a_config_is_refused(chain, model_folder, tmp_path):
    (model_folder / "config.json").unlink()
    with pytest.raises(ValueError, match="Give a folder that holds config.json, or a hub name"):
        train_teacher(chain.data, model_folder, tmp_path / "teacher", "--teacher-random-weights")


def test_half_precision_of_a_folder_is_not_inherited(tmp_path):
    folder = build_teacher_folder("bert", tmp_path)
    transformers.AutoModelForMaskedLM.from_pretrained(folder).half().save_pretrained(folder)
    model = masked_lm_with_random_weights(str(folder))
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    matrix = model.base_model.encoder.layer[0].output.dense.weight
    assert not torch.equal(matrix, matrix.half().float())  # not drawn in half precision either
