"""How numbers stand in the page."""

from collections.abc import Iterable, Sequence

from fairseq_bert_kd.report.results import Spread


def plain_name(text: str) -> str:
    """ASCII letters, digits, hyphens and underscores, for addresses and file names; a hyphen for anything else."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in text)


def signed(value: float, digits: int = 2) -> str:
    """``+0.35`` or ``−0.35``, with a real minus; ``0.00`` for what rounds to nothing."""
    text = f"{abs(value):.{digits}f}"
    return text if not float(text) else ("+" if value > 0 else "−") + text


def spread_text(value: Spread | None, digits: int = 2, sign: bool = False) -> str:
    """``31.46 ± 0.85`` in one piece; the mean alone of a single value, a dash for none."""
    if value is None:
        return "–"
    mean = signed(value.mean, digits) if sign else f"{value.mean:.{digits}f}"
    return mean if value.sd is None else f"{mean}\u00a0±\u00a0{value.sd:.{digits}f}"


def p_text(p: float) -> str:
    """Three digits; the least that 1,000 resamples can give is 0.001."""
    return f"{p:.3f}"


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


def percent(share: float | None, digits: int = 1) -> str:
    """``91.2 %``; what rounds to nothing as ``<0.1 %``, a dash for None."""
    if share is None:
        return "–"
    least = 0.5 * 10**-digits / 100
    return f"{100 * share:.{digits}f} %" if share == 0 or share >= least else f"<{10**-digits:g} %"


def gain_scale(gains: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that holds all gains and zero, a little wider."""
    low, high = min([0.0, *gains]), max([0.0, *gains])
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room
