"""Which architectures can teach: their rows depend on their own pair alone, and on both of its sides."""

import json
import shutil

import pytest
import torch
import transformers
from fairseq.data import Dictionary
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.functional.context_probe import ProbeTexts
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import BIDIRECTIONAL, LEFT_TO_RIGHT, assemble_texts
from fairseq_bert_kd.models.masked_lm_teacher import HfMaskedLM
from fairseq_bert_kd.storage.vector_store import VectorReader, vector_store_path
from fairseq_bert_kd.teachers.load import load_teacher
from fairseq_bert_kd.teachers.load_layer_teacher import load_layer_teacher
from fairseq_bert_kd.teachers.load_masked_lm import load_masked_lm
from fairseq_bert_kd.teachers.probe import check_sentence_encoder, check_teacher, check_token_teacher
from fairseq_bert_kd.tokenization.dictionary import full_dictionary, sentence_vocabulary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tiny_chain import PLUGIN, WORDS, build_teacher_folder, run_fairseq, train_teacher
from tests.tiny_sentences import prepare

SYMBOLS = 40
FORMAT = TextFormat(prefix=(1,), middle=(2,), mask=3, pad=0)
SIZES = {
    "vocab_size": SYMBOLS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "embedding_size": 16,
    "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "emb_dim": 32,
}  # fmt: skip
SOUND = (
    "albert", "bert", "big_bird", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm",
    "longformer", "megatron-bert", "modernbert", "mpnet", "rembert", "roberta", "roberta-prelayernorm", "roformer",
    "xlm-roberta",
)  # fmt: skip
READ_PADDING = ("convbert", "nystromformer", "yoso")  # convolution, landmarks, hashing


def teacher_of(model_type, attention=BIDIRECTIONAL, **settings):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **SIZES, **settings)
    if hasattr(config, "attention_window"):
        config.attention_window = [8, 8]
    maps = torch.arange(SYMBOLS)
    masked_lm = transformers.AutoModelForMaskedLM.from_config(config)
    return HfMaskedLM(masked_lm, {"source": maps, "target": maps.clone()}, FORMAT, {}, attention)


def logits(model, pairs):
    """Of each pair's first target position, which is masked; all pairs in one batch."""
    sides = [[torch.tensor(tokens) for tokens in side] for side in zip(*pairs, strict=True)]
    texts = [pad_sequence(side, batch_first=True) for side in sides]
    masked = torch.zeros_like(texts[1], dtype=torch.bool)
    masked[:, 0] = True
    return model(texts, [torch.tensor([*map(len, side)]) for side in sides], masked).detach()


@pytest.mark.parametrize("model_type", [*SOUND, *READ_PADDING])
def test_an_architecture_passes_if_padding_and_neighbours_change_nothing(model_type):
    """Against longer pairs than the probe's own, through the whole model."""
    model = teacher_of(model_type).eval()
    rng = torch.Generator().manual_seed(1)

    def pair(source, target):
        return tuple(
            torch.randint(5, SYMBOLS, (length,), generator=rng).tolist() for length in (source, target)
        )

    pairs = [pair(5, 9), pair(3, 2), pair(20, 14), pair(5, 9)]
    together = logits(model, pairs)
    alone = torch.cat([logits(model, [one]) for one in pairs])
    sound = torch.allclose(together, alone, rtol=1e-3, atol=1e-4)
    assert sound == (model_type in SOUND)
    if sound:
        check_token_teacher(model, model_type)
    else:
        with pytest.raises(ValueError, match=f"^{model_type} cannot be a teacher: it reads padding"):
            check_token_teacher(model, model_type)


@pytest.mark.parametrize(
    "model_type", ["bert", "electra", "megatron-bert", "rembert", "roberta", "xlm-roberta"]
)
def test_a_decoder_of_any_architecture_is_refused(model_type):
    model = teacher_of(model_type, is_decoder=True)
    with pytest.raises(ValueError, match="does not look to the right.*`is_decoder: true`"):
        check_token_teacher(model, "it")


def test_a_teacher_whose_layers_are_quantised_by_batch_is_refused():
    model = teacher_of("bert")
    model.encoder = torch.ao.quantization.quantize_dynamic(model.encoder, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(
        ValueError, match="other outputs when another text of the same length shares its batch"
    ):
        check_token_teacher(model, "it")


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_a_left_to_right_teacher_must_not_look_to_the_right(model_type):
    model = teacher_of(model_type, LEFT_TO_RIGHT)
    check_token_teacher(model, "it")
    model._pair_attention = lambda mask, dtype: mask[:, -1].long()  # every position sees all tokens
    with pytest.raises(ValueError, match="it looks to the right"):
        check_token_teacher(model, "it")


def test_the_probe_leaves_modes_and_random_numbers_alone():
    model = teacher_of("yoso").train()  # it draws random numbers in evaluation too
    model.encoder.eval()
    before = [module.training for module in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with pytest.raises(ValueError, match="cannot be a teacher"):
        check_token_teacher(model, "it")
    assert torch.equal(torch.rand(4), expected)
    assert [module.training for module in model.modules()] == before


# --- teachers of other kinds


class SentenceLSTM(nn.Module):
    """A bidirectional LSTM's last states as a sentence's vector."""

    def __init__(self, packed):
        super().__init__()
        self.embed, self.packed = nn.Embedding(SYMBOLS, 8), packed
        self.lstm = nn.LSTM(8, 8, batch_first=True, bidirectional=True)

    def forward(self, texts):
        tokens = self.embed(pad_sequence([torch.tensor(text) for text in texts], batch_first=True))
        if self.packed:
            lengths = [len(text) for text in texts]
            tokens = pack_padded_sequence(tokens, lengths, batch_first=True, enforce_sorted=False)
        states = self.lstm(tokens)[1][0]  # (2, batch, 8)
        return list(states.transpose(0, 1).flatten(1)[:, None])


class SentenceEncoder(nn.Module):
    """A transformers encoder's first state, or the mean of its states, as a sentence's vector."""

    def __init__(self, model_type, mean):
        super().__init__()
        config = transformers.AutoConfig.for_model(model_type, **SIZES)
        self.encoder, self.mean = transformers.AutoModel.from_config(config), mean

    def forward(self, texts):
        padded = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)
        inputs = assemble_texts([padded], [torch.tensor([len(text) for text in texts])], FORMAT)
        states = self.encoder(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)[0]
        return list(states.mean(1, keepdim=True) if self.mean else states[:, :1])


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        (lambda: SentenceLSTM(packed=True), None),
        (lambda: SentenceLSTM(packed=False), "reads padding"),
        (lambda: SentenceEncoder("bert", mean=False), None),
        (lambda: SentenceEncoder("bert", mean=True), "reads padding"),  # the mean counts padding
        (lambda: SentenceEncoder("yoso", mean=False), "reads padding"),
    ],
    ids=["lstm", "lstm unpacked", "first state", "careless mean", "yoso"],
)
def test_sentence_encoders_are_probed_by_the_same_function(build, fault):
    torch.manual_seed(0)
    model = build()
    texts = ProbeTexts(short=[5, 6, 7, 2], neighbour=[8, 9, 10, 2], longer=[11, 12, 13, 14, 15, 16, 17, 2])
    if fault is None:
        check_teacher(model, model, texts, "it")
    else:
        with pytest.raises(ValueError, match=f"it cannot be a teacher: it {fault}"):
            check_teacher(model, model, texts, "it")


# --- where it is called


def set_config(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def save_conv_bert(vocab_size, folder):
    """Put a small ConvBERT, which reads padding, in the place of a folder's model."""
    config = transformers.ConvBertConfig(**SIZES | {"vocab_size": vocab_size})
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)


@pytest.fixture
def bert(chain, tmp_path):
    shutil.copytree(chain.bert, tmp_path / "bert")
    return tmp_path / "bert"


def test_a_teacher_that_reads_padding_is_refused_before_it_is_trained(chain, bert, tmp_path):
    size = json.loads((bert / "config.json").read_text())["vocab_size"]
    save_conv_bert(size, bert)
    with pytest.raises(ValueError, match=r"--teacher-model .*bert cannot be a teacher: it reads padding"):
        train_teacher(chain.data, bert, tmp_path / "conv")
    assert not (tmp_path / "conv").exists() or not list((tmp_path / "conv").glob("*.pt"))


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_what_was_saved_as_a_decoder_is_loaded_as_an_encoder(chain, bert, tmp_path, caplog, weights):
    set_config(bert, is_decoder=True, add_cross_attention=weights == "random")
    options = ["--teacher-random-weights"] if weights == "random" else []
    checkpoint = train_teacher(chain.data, bert, tmp_path / "teacher", *options, updates=1)
    assert "says is_decoder: true" in caplog.text
    loaded = load_teacher(str(checkpoint), str(chain.data))  # the probe passes: it looks to the right
    assert not loaded.model.encoder.config.is_decoder


def test_a_checkpoint_of_a_decoder_from_an_earlier_version_is_refused(chain, tmp_path):
    state = torch.load(chain.teacher, weights_only=False)
    spec = json.loads(state["cfg"]["model"]["teacher_spec"])
    spec["config"]["is_decoder"] = True
    state["cfg"]["model"]["teacher_spec"] = json.dumps(spec)
    torch.save(state, tmp_path / "decoder.pt")
    with pytest.raises(ValueError, match=r"checkpoint `.*decoder\.pt` cannot be a teacher: it does not look"):
        load_teacher(str(tmp_path / "decoder.pt"), str(chain.data))


@pytest.mark.parametrize("name", ["roberta", "xlmr", "distilbert", "electra"])
def test_every_kind_of_teacher_that_the_tests_use_passes(name, tmp_path):
    from tests.models.small_teachers import build_teacher

    model, *_ = build_teacher(build_teacher_folder(name, tmp_path / name))
    check_token_teacher(model, name)


# --- teachers of layers, of words and of vectors, where they are loaded


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders ``bert`` and ``conv`` with one tokenizer."""
    root = tmp_path_factory.mktemp("models")
    bert = build_teacher_folder("bert", root / "bert")
    conv = shutil.copytree(bert, root / "conv")
    size = json.loads((bert / "config.json").read_text())["vocab_size"]
    save_conv_bert(size, conv)
    return bert, conv


def sentences(bert):
    tokenizer = HfTokenizer(str(bert))
    dictionary = full_dictionary(tokenizer)
    return dictionary, sentence_vocabulary(tokenizer, dictionary)


def test_teachers_of_layers_are_probed(models):
    bert, conv = models
    _, vocabulary = sentences(bert)
    assert load_layer_teacher(str(bert), vocabulary, (), 1, predicts=False).layers == 2
    with pytest.raises(ValueError, match=r"--kd-teacher `.*conv` cannot be a teacher: it reads padding"):
        load_layer_teacher(str(conv), vocabulary, (), 1, predicts=False)


def test_masked_language_models_of_sentences_are_probed(models):
    bert, conv = models
    load_masked_lm(str(bert))
    with pytest.raises(ValueError, match=r"`.*conv` cannot be a teacher: it reads padding"):
        load_masked_lm(str(conv))


def test_teachers_of_vectors_are_probed_and_their_stores_can_lie_elsewhere(models, tmp_path, capsys):
    bert, conv = models
    lines = [" ".join(WORDS[i : i + 3]) for i in range(12)]
    (tmp_path / "train.txt").write_text("".join(f"{line}\n" for line in lines))
    data = tmp_path / "data"
    assert prepare(bert, data, "--task", "plain", "--full-dictionary", "--train", tmp_path / "train.txt") == 0
    command = ["vectors", str(data), "--cpu", "--encoder-model"]
    assert cli_main([*command, str(conv)]) == 2
    assert "conv` cannot be a teacher: it reads padding" in capsys.readouterr().err
    assert cli_main([*command, str(bert), "--store-dir", str(tmp_path / "stores")]) == 0
    store = vector_store_path(tmp_path / "stores", "train")
    assert len(VectorReader(store)) == 12
    assert not list(data.glob("*.vec"))
    run_fairseq(
        "train", data, "--user-dir", PLUGIN, "--task", "sentence_vectors", "--criterion", "sentence_representation",
        "--arch", "sentence_lstm", "--hidden-size", 8, "--optimizer", "adam", "--batch-size", 8, "--max-update", 1,
        "--save-dir", tmp_path / "student", "--num-workers", 0, "--disable-validation", "--cpu",
        "--kd-store-dir", tmp_path / "stores",
    )  # fmt: skip
    assert (tmp_path / "student" / "checkpoint_last.pt").exists()


@pytest.mark.parametrize("packed", [True, False])
def test_any_encoder_with_vectors_is_probed(packed):
    class Student(SentenceLSTM):
        def sentence_vectors(self, tokens, lengths, vector=None):
            rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
            return torch.cat(self([row[:length] for row, length in rows]))

    torch.manual_seed(0)
    model, dictionary = Student(packed), Dictionary()
    for number in range(SYMBOLS - len(dictionary)):
        dictionary.add_symbol(str(number))
    if packed:
        check_sentence_encoder(model, dictionary, None, "it")
    else:
        with pytest.raises(ValueError, match="it cannot be a teacher: it reads padding"):
            check_sentence_encoder(model, dictionary, None, "it")
