"""Tokenizer, dictionaries and checkpoint belong together wherever text comes in or goes out."""

import io
import json
import logging
import shutil
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
from fairseq import options
from fairseq.data import encoders
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from fairseq_bert_kd.compat import load_checkpoint
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest, read_dictionary
from fairseq_bert_kd.tokenization.bpe import DAMAGING, HfTokenizerBPE
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tiny_chain import PLUGIN, logged, run_fairseq, train_student, train_teacher
from tests.tokenization.tiny_tokenizers import KINDS, build_tokenizer

WRONG = "every symbol of the source dictionary must be a piece of the teacher's tokenizer, but"


@pytest.fixture(scope="module")
def student(chain, tmp_path_factory):
    return train_student(chain.data, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Folders of the other tokenizers, and of one with the chain's pieces but other rules for text."""
    folder = tmp_path_factory.mktemp("others")
    for kind in KINDS:
        build_tokenizer(kind, folder / kind)
    build_tokenizer("bert_uncased", folder / "rules")
    config = json.loads((folder / "rules" / "tokenizer_config.json").read_text())
    (folder / "rules" / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": False}))
    return folder


def generate(data, checkpoint, tokenizer, *arguments):
    return run_fairseq(
        "generate", data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", "--path", checkpoint,
        "--gen-subset", "test", "--beam", 1, "--max-len-b", 4, "--cpu", "--num-workers", 0,
        "--bpe", "hf_tokenizer", "--hf-tokenizer", tokenizer, *arguments,
    )  # fmt: skip


def interactive(data, checkpoint, tokenizer, text, source="de", target="en"):
    import fairseq_cli.interactive

    argv = ["fairseq-interactive", data, "--user-dir", PLUGIN, "--task", "translation_with_teacher", "-s", source, "-t", target,
            "--path", checkpoint, "--beam", 1, "--max-len-b", 4, "--cpu", "--bpe", "hf_tokenizer", "--hf-tokenizer",
            tokenizer]  # fmt: skip
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", list(map(str, argv))),
        mock.patch.object(sys, "stdin", io.StringIO(text)),
        mock.patch.object(sys, "stdout", out),
    ):
        fairseq_cli.interactive.cli_main()
    return out.getvalue()


def test_a_checkpoint_holds_what_it_was_trained_with(chain, student):
    digests = load_checkpoint(str(student))["task_state"]["digests"]
    symbols = read_dictionary(chain.data / "dict.en.txt")
    assert digests == {
        "source_dictionary": dictionary_digest(symbols),
        "target_dictionary": dictionary_digest(symbols),
        "tokenizer": HfTokenizer(str(chain.bert)).digest(),  # from the store
    }


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"bert_uncased"}))
def test_generate_refuses_other_pieces(chain, student, others, kind):
    with pytest.raises(ValueError, match=WRONG):
        generate(chain.data, student, others / kind)


def test_generate_refuses_the_same_pieces_with_other_rules(chain, student, others):
    with pytest.raises(
        ValueError, match="come from another tokenizer than .*rules.*the same pieces, but other rules"
    ):
        generate(chain.data, student, others / "rules")


def test_generate_refuses_other_dictionaries_of_the_same_size(chain, student, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(chain.data, data)
    for language in ("de", "en"):
        lines = (data / f"dict.{language}.txt").read_text().splitlines()
        (data / f"dict.{language}.txt").write_text("\n".join([*lines[5:], *lines[:5]]) + "\n")
    with pytest.raises(
        ValueError, match="the source dictionary in .* is not the one that the checkpoint was trained with"
    ):
        generate(data, student, chain.bert)


def test_a_pair_the_wrong_way_round_is_said(chain, student, caplog):
    interactive(chain.data, student, chain.bert, "the man\n")
    assert "swap --source-lang" not in caplog.text
    interactive(chain.data, student, chain.bert, "the man\n", source="en", target="de")
    assert "trained to translate from de to en, and is used from en to de: swap --source-lang" in caplog.text


def test_interactive_refuses_another_tokenizer_and_drops_the_mark(chain, student, others):
    with pytest.raises(ValueError, match=WRONG):
        interactive(chain.data, student, others / "roberta", "the man\n")
    plain = interactive(chain.data, student, chain.bert, "the man\n")
    assert "S-0\tthe man\n" in plain
    marked = interactive(chain.data, student, chain.bert, "\ufeffthe man\n")
    kept = ("S-", "H-", "D-")
    assert [line for line in marked.split("\n") if line.startswith(kept)] == [
        line for line in plain.split("\n") if line.startswith(kept)
    ]


def detok(tokenizer, *arguments):
    args = json.dumps({"hf_tokenizer": str(tokenizer)})
    return ["--eval-bleu", "--eval-bleu-detok", "hf_tokenizer", "--eval-bleu-detok-args", args,
            "--eval-bleu-args", '{"beam": 1}', *arguments]  # fmt: skip


def test_training_refuses_another_tokenizer_for_its_bleu(chain, others, tmp_path):
    with pytest.raises(ValueError, match=WRONG):
        train_student(chain.data, tmp_path / "student", *detok(others / "roberta"), "--kd-weight", 0)
    with pytest.raises(ValueError, match="comes from a teacher with another tokenizer"):
        train_student(chain.data, tmp_path / "student", *detok(others / "rules"))


@pytest.mark.parametrize("weight", [0, 0.5])
def test_training_compares_kd_tokenizer_with_the_dictionaries(chain, others, tmp_path, weight):
    options = ["--kd-tokenizer", others / "roberta", "--kd-weight", weight]
    with pytest.raises(ValueError, match=WRONG):
        train_student(chain.data, tmp_path / "student", *options)


def test_a_checkpoint_without_digests_passes(chain, student, tmp_path):
    import torch

    state = load_checkpoint(str(student))
    state["task_state"] = {}
    torch.save(state, tmp_path / "old.pt")
    assert generate(chain.data, tmp_path / "old.pt", chain.bert).count("\nD-") == 20


def test_the_rules_for_text_are_in_every_log(chain, student, tmp_path):
    with logged("fairseq_bert_kd.tokenization.hf_tokenizer") as messages:
        train_teacher(chain.data, chain.bert, tmp_path / "teacher", updates=1)
        generate(chain.data, student, chain.bert)
        train_student(chain.data, tmp_path / "student", "--kd-tokenizer", chain.bert, updates=1)
    assert len(messages) == 3
    assert all("case is lowered, accents are stripped" in message for message in messages)


def test_an_ensemble_has_one_tokenizer(chain, student, tmp_path):
    import torch

    state = load_checkpoint(str(student))
    state["task_state"]["digests"]["tokenizer"] = "0" * 64
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="the checkpoints of an ensemble must have one tokenizer"):
        generate(chain.data, f"{student}:{tmp_path / 'other.pt'}", chain.bert)
    assert generate(chain.data, f"{student}:{student}", chain.bert).count("\nD-") == 20


# -- one decoder, not two


@pytest.mark.parametrize("option", ["--post-process", "--remove-bpe"])
@pytest.mark.parametrize("value", DAMAGING)
def test_generate_refuses_what_joins_words_before(chain, student, option, value):
    with pytest.raises(ValueError, match=f"--post-process {value} changes the pieces before hf_tokenizer"):
        generate(chain.data, student, chain.bert, option, value)


def test_plain_remove_bpe_is_said_to_be_needless(chain, student, caplog):
    caplog.set_level(logging.WARNING, logger="fairseq_bert_kd.tokenization.bpe")
    plain = [line for line in generate(chain.data, student, chain.bert).split("\n") if line.startswith("D-")]
    with_option = generate(chain.data, student, chain.bert, "--remove-bpe")
    assert [line for line in with_option.split("\n") if line.startswith("D-")] == plain
    assert sum("is not needed beside hf_tokenizer" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("value", DAMAGING)
def test_training_refuses_it_for_its_bleu(chain, tmp_path, value):
    with pytest.raises(
        ValueError, match=f"--eval-bleu-remove-bpe {value} changes the pieces before hf_tokenizer"
    ):
        train_student(
            chain.data, tmp_path / "s", *detok(chain.bert, "--eval-bleu-remove-bpe", value), "--kd-weight", 0
        )


def test_stock_tasks_refuse_it_too(chain):
    parser = options.get_generation_parser()
    argv = [
        "data",
        "--path",
        "x.pt",
        "--bpe",
        "hf_tokenizer",
        "--hf-tokenizer",
        str(chain.bert),
        "--post-process",
        "letter",
    ]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, argv))
    with pytest.raises(ValueError, match="--post-process letter changes the pieces"):
        encoders.build_bpe(cfg.bpe)


def test_symbols_of_another_tokenizer_are_said_once(chain, caplog):
    """What a task cannot see: pieces that were changed or come from elsewhere."""
    bpe = HfTokenizerBPE(SimpleNamespace(hf_tokenizer=str(chain.bert)))
    assert bpe.decode("the <unk> man") == "the <unk> man"
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]
    assert bpe.decode("theman") == bpe.decode("theman")
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "`theman` is not a piece of tokenizer" in warnings[0]
