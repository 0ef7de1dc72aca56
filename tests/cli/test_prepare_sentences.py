"""The command on small files: what it writes and says, what it refuses, and that nothing is left of a refused run."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDataset

from fairseq_bert_kd.cli import sentence_folder, sentence_scan
from fairseq_bert_kd.storage.fairseq_data import IndexedTokens, dictionary_digest, sentence_hash
from fairseq_bert_kd.storage.sentence_data import hashes_path, read_spec, read_targets
from fairseq_bert_kd.tokenization.dictionary import full_dictionary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tiny_sentences import prepare
from tests.tokenization.tiny_tokenizers import build_tokenizer

DATA = Path(os.environ.get("KD_SENTENCE_DATA", "/nowhere"))  # GLUE's files, where a machine has them
TRAIN = "1\tThe man is near\n0\tthe people eat\n1\tThe men sit\n"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "bert"
    build_tokenizer("bert_uncased", folder)
    return folder


@pytest.fixture
def files(tmp_path):
    """Function that writes files, by name and content; their paths."""

    def write(**contents):
        for name, content in contents.items():
            (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        return [tmp_path / name for name in contents]

    return write


def words_of(folder, side, split):
    """Texts of a side as pieces, end of sentence included."""
    dictionary = Dictionary.load(str(folder / side / "dict.txt"))
    texts = MMapIndexedDataset(str(folder / side / split))
    return [[dictionary[int(token)] for token in texts[row]] for row in range(len(texts))]


def test_what_it_writes(bert, files, tmp_path, capsys):
    train, valid, test = files(train=TRAIN, valid="1\tthe men\n", test="index\tsentence\n0\ta man\n")
    out = tmp_path / "data"
    assert prepare(bert, out, "--task", "sst2", "--train", train, "--valid", valid, "--test", test) == 0
    tokenizer = HfTokenizer(str(bert))
    assert words_of(out, "input0", "train") == [
        [*tokenizer.encode(line), "</s>"] for line in ("The man is near", "the people eat", "The men sit")
    ]
    spec = read_spec(out)
    assert (spec.kind, spec.names, spec.texts, spec.metric) == (
        "classes",
        ("negative", "positive"),
        1,
        "accuracy",
    )
    assert spec.tokenizer == tokenizer.digest()
    dictionary = Dictionary.load(str(out / "input0" / "dict.txt"))
    assert spec.dictionary == dictionary_digest(dictionary.symbols)
    assert read_targets(out, "train", spec).tolist() == [1, 0, 1]
    assert read_targets(out, "test", spec) is None
    assert (out / "label" / "dict.txt").read_text() == "negative 1\npositive 2\n"
    texts = IndexedTokens(out / "input0" / "train")
    assert np.load(hashes_path(out, "train")).tolist() == [[sentence_hash(texts[row])] for row in range(3)]
    rows = json.loads((out / "labels.json").read_text())["rows"]
    assert rows["valid"] == {"rows": 1, "tokens": 3, "truncated": 0, "tokens_cut": 0}
    said = capsys.readouterr()
    assert (
        "train: 3 rows, 13 tokens (mean 4.3, longest 5); 0 rows cut to 512 tokens; negative 1, positive 2"
        in said.out
    )
    assert "valid: 1 rows, 3 tokens" in said.out
    assert "test: 1 rows, 3 tokens (mean 3.0, longest 3); 0 rows cut to 512 tokens; no labels" in said.out
    assert "3.00/3.00" in said.err  # the progress bar
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "test", "train", "valid"]


def test_what_is_odd_in_a_file_is_said_once(bert, files, tmp_path, caplog):
    """Though it is read twice."""
    train, valid = files(train="\ufeff" + TRAIN, valid="1\tthe men\n")
    assert prepare(bert, tmp_path / "data", "--task", "sst2", "--train", train, "--valid", valid) == 0
    assert caplog.text.count("begins with a byte order mark, which is left out") == 1


def test_the_dictionary_of_the_text_has_frequent_pieces_first(bert, files, tmp_path, capsys):
    train, valid = files(train=TRAIN, valid="1\tthe stove\n")
    out = tmp_path / "data"
    assert prepare(bert, out, "--task", "sst2", "--train", train, "--valid", valid) == 0
    first, *_ = (out / "input0" / "dict.txt").read_text().split("\n")
    assert first == "the 3"
    assert "<unk>" in words_of(out, "input0", "valid")[0]
    said = "pieces of valid are not in the dictionary; --full-dictionary has all"
    assert said in capsys.readouterr().out


def test_the_full_dictionary_is_that_of_the_tokenizer(bert, files, tmp_path):
    train, valid = files(train=TRAIN, valid="1\tthe stove 🙂\n")
    out = tmp_path / "data"
    assert prepare(bert, out, "--task", "sst2", "--train", train, "--valid", valid, "--full-dictionary") == 0
    symbols = Dictionary.load(str(out / "input0" / "dict.txt")).symbols
    assert symbols == full_dictionary(HfTokenizer(str(bert))).symbols
    assert words_of(out, "input0", "valid") == [[*HfTokenizer(str(bert)).encode("the stove 🙂"), "</s>"]]


def test_pairs_and_numbers(bert, files, tmp_path, capsys):
    lines = "g\tf\ty\t1\t2.5\tthe man\tthe men\ng\tf\ty\t2\t0\tthe people\ta man\tx\ty\n"
    out = tmp_path / "data"
    [train] = files(train=lines)
    assert prepare(bert, out, "--task", "stsb", "--train", train) == 0
    spec = read_spec(out)
    assert (spec.kind, spec.names, spec.texts, spec.metric) == ("numbers", (), 2, "spearman")
    assert read_targets(out, "train", spec).tolist() == [2.5, 0.0]
    assert (out / "input0" / "dict.txt").read_bytes() == (out / "input1" / "dict.txt").read_bytes()
    assert [text[-2] for text in words_of(out, "input1", "train")] == ["men", "man"]
    assert "labels 0 to 2.5, mean 1.25" in capsys.readouterr().out


def test_plain_text(bert, files, tmp_path):
    one, two = files(one="the man\n", two="the people\na man\n")
    out = tmp_path / "data"
    assert prepare(bert, out, "--task", "plain", "--train", one, two) == 0
    assert (read_spec(out).kind, read_spec(out).names) == ("none", ())
    assert not (out / "label").exists()
    assert [len(text) for text in words_of(out, "input0", "train")] == [3, 3, 3]


@pytest.mark.parametrize(
    ("labels", "options", "names"),
    [
        (("10", "9", "10"), (), ("9", "10")),  # numbers by value
        (("b", "a c", "b"), (), ("a c", "b")),
        (("b", "a", "b"), ("--classes", "c,b,a"), ("c", "b", "a")),
    ],
)
def test_names_of_one_s_own_classes(bert, files, tmp_path, labels, options, names):
    [train] = files(train="text\tlabel\n" + "".join(f"the man\t{label}\n" for label in labels))
    out = tmp_path / "data"
    given = ("--columns", "text", "--label-column", "label", "--train", train, *options)
    assert prepare(bert, out, *given) == 0
    spec = read_spec(out)
    assert spec.names == names
    assert [spec.names[number] for number in read_targets(out, "train", spec)] == list(labels)


def test_like_takes_dictionary_and_classes(bert, files, tmp_path):
    train, more = files(train=TRAIN, more="0\tthe man\n")
    assert prepare(bert, tmp_path / "data", "--task", "sst2", "--train", train) == 0
    like = ("--like", tmp_path / "data", "--task", "sst2")
    assert prepare(bert, tmp_path / "more-data", *like, "--test", more) == 0
    one, other = read_spec(tmp_path / "data"), read_spec(tmp_path / "more-data")
    assert (one.dictionary, one.names, one.metric) == (other.dictionary, other.names, other.metric)
    assert words_of(tmp_path / "more-data", "input0", "test") == [["the", "man", "</s>"]]


@pytest.mark.parametrize(
    ("most", "kept", "cut"),
    [
        (9, (4, 4), 0),  # [CLS] a b c [SEP] d e f [SEP]
        (8, (4, 3), 1),
        (5, (2, 2), 1),
    ],
)
def test_long_rows_are_cut_and_counted(bert, files, tmp_path, capsys, most, kept, cut):
    [train] = files(train="text\tother\nthe man is\ta man sit\n")
    out = tmp_path / "data"
    assert prepare(bert, out, "--columns", "text,other", "--train", train, "--max-tokens", most) == 0
    texts = [words_of(out, side, "train")[0] for side in ("input0", "input1")]
    assert tuple(map(len, texts)) == kept
    assert [text[-1] for text in texts] == ["</s>", "</s>"]
    assert f"{cut} rows cut to {most} tokens" in capsys.readouterr().out


def test_rows_that_training_has_too_are_counted(bert, files, tmp_path, capsys):
    train, valid = files(train=TRAIN, valid="1\tthe MEN sit\n0\ta man\n")
    prepare(bert, tmp_path / "data", "--task", "sst2", "--train", train, "--valid", valid)
    assert "warning: 1 of 2 rows of valid have the same text as a row of train" in capsys.readouterr().out


def test_a_pair_the_other_way_round_is_another_row(bert, files, tmp_path, capsys):
    pairs = "text\tother\na man\tthe men\n"
    train, valid = files(train=pairs, valid=f"{pairs}the men\ta man\n")
    prepare(bert, tmp_path / "data", "--columns", "text,other", "--train", train, "--valid", valid)
    assert "warning: 1 of 2 rows of valid have the same text as a row of train" in capsys.readouterr().out


# ---------------------------------------------------------------- refusals

BAD = [
    (
        {"train": TRAIN, "valid": "2\ta man\n"},
        (),
        "valid`, line 1: the label `2` is none of the known ones (negative, positive",
    ),
    ({"train": TRAIN, "valid": "1\ta\tb\n"}, (), "valid`, line 1: a file of this task has 2 columns"),
    ({"train": TRAIN + "1\t\n"}, (), "train`, line 4: column 2 must hold a text"),
    ({"train": TRAIN + "1\t\u200b\n"}, (), "train`, line 4: the tokenizer leaves nothing of"),
    ({"train": "index\tsentence\n0\ta\n"}, (), "has no column of labels"),
    ({"train": TRAIN}, ("--max-tokens", 2), "--max-tokens must be at least 3 for rows of 1 texts"),
    ({"train": TRAIN}, ("--full-dictionary", "--like", "x"), "--like takes the dictionary of a folder"),
    ({"train": TRAIN}, ("--like", "/nowhere"), "holds no prepared sentences"),
    ({"test": TRAIN}, (), "without --train there is no dictionary"),
    ({"train": TRAIN}, ("--classes", "positive"), "at least two classes"),
    ({"train": "sentence\tlabel\n"}, (), "has a header and no row below it"),
    ({"train": TRAIN}, ("--classes", "a,a"), "the class `a` is named twice"),
]


@pytest.mark.parametrize(("contents", "options", "message"), BAD)
def test_refusals_leave_nothing(bert, files, tmp_path, capsys, contents, options, message):
    paths = dict(zip(contents, files(**contents), strict=True))
    given = [word for split, path in paths.items() for word in (f"--{split}", path)]
    assert prepare(bert, tmp_path / "data", "--task", "sst2", *given, *options) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(contents)


OWN = ("--columns", "text", "--label-column", "label")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a man\tx\n", ("--label-kind", "numbers"), "line 2: the label must be a number, but is `x`"),
        ("a man\tnan\n", ("--label-kind", "numbers"), "the label must be a number, but is `nan`"),
        ("a man\tx\nthe man\tx\n", (), "at least two classes, the labels are x"),
        ("a man\tx\nthe man\t\n", (), "line 3: the label `` is none of the known ones"),
        ("a man\tx\nthe man\ty\n", ("--classes", "x,z"), "line 3: the label `y` is none of the known ones (x, z)"),
    ],
)  # fmt: skip
def test_labels_of_one_s_own(bert, files, tmp_path, capsys, content, options, message):
    [train] = files(train=f"text\tlabel\n{content}")
    assert prepare(bert, tmp_path / "data", *OWN, "--train", train, *options) == 2
    assert message in capsys.readouterr().err


def test_a_header_of_unknown_words_is_no_row(bert, files, tmp_path, capsys):
    rows = "a man\tbad\nthe man\tgood\n" * 2
    train, plain = files(train=f"review\topinion\n{rows}", plain=rows)
    numbers = ("--columns", "1", "--label-column", "2", "--train")
    assert prepare(bert, tmp_path / "data", *numbers, train) == 2
    said = capsys.readouterr().err
    assert "train`, line 1: no other row has the label `opinion`, so the line is probably a header" in said
    assert not (tmp_path / "data").exists()
    for name, options in {
        "a": (train, "--header"),
        "b": (plain,),
        "c": (train, "--classes", "bad,good,opinion"),
    }.items():
        assert prepare(bert, tmp_path / name, *numbers, *options) == 0
    assert [read_spec(tmp_path / name).names for name in "abc"] == [("bad", "good")] * 2 + [
        ("bad", "good", "opinion")
    ]


def test_rare_classes_are_no_header(bert, files, tmp_path):
    [train] = files(train="a man\tx\nthe man\ty\na men\tz\nthe men\tz\n")
    given = ("--columns", "1", "--label-column", "2", "--train", train)
    assert prepare(bert, tmp_path / "data", *given) == 0  # y stands once, too


def test_quotes_of_a_csv_writer_and_two_spellings_of_a_class_are_said(bert, files, tmp_path, capsys):
    [train] = files(train='text\tlabel\n"a ""man"" sit"\tGood\n"the" man\tgood\nthe men\tbad\n')
    assert prepare(bert, tmp_path / "data", *OWN, "--train", train) == 0
    said = capsys.readouterr().out
    assert "warning: 1 of 3 rows of train have a text in double quotes" in said
    assert "warning: the classes `Good` and `good` differ in case only" in said
    assert (
        prepare(bert, tmp_path / "quoted", *OWN, "--train", train, "--quoting", "double") == 2
    )  # `"the" man` is not csv


def test_commas_instead_of_tabs(bert, files, tmp_path, capsys):
    [train] = files(train="text,label\na man,x\n")
    assert prepare(bert, tmp_path / "data", *OWN, "--train", train) == 2
    assert "has no column `text` in its first line ('text,label')" in (said := capsys.readouterr().err)
    assert "Columns are separated by tabs" in said


def test_a_score_out_of_range(bert, files, tmp_path, capsys):
    [train] = files(train="g\tf\ty\t1\t5.5\tthe man\tthe men\n")
    assert prepare(bert, tmp_path / "data", "--task", "stsb", "--train", train) == 2
    assert "line 1: the label must be a number from 0 to 5, but is `5.5`" in capsys.readouterr().err


def test_classes_of_numbers(bert, files, tmp_path, capsys):
    [train] = files(train="text\na man\n")
    assert prepare(bert, tmp_path / "data", "--columns", "text", "--train", train, "--classes", "a,b") == 2
    assert "--classes names classes, but the labels are none; leave it out" in capsys.readouterr().err


def test_like_keeps_the_metric_of_the_task(bert, files, tmp_path):
    [train] = files(train="gj04\t1\t\tthe man\ngj04\t0\t\ta man\n")
    assert prepare(bert, tmp_path / "data", "--task", "cola", "--train", train) == 0
    [more] = files(more="text\tlabel\na man\tacceptable\n")
    given = ("--columns", "text", "--label-column", "label", "--like", tmp_path / "data", "--test", more)
    assert prepare(bert, tmp_path / "more-data", *given) == 0
    assert (read_spec(tmp_path / "more-data").metric, read_spec(tmp_path / "more-data").names) == (
        "mcc", ("unacceptable", "acceptable"),
    )  # fmt: skip


def test_files_of_a_split_that_disagree_about_labels(bert, files, tmp_path, capsys):
    train, one, two = files(train=TRAIN, one="1\ta\n", two="index\tsentence\n0\ta\n")
    assert prepare(bert, tmp_path / "data", "--task", "sst2", "--train", train, "--test", one, two) == 2
    assert "some files of --test have labels and some have none" in capsys.readouterr().err


def test_a_corpus_is_not_copied_to_be_written():
    texts = sentence_folder.Texts()
    for _ in range(20_000):
        texts.append(range(50))
    lengths = np.full(20_000, 51)
    lengths[0] = 3
    tracemalloc.start()
    try:
        first, *others = (
            text.tolist() if not row else len(text) for row, text in enumerate(texts.closed(lengths, 2))
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert first == [0, 1, 2]  # the last one is end of sentence
    assert set(others) == {51}
    assert peak < 2_000_000  # of a million tokens


def test_like_cuts_rows_as_the_folder_does(bert, files, tmp_path, capsys):
    train, more = files(train=TRAIN, more="index\tsentence\n0\tthe men sit near the people\n")
    given = ("--task", "sst2", "--full-dictionary", "--max-tokens", 5)
    assert prepare(bert, tmp_path / "data", *given, "--train", train) == 0
    assert read_spec(tmp_path / "data").max_tokens == 5
    capsys.readouterr()
    assert prepare(bert, tmp_path / "b", "--task", "sst2", "--like", tmp_path / "data", "--test", more) == 0
    assert "1 rows cut to 5 tokens" in capsys.readouterr().out


FAULTY = "id\tquestion1\tquestion2\tis_duplicate\n1\tthe man\ta man\t1\n2\tthe man\t\t0\n3\tthe\n4\tthe\ta\t-\n5\tmen\tman\t0\n"


def test_faulty_rows_are_left_out_on_request(bert, files, tmp_path, capsys):
    """Of training and validation: an empty text, another width, an unknown label."""
    train, valid = files(train=FAULTY, valid=FAULTY)
    given = ("--task", "qqp", "--train", train, "--valid", valid)
    assert prepare(bert, tmp_path / "data", *given) == 2
    assert "line 3: column 3 must hold a text, but is empty" in capsys.readouterr().err
    assert prepare(bert, tmp_path / "data", *given, "--drop-faulty") == 0
    said = capsys.readouterr().out
    for split in ("train", "valid"):
        assert f"warning: 3 faulty rows of {split} are left out (--drop-faulty); the first: `" in said
        assert read_targets(tmp_path / "data", split, read_spec(tmp_path / "data")).tolist() == [1, 0]
        assert len(words_of(tmp_path / "data", "input1", split)) == 2
    assert words_of(tmp_path / "data", "input0", "train")[1] == [
        *HfTokenizer(str(bert)).encode("men"),
        "</s>",
    ]


def test_no_row_of_a_test_file_is_left_out(bert, files, tmp_path, capsys):
    """Its predictions are told apart by their place."""
    train, test = files(train=FAULTY, test="id\tquestion1\tquestion2\n0\tthe man\t\n")
    given = ("--task", "qqp", "--drop-faulty", "--train", train, "--test", test)
    assert prepare(bert, tmp_path / "data", *given) == 2
    assert "line 2: column 3 must hold a text, but is empty" in capsys.readouterr().err


def test_a_file_of_faulty_rows_alone_is_refused(bert, files, tmp_path, capsys):
    [train] = files(train="id\tquestion1\tquestion2\tis_duplicate\n2\tthe man\t\t0\n")
    assert prepare(bert, tmp_path / "data", "--task", "qqp", "--drop-faulty", "--train", train) == 2
    assert "has no row that is not faulty; the first: `" in capsys.readouterr().err


def test_like_of_another_tokenizer_or_kind(bert, files, tmp_path, capsys):
    train, pairs = files(train=TRAIN, pairs="text\tother\tlabel\na\tb\t3\n")
    like = tmp_path / "data"
    assert prepare(bert, like, "--task", "sst2", "--train", train) == 0
    build_tokenizer("bert_cased", tmp_path / "cased")
    assert (
        prepare(tmp_path / "cased", tmp_path / "b", "--task", "sst2", "--train", train, "--like", like) == 2
    )
    assert f"--like `{like}` was made with another tokenizer than" in capsys.readouterr().err
    numbers = ("--columns", "text", "--label-column", "label", "--label-kind", "numbers", "--test", pairs)
    assert prepare(bert, tmp_path / "b", *numbers, "--like", like) == 2
    assert "has labels that are classes, these files have numbers" in capsys.readouterr().err


def test_an_existing_folder(bert, files, tmp_path, capsys):
    [train] = files(train=TRAIN)
    out = tmp_path / "data"
    given = ("--task", "sst2", "--train", train)
    assert prepare(bert, out, *given) == 0
    before = (out / "labels.json").stat().st_mtime_ns
    assert prepare(bert, out, *given) == 2
    assert "exists; choose another name, or pass --overwrite" in capsys.readouterr().err
    assert (out / "labels.json").stat().st_mtime_ns == before
    assert prepare(bert, out, *given, "--overwrite") == 0
    assert (out / "labels.json").stat().st_mtime_ns != before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert prepare(bert, tmp_path / "mine", *given, "--overwrite") == 2
    assert "holds no prepared sentences (no labels.json), so it is not overwritten" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine", "train"]


def test_a_missing_file_or_folder(bert, tmp_path, capsys):
    assert prepare(bert, tmp_path / "data", "--task", "sst2", "--train", tmp_path / "nothing") == 2
    assert "does not exist, or is no file" in capsys.readouterr().err
    (tmp_path / "train").write_text(TRAIN)
    assert prepare(bert, tmp_path / "no" / "data", "--task", "sst2", "--train", tmp_path / "train") == 2
    assert "the folder of --destdir" in capsys.readouterr().err


def test_a_run_that_breaks_leaves_the_former_folder(bert, files, tmp_path, monkeypatch):
    [train] = files(train=TRAIN)
    given = ("--task", "sst2", "--train", train)
    assert prepare(bert, tmp_path / "data", *given) == 0
    before = sorted(path.name for path in (tmp_path / "data").rglob("*"))

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(sentence_folder, "write_dictionary", broken)
    assert prepare(bert, tmp_path / "data", *given, "--overwrite") == 2
    assert sorted(path.name for path in (tmp_path / "data").rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "train"]


def test_many_chunks_are_one(bert, files, tmp_path, monkeypatch):
    [train] = files(train=TRAIN)
    monkeypatch.setattr(sentence_scan, "CHUNK_ROWS", 2)
    assert prepare(bert, tmp_path / "data", "--task", "sst2", "--train", train) == 0
    assert len(words_of(tmp_path / "data", "input0", "train")) == 3


# ---------------------------------------------------------------- real files

REAL = [
    ("sst2", ("SST-2/dev.tsv.gz",), 872),
    ("mrpc", ("MRPC/msr_paraphrase_test.txt.gz",), 1725),
    ("rte", ("RTE/dev.tsv.gz",), 277),
    ("stsb", ("STS-B/sts-dev.csv.gz",), 1500),
    ("cola", ("CoLA/raw/in_domain_dev.tsv", "CoLA/raw/out_of_domain_dev.tsv"), 1043),
]


@pytest.mark.skipif(not DATA.is_dir(), reason="KD_SENTENCE_DATA names no folder with GLUE's files")
@pytest.mark.parametrize(("task", "names", "rows"), REAL)
def test_real_files(bert, tmp_path, task, names, rows):
    assert prepare(bert, tmp_path / "data", "--task", task, "--train", *(DATA / name for name in names)) == 0
    assert len(np.load(hashes_path(tmp_path / "data", "train"))) == rows


def test_a_first_line_that_is_left_out_is_no_header(bert, tmp_path):
    (tmp_path / "in.tsv").write_text("\tgood\nmen eat\tgood\nthe man\tbad\n")
    columns = ("--columns", 1, "--label-column", 2, "--drop-faulty")
    assert prepare(bert, tmp_path / "data", *columns, "--train", tmp_path / "in.tsv") == 0
