"""Tests of the quickstart's corpus generator: word forms, word order, and the files."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
sys.path.insert(0, str(QUICKSTART))

from clauses import Clause, relative, tidy  # noqa: E402
from english import conjugate_en, indefinite, possessive  # noqa: E402
from german import article, conjugate, contract, imperative, inflect_adjective  # noqa: E402
from lexicon import FRAME, NOUN, copula  # noqa: E402
from make_corpus import make_pairs, write_corpus  # noqa: E402
from numbers_in_words import (  # noqa: E402
    clock,
    english_cardinal,
    english_ordinal,
    english_year,
    german_cardinal,
    german_ordinal_stem,
    german_year,
)
from phrases import HE, SHE, WE, YOU, Adverbial, I, Name, NounPhrase  # noqa: E402

SPLITS = ("train", "valid", "test")
YESTERDAY = Adverbial("gestern", "yesterday")
ANNA = Name("Anna", "f")


# numbers


@pytest.mark.parametrize(
    ("number", "german", "english"),
    [
        (0, "null", "zero"),
        (1, "eins", "one"),
        (12, "zwölf", "twelve"),
        (16, "sechzehn", "sixteen"),
        (17, "siebzehn", "seventeen"),
        (21, "einundzwanzig", "twenty-one"),
        (30, "dreißig", "thirty"),
        (66, "sechsundsechzig", "sixty-six"),
        (77, "siebenundsiebzig", "seventy-seven"),
        (100, "einhundert", "one hundred"),
        (101, "einhunderteins", "one hundred and one"),
        (342, "dreihundertzweiundvierzig", "three hundred and forty-two"),
        (1000, "eintausend", "one thousand"),
        (1005, "eintausendfünf", "one thousand and five"),
        (9999, "neuntausendneunhundertneunundneunzig", "nine thousand nine hundred and ninety-nine"),
    ],
)
def test_cardinals(number, german, english):
    assert german_cardinal(number) == german
    assert english_cardinal(number) == english


def test_all_cardinals_are_distinct_words():
    assert len({german_cardinal(n) for n in range(10_000)}) == 10_000
    assert len({english_cardinal(n) for n in range(10_000)}) == 10_000


@pytest.mark.parametrize("number", [-1, 10_000])
def test_number_out_of_range_is_refused(number):
    with pytest.raises(
        ValueError, match=f"{number} cannot be written in words here; give a number from 0 to 9999"
    ):
        german_cardinal(number)


@pytest.mark.parametrize(
    ("number", "german", "english"),
    [
        (1, "erst", "first"),
        (2, "zweit", "second"),
        (3, "dritt", "third"),
        (7, "siebt", "seventh"),
        (8, "acht", "eighth"),
        (12, "zwölft", "twelfth"),
        (19, "neunzehnt", "nineteenth"),
        (20, "zwanzigst", "twentieth"),
        (21, "einundzwanzigst", "twenty-first"),
        (31, "einunddreißigst", "thirty-first"),
        (100, "einhundertst", "one hundredth"),
        (103, "einhundertdritt", "one hundred and third"),
    ],
)
def test_ordinals(number, german, english):
    assert german_ordinal_stem(number) == german
    assert english_ordinal(number) == english


@pytest.mark.parametrize(
    ("year", "german", "english"),
    [
        (1999, "neunzehnhundertneunundneunzig", "nineteen ninety-nine"),
        (1905, "neunzehnhundertfünf", "nineteen oh five"),
        (1900, "neunzehnhundert", "nineteen hundred"),
        (2000, "zweitausend", "two thousand"),
        (2004, "zweitausendvier", "two thousand and four"),
        (2015, "zweitausendfünfzehn", "twenty fifteen"),
    ],
)
def test_years(year, german, english):
    assert german_year(year) == german
    assert english_year(year) == english


@pytest.mark.parametrize(
    ("hour", "minute", "german", "english"),
    [
        (1, 0, "ein Uhr", "one o'clock"),
        (9, 0, "neun Uhr", "nine o'clock"),
        (7, 30, "halb acht", "half past seven"),
        (12, 30, "halb eins", "half past twelve"),
        (5, 45, "Viertel vor sechs", "a quarter to six"),
        (12, 45, "Viertel vor eins", "a quarter to one"),
        (3, 15, "Viertel nach drei", "a quarter past three"),
        (3, 21, "einundzwanzig Minuten nach drei", "twenty-one minutes past three"),
        (11, 59, "eine Minute vor zwölf", "one minute to twelve"),
    ],
)
def test_clock(hour, minute, german, english):
    assert clock(hour, minute) == (german, english)


# word forms


def test_adjective_endings_weak_mixed_strong():
    cases = ("nom", "acc", "dat", "gen")
    table = {
        ("def", "m"): "der rote, den roten, dem roten, des roten",
        ("def", "f"): "die rote, die rote, der roten, der roten",
        ("def", "n"): "das rote, das rote, dem roten, des roten",
        ("def", "p"): "die roten, die roten, den roten, der roten",
        ("kein", "m"): "kein roter, keinen roten, keinem roten, keines roten",
        ("kein", "f"): "keine rote, keine rote, keiner roten, keiner roten",
        ("kein", "n"): "kein rotes, kein rotes, keinem roten, keines roten",
        ("kein", "p"): "keine roten, keine roten, keinen roten, keiner roten",
        ("bare", "m"): "roter, roten, rotem, roten",
        ("bare", "f"): "rote, rote, roter, roter",
        ("bare", "n"): "rotes, rotes, rotem, roten",
        ("bare", "p"): "rote, rote, roten, roter",
    }
    for (kind, slot), expected in table.items():
        forms = [f"{article(kind, slot, c)} {inflect_adjective('rot', kind, slot, c)}".strip() for c in cases]
        assert ", ".join(forms) == expected


@pytest.mark.parametrize(
    ("phrase", "case", "german"),
    [
        (NounPhrase(NOUN["Student"]), "acc", "den Studenten"),
        (NounPhrase(NOUN["Student"]), "gen", "des Studenten"),
        (NounPhrase(NOUN["Mann"]), "gen", "des Mannes"),
        (NounPhrase(NOUN["Bruder"], "poss"), "gen", "meines Bruders"),
        (NounPhrase(NOUN["Haus"], plural=True), "dat", "den Häusern"),
        (NounPhrase(NOUN["Auto"], plural=True), "dat", "den Autos"),
        (NounPhrase(NOUN["Buch"], "ein", True, (("neu", "new"),), count=3), "nom", "drei neue Bücher"),
        (NounPhrase(NOUN["Kaffee"], "bare", stems=(("kalt", "cold"),)), "acc", "kalten Kaffee"),
        (NounPhrase(NOUN["Frau"], "name", name="Peter"), "dat", "Peters Frau"),
    ],
)
def test_noun_phrases(phrase, case, german):
    assert phrase.de(case) == german


@pytest.mark.parametrize(
    ("infinitive", "present", "preterite"),
    [
        ("lesen", "lese liest liest lesen lest", "las lasest las lasen last"),
        ("warten", "warte wartest wartet warten wartet", "wartete wartetest wartete warteten wartetet"),
        ("einladen", "lade lädst lädt laden ladet", "lud ludest lud luden ludet"),
        ("erinnern", "erinnere erinnerst erinnert erinnern erinnert", None),
        ("zeichnen", "zeichne zeichnest zeichnet zeichnen zeichnet", None),
        ("mitnehmen", "nehme nimmst nimmt nehmen nehmt", "nahm nahmst nahm nahmen nahmt"),
    ],
)
def test_conjugation(infinitive, present, preterite):
    persons = [(1, False), (2, False), (3, False), (1, True), (2, True)]
    verb = FRAME[infinitive].verb
    assert " ".join(conjugate(verb, "present", *p) for p in persons) == present
    if preterite:
        assert " ".join(conjugate(verb, "preterite", *p) for p in persons) == preterite


@pytest.mark.parametrize(
    ("infinitive", "du", "ihr"),
    [
        ("lesen", "lies", "lest"),
        ("mitnehmen", "nimm", "nehmt"),
        ("helfen", "hilf", "helft"),
        ("warten", "warte", "wartet"),
        ("fahren", "fahr", "fahrt"),
        ("öffnen", "öffne", "öffnet"),
        ("einladen", "lade", "ladet"),
    ],
)
def test_imperatives(infinitive, du, ihr):
    assert imperative(FRAME[infinitive].verb, "du") == du
    assert imperative(FRAME[infinitive].verb, "ihr") == ihr


def test_contractions():
    assert contract("in", "dem Park") == "im Park"
    assert contract("zu", "der Schule") == "zur Schule"
    assert contract("in", "den Park") == "in den Park"
    assert contract("in", "dem") == "in dem"


def test_english_forms():
    assert conjugate_en("carry", "present") == "carries"
    assert conjugate_en("watch", "present") == "watches"
    assert conjugate_en("play", "past") == "played"
    assert conjugate_en("travel", "past") == "travelled"
    assert conjugate_en("take", "ing") == "taking"
    assert conjugate_en("be", "ing") == "being"
    assert conjugate_en("write", "participle") == "written"
    assert conjugate_en("be", "past", 3, plural=True) == "were"
    assert [indefinite(w) for w in ("apple", "university", "hour", "old car")] == [
        "an apple",
        "a university",
        "an hour",
        "an old car",
    ]
    assert possessive("my parents") == "my parents'"


# word order

PARCEL = NounPhrase(NOUN["Paket"])
PICK_UP = Clause(ANNA, FRAME["abholen"], "past", thing=PARCEL)


def both(clause: Clause) -> tuple[str, str]:
    return tidy(clause.main()), tidy(clause.en())


def test_separable_verb_in_every_position():
    assert both(PICK_UP) == ("Anna holte das Paket ab.", "Anna picked up the parcel.")
    assert PICK_UP.sub("weil") == "weil Anna das Paket abholte"
    perfect = replace(PICK_UP, compound=True)
    assert tidy(perfect.main()) == "Anna hat das Paket abgeholt."
    assert perfect.sub("dass") == "dass Anna das Paket abgeholt hat"
    assert both(replace(PICK_UP, modal="müssen")) == (
        "Anna musste das Paket abholen.",
        "Anna had to pick up the parcel.",
    )
    assert PICK_UP.zu("um") == "um das Paket abzuholen"
    assert PICK_UP.en_infinitive() == "to pick up the parcel"
    assert PICK_UP.en_infinitive("ing") == "picking up the parcel"
    later = replace(PICK_UP, tense="later", compound=True)
    assert both(later) == ("Anna wird das Paket abholen.", "Anna will pick up the parcel.")
    assert later.sub("ob") == "ob Anna das Paket abholen wird"


def test_particle_follows_an_english_pronoun():
    assert both(replace(PICK_UP, thing=HE)) == ("Anna holte ihn ab.", "Anna picked him up.")


def test_inversion_after_fronted_time_and_object():
    timed = replace(PICK_UP, compound=True, time=YESTERDAY)
    assert both(replace(timed, front="time")) == (
        "Gestern hat Anna das Paket abgeholt.",
        "Yesterday, Anna picked up the parcel.",
    )
    assert both(replace(timed, subject=I, front="thing")) == (
        "Das Paket habe ich gestern abgeholt.",
        "I picked up the parcel yesterday.",
    )


def test_negation_and_questions():
    assert both(replace(PICK_UP, particle="nicht", time=YESTERDAY)) == (
        "Anna holte das Paket gestern nicht ab.",
        "Anna did not pick up the parcel yesterday.",
    )
    none = Clause(I, FRAME["kaufen"], "past", thing=NounPhrase(NOUN["Hut"], "kein"))
    assert both(none) == ("Ich kaufte keinen Hut.", "I did not buy a hat.")
    not_yet = Clause(ANNA, FRAME["kaufen"], "perfect", thing=NounPhrase(NOUN["Hut"], "kein"), particle="noch")
    assert both(not_yet) == ("Anna hat noch keinen Hut gekauft.", "Anna has not bought a hat yet.")
    asked = replace(PICK_UP, subject=YOU, compound=True)
    assert tidy(asked.after(""), "?") == "Hast du das Paket abgeholt?"
    assert tidy(asked.en(question=True), "?") == "Did you pick up the parcel?"
    assert tidy(asked.after("was", "thing"), "?") == "Was hast du abgeholt?"
    assert tidy(asked.en("what", "thing", question=True), "?") == "What did you pick up?"


def test_tenses():
    get_up = Clause(SHE, FRAME["aufstehen"])
    expected = {
        "habit": ("Sie steht auf.", "She gets up."),
        "perfect": ("Sie ist aufgestanden.", "She has got up."),
        "pluperfect": ("Sie war aufgestanden.", "She had got up."),
        "would": ("Sie würde aufstehen.", "She would get up."),
    }
    for tense, pair in expected.items():
        assert both(replace(get_up, tense=tense)) == pair
    tired = Clause(WE, copula("müde", "be tired"), "would")
    assert tired.sub("wenn") == "wenn wir müde wären"
    assert conjugate("sein", "subjunctive", 2, True) == "wärt"


def test_reflexive_and_dative_order():
    remember = Clause(
        ANNA, FRAME["erinnern"], "past", thing=NounPhrase(NOUN["Reise"]), time=YESTERDAY, front="time"
    )
    assert both(remember) == (
        "Gestern erinnerte sich Anna an die Reise.",
        "Yesterday, Anna remembered the journey.",
    )
    give = Clause(
        HE, FRAME["geben"], "past", thing=NounPhrase(NOUN["Schlüssel"]), receiver=ANNA, compound=True
    )
    assert both(give) == ("Er hat Anna den Schlüssel gegeben.", "He gave Anna the key.")
    give_back = replace(give, frame=FRAME["zurückgeben"], compound=False)
    assert both(give_back) == ("Er gab Anna den Schlüssel zurück.", "He gave the key back to Anna.")


@pytest.mark.parametrize(
    ("role", "clause", "german", "english"),
    [
        ("subject", Clause(NounPhrase(NOUN["Frau"]), FRAME["anrufen"], thing=I), "die Frau, die mich anrief", "the woman who called me"),
        ("thing", Clause(I, FRAME["anrufen"], compound=True), "den Mann, den ich angerufen habe", "the man I called"),
        ("receiver", Clause(HE, FRAME["helfen"], compound=True), "die Kinder, denen er geholfen hat", "the children he helped"),
        ("thing", Clause(SHE, FRAME["sprechen"], compound=True), "den Gast, mit dem sie gesprochen hat", "the guest she talked to"),
    ],
)  # fmt: skip
def test_relative_pronouns(role, clause, german, english):
    noun = NOUN[{"Kinder": "Kind"}.get(german.split(",")[0].split()[1], german.split(",")[0].split()[1])]
    phrase = NounPhrase(noun, plural="Kinder" in german)
    found = relative(clause, role, phrase)
    assert tidy(found.de("acc"), "")[1:] == german[1:]
    assert found.en() == english


def test_tidy_places_commas():
    assert tidy("er kam , weil , , es , regnete ,") == "Er kam, weil, es, regnete."


# files


def digest(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(f"{split}.{language}" for split in SPLITS for language in ("de", "en"))
    return hashlib.sha256(b"\0".join((folder / name).read_bytes() for name in names)).hexdigest()


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    sizes = {"train": 300, "valid": 20, "test": 30}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_corpus(tmp_path / name, sizes, seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_twenty_thousand_pairs(tmp_path):
    sizes = {"train": 18_500, "valid": 500, "test": 1_000}
    write_corpus(tmp_path, sizes, seed=1)
    sources = []
    for split, size in sizes.items():
        german = (tmp_path / f"{split}.de").read_text(encoding="utf-8").splitlines()
        english = (tmp_path / f"{split}.en").read_text(encoding="utf-8").splitlines()
        assert len(german) == len(english) == size
        sources += german
        for line in german + english:
            assert line == line.strip()
            assert line[0].isupper(), line
            assert line[-1] in ".?!", line
            assert not any(
                wrong in line for wrong in ("  ", " ,", ",,", " .", ",.", "..", "None", "~", "=", "_")
            ), line
    assert len(set(sources)) == 20_000
    words = [len(line.split()) for line in sources]
    assert min(words) >= 4
    assert max(words) <= 27
    assert 10 < sum(words) / len(words) < 16


def test_command_line_writes_counts_and_refuses_to_overwrite(tmp_path):
    out = tmp_path / "corpus"
    command = [sys.executable, str(QUICKSTART / "make_corpus.py"), "--out", str(out)]
    command += ["--train", "20", "--valid", "3", "--test", "4"]
    first = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "wrote 27 pairs" in first.stdout
    before = digest(out)
    second = subprocess.run(
        [*command, "--seed", "2"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert second.returncode == 1
    assert "train.de" in second.stderr
    assert "give --overwrite to replace" in second.stderr
    assert digest(out) == before
    subprocess.run([*command, "--seed", "2", "--overwrite"], capture_output=True, cwd=tmp_path, check=True)
    assert digest(out) != before


def test_negative_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--valid is -1; a number of pairs cannot be negative"):
        write_corpus(tmp_path, {"train": 1, "valid": -1, "test": 1}, seed=1)
    assert not list(tmp_path.iterdir())


def test_exhausted_grammar_says_so(monkeypatch):
    monkeypatch.setattr(
        "make_corpus.sentence", lambda speaker: ("Immer derselbe kurze Satz.", "Always this short sentence.")
    )
    with pytest.raises(ValueError, match="found only 1 distinct sentences of the 3 asked for"):
        make_pairs(3, seed=1)
