import subprocess
import sys

import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.cli.options import described


def shown(capsys, *arguments):
    assert cli_main(["options", *arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_the_list_names_every_choice_that_has_options_of_ours(capsys):
    listed = shown(capsys)
    for choice in ("--task translation_with_teacher", "--arch hf_masked_lm", "--bpe hf_tokenizer"):
        assert choice in listed
    assert "--criterion label_smoothed_cross_entropy_with_distillation" in listed


def test_a_choice_has_its_options_and_none_of_fairseq_s(capsys):
    text = shown(capsys, "label_smoothed_cross_entropy_with_distillation")
    assert "--kd-topk VALUE teacher tokens per position" in text
    assert "8 in the paper (default: 8)" in text
    assert "--kd-schedule {constant,linear,cosine} how W and T go" in text
    assert "--kd-square-temperature multiply" in text  # a switch takes no value
    assert "--label-smoothing" not in text


def test_a_preset_has_the_options_of_its_model(capsys):
    assert "--arch hf_encoder: --encoder-model" in shown(capsys, "tinybert_4x312")


def test_a_part_of_a_name_finds_options_wherever_they_are(capsys):
    text = shown(capsys, "encoder-model")
    assert "--arch hf_encoder, --arch entity_encoder: --encoder-model" in text  # the same words stand once
    assert "--arch sentence_lstm: --encoder-model" in text  # and others beside them
    assert "--kd-weight" not in text


def test_an_unknown_name_is_an_error(capsys):
    assert cli_main(["options", "nothing"]) == 2
    assert "no choice and no option of ours is called `nothing`" in capsys.readouterr().err


def test_nothing_is_logged_that_the_user_did_not_ask_for():
    """fairseq's speech tasks would ask for tensorboardX."""
    command = [sys.executable, "-m", "fairseq_bert_kd", "options", "nothing"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "tensorboardX" not in result.stderr


@pytest.mark.parametrize("found", [{}, {"--task a": []}])
def test_nothing_found_is_no_text(found):
    assert described(found) == ""
