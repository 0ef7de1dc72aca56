import json
import re

import pytest
from sacrebleu.metrics import BLEU, CHRF

from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.cli.score_translations import format_table, parse_systems
from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.tokenization.tiny_tokenizers import build_tokenizer

REFERENCE = [
    "The man sits on a chair .",
    "Two people eat in a restaurant .",
    "He is standing near the house .",
]
GOOD = ["The man sits on a chair .", "Two people eat in the restaurant .", "He stands near the house ."]
POOR = ["A man .", "Two people in the restaurant .", "He stands ."]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ref").write_text("\n".join(REFERENCE) + "\n", encoding="utf-8")
    for name, texts in (("good", GOOD), ("poor", POOR)):
        write_output(tmp_path / name, dict(enumerate(texts)))
    return tmp_path


def write_output(path, texts):
    """An output like fairseq-generate's, in another order than the corpus."""
    lines = []
    for index, text in sorted(texts.items(), reverse=True):
        lines += [
            f"S-{index}\tsource",
            f"T-{index}\tx",
            f"H-{index}\t-0.5\tpieces {index}",
            f"D-{index}\t-0.5\t{text}",
        ]
    path.write_text("\n".join(lines) + "\nGenerate test with beam=5\n", encoding="utf-8")


def score(folder, *arguments):
    return cli_main(["score", "--reference", str(folder / "ref"), *map(str, arguments)])


def test_table_and_signature_are_sacrebleus(folder, capsys):
    assert score(folder, f"good={folder / 'good'}", "--json", folder / "scores.json") == 0
    bleu, chrf = BLEU(), CHRF()
    expected = bleu.corpus_score(GOOD, [REFERENCE]).score, chrf.corpus_score(GOOD, [REFERENCE]).score
    printed = capsys.readouterr().out
    assert re.search(rf"good +1 +{expected[0]:.2f} +{expected[1]:.2f}", printed)
    assert f"BLEU: {bleu.get_signature()}" in printed
    assert score(folder, f"good={folder / 'good'}", "--json", folder / "scores.json") == 2
    assert "exists; pass --overwrite" in capsys.readouterr().err
    stored = json.loads((folder / "scores.json").read_text())
    assert stored["systems"]["good"][0]["bleu"] == pytest.approx(expected[0])


def write_decoded(path, targets):
    lines = [f"T-{number}\t{text}\nD-{number}\t-0.5\tx\n" for number, text in enumerate(targets)]
    path.write_text("".join(lines), encoding="utf-8")


ENGLISH = ["A café near the house", *(f"The man number {number} sits there" for number in range(9))]


@pytest.mark.parametrize(
    "targets",
    [
        ENGLISH,
        ["a cafe near the house", *ENGLISH[1:]],
        ["a ca ##fe near the house", *(f"the man num ##ber {number} sits there" for number in range(9))],
        ["Ein Haus mit <<unk>>"] * 10,
        ["那个男人坐在一把很大的椅子上面看书"] * 10,
        ["short"] * 10,
    ],
)
def test_references_of_the_same_text_say_nothing(tmp_path, caplog, targets):
    (tmp_path / "ref").write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    write_decoded(tmp_path / "out", targets)
    assert score(tmp_path, tmp_path / "out") == 0
    assert "another set" not in caplog.text


@pytest.mark.parametrize("targets", [[f"Der Mann Nummer {n} sitzt da" for n in range(10)], ENGLISH[::-1]])
def test_references_of_another_text_are_said(tmp_path, caplog, targets):
    (tmp_path / "ref").write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    write_decoded(tmp_path / "out", targets)
    assert score(tmp_path, tmp_path / "out") == 0
    assert "the reference is not the text of the test set that was decoded (0 of 10 sentences" in caplog.text
    assert "another language, another set, or in another order" in caplog.text


def test_several_runs_give_mean_spread_and_gain(folder, capsys):
    assert score(folder, f"a={folder / 'poor'}", f"b={folder / 'good'},{folder / 'poor'}") == 0
    good, poor = (BLEU().corpus_score(texts, [REFERENCE]).score for texts in (GOOD, POOR))
    mean, spread = (good + poor) / 2, abs(good - poor) / 2**0.5
    printed = capsys.readouterr().out
    assert f"{mean:.2f} ± {spread:.2f}" in printed
    assert f"b against a: {mean - poor:+.2f} BLEU" in printed


def test_length_ratio_is_hypothesis_over_reference(folder, capsys):
    assert score(folder, folder / "poor") == 0
    assert capsys.readouterr().out.split("\n")[2].endswith(f"{(3 + 6 + 3) / 21:.3f}")


def test_lowercase_is_in_the_signature(folder, capsys):
    write_output(folder / "upper", dict(enumerate(text.upper() for text in REFERENCE)))
    assert score(folder, folder / "upper", "--lowercase") == 0
    printed = capsys.readouterr().out
    assert "100.00" in printed
    assert "case:lc" in printed


def test_pieces_are_decoded_on_request(folder, capsys):
    build_tokenizer("bert_cased", folder / "bert")
    tokenizer = HfTokenizer(str(folder / "bert"))
    pieces = [" ".join(tokenizer.encode(text)) for text in REFERENCE]
    (folder / "stock").write_text(
        "".join(f"H-{i}\t-0.1\t{text}\n" for i, text in enumerate(pieces)), encoding="utf-8"
    )
    assert score(folder, folder / "stock", "--tokenizer", folder / "bert") == 0
    assert "100.00" in capsys.readouterr().out


def test_best_of_an_n_best_list_counts(folder):
    path = folder / "nbest"
    path.write_text("D-0\t-0.1\tbest\nD-0\t-0.9\tsecond\n", encoding="utf-8")
    assert read_hypotheses(path, expected=1) == ["best"]


def test_a_tab_or_line_separator_in_a_translation_stays(folder):
    path = folder / "odd"
    path.write_text("D-0\t-0.1\ta\tb\u2028c\n", encoding="utf-8")
    assert read_hypotheses(path, expected=1) == ["a\tb\u2028c"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            {0: "a", 1: "b"},
            "translates 2 of 3 sentences, first missing: 2. Likely fairseq drops the last partial batch",
        ),
        ({0: "a", 1: "b", 2: "c", 3: "d"}, "has sentence 3, the reference only 3 lines"),
        ({}, "has no `D-` lines"),
        ({}, "are scored by `sacrebleu REFERENCE -i "),
    ],
)
def test_output_of_other_sentences_is_an_error(folder, capsys, texts, message):
    write_output(folder / "bad", texts)
    assert score(folder, folder / "bad") == 2
    assert message in capsys.readouterr().err


def test_missing_file_and_empty_reference_are_errors(folder, capsys):
    assert score(folder, folder / "nothing") == 2
    assert "nothing" in capsys.readouterr().err
    (folder / "ref").write_text("")
    assert score(folder, folder / "good") == 2
    assert "is empty" in capsys.readouterr().err


def test_labels(tmp_path):
    assert parse_systems(["a=x,y", "z"]) == {"a": ["x", "y"], "z": ["z"]}
    (tmp_path / "x,y=z").write_text("")
    assert parse_systems([str(tmp_path / "x,y=z")]) == {str(tmp_path / "x,y=z"): [str(tmp_path / "x,y=z")]}
    with pytest.raises(ValueError, match="label `a` is given twice"):
        parse_systems(["a=x", "a=y"])
    with pytest.raises(ValueError, match="names no file"):
        parse_systems(["a="])


def test_unequal_numbers_of_runs_are_reported(folder, capsys):
    good, poor = folder / "good", folder / "poor"
    assert score(folder, f"a={poor}", f"b={good},{poor}") == 0
    assert " BLEU (2 runs against 1: not of the same seeds)" in capsys.readouterr().out
    assert score(folder, f"a={poor}", f"b={good}") == 0
    assert "not of the same seeds" not in capsys.readouterr().out
    assert "against" not in format_table({"a": [{"bleu": 1.0, "chrf2": 2.0, "length_ratio": 1.0}]})


def test_tokenised_text_is_scored_unchanged_on_request(folder, capsys):
    texts = [text.replace(" .", ".") for text in GOOD]
    write_output(folder / "joined", dict(enumerate(texts)))
    assert score(folder, folder / "joined", "--tokenize", "none") == 0
    expected = BLEU(tokenize="none", force=True).corpus_score(texts, [REFERENCE]).score
    printed = capsys.readouterr().out
    assert f" {expected:.2f} " in printed
    assert "tok:none" in printed
    with pytest.raises(SystemExit):
        score(folder, folder / "joined", "--tokenize", "moses")


def test_a_file_with_an_equals_sign_in_its_name(folder, capsys):
    (folder / "lr=1").mkdir()
    write_output(folder / "lr=1" / "h.out", dict(enumerate(GOOD)))
    assert score(folder, folder / "lr=1" / "h.out", f"b={folder / 'lr=1' / 'h.out'}") == 0
    assert "b against " in capsys.readouterr().out


def test_text_in_another_encoding_and_a_missing_folder_are_errors(folder, capsys):
    write_output(folder / "fine", dict(enumerate(GOOD)))
    (folder / "latin").write_bytes("D-0\t-0.5\tMänner\n".encode("latin-1"))
    assert score(folder, folder / "latin") == 2
    assert "latin`, line 1: text must be UTF-8, but byte 0xE4" in capsys.readouterr().err
    assert score(folder, folder / "fine", "--json", folder / "no" / "x.json") == 2
    captured = capsys.readouterr()
    assert "the folder of --json" in captured.err
    assert "BLEU" not in captured.out  # nothing was scored before
    (folder / "ref").write_bytes("Männer\n".encode("latin-1"))
    assert score(folder, folder / "fine") == 2
    assert "ref`, line 1: text must be UTF-8, but byte 0xE4" in capsys.readouterr().err


def write_pieces(path, pieces):
    path.write_text(
        "".join(f"H-{i}\t-0.1\t{' '.join(line)}\n" for i, line in enumerate(pieces)), encoding="utf-8"
    )


def test_pieces_of_another_tokenizer_are_refused(folder, capsys, caplog):
    for kind in ("bert_cased", "roberta"):
        build_tokenizer(kind, folder / kind)
    pieces = HfTokenizer(str(folder / "roberta")).encode_batch(REFERENCE)
    write_pieces(folder / "stock", pieces)
    assert score(folder, folder / "stock", "--tokenizer", folder / "bert_cased") == 2
    said = capsys.readouterr().err
    assert re.search(
        "every symbol of the hypotheses in `.*stock` must be a piece of the teacher's tokenizer, but", said
    )
    assert "bert_cased` is another tokenizer than the one that the text was tokenised with" in said
    pieces = HfTokenizer(str(folder / "bert_cased")).encode_batch(REFERENCE)
    write_pieces(folder / "stock", [[*pieces[0] * 20, "copied-by-replace-unk"], *pieces[1:]])
    assert score(folder, folder / "stock", "--tokenizer", folder / "bert_cased") == 0
    assert "1 of " in caplog.text
    assert "(first: `copied-by-replace-unk`)" in caplog.text


def test_the_test_set_in_an_output_shows_another_tokenizer_too(folder, capsys):
    """Issue 17, F20: a poor student writes few pieces, which both tokenizers may have."""
    (folder / "ref").write_text("the man\n", encoding="utf-8")
    for kind in ("bert_uncased", "roberta"):
        build_tokenizer(kind, folder / kind)
    output = "S-0\tx\nT-0\tthe man <<unk>> stand ##ing\nH-0\t-0.1\tam\nD-0\t-0.1\t{}\n"
    (folder / "stock").write_text(output.format("am"), encoding="utf-8")
    assert score(folder, folder / "stock", "--tokenizer", folder / "roberta") == 2
    assert "every symbol of the test set in `" in capsys.readouterr().err
    assert score(folder, folder / "stock", "--tokenizer", folder / "bert_uncased") == 0
    (folder / "decoded").write_text(output.format("other text"), encoding="utf-8")  # then T is text as well
    assert score(folder, folder / "decoded", "--tokenizer", folder / "roberta") == 0


def outputs_of(indices, last_line):
    return "".join(f"D-{i}\t-0.5\ta man\n" for i in indices) + last_line


SKIPPED, PARTIAL = "longer sources were skipped", "drops the last partial batch"
CUT, LONGER = "was cut short", "the reference goes on after the last sentence"


@pytest.mark.parametrize(
    ("indices", "last_line", "causes"),
    [
        (range(0, 20, 2), "Generate test with beam=5\n", [SKIPPED]),  # issue 17, F9
        (range(0, 20, 2), "", [SKIPPED, CUT]),
        ([*range(3), *range(5, 20)], "Generate test with beam=5\n", [SKIPPED, PARTIAL]),
        (range(18), "Generate test with beam=5\n", [PARTIAL, LONGER]),
        (range(10), "Generate test with beam=5\n", [LONGER]),
        (range(10), "", [LONGER, CUT]),
    ],
)
def test_missing_sentences_have_the_causes_that_are_possible(tmp_path, indices, last_line, causes):
    (tmp_path / "x").write_text(outputs_of(indices, last_line))
    with pytest.raises(ValueError, match=f"translates {len(indices)} of 20 sentences") as error:
        read_hypotheses(tmp_path / "x", 20)
    said = str(error.value)
    places = [said.find(cause) for cause in (SKIPPED, PARTIAL, LONGER, CUT) if cause in said]
    assert [cause for cause in (SKIPPED, PARTIAL, LONGER, CUT) if cause in said] == causes
    assert places == sorted(places)


def test_a_source_that_nothing_reads_is_refused(folder, capsys):
    """Also the one of someone who wanted --sources."""
    assert score(folder, f"good={folder / 'good'}", "--source", folder / "ref") == 2
    assert "--source is read for --comet alone" in capsys.readouterr().err


def test_comet_without_sources_is_refused_before_any_text_is_read(folder, capsys):
    assert score(folder, folder / "good", "--comet", "m", "--training", folder / "none") == 2
    assert "--comet reads the source too" in capsys.readouterr().err
