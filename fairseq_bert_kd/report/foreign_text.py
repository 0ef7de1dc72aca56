"""Text from elsewhere, made safe to look at."""

import unicodedata
from typing import Any

_HARMLESS = "\u200c\u200d\u200e\u200f"  # joiners and marks of direction, which scripts need
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(value: Any) -> Any:
    """A string with control characters, overrides of direction and lone surrogates as their escapes."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(
        c if c in _HARMLESS or unicodedata.category(c) not in _HIDDEN else c.encode("unicode_escape").decode()
        for c in value
    )
