"""German word forms: articles, adjective endings, nouns, verbs.

Slots: a gender ``"m"``, ``"f"``, ``"n"`` in the singular, ``"p"`` in the plural of any gender.
Cases: ``"nom"``, ``"acc"``, ``"dat"``, ``"gen"``. Persons are 1, 2, 3.
"""

from dataclasses import dataclass

DEFINITE = {
    "nom": {"m": "der", "f": "die", "n": "das", "p": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "p": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "p": "den"},
    "gen": {"m": "des", "f": "der", "n": "des", "p": "der"},
}
STRONG = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "p": "en"},
    "gen": {"m": "es", "f": "er", "n": "es", "p": "er"},
}
# Where an ein-word has no ending, the adjective shows the strong one ("ein neuer Tisch").
BARE_EIN = {("nom", "m"), ("nom", "n"), ("acc", "n")}
CONTRACTIONS = {
    "in dem": "im",
    "in das": "ins",
    "an dem": "am",
    "an das": "ans",
    "bei dem": "beim",
    "von dem": "vom",
    "zu dem": "zum",
    "zu der": "zur",
}


def article(kind: str, slot: str, case: str) -> str:
    """Form of a determiner.

    Args:
        kind: ``"def"``, a der-word stem (``"dies"``, ``"jed"``, ``"welch"``), ``"bare"`` for none, or an
            ein-word (``"ein"``, ``"kein"``, ``"mein"``, ... ``"euer"``).
        slot: gender, or ``"p"``.
        case: ``"nom"``, ``"acc"``, ``"dat"`` or ``"gen"``.
    """
    if kind == "bare" or (kind == "ein" and slot == "p"):
        return ""
    if kind == "def":
        return DEFINITE[case][slot]
    if kind in ("dies", "jed", "welch"):
        return kind + STRONG[case][slot]
    if (case, slot) in BARE_EIN:
        return kind
    return ("eur" if kind == "euer" else kind) + STRONG[case][slot]


def relative_pronoun(slot: str, case: str) -> str:
    """The pronoun that opens a relative clause: ``der``, ``denen``, ``dessen`` ..."""
    if case == "gen":
        return "dessen" if slot in "mn" else "deren"
    return "denen" if (case, slot) == ("dat", "p") else DEFINITE[case][slot]


def adjective_ending(kind: str, slot: str, case: str) -> str:
    """Weak after der-words, mixed after ein-words, strong without a determiner (``kind`` as in `article`)."""
    if kind == "bare" or (kind == "ein" and slot == "p"):
        return "en" if case == "gen" and slot in "mn" else STRONG[case][slot]
    der_word = kind in ("def", "dies", "jed", "welch")
    if not der_word and (case, slot) in BARE_EIN:
        return STRONG[case][slot]
    if slot != "p" and (case == "nom" or (case == "acc" and slot in "fn")):
        return "e"
    return "en"


@dataclass(frozen=True)
class Adjective:
    """``stem`` takes the endings (``teuer``: ``teur``); ``comparative`` is ``teurer``."""

    word: str
    stem: str
    comparative: str
    superlative_stem: str
    english: str
    english_comparative: str
    english_superlative: str
    fits: tuple[str, ...]


def inflect_adjective(stem: str, kind: str, slot: str, case: str) -> str:
    """``inflect_adjective("rot", "ein", "m", "nom")`` gives ``"roter"``."""
    ending = adjective_ending(kind, slot, case)
    return stem + (ending[1:] if stem.endswith("e") else ending)


@dataclass(frozen=True)
class Noun:
    """``weak`` nouns take ``oblique`` outside the nominative singular (``den Studenten``)."""

    word: str
    gender: str
    plural: str
    english: str
    english_plural: str
    classes: tuple[str, ...]
    oblique: str = ""
    mass: bool = False

    def slot(self, plural: bool) -> str:
        return "p" if plural else self.gender

    def form(self, plural: bool, case: str) -> str:
        if plural:
            return self.plural + ("n" if case == "dat" and self.plural[-1] not in "ns" else "")
        if self.oblique:
            return self.word if case == "nom" else self.oblique
        if case == "gen" and self.gender in "mn":
            return genitive_singular(self.word)
        return self.word


def genitive_singular(word: str) -> str:
    """Strong masculine or neuter: ``Mannes``, ``Hauses``, ``Bruders``, ``Chefs``."""
    if word.endswith(("s", "ß", "z", "x")):
        return word + "es"
    vowel_groups = sum(
        letter in "aeiouäöüy" and (i == 0 or word.lower()[i - 1] not in "aeiouäöüy")
        for i, letter in enumerate(word.lower())
    )
    short = vowel_groups == 1 and word[-1] not in "aeiou" and word not in ("Chef", "Film", "Park")
    return word + ("es" if short else "s")


@dataclass(frozen=True)
class Verb:
    """Principal parts without the separable prefix, e.g. prefix ``"ein"``, base ``"laden"``, third ``"lädt"``,
    preterite ``"lud"``, participle ``"geladen"`` (with ``ge``, without prefix)."""

    prefix: str
    base: str
    third: str
    preterite: str
    participle: str
    aux: str = "haben"
    reflexive: bool = False

    @property
    def infinitive(self) -> str:
        return self.prefix + self.base

    @property
    def past_participle(self) -> str:
        return self.prefix + self.participle

    @property
    def zu_infinitive(self) -> str:
        return f"{self.prefix}zu{self.base}" if self.prefix else f"zu {self.base}"


# first, second, third singular; first, second plural (the third plural is as the first)
PRESENT = {
    "sein": ("bin", "bist", "ist", "sind", "seid"),
    "haben": ("habe", "hast", "hat", "haben", "habt"),
    "werden": ("werde", "wirst", "wird", "werden", "werdet"),
    "können": ("kann", "kannst", "kann", "können", "könnt"),
    "müssen": ("muss", "musst", "muss", "müssen", "müsst"),
    "wollen": ("will", "willst", "will", "wollen", "wollt"),
    "sollen": ("soll", "sollst", "soll", "sollen", "sollt"),
    "dürfen": ("darf", "darfst", "darf", "dürfen", "dürft"),
    "möchten": ("möchte", "möchtest", "möchte", "möchten", "möchtet"),
    "wissen": ("weiß", "weißt", "weiß", "wissen", "wisst"),
}
PRETERITE = {
    "sein": "war",
    "haben": "hatte",
    "werden": "wurde",
    "können": "konnte",
    "müssen": "musste",
    "wollen": "wollte",
    "sollen": "sollte",
    "dürfen": "durfte",
    "wissen": "wusste",
}
SUBJUNCTIVE = {"sein": "wäre", "haben": "hätte", "werden": "würde", "können": "könnte", "müssen": "müsste"}


def stem_of(base: str) -> str:
    return base[:-1] if base.endswith(("eln", "ern")) else base[:-2]


def _needs_e(stem: str) -> bool:
    """``wart-et``, ``find-et``, ``öffn-et``, but ``lern-t``, ``wohn-t``, ``nimm-t``."""
    after_consonant = stem[-1] in "mn" and len(stem) > 1 and stem[-2] not in "aeiouäöühlrmn"
    return stem[-1] in "dt" or after_consonant or stem.endswith("chn")


def _with_past_endings(stem: str, person: int, plural: bool) -> str:
    """Endings of the preterite and of ``hätte``, ``würde`` ..."""
    ends_in_e = stem.endswith("e")
    if person == 2:
        ending = "t" if plural else "st"
        linked = stem[-1] in "dt" or (not plural and stem[-1] in "sßz")
        return stem + ("" if ends_in_e or not linked else "e") + ending
    if not plural:
        return stem
    return stem + ("n" if ends_in_e else "en")


def conjugate(verb: Verb | str, tense: str, person: int, plural: bool) -> str:
    """Finite form without separable prefix or pronoun.

    Args:
        verb: a `Verb`, or the infinitive of an auxiliary or modal.
        tense: ``"present"``, ``"preterite"`` or ``"subjunctive"`` (auxiliaries only).
        person: 1, 2 or 3; the polite ``Sie`` is 3 and plural.
        plural: grammatical number.
    """
    base = verb if isinstance(verb, str) else verb.base
    index = (2 + person if person < 3 else 3) if plural else person - 1
    if tense == "subjunctive":
        if base == "sein" and person == 2:
            return "wärt" if plural else "wärst"
        return _with_past_endings(SUBJUNCTIVE[base], person, plural)
    if tense == "preterite":
        return _with_past_endings(
            PRETERITE[base] if isinstance(verb, str) else verb.preterite, person, plural
        )
    if base in PRESENT:
        return PRESENT[base][index]
    assert isinstance(verb, Verb), base
    stem = stem_of(base)
    if plural:
        return stem + ("et" if _needs_e(stem) else "t") if person == 2 else base
    if person == 1:
        return stem[:-2] + "le" if base.endswith("eln") else stem + "e"
    if person == 3:
        return verb.third
    root = verb.third[:-1]
    return verb.third if root[-1] in "sßzx" else ("hältst" if verb.third == "hält" else root + "st")


def imperative(verb: Verb, who: str) -> str:
    """Command form without prefix for ``"du"``, ``"ihr"`` or ``"Sie"`` (the latter without the pronoun)."""
    if who == "Sie":
        return verb.base
    if who == "ihr":
        return conjugate(verb, "present", 2, True)
    stem, third = stem_of(verb.base), verb.third
    if verb.base.endswith("eln"):
        return stem[:-2] + "le"
    if _needs_e(stem) and third.startswith(stem):
        return stem + "e"
    # e -> i(e) is kept in the imperative ("lies", "nimm", "gib"); a -> ä is not ("lade", "fahr")
    changed = "ä" not in third and not third.startswith(stem)
    if changed:
        return third[:-1]
    return stem + ("e" if stem[-1] in "dt" or verb.base.endswith("ern") else "")


def contract(preposition: str, phrase: str) -> str:
    """``contract("in", "dem Park")`` gives ``"im Park"``."""
    both = f"{preposition} {phrase}"
    for full, short in CONTRACTIONS.items():
        if both.startswith(full + " "):
            return short + both[len(full) :]
    return both
