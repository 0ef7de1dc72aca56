"""Questions, direct and indirect, and requests."""

from dataclasses import replace

from circumstances import TIMES
from clauses import Clause, Pair, finish
from german import imperative
from lexicon import FRAMES
from phrases import (
    FORMAL,
    HE,
    SHE,
    YOU,
    YOU_ALL,
    NounPhrase,
)
from sentences_simple import simple
from speaker import Speaker


def yes_no(s: Speaker) -> Pair:
    subject = s.pick([YOU, YOU_ALL, FORMAL, FORMAL, HE, SHE]) if s.chance(0.6) else s.subject(third=True)
    clause = s.event(subject=subject, fronted=False, polarity=s.chance(0.5))
    clause = positive(clause)
    clause = replace(clause, compound=clause.compound or (clause.tense == "past" and not clause.modal))
    return finish(clause.after(""), clause.en(question=True), "?")


def positive(clause: Clause) -> Clause:
    """Without negation. The perfect keeps ``schon``, which tells it from a plain past in German."""
    clause = replace(clause, particle="schon" if clause.tense == "perfect" else "")
    if isinstance(clause.thing, NounPhrase) and clause.thing.det == "kein":
        return replace(clause, thing=replace(clause.thing, det="def"))
    return clause


def open_question(s: Speaker, indirect: bool = False) -> Pair:
    """Question words for time, reason, thing and person; as a main or a subordinate clause."""
    subject = s.pick([YOU, YOU_ALL, FORMAL, HE, SHE]) if s.chance(0.5) else s.subject(third=True)
    frame = s.pick([f for f in FRAMES if f.kind in ("acc", "none", "dir", "dat", "prep", "dat+acc")])
    clause = positive(
        s.event(
            s.pick(["past", "past", "later"]),
            frame=frame,
            subject=subject,
            timed=0.3,
            fronted=False,
            polarity=False,
        )
    )
    words = [
        ("warum", "why", ""),
        ("wann", "when", "time"),
        ("wann", "when", "time"),
        ("wo", "where", "where"),
    ]
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
        clause = replace(
            clause,
            subject=HE,
            thing=s.thing([c for c in frame.objects if c not in ("person", "kin")])
            if frame.kind == "acc" and not about_people
            else clause.thing,
        )
        if frame.kind == "dat+acc" or about_people or "r" in frame.flags:
            return simple(s)
    if indirect:
        ask_de, ask_en = s.pick(
            [
                ("weißt du", "do you know"),
                ("können Sie mir sagen", "can you tell me"),
                ("wissen Sie", "do you know"),
            ]
        )
        if subject in (YOU, YOU_ALL, FORMAL):  # no "du" and "Sie" to the same person
            clause = replace(clause, subject=s.pick([HE, SHE]))
            clause = s.with_objects(replace(clause, thing=None, receiver=None))
        return finish(f"{ask_de} , {clause.sub(de, role)}", f"{ask_en} {clause.en(en, role)}", "?")
    return finish(clause.after(de, role), clause.en(en, role, question=role != "subject"), "?")


def indirect_question(s: Speaker) -> Pair:
    if s.chance(0.6):
        return open_question(s, indirect=True)
    de, en = s.pick(
        [
            ("ich frage mich", "I wonder"),
            ("ich weiß nicht", "I do not know"),
            ("wir wollen wissen", "we want to know"),
        ]
    )
    clause = positive(s.event(fronted=False, polarity=False))
    return finish(f"{de} , {clause.sub('ob')}", f"{en} {clause.en('whether')}")


def command(s: Speaker) -> Pair:
    who, subject = s.pick([("du", YOU), ("ihr", YOU_ALL), ("Sie", FORMAL), ("Sie", FORMAL)])
    frame = s.pick([f for f in FRAMES if "i" in f.flags])
    clause = positive(
        s.event("later", frame=frame, subject=subject, timed=0.0, fronted=False, polarity=False)
    )
    clause = replace(clause, time=s.pick(TIMES["later"][:4]) if s.chance(0.5) else None)
    if s.chance(0.3):
        ask_de = {"du": "kannst du", "ihr": "könnt ihr", "Sie": "könnten Sie"}[who]
        ask_en = "could you" if who == "Sie" else "can you"
        de = f"{ask_de} {clause.middle(inserted='bitte')} {frame.verb.infinitive}"
        return finish(de, f"{ask_en} please {clause.en_infinitive('')}", "?")
    form = imperative(frame.verb, who) + (" Sie" if who == "Sie" else "")
    if s.chance(0.2) and not clause.time and (clause.thing is None or clause.thing.definite):
        negative = replace(clause, particle="nicht")
        return finish(
            f"{form} {negative.middle()} {frame.verb.prefix}", f"do not {clause.en_infinitive('')}", "."
        )
    polite = s.chance(0.6)
    de = f"{form} {clause.middle(inserted='bitte' if polite else '')} {frame.verb.prefix}"
    return finish(de, f"{'please' if polite else ''} {clause.en_infinitive('')}".strip())
