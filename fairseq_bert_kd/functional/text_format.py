"""Special ids and segments of an encoder's input; without torch, since the tokenizer reads them too."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TextFormat:
    """Special ids and segments of an encoder's input: ``prefix text`` or ``prefix text middle second_text``.

    BERT: prefix ``[CLS]``, middle ``[SEP]``. RoBERTa: prefix ``<s>``, middle ``</s></s>``. The closing token is not listed.
    It is the encoder id of the end-of-sentence symbol with which the last text ends, so that a C-MLM can mask it like any
    other token.

    Attributes:
        prefix: ids before the first text.
        middle: ids between two texts.
        mask: id of the mask token.
        pad: id of padding.
        segments: segment id of the first text (with prefix and middle) and of the second.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    mask: int
    pad: int
    segments: tuple[int, int] = (0, 1)

    def overhead(self, texts: int) -> int:
        """Special tokens around one text or two, the closing one not counted."""
        return len(self.prefix) + len(self.middle) * (texts - 1)

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TextFormat":
        """The format of `to_dict`, or of checkpoints before it, which name the segments one by one."""
        segments = fields.get("segments") or (fields["source_segment"], fields["target_segment"])
        return cls(
            prefix=tuple(fields["prefix"]),
            middle=tuple(fields["middle"]),
            mask=fields["mask"],
            pad=fields["pad"],
            segments=tuple(segments),
        )
