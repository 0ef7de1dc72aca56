"""Numbers and texts as the page shows them."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fairseq_bert_kd.storage import probabilities

if TYPE_CHECKING:  # the store's tools use this file too, and import no metrics
    from fairseq_bert_kd.evaluation.significance import Spread

_HARMLESS = "\u200c\u200d\u200e\u200f"  # joiners and marks of direction, which scripts need
_LANGUAGE = re.compile("[a-z]{2}([-_][A-Za-z]{2,4})?")  # de, zh_CN, sr-Latn
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(value: Any) -> Any:
    """The text with control characters, direction overrides and lone surrogates escaped; other values unchanged."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(
        c if c in _HARMLESS or unicodedata.category(c) not in _HIDDEN else c.encode("unicode_escape").decode()
        for c in value
    )


def plain_name(text: str) -> str:
    """ASCII letters, digits, hyphens and underscores, for addresses and file names; a hyphen for anything else."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)


def language_attribute(code: str) -> str:
    """`` lang="de"`` for screen readers, fonts and hyphenation; nothing if the ending of a text is no language's code."""
    return f' lang="{code.replace("_", "-")}"' if _LANGUAGE.fullmatch(code) else ""


def signed(value: float, digits: int = 2) -> str:
    """``+0.35`` or ``−0.35``, with a real minus sign; ``0.00`` if it rounds to zero."""
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else ("+" if value > 0 else "−") + text


def spread_text(value: "Spread | None", digits: int = 2, sign: bool = False) -> str:
    """``31.46 ± 0.85`` without line breaks; the mean alone of a single value, a dash for None."""
    if value is None:
        return "–"
    mean = signed(value.mean, digits) if sign else f"{value.mean:.{digits}f}"
    return mean if value.sd is None else f"{mean}\u00a0±\u00a0{value.sd:.{digits}f}"


def p_text(p: float) -> str:
    """p-value with three digits: the smallest of 1,000 resamples is 0.001."""
    return f"{p:.3f}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, a line each; a bar in a cell stays in it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def list_text(values: Iterable[object]) -> str:
    """``1, 2, 3``."""
    return ", ".join(map(str, values))


def duration(seconds: float) -> str:
    """``42 s``, ``22 min 14 s`` or ``1 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def percent(share: float | None) -> str:
    """``91.2 %``; ``<0.1 %`` if it rounds to zero, a dash for None."""
    return "–" if share is None else probabilities.percent(share)
