"""Mined negatives: of another cluster, always; near ones by an encoder."""

import gzip

import numpy as np
import pytest
import torch

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.cli.mine_negatives import read_pairs, shared_out
from fairseq_bert_kd.data.negatives import (
    check_negatives,
    nearest_negatives,
    occurrences,
    random_negatives,
    shared_sentences,
)

CLUSTERS = {
    "c1": ["a man", "the man", "he is a man"],
    "c2": ["two men eat", "men eat", "people eat"],
    "c3": ["sit in the near", "sit near"],
}


def write_table(path, clusters=CLUSTERS):
    """Each sentence with the next one of its cluster; half of the rows are of split `test`."""
    rows = [
        (name, ("train", "test")[i % 2], one, other)
        for name, texts in clusters.items()
        for i, (one, other) in enumerate(zip(texts, texts[1:] + texts[:1], strict=True))
    ]
    text = "".join("\t".join(row) + "\n" for row in [("cluster", "split", "source", "target"), *rows])
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def mined(tmp_path, *arguments, name="pairs.tsv"):
    table, out = write_table(tmp_path / name), tmp_path / "out.tsv"
    assert (
        cli_main(["mine-negatives", "--input", str(table), "--output", str(out), *map(str, arguments)]) == 0
    )
    header, *rows = (line.split("\t") for line in out.read_text(encoding="utf-8").splitlines())
    assert header == ["question1", "question2", "is_duplicate"]
    return rows


def cluster_of(text):
    return next(name for name, texts in CLUSTERS.items() if text in texts)


@pytest.mark.parametrize(("ratio", "count"), [(1, 8), (2.5, 20), (0.5, 4)])
def test_random_negatives(tmp_path, ratio, count):
    rows = mined(tmp_path, "--kinds", "random", "--ratio", ratio)
    for first, second, label in rows:
        assert (cluster_of(first) == cluster_of(second)) == (label == "duplicate")
    assert sorted(label for *_, label in rows) == ["duplicate"] * 8 + ["not_duplicate"] * count


def test_the_same_seed_mines_the_same(tmp_path):
    one = mined(tmp_path, "--kinds", "random", "--seed", 3)
    assert mined(tmp_path, "--kinds", "random", "--seed", 3, "--overwrite") == one
    assert mined(tmp_path, "--kinds", "random", "--seed", 4, "--overwrite") != one


def test_hard_negatives_with_an_encoder(chain, tmp_path):
    """Half of each kind; a packed table."""
    rows = mined(tmp_path, "--encoder", chain.bert, name="pairs.tsv.gz")  # the older name
    assert sum(label == "not_duplicate" for *_, label in rows) == 8


@pytest.mark.parametrize("kinds", ["hard", "hard,random"])
def test_twice_as_many_negatives_are_different_ones(chain, tmp_path, kinds):
    """Every pair gets two hard ones, or one of each kind."""
    rows = mined(tmp_path, "--sentence-encoder", chain.bert, "--ratio", 2, "--kinds", kinds)
    negatives = [(first, second) for first, second, label in rows if label == "not_duplicate"]
    assert len(negatives) == 16
    assert sorted(first for first, _ in negatives) == sorted(
        2 * [text for texts in CLUSTERS.values() for text in texts]
    )
    if kinds == "hard":
        assert len(set(negatives)) == 16


def test_kinds_change_from_round_to_round():
    assert shared_out(pairs=3, count=8, kinds=2).tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert shared_out(pairs=4, count=8, kinds=2).tolist() == [0, 1, 0, 1, 1, 0, 1, 0]


def test_repeated_pairs_and_equal_sides_are_left_out(tmp_path):
    table = tmp_path / "pairs.tsv"
    pairs = [
        ("1", "a", "b"),
        ("1", "a", "b"),
        ("1", "b", "a"),
        ("1", "a", "a"),
        ("2", "c", "d"),
        ("3", "e", "e"),
    ]
    table.write_text(
        "".join("\t".join(row) + "\n" for row in [("cluster", "source", "target"), *pairs]), encoding="utf-8"
    )
    found = read_pairs(str(table), "cluster,source,target", None, None)
    assert (found.texts, found.clusters.tolist()) == (["a", "b", "c", "d"], [0, 0, 1, 1])
    assert found.pairs.tolist() == [[0, 1], [1, 0], [2, 3]]
    assert read_pairs(str(table), "cluster,source,target", None, 3).pairs.tolist() == [[0, 1], [1, 0], [2, 3]]


def test_case_and_white_space_make_no_other_sentence(tmp_path, capsys):
    """The nearest sentence of another cluster would be the same one, labelled as no paraphrase."""
    table = tmp_path / "pairs.tsv"
    rows = ["cluster\tsource\ttarget", "1\tWhat is C?\tDefine C.", "1\tdefine c.\twhat  is C?", "2\tx\ty"]
    table.write_text("\n".join([*rows, "1\tWHAT IS C?\tDefine C."]) + "\n", encoding="utf-8")
    found = read_pairs(str(table), "cluster,source,target", None, None)
    assert (found.texts, found.clusters.tolist()) == (["What is C?", "Define C.", "x", "y"], [0, 0, 1, 1])
    assert found.pairs.tolist() == [[0, 1], [1, 0], [2, 3]]
    table.write_text("\n".join([*rows, "3\twhat is c?\tTell me of C"]) + "\n", encoding="utf-8")
    arguments = ("--input", str(table), "--output", str(tmp_path / "out.tsv"), "--kinds", "random")
    assert cli_main(["mine-negatives", *arguments]) == 2
    assert "line 5: 'what is c?' is in clusters 1 and 3; join them" in capsys.readouterr().err


def test_split_and_first_pairs(tmp_path):
    rows = mined(tmp_path, "--kinds", "random", "--split", "train", "--pairs", 3)
    assert sum(label == "duplicate" for *_, label in rows) == 3
    assert {first for first, _, label in rows if label == "duplicate"} <= {
        texts[i] for texts in CLUSTERS.values() for i in range(0, len(texts), 2)
    }


def test_nearest_by_hand():
    """The nearest of all lies in the own cluster, the next in another."""
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 0.3], [0.0, 1.0]])
    clusters = np.array([0, 0, 1, 2])
    assert nearest_negatives(vectors, clusters, np.arange(4)).tolist() == [2, 2, 1, 2]


def test_nearest_where_the_own_cluster_fills_the_neighbourhood():
    vectors = torch.cat(
        [torch.tensor([[1.0, 0.001 * i] for i in range(100)]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])]
    )
    clusters = np.array([0] * 100 + [1, 2])
    assert nearest_negatives(vectors, clusters, np.array([0])).tolist() == [100]


def test_a_sentence_that_comes_again_gets_the_next_nearest():
    """Around sentence 0 lie its own cluster, then 2 and 3; after the last of other clusters the first again."""
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 0.3], [0.0, 1.0]])
    clusters = np.array([0, 0, 1, 2])
    assert nearest_negatives(vectors, clusters, np.array([0, 1, 0, 0, 2])).tolist() == [2, 2, 3, 2, 1]
    assert occurrences(np.array([5, 7, 5, 5, 7])).tolist() == [0, 0, 1, 2, 1]


def test_random_negatives_reach_every_other_sentence():
    clusters = np.array([0, 0, 1, 2])
    found = random_negatives(clusters, np.zeros(200, dtype=np.int64), seed=1)
    assert set(found.tolist()) == {2, 3}


def test_a_negative_of_the_own_cluster_is_refused():
    with pytest.raises(
        ValueError, match=r"1 negatives lie in the cluster of their sentence, the first is sentence 1 for 0"
    ):
        check_negatives(np.array([7, 7, 8]), np.array([0, 0]), np.array([2, 1]))


def test_shared_sentences_aside_from_case():
    assert shared_sentences(["A  man", "x"], ["a man", "y"]) == ["a man"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kinds", "near"), "--kinds must be of hard, random, got `near`"),
        ((), "hard negatives: --kinds hard,random needs --sentence-encoder"),
        (("--kinds", "random", "--sentence-encoder", "x"), "leave --sentence-encoder out"),
        (("--kinds", "random", "--ratio", 0), "--ratio must be above 0, got 0"),
        (("--kinds", "random", "--pairs", 1), "--pairs must be at least 2, got 1"),
        (("--kinds", "random", "--columns", "a,b"), "--columns names three columns"),
        (
            ("--kinds", "random", "--columns", "id,source,target"),
            "has no column `id`; its header is cluster, split",
        ),
        (
            ("--kinds", "random", "--split", "dev"),
            "has no row whose column `split` is `dev`; correct --split",
        ),
        (("--kinds", "random", "--ratio", 0.01), "--ratio 0.01 of 8 pairs is no negative at all"),
    ],
)
def test_refused(tmp_path, capsys, arguments, message):
    table = write_table(tmp_path / "pairs.tsv")
    command = [
        "mine-negatives",
        "--input",
        str(table),
        "--output",
        str(tmp_path / "out.tsv"),
        *map(str, arguments),
    ]
    assert cli_main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.tsv").exists()


def test_a_sentence_of_two_clusters_is_refused(tmp_path, capsys):
    table = write_table(tmp_path / "pairs.tsv", {"c1": ["a", "b"], "c2": ["c", "a"]})
    command = [
        "mine-negatives",
        "--kinds",
        "random",
        "--input",
        str(table),
        "--output",
        str(tmp_path / "out.tsv"),
    ]
    assert cli_main(command) == 2
    assert "'a' is in clusters c1 and c2; join them" in capsys.readouterr().err


def test_a_row_without_a_sentence_is_refused_unless_its_split_is_not_taken(tmp_path):
    """Two clusters with an empty cell share no sentence, and need not be joined."""
    table = tmp_path / "pairs.tsv"
    rows = ["cluster\tsplit\tsource\ttarget", "c1\ttrain\ta\tb", "c2\ttrain\tc\td", "c1\ttest\t \ta"]
    table.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    assert read_pairs(str(table), "cluster,source,target", "train", None).texts == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match=r"line 4: no sentence in column `source`, and a pair has two; take"):
        read_pairs(str(table), "cluster,source,target", None, None)


def test_sentences_of_the_test_set_are_refused_unless_allowed(tmp_path, capsys, caplog):
    table = write_table(tmp_path / "pairs.tsv")
    held_out = tmp_path / "test.tsv"
    held_out.write_text("label\ta\tb\n1\tThe  man\tx\n", encoding="utf-8")
    command = [
        "mine-negatives",
        "--kinds",
        "random",
        "--input",
        str(table),
        "--output",
        str(tmp_path / "out.tsv"),
    ]
    command += ["--held-out", str(held_out)]
    assert cli_main(command) == 2
    assert "1 of 8 sentences are in" in capsys.readouterr().err
    assert cli_main([*command, "--allow-overlap"]) == 0
    assert "the first is 'the man'" in caplog.text


def test_an_existing_output_is_refused(tmp_path, capsys):
    mined(tmp_path, "--kinds", "random")
    command = [
        "mine-negatives",
        "--kinds",
        "random",
        "--input",
        str(tmp_path / "pairs.tsv"),
        "--output",
        str(tmp_path / "out.tsv"),
    ]
    assert cli_main(command) == 2
    assert "exists; pass --overwrite" in capsys.readouterr().err


def test_an_empty_table_is_refused(tmp_path, capsys):
    (tmp_path / "empty.tsv").write_text("", encoding="utf-8")
    words = [
        "mine-negatives",
        "--input",
        tmp_path / "empty.tsv",
        "--output",
        tmp_path / "out",
        "--kinds",
        "random",
    ]
    assert cli_main(list(map(str, words))) == 2
    assert "is empty; give a tab-separated table whose header has the columns" in capsys.readouterr().err
