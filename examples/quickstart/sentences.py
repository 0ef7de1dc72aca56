"""Sentence patterns and how often each is drawn."""

from collections.abc import Callable

from clauses import Pair
from questions import command, indirect_question, open_question, yes_no
from sentences_joined import (
    flawed_thing,
    future_condition,
    infinitive_clause,
    judgement,
    long_sentence,
    purpose,
    reason,
    sequence,
    that_clause,
    together,
    unreal,
)
from sentences_simple import (
    acquaintance,
    liking,
    passive,
    relative_object,
    relative_subject,
    simple,
    since,
    whose,
)
from sentences_with_numbers import ages, comparison, existence, price, timetable
from speaker import Speaker

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
    (3, acquaintance),
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
    (13, long_sentence),
]


_URN = [pattern for weight, pattern in PATTERNS for _ in range(weight)]


def sentence(speaker: Speaker) -> Pair:
    """One German sentence with its English translation."""
    return speaker.pick(_URN)(speaker)
