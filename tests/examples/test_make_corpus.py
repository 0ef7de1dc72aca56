"""The quickstart's corpus: same seed, same bytes; agreement in both languages; usage that text teaches."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
sys.path.insert(0, str(QUICKSTART))

from make_corpus import Grammar, Noun, sentences, write_corpus  # noqa: E402

SIZES = {"train": 30, "valid": 5, "test": 5}


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_seed_gives_the_same_files_and_another_one_others(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_corpus(tmp_path / name, SIZES, mono=20, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["train.de"] != digests(tmp_path / "c")["train.de"]
    lines = {path.name: path.read_text(encoding="utf-8").splitlines() for path in (tmp_path / "a").iterdir()}
    assert {name: len(text) for name, text in lines.items()} == {
        **{f"{split}.{language}": size for split, size in SIZES.items() for language in ("de", "en")},
        "mono.en": 20,
    }
    german = [line for split in SIZES for line in lines[f"{split}.de"]]
    assert len(set(german)) == len(german)


@pytest.mark.parametrize(
    ("noun", "case", "phrases"),
    [
        (
            Noun("animal", "m", ("Hund", "Hunde"), [("dog", "dogs")]),
            "accusative",
            {"den Hund": "the dog", "einen Hund": "a dog", "die Hunde": "the dogs", "Hunde": "dogs"},
        ),
        (
            Noun("place", "f", ("Stadt", "Städte"), [("city", "cities")]),
            "dative",
            {
                "der Stadt": "the city",
                "einer Stadt": "a city",
                "den Städten": "the cities",
                "Städten": "cities",
            },
        ),
        (
            Noun("thing", "n", ("Bild", "Bilder"), [("image", "images")]),
            "nominative",
            {"das Bild": "the image", "ein Bild": "an image", "die Bilder": "the images", "Bilder": "images"},
        ),
    ],
)
def test_articles_agree_with_gender_case_and_number(monkeypatch, noun, case, phrases):
    grammar = Grammar(1)
    monkeypatch.setattr(grammar, "nouns", {noun.kind: [noun]})
    monkeypatch.setattr(grammar, "adjectives", [("klein", ["small"])])
    drawn = {
        phrase.german: phrase.english for phrase in (grammar.noun_phrase(noun.kind, case) for _ in range(300))
    }
    assert {german: english for german, english in drawn.items() if "klein" not in german} == phrases
    assert len(drawn) == 8  # each of them with and without the adjective
    assert all(
        english.replace("small ", "").split()[-1] == phrases_of(phrases, german)
        for german, english in drawn.items()
    )


def phrases_of(phrases, german):
    """The English noun of a phrase."""
    return next(
        english.split()[-1] for other, english in phrases.items() if other.split()[-1] == german.split()[-1]
    )


def test_usage_depends_on_the_word_beside_and_not_on_the_seed():
    usual = []
    for seed in (1, 2):
        grammar = Grammar(seed)
        counts = {
            noun: Counter(
                grammar.translation("stark", noun, ["strong", "heavy", "powerful"]) for _ in range(600)
            )
            for noun in ("Regen", "Kaffee", "Wind", "Hund", "Pferd", "Plan")
        }
        usual.append({noun: count.most_common(1)[0][0] for noun, count in counts.items()})
        assert all(0.6 < count.most_common(1)[0][1] / 600 < 0.85 for count in counts.values())
    assert usual[0] == usual[1]
    assert len(set(usual[0].values())) > 1


def test_german_verbs_stand_second_or_last():
    grammar = Grammar(3)
    finite = {verb for row in grammar.verbs for verb in row[:2]} | {"hat", "haben"}
    for _ in range(100):
        assert grammar.clause(verb_last=True).german.split()[-1] in finite
        assert grammar.clause(verb_last=False).german.split()[-1] not in {"hat", "haben"}


def test_sentences_begin_large_and_end_in_a_full_stop():
    pairs = sentences(4)
    for _, pair in zip(range(100), pairs, strict=False):
        assert all(text[0].isupper() and text.endswith(".") for text in pair)


def test_files_are_kept_and_sizes_checked(tmp_path):
    def run(*arguments):
        command = [sys.executable, str(QUICKSTART / "make_corpus.py"), "--out", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    small = ("--train", "3", "--valid", "1", "--test", "1", "--mono", "2")
    assert run(*small).stdout == "wrote 3 train, 1 valid, 1 test pairs and 2 English sentences\n"
    kept = run(*small)
    assert kept.returncode == 1
    assert "Give --overwrite to replace, or another --out" in kept.stderr
    assert run(*small, "--overwrite").returncode == 0
    assert "--mono is -1; a number of sentences cannot be negative" in run("--mono", "-1").stderr
