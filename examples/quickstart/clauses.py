"""One meaning, two clauses: word order and verb forms of German and English from the same `Clause`.

German follows the field model: front field | finite verb | middle field | closing bracket (separated prefix,
participle, infinitive). In a subordinate clause the finite verb closes the bracket.
"""

from dataclasses import dataclass, replace

from english import conjugate_en, verb_group
from german import conjugate, relative_pronoun
from lexicon import Frame
from phrases import Adverbial, Name, Nominal, NounPhrase, Pronoun, prepositional


def join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def tidy(text: str, mark: str = ".") -> str:
    """Join commas to their words, drop double ones, set the closing mark and the first capital."""
    words: list[str] = []
    for word in text.replace(",", " , ").split():
        if word != ",":
            words.append(word)
        elif words and not words[-1].endswith(","):
            words[-1] += ","
    sentence = " ".join(words).rstrip(",") + mark
    return sentence[0].upper() + sentence[1:]


Pair = tuple[str, str]


def finish(de: str, en: str, mark: str = ".") -> Pair:
    return tidy(de, mark), tidy(en, mark)


@dataclass(frozen=True)
class Clause:
    """A predicate with its people, things and circumstances.

    Attributes:
        tense: meaning: ``habit``, ``now``, ``later``, ``past``, ``perfect``, ``since``, ``pluperfect``, ``would``.
        compound: German form where there is a choice: ``wird kommen`` for ``later``, ``ist gekommen`` for ``past``.
        modal: German modal verb, in the present or (for ``past``) the preterite.
        receiver: dative object; ``thing``: accusative or prepositional object.
        particle: ``nicht``, ``schon``, ``noch nicht``, ``noch nie``, ``noch`` (before ``kein``) or empty; ``kein`` where the object carries it.
        where: place, direction or company, in German order.
        front: ``subject``, ``time``, ``where`` or ``thing``.
    """

    subject: Nominal
    frame: Frame
    tense: str = "past"
    compound: bool = False
    modal: str = ""
    receiver: Nominal | None = None
    thing: Nominal | None = None
    time: Adverbial | None = None
    where: tuple[Adverbial, ...] = ()
    particle: str = ""
    front: str = "subject"

    # German

    def _verb(self) -> tuple[str, str, str]:
        """(finite verb, what closes a main clause, what stands before the finite verb in a subordinate one)."""
        verb, tense = self.frame.verb, self.tense
        person, plural = self.subject.person, self.subject.plural
        if self.modal:
            form = {"past": "preterite", "would": "subjunctive"}.get(tense, "present")
            return conjugate(self.modal, form, person, plural), verb.infinitive, verb.infinitive
        if tense in ("perfect", "pluperfect") or (tense == "past" and self.compound):
            form = "preterite" if tense == "pluperfect" else "present"
            return conjugate(verb.aux, form, person, plural), verb.past_participle, verb.past_participle
        if tense == "would" and verb.base in ("haben", "sein"):
            return conjugate(verb.base, "subjunctive", person, plural), "", ""
        if tense == "would" or (tense == "later" and self.compound):
            form = "subjunctive" if tense == "would" else "present"
            return conjugate("werden", form, person, plural), verb.infinitive, verb.infinitive
        simple = conjugate(verb, "preterite" if tense == "past" else "present", person, plural)
        return simple, verb.prefix, verb.prefix

    def _joined(self) -> str:
        """Verbs at the end of a subordinate clause: ``anruft``, ``angerufen hat``."""
        finite, _, before = self._verb()
        return before + finite if before and before == self.frame.verb.prefix else join(before, finite)

    def _thing(self) -> str:
        assert self.thing is not None
        if self.frame.kind == "prep":
            return prepositional(*self.frame.preposition, self.thing)
        return self.thing.de("acc")

    def middle(self, skip: str = "", inserted: str = "") -> str:
        """The middle field without the role in ``skip`` (fronted, asked for, or the relative pronoun).

        ``inserted`` is a word like ``bitte``, which follows the pronouns.
        """
        time = "" if skip == "time" or self.time is None else self.time.de
        thing = "" if skip == "thing" or self.thing is None else self._thing()
        receiver = "" if skip == "receiver" or self.receiver is None else self.receiver.de("dat")
        where = "" if skip == "where" else join(*(place.de for place in self.where))
        reflexive = self.subject.pronoun.reflexive if self.frame.verb.reflexive else ""
        early_thing = early_receiver = oblique = ""
        if self.frame.kind == "prep":
            oblique, thing = thing, ""
        elif isinstance(self.thing, Pronoun):
            early_thing, thing = thing, ""
        if isinstance(self.receiver, Pronoun):
            early_receiver, receiver = receiver, ""
        definite = self.thing is None or self.thing.definite or getattr(self.thing, "det", "") == "kein"
        # place and manner follow a definite object; they precede an indefinite or prepositional one
        before_thing = before_oblique = ""
        if oblique:
            before_oblique, where = where, ""
        elif thing and not definite:
            before_thing, where = where, ""
        particle = self.particle
        if particle == "noch" or (particle and thing and not definite and particle != "nicht"):
            ordered, particle = join(receiver, time, particle, before_thing, thing), ""
        elif particle and definite:
            ordered = join(receiver, thing, time)
        else:
            ordered = join(time, receiver, before_thing, thing)
        pronouns = join(early_thing, reflexive, early_receiver, inserted)
        return join(pronouns, ordered, particle, before_oblique, oblique, where, self.frame.complement)

    def main(self) -> str:
        """Verb second."""
        if self.front == "subject":
            return self.after(self.subject.de("nom"), inverted=False)
        if self.front == "time":
            assert self.time is not None
            return self.after(self.time.de, skip="time")
        if self.front == "where":
            first, *rest = self.where
            return replace(self, where=tuple(rest)).after(first.de)
        return self.after(self._thing(), skip="thing")

    def after(self, opening: str, skip: str = "", inverted: bool = True) -> str:
        """Finite verb directly after ``opening`` (an adverbial, a question word, a clause with its comma, or nothing)."""
        finite, closing, _ = self._verb()
        subject = self.subject.de("nom") if inverted and skip != "subject" else ""
        middle = self.middle(skip)
        if subject and self.frame.verb.reflexive and not isinstance(self.subject, Pronoun):
            # "Gestern freute sich Anna", the reflexive pronoun before a full subject
            reflexive = self.subject.pronoun.reflexive
            subject, middle = f"{reflexive} {subject}", middle.removeprefix(reflexive).strip()
        return join(opening, finite, subject, middle, closing)

    def sub(self, opening: str, skip: str = "") -> str:
        """Verb last, after a conjunction or a relative pronoun."""
        subject = "" if skip == "subject" else self.subject.de("nom")
        return join(opening, subject, self.middle(skip), self._joined())

    def zu(self, opening: str = "") -> str:
        """Infinitive clause: ``um das Buch abzuholen``."""
        return join(opening, self.middle(), self.frame.verb.zu_infinitive)

    # English

    def _after_verb(self, verb: str, skip: str, time: str) -> str:
        """The verb group's rest with objects in place, then place and time."""
        fixed = [word for word in verb.split() if word[0] not in "~="]
        before = [word[1:] for word in verb.split() if word[0] == "~"]
        behind = [word[1:] for word in verb.split() if word[0] == "="]
        thing = "" if skip == "thing" or self.thing is None else self.thing.en()
        receiver = "" if skip == "receiver" or self.receiver is None else self.receiver.en()
        if isinstance(self.thing, Pronoun):
            before, behind = [], before + behind
        objects = join(*before, thing, *behind)
        if self.receiver is not None and self.thing is not None:
            moved = self.frame.receiver or isinstance(self.thing, Pronoun)
            if moved or skip == "receiver":
                preposition = self.frame.receiver or "to"
                objects = join(objects, preposition, receiver)
            else:
                objects = join(receiver, objects)
        elif self.receiver is not None:
            objects = receiver
        # "travelled to Paris by train": English names the goal first
        places = reversed(self.where) if self.frame.kind in ("dir", "loc") else self.where
        where = "" if skip == "where" else join(*(place.en for place in places))
        yet = "yet" if self.particle in ("noch nicht", "noch") else ""
        return join(*fixed, objects, where, time, yet)

    def _english(self, skip: str, front_time: bool, question: bool = False) -> tuple[str, str]:
        """(auxiliary, everything behind it and the subject)."""
        negative = self.particle in ("nicht", "noch nicht") or getattr(self.thing, "det", "") == "kein"
        person, plural = self.subject.person, self.subject.english_plural
        support = negative or (question and skip != "subject")
        auxiliary, verb = verb_group(self.frame.english, self.tense, person, plural, self.modal, support)
        adverb = {"schon": "already", "noch nie": "never"}.get(self.particle, "")
        time = "" if self.time is None or front_time or skip == "time" else self.time.en
        if self.time is not None and self.time.mid:
            adverb, time = join(adverb, time), ""
        rest = join("not" if negative else "", adverb, self._after_verb(verb, skip, time))
        return auxiliary, rest

    def en(self, opening: str = "", skip: str = "", question: bool = False) -> str:
        """English clause. ``question`` inverts, ``opening`` is a conjunction, relative or question word."""
        front_time = not opening and not question and self.front == "time"
        auxiliary, rest = self._english(skip, front_time, question)
        subject = "" if skip == "subject" else self.subject.en(subject=True)
        if front_time:
            assert self.time is not None
            opening = f"{self.time.en} ,"
        ordered = join(auxiliary, subject, rest) if question else join(subject, auxiliary, rest)
        text = join(opening, ordered)
        return text.replace("can not ", "cannot ")

    def en_infinitive(self, form: str = "to") -> str:
        """``to pick up the parcel``, or with ``form="ing"`` ``picking up the parcel``."""
        head, _, rest = self.frame.english.partition(" ")
        time = self.time.en if self.time else ""
        if form == "ing":
            return self._after_verb(f"{conjugate_en(head, 'ing')} {rest}", "", time)
        return join(
            "not" if self.particle == "nicht" else "", form, self._after_verb(self.frame.english, "", time)
        )


def relative(clause: Clause, role: str, antecedent: NounPhrase) -> NounPhrase:
    """Attach ``clause`` to ``antecedent``, which plays ``role`` (``subject``, ``thing``, ``receiver``) in it."""
    slot, frame = antecedent.slot, clause.frame
    case = {"subject": "nom", "receiver": "dat", "thing": "acc"}[role]
    opening = relative_pronoun(slot, case)
    if role == "thing" and frame.kind == "prep":
        preposition, case = frame.preposition
        opening = f"{preposition} {relative_pronoun(slot, case)}"
    english = ("who" if antecedent.is_person else "that") if role == "subject" else ""
    if role == "receiver" and clause.thing is None and not isinstance(clause.subject, (Pronoun, Name)):
        english = "who"
    return replace(antecedent, relative=(clause.sub(opening, role), clause.en(english, role)))
