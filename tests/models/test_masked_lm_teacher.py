import json

import pytest
import torch
import transformers
from fairseq.data import Dictionary
from fairseq.models import MODEL_REGISTRY
from omegaconf import OmegaConf

from fairseq_bert_kd.models.masked_lm_teacher import HfMaskedLM, HfMaskedLMConfig
from fairseq_bert_kd.modules.pretrained_encoder import encoder_positions
from fairseq_bert_kd.teachers.interface import TokenTeacher
from fairseq_bert_kd.teachers.load import is_token_teacher, load_teacher
from fairseq_bert_kd.tokenization.dictionary import teacher_vocabulary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.models.small_teachers import SOURCE, TARGET, Task, build_teacher, inputs_of, rebuild
from tests.tiny_chain import TEACHERS, build_teacher_folder, train_teacher


@pytest.fixture(params=TEACHERS)
def teacher(request, tmp_path):
    """A fresh teacher in evaluation mode, its folder, tokenizer and task."""
    folder = build_teacher_folder(request.param, tmp_path / request.param)
    model, tokenizer, task = build_teacher(folder)
    return model, folder, tokenizer, task


def batch(tokenizer, task):
    inputs = inputs_of(tokenizer, task)
    predicted = torch.zeros_like(inputs["predicted"])
    predicted[0, 0] = predicted[1, inputs["lengths"][1][1] - 1] = True  # a first token and an end of sentence
    return inputs | {"predicted": predicted}


def test_hidden_states_are_those_of_transformers_on_the_pair_as_its_own_tokenizer_writes_it(teacher):
    model, folder, tokenizer, task = teacher
    logits = model(**batch(tokenizer, task))

    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    hf_model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    expected = []
    for sentence, slot in ((0, "first"), (1, "last")):
        pair = hf_tokenizer(SOURCE[sentence], TARGET[sentence], return_tensors="pt")
        source_length = len(hf_tokenizer(SOURCE[sentence])["input_ids"])
        extra = len(model.text_format.middle) - 1  # RoBERTa doubles the separator
        position = source_length + extra if slot == "first" else pair["input_ids"].shape[1] - 1
        pair["input_ids"][0, position] = hf_tokenizer.mask_token_id
        if not model.uses_segments:
            pair.pop("token_type_ids", None)
        hidden = hf_model.base_model(**pair)[0][0, position]
        expected.append(model.head(hidden))
    torch.testing.assert_close(logits, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_full_head_on_the_teachers_own_dictionary_gives_transformers_logits(teacher):
    """With untouched weights, our head scores a piece as the model's tied head does, less its bias."""
    model, folder, _tokenizer, _task = teacher
    hf_model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    hidden = torch.randn(3, model.head.dense.in_features)
    output = hf_model.get_output_embeddings()
    transformed = model.head.layer_norm(model.head.activation(model.head.dense(hidden)))
    all_scores = transformed @ output.weight.T  # (3, teacher vocabulary)
    torch.testing.assert_close(
        model.head(hidden), all_scores[:, model.target_to_teacher], rtol=1e-4, atol=1e-5
    )


def test_projection_starts_from_input_embeddings_untied_with_zero_bias(teacher):
    model, _, tokenizer, task = teacher
    embeddings = model.encoder.get_input_embeddings().weight
    for piece in tokenizer.encode(TARGET[0]):
        row = model.head.projection.weight[task.target_dictionary.index(piece)]
        assert torch.equal(row, embeddings[tokenizer.piece_to_id(piece)])
    assert model.head.projection.weight.shape[0] == len(task.target_dictionary)
    assert not model.head.projection.bias.any()
    with torch.no_grad():
        model.head.projection.weight.zero_()
    assert embeddings.any()


def test_only_masked_positions_are_projected(teacher):
    model, _, tokenizer, task = teacher
    seen = []
    model.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))
    logits = model(**batch(tokenizer, task))
    assert seen == [2]
    assert logits.shape == (2, len(task.target_dictionary))


def test_a_masked_token_cannot_be_seen(teacher):
    model, _, tokenizer, task = teacher
    inputs = batch(tokenizer, task)
    before = model(**inputs)
    source, target = inputs["texts"]
    target = target.clone()
    inputs["texts"] = (source, target)
    target[0, 0] = task.target_dictionary.index(tokenizer.encode(TARGET[1])[0])
    torch.testing.assert_close(model(**inputs), before)
    target[0, 1] = task.target_dictionary.index(tokenizer.encode(TARGET[1])[0])
    assert not torch.allclose(model(**inputs)[0], before[0])  # right context is seen


def test_padding_changes_nothing(teacher):
    model, _, tokenizer, task = teacher
    inputs = batch(tokenizer, task)
    together = model(**inputs)
    alone = []
    for row in range(2):
        lengths = [side[row] for side in inputs["lengths"]]
        single = {
            "texts": [
                text[row : row + 1, :length] for text, length in zip(inputs["texts"], lengths, strict=True)
            ],
            "lengths": [length[None] for length in lengths],
            "predicted": inputs["predicted"][row : row + 1, : lengths[1]],
        }
        alone.append(model(**single))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_checkpoint_description_rebuilds_the_model_without_the_folder(teacher, tmp_path):
    model, folder, tokenizer, task = teacher
    spec, state = model.spec(), model.state_dict()
    folder.rename(tmp_path / "moved away")
    rebuilt = rebuild(spec, task)
    rebuilt.load_state_dict(state)
    inputs = batch(tokenizer, task)
    assert torch.equal(rebuilt(**inputs), model(**inputs))
    assert json.loads(rebuilt.spec()) == json.loads(model.spec())


def test_positions_count_from_after_the_padding_index(teacher):
    model, *_ = teacher
    assert encoder_positions(model.encoder) == 64
    assert model.max_positions() == 64 - model.text_format.overhead(2)


def test_encoder_without_a_pretraining_head_gets_one_and_says_so(tmp_path, caplog):
    folder = build_teacher_folder("bert", tmp_path / "bert")
    encoder = transformers.AutoModelForMaskedLM.from_pretrained(folder).bert
    (folder / "model.safetensors").unlink()
    encoder.save_pretrained(folder)  # as MiniLM is published: a BertModel
    tokenizer = HfTokenizer(str(folder))
    dictionary = Dictionary()
    task = Task(
        dictionary, dictionary, teacher_vocabulary(tokenizer, {"source": dictionary, "target": dictionary})
    )
    model = HfMaskedLM.build_model(OmegaConf.structured(HfMaskedLMConfig(teacher_model=str(folder))), task)
    assert "has no MLM transform" in caplog.text
    weights = encoder.get_input_embeddings().weight
    assert torch.equal(model.encoder.get_input_embeddings().weight, weights)


def test_checkpoint_of_another_architecture_is_refused(tmp_path):
    folder = build_teacher_folder("bert", tmp_path / "bert")
    other = build_teacher_folder("distilbert", tmp_path / "distilbert")
    (other / "model.safetensors").rename(folder / "model.safetensors")
    tokenizer = HfTokenizer(str(folder))
    dictionary = Dictionary()
    task = Task(
        dictionary, dictionary, teacher_vocabulary(tokenizer, {"source": dictionary, "target": dictionary})
    )
    with pytest.raises(ValueError, match="lacks .* weights of its encoder"):
        HfMaskedLM.build_model(OmegaConf.structured(HfMaskedLMConfig(teacher_model=str(folder))), task)


def test_tokenizer_of_another_model_is_refused(tmp_path):
    folder = build_teacher_folder("bert", tmp_path / "bert")
    tokenizer = HfTokenizer(str(folder))
    dictionary = Dictionary()
    vocabulary = teacher_vocabulary(tokenizer, {"source": dictionary, "target": dictionary})
    vocabulary.to_teacher["target"][-1] = 10_000
    config = OmegaConf.structured(HfMaskedLMConfig(teacher_model=str(folder)))
    with pytest.raises(ValueError, match="model and tokenizer do not belong together"):
        HfMaskedLM.build_model(config, Task(dictionary, dictionary, vocabulary))


def test_name_is_ours():
    assert MODEL_REGISTRY["hf_masked_lm"] is HfMaskedLM


def test_it_teaches_tokens_and_other_models_do_not(teacher):
    model, *_ = teacher
    assert isinstance(model, TokenTeacher)
    assert is_token_teacher("hf_masked_lm")
    others = ("transformer", "distilled_transformer_small", "lstm", "roberta", "nothing", None)
    assert not any(is_token_teacher(name) for name in others)


def as_before(state):
    """The checkpoint as versions wrote it whose maps were ``source_ids`` and ``target_ids``."""
    for side in ("source", "target"):
        state["model"][f"{side}_ids"] = state["model"].pop(f"{side}_to_teacher")
    spec = json.loads(state["cfg"]["model"]["teacher_spec"])
    segments = spec["pair_format"].pop("segments")
    spec["pair_format"] |= {"source_segment": segments[0], "target_segment": segments[1]}
    state["cfg"]["model"]["teacher_spec"] = json.dumps(spec)
    return state


def test_checkpoint_of_an_earlier_version_is_the_same_teacher(chain, tmp_path):
    state = torch.load(chain.teacher, weights_only=False)
    torch.save(as_before(state), tmp_path / "before.pt")
    new, old = (
        load_teacher(str(path), str(chain.data)).model for path in (chain.teacher, tmp_path / "before.pt")
    )
    assert old.text_format == new.text_format
    weights, same = new.state_dict(), old.state_dict()
    assert weights.keys() == same.keys()
    assert {"source_to_teacher", "target_to_teacher"} <= weights.keys()
    assert weights["target_to_teacher"].any()
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_training_goes_on_from_a_checkpoint_of_an_earlier_version(chain, tmp_path):
    state = torch.load(chain.teacher, weights_only=False)
    (tmp_path / "teacher").mkdir()
    torch.save(as_before(state), tmp_path / "teacher/checkpoint_last.pt")
    updates = state["optimizer_history"][-1]["num_updates"]
    checkpoint = train_teacher(chain.data, chain.bert, tmp_path / "teacher", updates=updates + 1)
    later = torch.load(checkpoint, weights_only=False)
    assert later["optimizer_history"][-1]["num_updates"] == updates + 1
    assert {"source_to_teacher", "target_to_teacher"} <= later["model"].keys()
    assert not {"source_ids", "target_ids"} & later["model"].keys()
