"""One clause: statements, passives, relative clauses."""

from dataclasses import replace

from circumstances import ONGOING
from clauses import Clause, Pair, finish, relative
from english import conjugate_en
from german import Verb, conjugate, relative_pronoun
from lexicon import FRAME, FRAMES, NAMES, Frame, copula, nouns_of
from numbers_in_words import (
    english_cardinal,
    german_cardinal,
)
from phrases import (
    FORMAL,
    HE,
    SHE,
    WE,
    YOU,
    YOU_ALL,
    Adverbial,
    I,
    Name,
    Nominal,
    NounPhrase,
)
from speaker import Speaker


def event_of(speaker: Speaker, subject: Nominal, tense: str, timed: float = 0.0) -> Clause:
    return speaker.event(
        tense, subject=subject, timed=timed, fronted=False, polarity=tense == "past", full=False
    )


def narrated(clause: Clause) -> Clause:
    """The preterite, except for ``du`` and ``ihr``, where it sounds bookish."""
    return replace(clause, compound=clause.subject.person == 2 and not clause.modal)


def simple(s: Speaker) -> Pair:
    clause = s.event()
    return finish(clause.main(), clause.en())


def since(s: Speaker) -> Pair:
    frame = FRAME[s.pick(sorted(ONGOING))]
    count, (de, en) = (
        s.between(2, 40),
        s.pick([("Jahren", "years"), ("Wochen", "weeks"), ("Stunden", "hours")]),
    )
    if frame.verb.infinitive in ("suchen", "warten", "schlafen"):
        count, (de, en) = s.between(2, 12), ("Stunden", "hours")
    elif de == "Stunden":
        de, en = "Monaten", "months"
    clause = s.event("since", frame=frame, subject=s.subject())
    time = Adverbial(f"seit {german_cardinal(count)} {de}", f"for {english_cardinal(count)} {en}")
    progressive = replace(
        frame,
        english=f"be {conjugate_en(frame.english.split()[0], 'ing')}{frame.english[len(frame.english.split()[0]) :]}",
    )
    clause = replace(clause, frame=frame if frame.english == "live" else progressive, time=time)
    clause = replace(clause, front=s.pick(["time", "subject", "subject"]))
    return finish(clause.main(), clause.en())


def with_relative(s: Speaker, phrase: NounPhrase, avoid: str = "") -> NounPhrase:
    """Give a noun phrase a relative clause, in which it is the one who acts or the one acted on."""
    if phrase.is_person and (phrase.det == "poss" or s.chance(0.5)):
        clause = event_of(s, replace(phrase, relative=("", "")), "past", 0.5)
        return relative(clause, "subject", phrase)
    agents: list[Nominal] = [I, WE, HE, SHE, Name("Anna", "f"), Name("Peter", "m"), Name("Maria", "f")]
    agent = s.pick(agents)
    classes = set(phrase.noun.classes)
    kinds = ("acc", "prep", "dat") if phrase.is_person else ("acc", "prep")
    fitting = [f for f in FRAMES if f.kind in kinds and (set(f.objects) & classes or f.kind == "dat")]
    fitting = [f for f in fitting if f.verb.infinitive not in ("lachen", "suchen", avoid)]
    if not fitting:
        return phrase
    frame = s.pick(fitting)
    clause = Clause(agent, frame, "past", compound=s.chance(0.7))
    if s.chance(0.5):
        clause = replace(clause, time=s.time("past", False))
    role = "receiver" if frame.kind == "dat" else "thing"
    clause = replace(clause, receiver=phrase) if role == "receiver" else replace(clause, thing=phrase)
    return relative(clause, role, phrase)


def relative_subject(s: Speaker) -> Pair:
    noun = s.pick(nouns_of("person"))
    phrase = with_relative(s, NounPhrase(noun, "def", s.chance(0.25)))
    main = s.event(subject=phrase, fronted=False)
    return finish(main.main(), main.en())


def relative_object(s: Speaker) -> Pair:
    frame = s.pick(
        [f for f in FRAMES if f.kind in ("acc", "prep") and set(f.objects) - {"person", "kin", "drink"}]
    )
    noun = s.pick(
        [n for n in nouns_of(*(c for c in frame.objects if c not in ("person", "kin"))) if not n.mass]
    )
    phrase = s.decorated(NounPhrase(noun, "def", s.chance(0.25)), 0.3)
    phrase = with_relative(s, phrase, avoid=frame.verb.infinitive)
    subject = s.subject()
    while subject.en() in phrase.relative[1].split():  # not "Peter ... that Peter washed"
        subject = s.subject()
    main = Clause(subject, frame, "past", compound=s.chance(0.3), thing=phrase)
    if s.chance(0.3):
        main = replace(main, modal=s.pick(["wollen", "müssen"]), compound=False)
        if "r" in frame.flags or frame.verb.infinitive in (
            "vergessen",
            "verlieren",
            "zerbrechen",
            "brauchen",
        ):
            main = replace(main, modal="")
    if s.chance(0.4) and not phrase.relative[0]:
        main = replace(main, time=s.time("past", False), front="time")
    return finish(main.main(), main.en())


def acquaintance(s: Speaker) -> Pair:
    """``kennen`` with a relative clause: ``Kennst du die Frau, die ...?``."""
    phrase = with_relative(s, NounPhrase(s.pick(nouns_of("person")), "def", s.chance(0.25)))
    verb = Verb("", "kennen", "kennt", "kannte", "gekannt")
    others: list[Nominal] = [I, WE, Name(*s.pick(NAMES))]
    who = s.pick([YOU, YOU_ALL, FORMAL]) if s.chance(0.5) else s.pick(others)
    clause = Clause(who, Frame(verb, "know", "acc"), "habit", thing=phrase)
    if who.pronoun in (YOU, YOU_ALL, FORMAL):
        return finish(clause.after(""), clause.en(question=True), "?")
    clause = replace(clause, particle=s.pick(["", "nicht"]))
    return finish(clause.main(), clause.en())


FLAWS = {
    "zu teuer": ("be too expensive", "goods clothes home"),
    "zu klein": ("be too small", "thing clothes home"),
    "zu schwer": ("be too heavy", "luggage parcel"),
    "kaputt": ("be broken", "machine device"),
    "schmutzig": ("be dirty", "clothes room"),
    "zu lang": ("be too long", "text"),
    "sehr langweilig": ("be very boring", "text show"),
    "zu schwierig": ("be too difficult", "puzzle"),
    "sehr schön": ("be very beautiful", "art music clothes home"),
    "sehr alt": ("be very old", "building goods text"),
}


def whose(s: Speaker) -> Pair:
    """Genitive: ``die Frau, deren Auto ...`` and ``das Auto meines Bruders``."""
    flaw = s.pick(["kaputt", "sehr schön", "sehr alt", "zu klein"])
    english, classes = FLAWS[flaw]
    owned = s.pick([n for n in nouns_of(*classes.split()) if Speaker.ownable(n)])
    thing = NounPhrase(owned, "def")
    if s.chance(0.5):
        owner = s.kin(s.pick([I, WE, YOU])) if s.chance(0.6) else NounPhrase(s.pick(nouns_of("job")), "def")
        if owner.relative[0] or owner.det == "name":
            return simple(s)
        clause = Clause(replace(thing, genitive=owner), copula(flaw, english), s.pick(["past", "habit"]))
        return finish(clause.main(), clause.en())
    noun = s.pick(nouns_of("person"))
    person = NounPhrase(noun, "def")
    clause = Clause(replace(thing, det="bare"), copula(flaw, english), "habit")
    pair = (clause.sub(relative_pronoun(person.slot, "gen")), f"whose {clause.en()}")
    main = s.event(
        "past",
        fronted=False,
        timed=0.3,
        subject=s.subject(),
        frame=FRAME[s.pick(["helfen", "anrufen", "besuchen", "zuhören"])],
        full=False,
    )
    person = replace(person, relative=pair)
    dative = main.frame.kind == "dat"
    main = replace(main, receiver=person) if dative else replace(main, thing=person)
    return finish(main.main(), main.en())


def passive(s: Speaker) -> Pair:
    refuse = {
        "treffen",
        "brauchen",
        "sehen",
        "vergessen",
        "anziehen",
        "ausziehen",
        "nachschlagen",
        "verlieren",
    }
    frame = s.pick([f for f in FRAMES if f.kind == "acc" and f.verb.infinitive not in refuse])
    classes = [c for c in frame.objects if c not in ("person", "kin")]
    thing = s.thing(classes, plain=True) if classes else s.person()
    head, _, rest = frame.english.partition(" ")
    particles = rest.replace("~", "").replace("=", "")
    english = f"be {conjugate_en(head, 'participle')} {particles}".strip()
    tense = s.pick(["past", "past", "perfect", "habit"])
    clause = Clause(thing, copula(frame.verb.past_participle, english, "werden"), tense)
    if tense in ("past", "habit"):
        clause = replace(clause, time=s.time(tense, False), modal=s.pick(["", "", "müssen"]))
    else:
        clause = replace(clause, particle=s.pick(["schon", "noch nicht"]))
    if s.chance(0.4) and not clause.modal:
        agent = s.person() if s.chance(0.5) else s.kin()
        clause = replace(
            clause,
            where=(Adverbial(f"von {agent.de('dat')}".replace("von dem ", "vom "), f"by {agent.en()}"),),
        )
    if clause.time and s.chance(0.4):
        clause = replace(clause, front="time")
    return finish(clause.main(), clause.en())


def liking(s: Speaker) -> Pair:
    """``gefallen``, ``schmecken``, ``gehören``: the German subject is the English object, or the other way round."""
    kind = s.pick(["gefallen", "schmecken", "gehören"])
    person: Nominal = s.subject(third=True) if s.chance(0.6) else s.pick([I, YOU, HE, SHE, WE, YOU_ALL])
    classes = {
        "gefallen": ["art", "clothes", "show", "home"],
        "schmecken": ["food", "drink"],
        "gehören": ["thing", "clothes"],
    }
    thing = s.thing(classes[kind], plain=True)
    if kind == "gehören":
        verb = Verb("", "gehören", "gehört", "gehörte", "gehört")
        clause = Clause(thing, Frame(verb, "belong to", "dat"), s.pick(["habit", "past"]), receiver=person)
        return finish(clause.main(), clause.en())
    third, preterite, participle = {
        "gefallen": ("gefällt", "gefiel", "gefallen"),
        "schmecken": ("schmeckt", "schmeckte", "geschmeckt"),
    }[kind]
    tense, negative = s.pick(["habit", "past"]), s.chance(0.3)
    particle = "nicht" if negative else ""
    likes = Clause(
        person,
        Frame(Verb("", kind, third, preterite, participle), "like", "acc"),
        tense,
        thing=thing,
        particle=particle,
    )
    finite = conjugate(likes.frame.verb, "present" if tense == "habit" else "preterite", 3, thing.plural)
    if s.chance(0.5):
        return finish(f"{person.de('dat')} {finite} {thing.de('nom')} {particle}", likes.en())
    return finish(f"{thing.de('nom')} {finite} {person.de('dat')} {particle}", likes.en())
