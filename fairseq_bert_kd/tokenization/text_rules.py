"""What a tokenizer does to text before it cuts it into pieces, and whether its folder says the same.

transformers takes the rules of a BERT from ``tokenizer_config.json``. Where the key ``do_lower_case`` is missing there, it
lowers the case, even if ``tokenizer.json`` or the vocabulary are of a cased model. Nothing else would say so.
"""

import json
import logging
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

Normalise = Callable[[str], str]
DEAD_SHARE = 0.02  # pieces that can never occur, above which a vocabulary is of another kind: our choice
LIVING_SHARE = 0.2  # pieces in lower case, above which a vocabulary is of a script with capitals: our choice


@dataclass(frozen=True)
class TextRules:
    """Changes that a tokenizer makes in text; its string is one line for a log.

    Attributes:
        lowers_case: "A" becomes "a".
        strips_accents: "é" becomes "e".
        replaces_compatibility_forms: "ﬁ" becomes "fi" (NFKC, NFKD).
        squeezes_spaces: one space between words and none at the ends.
        spaces_apart: spaces stand around Chinese characters.
    """

    lowers_case: bool
    strips_accents: bool
    replaces_compatibility_forms: bool
    squeezes_spaces: bool
    spaces_apart: bool

    @classmethod
    def of(cls, normalise: Normalise) -> "TextRules":
        """The rules of a function from text to the text that the pieces spell, found by trying it."""
        return cls(
            lowers_case=normalise("A") == "a",
            strips_accents=normalise("é").lower() == "e",
            replaces_compatibility_forms=normalise("ﬁ") == "fi",
            squeezes_spaces=normalise(" a  b ") == "a b",
            spaces_apart=normalise("中文").split() == ["中", "文"],
        )

    def __str__(self) -> str:
        return ", ".join(
            [
                "case is lowered" if self.lowers_case else "case is kept",
                f"accents are {'stripped' if self.strips_accents else 'kept'}",
                f"compatibility forms (ﬁ, ½, full width) are {'replaced' if self.replaces_compatibility_forms else 'kept'}",
                "one space stands between words" if self.squeezes_spaces else "spaces are kept",
                *(["Chinese characters are spaced apart"] if self.spaces_apart else []),
            ]
        )


def check_folder(name: str, rules: TextRules, pieces: Collection[str], text_of: Callable[[str], str]) -> None:
    """Compare the rules in use with the folder's own files and with its vocabulary; contradictions are warnings.

    Args:
        name: folder or hub name.
        rules: rules in use.
        pieces: the vocabulary without special tokens.
        text_of: gives the text of a piece, without marks.

    Raises:
        ValueError: the case is lowered though no file says so, against ``tokenizer.json`` or the vocabulary.
    """
    config, settings = (_read_json(name, f"{stem}.json") for stem in ("tokenizer_config", "tokenizer"))
    stated = _rules_of(settings["normalizer"]) if "normalizer" in settings else None
    differences = _stated_differences(rules, stated) + _dead_pieces(rules, pieces, text_of)
    if not differences:
        return
    found = "; ".join(differences)
    agrees = stated is not None and stated.lowers_case
    if rules.lowers_case and "do_lower_case" not in config and not agrees:
        raise ValueError(
            f"tokenizer `{name}` would lower the case only because its tokenizer_config.json does not say `do_lower_case`: "
            f'{found}. Put "do_lower_case": false into that file (of a copy, if it comes from the hub), or true if the model '
            "shall read lower case."
        )
    logger.warning(
        "tokenizer `%s` contradicts itself: %s, but %s. Compare `do_lower_case` and `strip_accents` in its "
        "tokenizer_config.json with the model's origin.",
        *(name, found, rules),
    )


def _rules_of(normaliser: dict[str, Any] | None) -> TextRules:
    """Rules of a normaliser as ``tokenizer.json`` writes it."""
    return TextRules.of(str if normaliser is None else normalizer_from(normaliser).normalize_str)


def normalizer_from(settings: dict[str, Any]) -> Any:
    """A normaliser of the tokenizers library from what ``tokenizer.json`` says of it."""
    from tokenizers import Tokenizer, models

    whole = json.loads(Tokenizer(models.BPE()).to_str()) | {"normalizer": settings}
    return Tokenizer.from_str(json.dumps(whole)).normalizer


# rule -> what a file says that has it not, and has it
_SAYINGS = {
    "lowers_case": ("keeps case", "lowers case"),
    "strips_accents": ("keeps accents", "strips accents"),
    "replaces_compatibility_forms": ("keeps compatibility forms", "replaces compatibility forms"),
}


def _stated_differences(rules: TextRules, stated: TextRules | None) -> list[str]:
    differing = [
        sayings[getattr(stated, rule)]
        for rule, sayings in _SAYINGS.items()
        if stated is not None and getattr(stated, rule) != getattr(rules, rule)
    ]
    return [f"its tokenizer.json {' and '.join(differing)}"] if differing else []


def _dead_pieces(rules: TextRules, pieces: Collection[str], text_of: Callable[[str], str]) -> list[str]:
    """What the vocabulary holds that the rules never let through, or lacks that they do."""
    found = []
    for changes, what, has in (
        (rules.lowers_case, "capitals", _has_capital),
        (rules.strips_accents, "accents", has_accent),
    ):
        dead = sum(has(text_of(piece)) for piece in pieces) if changes else 0
        if dead > DEAD_SHARE * len(pieces):
            found.append(
                f"{dead:,} of {len(pieces):,} pieces of its vocabulary have {what} and can never occur"
            )
    if not rules.lowers_case and not any(_has_capital(text_of(piece)) for piece in pieces):
        lower = sum(text_of(piece) != text_of(piece).upper() for piece in pieces)
        if lower > LIVING_SHARE * len(pieces):
            found.append("its vocabulary has no piece with a capital")
    return found


def _has_capital(text: str) -> bool:
    return text != text.lower()


def has_accent(text: str) -> bool:
    """Whether a letter bears a mark, composed or not."""
    return not text.isascii() and any(
        unicodedata.category(letter) == "Mn" for letter in unicodedata.normalize("NFD", text)
    )


def _read_json(name: str, file: str) -> dict[str, Any]:
    """A file of a folder or hub name; empty if it is not there."""
    from transformers.utils import cached_file

    try:
        path = cached_file(name, file)
    except (OSError, ValueError):  # absent, or the hub cannot be reached
        return {}
    if path is None:
        return {}
    with open(path, encoding="utf-8") as content:
        return dict(json.load(content))
