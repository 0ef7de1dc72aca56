"""Random choices that fit together: who does what, when and where."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from circumstances import (
    BY,
    CAREFULLY,
    DAYS_IN_MONTH,
    HOW,
    LASTING,
    LONG,
    MONTHS,
    ONGOING,
    PLACE_GENDER,
    PLACES,
    TIMES,
    WEEKDAYS,
    WITH,
)
from clauses import Clause
from german import Adjective, Noun
from lexicon import ADJECTIVES, CITIES, COUNTRIES, FRAMES, NAMES, NOUN, Frame, nouns_of
from numbers_in_words import (
    clock,
    english_cardinal,
    english_ordinal,
    english_year,
    german_cardinal,
    german_ordinal_stem,
    german_year,
)
from phrases import (
    FORMAL,
    HE,
    SHE,
    THEY,
    WE,
    YOU,
    YOU_ALL,
    Adverbial,
    I,
    Name,
    Nominal,
    NounPhrase,
    Pronoun,
    prepositional,
)

T = TypeVar("T")


class Speaker:
    """Draws words and clauses. Uses only ``Random.random``, whose sequence Python keeps from version to version."""

    def __init__(self, seed: int):
        self._random = random.Random(seed).random

    # plain draws

    def below(self, limit: int) -> int:
        return int(self._random() * limit)

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        order = list(items)
        for i in range(len(order) - 1, 0, -1):
            j = self.below(i + 1)
            order[i], order[j] = order[j], order[i]
        return order

    # people and things

    def adjective(self, noun: Noun, ban: str = "") -> Adjective:
        fitting = [a for a in ADJECTIVES if set(a.fits) & set(noun.classes) and a.word != ban]
        return self.pick(fitting)

    def has_adjective(self, noun: Noun) -> bool:
        return any(set(a.fits) & set(noun.classes) for a in ADJECTIVES)

    def decorated(self, phrase: NounPhrase, probability: float = 0.35) -> NounPhrase:
        kin = "kin" in phrase.noun.classes
        if (
            phrase.det == "name"
            or not (kin or self.has_adjective(phrase.noun))
            or not self.chance(probability)
        ):
            return phrase
        if kin:
            age = self.pick([("jünger", "younger"), ("älter", "older")])
            return replace(phrase, stems=(age,)) if "many" in phrase.noun.classes else phrase
        return phrase.with_adjectives(self.adjective(phrase.noun))

    def kin(self, owner: Pronoun | None = None) -> NounPhrase:
        noun = self.pick(nouns_of("kin"))
        if owner is None and self.chance(0.2):
            return NounPhrase(
                noun, "name", name=self.pick([n for n, _ in NAMES if n[-1] != "s" and n != "Felix"])
            )
        plural = "many" in noun.classes and self.chance(0.2)
        return self.decorated(
            NounPhrase(noun, "poss", plural, owner=owner or self.pick([I, I, WE, YOU])), 0.15
        )

    def person(self, plural: bool | None = None) -> NounPhrase:
        """An adult, so that ``er`` and ``sie`` are right in both languages."""
        noun = self.pick([n for n in nouns_of("person") if n.gender != "n"])
        many = self.chance(0.25) if plural is None else plural
        if "own" in noun.classes and self.chance(0.7):
            return self.decorated(NounPhrase(noun, "poss", many, owner=self.pick([I, I, WE])), 0.2)
        det = "ein" if self.chance(0.2) and not many else "def"
        return self.decorated(
            NounPhrase(noun, det, many, count=self.between(2, 5) if many and self.chance(0.3) else 0)
        )

    def subject(self, third: bool = False) -> Nominal:
        draw = self._random()
        if draw < 0.3 and not third:
            return self.pick([I, I, WE, WE, HE, SHE, YOU, YOU_ALL])
        if draw < 0.5:
            return Name(*self.pick(NAMES))
        return self.kin() if draw < 0.72 else self.person()

    def clear_subject(self) -> Nominal:
        """Someone whom a following ``er`` or ``sie`` can mean."""
        while True:
            subject = self.subject(third=self.chance(0.75))
            if subject.pronoun.gender != "n":
                return subject

    def other(self, subject: Nominal, cases: str = "acc") -> Nominal:
        """Someone else than the subject: a pronoun, a name, a relative or another person."""
        pronoun = subject.pronoun
        draw = self._random()
        if draw < 0.25:
            # the accusative "sie" could be she or they, so only clear forms
            forms = [I, YOU, HE, WE, YOU_ALL] + ([SHE, THEY, FORMAL] if cases == "dat" else [])
            if pronoun == FORMAL:
                forms = [I, HE, WE]
            if cases == "dat" and pronoun in (SHE, THEY):
                forms = forms[:5]
            return self.pick(
                [p for p in forms if p.person != pronoun.person or (p.person == 3 and p != pronoun)]
            )
        if draw < 0.4:
            return self.pick([n for n in (Name(*pair) for pair in NAMES) if n != subject])
        clear_owner = pronoun not in (FORMAL,) and pronoun.gender != "n"
        owner = pronoun if clear_owner and self.chance(0.7) else I
        if isinstance(subject, NounPhrase) and "kin" in subject.noun.classes:
            return self.person_unlike(subject)
        return self.kin(owner) if draw < 0.65 else self.person_unlike(subject)

    def person_unlike(self, subject: Nominal) -> NounPhrase:
        while True:
            found = self.person()
            if not isinstance(subject, NounPhrase) or found.noun.english != subject.noun.english:
                return found

    def thing(
        self, classes: Sequence[str], subject: Nominal | None = None, plain: bool = False
    ) -> NounPhrase:
        noun = self.pick(nouns_of(*classes))
        if noun.mass:
            return self.decorated(
                NounPhrase(noun, "def" if self.chance(0.5) or plain or "device" in noun.classes else "bare"),
                0.3,
            )
        plural = self.chance(0.2) and not plain
        draw = self._random()
        owner = subject.pronoun if subject else I
        if draw < 0.3 and not plain:
            phrase = NounPhrase(noun, "ein", plural)
            if plural:
                phrase = replace(phrase, count=self.between(2, 12) if self.chance(0.6) else 0)
        elif draw < 0.5 and not plain and owner.gender != "n" and self.ownable(noun):
            phrase = NounPhrase(noun, "poss", plural, owner=owner)
        elif draw < 0.56:
            phrase = NounPhrase(noun, "dies", plural)
        else:
            phrase = NounPhrase(noun, "def", plural)
        phrase = self.decorated(phrase)
        if (
            len(phrase.stems) == 1
            and phrase.stems[0][0] in ("groß", "klein", "alt", "neu")
            and self.chance(0.3)
        ):
            colours = [a for a in ADJECTIVES if a.word in ("rot", "blau", "grün", "schwarz", "weiß")]
            if {"goods", "clothes"} & set(noun.classes):
                phrase = phrase.with_adjectives(self.pick(colours))
        return phrase

    @staticmethod
    def ownable(noun: Noun) -> bool:
        return bool(
            set(noun.classes) & {"thing", "clothes", "small", "home", "writing", "luggage", "room", "note"}
        )

    # circumstances

    def clock_time(self, earliest: int = 1, latest: int = 12) -> Adverbial:
        minute = self.pick([0, 15, 30, 45]) if self.chance(0.4) else self.between(1, 59)
        de, en = clock(self.between(earliest, latest), minute)
        return Adverbial(f"um {de}", f"at {en}")

    def date(self) -> Adverbial:
        if self.chance(0.3):
            day, month = self.between(1, 28), self.below(12)
        else:
            month = self.below(12)
            day = self.between(1, DAYS_IN_MONTH[month])
        de_month, en_month = list(MONTHS.items())[month]
        return Adverbial(
            f"am {german_ordinal_stem(day)}en {de_month}", f"on the {english_ordinal(day)} of {en_month}"
        )

    def time(self, tense: str, lasting: bool = True) -> Adverbial:
        """An adverbial that suits ``tense``; years and seasons only for what is ``lasting`` enough."""
        draw = self._random()
        if tense in ("past", "later"):
            if draw < 0.15:
                return self.date()
            if draw < 0.28:
                day, clock_time = self.pick(TIMES[tense][:2]), self.clock_time()
                return Adverbial(f"{day.de} {clock_time.de}", f"{clock_time.en} {day.en}")
            if draw < 0.36:
                de, en = self.pick(list(WEEKDAYS.items()))
                return Adverbial(f"am {de}", f"on {en}")
            if draw < 0.44 and tense == "past" and lasting:
                year = self.between(1950, 2019)
                return Adverbial(f"im Jahr {german_year(year)}", f"in {english_year(year)}")
            if draw < 0.54:
                return self.distance(tense, lasting)
            return self.pick([t for t in TIMES[tense] if lasting or not t.de.endswith(LONG)])
        if tense == "habit":
            if draw < 0.12:
                de, en = self.pick(list(WEEKDAYS.items()))
                return Adverbial(f"jeden {de}", f"every {en}")
            if draw < 0.25:
                day, clock_time = self.pick(TIMES["habit"][1:3]), self.clock_time(earliest=6, latest=11)
                return Adverbial(f"{day.de} {clock_time.de}", f"{clock_time.en} {day.en}")
        return self.pick(TIMES[tense])

    def distance(self, tense: str, lasting: bool) -> Adverbial:
        """``vor drei Tagen`` and ``in drei Tagen``."""
        number = self.between(2, 12)
        units = [("Stunden", "hours"), ("Tagen", "days"), ("Wochen", "weeks"), ("Monaten", "months")]
        de, en = self.pick(units[1:] if lasting else units[:2])
        de_count, en_count = german_cardinal(number), english_cardinal(number)
        if tense == "past":
            return Adverbial(f"vor {de_count} {de}", f"{en_count} {en} ago")
        return Adverbial(f"in {de_count} {de}", f"in {en_count} {en}")

    def city(self) -> Adverbial:
        de, en = self.pick(list(CITIES.items()))
        return Adverbial(f"in {de}", f"in {en}")

    def place(self) -> Adverbial:
        if self.chance(0.3):
            return self.city()
        word, at, _, en, _ = self.pick(PLACES)
        return Adverbial(prepositional(at, "dat", NounPhrase(self._place_noun(word))), en)

    def direction(self, infinitive: str) -> Adverbial:
        draw = self._random()
        if infinitive == "gehen":
            word, _, to, _, en = self.pick(PLACES)
            case = "dat" if to == "zu" else "acc"
            return Adverbial(prepositional(to, case, NounPhrase(self._place_noun(word))), en)
        if draw < 0.08:
            return Adverbial("in die Schweiz", "to Switzerland")
        de, en = self.pick(list((CITIES if draw < 0.7 else COUNTRIES).items()))
        return Adverbial(f"nach {de}", f"to {en}")

    @staticmethod
    def _place_noun(word: str) -> Noun:
        return NOUN.get(word) or Noun(word, PLACE_GENDER[word], word, word, word, ("place",))

    def company(self, subject: Nominal) -> Adverbial:
        while True:
            other = self.other(subject, "dat")
            if not isinstance(other, Pronoun) or self.chance(0.3):
                return Adverbial(prepositional("mit", "dat", other), f"with {other.en()}")

    # clauses

    def event(
        self,
        tense: str = "",
        subject: Nominal | None = None,
        frame: Frame | None = None,
        timed: float = 0.6,
        fronted: bool = True,
        polarity: bool = True,
        full: bool = True,
    ) -> Clause:
        """A clause with fitting objects; what is not given is drawn.

        Args:
            tense: meaning, as in `Clause`.
            subject: who acts.
            frame: the verb.
            timed: probability of an adverbial of time (``habit`` and ``now`` always have one).
            fronted: whether something else than the subject may stand first.
            polarity: whether it may be negated.
            full: whether place and company may be added.
        """
        tense = tense or self.pick(["past", "past", "past", "habit", "later", "now", "perfect"])
        if frame is None:
            frame = self.frame_for(tense)
        subject = subject or self.subject()
        clause = Clause(subject, frame, tense)
        clause = self.with_objects(clause)
        if tense in TIMES and (tense in ("habit", "now") or self.chance(timed)):
            clause = replace(clause, time=self.time(tense, frame.verb.infinitive in LASTING))
            if frame.verb.infinitive == "wohnen" and tense == "past":
                year = self.between(1950, 2019)
                clause = replace(
                    clause, time=Adverbial(f"im Jahr {german_year(year)}", f"in {english_year(year)}")
                )
        if tense == "past" and clause.frame.verb.base not in ("sein", "haben"):
            clause = replace(clause, compound=self.chance(0.6) or subject.person == 2)
        if tense == "later":
            clause = replace(clause, compound=self.chance(0.5) or clause.time is None)
        if tense in ("habit", "past", "later") and polarity and self.chance(0.22):
            clause = self.with_modal(clause)
        clause = self._with_where(clause, full)
        if tense == "perfect":
            clause = replace(clause, particle=self.pick(["schon", "noch nicht", "schon"]))
            if clause.particle == "noch nicht" and frame.kind not in ("dir", "loc"):
                clause = replace(clause, where=())
            thing = clause.thing
            indefinite = (
                isinstance(thing, NounPhrase) and thing.det in ("ein", "bare") and frame.kind != "prep"
            )
            if clause.particle == "noch nicht" and indefinite:
                assert isinstance(thing, NounPhrase)
                clause = replace(clause, thing=replace(thing, det="kein", count=0), particle="noch")
        elif tense in ("past", "later") and polarity and self.chance(0.18):
            clause = self.negated(clause)
        if fronted and clause.time is not None and self.chance(0.4):
            if clause.time.de not in ("selten", "immer", "gerade"):
                clause = replace(clause, front="time")
        elif fronted and self.chance(0.25) and self._may_open(clause):
            clause = replace(clause, front="thing")
        return clause

    def frame_for(self, tense: str) -> Frame:
        mark = {"habit": "h", "now": "n"}.get(tense, "")
        fitting = [
            f for f in FRAMES if mark in f.flags and (tense != "since" or f.verb.infinitive in ONGOING)
        ]
        if tense in ("perfect", "now", "later"):
            without = {"wohnen", "bleiben", "verstehen", "denken", "verlieren", "vergessen"}
            fitting = [f for f in fitting if f.verb.infinitive not in without]
        return self.pick(fitting)

    def with_objects(self, clause: Clause) -> Clause:
        frame, subject = clause.frame, clause.subject
        if frame.kind in ("dat", "dat+acc"):
            clause = replace(clause, receiver=self.other(subject, "dat"))
        if frame.kind == "dat+acc" and "kin" in frame.objects:
            return replace(clause, thing=self.kin(I if subject.pronoun.gender == "n" else subject.pronoun))
        if frame.kind in ("acc", "prep", "dat+acc") and frame.objects:
            about_people = {"person", "kin"} & set(frame.objects)
            if about_people and self.chance(0.7):
                return replace(
                    clause, thing=self.other(subject, "dat" if frame.preposition[1] == "dat" else "acc")
                )
            classes = [c for c in frame.objects if c not in ("person", "kin")]
            if classes:
                return replace(clause, thing=self.thing(classes, subject))
            return replace(clause, thing=self.other(subject))
        return clause

    def _with_where(self, clause: Clause, full: bool) -> Clause:
        frame, subject = clause.frame, clause.subject
        infinitive = frame.verb.infinitive
        found: list[Adverbial] = []
        if infinitive in WITH and full and self.chance(0.3):
            found.append(self.company(subject))
        elif infinitive in CAREFULLY and full and self.chance(0.3):
            found.append(self.pick(HOW))
        if frame.kind == "dir":
            if infinitive == "fahren" and self.chance(0.4):
                found = [self.pick(BY)]
            found.append(self.direction(infinitive))
        elif frame.kind == "loc":
            found.append(self.city() if infinitive in ("wohnen", "ankommen") else self.place())
        elif infinitive == "umsteigen":
            found.append(self.city())
        elif full and not found and "0" not in frame.flags and self.chance(0.3):
            found.append(self.place())
        return replace(clause, where=tuple(found))

    def with_modal(self, clause: Clause) -> Clause:
        wilful = clause.frame.verb.infinitive not in (
            "verlieren",
            "vergessen",
            "finden",
            "einschlafen",
            "aufwachen",
            "zerbrechen",
        )
        if not wilful or "r" in clause.frame.flags or clause.frame.verb.infinitive == "brauchen":
            return clause
        options = ["können", "müssen", "wollen", "dürfen"] + (
            [] if clause.tense == "past" else ["sollen", "möchten"]
        )
        return replace(clause, modal=self.pick(options), compound=False)

    def negated(self, clause: Clause) -> Clause:
        thing = clause.thing
        if clause.modal == "möchten" or (clause.where and clause.frame.kind not in ("dir",)):
            clause = replace(clause, where=() if clause.frame.kind != "loc" else clause.where)
        if clause.modal == "möchten":
            return clause
        if isinstance(thing, NounPhrase) and thing.det in ("ein", "bare"):
            if clause.frame.kind == "prep":
                return clause
            return replace(clause, thing=replace(thing, det="kein", count=0))
        return replace(clause, particle="nicht")

    def _may_open(self, clause: Clause) -> bool:
        """An object may stand first where its case is plain to see, or the subject's is."""
        thing = clause.thing
        if not isinstance(thing, NounPhrase) or not thing.definite or clause.frame.kind != "acc":
            return False
        shown = isinstance(clause.subject, Pronoun) and clause.subject.nom in ("ich", "du", "er", "wir")
        return not thing.is_person and (shown or thing.slot == "m") and f"{thing.owner.nom}" != "sie"
