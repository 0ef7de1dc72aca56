"""Model ``sentence_lstm`` against torch's LSTM, its start from elsewhere, and what it refuses."""

import logging
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from fairseq_bert_kd.models.sentence_lstm import SentenceLstm, SentenceLstmConfig
from fairseq_bert_kd.modules.sentence_lstm_spec import POOLINGS
from fairseq_bert_kd.modules.word_embedding import reduced
from fairseq_bert_kd.teachers.interface import SentenceEncoder
from tests.models import small_encoders
from tests.models.small_encoders import FIRST, HEAD, SECOND, batch_of, whole_text
from tests.models.small_lstms import SIZES, build_lstm, lstm_task, save_lstm
from tests.tiny_chain import build_teacher_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_teacher_folder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def task(folder):
    return lstm_task(folder)


def alone(model, task, lines):
    """Vectors of lines that are encoded one by one."""
    batches = [batch_of(task, [line]) for line in lines]
    return torch.cat([model.sentence_vectors(b["texts"][0], b["lengths"][0]) for b in batches])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [1, 2])
def test_a_vector_is_the_same_alone_and_in_a_padded_batch(task, pooling, layers):
    model = build_lstm(task, pooling=pooling, lstm_layers=layers)
    (tokens,), (lengths,) = batch_of(task, SECOND).values()
    assert lengths.min() < lengths.max()
    together = model.sentence_vectors(tokens, lengths)
    assert together.shape == (2, 4)
    torch.testing.assert_close(together, alone(model, task, SECOND), rtol=0, atol=1e-6)
    wider = torch.nn.functional.pad(tokens, (0, 3), value=task.dictionary.pad())
    torch.testing.assert_close(model.sentence_vectors(wider, lengths), together, rtol=0, atol=1e-6)


def test_states_are_those_of_torch_s_lstm_sentence_by_sentence(task):
    model = build_lstm(task, pooling="mean")
    own = nn.LSTM(6, 5, bidirectional=True)
    own.load_state_dict(model.lstm.state_dict())
    (tokens,), (lengths,) = batch_of(task, SECOND).values()
    for row, length in enumerate(lengths.tolist()):
        ids = model.token_to_encoder[tokens[row, :length]]
        states, _ = own(model.embedding.weight[ids][:, None])
        expected = model.output(states[:, 0].mean(dim=0))
        found = model.sentence_vectors(tokens[row : row + 1], lengths[row : row + 1])
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-6)


def test_the_model_is_what_teachers_and_fairseq_s_criterion_ask_for(task):
    model = build_lstm(task, head=True)
    assert isinstance(model, SentenceEncoder)
    assert model.max_positions() is None
    batch = batch_of(task, FIRST)
    vectors, extra = model(**batch)
    assert torch.equal(vectors, extra["vectors"][0])
    logits, _ = model(**batch, features_only=True, classification_head_name=HEAD)
    assert logits.shape == (2, 3)
    with pytest.raises(ValueError, match="one vector only, made by --pooling; `mean` cannot be chosen"):
        model.sentence_vectors(batch["texts"][0], batch["lengths"][0], "mean")
    with pytest.raises(ValueError, match="row 1 is empty"):
        model.sentence_vectors(batch["texts"][0], torch.tensor([3, 0]))


def test_the_sentences_of_a_pair_do_not_see_each_other(folder):
    model = build_lstm(lstm_task(folder, texts=2), head=True)
    task = lstm_task(folder)
    _, extra = model(**batch_of(task, FIRST, SECOND))
    torch.testing.assert_close(extra["vectors"][0], alone(model, task, FIRST), rtol=0, atol=1e-6)
    _, other = model(**batch_of(task, FIRST, FIRST))
    torch.testing.assert_close(extra["vectors"][0], other["vectors"][0], rtol=0, atol=1e-6)
    one, _ = model(**batch_of(task, FIRST, SECOND), classification_head_name=HEAD)
    swapped, _ = model(**batch_of(task, SECOND, FIRST), classification_head_name=HEAD)
    assert one.shape == (2, 3)
    assert not torch.allclose(one, swapped)


def test_a_frozen_embedding_stays_and_the_others_learn(task):
    model = build_lstm(task, freeze_embedding=True, pooling="attention").train()
    model(**batch_of(task, FIRST))[0].sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"embedding.weight"}
    assert not model.embedding.weight.requires_grad


def test_the_embedding_learns_unless_it_is_frozen(task):
    model = build_lstm(task).train()
    batch = batch_of(task, FIRST)
    model(**batch)[0].sum().backward()
    read = model.embedding.weight.grad.abs().sum(dim=1) > 0
    ids = set(model.token_to_encoder[batch["texts"][0]].flatten().tolist())
    assert set(read.nonzero().flatten().tolist()) == ids - {model.text_format.pad}


def test_dropout_takes_the_words(task):
    """Of all of them nothing but the number of tokens is left."""
    model, eos = build_lstm(task, dropout=1.0), task.dictionary.eos()
    batch = {"texts": [torch.tensor([[4, 5, 6, eos], [7, 8, 9, eos]])], "lengths": [torch.tensor([4, 4])]}
    one, other = model(**batch)[0]
    assert not torch.allclose(one, other)
    one, other = model.train()(**batch)[0]
    torch.testing.assert_close(one, other)


def test_a_checkpoint_is_enough(task, tmp_path):
    model = build_lstm(task, pooling="attention", lstm_layers=2)
    cfg = OmegaConf.structured(SentenceLstmConfig(encoder_spec=model.spec()))
    bare = SimpleNamespace(source_dictionary=task.dictionary, spec=task.spec)
    again = SentenceLstm.build_model(cfg, bare).eval()
    again.load_state_dict(model.state_dict())
    batch = batch_of(task, SECOND)
    assert torch.equal(again(**batch)[0], model(**batch)[0])
    assert again.tokenizer_digest() == task.tokenizer.digest()


# ---------------------------------------------------------------- where it starts


def test_encoder_init_brings_everything_but_the_head(folder, task, tmp_path):
    first = build_lstm(task, seed=1, head=True, pooling="last")
    path = str(save_lstm(first, tmp_path / "first.pt"))
    second = build_lstm(lstm_task(folder, texts=2), seed=2, head=True, encoder_init=path)
    batch = batch_of(task, SECOND)
    assert torch.equal(second(**batch)[0], first(**batch)[0])
    assert second.classification_heads[HEAD].dense.in_features == 16
    with pytest.raises(
        ValueError, match="--hidden-size is 7, but --encoder-init .* has 5; leave the option out"
    ):
        build_lstm(task, encoder_init=path, hidden_size=7)
    with pytest.raises(ValueError, match="--encoder-init brings an embedding; leave --embedding-init out"):
        build_lstm(task, encoder_init=path, embedding_init="teacher")


def test_encoder_init_of_another_architecture_or_tokenizer_is_refused(folder, task, tmp_path):
    other = small_encoders.save(small_encoders.build(task, **small_encoders.sizes()), tmp_path / "other.pt")
    with pytest.raises(
        ValueError, match="other.pt` holds a `hf_encoder` model; give a checkpoint of --arch sentence_lstm"
    ):
        build_lstm(task, encoder_init=str(other))
    path = save_lstm(build_lstm(task), tmp_path / "first.pt")
    foreign = lstm_task(folder)
    foreign.vocabulary = SimpleNamespace(**{**vars(task.vocabulary), "digests": {"tokenizer": "f" * 64}})
    with pytest.raises(
        ValueError, match="was trained with another tokenizer .sha256 .* against ffffffffffff"
    ):
        build_lstm(foreign, encoder_init=str(path))


def test_the_teacher_s_embedding_as_it_is_or_reduced(folder, task, caplog):
    import transformers

    matrix = transformers.AutoModel.from_pretrained(folder).get_input_embeddings().weight.detach()
    whole = build_lstm(task, embedding_init="teacher", encoder_model=str(folder), embedding_dim=None)
    assert torch.equal(whole.embedding.weight, matrix)
    caplog.set_level(logging.INFO)
    small = build_lstm(task, embedding_init="teacher", encoder_model=str(folder), embedding_dim=3)
    centred = matrix - matrix.mean(dim=0)
    expected = torch.linalg.svd(centred, full_matrices=False)
    # distances along the first directions, whatever their signs
    torch.testing.assert_close(
        small.embedding.weight.abs(), (centred @ expected.Vh[:3].T).abs(), rtol=1e-3, atol=1e-4
    )
    assert "3 of 32 components hold" in caplog.text
    with pytest.raises(ValueError, match="--embedding-dim 33 is above the 32 numbers"):
        build_lstm(task, embedding_init="teacher", encoder_model=str(folder), embedding_dim=33)
    with pytest.raises(ValueError, match="takes the input embedding of --encoder-model, which is not given"):
        build_lstm(task, embedding_init="teacher")


def test_principal_components_by_hand():
    rows = torch.tensor([[3.0, 1.0], [-3.0, 1.0], [0.0, 2.0], [0.0, 0.0]])
    assert reduced(rows, 1, "rows")[:, 0].tolist() == pytest.approx([3, -3, 0, 0])


def vectors_file(path, words, width=6):
    lines = [" ".join([word, *["0.5"] * (width - 1), str(place)]) for place, word in enumerate(words)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def test_embedding_from_a_file_of_word_vectors(task, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    known = [symbol for symbol in task.dictionary.symbols if not symbol.startswith("<")]
    path = vectors_file(tmp_path / "words.txt", known)
    model = build_lstm(task, embedding_init=path, embedding_dim=None)
    ids = model.token_to_encoder[[task.dictionary.index(word) for word in known]]
    assert model.embedding.weight[ids, -1].tolist() == list(map(float, range(len(known))))
    assert f"vectors for {len(known)} of {len(known) + 4} pieces" in caplog.text
    with pytest.raises(ValueError, match="has vectors of 6 numbers, --embedding-dim is 5"):
        build_lstm(task, embedding_init=path, embedding_dim=5)
    few = vectors_file(tmp_path / "few.txt", known[:3])
    with pytest.raises(ValueError, match=r"has vectors for 3 of \d+ pieces .* fewer than half"):
        build_lstm(task, embedding_init=few)
    with pytest.raises(
        ValueError, match="must be random, teacher or a text file of word vectors, got `glove`"
    ):
        build_lstm(task, embedding_init="glove")


def test_width_of_the_vector(folder, task):
    assert build_lstm(task, vector_dim=None).vector_dim == 2 * SIZES["hidden_size"]
    assert build_lstm(lstm_task(folder, vector_width=9), vector_dim=None).vector_dim == 9
    with pytest.raises(ValueError, match="--lstm-layers must be at least 1, got 0"):
        build_lstm(task, lstm_layers=0)
    with pytest.raises(ValueError, match="is trained with --task sentence_vectors"):
        SentenceLstm.build_model(
            OmegaConf.structured(SentenceLstmConfig()), SimpleNamespace(spec=SimpleNamespace(texts=1))
        )


@torch.no_grad()
def test_smoothed_words_are_mixtures_of_its_embeddings(task, monkeypatch):
    model, batch = build_lstm(task), batch_of(task, FIRST)
    text, probs, tokens = whole_text(task, batch)
    read, states = [], model._hidden
    monkeypatch.setattr(model, "_hidden", lambda words, lengths: read.append(words) or states(words, lengths))
    model._vectors(tokens, batch["lengths"][0], text)
    chosen = tokens != task.source_dictionary.pad()
    expected = probs @ model.embedding.weight[model.token_to_encoder]
    torch.testing.assert_close(read[0][chosen], expected[chosen], atol=1e-6, rtol=0)
