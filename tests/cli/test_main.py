import errno
import importlib
import subprocess
import sys

import pytest

import fairseq_bert_kd
from fairseq_bert_kd.cli import dispatch
from fairseq_bert_kd.cli.main import COMMANDS, cli_main


def test_every_command_has_help_and_summary(capsys):
    for name, command in COMMANDS.items():
        assert command.summary
        module = importlib.import_module(command.module)
        assert module.HELP
        assert module.EXAMPLE.startswith("example")
        with pytest.raises(SystemExit) as stop:
            cli_main([name, "--help"])
        assert stop.value.code == 0
        printed = capsys.readouterr().out
        assert f"usage: fairseq-bert-kd {name}" in printed
        assert "example" in printed


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False)]
)
def test_a_full_disk_is_named(monkeypatch, capsys, number, said):
    def full(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(dispatch, "run", full)
    assert cli_main(["tokenize"]) == 2
    assert ("is full: make room, or write to another folder" in capsys.readouterr().err) is said


def test_no_command_prints_help_and_fails(capsys):
    assert cli_main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_user_dir_is_the_package(capsys):
    assert cli_main(["--user-dir"]) == 0
    assert capsys.readouterr().out.strip() == next(iter(fairseq_bert_kd.__path__))


def test_user_error_is_one_line_without_a_stack_trace(tmp_path):
    command = [sys.executable, "-m", "fairseq_bert_kd", "score", "--reference", str(tmp_path / "none"), "x"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("fairseq-bert-kd score: ")
    assert "Traceback" not in result.stderr
