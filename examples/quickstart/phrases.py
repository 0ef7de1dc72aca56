"""Noun phrases, pronouns and adverbials that know both languages."""

from dataclasses import dataclass, field, replace

from english import indefinite, possessive
from german import Adjective, Noun, article, contract, inflect_adjective
from numbers_in_words import english_cardinal, german_cardinal


@dataclass(frozen=True)
class Pronoun:
    """``stem`` is the possessive (``mein``); English forms are subject, object, possessive."""

    nom: str
    acc: str
    dat: str
    reflexive: str
    stem: str
    english: tuple[str, str, str]
    person: int
    plural: bool
    english_plural: bool
    gender: str = "m"
    relative: tuple[str, str] = ("", "")

    def de(self, case: str) -> str:
        return {"nom": self.nom, "acc": self.acc, "dat": self.dat}[case]

    def en(self, subject: bool = False) -> str:
        return self.english[0 if subject else 1]

    @property
    def pronoun(self) -> "Pronoun":
        return self

    @property
    def definite(self) -> bool:
        return True


I = Pronoun("ich", "mich", "mir", "mich", "mein", ("I", "me", "my"), 1, False, False)  # noqa: E741
YOU = Pronoun("du", "dich", "dir", "dich", "dein", ("you", "you", "your"), 2, False, True)
HE = Pronoun("er", "ihn", "ihm", "sich", "sein", ("he", "him", "his"), 3, False, False)
SHE = Pronoun("sie", "sie", "ihr", "sich", "ihr", ("she", "her", "her"), 3, False, False, "f")
WE = Pronoun("wir", "uns", "uns", "uns", "unser", ("we", "us", "our"), 1, True, True, "p")
YOU_ALL = Pronoun("ihr", "euch", "euch", "euch", "euer", ("you", "you", "your"), 2, True, True, "p")
THEY = Pronoun("sie", "sie", "ihnen", "sich", "ihr", ("they", "them", "their"), 3, True, True, "p")
FORMAL = Pronoun("Sie", "Sie", "Ihnen", "sich", "Ihr", ("you", "you", "your"), 3, True, True, "p")
IT = Pronoun("es", "es", "ihm", "sich", "sein", ("it", "it", "its"), 3, False, False, "n")
THING = {"m": replace(HE, english=IT.english), "f": replace(SHE, english=IT.english), "n": IT, "p": THEY}


@dataclass(frozen=True)
class NounPhrase:
    """A noun with its determiner.

    Attributes:
        det: ``def``, ``ein``, ``kein``, ``dies``, ``jed``, ``bare``, ``poss`` (see ``owner``) or ``name``.
        stems: adjectives as (German stem, English).
        count: number word in front, 0 for none.
        relative: German and English relative clause, without commas.
        genitive: owner that follows in German (``das Auto meines Vaters``).
    """

    noun: Noun
    det: str = "def"
    plural: bool = False
    stems: tuple[tuple[str, str], ...] = ()
    owner: Pronoun = I
    count: int = 0
    relative: tuple[str, str] = ("", "")
    genitive: "NounPhrase | None" = None
    name: str = ""
    person: int = field(default=3, init=False)

    @property
    def slot(self) -> str:
        return self.noun.slot(self.plural)

    @property
    def english_plural(self) -> bool:
        return self.plural

    @property
    def definite(self) -> bool:
        return self.det not in ("ein", "bare", "kein") and not self.count

    @property
    def is_person(self) -> bool:
        return bool({"person", "kin", "own"} & set(self.noun.classes))

    @property
    def pronoun(self) -> Pronoun:
        if not self.is_person:
            return THING[self.slot]
        return {"m": HE, "f": SHE, "n": IT, "p": THEY}[self.slot]

    def with_adjectives(self, *adjectives: Adjective) -> "NounPhrase":
        return replace(self, stems=self.stems + tuple((a.stem, a.english) for a in adjectives))

    def de(self, case: str) -> str:
        kind = {"poss": self.owner.stem, "name": "bare"}.get(self.det, self.det)
        if self.det == "kein" and self.noun.mass:
            kind = "kein"
        words = [article(kind, self.slot, case)]
        if self.det == "name":
            words = [self.name + "s"]
        if self.count:
            words.append(german_cardinal(self.count))
        words += [inflect_adjective(stem, kind, self.slot, case) for stem, _ in self.stems]
        words.append(self.noun.form(self.plural, case))
        if self.genitive:
            words.append(self.genitive.de("gen"))
        if self.relative[0]:
            words.append(f", {self.relative[0]} ,")
        return " ".join(filter(None, words))

    def en(self, subject: bool = False) -> str:
        words = [english for _, english in self.stems]
        words.append(self.noun.english_plural if self.plural else self.noun.english)
        if self.count:
            words.insert(0, english_cardinal(self.count))
        text = " ".join(words)
        if self.genitive:
            text = f"{possessive(self.genitive.en())} {text}"
        elif self.det == "name":
            text = f"{possessive(self.name)} {text}"
        elif self.det == "poss":
            text = f"{self.owner.english[2]} {text}"
        elif self.det in ("ein", "kein"):
            many = self.plural or self.noun.mass
            text = (f"any {text}" if self.det == "kein" else text) if many else indefinite(text)
        else:
            text = {"def": "the ", "jed": "every ", "bare": ""}.get(
                self.det, "these " if self.plural else "this "
            ) + text
        if self.relative[1] and self.det in ("poss", "name") and not self.plural:
            return f"{text} , {self.relative[1]} ,"  # there is one mother: the clause does not pick her out
        return f"{text} {self.relative[1]}".strip()


@dataclass(frozen=True)
class Name:
    """A given name; the same form in every case."""

    text: str
    gender: str
    person: int = field(default=3, init=False)
    plural: bool = field(default=False, init=False)
    english_plural: bool = field(default=False, init=False)
    definite: bool = field(default=True, init=False)

    @property
    def pronoun(self) -> Pronoun:
        return HE if self.gender == "m" else SHE

    def de(self, case: str) -> str:
        return self.text

    def en(self, subject: bool = False) -> str:
        return self.text


Nominal = Pronoun | NounPhrase | Name


@dataclass(frozen=True)
class Adverbial:
    """``mid``: in English before the main verb (``often``) unless it opens the sentence."""

    de: str
    en: str
    mid: bool = False


def prepositional(preposition: str, case: str, phrase: Nominal) -> str:
    """German prepositional phrase; ``in dem`` becomes ``im``."""
    return contract(preposition, phrase.de(case))
