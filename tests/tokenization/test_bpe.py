"""``--bpe hf_tokenizer`` through fairseq's own registry and parser."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fairseq import options
from fairseq.data import encoders
from fairseq.data.encoders import BPE_REGISTRY
from omegaconf import OmegaConf

from fairseq_bert_kd.tokenization.bpe import HfTokenizerBPE, HfTokenizerConfig
from tests.tokenization.tiny_tokenizers import KINDS, build_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokenizers")
    for kind in KINDS:
        build_tokenizer(kind, root / kind)
    return root


def test_name_gives_our_class():
    assert BPE_REGISTRY["hf_tokenizer"] is HfTokenizerBPE


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_as_interactive_does(folders: Path, kind: str):
    bpe = HfTokenizerBPE(HfTokenizerConfig(hf_tokenizer=str(folders / kind)))
    line = "don't stand near 😀 @@ ## ▁ <unk>!"
    encoded = bpe.encode(line)
    assert isinstance(encoded, str)
    assert encoded.split() == encoded.split(" ")
    assert bpe.decode(encoded) == line
    assert bpe.encode("") == bpe.decode("") == ""


def test_expected_string(folders: Path):
    bpe = HfTokenizerBPE(HfTokenizerConfig(hf_tokenizer=str(folders / "bert_uncased")))
    assert bpe.encode("Don't the Man") == "don @@' @@t the man"
    assert bpe.decode("don @@' @@t <unk> the man") == "don't <unk> the man"
    assert bpe.is_beginning_of_word("the")
    assert not bpe.is_beginning_of_word("@@t")


def test_built_from_fairseqs_command_line(folders: Path):
    parser = options.get_interactive_generation_parser()
    argv = ["data", "--path", "x.pt", "--bpe", "hf_tokenizer", "--hf-tokenizer", str(folders / "roberta")]
    args = options.parse_args_and_arch(parser, argv)
    assert isinstance(encoders.build_bpe(args), HfTokenizerBPE)


def test_built_from_fairseqs_config(folders: Path):
    cfg = OmegaConf.create({"_name": "hf_tokenizer", "hf_tokenizer": str(folders / "xlmr")})
    bpe = encoders.build_bpe(cfg)
    assert bpe.encode("the the") == "▁the ▁the"


def test_a_line_feed_does_not_end_the_line(folders: Path):
    """A model may write its byte; the rest of the output would be lost to whoever reads lines."""
    bpe = HfTokenizerBPE(HfTokenizerConfig(hf_tokenizer=str(folders / "bert_uncased")))
    assert "\n" in bpe.tokenizer.decode(["the", "<0x0A>", "man"])
    assert bpe.decode("the <0x0A> man").split() == ["the", "man"]
    assert "\n" not in bpe.decode("the <0x0A> man")


def test_tokenizer_of_validation_bleu_gives_words_back(folders: Path):
    # as fairseq's translation task builds it from --eval-bleu-detok and --eval-bleu-detok-args
    namespace = argparse.Namespace(tokenizer="hf_tokenizer", hf_tokenizer=str(folders / "xlmr"))
    tokenizer = encoders.build_tokenizer(namespace)
    assert tokenizer.decode("▁the ▁the") == "the the"


@pytest.mark.parametrize(
    "cfg", [HfTokenizerConfig(), argparse.Namespace(), argparse.Namespace(hf_tokenizer="")]
)
def test_missing_option(cfg):
    with pytest.raises(ValueError, match="hf_tokenizer needs --hf-tokenizer .*, which is not set"):
        HfTokenizerBPE(cfg)


def test_unusable_folder():
    with pytest.raises(ValueError, match="cannot load a tokenizer from `/no/such/folder`"):
        HfTokenizerBPE(HfTokenizerConfig(hf_tokenizer="/no/such/folder"))


def test_a_folder_of_checkpoints(tmp_path):
    (tmp_path / "checkpoint_best.pt").touch()
    with pytest.raises(
        ValueError, match="holds fairseq's checkpoints and no tokenizer: give .*checkpoint_best.pt"
    ):
        HfTokenizerBPE(HfTokenizerConfig(hf_tokenizer=str(tmp_path)))


def test_import_leaves_transformers_alone():
    code = "import sys, fairseq_bert_kd.tokenization.bpe; print('transformers' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    child = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert child.stdout.strip() == "False"
