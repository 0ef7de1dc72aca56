"""Several clauses: reasons, conditions, sequences, infinitive clauses, coordination."""

from dataclasses import replace

from circumstances import TIMES
from clauses import Clause, Pair, finish
from english import conjugate_en
from german import Verb, conjugate
from lexicon import FRAME, FRAMES, Frame, copula, nouns_of
from phrases import (
    HE,
    IT,
    SHE,
    THING,
    I,
    Nominal,
    NounPhrase,
)
from sentences_simple import FLAWS, event_of, narrated, simple, with_relative
from speaker import Speaker

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


UNDOING = {
    "wegwerfen",
    "zurückbringen",
    "reparieren",
    "verkaufen",
    "waschen",
    "putzen",
    "ausziehen",
    "aufräumen",
}


RAIN = Frame(Verb("", "regnen", "regnet", "regnete", "geregnet"), "rain", "none")


SNOW = Frame(Verb("", "schneien", "schneit", "schneite", "geschneit"), "snow", "none")


WEATHER = [
    RAIN,
    SNOW,
    copula("sehr kalt", "be very cold"),
    copula("zu dunkel", "be too dark"),
    copula("spät", "be late"),
]


WITHOUT_OBJECT = [f for f in FRAMES if f.kind == "none" and not f.flags.count("r")]


SAID = [("sagte", "said"), ("erzählte", "told us"), ("schrieb", "wrote"), ("bemerkte", "noticed")]


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


def mood(speaker: Speaker, subject: Nominal, tense: str) -> Clause:
    """A state (``weil er müde war``) or, less often, something done."""
    if speaker.chance(0.6):
        return Clause(subject.pronoun, speaker.pick(MOODS), tense)
    return event_of(speaker, subject.pronoun, tense)


def reason(s: Speaker) -> Pair:
    subject = s.clear_subject()
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
    bad = {"zerbrechen", "verlieren", "finden", "suchen", "sehen", "nachschlagen", "vergessen", "brauchen"}
    suitable = [f for f in suitable if f.verb.infinitive not in bad]
    if not suitable:
        return simple(s)
    thing = s.decorated(NounPhrase(noun, s.pick(["def", "dies"]), plural), 0.0)
    main = Clause(s.subject(), s.pick(suitable), "past", compound=s.chance(0.6), thing=thing)
    if s.chance(0.5):
        main = replace(main, time=s.time("past", lasting=False), front=s.pick(["time", "subject"]))
    conjunction = s.pick([("weil", "because"), ("obwohl", "although")])
    # one buys what is beautiful, and does not buy what is too expensive
    pleasing = (flaw == "sehr schön") != (main.frame.verb.infinitive in UNDOING)
    if pleasing != (conjunction[0] == "weil"):
        main = replace(main, particle="nicht")
    cause = Clause(THING[thing.slot], copula(flaw, english), "past")
    return finish(f"{main.main()} , {cause.sub(conjunction[0])}", f"{main.en()} {cause.en(conjunction[1])}")


WHEN = [
    replace(
        FRAME["zurückkommen"],
        english="come home",
        complement="nach Hause",
        verb=Verb("", "kommen", "kommt", "kam", "gekommen", "sein"),
    ),
    replace(FRAME["aufwachen"]),
    copula("ein Kind", "be a child"),
    copula("in Paris", "be in Paris"),
    copula("jung", "be young"),
    copula("zu Hause", "be at home"),
    copula("im Krankenhaus", "be in hospital"),
]


def sequence(s: Speaker) -> Pair:
    subject = s.clear_subject()
    kind = s.pick(["nachdem", "bevor", "als", "sobald", "während"])
    english = {
        "nachdem": "after",
        "bevor": "before",
        "als": "when",
        "sobald": "as soon as",
        "während": "while",
    }[kind]
    if kind == "nachdem":
        first = event_of(s, subject.pronoun, "pluperfect")
    elif kind == "als":
        first = Clause(subject.pronoun, s.pick(WHEN), "past")
    elif kind == "während":
        other = s.person_unlike(subject)
        frame = s.pick([f for f in FRAMES if "n" in f.flags and f.kind in ("acc", "none")])
        first = replace(event_of(s, other, "past"), frame=frame, compound=False, modal="", particle="")
        first = s.with_objects(replace(first, thing=None, receiver=None, where=()))
        head, _, rest = frame.english.partition(" ")
        first = replace(first, frame=replace(frame, english=f"be {conjugate_en(head, 'ing')} {rest}".strip()))
    else:
        first = event_of(s, subject.pronoun, "past")
        first = replace(first, compound=False, modal="", particle="")
        if getattr(first.thing, "det", "") == "kein":
            first = replace(first, thing=None, frame=s.pick(WITHOUT_OBJECT))
    main = narrated(s.event("past", subject=subject, timed=0.2, fronted=False, polarity=False))
    if s.chance(0.5):
        return finish(main.after(f"{first.sub(kind)} ,"), f"{first.en(english)} , {main.en()}")
    return finish(f"{main.main()} , {first.sub(kind)}", f"{main.en()} {first.en(english)}")


def future_condition(s: Speaker) -> Pair:
    """``Wenn es morgen regnet, ...``; English has the present in the condition."""
    time = s.pick(TIMES["later"][:4])
    subject = s.clear_subject()
    if s.chance(0.4):
        condition = Clause(IT, s.pick(WEATHER[:3]), "habit", time=time)
    else:
        condition = replace(mood(s, subject, "habit"), modal="", particle="")
        dated = {"", "krank", "müde", "keine Zeit", "viel Arbeit", "frei", "beschäftigt"}
        condition = replace(condition, time=time if condition.frame.complement in dated else None)
    main = replace(s.event("later", subject=subject, timed=0.0, fronted=False), modal="")
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
    subject = s.clear_subject()
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
        subject = s.clear_subject()
        if subject.pronoun.person != 3:
            subject = s.pick([HE, SHE])
        de, en = s.pick(SAID)
        verb = Verb("", "", "", de, "")
        speaker_de = f"{subject.de('nom')} {conjugate(verb, 'preterite', subject.person, subject.plural)}"
        speaker_en = f"{subject.en(True)} {en}"
        if de == "erzählte":
            speaker_de += " uns"
        inner = event_of(
            s, subject.pronoun if s.chance(0.6) else s.kin(), s.pick(["pluperfect", "past"]), 0.0
        )
    return finish(f"{speaker_de} , {inner.sub('dass')}", f"{speaker_en} {inner.en('that')}")


def infinitive_clause(s: Speaker) -> Pair:
    subject = s.subject()
    infinitive, third, preterite, participle, english, form = s.pick(TRY)
    prefix, _, base = infinitive.rpartition("+")
    frame = Frame(Verb(prefix, base, third, preterite, participle), english, "none")
    inner = replace(event_of(s, subject, "habit"), time=None, modal="", particle="")
    if "i" not in inner.frame.flags:
        return infinitive_clause(s)
    outer = Clause(
        subject, frame, "past", compound=s.chance(0.5), time=s.time("past", False) if s.chance(0.5) else None
    )
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
    main = s.event(
        "past", subject=subject, frame=FRAME[s.pick(["fahren", "gehen", "fliegen", "reisen"])], polarity=False
    )
    frame = s.pick([f for f in FRAMES if f.kind in ("acc", "dat") and "i" in f.flags])
    inner = replace(
        s.event("habit", subject=subject, frame=frame, full=False, polarity=False), time=None, modal=""
    )
    if s.chance(0.75):
        return finish(f"{main.main()} , {inner.zu('um')}", f"{main.en()} {inner.en_infinitive()}")
    return finish(f"{main.main()} , {inner.zu('ohne')}", f"{main.en()} without {inner.en_infinitive('ing')}")


def together(s: Speaker) -> Pair:
    """Coordination, with and without the second subject."""
    subject = s.clear_subject()
    if s.chance(0.5):
        first, second = (narrated(event_of(s, subject, "past")) for _ in range(2))
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
        second = event_of(s, s.person_unlike(subject), "past")
    return finish(
        f"{first.main()} , {second.main()}".replace(" , ", f" , {de} ", 1)
        if "," not in first.main()
        else f"{first.main()} , {de} {second.main()}",
        f"{first.en()} , {en} {second.en()}",
    )


def long_sentence(s: Speaker) -> Pair:
    """A fronted reason, a main clause, and what was done next."""
    subject = s.clear_subject()
    cause = Clause(subject.pronoun, s.pick(MOODS), "past")
    phrase = None
    if isinstance(subject, NounPhrase) and subject.is_person and s.chance(0.5):
        subject = with_relative(s, subject)
        phrase = subject
    first = narrated(s.event("past", subject=subject, timed=0.5, fronted=False, polarity=False))
    plain = replace(subject, relative=("", "")) if isinstance(subject, NounPhrase) else subject
    second = narrated(event_of(s, plain, "past"))
    if first.frame.verb.base == second.frame.verb.base:
        return reason(s)
    tail_de, tail_en = second.after("", inverted=False), second.en(skip="subject")
    if phrase is None:
        opening = cause.sub("weil")
        return finish(
            f"{first.after(f'{opening} ,')} und {tail_de}",
            f"{cause.en('because')} , {first.en()} and {tail_en}",
        )
    return finish(f"{first.main()} und {tail_de}", f"{first.en()} and {tail_en}")
