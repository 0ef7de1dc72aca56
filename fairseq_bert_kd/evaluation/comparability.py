"""Were texts and references prepared alike? What a score would otherwise count as mistakes of the system.

A student writes the text that its teacher's tokenizer keeps: perhaps in lower case, without accents, with spaces between
Chinese characters. Scores count every such difference as an error. The thresholds are our choice.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from fairseq_bert_kd.evaluation.metric import MetricSettings

COMMON = 1e-3  # of the letters: a trait of a text, not an exception in it
RARE = 0.05  # of the other side's rate: hardly any
MOST = 0.5  # of the letters
UNREAD = 0.1  # of the letters: what a score does not read is no exception
SPACES_PER_LETTER = 0.02  # fewer: words run together, whatever the language that writes spaces
SPACED = 0.1  # spaces per letter, more: words stand apart, in any script
LEAST_LETTERS = 8  # of a sentence that is compared with the test set's own target
LEAST_SENTENCES = 5  # so compared
SAME = 0.1  # of them, at least: tokenisation alone leaves most sentences the same letters
WORD_TOKENIZERS = ("13a", "intl")  # of sacreBLEU, for languages that write spaces
# first word of a letter's Unicode name -> script, and sacreBLEU's tokenizer for it
UNSPACED = {
    "CJK": ("Han", "zh"),
    "HIRAGANA": ("kana", "ja-mecab"),
    "KATAKANA": ("kana", "ja-mecab"),
    "HANGUL": ("Hangul", "ko-mecab"),
    "THAI": ("Thai", "char"),
    "LAO": ("Lao", "char"),
    "KHMER": ("Khmer", "char"),
    "MYANMAR": ("Burmese", "char"),
    "TIBETAN": ("Tibetan", "char"),
}
PIECE_MARKS = ("##", "@@", "\u2581", "\u0120")  # WordPiece, ours, SentencePiece, byte-level
NORMALISE = "pass both through the student's tokenizer with --normalise-like TOKENIZER"


class Trait(NamedTuple):
    """Something that text has on one side and may lack on the other.

    Attributes:
        name: name of the characters that have it.
        holds: whether a character has it.
        advice: what makes both sides alike.
    """

    name: str
    holds: Callable[[str], bool]
    advice: str


def _is_accented(letter: str) -> bool:
    return any(unicodedata.category(part) == "Mn" for part in unicodedata.normalize("NFD", letter))


def _is_separate(letter: str) -> bool:
    """A mark, or a part of a Hangul syllable, that composed text (NFC) rarely has by itself."""
    return unicodedata.category(letter) == "Mn" or "\u1100" <= letter <= "\u11ff"


def _is_compatibility_form(letter: str) -> bool:
    return not letter.isspace() and unicodedata.normalize("NFKC", letter) != unicodedata.normalize(
        "NFC", letter
    )


CAPITALS = Trait(
    "capital letters", lambda letter: letter != letter.lower(), f"use --lowercase, or {NORMALISE}"
)
ACCENTS = Trait("letters with accents", _is_accented, NORMALISE)
MARKS = Trait(
    "marks apart from their letters (Unicode's NFD)",
    _is_separate,
    f"{NORMALISE}, or write both composed (NFC)",
)
FORMS = Trait("compatibility forms such as ﬁ, ½ or full width", _is_compatibility_form, NORMALISE)


def remarks(
    texts: Sequence[str], references: Sequence[str], settings: MetricSettings, rouge: bool = False
) -> Iterator[str]:
    """What was not prepared alike, a sentence each; nothing for texts that compare well.

    Args:
        texts: what systems put out.
        references: what they are compared with.
        settings: how they are compared.
        rouge: whether ROUGE is among the scores.
    """
    sides = {"the output": Counter("".join(texts)), "the reference": Counter("".join(references))}
    if not settings.lowercase:
        yield from _one_sided(CAPITALS, sides)
    accents = list(_one_sided(ACCENTS, sides))
    yield from accents or _one_sided(MARKS, sides)  # without accents there are no marks either
    yield from _one_sided(FORMS, sides)
    yield from _without_spaces(settings, sides["the reference"])
    yield from _pieces(texts, references)
    yield from _joined(sides)
    if rouge:
        yield from _unread_by_rouge(sides["the reference"])


def unread_share(letters: Counter[str]) -> float:
    """Share of the letters, 0 to 1, that ROUGE takes out: its tokenizer keeps ASCII letters and digits only."""
    return sum(
        count for letter, count in letters.items() if letter.isalpha() and not letter.isascii()
    ) / _letters(letters)


def _unread_by_rouge(reference: Counter[str]) -> Iterator[str]:
    if (share := unread_share(reference)) >= UNREAD:
        yield (
            f"ROUGE takes out all but ASCII letters and digits, which is {share:.0%} of the letters of the reference, and says "
            "little about this language: compare by BLEU or chrF2"
        )


def of_another_text(
    targets: Mapping[int, str], references: Sequence[str], what: str = "the reference is"
) -> str:
    """Whether references are not what an output's own test set has as targets; a sentence that says so, or nothing.

    Latin letters and digits are compared, without case, accents and spaces: what tokenizers leave as it is.

    Args:
        targets: the test set's targets by number, text or pieces.
        references: ``(sentences,)`` what the output is compared with.
        what: what they are, for the sentence.
    """
    kept = {number: _latin(text) for number, text in targets.items() if "unk>" not in text}
    both = [(kept[number], _latin(text)) for number, text in enumerate(references) if number in kept]
    long = [pair for pair in both if min(map(len, pair)) >= LEAST_LETTERS]
    same = sum(target == reference for target, reference in long)
    if len(long) < LEAST_SENTENCES or same >= SAME * len(long):
        return ""
    first = next(
        number for number, text in enumerate(references) if number in kept and kept[number] != _latin(text)
    )
    return (
        f"{what} not the text of the test set that was decoded ({same} of {len(long)} sentences have the same "
        f"letters; sentence {first} is {targets[first][:60]!r} there and {references[first][:60]!r} here): is it of another "
        "language, another set, or in another order?"
    )


def _latin(text: str) -> str:
    """Letters and digits of a text that are ASCII without their accents, in lower case."""
    return "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text).lower()
        if letter.isascii() and letter.isalnum()
    )


def _letters(counts: Counter[str]) -> int:
    return max(sum(count for letter, count in counts.items() if letter.isalpha()), 1)


def _one_sided(trait: Trait, sides: dict[str, Counter[str]]) -> Iterator[str]:
    held = {
        side: sum(count for letter, count in counts.items() if trait.holds(letter))
        for side, counts in sides.items()
    }
    rates = {side: held[side] / _letters(counts) for side, counts in sides.items()}
    lacking, having = sorted(sides, key=rates.__getitem__)
    if rates[having] >= COMMON and rates[lacking] < RARE * rates[having]:
        yield (
            f"{having} has {trait.name} ({held[having]:,}), {lacking} hardly any ({held[lacking]:,}), and each of them counts "
            f"as an error: {trait.advice}"
        )


def unspaced_script(letters: Counter[str]) -> tuple[str, str] | None:
    """The script without spaces between words of which most letters are, and sacreBLEU's tokenizer for it; None for others."""
    by_script: Counter[tuple[str, str]] = Counter()
    for letter, count in letters.items():
        script = UNSPACED.get(unicodedata.name(letter, "").split(" ")[0])
        if script and letter.isalpha():
            by_script[script] += count
    if sum(by_script.values()) <= MOST * _letters(letters):
        return None
    kana = [script for script in by_script if script[0] == "kana"]  # Japanese has more Han than kana, or less
    return (kana or [max(by_script, key=by_script.__getitem__)])[0]


def words_run_together(texts: Sequence[str], tokenize: str, option: str) -> str:
    """What to say of texts in which sacreBLEU's tokenizer finds no words; empty where it finds them.

    Args:
        texts: of one language; tokenizers such as BERT's leave spaces between Chinese letters, and those are words to it.
        tokenize: the tokenizer.
        option: option that names it, for the message.
    """
    letters = Counter("".join(texts))
    if tokenize not in WORD_TOKENIZERS or letters[" "] > SPACED * _letters(letters):
        return ""
    if (found := unspaced_script(letters)) is None:
        return ""
    script, fitting = found
    return (
        f"most letters are of a script without spaces between words ({script}), and sacreBLEU's tokenizer {tokenize} takes words "
        f"from spaces, so that BLEU is 0 for nearly all that is not equal: give {option} {fitting}"
    )


def _without_spaces(settings: MetricSettings, reference: Counter[str]) -> Iterator[str]:
    if settings.tokenize in WORD_TOKENIZERS and (found := unspaced_script(reference)):
        name, tokenizer = found
        yield (
            f"most letters of the reference are of a script without spaces between words ({name}), but --tokenize "
            f"{settings.tokenize} takes words from spaces: use --tokenize {tokenizer}"
        )


def _pieces(texts: Sequence[str], references: Sequence[str]) -> Iterator[str]:
    marked = [sum(_is_piece(word) for text in side for word in text.split()) for side in (texts, references)]
    if marked[0] > COMMON * sum(len(text.split()) for text in texts) and not marked[1]:
        yield (
            f"the output has words like a tokenizer's pieces ({marked[0]:,}), the reference has none: decode with --bpe "
            "hf_tokenizer, or give `score` --tokenizer"
        )


def _is_piece(word: str) -> bool:
    return word.startswith(PIECE_MARKS) and word not in PIECE_MARKS


def _joined(sides: dict[str, Counter[str]]) -> Iterator[str]:
    output, reference = (counts[" "] / _letters(counts) for counts in sides.values())
    if reference >= SPACES_PER_LETTER and output < RARE * reference and _letters(sides["the output"]) > 1:
        yield (
            "the output has hardly any spaces, the reference has: words were joined, by --post-process beside --bpe "
            "hf_tokenizer, or by another tokenizer than the student's"
        )
