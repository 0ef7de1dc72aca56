"""``entity_encoder`` against plain BERT and against the released layers' formulas, written out here."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from fairseq_bert_kd.functional.entity_fusion import EntityInput, unit_scale
from fairseq_bert_kd.models.entity_encoder import EntityEncoder, EntityEncoderConfig
from fairseq_bert_kd.modules.entity_release import ReleasedWeights
from fairseq_bert_kd.modules.entity_stream import EntityHead, EntityLayer, EntityStream
from fairseq_bert_kd.modules.pretrained_encoder import EncoderSpec
from fairseq_bert_kd.storage.entity_vectors import (
    EntityVectors,
    ids_path,
    read_entity_vectors,
    write_entity_vectors,
)
from tests.models.small_encoders import HEAD, batch_of, build, save, sentence_task, sizes
from tests.tiny_chain import build_teacher_folder, logged

TEXTS = (["two men stand", "a house"], ["a little girl", "two young men are standing near a stove"])
DIM = 8


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    build_teacher_folder("bert", folder)
    return sentence_task(folder)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "graph.safetensors"
    rng = np.random.default_rng(1)
    write_entity_vectors(
        path, EntityVectors(tuple("abcde"), rng.standard_normal((5, DIM)).astype(np.float32))
    )
    return path


def model_of(task, vectors, **options):
    torch.manual_seed(1)
    settings = sizes() | {"entity_vectors": str(vectors)} | options
    model = EntityEncoder.build_model(OmegaConf.structured(EntityEncoderConfig(**settings)), task)
    model.register_classification_head(HEAD, num_classes=task.num_classes)
    return model.eval()


def entities_of(batch):
    first, second = (torch.zeros_like(text) for text in batch["texts"])
    first[:, 0] = torch.tensor([1, 2])
    second[1, 2] = 5
    return first, second


def arguments_of(batch):
    """Head at the first piece of the first text, tail in the middle of the second one; the second row has no tail."""
    first, second = (torch.zeros_like(text) for text in batch["texts"])
    first[:, 0], second[0, 1] = 1, 2
    return first, second


@torch.no_grad()
def test_a_head_reads_tokens_and_entities_at_the_arguments(task, vectors, monkeypatch):
    with pytest.raises(ValueError, match="--entity-markers relation or typing"):
        model_of(task, vectors, entity_pooling="arguments")
    monkeypatch.setattr(task, "marked_arguments", 2, raising=False)
    model = model_of(task, vectors, entity_pooling="arguments")
    batch = batch_of(task, *TEXTS)
    entities, arguments = entities_of(batch), arguments_of(batch)
    logits, extra = model(**batch, entities=entities, arguments=arguments, classification_head_name=HEAD)
    inputs = extra["inputs"]
    hidden, states = model._states(inputs, entities)
    width = hidden.size(2) + DIM
    head, tail = inputs.positions[0][:, 0], inputs.positions[1][0, 1]
    expected = torch.zeros(2, 2 * width)
    for row in (0, 1):
        expected[row, :width] = torch.cat([hidden[row, head[row]], states[row, head[row]]])
    expected[0, width:] = torch.cat([hidden[0, tail], states[0, tail]])
    torch.testing.assert_close(logits, model.classification_heads[HEAD](expected))
    with pytest.raises(ValueError, match="give texts with marked arguments"):
        model(**batch, entities=entities, classification_head_name=HEAD)
    again = EntityEncoder.build_model(
        OmegaConf.structured(EntityEncoderConfig(encoder_spec=model.spec())), task
    )
    again.load_state_dict(model.state_dict())
    same, _ = again.eval()(**batch, entities=entities, arguments=arguments, classification_head_name=HEAD)
    torch.testing.assert_close(same, logits)


@torch.no_grad()
def test_the_stream_reads_scaled_vectors(task, vectors):
    """Twice the vectors make no difference, unless they are read as they are."""
    found = {}
    for scale in ("unit", "none"):
        for factor in (1.0, 2.0):
            model = model_of(task, vectors, entity_init="normal", entity_scale=scale)
            model.entities.vectors *= factor
            if scale == "unit":
                model.entities.scale = unit_scale(model.entities.vectors)
            batch = batch_of(task, *TEXTS)
            found[scale, factor] = model(**batch, entities=entities_of(batch))[0]
    torch.testing.assert_close(found["unit", 1.0], found["unit", 2.0])
    assert not torch.allclose(found["none", 1.0], found["none", 2.0], atol=1e-5)
    assert model_of(task, vectors).entities.spec()["scale"] == pytest.approx(
        unit_scale(model_of(task, vectors).entities.vectors)
    )


@torch.no_grad()
def test_zero_start_is_the_encoder_alone(task, vectors):
    model = model_of(task, vectors)
    torch.manual_seed(1)
    plain = build(task, **sizes())
    plain.load_state_dict(model.state_dict(), strict=False)
    batch = batch_of(task, *TEXTS)
    for head in (None, HEAD):
        expected, extra = plain(**batch, classification_head_name=head)
        tokens = extra["inputs"].attention_mask.bool() if head is None else slice(None)
        for entities in (None, entities_of(batch)):
            found, _ = model(**batch, entities=entities, classification_head_name=head)
            torch.testing.assert_close(found[tokens], expected[tokens], atol=1e-6, rtol=0)


@torch.no_grad()
def test_entities_change_the_output_once_trained_and_order_does_not(task, vectors):
    model = model_of(task, vectors, entity_init="normal", entity_layers="mix,full")
    batch = batch_of(task, *TEXTS)
    entities = entities_of(batch)
    for parameter in model.entities.stream.parameters():
        parameter.mul_(20.0)
    hidden, extra = model(**batch, entities=entities)
    without, _ = model(**batch)
    nowhere = tuple(map(torch.zeros_like, entities))
    torch.testing.assert_close(
        model(**batch, entities=nowhere)[0], without
    )  # the first token alone is present
    tokens = extra["inputs"].attention_mask.bool()
    assert torch.isfinite(without).all()
    assert not torch.allclose(hidden[tokens], without[tokens], atol=1e-2)
    turned = {
        name: tuple(value.flip(0) for value in values)
        for name, values in (batch | {"entities": entities}).items()
    }
    torch.testing.assert_close(model(**turned)[0].flip(0)[tokens], hidden[tokens], atol=1e-5, rtol=0)
    alone = {
        name: tuple(value[:1] for value in values) for name, values in turned.items()
    }  # padded otherwise
    torch.testing.assert_close(model(**alone)[0][0][tokens[1]], hidden[1][tokens[1]], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_model_without_entities_reads_none(task, vectors):
    model = model_of(task, vectors, entity_init="normal", entity_control="none")
    batch = batch_of(task, *TEXTS)
    torch.testing.assert_close(
        model(**batch, entities=entities_of(batch))[0], model(**batch)[0], atol=0, rtol=0
    )
    cfg = OmegaConf.structured(EntityEncoderConfig(encoder_spec=model.spec()))
    assert not EntityEncoder.build_model(cfg, task).entities.reads


@torch.no_grad()
def test_sentence_vectors_say_once_that_they_read_no_entities(task, vectors):
    batch = batch_of(task, *TEXTS)
    text = batch["texts"][0], batch["lengths"][0]
    for control, times in (("true", 1), ("none", 0)):
        model = model_of(task, vectors, entity_control=control)
        with logged("fairseq_bert_kd.models.entity_encoder") as messages:
            one, other = (model.sentence_vectors(*text) for _ in range(2))
        assert torch.equal(one, other)
        assert [("without them" in message) for message in messages] == [True] * times


@torch.no_grad()
def test_a_checkpoint_loads_without_the_vectors(task, vectors, tmp_path):
    model = model_of(task, vectors, entity_init="normal")
    path = save(model, tmp_path / "model.pt")
    state = torch.load(path, weights_only=True)
    bare = SimpleNamespace(source_dictionary=task.source_dictionary, label_names=task.label_names)
    cfg = OmegaConf.structured(EntityEncoderConfig(encoder_spec=model.spec()))
    again = EntityEncoder.build_model(cfg, bare).eval()
    again.load_state_dict(state["model"])
    batch = batch_of(task, *TEXTS)
    entities = entities_of(batch)
    expected, _ = model(**batch, entities=entities, classification_head_name=HEAD)
    torch.testing.assert_close(again(**batch, entities=entities, classification_head_name=HEAD)[0], expected)
    assert again.entities_digest() == read_entity_vectors(vectors).digest()
    with pytest.raises(ValueError, match="entity stream"):
        build(task, encoder_init=str(path))
    model_of(task, vectors).load_state_dict(state["model"])
    started = model_of(
        task, vectors, **dict.fromkeys(sizes(), None), encoder_init=str(path), entity_init="normal"
    )
    hidden = [one(**batch, entities=entities)[0] for one in (started, model)]
    torch.testing.assert_close(*hidden)
    with pytest.raises(ValueError, match="was trained with entity layers mix, full and 4 heads"):
        model_of(
            task, vectors, **dict.fromkeys(sizes(), None), encoder_init=str(path), entity_layers="full,full"
        )
    with pytest.raises(ValueError, match="with other entity vectors"):
        model_of(task, vectors, entity_control="shuffled").load_state_dict(state["model"])
    known = read_entity_vectors(vectors)
    write_entity_vectors(tmp_path / "renamed.safetensors", EntityVectors(known.ids[::-1], known.vectors))
    with pytest.raises(ValueError, match="model.pt` was trained with other entity vectors .* other ids"):
        model_of(
            task,
            tmp_path / "renamed.safetensors",
            **dict.fromkeys(sizes(), None),
            encoder_init=str(path),
        )
    with pytest.raises(ValueError, match="under other ids, so that mentions would name other entities"):
        model_of(task, tmp_path / "renamed.safetensors").load_state_dict(state["model"])
    with pytest.raises(ValueError, match="with entities; leave out --entity-control none"):
        model_of(task, vectors, entity_control="none").load_state_dict(state["model"])
    with pytest.raises(ValueError, match="times .*, the options say times 1; give --entity-scale as there"):
        model_of(task, vectors, entity_scale="none").load_state_dict(state["model"])
    init = dict.fromkeys(sizes(), None) | {"encoder_init": str(path)}
    with pytest.raises(
        ValueError, match="model.pt` was trained on entity vectors times .* give --entity-scale"
    ):
        model_of(task, vectors, **init, entity_scale="none")
    assert not model_of(task, vectors, **init, entity_control="none").entities.reads


def test_a_checkpoint_of_half_precision_goes_on_in_float32(task, vectors, tmp_path):
    """Its vectors are rounded; the model keeps its own."""
    path = save(model_of(task, vectors).half(), tmp_path / "model.pt")
    before = read_entity_vectors(vectors).table()
    for started in (
        model_of(task, vectors, **dict.fromkeys(sizes(), None), encoder_init=str(path)),
        model_of(task, vectors),
    ):
        started.load_state_dict(torch.load(path, weights_only=True)["model"])
        assert started.entities.vectors.numpy().tolist() == before.tolist()
    again = model_of(task, vectors).half()
    again.load_state_dict(torch.load(path, weights_only=True)["model"])
    assert again.entities.scale == started.entities.scale


def test_older_checkpoints_say_nothing_of_scale_control_and_ids(task, vectors):
    state = model_of(task, vectors).state_dict()
    del state["entities.reading"], state["entities.identity"]
    model_of(task, vectors, entity_scale="none").load_state_dict(state)


def test_a_checkpoint_knows_its_heads_and_which_pieces_its_mentions_marked(
    task, vectors, monkeypatch, tmp_path
):
    """Other heads have weights of the same shapes, and so have mentions of other pieces."""
    monkeypatch.setattr(task, "entity_span", "first", raising=False)
    model = model_of(task, vectors)
    assert EncoderSpec.from_json(model.spec()).entities["span"] == model.entity_span() == "first"
    state = model.state_dict()
    with pytest.raises(ValueError, match="trained with --entity-heads 4, which is 2 now"):
        model_of(task, vectors, entity_heads=2).load_state_dict(dict(state))
    path = save(model, tmp_path / "model.pt")
    monkeypatch.setattr(task, "entity_span", "all")
    with pytest.raises(ValueError, match="on mentions of --entity-span first, those of the data are of all"):
        model_of(task, vectors).load_state_dict(dict(state))
    started = model_of(task, vectors, **dict.fromkeys(sizes(), None), encoder_init=str(path))
    assert started.entity_span() == "all"
    state["entities.reading"] = state["entities.reading"][:2]  # of an older checkpoint
    older = model_of(task, vectors, entity_heads=2)
    older.load_state_dict(state)
    assert older.entities.reading[2:].tolist() == [2, 2]


def test_a_classifier_of_another_width_is_not_taken(task, vectors, tmp_path, monkeypatch):
    """A start with the same labels, whose classifier reads a sentence's vector and not the arguments; and back."""
    monkeypatch.setattr(task, "marked_arguments", 2, raising=False)
    one = save(model_of(task, vectors), tmp_path / "sentence.pt")
    wide = model_of(task, vectors, entity_pooling="arguments")
    other = save(wide, tmp_path / "arguments.pt")
    init = dict.fromkeys(sizes(), None)
    for path, pooling in ((one, "arguments"), (other, "sentence"), (other, "arguments")):
        model = model_of(task, vectors, **init, encoder_init=str(path), entity_pooling=pooling)
        batch = batch_of(task, *TEXTS)
        logits, _ = model(**batch, entities=entities_of(batch), arguments=arguments_of(batch), classification_head_name=HEAD)  # fmt: skip
        assert logits.shape == (2, task.num_classes)
    assert torch.equal(model.classification_heads[HEAD].output.weight, wide.classification_heads[HEAD].output.weight)  # fmt: skip


def bert(layers=3, hidden=12, heads=3, ffn=20):
    torch.manual_seed(2)
    config = BertConfig(
        vocab_size=30,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def attention(states, query, key, value, heads, mask):
    """The released BertSelfAttention: mask added as 0 or -10000."""
    batch, length, width = states.shape

    def parts(weights):
        return F.linear(states, *weights).view(batch, length, heads, width // heads).transpose(1, 2)

    scores = parts(query) @ parts(key).transpose(-1, -2) / (width // heads) ** 0.5
    mixed = (scores + (1 - mask.float())[:, None, None] * -10000.0).softmax(-1) @ parts(value)
    return mixed.transpose(1, 2).reshape(batch, length, width)


def pair(linear):
    return linear.weight, linear.bias


def released_layer(layer, ours, kind, tokens, vectors, mask, present, heads, entity_heads):
    """BertLayer_simple ("plain"), BertLayerMix ("mix") and BertLayer ("full") of the released code, formula by formula."""
    own = layer.attention.self
    mixed = attention(tokens, pair(own.query), pair(own.key), pair(own.value), heads, mask)
    attended = layer.attention.output.LayerNorm(layer.attention.output.dense(mixed) + tokens)
    inner = layer.intermediate.dense(attended)
    if kind == "plain":
        return layer.output.LayerNorm(layer.output.dense(F.gelu(inner)) + attended), vectors
    if kind == "full":
        mha = ours.attention.attention
        three = zip(mha.in_proj_weight.chunk(3), mha.in_proj_bias.chunk(3), strict=True)
        mixed = mha.out_proj(attention(vectors, *three, entity_heads, present))
        vectors = ours.attention.norm(mixed + vectors)
    vectors = vectors * present[..., None]
    hidden = F.gelu(inner + ours.to_hidden(vectors))
    return (
        layer.output.LayerNorm(layer.output.dense(hidden) + attended),
        ours.norm(ours.from_hidden(hidden) + vectors),
    )


@torch.no_grad()
def test_parity_with_the_released_formulas():
    encoder = bert()
    kinds = ("plain", "mix", "full")
    stream = EntityStream(encoder, kinds, DIM, heads=4, init="normal").eval()
    for parameter in stream.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    ids = torch.randint(1, 30, (3, 7))
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    present = torch.rand(3, 7) < 0.4
    present[:, 0] = True
    present &= mask.bool()
    vectors = torch.randn(3, 7, DIM) * present[..., None]
    ours, states = stream(encoder, EntityInput(vectors, present), ids, mask)
    tokens = encoder.embeddings(input_ids=ids)
    for number, (layer, kind) in enumerate(zip(encoder.encoder.layer, kinds, strict=True)):
        side = stream.layers[str(number)] if kind != "plain" else None
        tokens, vectors = released_layer(layer, side, kind, tokens, vectors, mask, present, 3, 4)
    torch.testing.assert_close(ours[mask.bool()], tokens[mask.bool()], atol=1e-5, rtol=0)
    torch.testing.assert_close(states[mask.bool()], vectors[mask.bool()], atol=1e-5, rtol=0)


@torch.no_grad()
def test_one_mix_layer_by_a_loop():
    """d = 3, d_e = 1, weights 1 but those of W_t, which are 1, 0 and -1: LN would not see the same number in all places."""
    encoder = bert(layers=1, hidden=3, heads=1, ffn=1)
    layer, side = encoder.encoder.layer[0], EntityLayer(encoder.config, "mix", 1, 1).eval()
    for linear in (side.to_hidden, side.from_hidden, layer.intermediate.dense, layer.output.dense):
        linear.weight.fill_(1.0)
        linear.bias.zero_()
    layer.output.dense.weight.copy_(torch.tensor([[1.0], [0.0], [-1.0]]))
    tokens = torch.tensor([[[0.3, -0.2, 0.5], [1.0, 2.0, -1.0]]])
    vectors, present = torch.tensor([[[0.5], [0.7]]]), torch.tensor([[True, False]])
    new, _ = side(layer, tokens, torch.zeros(1, 1, 2, 2), EntityInput(vectors, present))
    attended = layer.attention(tokens)[0]
    for j, entity in enumerate((0.5, 0.0)):
        a, b, c = attended[0, j].tolist()
        hidden = F.gelu(torch.tensor(a + b + c + entity)).item()
        expected = F.layer_norm(torch.tensor([hidden + a, b, c - hidden]), (3,), eps=1e-12)
        torch.testing.assert_close(new[0, j], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_head_by_hand():
    head = EntityHead(bert().config, 3)
    states = torch.randn(4, 12)
    by_hand = F.layer_norm(F.gelu(states @ head.dense.weight.t()), (3,), eps=1e-12)
    torch.testing.assert_close(head(states), by_hand)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"entity_layers": "mix,full,full"}, "names 3 layers, the encoder has 2"),
        ({"entity_layers": "mix,half"}, "got `half`"),
        ({"entity_layers": "plain,plain"}, "at least one mix or full"),
        ({"entity_heads": 3}, "must be at least 1 and divide the width"),
        ({"entity_heads": 0}, "must be at least 1 and divide the width"),
        ({"entity_heads": -1}, "must be at least 1 and divide the width"),
        ({"entity_vectors": None}, "needs --entity-vectors"),
    ],
)
def test_refused(task, vectors, options, said):
    with pytest.raises(ValueError, match=said):
        model_of(task, vectors, **options)


def test_vectors_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    write_entity_vectors(path, EntityVectors(("a", "b"), np.array([[1, 2], [3, np.nan]], np.float32)))
    with pytest.raises(ValueError, match=r"1 vectors .* not finite \(first: b\)"):
        read_entity_vectors(path)
    ids_path(path).write_text("a\n")
    with pytest.raises(ValueError, match="does not hold the ids that"):
        read_entity_vectors(path)


@pytest.mark.parametrize("pooling", ["sentence", "arguments"])
def test_every_trained_weight_gets_a_gradient(task, vectors, pooling, monkeypatch):
    """Several workers stop at one that gets none. What makes the last entity states is trained where a head reads them."""
    monkeypatch.setattr(task, "marked_arguments", 2, raising=False)
    options = {"entity_pooling": pooling, "entity_init": "normal", "entity_layers": "mix,full"}
    model = model_of(task, vectors, **options).train()
    batch = batch_of(task, *TEXTS)
    logits, _ = model(
        **batch, entities=entities_of(batch), arguments=arguments_of(batch), classification_head_name=HEAD
    )
    logits.sum().backward()
    without = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []
    last = model.entities.stream.layers["1"]
    trained = {weight.requires_grad for part in (last.from_hidden, last.norm) for weight in part.parameters()}
    assert trained == {pooling == "arguments"}


@pytest.mark.parametrize("control", ["true", "none"])
def test_gradients_of_the_zero_start_are_of_ordinary_size(task, vectors, control):
    """Layer normalisation of zeros would multiply them by a million, once U has left zero."""
    model = model_of(task, vectors, entity_layers="mix,full", entity_control=control)
    for layer in model.entities.stream.layers.values():
        torch.nn.init.normal_(layer.to_hidden.weight, std=1e-3)
    batch = batch_of(task, *TEXTS)
    logits, _ = model(**batch, entities=entities_of(batch), classification_head_name=HEAD)
    logits.sum().backward()
    norms = [parameter.grad.norm() for parameter in model.entities.parameters() if parameter.grad is not None]
    assert max(norms) < 10


def released_weights(layers=3, hidden=12, ffn=20, width=DIM, kinds=("plain", "mix", "full")):
    """Random tensors under the names of the released file, written out; old names of layer normalisation in one layer."""
    torch.manual_seed(4)
    found = {}

    def linear(name, outputs, inputs):
        found[f"{name}.weight"], found[f"{name}.bias"] = torch.randn(outputs, inputs), torch.randn(outputs)

    def norm(name, size, weight="weight", bias="bias"):
        found[f"{name}.{weight}"], found[f"{name}.{bias}"] = torch.randn(size), torch.randn(size)

    for part, rows in (("word", 30), ("position", 512), ("token_type", 2)):
        found[f"bert.embeddings.{part}_embeddings.weight"] = torch.randn(rows, hidden)
    norm("bert.embeddings.LayerNorm", hidden, "gamma", "beta")
    for number, kind in zip(range(layers), kinds, strict=True):
        layer = f"bert.encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{layer}.attention.{part}", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm", hidden)
        linear(f"{layer}.intermediate.dense", ffn, hidden)
        linear(f"{layer}.output.dense", hidden, ffn)
        norm(f"{layer}.output.LayerNorm", hidden)
        if kind == "plain":
            continue
        if kind == "full":
            for part in ("self_ent.query", "self_ent.key", "self_ent.value", "output_ent.dense"):
                linear(f"{layer}.attention.{part}", width, width)
            norm(f"{layer}.attention.output_ent.LayerNorm", width)
        linear(f"{layer}.intermediate.dense_ent", ffn, width)
        linear(f"{layer}.output.dense_ent", width, ffn)
        norm(f"{layer}.output.LayerNorm_ent", width)
    linear("bert.pooler.dense", hidden, hidden)
    linear("cls.predictions_ent.transform.dense", width, hidden)
    norm("cls.predictions_ent.transform.LayerNorm", width)
    return found


@torch.no_grad()
def test_released_weights_come_under_our_names(tmp_path):
    """The file's own names against a forward pass written out with its tensors."""
    weights = released_weights()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    released = ReleasedWeights.read(str(tmp_path))
    assert released.kinds == ("plain", "mix", "full")
    encoder, pooler = bert(), torch.nn.Linear(12, 12)
    stream = EntityStream(encoder, released.kinds, DIM, heads=4)
    released.fill(encoder, stream, pooler)
    assert torch.equal(
        encoder.embeddings.word_embeddings.weight, weights["bert.embeddings.word_embeddings.weight"]
    )
    assert torch.equal(encoder.embeddings.LayerNorm.weight, weights["bert.embeddings.LayerNorm.gamma"])
    assert torch.equal(pooler.bias, weights["bert.pooler.dense.bias"])
    layer, side = "bert.encoder.layer.2.", stream.layers["2"]
    query, key, value = side.attention.attention.in_proj_weight.chunk(3)
    assert torch.equal(query, weights[f"{layer}attention.self_ent.query.weight"])
    assert torch.equal(key, weights[f"{layer}attention.self_ent.key.weight"])
    assert torch.equal(value, weights[f"{layer}attention.self_ent.value.weight"])
    assert torch.equal(side.attention.norm.weight, weights[f"{layer}attention.output_ent.LayerNorm.weight"])
    assert torch.equal(side.to_hidden.bias, weights[f"{layer}intermediate.dense_ent.bias"])
    assert torch.equal(
        stream.layers["1"].norm.bias, weights["bert.encoder.layer.1.output.LayerNorm_ent.bias"]
    )
    head = EntityHead(encoder.config, DIM)
    head.load_state_dict(released.head())
    assert torch.equal(head.dense.weight, weights["cls.predictions_ent.transform.dense.weight"])
    fine_tuned = {name: weight for name, weight in weights.items() if not name.startswith("cls.")}
    assert ReleasedWeights(fine_tuned, "f").head() is None


def test_released_weights_that_do_not_fit(tmp_path):
    encoder = bert()
    with pytest.raises(ValueError, match="are plain,mix,full, those of the model mix,full,full"):
        ReleasedWeights(released_weights(), "f").fill(
            encoder, EntityStream(encoder, ("mix", "full", "full"), DIM, 4)
        )
    stream = EntityStream(encoder, ("mix", "full"), 4, 4)
    with pytest.raises(ValueError, match=r"has the sizes \(20, 8\), the model \(20, 4\)"):
        ReleasedWeights(released_weights(), "f").fill(encoder, stream)
    weights = released_weights()
    del weights["bert.encoder.layer.2.attention.self_ent.key.bias"]
    with pytest.raises(ValueError, match="has no weight `encoder.layer.2.attention.self_ent.key.bias`"):
        ReleasedWeights(weights, "f").fill(encoder, EntityStream(encoder, ("mix", "full"), DIM, 4))
    with pytest.raises(ValueError, match="has no layer with entities"):
        ReleasedWeights(released_weights(kinds=("plain",) * 3), "f")
    (tmp_path / "other.bin").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="does not hold tensors by name"):
        ReleasedWeights.read(str(tmp_path / "other.bin"))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        ReleasedWeights.read(str(tmp_path))


def test_released_weights_exclude_other_starts(task, vectors, tmp_path):
    torch.save(released_weights(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="add --entity-scale none"):
        model_of(task, vectors, entity_weights=str(tmp_path))
    with pytest.raises(ValueError, match="--encoder-init and --entity-weights both say"):
        model_of(task, vectors, entity_weights="ernie_base", encoder_init="x.pt")
