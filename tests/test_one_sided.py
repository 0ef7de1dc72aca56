"""A masked language model of single sentences: from raw text to its checkpoint, resumed, in two workers, and misused."""

import json
import re
import shutil

import pytest
import torch
import transformers
from fairseq.data import Dictionary

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.data.corpus_parts import text_parts
from fairseq_bert_kd.functional.text_input import LEFT_TO_RIGHT
from fairseq_bert_kd.tasks.conditional_masked_lm import ConditionalMaskedLMConfig, OneSidedMaskedLMTask
from fairseq_bert_kd.teachers.load import load_teacher
from fairseq_bert_kd.teachers.load_masked_lm import load_masked_lm
from tests.one_sided_chain import BERT_REPLACEMENT, preprocess_one
from tests.test_chain import values
from tests.test_distributed_training import (
    assert_same_curves,
    assert_same_weights,
    from_log,
    in_one,
    training,
)
from tests.tiny_chain import PLUGIN, dump, logged, run_fairseq, train_teacher
from tests.two_workers import TwoWorkers


@pytest.fixture
def data(one_sided):
    return one_sided.data


def test_a_new_head_is_announced_and_validation_logs_perplexity(one_sided, tmp_path):
    with logged("valid") as messages, logged("fairseq_bert_kd.modules.pretrained_encoder") as warned:
        train_teacher(
            one_sided.data, one_sided.encoder, tmp_path, "--cmlm-one-sided", *BERT_REPLACEMENT, updates=1
        )
    assert "has no MLM transform" in warned[0]
    assert values(messages, "ppl")[0] > 1


def test_checkpoint_says_how_it_was_masked_and_loads_without_the_encoder(one_sided):
    state = torch.load(one_sided.checkpoint, weights_only=False)
    spec = json.loads(state["cfg"]["model"]["teacher_spec"])
    assert spec["replacement"] == {"keep": 0.1, "random": 0.1}
    assert set(spec["digests"]) == {"tokenizer", "target_dictionary"}
    assert "source_to_teacher" not in state["model"]
    with logged("valid") as messages:
        run_fairseq(
            "validate", one_sided.data, "--user-dir", PLUGIN, "--path", one_sided.checkpoint, "--cpu", "--valid-subset", "valid",
            "--task", "conditional_masked_lm", "--cmlm-one-sided", "--num-workers", 0, "--batch-size", 20,
        )  # fmt: skip
    assert values(messages, "ppl")[0] > 1


def test_spec_of_a_pair_teacher_says_always_masked(chain):
    spec = json.loads(torch.load(chain.teacher, weights_only=False)["cfg"]["model"]["teacher_spec"])
    assert spec["replacement"] == {"keep": 0.0, "random": 0.0}


def test_exported_model_has_its_head_in_plain_transformers(one_sided, tmp_path, capsys):
    """Masked by 80/10/10, exported, and asked for the same positions: equal logits of all that the dictionary has."""
    folder = tmp_path / "mlm"
    assert (
        cli_main(
            ["export-student", str(one_sided.checkpoint), "--format", "transformers", "--output", str(folder)]
        )
        == 0
    )
    assert "BertForMaskedLM" in capsys.readouterr().out
    exported, info = transformers.BertForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    text = (one_sided.pieces.parent / "pieces/valid").read_text().splitlines()[:3]
    model, tokenizer = load_masked_lm(str(one_sided.checkpoint))
    dictionary = Dictionary.load(str(one_sided.data / "dict.txt"))
    tokens = [dictionary.encode_line(line, add_if_not_exist=False).long() for line in text]
    lengths = torch.tensor([len(each) for each in tokens])
    ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=dictionary.pad())
    predicted = ids.ne(dictionary.pad()) & (torch.arange(ids.size(1)) % 2 == 1)
    with torch.no_grad():
        logits = model((ids,), (lengths,), predicted)
        inputs, at = model.text_layout().lay_out((ids,), (lengths,), predicted)
        theirs = exported.eval()(inputs.input_ids, inputs.attention_mask, inputs.token_type_ids).logits
    rows, columns = predicted.nonzero(as_tuple=True)
    theirs = theirs[rows, at[rows, columns]]
    symbols = model.target_to_teacher
    alone = symbols.bincount()[symbols] == 1  # ids of one symbol
    assert alone.sum() > 10
    torch.testing.assert_close(theirs[:, symbols[alone]], logits[:, alone], rtol=1e-5, atol=1e-5)
    unknown = torch.ones(theirs.size(1), dtype=torch.bool).index_fill(0, symbols, False)
    assert unknown.any()
    assert (theirs[:, unknown] == -1e4).all()
    assert load_masked_lm(str(folder))[1].digest() == tokenizer.digest()


def test_left_to_right_models_are_not_exported_as_masked_ones(one_sided):
    model, _ = load_masked_lm(str(one_sided.checkpoint))
    model.attention = LEFT_TO_RIGHT
    with pytest.raises(
        ValueError, match=r"--teacher-attention left-to-right, and transformers' .* \(--encoder-only\)"
    ):
        model.to_transformers()


def test_pairs_can_be_masked_as_bert_does(chain, tmp_path):
    path = train_teacher(chain.data, chain.bert, tmp_path, *BERT_REPLACEMENT)
    assert load_teacher(str(path), str(chain.data)).model.replacement.keep == 0.1


def task_of(data, **options):
    cfg = ConditionalMaskedLMConfig(data=str(data), **options)
    cfg.cmlm_seed = 1
    cfg.train_subset = "train"
    cfg.dataset_impl = None
    return OneSidedMaskedLMTask.setup_task(cfg)


def test_folders_of_one_language_in_three_layouts(one_sided, data, tmp_path):
    preprocess_one(one_sided.pieces, tmp_path / "named", "--source-lang", "en")
    (tmp_path / "prepared").mkdir()
    shutil.copytree(data, tmp_path / "prepared" / "input0")
    items = []
    for folder in (data, tmp_path / "named", tmp_path / "prepared"):
        task = task_of(folder)
        task.load_dataset("train")
        dataset = task.datasets["train"]
        assert len(dataset) == 120
        items.append([dataset[index]["target"].tolist() for index in range(120)])
        assert task.source_dictionary is task.target_dictionary
    assert items[0] == items[1] == items[2]
    first = (one_sided.pieces / "train").read_text().splitlines()[0].split()
    assert [task.target_dictionary[i] for i in items[0][0]] == [*first, "</s>"]


def test_parts_of_a_corpus_are_joined(data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "parts")
    for extension in ("bin", "idx"):
        shutil.copy(folder / f"valid.{extension}", folder / f"train1.{extension}")
    assert [part.name for part in text_parts(str(folder), "train", combine=True)] == ["train", "train1"]
    task = task_of(folder)
    task.load_dataset("train", combine=True)
    assert len(task.datasets["train"]) == 140


def test_random_tokens_are_real_pieces_and_others_stay(data):
    task = task_of(data, cmlm_mask_prob=0.5, cmlm_keep=0.2, cmlm_random=0.5)
    task.load_dataset("train")
    dataset, dictionary = task.datasets["train"], task.target_dictionary
    replaced = 0
    for index in range(120):
        item = dataset[index]
        (seen,), target = item["texts"], item["target"]
        other = seen != target
        replaced += int(other.sum())
        assert not (other & (item["hidden"] | ~item["predicted"])).any()
        assert all(int(token) >= dictionary.nspecial for token in seen[other])
    assert replaced > 50


def test_training_resumes_where_it_stopped(one_sided, tmp_path):
    log = ["--cmlm-one-sided", *BERT_REPLACEMENT, "--log-interval", 1, "--log-format", "simple", "--seed", 3]
    with logged("train_inner") as whole:
        train_teacher(one_sided.data, one_sided.encoder, tmp_path / "whole", *log, updates=4)
    with logged("train_inner") as parts:
        train_teacher(one_sided.data, one_sided.encoder, tmp_path / "parts", *log, updates=3)
        train_teacher(one_sided.data, one_sided.encoder, tmp_path / "parts", *log, updates=4)
    assert values(parts, "num_updates") == [1, 2, 3, 4]
    assert values(parts, "loss") == values(whole, "loss")


def test_two_workers_learn_as_one(data, chain, tmp_path):
    settings = json.loads((chain.bert / "config.json").read_text(encoding="utf-8"))
    calm = shutil.copytree(chain.bert, tmp_path / "bert")
    dropouts = {name: 0.0 for name, value in settings.items() if "dropout" in name and value}
    (calm / "config.json").write_text(json.dumps(settings | dropouts), encoding="utf-8")
    arguments = (
        "--task", "conditional_masked_lm", "--criterion", "conditional_masked_lm", "--arch", "hf_masked_lm",
        "--teacher-model", calm, "--batch-size", 24, "--cmlm-one-sided", *BERT_REPLACEMENT,
    )  # fmt: skip
    one = in_one(data, tmp_path / "one", *arguments, epochs=2)
    command = training(data, tmp_path / "two", *arguments, "--ddp-backend", "legacy_ddp", epochs=2)
    with TwoWorkers(tmp_path) as workers:
        output = workers.run("train", *command)
    assert_same_curves(one, from_log(output[0]), 6, {"loss", "ppl", "masked_accuracy", "gnorm"})
    assert_same_weights(tmp_path / "one", tmp_path / "two")


def test_half_precision(one_sided, tmp_path):
    with logged("valid") as messages:
        train_teacher(
            one_sided.data, one_sided.encoder, tmp_path, "--cmlm-one-sided", *BERT_REPLACEMENT,
            "--memory-efficient-fp16", "--fp16-init-scale", 4,
        )  # fmt: skip
    assert values(messages, "loss")[-1] > 0


# ---------------------------------------------------------------- misuse


def test_it_is_no_teacher_of_pairs(chain, one_sided, capsys):
    before = sorted(chain.data.iterdir())
    assert dump(chain.data, one_sided.checkpoint, "--name", "wrong") == 2
    assert "is a masked language model of single sentences (--cmlm-one-sided)" in capsys.readouterr().err
    assert sorted(chain.data.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--cmlm-keep", 0.9, "--cmlm-random", 0.2),
            "--cmlm-keep and --cmlm-random: .* at most 1, got 0.9 and 0.2",
        ),
        (("--teacher-attention", LEFT_TO_RIGHT), "--teacher-attention left-to-right masks nothing"),
        (("--eval-bleu",), "--eval-bleu is for students"),
        (("--train-subset", "training"), "split `training` of single sentences is not in"),
    ],
)
def test_options_that_contradict(data, chain, tmp_path, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train_teacher(data, chain.bert, tmp_path, "--cmlm-one-sided", *arguments)
    assert not (tmp_path / "checkpoint_last.pt").exists()


def test_replacement_without_masks(chain, tmp_path):
    with pytest.raises(ValueError, match=re.escape("--cmlm-keep 0.1 has no effect with --teacher-attention")):
        train_teacher(
            chain.data, chain.bert, tmp_path, "--teacher-attention", LEFT_TO_RIGHT, "--cmlm-keep", 0.1
        )


def test_folders_that_are_not_of_single_sentences(chain, one_sided, data, tmp_path):
    with pytest.raises(
        ValueError, match="as pairs of a source and a target, and single sentences are needed"
    ):
        task_of(chain.data)
    for side in ("input0", "input1"):
        shutil.copytree(data, tmp_path / "pairs" / side)
    with pytest.raises(
        ValueError, match=r"holds pairs of sentences.*; give .*input0 to use the first of each"
    ):
        task_of(tmp_path / "pairs")
    for language in ("en", "de"):
        preprocess_one(one_sided.pieces, tmp_path / "both", "--source-lang", language)
    with pytest.raises(ValueError, match=r"in several languages \(train.de-None.de, train.en-None.en\)"):
        task_of(tmp_path / "both")
    task_of(tmp_path / "both", source_lang="de")


def test_sentences_that_do_not_fit_are_left_out_and_counted(data):
    task = task_of(data)
    task.load_dataset("train")
    dataset = task.datasets["train"]
    with logged("fairseq_bert_kd.tasks.conditional_masked_lm") as messages:
        kept = task.filter_indices_by_size(dataset.ordered_indices(), dataset, 6)
    assert len(kept) == int((dataset.sizes <= 6).sum()) < 120
    assert f"left out {120 - len(kept)} of 120 sentences" in messages[0]
    assert "they are longer than 6 tokens" in messages[0]
