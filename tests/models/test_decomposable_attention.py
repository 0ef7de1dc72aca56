"""The evaluator as a model of fairseq: trains under the stock criterion, reloads without its origin."""

from types import SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.models import MODEL_REGISTRY
from omegaconf import OmegaConf

from fairseq_bert_kd.models.decomposable_attention import DecomposableAttention, DecomposableAttentionConfig
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tiny_chain import PLUGIN, logged, run_fairseq
from tests.tiny_sentences import prepare, write_table

SMALL = ("--evaluator-embed-dim", 16, "--evaluator-hidden", 12)


@pytest.fixture(scope="module")
def data(chain, tmp_path_factory):
    """Pairs whose class is that of their sentences' last words."""
    folder = tmp_path_factory.mktemp("pairs")
    tables = [
        argument
        for seed, (split, rows) in enumerate((("train", 120), ("valid", 40)))
        for argument in (f"--{split}", write_table(folder / f"{split}.tsv", rows, seed, pairs=True))
    ]
    assert (
        prepare(chain.bert, folder / "data", "--columns", "text,other", "--label-column", "label", *tables)
        == 0
    )
    return folder / "data"


def train(data, save_dir, *arguments, updates=30):
    run_fairseq(
        "train", data, "--user-dir", PLUGIN, "--task", "sentence_prediction_with_teacher", "--arch",
        "decomposable_attention", *SMALL, "--criterion", "sentence_prediction", "--optimizer", "adam", "--lr", 0.01,
        "--batch-size", 24, "--max-update", updates, "--save-dir", save_dir, "--no-epoch-checkpoints", "--num-workers", 0,
        "--cpu", "--log-format", "json", "--log-interval", 5, *arguments,
    )  # fmt: skip
    return save_dir / "checkpoint_last.pt"


def built(**options):
    dictionary = Dictionary()
    for word in "abcdefgh":
        dictionary.add_symbol(word)
    task = SimpleNamespace(source_dictionary=dictionary, spec=SimpleNamespace(texts=options.pop("texts", 2)))
    config = OmegaConf.structured(DecomposableAttentionConfig(evaluator_hidden=12, **options))
    torch.manual_seed(0)
    model = DecomposableAttention.build_model(config, task)
    model.register_classification_head("head", num_classes=2)
    return model.eval()


def scored(model, first, second, padded=0):
    texts = tuple(torch.tensor([text + [1] * padded]) for text in (first, second))
    return model(texts, (None, None), features_only=True, classification_head_name="head")[0]


def test_name_is_ours():
    assert MODEL_REGISTRY["decomposable_attention"] is DecomposableAttention


@pytest.mark.parametrize("positions", ["none", "sinusoidal"])
def test_order_and_padding(positions):
    model = built(evaluator_positions=positions)
    plain = scored(model, [4, 5, 6, 2], [7, 8, 2])
    torch.testing.assert_close(scored(model, [4, 5, 6, 2], [7, 8, 2], padded=3), plain)
    turned = scored(model, [6, 5, 4, 2], [7, 8, 2])
    assert torch.allclose(turned, plain, atol=1e-5) == (positions == "none")


def test_refused():
    with pytest.raises(ValueError, match="compares two texts, the data's rows have one"):
        built(texts=1)
    with pytest.raises(ValueError, match="needs an even --evaluator-hidden, got 11"):
        DecomposableAttention(torch.nn.Embedding(9, 4), 1, 11, 0.0, "sinusoidal")


def test_trains_under_the_stock_criterion(data, tmp_path):
    with logged("train_inner") as messages:
        train(data, tmp_path)
    losses = [float(message.split('"loss": "')[1].split('"')[0]) for message in messages]
    assert losses[-1] < 0.8 * losses[0]


def test_takes_embeddings_and_reloads_without_their_origin(chain, data, tmp_path):
    """They stay as they are; the checkpoint needs the data folder alone."""
    import shutil

    from transformers import BertModel

    origin = shutil.copytree(chain.bert, tmp_path / "origin")
    last = train(data, tmp_path / "model", "--encoder-model", origin, updates=2)
    table = BertModel.from_pretrained(origin).get_input_embeddings().weight
    shutil.rmtree(origin)
    [model], _, task = checkpoint_utils.load_model_ensemble_and_task([str(last)])
    tokenizer = HfTokenizer(str(chain.bert))
    vocabulary = [task.dictionary.index("man"), task.dictionary.eos()]
    assert model.embeddings.weight.shape == (len(task.dictionary), 32)
    assert not model.embeddings.weight.requires_grad
    expected = table[[tokenizer.piece_to_id("man"), tokenizer.closing_id]]
    assert torch.equal(model.embeddings.weight[vocabulary], expected)
