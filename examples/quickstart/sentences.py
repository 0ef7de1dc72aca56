"""Sentence patterns: each draws a meaning from a `Speaker` and returns the German and the English sentence."""

from collections.abc import Callable
from dataclasses import replace

from clauses import Clause, relative, tidy
from english import conjugate_en
from german import Verb, conjugate, imperative, inflect_adjective, relative_pronoun
from lexicon import FRAME, FRAMES, Frame, nouns_of
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
    IT,
    SHE,
    THEY,
    THING,
    WE,
    YOU,
    YOU_ALL,
    Adverbial,
    I,
    Name,
    Nominal,
    NounPhrase,
    Pronoun,
)
from speaker import ONGOING, TIMES, WEEKDAYS, Speaker, copula

Pair = tuple[str, str]

# German complement | English | verb
MOODS = [
    copula(*line.split("|"))
    for line in """\
müde|be tired
krank|be ill
sehr hungrig|be very hungry
glücklich|be happy
traurig|be sad
nervös|be nervous
beschäftigt|be busy
wütend|be angry
neugierig|be curious
zu spät|be late
allein|be alone
keine Zeit|have no time|haben
kein Geld|have no money|haben
viel Arbeit|have a lot of work|haben
großen Hunger|be very hungry|haben
Angst|be afraid|haben
Kopfschmerzen|have a headache|haben
Fieber|have a temperature|haben
frei|have the day off|haben
Glück|be lucky|haben
recht|be right|haben""".splitlines()
]
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
RAIN = Frame(Verb("", "regnen", "regnet", "regnete", "geregnet"), "rain", "none")
SNOW = Frame(Verb("", "schneien", "schneit", "schneite", "geschneit"), "snow", "none")
WEATHER = [RAIN, SNOW, copula("sehr kalt", "be very cold"), copula("zu dunkel", "be too dark"), copula("spät", "be late")]
WITHOUT_OBJECT = [f for f in FRAMES if f.kind == "none" and not f.flags.count("r")]
SAY = {
    "past": [("sagte", "said"), ("erzählte", "told us"), ("schrieb", "wrote"), ("bemerkte", "noticed")],
}
# matrix of a zu-clause: German words, English words, ``to`` or ``ing``, needs a past tense frame
TRY = [
    ("versuchen", "versucht", "versuchte", "versucht", "try", "to"),
    ("beschließen", "beschließt", "beschloss", "beschlossen", "decide", "to"),
    ("vergessen", "vergisst", "vergaß", "vergessen", "forget", "to"),
    ("versprechen", "verspricht", "versprach", "versprochen", "promise", "to"),
    ("planen", "plant", "plante", "geplant", "plan", "to"),
    ("an+fangen", "fängt", "fing", "gefangen", "begin", "to"),
    ("auf+hören", "hört", "hörte", "gehört", "stop", "ing"),
    ("vor+haben", "hat", "hatte", "gehabt", "intend", "to"),
]
JUDGEMENTS = [
    ("Es ist wichtig", "It is important"),
    ("Es ist nicht leicht", "It is not easy"),
    ("Es ist verboten", "It is forbidden"),
    ("Es macht Spaß", "It is fun"),
    ("Es wäre besser", "It would be better"),
    ("Es war eine gute Idee", "It was a good idea"),
    ("Es ist unmöglich", "It is impossible"),
]


def finish(de: str, en: str, mark: str = ".") -> Pair:
    return tidy(de, mark), tidy(en, mark)


def clear(speaker: Speaker) -> Nominal:
    """A third person whom a following ``er`` or ``sie`` can mean."""
    while True:
        subject = speaker.subject(third=speaker.chance(0.75))
        if subject.pronoun.gender != "n":
            return subject


def mood(speaker: Speaker, subject: Nominal, tense: str) -> Clause:
    """A state (``weil er müde war``) or, less often, something done."""
    if speaker.chance(0.6):
        return Clause(subject.pronoun, speaker.pick(MOODS), tense)
    return event_of(speaker, subject.pronoun, tense)


def event_of(speaker: Speaker, subject: Nominal, tense: str, timed: float = 0.0) -> Clause:
    return speaker.event(tense, subject=subject, timed=timed, fronted=False, polarity=tense == "past", full=False)


def simple(s: Speaker) -> Pair:
    clause = s.event()
    return finish(clause.main(), clause.en())


def since(s: Speaker) -> Pair:
    frame = FRAME[s.pick(sorted(ONGOING))]
    count, (de, en) = s.between(2, 40), s.pick([("Jahren", "years"), ("Wochen", "weeks"), ("Stunden", "hours")])
    if frame.verb.infinitive in ("suchen", "warten", "schlafen"):
        count, (de, en) = s.between(2, 12), ("Stunden", "hours")
    elif de == "Stunden":
        de, en = "Monaten", "months"
    clause = s.event("since", frame=frame, subject=s.subject())
    time = Adverbial(f"seit {german_cardinal(count)} {de}", f"for {english_cardinal(count)} {en}")
    progressive = replace(frame, english=f"be {conjugate_en(frame.english.split()[0], 'ing')}{frame.english[len(frame.english.split()[0]) :]}")
    clause = replace(clause, frame=frame if frame.english == "live" else progressive, time=time)
    clause = replace(clause, front=s.pick(["time", "subject", "subject"]))
    return finish(clause.main(), clause.en())


def reason(s: Speaker) -> Pair:
    subject = clear(s)
    tense = s.pick(["past", "past", "later"])
    main = s.event(tense, subject=subject, timed=0.5)
    cause = mood(s, subject, "past" if tense == "past" else "habit")
    if s.chance(0.2):
        frame = s.pick(WEATHER)
        english = frame.english if tense == "past" or frame.english[:2] == "be" else f"be {frame.english}ing"
        cause = Clause(IT, replace(frame, english=english), cause.tense)
    de, en = s.pick([("weil", "because"), ("weil", "because"), ("obwohl", "although")])
    if s.chance(0.3):
        opening = cause.sub(de)
        main = replace(main, front="subject")
        return finish(main.after(f"{opening} ,"), f"{cause.en(en)} , {main.en()}")
    return finish(f"{main.main()} , {cause.sub(de)}", f"{main.en()} {cause.en(en)}")


def flawed_thing(s: Speaker) -> Pair:
    """``er``, ``sie`` or ``es`` for a thing, always ``it`` in English."""
    flaw = s.pick(sorted(FLAWS))
    english, classes = FLAWS[flaw]
    noun = s.pick([n for n in nouns_of(*classes.split()) if not n.mass])
    plural = s.chance(0.2)
    suitable = [f for f in FRAMES if f.kind == "acc" and set(f.objects) & set(noun.classes)]
    bad = {"zerbrechen", "verlieren", "finden", "suchen", "sehen", "nachschlagen", "vergessen", "kennen", "brauchen"}
    suitable = [f for f in suitable if f.verb.infinitive not in bad]
    if not suitable:
        return simple(s)
    thing = s.decorated(NounPhrase(noun, s.pick(["def", "dies"]), plural), 0.2)
    main = Clause(s.subject(), s.pick(suitable), "past", compound=s.chance(0.6), thing=thing)
    if s.chance(0.5):
        main = replace(main, time=s.time("past", lasting=False), front=s.pick(["time", "subject"]))
    if s.chance(0.45):
        main = replace(main, particle="nicht")
    conjunction = s.pick([("weil", "because"), ("obwohl", "although")])
    cause = Clause(THING[thing.slot], copula(flaw, english), "past")
    return finish(f"{main.main()} , {cause.sub(conjunction[0])}", f"{main.en()} {cause.en(conjunction[1])}")


def sequence(s: Speaker) -> Pair:
    subject = clear(s)
    kind = s.pick(["nachdem", "bevor", "als", "sobald", "während"])
    english = {"nachdem": "after", "bevor": "before", "als": "when", "sobald": "as soon as", "während": "while"}[kind]
    if kind == "nachdem":
        first = event_of(s, subject.pronoun, "pluperfect")
    elif kind == "als":
        first = Clause(subject.pronoun, s.pick(WHEN), "past")
    elif kind == "während":
        other = s.person_unlike(subject)
        frame = s.pick([f for f in FRAMES if "n" in f.flags and f.kind in ("acc", "none")])
        first = replace(event_of(s, other, "past"), frame=frame, compound=False, modal="", particle="")
        first = s._with_objects(replace(first, thing=None, receiver=None, where=()))
        head, _, rest = frame.english.partition(" ")
        first = replace(first, frame=replace(frame, english=f"be {conjugate_en(head, 'ing')} {rest}".strip()))
    else:
        first = event_of(s, subject.pronoun, "past")
        first = replace(first, compound=False, modal="", particle="")
        if getattr(first.thing, "det", "") == "kein":
            first = replace(first, thing=None, frame=s.pick(WITHOUT_OBJECT))
    main = replace(s.event("past", subject=subject, timed=0.2, fronted=False, polarity=False), compound=False)
    if s.chance(0.5):
        return finish(main.after(f"{first.sub(kind)} ,"), f"{first.en(english)} , {main.en()}")
    return finish(f"{main.main()} , {first.sub(kind)}", f"{main.en()} {first.en(english)}")


WHEN = [
    replace(FRAME["zurückkommen"], english="come home", complement="nach Hause", verb=Verb("", "kommen", "kommt", "kam", "gekommen", "sein")),
    replace(FRAME["aufwachen"]),
    copula("ein Kind", "be a child"),
    copula("in Paris", "be in Paris"),
    copula("jung", "be young"),
    copula("zu Hause", "be at home"),
    copula("im Krankenhaus", "be in hospital"),
]


def future_condition(s: Speaker) -> Pair:
    """``Wenn es morgen regnet, ...``; English has the present in the condition."""
    time = s.pick(TIMES["later"][:4])
    subject = clear(s)
    if s.chance(0.4):
        condition = Clause(IT, s.pick(WEATHER[:3]), "habit", time=time)
    else:
        condition = replace(mood(s, subject, "habit"), time=time, modal="", particle="")
    main = replace(s.event("later", subject=subject, timed=0.0, fronted=False), modal="")
    if condition.time and condition.frame.complement in ("zu spät", "allein"):
        condition = replace(condition, time=None)
    if s.chance(0.6):
        return finish(main.after(f"{condition.sub('wenn')} ,"), f"{condition.en('if')} , {main.en()}")
    return finish(f"{main.main()} , {condition.sub('wenn')}", f"{main.en()} {condition.en('if')}")


WISHES = [
    copula(*line.split("|"))
    for line in """\
mehr Zeit|have more time|haben
mehr Geld|have more money|haben
Ferien|be on holiday|haben
reich|be rich
nicht so müde|be not so tired
gesund|be healthy
jünger|be younger
ein neues Auto|have a new car|haben
einen Garten|have a garden|haben""".splitlines()
]


def unreal(s: Speaker) -> Pair:
    """``Wenn ich mehr Zeit hätte, würde ich ...``."""
    subject = clear(s)
    wish = s.pick(WISHES)
    condition = Clause(subject.pronoun, wish, "would")
    main = replace(event_of(s, subject, "would"), modal="können" if s.chance(0.3) else "")
    english = Clause(subject.pronoun, wish, "past").en("if").replace("be not", "not be")
    english = english.replace("was not", "were not").replace(" was ", " were ")
    if s.chance(0.65):
        return finish(main.after(f"{condition.sub('wenn')} ,"), f"{english} , {main.en()}")
    return finish(f"{main.main()} , {condition.sub('wenn')}", f"{main.en()} {english}")


def that_clause(s: Speaker) -> Pair:
    speaker_de, speaker_en = s.pick(
        [
            ("ich glaube", "I believe"),
            ("ich weiß", "I know"),
            ("wir hoffen", "we hope"),
            ("ich bin froh", "I am glad"),
            ("es ist schade", "it is a pity"),
            ("es tut mir leid", "I am sorry"),
            ("ich bin sicher", "I am sure"),
            ("in der Zeitung steht", "the newspaper says"),
        ]
    )
    inner = s.event(fronted=False)
    if s.chance(0.45):
        subject = clear(s)
        de, en = s.pick(SAY["past"])
        verb = Verb("", "", "", de, "")
        speaker_de = f"{subject.de('nom')} {conjugate(verb, 'preterite', subject.person, subject.plural)}"
        speaker_en = f"{subject.en(True)} {en}"
        if de == "erzählte":
            speaker_de += " uns"
        inner = event_of(s, subject.pronoun if s.chance(0.6) else s.kin(), s.pick(["pluperfect", "past"]), 0.0)
    return finish(f"{speaker_de} , {inner.sub('dass')}", f"{speaker_en} {inner.en('that')}")


def infinitive_clause(s: Speaker) -> Pair:
    subject = s.subject()
    infinitive, third, preterite, participle, english, form = s.pick(TRY)
    prefix, _, base = infinitive.rpartition("+")
    frame = Frame(Verb(prefix, base, third, preterite, participle), english, "none")
    inner = replace(event_of(s, subject, "habit"), time=None, modal="", particle="")
    if "r" in inner.frame.flags or inner.frame.verb.infinitive == "kennen":
        return simple(s)
    outer = Clause(subject, frame, "past", compound=s.chance(0.5), time=s.time("past", False) if s.chance(0.5) else None)
    outer = replace(outer, front="time" if outer.time and s.chance(0.7) else "subject")
    if outer.front == "subject":
        outer = replace(outer, time=None)
    return finish(f"{outer.main()} , {inner.zu()}", f"{outer.en()} {inner.en_infinitive(form)}")


def judgement(s: Speaker) -> Pair:
    de, en = s.pick(JUDGEMENTS)
    frame = s.pick([f for f in FRAMES if "i" in f.flags and f.kind in ("acc", "dat", "none", "dat+acc")])
    inner = replace(s.event("habit", subject=I, frame=frame, full=False, polarity=False), time=None)
    return finish(f"{de} , {inner.zu()}", f"{en} {inner.en_infinitive()}")


def purpose(s: Speaker) -> Pair:
    """``um ... zu`` and ``ohne ... zu``."""
    subject = s.subject()
    main = s.event("past", subject=subject, frame=FRAME[s.pick(["fahren", "gehen", "fliegen", "reisen"])], polarity=False)
    frame = s.pick([f for f in FRAMES if f.kind in ("acc", "dat") and "i" in f.flags])
    inner = replace(s.event("habit", subject=subject, frame=frame, full=False, polarity=False), time=None, modal="")
    if s.chance(0.75):
        return finish(f"{main.main()} , {inner.zu('um')}", f"{main.en()} {inner.en_infinitive()}")
    return finish(f"{main.main()} , {inner.zu('ohne')}", f"{main.en()} without {inner.en_infinitive('ing')}")


def with_relative(s: Speaker, phrase: NounPhrase) -> NounPhrase:
    """Give a noun phrase a relative clause, in which it is the one who acts or the one acted on."""
    if phrase.is_person and (phrase.det == "poss" or s.chance(0.5)):
        clause = event_of(s, replace(phrase, relative=("", "")), "past", 0.5)
        return relative(clause, "subject", phrase)
    agent = s.pick([I, WE, HE, SHE, Name("Anna", "f"), Name("Peter", "m"), Name("Maria", "f")])
    classes = set(phrase.noun.classes)
    kinds = ("acc", "prep", "dat") if phrase.is_person else ("acc", "prep")
    fitting = [f for f in FRAMES if f.kind in kinds and (set(f.objects) & classes or f.kind == "dat")]
    fitting = [f for f in fitting if f.verb.infinitive not in ("lachen", "suchen")]
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
    frame = s.pick([f for f in FRAMES if f.kind in ("acc", "prep") and set(f.objects) - {"person", "kin", "drink"}])
    noun = s.pick([n for n in nouns_of(*(c for c in frame.objects if c not in ("person", "kin"))) if not n.mass])
    phrase = s.decorated(NounPhrase(noun, "def", s.chance(0.25)), 0.3)
    phrase = with_relative(s, phrase)
    subject = s.subject()
    main = Clause(subject, frame, "past", compound=s.chance(0.3), thing=phrase)
    if s.chance(0.3):
        main = replace(main, modal=s.pick(["wollen", "müssen"]), compound=False)
        if "r" in frame.flags or frame.verb.infinitive in ("vergessen", "verlieren", "zerbrechen", "kennen", "brauchen"):
            main = replace(main, modal="")
    if s.chance(0.4) and not phrase.relative[0]:
        main = replace(main, time=s.time("past", False), front="time")
    return finish(main.main(), main.en())


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
    main = s.event("past", fronted=False, timed=0.3, subject=s.subject(), frame=FRAME[s.pick(["helfen", "anrufen", "besuchen", "zuhören"])], full=False)
    person = replace(person, relative=pair)
    main = replace(main, **{"receiver" if main.frame.kind == "dat" else "thing": person})
    return finish(main.main(), main.en())


def together(s: Speaker) -> Pair:
    """Coordination, with and without the second subject."""
    subject = clear(s)
    if s.chance(0.5):
        first, second = (replace(event_of(s, subject, "past"), compound=False) for _ in range(2))
        if s.chance(0.6):
            first = replace(first, time=s.time("past", False))
        if first.frame.verb.base == second.frame.verb.base:
            return simple(s)
        de = f"{first.main()} und {second.after('', inverted=False)}"
        return finish(de, f"{first.en()} and {second.en(skip='subject')}")
    de, en = s.pick([("aber", "but"), ("und", "and"), ("denn", "because")])
    first = s.event("past", subject=subject, timed=0.4)
    if de == "denn":
        second = Clause(subject.pronoun, s.pick(MOODS), "past")
    else:
        second = replace(event_of(s, s.person_unlike(subject), "past", 0.0))
    return finish(f"{first.main()} , {second.main()}".replace(" , ", f" , {de} ", 1) if "," not in first.main()
                  else f"{first.main()} , {de} {second.main()}", f"{first.en()} , {en} {second.en()}")


def yes_no(s: Speaker) -> Pair:
    subject = s.pick([YOU, YOU_ALL, FORMAL, FORMAL, HE, SHE]) if s.chance(0.6) else s.subject(third=True)
    clause = s.event(subject=subject, fronted=False, polarity=s.chance(0.5))
    if clause.particle:
        clause = replace(clause, particle="schon" if clause.tense == "perfect" else "")
    clause = positive(clause)
    return finish(clause.after("").strip(), clause.en(question=True), "?")


def positive(clause: Clause) -> Clause:
    if getattr(clause.thing, "det", "") == "kein":
        return replace(clause, thing=replace(clause.thing, det="def"), particle="")  # type: ignore[type-var]
    return replace(clause, particle="")


def open_question(s: Speaker, indirect: bool = False) -> Pair:
    """Question words for time, reason, thing and person; as a main or a subordinate clause."""
    subject = s.pick([YOU, YOU_ALL, FORMAL, HE, SHE]) if s.chance(0.5) else s.subject(third=True)
    frame = s.pick([f for f in FRAMES if f.kind in ("acc", "none", "dir", "dat", "prep", "dat+acc")])
    clause = positive(s.event(s.pick(["past", "past", "later"]), frame=frame, subject=subject, timed=0.3, fronted=False, polarity=False))
    words = [("warum", "why", ""), ("wann", "when", "time"), ("wann", "when", "time"), ("wo", "where", "where")]
    about_people = bool({"person", "kin"} & set(frame.objects))
    if frame.kind == "acc":
        words += [("wen", "who", "thing")] * 2 if about_people and len(frame.objects) <= 2 else []
        words += [("was", "what", "thing")] * 2 if not about_people else []
    if frame.kind == "dat":
        words += [("wem", "who", "receiver")] * 3
    if frame.kind == "prep" and about_people:
        preposition, case = frame.preposition
        words += [(f"{preposition} {'wem' if case == 'dat' else 'wen'}", "who", "thing")] * 2
    if frame.kind == "dir":
        words = [("wohin", "where", "where"), ("wann", "when", "time"), ("warum", "why", "")]
    if frame.kind in ("acc", "none", "dat+acc") and not indirect:
        words.append(("wer", "who", "subject"))
    de, en, role = s.pick(words)
    if role in ("time", "where"):
        clause = replace(clause, time=None, where=() if role == "where" else clause.where)
    if de == "wo" and "0" in frame.flags:
        de, en, role = "warum", "why", ""
    if role == "subject":
        clause = replace(clause, subject=HE, thing=s.thing([c for c in frame.objects if c not in ("person", "kin")]) if frame.kind == "acc" and not about_people else clause.thing)
        if frame.kind == "dat+acc" or about_people or "r" in frame.flags:
            return simple(s)
    if indirect:
        ask_de, ask_en = s.pick([("weißt du", "do you know"), ("können Sie mir sagen", "can you tell me"), ("wissen Sie", "do you know")])
        return finish(f"{ask_de} , {clause.sub(de, role)}", f"{ask_en} {clause.en(en, role)}", "?")
    return finish(clause.after(de, role), clause.en(en, role, question=role != "subject"), "?")


def indirect_question(s: Speaker) -> Pair:
    if s.chance(0.6):
        return open_question(s, indirect=True)
    de, en = s.pick([("ich frage mich", "I wonder"), ("ich weiß nicht", "I do not know"), ("wir wollen wissen", "we want to know")])
    clause = positive(s.event(fronted=False, polarity=False))
    return finish(f"{de} , {clause.sub('ob')}", f"{en} {clause.en('whether')}")


def command(s: Speaker) -> Pair:
    who, subject = s.pick([("du", YOU), ("ihr", YOU_ALL), ("Sie", FORMAL), ("Sie", FORMAL)])
    frame = s.pick([f for f in FRAMES if "i" in f.flags])
    clause = positive(s.event("later", frame=frame, subject=subject, timed=0.0, fronted=False, polarity=False))
    clause = replace(clause, time=s.pick(TIMES["later"][:4]) if s.chance(0.5) else None)
    if s.chance(0.3):
        ask_de = {"du": "kannst du", "ihr": "könnt ihr", "Sie": "könnten Sie"}[who]
        ask_en = "could you" if who == "Sie" else "can you"
        de = f"{ask_de} bitte {clause._middle()} {frame.verb.infinitive}"
        return finish(de, f"{ask_en} please {clause.en_infinitive('')}", "?")
    form = imperative(frame.verb, who) + (" Sie" if who == "Sie" else "")
    if s.chance(0.2) and not clause.time and (clause.thing is None or clause.thing.definite):
        negative = replace(clause, particle="nicht")
        return finish(f"{form} {negative._middle()} {frame.verb.prefix}", f"do not {clause.en_infinitive('')}", ".")
    polite = s.chance(0.6)
    de = f"{form} {'bitte' if polite else ''} {clause._middle()} {frame.verb.prefix}"
    return finish(de, f"{'please' if polite else ''} {clause.en_infinitive('')}".strip())


def passive(s: Speaker) -> Pair:
    refuse = {"kennen", "treffen", "brauchen", "sehen", "vergessen", "anziehen", "ausziehen", "nachschlagen", "verlieren"}
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
        clause = replace(clause, where=(Adverbial(f"von {agent.de('dat')}".replace("von dem ", "vom "), f"by {agent.en()}"),))
    if clause.time and s.chance(0.4):
        clause = replace(clause, front="time")
    return finish(clause.main(), clause.en())


def liking(s: Speaker) -> Pair:
    """``gefallen``, ``schmecken``, ``gehören``: the German subject is the English object, or the other way round."""
    kind = s.pick(["gefallen", "schmecken", "gehören"])
    person: Nominal = s.subject(third=True) if s.chance(0.6) else s.pick([I, YOU, HE, SHE, WE, YOU_ALL])
    classes = {"gefallen": ["art", "clothes", "show", "home"], "schmecken": ["food", "drink"], "gehören": ["thing", "clothes"]}
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
    likes = Clause(person, Frame(Verb("", kind, third, preterite, participle), "like", "acc"), tense, thing=thing, particle=particle)
    verb = conjugate(likes.frame.verb, "present" if tense == "habit" else "preterite", 3, thing.plural)
    if s.chance(0.5):
        return finish(f"{person.de('dat')} {verb} {thing.de('nom')} {particle}", likes.en())
    return finish(f"{thing.de('nom')} {verb} {person.de('dat')} {particle}", likes.en())


def comparison(s: Speaker) -> Pair:
    noun = s.pick([n for n in nouns_of("goods", "clothes", "home", "building", "town") if not n.mass and s.has_adjective(n)])
    adjective = s.adjective(noun)
    if adjective.word in ("rot", "blau", "grün", "schwarz", "weiß", "hell", "neu"):
        return ages(s)
    draw = s.below(3)
    if draw == 0:
        first, second = NounPhrase(noun, "dies"), s.pick([YOU, I, HE, SHE, WE])
        de = f"{first.de('nom')} ist {adjective.comparative} als "
        stem = {"euer": "eur"}.get(second.stem, second.stem)
        de += stem + {"m": "er", "f": "e", "n": "s"}[noun.gender]
        en_own = {"your": "yours", "my": "mine", "his": "his", "her": "hers", "our": "ours"}[second.english[2]]
        return finish(de, f"{first.en()} is {adjective.english_comparative} than {en_own}")
    agent = s.pick([(I, "ich je gesehen habe", "I have ever seen"), (WE, "wir je gesehen haben", "we have ever seen")])
    if draw == 1:
        superlative = inflect_adjective(adjective.superlative_stem, "def", noun.gender, "nom")
        article_de = {"m": "der", "f": "die", "n": "das"}[noun.gender]
        relative_de = {"m": "den", "f": "die", "n": "das"}[noun.gender]
        return finish(
            f"das ist {article_de} {superlative} {noun.word} , {relative_de} {agent[1]}",
            f"that is the {adjective.english_superlative} {noun.english} {agent[2]}",
        )
    colours = s.shuffled([("rot", "red"), ("blau", "blue"), ("grün", "green"), ("schwarz", "black"), ("weiß", "white")])
    if not {"goods", "clothes"} & set(noun.classes):
        return ages(s)
    first = NounPhrase(noun, "def", stems=(colours[0],))
    second_de = f"{first.de('nom').split()[0]} {inflect_adjective(colours[1][0], 'def', noun.gender, 'nom')}"
    return finish(
        f"{first.de('nom')} ist {adjective.comparative} als {second_de}",
        f"{first.en()} is {adjective.english_comparative} than the {colours[1][1]} one",
    )


def ages(s: Speaker) -> Pair:
    person = s.kin() if s.chance(0.6) else Name(*s.pick([("Anna", "f"), ("Paul", "m"), ("Lena", "f"), ("Karl", "m")]))
    if person.plural:
        return price(s)
    old = isinstance(person, NounPhrase) and person.noun.word.startswith("Groß")
    age = s.between(60, 99) if old else s.between(5, 59)
    draw = s.below(3)
    if draw == 0:
        return finish(f"{person.de('nom')} ist {german_cardinal(age)} Jahre alt", f"{person.en()} is {english_cardinal(age)} years old")
    if draw == 1:
        return finish(f"{person.de('nom')} wird nächstes Jahr {german_cardinal(age)}", f"{person.en()} will turn {english_cardinal(age)} next year")
    count = s.between(2, 30)
    other = s.pick([("ich", "I"), ("mein Bruder", "my brother"), ("seine Frau", "his wife"), ("Nora", "Nora"), ("Felix", "Felix")])
    if other[0] in person.de("nom") or (other[0] == "seine Frau" and person.pronoun != HE):
        other = ("ich", "I")
    adjective = s.pick([("älter", "older"), ("jünger", "younger")])
    en_other = "me" if other[1] == "I" else other[1]
    return finish(
        f"{person.de('nom')} ist {german_cardinal(count)} Jahre {adjective[0]} als {other[0]}",
        f"{person.en()} is {english_cardinal(count)} years {adjective[1]} than {en_other}",
    )


def price(s: Speaker) -> Pair:
    thing = s.decorated(NounPhrase(s.pick([n for n in nouns_of("goods", "clothes", "ticket") if not n.mass]), s.pick(["def", "dies"])))
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
        clause = Clause(buyer, Frame(verb, "pay", "none", complement=f"{de} für {thing.de('acc')}"), "past", compound=s.chance(0.5))
        return finish(clause.main(), f"{buyer.en(True)} paid {en} for {thing.en()}")
    return finish(f"{thing.de('nom')} {'kostete' if past else 'kostet'} {de}", f"{thing.en()} {'cost' if past else 'costs'} {en}")


def timetable(s: Speaker) -> Pair:
    """Clock times, trains, meetings, birthdays, floors."""
    draw = s.below(6)
    hour, minute = s.between(1, 12), s.between(0, 59) if s.chance(0.6) else s.pick([0, 15, 30, 45])
    de_time, en_time = clock(hour, minute)
    if draw == 0:
        asked = s.pick([("es ist", "it is"), ("es war schon", "it was already"), ("es ist erst", "it is only"), ("jetzt ist es", "it is now")])
        return finish(f"{asked[0]} {de_time}", f"{asked[1]} {en_time}")
    city_de, city_en = (part.removeprefix("in ") for part in (lambda c: (c.de, c.en))(s.city()))
    vehicle = s.pick([n for n in nouns_of("vehicle") if n.word in ("Zug", "Bus", "Schiff")])
    number = s.between(1, 12)
    stem, ordinal = german_ordinal_stem(number), english_ordinal(number)
    if draw == 1:
        phrase = NounPhrase(vehicle, "def", stems=(s.pick([("nächst", "next"), ("letzt", "last"), ("erst", "first")]),) if s.chance(0.6) else ())
        arriving = s.chance(0.4)
        de_verb, en_verb = ("kommt", "arrives") if arriving else ("fährt", "leaves")
        where = f"aus {city_de}" if arriving else f"nach {city_de}"
        en_where = f"from {city_en}" if arriving else f"to {city_en}"
        prefix = "an" if arriving else "ab"
        return finish(f"{phrase.de('nom')} {where} {de_verb} um {de_time} {prefix}", f"{phrase.en()} {en_where} {en_verb} at {en_time}")
    if draw == 2:
        noun = s.pick([n for n in nouns_of("event") if n.word != "Aufgabe"])
        day_de, day_en = s.pick(list(WEEKDAYS.items()))
        phrase = NounPhrase(noun, "def")
        if s.chance(0.5):
            return finish(f"{phrase.de('nom')} findet am {day_de} um {de_time} statt", f"{phrase.en()} will take place at {en_time} on {day_en}")
        return finish(f"am {day_de} fängt {phrase.de('nom')} um {de_time} an", f"on {day_en} , {phrase.en()} will begin at {en_time}")
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
        clause = Clause(who, FRAME["wohnen"], "habit", where=(Adverbial(f"im {stem}en Stock", f"on the {ordinal} floor"),))
        return finish(clause.main(), clause.en())
    noun = s.pick(nouns_of("writing", "goods", "clothes"))
    person = clear(s)
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
    word = s.place()
    tense = s.pick(["present", "preterite"])
    verb = {"present": "gibt", "preterite": "gab"}[tense]
    be = {"present": ("is", "are"), "preterite": ("was", "were")}[tense][plural]
    if phrase.count % 100 == 1:
        phrase = replace(phrase, count=phrase.count + 1)
    if s.chance(0.5):
        return finish(f"{word.de} {verb} es {phrase.de('acc')}", f"{word.en} , there {be} {phrase.en()}")
    return finish(f"es {verb} {phrase.de('acc')} {word.de}", f"there {be} {phrase.en()} {word.en}")


def long_sentence(s: Speaker) -> Pair:
    """A fronted reason, a main clause, and what was done next."""
    subject = clear(s)
    cause = Clause(subject.pronoun, s.pick(MOODS), "past")
    phrase = None
    if isinstance(subject, NounPhrase) and subject.is_person and s.chance(0.5):
        subject = with_relative(s, subject)
        phrase = subject
    first = replace(s.event("past", subject=subject, timed=0.5, fronted=False, polarity=False), compound=False)
    second = replace(event_of(s, replace(subject, relative=("", "")) if isinstance(subject, NounPhrase) else subject, "past"), compound=False)
    if first.frame.verb.base == second.frame.verb.base:
        return reason(s)
    tail_de, tail_en = second.after("", inverted=False), second.en(skip="subject")
    if phrase is None:
        opening = cause.sub("weil")
        return finish(f"{first.after(f'{opening} ,')} und {tail_de}", f"{cause.en('because')} , {first.en()} and {tail_en}")
    return finish(f"{first.main()} und {tail_de}", f"{first.en()} and {tail_en}")


PATTERNS: list[tuple[int, Callable[[Speaker], Pair]]] = [
    (16, simple),
    (2, since),
    (10, reason),
    (5, flawed_thing),
    (9, sequence),
    (5, future_condition),
    (6, unreal),
    (9, that_clause),
    (6, infinitive_clause),
    (2, judgement),
    (4, purpose),
    (7, relative_subject),
    (7, relative_object),
    (3, whose),
    (9, together),
    (4, yes_no),
    (5, open_question),
    (4, indirect_question),
    (4, command),
    (4, passive),
    (3, liking),
    (3, comparison),
    (2, ages),
    (2, price),
    (4, timetable),
    (2, existence),
    (9, long_sentence),
]
_URN = [pattern for weight, pattern in PATTERNS for _ in range(weight)]


def sentence(speaker: Speaker) -> Pair:
    """One German sentence with its English translation."""
    return speaker.pick(_URN)(speaker)
