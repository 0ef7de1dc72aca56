"""``rerank``: the best of an n-best list by agreement or by a reward."""

import numpy as np
import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses, read_nbest
from tests.rewards.case_readers import evaluator_reading
from tests.tiny_chain import logged

NBEST = [["a b", "a man sits", "a man sat"], ["he"], ["x y", "x y z", "z"]]
SOURCES = ["a man sat", "he", "z"]


@pytest.fixture
def nbest(tmp_path):
    lines = [f"D-{i}\t{-j}\t{text}\n" for i, texts in enumerate(NBEST) for j, text in enumerate(texts)]
    (tmp_path / "nbest.out").write_text("noise\n" + "".join(lines), encoding="utf-8")
    (tmp_path / "sources").write_text("".join(f"{text}\n" for text in SOURCES), encoding="utf-8")
    return tmp_path


def rerank(folder, *arguments):
    return cli_main(
        ["rerank", str(folder / "nbest.out"), "--output", str(folder / "out"), *map(str, arguments)]
    )


def test_agreement(nbest, capsys):
    """`a man sits` has 2/3 with `a man sat` and 2/5 with `a b`; `x y z` shares most with the two others."""
    assert read_nbest(nbest / "nbest.out") == NBEST
    assert rerank(nbest) == 0
    assert read_hypotheses(nbest / "out", 3) == ["a man sits", "he", "x y z"]
    assert "3 sentences, 2 with another output than the first" in capsys.readouterr().out


def test_no_agreement_in_a_script_that_rouge_does_not_read(tmp_path, capsys):
    texts = ["Он стоит .", "Она сидит на стуле .", "Она сидит на стуле"]
    lines = [f"D-0\t-0.5\t{text}\n" for text in texts]
    (tmp_path / "nbest.out").write_text("".join(lines), encoding="utf-8")
    assert rerank(tmp_path) == 2
    assert "reads ASCII letters and digits only: 100% of their letters" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cosine_takes_the_copy_unless_it_pays_for_it(chain, nbest):
    options = ("--by", "cosine", "--sentence-encoder", chain.bert, "--sources", nbest / "sources")
    assert rerank(nbest, *options) == 0
    assert read_hypotheses(nbest / "out", 3) == SOURCES
    assert rerank(nbest, *options, "--copy-penalty", 2, "--overwrite") == 0
    assert read_hypotheses(nbest / "out", 3)[0] != SOURCES[0]


def test_the_penalty_of_text_without_spaces_between_words(chain, nbest):
    """By letters the second text repeats most of its source, and by words none of it; both have cosines of unknown letters."""
    (nbest / "nbest.out").write_text("D-0\t-1\t们我们欢喜。\nD-0\t-2\t我们喜欢译。\n", encoding="utf-8")
    (nbest / "sources").write_text("我们喜欢翻译。\n", encoding="utf-8")
    options = ("--by", "cosine", "--sentence-encoder", chain.bert, "--sources", nbest / "sources")
    scores = []
    for penalty in (0, 1):
        assert rerank(nbest, *options, "--copy-penalty", penalty, "--tokenize", "zh", "--overwrite") == 0
        scores.append(float((nbest / "out").read_text(encoding="utf-8").split("\t")[1]))
    assert scores[0] - scores[1] > 0.1
    with logged("fairseq_bert_kd.rewards.overlap") as messages:
        assert rerank(nbest, *options, "--copy-penalty", 1, "--overwrite") == 0
    assert float((nbest / "out").read_text(encoding="utf-8").split("\t")[1]) == pytest.approx(scores[0])
    assert "give --tokenize zh" in messages[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--by", "evaluator"), "compares outputs with their sources: give --sources"),
        (("--by", "evaluator", "--sources", "sources"), "reward `evaluator` needs --evaluator, a ch"),
        (("--by", "rouge-1", "--sources", "sources"), "which are not at hand when one translates; take ev"),
        (("--by", "cosine", "--sources", "short"), "has 1 lines, "),
        (("--copy-penalty", 0.1), "--copy-penalty 0.1 compares outputs with their sources"),
        (
            ("--by", "cosine", "--sources", "sources", "--copy-penalty", -1),
            "at least 0, got -1; the default is 0",
        ),
    ],
)
def test_refused(nbest, capsys, monkeypatch, options, message):
    monkeypatch.chdir(nbest)
    (nbest / "short").write_text("a\n", encoding="utf-8")
    assert rerank(nbest, *options) == 2
    assert message in capsys.readouterr().err
    assert not (nbest / "out").exists()


def test_the_folder_is_looked_for_first(nbest, capsys, monkeypatch):
    monkeypatch.setattr("fairseq_bert_kd.cli.rerank.read_nbest", None)  # not reached
    words = ["rerank", str(nbest / "nbest.out"), "--output", str(nbest / "no" / "out"), "--by", "mbr"]
    assert cli_main(words) == 2
    assert "does not exist. Create it first" in capsys.readouterr().err


def test_lower_case_is_not_for_an_evaluator_that_reads_case(nbest, capsys, monkeypatch):
    evaluator = evaluator_reading(lower_case=False, name="evaluator")
    monkeypatch.setattr("fairseq_bert_kd.rewards.registry.load_evaluator", lambda *_, **__: evaluator)
    (nbest / "cased").write_text("A man sat\nHe\nz\n", encoding="utf-8")
    assert rerank(nbest, "--by", "evaluator", "--evaluator", "x.pt", "--sources", nbest / "cased") == 2
    assert "no output has: source 'A man sat', output 'a b'" in capsys.readouterr().err
    assert not (nbest / "out").exists()


def test_an_evaluator_reads_the_source_first(nbest, monkeypatch):
    """It knows the longest text of each source as its paraphrase."""
    best = {"a man sat": "a man sits", "he": "he", "z": "x y z"}
    evaluator = evaluator_reading(lower_case=True, name="evaluator")
    monkeypatch.setattr(
        evaluator,
        "score_pairs",
        lambda *sides: np.array([float(best[s] == t) for s, t in zip(*sides, strict=True)]),
    )
    monkeypatch.setattr("fairseq_bert_kd.rewards.registry.load_evaluator", lambda *_, **__: evaluator)
    assert rerank(nbest, "--by", "evaluator", "--evaluator", "x.pt", "--sources", nbest / "sources") == 0
    assert read_hypotheses(nbest / "out", 3) == list(best.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("H-0\t0\ta\n", "has no `D-` lines"),
        ("D-0\t0\ta\nD-2\t0\tb\n", "no output for sentence 1"),
        ("D-0\t0\n", "has a broken line"),
        ("D-0\t0\ta", "has a broken line"),
        ("D-0\t0\ta\nD-1\t0\tb\nD-0\t0\ta\n", "sentence 0 in two places"),
    ],
)
def test_broken_lists_are_refused(tmp_path, text, message):
    (tmp_path / "nbest.out").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_nbest(tmp_path / "nbest.out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--evaluator", "e.pt", "--sources", "sources"), "--evaluator is not used by --by mbr"),
        (("--sources", "sources"), "--sources is not used by --by mbr"),
        (("--positive", "good"), "--positive is not used by --by mbr"),
        (
            ("--by", "evaluator", "--evaluator", "e.pt", "--sentence-encoder", "x", "--sources", "sources"),
            "--sentence-encoder is not used by --by evaluator; leave it out",
        ),
        (("--by", "cosine", "--positive", "good"), "--positive is not used by --by cosine"),
    ],
)
def test_options_without_effect_are_refused(nbest, capsys, options, message):
    assert rerank(nbest, *options) == 2
    assert message in capsys.readouterr().err
    assert not (nbest / "out").exists()


def test_sources_of_another_text_are_warned_of(chain, nbest):
    """The sources that were decoded stand in the output, beside their targets."""
    texts = ["a man sits there", "he is near it", "people eat apples", "the dog is in", "two men eat there"]
    others = [f"{text} today" for text in texts]
    lines = [f"S-{i}\t{text}\nT-{i}\t{others[i]}\nD-{i}\t-1\t{text}\n" for i, text in enumerate(texts)]
    (nbest / "nbest.out").write_text("".join(lines), encoding="utf-8")
    for name, sides in (("right", texts), ("wrong", others)):
        (nbest / name).write_text("".join(f"{text}\n" for text in sides), encoding="utf-8")
    options = ("--by", "cosine", "--sentence-encoder", chain.bert, "--overwrite", "--sources")
    with logged("fairseq_bert_kd.cli.rerank") as messages:
        assert rerank(nbest, *options, nbest / "right") == 0
        assert not messages
        assert rerank(nbest, *options, nbest / "wrong") == 0
    assert "--sources are not the text of the test set that was decoded" in messages[0]
