"""The command on small files: content, order, refusals, and nothing left behind after a refusal."""

import argparse
import gzip
import io
import itertools
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fairseq_bert_kd.cli import tokenize_corpus
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.tokenization.dictionary import full_dictionary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tokenization.tiny_tokenizers import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer") / "bert"
    build_tokenizer("bert_uncased", folder)
    return str(folder)


@pytest.fixture
def run(tokenizer: str):
    def call(*argv: object, workers: int = 1) -> None:
        parser = argparse.ArgumentParser()
        tokenize_corpus.add_arguments(parser)
        words = ["--tokenizer", tokenizer, "--workers", str(workers), *map(str, argv)]
        tokenize_corpus.main(parser.parse_args(words))

    return call


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_bytes("The man\n\nDon't\r\n😀\u2028the\rman\nstanding".encode())
    return path


EXPECTED = "the man\n\ndon @@' @@t\n<0xF0> @@<0x9F> @@<0x98> @@<0x80> the man\nstanding\n"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_one_line_for_one_line(run, text: Path, tmp_path: Path, capsys, workers: int):
    run("--input", text, "--output", tmp_path / "out.txt", workers=workers)
    # only the line feed ends a line: not U+2028, and a lone carriage return is white space
    assert (tmp_path / "out.txt").read_bytes().decode() == EXPECTED
    shown = capsys.readouterr().err
    assert "in.txt: 5 lines, " in shown
    assert "1 lines with byte symbols" in shown
    assert "1 of 5 lines are empty; fairseq-preprocess keeps such a line as a lone end-of-sentence" in shown
    assert "1 of 5 lines hold text that the tokenizer's vocabulary lacks" in shown
    assert names(tmp_path) == ["in.txt", "out.txt"]


def test_workers_keep_the_order(run, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(tokenize_corpus, "CHUNK_LINES", 7)  # many chunks
    (tmp_path / "in").write_text(
        "".join(f"{number} the man {'x' * (number % 50)}\n" for number in range(1003))
    )
    for workers in (1, 2):
        run("--input", tmp_path / "in", "--output", tmp_path / f"out{workers}", workers=workers)
    one = (tmp_path / "out1").read_bytes()
    assert one == (tmp_path / "out2").read_bytes()
    numbers = [
        line.split(" the ")[0].replace(" ", "").replace("##", "") for line in one.decode().splitlines()
    ]
    assert numbers == [str(number) for number in range(1003)]


def test_chunks_in_flight_are_bounded():
    class Pool:
        def submit(self, function, chunk):
            return SimpleNamespace(result=lambda: (chunk, None))

    taken = itertools.count()
    encoded = tokenize_corpus._encoded(taken, tokenizer=None, pool=Pool(), in_flight=3)
    assert [next(encoded)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert next(taken) == 7  # 5 given back, 2 waiting


def test_an_input_without_lines_is_warned_about(run, tmp_path: Path, capsys):
    (tmp_path / "in").touch()
    run("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert (
        f"warning: {tmp_path / 'in'} has no line; fairseq cannot read a split without one"
        in capsys.readouterr().err
    )


def test_full_dictionary_is_written_with_the_outputs_or_not_at_all(
    run, tokenizer, text: Path, tmp_path: Path
):
    run("--input", text, "--output", tmp_path / "out", "--full-dictionary", tmp_path / "dict.txt")
    symbols = [
        line.split(" ")[0] for line in (tmp_path / "dict.txt").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    assert set(EXPECTED.split()) <= set(symbols)
    assert symbols == full_dictionary(HfTokenizer(tokenizer)).symbols[4:]
    again = ("--input", text, "--output", tmp_path / "other", "--full-dictionary", tmp_path / "dict.txt")
    with pytest.raises(ValueError, match="dict.txt` exists already"):
        run(*again)
    before = (tmp_path / "dict.txt").read_bytes()
    run(*again, "--overwrite")
    assert (tmp_path / "dict.txt").read_bytes() == before
    (tmp_path / "bad").write_bytes(b"\xe4\n")
    with pytest.raises(ValueError, match="must be UTF-8"):
        run(
            "--input",
            tmp_path / "bad",
            "--output",
            tmp_path / "new",
            "--full-dictionary",
            tmp_path / "new.txt",
        )
    for name, message in (
        (text, "must not be an input"),
        (tmp_path / "x", "named twice"),
        ("-", "must be a file"),
    ):
        with pytest.raises(ValueError, match=message):
            run("--input", text, "--output", tmp_path / "x", "--full-dictionary", name)
    assert names(tmp_path) == ["bad", "dict.txt", "in.txt", "other", "out"]


def test_gzip_and_several_files(run, text: Path, tmp_path: Path):
    (tmp_path / "in.gz").write_bytes(gzip.compress(text.read_bytes()))
    run("--input", text, tmp_path / "in.gz", "--output", tmp_path / "a", tmp_path / "b", "--parallel")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != b""


def test_standard_streams(run, monkeypatch, tmp_path: Path):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"The man\n")))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out, flush=lambda: None))
    run("--input", "-", "--output", "-")
    assert out.getvalue() == b"the man\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pipe_keeps_the_lines_before_an_error(run, monkeypatch, workers: int):
    monkeypatch.setattr(tokenize_corpus, "CHUNK_LINES", 2)
    out = io.BytesIO()
    content = io.BytesIO(b"the man\n" * 5 + b"\xe4\nman\n")
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=content, close=lambda: None)
    )  # workers close theirs
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=out, flush=lambda: None))
    with pytest.raises(ValueError, match="`standard input`, line 6: text must be UTF-8"):
        run("--input", "-", "--output", "-", workers=workers)
    assert out.getvalue() == b"the man\n" * 5


def test_a_byte_order_mark_makes_no_pieces(tmp_path: Path, caplog):
    """Issue 17, F7: the mark's three bytes are pieces of a byte-level tokenizer."""
    build_tokenizer("roberta", tmp_path / "roberta")
    (tmp_path / "in").write_bytes("\ufeffa man\n".encode())
    argv = ["tokenize", "--tokenizer", str(tmp_path / "roberta"), "--workers", "1"]
    assert cli_main([*argv, "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == "a Ġm an\n"
    assert "in` begins with a byte order mark, which is left out" in caplog.text


def test_what_is_done_to_text_is_said(tokenizer: str, text: Path, tmp_path: Path, caplog):
    argv = ["tokenize", "--tokenizer", tokenizer, "--workers", "1"]
    assert cli_main([*argv, "--input", str(text), "--output", str(tmp_path / "out")]) == 0
    assert caplog.text.count("case is lowered, accents are stripped") == 1


@pytest.mark.parametrize("name", ["16.txt", "packed.txt"])
def test_files_of_other_kinds_are_named(run, text: Path, tmp_path: Path, name: str):
    """Issue 17, F10: no advice that destroys the text."""
    forms = {
        "16.txt": text.read_text(encoding="utf-8").encode("utf-16"),
        "packed.txt": gzip.compress(text.read_bytes()),
    }
    (tmp_path / name).write_bytes(forms[name])
    with pytest.raises(ValueError, match="must be UTF-8 text, but is (UTF-16|gzip)") as error:
        run("--input", tmp_path / name, "--output", tmp_path / "out")
    assert "latin1" not in str(error.value)
    assert names(tmp_path) == sorted(["in.txt", name])


def test_empty_file(run, tmp_path: Path):
    (tmp_path / "in").touch()
    run("--input", tmp_path / "in", "--output", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize(("tables", "warned"), [(2, True), (1, False)])
def test_a_table_is_taken_for_text_with_a_warning(run, tmp_path: Path, capsys, tables: int, warned: bool):
    """Two of three lines with a tab look like source and target in one file; one of three does not."""
    lines = ["the man\tein\n"] * tables + ["the man\n"] * (3 - tables)
    (tmp_path / "pairs.tsv").write_text("".join(lines))
    run("--input", tmp_path / "pairs.tsv", "--output", tmp_path / "out")
    assert ("2 of 3 lines have a tab. If this is a table" in capsys.readouterr().err) == warned


def test_overwrite_follows_a_link(run, text: Path, tmp_path: Path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    run("--input", text, "--output", tmp_path / "link", "--overwrite")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text().startswith("the man\n")
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) & stat.S_IRUSR


# -- refusals


def test_existing_output(run, text: Path, tmp_path: Path):
    (tmp_path / "out").write_text("old")
    with pytest.raises(
        ValueError, match=r"out` exists already\. Choose another name, or replace it with --overwrite"
    ):
        run("--input", text, "--output", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "old"


def test_output_that_is_an_input(run, text: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="must not be an input as well"):
        run("--input", text, "--output", tmp_path / "." / "in.txt", "--overwrite")
    with pytest.raises(ValueError, match="is named twice"):
        run("--input", text, text, "--output", tmp_path / "a", tmp_path / "a")


def test_unequal_numbers_of_files(run, text: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="same number of files, but name 2 and 1"):
        run("--input", text, text, "--output", tmp_path / "a")


def test_output_names_that_cannot_be_written(run, text: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"ends in \.gz, but fairseq-preprocess reads plain text only"):
        run("--input", text, "--output", tmp_path / "a.gz")
    with pytest.raises(ValueError, match="must be a file"):
        run("--input", text, "--output", tmp_path, "--overwrite")
    with pytest.raises(ValueError, match="must be a file"):
        run("--input", text, "--output", os.devnull, "--overwrite")
    with pytest.raises(FileNotFoundError, match=r"the folder of output .* does not exist"):
        run("--input", text, "--output", tmp_path / "no" / "a")


def test_missing_input(run, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"input .*nothing` does not exist"):
        run("--input", tmp_path / "nothing", "--output", tmp_path / "out")


def test_contradicting_options(run, text: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="--workers must be at least 1, but is 0"):
        run("--input", text, "--output", tmp_path / "a", workers=0)
    with pytest.raises(ValueError, match="--parallel compares exactly two inputs, but --input names 1"):
        run("--input", text, "--output", tmp_path / "a", "--parallel")
    with pytest.raises(ValueError, match="can serve one pair only, but --input names 2 files"):
        run("--input", text, "-", "--output", tmp_path / "a", tmp_path / "b")


def test_parallel_files_of_unequal_length(run, text: Path, tmp_path: Path):
    (tmp_path / "short").write_text("a\n")
    with pytest.raises(ValueError, match=r"in.txt` has 5 and .*short` has 1\. No output was written"):
        run("--input", text, tmp_path / "short", "--output", tmp_path / "a", tmp_path / "b", "--parallel")
    assert names(tmp_path) == ["in.txt", "short"]


@pytest.mark.parametrize("workers", [1, 2])
def test_text_that_is_not_utf8(run, tmp_path: Path, monkeypatch, workers: int):
    monkeypatch.setattr(tokenize_corpus, "CHUNK_LINES", 2)
    (tmp_path / "in").write_bytes(b"a\nb\nc\nd\nM\xe4nner\n")
    with pytest.raises(ValueError, match="in`, line 5: text must be UTF-8, but byte 0xE4 at place 2"):
        run("--input", tmp_path / "in", "--output", tmp_path / "out", workers=workers)
    assert names(tmp_path) == ["in"]


@pytest.mark.parametrize("content", [b"no gzip\n", gzip.compress(b"the man\n" * 99, mtime=0)[:-12]])
def test_broken_gzip(run, tmp_path: Path, content: bytes):
    (tmp_path / "in.gz").write_bytes(content)
    with pytest.raises(ValueError, match="must be a complete gzip file"):
        run("--input", tmp_path / "in.gz", "--output", tmp_path / "out")
    assert names(tmp_path) == ["in.gz"]


def test_status_and_message(tokenizer: str, text: Path, tmp_path: Path, capsys):
    argv = [
        "tokenize",
        "--tokenizer",
        tokenizer,
        "--workers",
        "1",
        "--input",
        str(text),
        "--output",
        str(tmp_path / "out"),
    ]
    assert cli_main(argv) == 0
    assert cli_main(argv) == 2
    assert "fairseq-bert-kd tokenize: output" in capsys.readouterr().err


def test_arguments_for_the_top_level_command():
    parser = argparse.ArgumentParser()
    tokenize_corpus.add_arguments(parser)
    args = parser.parse_args(["--tokenizer", "t", "--input", "a", "--output", "b"])
    assert args.workers == os.cpu_count()
