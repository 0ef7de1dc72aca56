"""Every way in reads text alike: marks, line ends, encodings, bad bytes, packed files."""

import ast
import gzip
import io
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.evaluation.fairseq_output import read_classes, read_hypotheses, read_lines, read_numbers
from fairseq_bert_kd.storage.fairseq_data import read_dictionary
from fairseq_bert_kd.text_lines import FOREIGN, batches, open_lines, packed_or_not, text_lines

MARK = "\ufeff".encode()


@pytest.fixture
def said(caplog):
    """Messages of the reader."""
    caplog.set_level(logging.WARNING, logger="fairseq_bert_kd.text_lines")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a\nb", ["a", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b"a\r\r\n", ["a"]),
        ("a\u2028b\x0bc\x85d\n".encode(), ["a\u2028b\x0bc\x85d"]),  # str.splitlines ends a line at each
        (MARK + b"a\nb\n", ["a", "b"]),
        (MARK, [""]),
        (MARK + MARK + b"a", ["\ufeffa"]),  # the second is text
    ],
)
def test_lines(tmp_path, content, lines):
    assert list(text_lines(content, "x")) == lines
    assert list(text_lines(io.BytesIO(content), "x")) == lines
    for name, packed in (("x", content), ("x.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(packed)
        assert list(open_lines(tmp_path / name)) == lines


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_any_text_comes_back_with_its_ends(text):
    expected = text.removeprefix("\ufeff")
    content = text.encode()
    assert "".join(text_lines(content, "x", keep_ends=True)) == expected


def test_the_mark_is_said_once(said):
    assert list(text_lines(MARK + b"a\n" + b"b\n" * 5, "some.en")) == ["a", *"bbbbb"]
    assert said() == ["`some.en` begins with a byte order mark, which is left out"]


def test_nothing_is_said_twice_of_what_is_read_again(said):
    content = MARK + b"a\rb\n" + MARK + b"c\n"
    assert list(text_lines(content, "some.en")) == list(text_lines(content, "some.en", again=True))
    assert len(said()) == 3


def test_marks_of_joined_files_stay_and_are_said_once(said):
    assert list(text_lines((MARK + b"a\n") * 3, "some.en")) == ["a", "\ufeffa", "\ufeffa"]
    assert len(said()) == 2
    assert "`some.en`, line 2 begins with a byte order mark, which stays in the text" in said()[1]


def test_line_ends_of_old_macs_are_said(said):
    assert list(text_lines(b"a\rb\rc", "x")) == ["a\rb\rc"]
    assert "`x`, line 1 holds 2 carriage returns. Only a line feed ends a line" in said()[0]


def test_a_bad_byte_has_its_place_and_what_stands_above_is_kept():
    lines = text_lines(b"a\nb\nM\xe4nner\n", "some.de")
    assert [next(lines), next(lines)] == ["a", "b"]
    with pytest.raises(
        ValueError, match="`some.de`, line 3: text must be UTF-8, but byte 0xE4 at place 2"
    ) as error:
        next(lines)
    assert "latin1" not in str(error.value)  # it takes any bytes
    given = batches(text_lines(b"1\n2\n3\n4\n5\n\xff", "x"), 2)
    assert [next(given), next(given), next(given)] == [["1", "2"], ["3", "4"], ["5"]]
    with pytest.raises(ValueError, match="line 6"):
        next(given)


OTHER_ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le")


@pytest.mark.parametrize("encoding", OTHER_ENCODINGS)
@pytest.mark.parametrize("text", ["a man\nthe men\n", "a\n", "\na\n"])
def test_other_encodings_are_named_with_what_converts_them(encoding, text):
    with pytest.raises(ValueError, match="must be UTF-8 text, but .*UTF-(16|32).*`iconv -f utf-(16|32)"):
        list(text_lines(text.encode(encoding), "x"))


@pytest.mark.parametrize(("head", "kind", "advice"), FOREIGN)
def test_other_files_are_named(head, kind, advice):
    with pytest.raises(ValueError, match=f"`x` must be UTF-8 text, but is {kind}. {advice}"):
        list(text_lines(head + b" and more\n", "x"))


def test_gzip_needs_its_name_and_must_be_whole(tmp_path):
    packed = gzip.compress(b"the man\n" * 99)
    (tmp_path / "x").write_bytes(packed)
    with pytest.raises(ValueError, match="but is gzip. Give it a name in .gz, or unpack it"):
        list(open_lines(tmp_path / "x"))
    (tmp_path / "twice.gz").write_bytes(gzip.compress(packed))
    with pytest.raises(ValueError, match="but is gzip"):
        list(open_lines(tmp_path / "twice.gz"))
    for content in (packed[:-12], b"the man\n"):
        (tmp_path / "x.gz").write_bytes(content)
        with pytest.raises(ValueError, match="must be a complete gzip file, as its name says"):
            list(open_lines(tmp_path / "x.gz"))


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(MARK + b"a\n\xff\n")))
    lines = open_lines("-")
    assert next(lines) == "a"
    with pytest.raises(ValueError, match="`standard input`, line 2"):
        next(lines)


def hypotheses(path):
    return read_hypotheses(path, 1)


# what reads a text file -> content that it reads, and what comes out
WAYS_IN = {
    read_lines: (b"a man\n", ["a man"]),
    read_classes: (b"yes\n", ["yes"]),
    read_numbers: (b"1.5\n", [1.5]),
    hypotheses: (b"D-0\t-0.1\ta man\n", ["a man"]),
}


@pytest.mark.parametrize("read", WAYS_IN)
def test_every_reader_reads_alike(tmp_path, read):
    content, result = WAYS_IN[read]
    forms = {
        "plain": content, "mark": MARK + content, "dos": content.replace(b"\n", b"\r\n"), "x.gz": gzip.compress(content),
    }  # fmt: skip
    for name, form in forms.items():
        (tmp_path / name).write_bytes(form)
        assert read(tmp_path / name) == result, name
    refused = {
        "16": content.decode().encode("utf-16"),
        "packed": gzip.compress(content),
        "bad": content + b"\xff\n",
    }
    for name, form in refused.items():
        (tmp_path / name).write_bytes(form)
        with pytest.raises(ValueError, match=f"{name}`.* must be UTF-8"):
            read(tmp_path / name)


def test_a_dictionary_with_a_mark_is_refused(tmp_path):
    """fairseq would take the mark for a part of the first symbol."""
    (tmp_path / "dict.en.txt").write_bytes(MARK + b"a 3\n")
    with pytest.raises(ValueError, match="begins with a byte order mark, which fairseq takes for a part of"):
        read_dictionary(tmp_path / "dict.en.txt")
    (tmp_path / "dict.en.txt").write_bytes("a 3\nb 2\n".encode("utf-16"))
    with pytest.raises(ValueError, match="must be UTF-8 text, but is UTF-16"):
        read_dictionary(tmp_path / "dict.en.txt")
    (tmp_path / "dict.en.txt").write_bytes(b"a 3\r\nb\xff 2\n")
    with pytest.raises(ValueError, match="line 2: text must be UTF-8"):
        read_dictionary(tmp_path / "dict.en.txt")


def test_score_reads_the_mark_of_a_reference(tmp_path, capsys):
    (tmp_path / "ref").write_bytes(MARK + b"a man is in\n")
    (tmp_path / "out").write_bytes(b"D-0\t-0.1\ta man is in\n")
    assert cli_main(["score", "--reference", str(tmp_path / "ref"), str(tmp_path / "out")]) == 0
    assert "100.00" in capsys.readouterr().out


def test_a_file_or_the_same_with_gz(tmp_path):
    """The plain one where both are there, and its name in a message where neither is."""
    assert packed_or_not(tmp_path / "x") == tmp_path / "x"
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a\n"))
    assert list(open_lines(packed_or_not(tmp_path / "x"))) == ["a"]
    assert packed_or_not(tmp_path / "x.gz") == tmp_path / "x.gz"
    (tmp_path / "x").write_bytes(b"b\n")
    assert list(open_lines(packed_or_not(tmp_path / "x"))) == ["b"]


ROOT = Path(__file__).parents[1]
# files that read text otherwise: their own records, logs and settings, a kernel's file, and pages
OTHERWISE = {
    "examples/fill_tables.py",
    "examples/length_penalty.py",
    "examples/paraphrase/report_scores.py",
    "examples/recipes/students.py",
    "examples/serving/compare.py",
    "examples/serving/translate.py",
    "examples/workflow/engine.py",
    "examples/workflow/settings.py",
    "fairseq_bert_kd/cli/compare_runs.py",
    "fairseq_bert_kd/cli/export_onnx.py",
    "fairseq_bert_kd/data/run_hints.py",
    "fairseq_bert_kd/report/read_experiment.py",
    "fairseq_bert_kd/report/read_logs.py",
    "fairseq_bert_kd/report/read_further_scores.py",
    "fairseq_bert_kd/report/read_tables.py",
    "fairseq_bert_kd/storage/entity_mentions.py",
    "fairseq_bert_kd/storage/sentence_data.py",
    "fairseq_bert_kd/modules/declared_vector.py",
    "fairseq_bert_kd/tokenization/text_rules.py",
}


def reads_text(tree):
    """Whether a file has a way of its own from bytes to text: `open` without "b" or "w", `read_text`, `gzip`, `stdin`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("read_text", "stdin"):
            return True
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            of_gzip = ast.unparse(node.func).startswith("gzip.")
            modes = [arg.value for arg in node.args[1:] if isinstance(arg, ast.Constant)]
            if of_gzip or (
                ast.unparse(node.func) == "open" and name == "open" and not set("bwax") & set("".join(modes))
            ):
                return True
    return False


def test_there_is_no_other_way_in():
    """A new reader of text takes `open_lines`; one that reads no text of users is named above."""
    files = [*(ROOT / "fairseq_bert_kd").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    found = {
        str(file.relative_to(ROOT))
        for file in files
        if reads_text(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert sorted(found - OTHERWISE - {"fairseq_bert_kd/text_lines.py"}) == []


@pytest.mark.parametrize(
    "line", ["open(x)", "open(x, encoding='utf-8')", "p.read_text()", "gzip.open(x)", "sys.stdin"]
)
def test_another_way_in_is_seen(line):
    assert reads_text(ast.parse(line))
    assert not reads_text(ast.parse("open(x, 'rb'), open(x, 'w')"))
