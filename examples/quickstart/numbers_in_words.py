"""Numbers, years, dates and clock times written out in German and English."""

DE_SMALL = [
    "null",
    "eins",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
]
DE_TENS = ["-", "-", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
EN_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
EN_TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
DE_ORDINAL = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}
EN_ORDINAL = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
LIMIT = 10_000  # first number that is not written


def _check(number: int, lowest: int = 0, limit: int = LIMIT) -> None:
    if not lowest <= number < limit:
        raise ValueError(
            f"{number} cannot be written in words here; give a number from {lowest} to {limit - 1}"
        )


def _german(number: int, final: str) -> str:
    """``final`` is the form of a closing 1: ``eins`` alone, ``ein`` before a noun."""
    if number < 20:
        return final if number == 1 else DE_SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (("ein" if ones == 1 else DE_SMALL[ones]) + "und" if ones else "") + DE_TENS[tens]
    unit, word = (1000, "tausend") if number >= 1000 else (100, "hundert")
    count, rest = divmod(number, unit)
    return _german(count, "ein") + word + (_german(rest, final) if rest else "")


def german_cardinal(number: int) -> str:
    """``21`` gives ``einundzwanzig``, ``101`` gives ``einhunderteins``.

    Raises:
        ValueError: outside 0-9999.
    """
    _check(number)
    return _german(number, "eins")


def english_cardinal(number: int) -> str:
    """``121`` gives ``one hundred and twenty-one``.

    Raises:
        ValueError: outside 0-9999.
    """
    _check(number)
    if number < 20:
        return EN_SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return EN_TENS[tens] + (f"-{EN_SMALL[ones]}" if ones else "")
    unit, word = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, unit)
    joint = " and " if rest < 100 else " "
    return f"{english_cardinal(count)} {word}" + (joint + english_cardinal(rest) if rest else "")


def german_ordinal_stem(number: int) -> str:
    """Stem that takes adjective endings: ``dritt``, ``einundzwanzigst``, ``hunderterst`` as ``einhunderterst``.

    Raises:
        ValueError: outside 1-9999.
    """
    _check(number, lowest=1)
    last = number % 100
    if last in DE_ORDINAL:
        return (_german(number - last, "eins") if number > last else "") + DE_ORDINAL[last]
    return german_cardinal(number) + ("t" if 0 < last < 20 else "st")


def english_ordinal(number: int) -> str:
    """``3`` gives ``third``, ``21`` gives ``twenty-first``.

    Raises:
        ValueError: outside 1-9999.
    """
    _check(number, lowest=1)
    words = english_cardinal(number)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    head, last = words[:cut], words[cut:]
    if last in EN_ORDINAL:
        return head + EN_ORDINAL[last]
    return head + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def german_year(year: int) -> str:
    """``1999`` gives ``neunzehnhundertneunundneunzig``, ``2004`` gives ``zweitausendvier``."""
    _check(year, lowest=1)
    if not 1100 <= year < 2000:
        return german_cardinal(year)
    century, rest = divmod(year, 100)
    return german_cardinal(century) + "hundert" + (german_cardinal(rest) if rest else "")


def english_year(year: int) -> str:
    """``1999`` gives ``nineteen ninety-nine``, ``1905`` ``nineteen oh five``, ``2004`` ``two thousand and four``."""
    _check(year, lowest=1)
    century, rest = divmod(year, 100)
    if year < 1100 or 2000 <= year < 2010:
        return english_cardinal(year)
    if rest == 0:
        return english_cardinal(century) + " hundred"
    return f"{english_cardinal(century)} {'oh ' if rest < 10 else ''}{english_cardinal(rest)}"


def clock(hour: int, minute: int) -> tuple[str, str]:
    """German and English words for a time on a twelve-hour dial, without ``um`` and ``at``.

    ``clock(7, 30)`` gives ``("halb acht", "half past seven")``.

    Raises:
        ValueError: for an hour outside 1-12 or a minute outside 0-59.
    """
    _check(hour, 1, 13)
    _check(minute, 0, 60)
    following = hour % 12 + 1
    if minute == 0:
        return f"{_german(hour, 'ein')} Uhr", f"{english_cardinal(hour)} o'clock"
    if minute == 30:
        return f"halb {german_cardinal(following)}", f"half past {english_cardinal(hour)}"
    before = minute > 30
    distance = 60 - minute if before else minute
    target = following if before else hour
    de_word, en_word = ("vor", "to") if before else ("nach", "past")
    if distance == 15:
        de_lead, en_lead = "Viertel", "a quarter"
    else:
        one = distance == 1
        de_lead = "eine Minute" if one else f"{german_cardinal(distance)} Minuten"
        en_lead = "one minute" if one else f"{english_cardinal(distance)} minutes"
    return f"{de_lead} {de_word} {german_cardinal(target)}", f"{en_lead} {en_word} {english_cardinal(target)}"
