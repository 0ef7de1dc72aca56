"""The command on small files: what it writes, that it can be repeated, refusals, and nothing left after a refusal."""

import csv
import gzip
import shutil

import pytest
import torch

from fairseq_bert_kd.cli import augment
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.sentence_data import read_spec
from tests.tiny_chain import build_teacher_folder

ROWS = [
    ("1", "the man sit near people"),
    ("0", "men eat at the table, standing"),
    ("1", "is the in"),
    ("0", '"people" und der mann'),
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return build_teacher_folder("bert", tmp_path_factory.mktemp("bert"), max_positions=40)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.tsv"
    path.write_text(
        "label\tsentence\n" + "".join(f"{label}\t{text}\n" for label, text in ROWS), encoding="utf-8"
    )
    return path


@pytest.fixture
def run(bert, table, tmp_path):
    """Run the command; its output file."""

    def call(*arguments, source=table, output="out.tsv", task="sst2", status=0, model=bert):
        words = ["augment", source, "--masked-lm", model, "--cpu", "--output", tmp_path / output]
        words += ["--task", task] if task else []
        assert cli_main([str(word) for word in (*words, *arguments)]) == status
        return tmp_path / output

    return call


def read(path):
    header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    return header, rows


def test_originals_come_first_with_their_labels_and_copies_after_them(run, capsys):
    path = run("--seed", 3)
    header, rows = read(path)
    assert header == ["row", "sentence", "label"]
    by_row = {}
    for number, text, label in rows:
        by_row.setdefault(int(number), []).append(text)
        assert label == ROWS[int(number)][0]
    assert list(by_row) == [0, 1, 2, 3]
    for number, (_, original) in enumerate(ROWS):
        texts = by_row[number]
        assert texts[0] == original
        assert len(set(texts)) == len(texts) <= 21
        for text in texts:
            assert len(text.split(" ")) == len(original.split(" "))
    assert by_row[2] == ["is the in"]  # stop words alone
    assert len(by_row[0]) > 5
    assert all(text.split(" ")[0] == "the" for text in by_row[0])
    assert all(text.split(" ")[4].endswith(",") for text in by_row[1])
    said = capsys.readouterr().out
    assert f"{path}: {len(rows)} rows from 4 ({len(rows) / 4:.1f} each); candidates for " in said
    assert "sentences per second" in said


def test_same_seed_gives_the_same_bytes_whatever_goes_through_together(run, monkeypatch):
    first = run("--seed", 3).read_bytes()
    assert run("--seed", 3, "--batch-size", 1, output="again.tsv").read_bytes() == first
    monkeypatch.setattr(augment, "CHUNK_ROWS", 1)
    assert run("--seed", 3, output="chunks.tsv").read_bytes() == first
    assert run("--seed", 4, output="other.tsv").read_bytes() != first


def test_a_row_has_its_own_draws(run, table, tmp_path):
    """Other rows can change; what is drawn for row 1 stays."""
    _, rows = read(run())
    other = tmp_path / "other.tsv"
    lines = table.read_text(encoding="utf-8").splitlines()
    other.write_text("\n".join([lines[0], "0\tpeople eat", *lines[2:3]]) + "\n", encoding="utf-8")
    _, fewer = read(run(source=other, output="fewer.tsv"))
    assert [row for row in fewer if row[0] == "1"] == [row for row in rows if row[0] == "1"]


def test_probability_0_gives_the_originals_alone(run):
    _, rows = read(run("--probability", 0))
    assert [(label, text) for _, text, label in rows] == ROWS


def test_options_of_the_candidates_reach_them(run, tmp_path):
    (tmp_path / "stop").write_text("man sit near people men eat table standing mann und der at the is in\n")
    _, rows = read(run("--stop-words", tmp_path / "stop", output="stop.tsv"))
    assert len(rows) == 4
    (tmp_path / "vectors").write_text("table 1 0\nchair 1 0.1\n")
    _, rows = read(run("--word-vectors", tmp_path / "vectors", "--probability", 1, output="vectors.tsv"))
    copies = [text.split(" ") for number, text, _ in rows if number == "1"]
    assert copies[0][4] == "table,"
    assert {copy[4] for copy in copies[1:]} == {"chair,"}  # a word of several pieces
    one, other = (run("--context", name, output=name).read_bytes() for name in ("original", "masked-only"))
    assert one != other
    _, rows = read(run("--candidates", 1, "--copies", 1, "--probability", 1, output="one.tsv"))
    assert len(rows) <= 8


def test_pairs_and_compressed_data_of_ones_own(run, tmp_path):
    path = tmp_path / "pairs.tsv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("7\tmen eat\tx\tpeople sit near\n")
    out = run("--columns", "2,4", "--label-column", 1, source=path, task=None)
    first_row, rows = read(out)
    rows = [first_row, *rows]  # columns by number: no header, and the places are those of the data
    assert {(len(row), row[2], row[4]) for row in rows} == {(5, "", "0")}
    pairs = [(row[1], row[3]) for row in rows]
    assert pairs[0] == ("men eat", "people sit near")
    assert len(set(pairs)) == len(pairs) > 5
    assert all(first == "men eat" or second == "people sit near" for first, second in pairs)
    assert {row[0] for row in rows} == {"7"}


def test_pairs_stay_together(run, tmp_path):
    """Probability 0 leaves the originals: of three rows both texts, with their own label."""
    rows = [("1", "men eat", "a man"), ("0", "people sit", "the table"), ("1", "der mann", "near")]
    path = tmp_path / "pairs.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    out = run("--columns", "2,3", "--label-column", 1, "--probability", 0, source=path, task=None)
    first_row, others = read(out)
    assert [first_row, *others] == [[*row, str(number)] for number, row in enumerate(rows)]


def test_unlabelled_text_and_default_name(bert, tmp_path):
    (tmp_path / "corpus.txt").write_text("men eat\n")
    words = [
        "augment",
        tmp_path / "corpus.txt",
        "--task",
        "plain",
        "--masked-lm",
        bert,
        "--cpu",
        "--copies",
        3,
    ]
    assert cli_main(list(map(str, words))) == 0
    header, rows = read(tmp_path / "corpus.augmented.txt")
    assert header == ["row", "text"]
    assert rows[0] == ["0", "men eat"]


def test_quoted_fields(run, tmp_path):
    source = tmp_path / "quoted.tsv"
    source.write_text('label\tsentence\n1\t"a ""man""\tsit"\n')
    path = run("--quoting", "double", source=source)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[1] == ["0", 'a "man" sit', "1"]


def test_prepare_sentences_reads_the_output(run, bert, tmp_path):
    path = run()
    words = [
        "prepare-sentences",
        "--task",
        "sst2",
        "--tokenizer",
        bert,
        "--train",
        path,
        "--destdir",
        tmp_path / "data",
    ]
    assert cli_main(list(map(str, words))) == 0
    assert (tmp_path / "data" / "input0" / "train.idx").exists()


@pytest.mark.parametrize("header", [False, True])
def test_columns_by_number_stay_where_they_are(run, bert, tmp_path, header):
    """So one set of options reads the copies for training and the untouched file for validation."""
    source = tmp_path / "own.tsv"
    names = "id\tstars\treview\n" if header else ""
    lines = [f"{i}\t{label}\t{text}\n" for i, (label, text) in enumerate(ROWS)]
    source.write_text(names + "".join(lines), encoding="utf-8")
    format_of_both = ("--columns", 3, "--label-column", 2, *(("--header",) if header else ()))
    out = run(*format_of_both, source=source, task=None)
    words = ["prepare-sentences", "--tokenizer", bert, *format_of_both, "--train", out, "--valid", source]
    assert cli_main([str(word) for word in (*words, "--destdir", tmp_path / "data")]) == 0
    assert read_spec(tmp_path / "data").names == ("0", "1")


def test_a_checkpoint_of_sentences(run, one_sided, tmp_path):
    """It needs no data folder, and its tokenizer can be named when the one that it was trained with is gone."""
    moved = shutil.copy(one_sided.checkpoint, tmp_path / "mlm.pt")
    first = run(model=moved).read_bytes()
    gone = torch.load(moved, weights_only=False)
    gone["cfg"]["model"]["teacher_model"] = "nowhere"
    torch.save(gone, moved)
    run(model=moved, output="gone.tsv", status=2)
    assert run("--tokenizer", one_sided.encoder, model=moved, output="named.tsv").read_bytes() == first


def test_a_checkpoint_that_never_saw_two_texts_is_warned_of(run, one_sided, capsys):
    run(model=one_sided.checkpoint)
    assert "--context original shows it two; --context masked-only is right for it" in capsys.readouterr().err
    run("--context", "masked-only", model=one_sided.checkpoint, output="alone.tsv")
    run(output="folder.tsv")
    assert "--context" not in capsys.readouterr().err


def test_long_sentences_stay_alone_and_are_counted(run, tmp_path, capsys):
    source = tmp_path / "long.tsv"
    source.write_text("label\tsentence\n1\t" + "man " * 20 + "\n0\tmen eat\n")
    _, rows = read(run(source=source))
    assert [number for number, *_ in rows].count("0") == 1
    assert len(rows) > 3
    assert "warning: 1 of 2 texts are too long for the model's positions" in capsys.readouterr().err
    _, rows = read(run("--context", "masked-only", source=source, output="alone.tsv"))
    assert [number for number, *_ in rows].count("0") > 1
    source.write_text("label\tsentence\n1\t" + "man " * 50 + "\n0\tmen eat\n")
    capsys.readouterr()
    run("--context", "masked-only", source=source, output="longer.tsv")
    said = capsys.readouterr().err
    assert "1 of 2 texts are too long for the model's positions and have no copies\n" in said


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--probability", 1.5), "--probability must be from 0 to 1, got 1.5"),
        (("--probability", "nan"), "--probability must be from 0 to 1, got nan"),
        (("--candidates", 0), "--candidates must be at least 1, got 0"),
        (("--copies", 0), "--copies must be at least 1, got 0"),
        (("--seed", -1), "--seed must be at least 0, got -1"),
        (("--batch-size", 0), "--batch-size must be at least 1, got 0"),
        (("--stop-words", "nowhere"), "--stop-words `nowhere` does not exist"),
        (("--word-vectors", "nowhere"), "--word-vectors `nowhere` does not exist"),
        (("--masked-lm", "nowhere.pt"), "checkpoint `nowhere.pt` does not exist"),
        (("--masked-lm", "nowhere"), "cannot load a tokenizer from `nowhere`"),
        (("--columns", "1"), "give either --task"),
    ],
)
def test_bad_options(run, tmp_path, capsys, arguments, message):
    run(*arguments, status=2)
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.tsv"]


def test_bad_data(run, table, tmp_path, capsys):
    with table.open("a", encoding="utf-8") as file:
        file.write("1\tmen\teat\n")
    run(status=2)
    assert "line 6" in capsys.readouterr().err
    run(source=tmp_path / "nothing.tsv", status=2)
    assert "nothing.tsv` does not exist" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.tsv"]


def test_a_table_without_rows(run, tmp_path, capsys):
    source = tmp_path / "in.tsv"
    source.write_text("label\tsentence\n")
    run(source=source, status=2)
    assert "in.tsv` has a header and no row below it" in capsys.readouterr().err
    source.write_text("label\tsentence\n1\t\n")
    run("--drop-faulty", source=source, status=2)
    assert "has no row that is not faulty; the first: `" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.tsv"]


def test_a_header_is_not_copied_as_a_row(run, tmp_path, capsys):
    """Copies of it would hide from prepare-sentences that it is one."""
    source = tmp_path / "in.tsv"
    source.write_text("review\topinion\nmen eat\t1\nthe man\t0\npeople\t1\nmen sit\t0\n")
    run("--columns", 1, "--label-column", 2, source=source, task=None, status=2)
    assert "no other row has the label `opinion`, so the line is probably a header" in capsys.readouterr().err
    run("--columns", 1, "--label-column", 2, "--header", source=source, task=None)


def test_faulty_rows_are_left_out_on_request(run, tmp_path, capsys):
    """GLUE's QQP has rows without a question; the others have the copies that they have without these."""
    names = "question1\tquestion2\tis_duplicate\n"
    rows = ["a man\tthe man\t1\n", "people eat\tthey eat\t0\n"]
    (tmp_path / "qqp.tsv").write_text("".join([names, rows[0], "a man\t\t0\n", "x\n", rows[1]]))
    (tmp_path / "clean.tsv").write_text("".join([names, *rows]))
    run(source=tmp_path / "qqp.tsv", task="qqp", status=2)
    assert "line 3: column 2 must hold a text" in capsys.readouterr().err
    dropped = run("--drop-faulty", source=tmp_path / "qqp.tsv", task="qqp", output="dropped.tsv")
    assert "warning: 2 faulty rows are left out (--drop-faulty); the first: `" in capsys.readouterr().out
    clean = run(source=tmp_path / "clean.tsv", task="qqp", output="clean.out.tsv")
    assert dropped.read_bytes() == clean.read_bytes()


def test_a_column_that_would_stand_for_the_row_s_number(run, tmp_path, capsys):
    (tmp_path / "in.tsv").write_text("row\tlabel\nthe man\tgood\n")
    run("--columns", "row", "--label-column", "label", source=tmp_path / "in.tsv", task=None, status=2)
    assert "a column is called `row`" in capsys.readouterr().err


def test_existing_output(run, table, tmp_path, capsys):
    (tmp_path / "out.tsv").write_text("old")
    run(status=2)
    assert "exists; pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out.tsv").read_text() == "old"
    run("--overwrite")
    assert (tmp_path / "out.tsv").read_text() != "old"
    run("--overwrite", output=table.name, status=2)
    assert "must not be the data" in capsys.readouterr().err
    run(output="folder/out.tsv", status=2)
    assert "the folder of --output" in capsys.readouterr().err


def test_nothing_is_left_of_work_that_failed(run, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr(augment, "draw_rows", fail)
    run(status=2)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tsv"]


def test_tokenizer_of_another_model(run, one_sided, tmp_path_factory, capsys):
    other = build_teacher_folder("roberta", tmp_path_factory.mktemp("roberta"))
    run("--tokenizer", other, model=one_sided.checkpoint, status=2)
    assert "is not the one with which checkpoint" in capsys.readouterr().err
