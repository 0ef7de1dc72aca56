"""Sentence patterns about ages, prices, times, dates, counts and comparisons."""

from dataclasses import replace

from circumstances import WEEKDAYS
from clauses import Clause, Pair, finish
from german import Verb, conjugate, inflect_adjective
from lexicon import FRAME, Frame, nouns_of
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
    HE,
    SHE,
    WE,
    YOU,
    Adverbial,
    I,
    Name,
    NounPhrase,
)
from speaker import Speaker


def comparison(s: Speaker) -> Pair:
    noun = s.pick(
        [
            n
            for n in nouns_of("goods", "clothes", "home", "building", "town")
            if not n.mass and s.has_adjective(n)
        ]
    )
    adjective = s.adjective(noun)
    if adjective.word in ("rot", "blau", "grün", "schwarz", "weiß", "hell", "neu"):
        return ages(s)
    draw = s.below(3)
    if draw == 0:
        first, second = NounPhrase(noun, "dies"), s.pick([YOU, I, HE, SHE, WE])
        de = f"{first.de('nom')} ist {adjective.comparative} als "
        stem = {"euer": "eur"}.get(second.stem, second.stem)
        de += stem + {"m": "er", "f": "e", "n": "s"}[noun.gender]
        en_own = {"your": "yours", "my": "mine", "his": "his", "her": "hers", "our": "ours"}[
            second.english[2]
        ]
        return finish(de, f"{first.en()} is {adjective.english_comparative} than {en_own}")
    agent = s.pick(
        [(I, "ich je gesehen habe", "I have ever seen"), (WE, "wir je gesehen haben", "we have ever seen")]
    )
    if draw == 1:
        superlative = inflect_adjective(adjective.superlative_stem, "def", noun.gender, "nom")
        article_de = {"m": "der", "f": "die", "n": "das"}[noun.gender]
        relative_de = {"m": "den", "f": "die", "n": "das"}[noun.gender]
        return finish(
            f"das ist {article_de} {superlative} {noun.word} , {relative_de} {agent[1]}",
            f"that is the {adjective.english_superlative} {noun.english} {agent[2]}",
        )
    colours = s.shuffled(
        [("rot", "red"), ("blau", "blue"), ("grün", "green"), ("schwarz", "black"), ("weiß", "white")]
    )
    if not {"goods", "clothes"} & set(noun.classes):
        return ages(s)
    first = NounPhrase(noun, "def", stems=(colours[0],))
    second_de = f"{first.de('nom').split()[0]} {inflect_adjective(colours[1][0], 'def', noun.gender, 'nom')}"
    return finish(
        f"{first.de('nom')} ist {adjective.comparative} als {second_de}",
        f"{first.en()} is {adjective.english_comparative} than the {colours[1][1]} one",
    )


def ages(s: Speaker) -> Pair:
    person = (
        s.kin()
        if s.chance(0.6)
        else Name(*s.pick([("Anna", "f"), ("Paul", "m"), ("Lena", "f"), ("Karl", "m")]))
    )
    if person.plural:
        return price(s)
    old = isinstance(person, NounPhrase) and person.noun.word.startswith("Groß")
    parental = isinstance(person, NounPhrase) and person.noun.word in ("Vater", "Mutter", "Onkel", "Tante")
    age = s.between(66, 99) if old else s.between(35, 65) if parental else s.between(5, 39)
    draw = s.below(3)
    if draw == 0:
        return finish(
            f"{person.de('nom')} ist {german_cardinal(age)} Jahre alt",
            f"{person.en()} is {english_cardinal(age)} years old",
        )
    if draw == 1:
        return finish(
            f"{person.de('nom')} wird nächstes Jahr {german_cardinal(age)}",
            f"{person.en()} will turn {english_cardinal(age)} next year",
        )
    count = s.between(2, 30)
    other = s.pick(
        [
            ("ich", "I"),
            ("mein Bruder", "my brother"),
            ("seine Frau", "his wife"),
            ("Nora", "Nora"),
            ("Felix", "Felix"),
        ]
    )
    if other[0] in person.de("nom") or (other[0] == "seine Frau" and person.pronoun != HE):
        other = ("ich", "I")
    adjective = s.pick([("älter", "older"), ("jünger", "younger")])
    en_other = "me" if other[1] == "I" else other[1]
    return finish(
        f"{person.de('nom')} ist {german_cardinal(count)} Jahre {adjective[0]} als {other[0]}",
        f"{person.en()} is {english_cardinal(count)} years {adjective[1]} than {en_other}",
    )


def price(s: Speaker) -> Pair:
    thing = s.decorated(
        NounPhrase(
            s.pick([n for n in nouns_of("goods", "clothes", "ticket") if not n.mass]), s.pick(["def", "dies"])
        )
    )
    euros, cents = s.between(2, 999), s.between(10, 99)
    de, en = f"{german_cardinal(euros)} Euro", f"{english_cardinal(euros)} euros"
    if euros % 100 == 1:
        de, en = "hundert Euro", "a hundred euros"
    elif s.chance(0.3) and euros < 100:
        de, en = f"{de} {german_cardinal(cents)}", f"{en} {english_cardinal(cents)}"
    past = s.chance(0.3)
    draw = s.below(3)
    if draw == 0:
        buyer = s.subject()
        verb = Verb("", "bezahlen", "bezahlt", "bezahlte", "bezahlt")
        clause = Clause(
            buyer,
            Frame(verb, "pay", "none", complement=f"{de} für {thing.de('acc')}"),
            "past",
            compound=s.chance(0.5),
        )
        return finish(clause.main(), f"{buyer.en(True)} paid {en} for {thing.en()}")
    return finish(
        f"{thing.de('nom')} {'kostete' if past else 'kostet'} {de}",
        f"{thing.en()} {'cost' if past else 'costs'} {en}",
    )


def timetable(s: Speaker) -> Pair:
    """Clock times, trains, meetings, birthdays, floors."""
    draw = s.below(6)
    hour, minute = s.between(1, 12), s.between(0, 59) if s.chance(0.6) else s.pick([0, 15, 30, 45])
    de_time, en_time = clock(hour, minute)
    if draw == 0:
        asked = s.pick(
            [
                ("es ist", "it is"),
                ("es war schon", "it was already"),
                ("es ist erst", "it is only"),
                ("jetzt ist es", "it is now"),
            ]
        )
        return finish(f"{asked[0]} {de_time}", f"{asked[1]} {en_time}")
    city_de, city_en = (part.removeprefix("in ") for part in (lambda c: (c.de, c.en))(s.city()))
    vehicle = s.pick([n for n in nouns_of("vehicle") if n.word in ("Zug", "Bus", "Schiff")])
    number = s.between(1, 12)
    stem, ordinal = german_ordinal_stem(number), english_ordinal(number)
    if draw == 1:
        phrase = NounPhrase(
            vehicle,
            "def",
            stems=(s.pick([("nächst", "next"), ("letzt", "last"), ("erst", "first")]),)
            if s.chance(0.6)
            else (),
        )
        arriving = s.chance(0.4)
        de_verb, en_verb = ("kommt", "arrives") if arriving else ("fährt", "leaves")
        where = f"aus {city_de}" if arriving else f"nach {city_de}"
        en_where = f"from {city_en}" if arriving else f"to {city_en}"
        prefix = "an" if arriving else "ab"
        return finish(
            f"{phrase.de('nom')} {where} {de_verb} um {de_time} {prefix}",
            f"{phrase.en()} {en_where} {en_verb} at {en_time}",
        )
    if draw == 2:
        noun = s.pick([n for n in nouns_of("event") if n.word != "Aufgabe"])
        day_de, day_en = s.pick(list(WEEKDAYS.items()))
        phrase = NounPhrase(noun, "def")
        if s.chance(0.5):
            return finish(
                f"{phrase.de('nom')} findet am {day_de} um {de_time} statt",
                f"{phrase.en()} will take place at {en_time} on {day_en}",
            )
        return finish(
            f"am {day_de} fängt {phrase.de('nom')} um {de_time} an",
            f"on {day_en} , {phrase.en()} will begin at {en_time}",
        )
    if draw == 3:
        who = s.subject(third=True)
        year = s.between(1920, 2015)
        date = s.date()
        verb = conjugate("werden", "preterite", who.person, who.plural)
        return finish(
            f"{who.de('nom')} {verb} {date.de} {german_year(year)} in {city_de} geboren",
            f"{who.en()} {'were' if who.plural else 'was'} born in {city_en} {date.en} , {english_year(year)}",
        )
    if draw == 4:
        who = s.subject(third=True)
        clause = Clause(
            who, FRAME["wohnen"], "habit", where=(Adverbial(f"im {stem}en Stock", f"on the {ordinal} floor"),)
        )
        return finish(clause.main(), clause.en())
    noun = s.pick(nouns_of("writing", "goods", "clothes"))
    person = s.clear_subject()
    owner = person.pronoun
    phrase = NounPhrase(noun, "poss", owner=owner, stems=((stem, ordinal),))
    verb = "schreiben" if "writing" in noun.classes else "kaufen"
    clause = Clause(person, FRAME[verb], "past", compound=True, thing=phrase, time=s.time("past"))
    return finish(clause.main(), clause.en())


def existence(s: Speaker) -> Pair:
    classes = ["building", "plant", "animal", "person"]
    noun = s.pick(nouns_of(*classes))
    plural = s.chance(0.6)
    phrase = s.decorated(NounPhrase(noun, "ein", plural, count=s.between(2, 120) if plural else 0), 0.5)
    word = s.city() if {"building", "plant"} & set(noun.classes) else s.place()
    tense = s.pick(["present", "preterite"])
    verb = {"present": "gibt", "preterite": "gab"}[tense]
    be = {"present": ("is", "are"), "preterite": ("was", "were")}[tense][plural]
    if phrase.count % 100 == 1:
        phrase = replace(phrase, count=phrase.count + 1)
    if s.chance(0.5):
        return finish(f"{word.de} {verb} es {phrase.de('acc')}", f"{word.en} , there {be} {phrase.en()}")
    return finish(f"es {verb} {phrase.de('acc')} {word.de}", f"there {be} {phrase.en()} {word.en}")
