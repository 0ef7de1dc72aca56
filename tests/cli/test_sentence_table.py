"""Rows of the files of known tasks, as their origins write them, and of one's own; and files that are refused."""

import argparse
import gzip

import pytest

from fairseq_bert_kd.cli.sentence_presets import PRESETS
from fairseq_bert_kd.cli.sentence_table import add_format_arguments, read_rows, table_format


def format_of(*words):
    parser = argparse.ArgumentParser()
    add_format_arguments(parser)
    return table_format(parser.parse_args(list(words)))


def rows_of(path, *words, labelled=True):
    return [(*row.texts, row.label) for row in read_rows(str(path), format_of(*words), labelled)]


# first lines of GLUE's tables and of the origins' files; the row that must come out
FILES = [
    ("sst2", "sentence\tlabel", "it 's fun \t1", ("it 's fun", "1")),
    ("sst2", "label\tcontent", "1\tit 's fun", ("it 's fun", "1")),
    ("sst2", "label\tSentence", "1\tit 's fun\r", ("it 's fun", "1")),
    ("sst2", None, "1\tit 's fun", ("it 's fun", "1")),
    ("sst2", "index\tsentence", "0\tit 's fun", ("it 's fun", None)),
    ("cola", None, "gj04\t1\t\tHe ran.", ("He ran.", "1")),
    ("cola", "index\tsentence", "0\tHe ran.", ("He ran.", None)),
    ("mrpc", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", '1\t7\t8\tHe "ran".\tRan.', ('He "ran".', "Ran.", "1")),
    ("mrpc", "index\t#1 ID\t#2 ID\t#1 String\t#2 String", "0\t7\t8\tHe ran.\tRan.", ("He ran.", "Ran.", None)),
    ("rte", "index\tsentence1\tsentence2\tlabel", "0\ta\tb\tentailment", ("a", "b", "entailment")),
    ("wnli", "index\tsentence1\tsentence2\tlabel", "0\ta\tb\t1", ("a", "b", "1")),
    ("qnli", "index\tquestion\tsentence\tlabel", "0\ta\tb\tentailment", ("a", "b", "entailment")),
    ("qqp", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\ta\tb\t0", ("a", "b", "0")),
    ("qqp", "id\tquestion1\tquestion2", "1\ta\tb", ("a", "b", None)),
    (
        "stsb", "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tc\tf\t2012\t1\tn\tn\ta\tb\t5.000", ("a", "b", "5.000"),
    ),
    ("stsb", None, "main-captions\tMSRvid\t2012test\t0001\t2.500\ta\tb", ("a", "b", "2.500")),
    ("stsb", None, "main-forums\tf\t2014\t0001\t2.5\ta\tb\thttp://a\thttp://b", ("a", "b", "2.5")),
    (
        "mnli", "index\tpromptID\tgenre\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\tg\t(x)\ta\tb\tneutral\tentailment", ("a", "b", "entailment"),
    ),
    ("trec", None, "5\tHow long ?", ("How long ?", "5")),
    ("snips", None, "PlayMusic\tplay it", ("play it", "PlayMusic")),
    ("plain", None, "any text", ("any text", None)),
    ("plain", "text", "any text", ("any text", None)),
]  # fmt: skip


@pytest.mark.parametrize(("task", "header", "line", "row"), FILES)
def test_known_files(tmp_path, task, header, line, row):
    path = tmp_path / "file.tsv"
    path.write_text("".join(f"{text}\n" for text in (header, line) if text), encoding="utf-8", newline="")
    labelled = row[-1] is not None
    assert rows_of(path, "--task", task, labelled=labelled) == [row]


def test_every_task_has_a_file_here():
    assert {task for task, *_ in FILES} == PRESETS.keys()


def test_gzip_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "file.txt.gz"
    content = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe ran.\tRan.\r\n"
    path.write_bytes(gzip.compress(content.encode()))
    assert rows_of(path, "--task", "mrpc") == [("He ran.", "Ran.", "1")]


OWN = "stars\treview\ttitle\n5\tGood.\tYes\n1\tBad.\tNo\n"


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("--columns", "review", "--label-column", "stars"), ("Good.", "5")),
        (("--columns", "Review,title", "--label-column", "STARS"), ("Good.", "Yes", "5")),
        (("--columns", "2", "--label-column", "1", "--header"), ("Good.", "5")),
        (("--columns", "title,review"), ("Yes", "Good.", None)),
    ],
)
def test_columns_of_one_s_own(tmp_path, words, first):
    (tmp_path / "own.tsv").write_text(OWN)
    found = rows_of(tmp_path / "own.tsv", *words, labelled="--label-column" in words)
    assert found[0] == first
    assert len(found) == 2


def test_quoted_fields_may_hold_tabs_and_line_feeds(tmp_path):
    path = tmp_path / "qqp.tsv"
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    path.write_text(header + '1\t2\t3\t"What\tis ""it"" ?"\t"a\nb"\t1\n2\t3\t4\tc\td\t0\n')
    table = format_of("--task", "qqp", "--quoting", "double")
    rows = list(read_rows(str(path), table, True))
    assert [(row.line, *row.texts, row.label) for row in rows] == [
        (2, 'What\tis "it" ?', "a\nb", "1"), (4, "c", "d", "0"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="line 3: every line must have 6 columns.*give --quoting double"):
        rows_of(path, "--task", "qqp")


def test_a_field_may_be_long(tmp_path):
    path = tmp_path / "long.tsv"
    path.write_text("text\tlabel\n" + "x " * 100_000 + "\ta\n")
    words = ("--columns", "text", "--label-column", "label", "--quoting", "double")
    assert len(rows_of(path, *words)[0][0]) == 199_999


# ---------------------------------------------------------------- refusals

BAD_FILES = [
    (("--task", "sst2"), "", "is empty; give a file with at least one row"),
    (("--task", "sst2"), "sentence\tlabel\na\t1\nb\n", "line 3: every line must have 2 columns.*has 1: 'b'. Mend the line"),
    (("--task", "sst2"), "sentence\tlabel\n \t1\n", "line 2: column 1 must hold a text, but is empty"),
    (("--task", "sst2"), "1\ta\n0\t\n", "line 2: column 2 must hold a text"),
    (("--task", "sst2"), "label\ttext\n1\ta\n", "line 1: 'label | text' looks like a header.*--columns and --label-column"),
    (("--task", "trec"), "target\tx\n1\ta\n", "line 1: 'target | x' looks like a header"),
    (("--task", "stsb"), "genre\tfile\tyear\tid\tgold\tsentence1\ttext2\n", "line 1: .*looks like a header"),
    (("--task", "sst2"), "a\tb\tc\n", "a file of this task has 2 columns, or a header, got 3"),
    (("--task", "rte"), "0\ta\tb\tentailment\n", "begin with a header that names sentence1 or #1 string, .*label, got"),
    (("--task", "sst2"), "index\tsentence\n0\ta\n", "has no column of labels .*training and validation need them. Only --test"),
    (("--task", "plain"), "a\tb\n", "a file of this task has 1 columns, or a header, got 2"),
    (("--task", "plain"), "a\n\nb\n", "line 2: column 1 must hold a text"),
    (("--task", "plain"), "a\nb\tc\n", "line 2: every line must have 1 column, separated by tabs, .*has 2"),
    (("--columns", "2", "--label-column", "1"), "label\ttext\n1\ta\n", "'label | text' looks like a header"),
    (("--columns", "3", "--label-column", "1"), "1\ta\n", "column 3 was named, but there are 2"),
    (("--columns", "body", "--label-column", "stars"), OWN, "no column `body` in its first line ('stars | review | title')"),
    (("--columns", "review", "--label-column", "mark"), OWN, "has no column of labels"),
    (("--columns", "text", "--quoting", "double"), 'text\n"a"b\n', "line 2: its double quotes are broken"),
    (("--columns", "text", "--quoting", "double"), 'text\n"ab\n', "line 2: its double quotes are broken"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "content", "message"), BAD_FILES)
def test_bad_files(tmp_path, words, content, message):
    path = tmp_path / "file.tsv"
    path.write_text(content)
    message = message.replace("|", r"\|").replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=message):
        rows_of(path, *words)


BAD_OPTIONS = [
    ((), "give either --task, .* or --columns"),
    (("--task", "sst2", "--columns", "1"), "give either --task"),
    (("--task", "sst2", "--label-column", "1"), "--task sst2 says itself"),
    (("--task", "sst2", "--label-kind", "numbers"), "--task sst2 says itself"),
    (("--columns", "a,b,c"), "one column or two, all different"),
    (("--columns", "a,a"), "one column or two, all different"),
    (("--columns", "a", "--label-column", "a"), "one column or two, all different"),
    (("--columns", "a,"), "one column or two, all different"),
    (("--columns", "1", "--label-column", "b"), "either all by name or all by number"),
    (("--columns", "0"), "either all by name or all by number, from 1"),
    (("--columns", "1", "--label-kind", "numbers"), "--label-kind numbers needs --label-column"),
]


@pytest.mark.parametrize(("words", "message"), BAD_OPTIONS)
def test_bad_options(words, message):
    with pytest.raises(ValueError, match=message):
        format_of(*words)
