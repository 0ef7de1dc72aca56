import json

import pytest

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import signatures, table_metrics
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.report.compare_positions import gain_by_position
from tests.cli.test_score_translations import write_output

REFERENCES = [f"one two three four w{i}" for i in range(20)] + [
    f"one two three four w{i} six seven eight" for i in range(20)
]
BASE = ["one two x y z" for _ in REFERENCES]  # has the first halves
BETTER = [text.replace("one two", "one q") for text in REFERENCES]  # has the rest


def outputs(*systems):
    metrics = table_metrics("bleu", MetricSettings())
    return [SystemOutput(metrics, texts, REFERENCES) for texts in systems]


def test_gain_by_position_by_hand():
    [first, second] = gain_by_position([tuple(outputs(BASE, BETTER))], bins=2, order=1)
    # of 5 words three have their middle in the first half: one two | (three at 1/2 is in the second); of 8 words four
    assert (first.ngrams, second.ngrams) == (20 * 2 + 20 * 4, 20 * 3 + 20 * 4)
    assert first.baseline == pytest.approx(100 * 80 / 120)
    assert first.gain == pytest.approx(100 * (20 * 1 + 20 * 3) / 120 - 100 * 80 / 120)
    assert second.baseline == 0
    assert second.gain == 100
    assert first.low <= first.gain <= first.high
    assert (second.low, second.high) == (100, 100)  # every sentence alike: no resample differs


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ref").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "src").write_text("\n".join(" ".join("x" * (1 + i % 4)) for i in range(40)) + "\n")
    for name, texts in (("base", BASE), ("better", BETTER)):
        write_output(tmp_path / name, dict(enumerate(texts)))
    return tmp_path


def gains(folder, *arguments):
    return cli_main(["gains", "--reference", str(folder / "ref"), *map(str, arguments)])


def test_command_prints_and_writes_the_same(folder, capsys):
    systems = (f"a={folder / 'base'},{folder / 'base'}", f"b={folder / 'better'},{folder / 'base'}")
    words = (*systems, "--source", folder / "src", "--bins", 2, "--order", 1, "--json", folder / "json")
    assert gains(folder, *words) == 0
    out = capsys.readouterr().out
    record = json.loads((folder / "json").read_text())
    pairs = list(zip(outputs(BASE, BASE), outputs(BETTER, BASE), strict=True))
    assert record["position"] == [item._asdict() for item in gain_by_position(pairs, 2, 1)]
    assert record["position"][1]["gain"] == pytest.approx(50)  # one of two seeds
    assert [(item["shortest"], item["longest"]) for item in record["reference_length"]] == [(5, 5), (8, 8)]
    assert [(item["shortest"], item["longest"]) for item in record["source_length"]] == [(1, 2), (3, 4)]
    assert "b against a, mean over 2 seeds" in out
    assert "words of the source" in out
    assert record["signatures"] == signatures({"bleu": table_metrics("bleu", MetricSettings())["bleu"]})
    assert f"BLEU: {record['signatures']['BLEU']}" in out.splitlines()
    assert "50 to 100 %" in out
    assert "+50.00" in out
    assert gains(folder, *words) == 2
    assert "pass --overwrite" in capsys.readouterr().err


def test_another_tokenizer_splits_lengths_and_positions(tmp_path, capsys):
    references = ["\u732b\u5728\u8fd9\u91cc"] * 10 + ["\u732b\u5728\u8fd9\u91cc\u7761\u89c9"] * 10
    (tmp_path / "ref").write_text("".join(f"{text}\n" for text in references), encoding="utf-8")
    for name, texts in (("base", ["\u72d7"] * 20), ("better", references)):
        write_output(tmp_path / name, dict(enumerate(texts)))
    systems = (f"a={tmp_path / 'base'}", f"b={tmp_path / 'better'}")
    words = (*systems, "--tokenize", "zh", "--bins", 2, "--order", 1, "--json", tmp_path / "json")
    assert gains(tmp_path, *words) == 0
    record = json.loads((tmp_path / "json").read_text())
    assert [(item["shortest"], item["longest"]) for item in record["reference_length"]] == [(4, 4), (6, 6)]
    assert [item["ngrams"] for item in record["position"]] == [20 + 30, 20 + 30]


def test_wrong_input(folder, capsys):
    base, better = f"a={folder / 'base'}", f"b={folder / 'better'}"
    for words, why in (
        ((base, f"{better},{folder / 'base'}"), "give one of each for every seed"),
        ((base, better, "--bins", 0), "--bins and --order must be at least 1"),
        ((base, better, "--source", folder / "base"), "give the same sentences"),
    ):
        assert gains(folder, *words) == 2
        assert why in capsys.readouterr().err
    assert gains(folder, base, better, "--json", folder / "none" / "json") == 2
    assert "the folder of --json" in capsys.readouterr().err
    (folder / "ref").write_text("")
    assert gains(folder, base, better) == 2
    assert "ref` is empty" in capsys.readouterr().err


def test_texts_can_go_through_a_tokenizer_s_rules_first(folder, chain, capsys):
    systems = (f"a={folder / 'base'}", f"b={folder / 'better'}")
    assert gains(folder, *systems, "--normalise-like", chain.bert) == 0
    expected = capsys.readouterr().out
    accents = [
        text.replace("four", "FÓUR") for text in REFERENCES
    ]  # the tokenizer takes case and accents away
    (folder / "ref").write_text("\n".join(accents) + "\n", encoding="utf-8")
    assert gains(folder, *systems, "--normalise-like", chain.bert) == 0
    assert capsys.readouterr().out == expected
    assert gains(folder, *systems) == 0
    assert capsys.readouterr().out != expected


def test_what_was_not_prepared_alike_is_said(folder, caplog):
    write_output(folder / "pieces", dict(enumerate(text.replace(" ", " ##") for text in BASE)))
    assert gains(folder, f"a={folder / 'pieces'}", f"b={folder / 'better'}") == 0
    assert "a: the output has words like a tokenizer's pieces (160)" in caplog.text
    assert "b: " not in caplog.text
