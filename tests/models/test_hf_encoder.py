import json
import shutil

import pytest
import torch
import transformers
from fairseq.criterions.sentence_prediction import SentencePredictionConfig, SentencePredictionCriterion
from fairseq.models import MODEL_REGISTRY
from omegaconf import OmegaConf
from torch import nn

from fairseq_bert_kd.functional.encoder_states import record
from fairseq_bert_kd.models.hf_encoder import HfEncoder
from fairseq_bert_kd.modules.encoder_layers import inside
from tests.models.small_encoders import (
    FIRST,
    FORM,
    HEAD,
    NAMES,
    SECOND,
    batch_of,
    build,
    save,
    sentence_task,
    sizes,
    whole_text,
)
from tests.tiny_chain import TEACHERS, build_teacher_folder, logged

MODEL = "fairseq_bert_kd.models.hf_encoder"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a pre-trained model by name; read-only."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = build_teacher_folder(name, tmp_path_factory.mktemp(name) / name)
        return made[name]

    return folder


@pytest.fixture
def bert(folders):
    return folders("bert")


@pytest.fixture
def task(bert):
    return sentence_task(bert)


def vectors(model, task, lines, vector):
    batch = batch_of(task, lines)
    return model.sentence_vectors(batch["texts"][0], batch["lengths"][0], vector)


def encoded(folder, *texts):
    """What the model's own tokenizer gives to transformers."""
    return transformers.AutoTokenizer.from_pretrained(folder)(*texts, padding=True, return_tensors="pt")


@pytest.mark.parametrize("texts", [(FIRST,), (FIRST, SECOND)], ids=["single", "pair"])
@pytest.mark.parametrize("name", TEACHERS)
def test_hidden_states_are_those_of_transformers_on_its_own_tokenizer_s_input(folders, name, texts):
    task = sentence_task(folders(name))
    model = build(task, encoder_model=str(folders(name)))
    hidden, extra = model(**batch_of(task, *texts))
    inputs = encoded(folders(name), *texts)
    assert torch.equal(extra["inputs"].input_ids, inputs["input_ids"])
    assert torch.equal(extra["inputs"].attention_mask, inputs["attention_mask"])
    if model.uses_segments:
        assert torch.equal(extra["inputs"].token_type_ids, inputs["token_type_ids"])
    else:
        inputs.pop("token_type_ids", None)
    expected = transformers.AutoModel.from_pretrained(folders(name)).eval()(**inputs)[0]
    torch.testing.assert_close(hidden, expected)


@pytest.mark.parametrize("name", TEACHERS)
def test_classifier_of_a_folder_gives_its_logits_for_labels_in_any_order(folders, name, tmp_path):
    torch.manual_seed(0)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(
        folders(name), id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)}
    ).eval()
    classifier.save_pretrained(tmp_path)
    inputs = encoded(folders(name), FIRST, SECOND)
    if getattr(classifier.config, "type_vocab_size", 0) < 2:
        inputs.pop("token_type_ids", None)
    expected = classifier(**inputs).logits
    for order in ((0, 1, 2), (2, 0, 1)):
        task = sentence_task(folders(name), tuple(NAMES[i] for i in order))
        with logged(MODEL) as messages:
            model = build(task, encoder_model=str(tmp_path))
        assert "the head starts from the classifier that came with the encoder (no, yes, maybe)" in messages
        logits, _ = model(**batch_of(task, FIRST, SECOND), features_only=True, classification_head_name=HEAD)
        torch.testing.assert_close(logits, expected[:, list(order)])


def test_classifier_of_other_labels_is_not_used(bert, tmp_path):
    transformers.AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3).save_pretrained(
        tmp_path
    )
    with logged(MODEL) as messages:
        model = build(sentence_task(bert), encoder_model=str(tmp_path))
    assert messages[0] == (
        "the classifier that came with the encoder (LABEL_0, LABEL_1, LABEL_2, pooler and dropout) is not used: this one is "
        "for no, yes, maybe, pooler and dropout"
    )
    assert model.classification_heads[HEAD].names == NAMES


@pytest.mark.parametrize("other", [{"classification_pooling": "mean"}, {"classifier": "relu"}])
def test_classifier_of_another_form_is_not_used(task, tmp_path, other):
    path = save(build(task, **sizes(), **other), tmp_path / "mean.pt", **FORM | other)
    with logged(MODEL) as messages:
        build(task, encoder_init=str(path))
    assert "is not used" in messages[0]
    with logged(MODEL) as messages:
        build(task, encoder_init=str(path), **other)
    assert messages == ["the head starts from the classifier that came with the encoder (no, yes, maybe)"]


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
@pytest.mark.parametrize("regression", [False, True])
def test_stock_criterion_trains_it(task, pooling, regression):
    """A model that does not use its input cannot tell the sentences apart."""
    if regression:
        task.label_names, task.num_classes = (), 1
    torch.manual_seed(1)
    model = build(task, **sizes(), classification_pooling=pooling, classification_dropout=0.0)
    criterion = SentencePredictionCriterion(
        OmegaConf.structured(SentencePredictionConfig(regression_target=regression)), task
    )
    target = torch.tensor([0.5, -1.0]) if regression else torch.tensor([2, 0])
    sample = {"net_input": batch_of(task, FIRST, SECOND), "target": target, "ntokens": 10, "nsentences": 2}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss, sample_size, _logs = criterion(model, sample)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sample_size == 2
    assert losses[-1] < 0.1 * losses[0]
    unused = [n for n, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert unused == []  # else several workers would wait for each other


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_half_precision(task, pooling):
    """As under --bf16, which casts the whole model."""
    torch.manual_seed(1)
    model = build(task, **sizes(), classification_pooling=pooling)
    inputs = {**batch_of(task, FIRST, SECOND), "classification_head_name": HEAD}
    expected, _ = model(**inputs)
    logits, _ = model.bfloat16()(**inputs)
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.02)


def test_pretrained_pooler_that_is_not_used_is_frozen(bert, task, tmp_path):
    torch.manual_seed(0)
    encoder = transformers.AutoModel.from_pretrained(bert)
    encoder.save_pretrained(tmp_path)
    frozen = build(task, encoder_model=str(tmp_path), classification_pooling="mean")
    assert not any(weight.requires_grad for weight in frozen.pooler.parameters())
    used = build(task, encoder_model=str(tmp_path))
    assert all(weight.requires_grad for weight in used.pooler.parameters())
    expected = encoder.eval()(**encoded(bert, FIRST)).pooler_output
    for model in (frozen, used):
        torch.testing.assert_close(vectors(model, task, FIRST, "pooler"), expected)


def test_head_of_tinybert_s_release(task):
    model = build(task, **sizes(), classifier="relu")
    head, pooled = model.classification_heads[HEAD].train(), torch.randn(4, 24)
    torch.testing.assert_close(head(pooled), head.output(torch.relu(pooled)))
    assert not any(isinstance(module, nn.Dropout) for module in head.modules())


@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_logits_are_those_of_the_whole_output(folders, name, pooling):
    """Which `record` sees, although the last layer otherwise runs at the first token only."""
    task = sentence_task(folders(name))
    model = build(task, encoder_model=str(folders(name)), classification_pooling=pooling)
    inputs = batch_of(task, FIRST, SECOND)
    logits, extra = model(**inputs, classification_head_name=HEAD)
    hidden, _ = model(**inputs)
    torch.testing.assert_close(model.classify(hidden, extra["inputs"], HEAD), logits)
    with record(inside(model.encoder), hidden=(2,), scores=(2,)) as states:
        again, _ = model(**inputs, classification_head_name=HEAD)
    torch.testing.assert_close(states.hidden[2], hidden)
    torch.testing.assert_close(again, logits)


def test_dropout_is_that_of_the_option(task):
    dropped = build(task, **sizes(), classification_dropout=1.0).classification_heads[HEAD].train()
    assert torch.equal(dropped(torch.ones(2, 24)), dropped.output.bias.expand(2, 3))


# ------------------------------------------------------------ checkpoints


def rebuilt(model, task, **options):
    """The model of a checkpoint in a place where nothing else is."""
    description, weights = model.spec(), model.state_dict()
    task = sentence_task_without_vocabulary(task)
    again = build(task, encoder_model="gone", encoder_spec=description, **options)
    again.load_state_dict(weights, strict=True)
    return again


def sentence_task_without_vocabulary(task):
    return type(task)(**{**vars(task), "vocabulary": None})


@pytest.mark.parametrize("name", TEACHERS)
def test_checkpoint_needs_neither_weights_nor_tokenizer(folders, name):
    task = sentence_task(folders(name))
    torch.manual_seed(2)
    model = build(task, encoder_model=str(folders(name)))
    again = rebuilt(model, task)
    inputs = batch_of(task, FIRST, SECOND)
    torch.testing.assert_close(
        model(**inputs, classification_head_name=HEAD)[0], again(**inputs, classification_head_name=HEAD)[0]
    )
    assert again.spec() == model.spec()
    assert again.classification_heads[HEAD].names == NAMES
    assert again.max_positions() == model.max_positions()
    assert again.tokenizer_digest() == task.tokenizer.digest()


def test_checkpoint_is_refused_where_the_classes_are_numbered_otherwise(task):
    model = build(task, **sizes())
    task.label_names = ("yes", "no", "maybe")
    message = "the checkpoint's classes are no, yes, maybe, in this order, those of the data yes, no, maybe; prepare"
    with pytest.raises(ValueError, match=message):
        rebuilt(model, task)


def test_general_stage_starts_the_task_stage(task, tmp_path):
    """An encoder without a head, then one with."""
    torch.manual_seed(3)
    general = build(task, head=False, **sizes())
    path = save(general, tmp_path / "general.pt")
    model = build(task, encoder_init=str(path), **sizes())  # a preset gives sizes too
    inputs = batch_of(task, FIRST)
    torch.testing.assert_close(model(**inputs)[0], general(**inputs)[0])
    assert torch.equal(model.pooler.dense.weight, general.pooler.dense.weight)
    names = ("maybe", "no", "yes")
    logits = model(**inputs, classification_head_name=HEAD)[0]
    later = build(
        sentence_task_with(task, label_names=names), encoder_init=str(save(model, tmp_path / "task.pt"))
    )
    again = later(**inputs, classification_head_name=HEAD)[0]
    torch.testing.assert_close(again, logits[:, [2, 0, 1]])


def sentence_task_with(task, **changes):
    return type(task)(**{**vars(task), **changes})


def test_student_from_chosen_layers_of_a_teacher(bert, task, tmp_path):
    teacher = build(task, **sizes(layers=5))
    path = save(teacher, tmp_path / "teacher.pt")
    student = build(task, encoder_init=str(path), encoder_init_layers="0,2,4")
    assert student.encoder.config.num_hidden_layers == 3
    for kept, layer in enumerate((0, 2, 4)):
        weights = student.encoder.encoder.layer[kept].state_dict()
        expected = teacher.encoder.encoder.layer[layer].state_dict()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    rebuilt(student, task)
    from_folder = build(task, encoder_model=str(bert), encoder_init_layers="1")
    whole = transformers.AutoModel.from_pretrained(bert)
    weight = from_folder.encoder.encoder.layer[0].attention.self.query.weight
    assert torch.equal(weight, whole.encoder.layer[1].attention.self.query.weight)


def test_masked_language_model_of_ours_is_a_start(chain):
    task = sentence_task(chain.bert)
    model = build(task, encoder_init=str(chain.teacher))
    weights = torch.load(chain.teacher, weights_only=True)["model"]
    ours = model.state_dict()
    names = [name for name in weights if name.startswith("encoder.")]
    assert names
    assert all(torch.equal(ours[name], weights[name]) for name in names)


def test_new_encoder_has_bert_s_form_and_the_tokenizer_s_size(task):
    torch.manual_seed(0)
    model = build(task, encoder_layers=1, encoder_hidden=24, encoder_heads=3)
    config = model.encoder.config
    assert (config.model_type, config.intermediate_size) == ("bert", 96)
    assert config.vocab_size == task.tokenizer.vocab_size > len(task.source_dictionary)
    assert config.pad_token_id == task.tokenizer.special_id("pad")
    assert model.encoder.embeddings.word_embeddings.weight.std().item() == pytest.approx(0.02, rel=0.1)


# ------------------------------------------------------------ vectors and positions


def test_sentence_vectors_by_their_definition_and_alone_as_in_a_batch(bert, task):
    model = build(task, encoder_model=str(bert))
    inputs = encoded(bert, SECOND)
    hidden = transformers.AutoModel.from_pretrained(bert).eval()(**inputs, output_hidden_states=True)
    last, mask = hidden.hidden_states[-1], inputs["attention_mask"][:, :, None]
    last2 = (last + hidden.hidden_states[-2]) / 2
    expected = {
        "cls": last[:, 0],
        "mean": (last * mask).sum(1) / mask.sum(1),
        "last2-mean": (last2 * mask).sum(1) / mask.sum(1),
        "pooler": model.pooler(last[:, 0]),
    }
    expected[None] = expected["mean"]
    for vector, wanted in expected.items():
        found = vectors(model, task, SECOND, vector)
        torch.testing.assert_close(found, wanted)
        alone = vectors(model, task, SECOND[:1], vector)
        torch.testing.assert_close(alone, wanted[:1], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="must be one of pooler, cls, mean, last2-mean, got `max`"):
        vectors(model, task, SECOND, "max")


def test_encoder_without_a_pooler_has_no_such_vector(folders):
    task = sentence_task(folders("distilbert"))
    model = build(task, encoder_model=str(folders("distilbert")), classification_pooling="mean")
    with pytest.raises(ValueError, match="has no pooler"):
        vectors(model, task, FIRST, "pooler")


def test_given_embeddings_take_the_place_of_the_ids(task):
    model = build(task, **sizes())
    inputs = model.lay_out(**batch_of(task, FIRST))
    embedded = model.encoder.get_input_embeddings()(inputs.input_ids)
    expected = model.encode_inputs(inputs)[0]
    torch.testing.assert_close(model.encode_inputs(inputs, embedded)[0], expected)
    assert not torch.allclose(model.encode_inputs(inputs, 2 * embedded)[0], expected, atol=1e-2)


@pytest.mark.parametrize("name", TEACHERS)
def test_longest_rows_fill_the_positions_and_longer_ones_are_refused(folders, name):
    task = sentence_task(folders(name))
    model = build(task, encoder_model=str(folders(name)))
    symbol, eos = (
        task.source_dictionary.index(task.tokenizer.encode(FIRST[0])[0]),
        task.source_dictionary.eos(),
    )

    def rows(*lengths):
        texts = [torch.tensor([[symbol] * (length - 1) + [eos]]) for length in lengths]
        return {"texts": texts, "lengths": [torch.tensor([length]) for length in lengths]}

    most = model.max_positions()
    assert model(**rows(5, most - 5))[0].size(1) == 64
    assert model(**rows(most))[0].size(1) <= 64
    for lengths in ((5, most - 4), (most + 3,)):
        with pytest.raises(ValueError, match="the encoder has 64 positions, but a text or pair takes 6"):
            model(**rows(*lengths))


# ------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs --encoder-model, --encoder-init, or the sizes of a new encoder"),
        ({"encoder_layers": 2, "encoder_heads": 2}, "needs --encoder-model, --encoder-init, or the sizes"),
        ({"encoder_layers": 2, "encoder_heads": 5, "encoder_hidden": 24}, "multiple of --encoder-heads, got 24 and 5"),
        ({"encoder_model": "bert", "encoder_init": "x.pt"}, "give one of them"),
        ({**sizes(), "encoder_init_layers": "0"}, "chooses layers of --encoder-model or --encoder-init"),
        ({"encoder_model": "bert", "encoder_init_layers": "0,2"}, "--encoder-init-layers 0,2: .* from 0 to 1"),
        ({"encoder_model": "bert", "encoder_init_layers": "a"}, "--encoder-init-layers a: invalid literal"),
        ({"encoder_model": "bert", "encoder_hidden": 24}, "--encoder-hidden is 24, but `.*bert` has 32"),
        ({"encoder_model": "bert", "encoder_layers": 3}, "--encoder-layers is 3, but `.*bert` has 2"),
        ({"encoder_model": "no/such"}, "cannot load `no/such` as an encoder"),
        ({"encoder_init": "no/such.pt"}, "`no/such.pt` does not exist"),
    ],
)  # fmt: skip
def test_options_that_cannot_work(bert, task, options, message):
    if options.get("encoder_model") == "bert":
        options = options | {"encoder_model": str(bert)}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(task, **options)


def test_checkpoint_of_another_tokenizer_is_refused(folders, task, tmp_path):
    path = save(build(task, **sizes()), tmp_path / "bert.pt")
    with pytest.raises(ValueError, match="was trained with another tokenizer"):
        build(sentence_task(folders("roberta")), encoder_init=str(path))


@pytest.mark.parametrize("settings", [{}, {"encoder_spec": '{"config": {"hidden": 8}}'}])
def test_checkpoint_of_another_model_is_refused(task, tmp_path, settings):
    cfg = {"model": {"_name": "transformer", **settings}}
    torch.save({"model": {}, "cfg": cfg}, tmp_path / "student.pt")
    message = (
        "--encoder-init: .* holds no transformers encoder but a `transformer` model; give a checkpoint of"
    )
    with pytest.raises(ValueError, match=message):
        build(task, encoder_init=str(tmp_path / "student.pt"))


def test_tokenizer_of_another_model_is_refused(bert, task):
    task.vocabulary.token_to_encoder[-1] = 10_000
    with pytest.raises(ValueError, match="model and tokenizer do not belong together"):
        build(task, encoder_model=str(bert))


def test_weights_of_another_architecture_are_refused(folders, bert, task, tmp_path):
    shutil.copytree(bert, tmp_path / "bert")
    shutil.copy(folders("distilbert") / "model.safetensors", tmp_path / "bert")
    with pytest.raises(ValueError, match=r"bert` lacks \d+ weights of its encoder \(first: embeddings"):
        build(task, encoder_model=str(tmp_path / "bert"))


def test_encoder_decoder_is_refused(tmp_path, task):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart"}))
    with pytest.raises(ValueError, match=r"is an encoder-decoder \(bart\); give an encoder"):
        build(task, encoder_model=str(tmp_path))


def test_another_task_is_refused(task):
    with pytest.raises(ValueError, match="is trained with --task sentence_prediction_with_teacher"):
        build(sentence_task_without_vocabulary(task), **sizes())


def test_pooler_of_another_width_is_refused(task):
    with pytest.raises(ValueError, match=r"as wide as the encoder \(24\), got inner_dim 12"):
        build(task, head=False, **sizes()).register_classification_head(HEAD, num_classes=3, inner_dim=12)


def test_name_is_ours():
    assert MODEL_REGISTRY["hf_encoder"] is HfEncoder


@torch.no_grad()
def test_smoothed_words_are_the_authors_soft_inputs(task):
    """With all candidates and the closing token, lambda 1: probabilities times the input embeddings, [CLS] as it is."""
    model, batch = build(task, **sizes()), batch_of(task, FIRST)
    text, probs, _ = whole_text(task, batch)
    read = []
    model.encoder.register_forward_pre_hook(lambda _, args, given: read.append(given), with_kwargs=True)
    model(**batch, smoothed=(text,))
    words = model.encoder.get_input_embeddings().weight
    inputs, given = model.lay_out(**batch), read[0]["inputs_embeds"]
    for row, length in enumerate(batch["lengths"][0].tolist()):
        expected = probs[row, :length] @ words[model.token_to_encoder]
        torch.testing.assert_close(given[row, inputs.positions[0][row, :length]], expected, atol=1e-6, rtol=0)
    assert torch.equal(given[:, 0], words[inputs.input_ids[:, 0]])
