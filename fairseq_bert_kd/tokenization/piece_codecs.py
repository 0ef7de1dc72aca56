"""How each kind of tokenizer writes white space in its pieces, and how to undo it.

Symbols are vocabulary pieces, marked where a piece alone does not say whether white space stands before it,
and UTF-8 byte symbols ``<0xF0>`` where the vocabulary cannot spell the text.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

GLUE = "@@"  # in front of a word-initial WordPiece that follows without white space
METASPACE = "\u2581"  # SentencePiece's visible space
BYTE_SYMBOL = re.compile(r"<0x([0-9A-F]{2})>")
BYTE_SYMBOLS = tuple(f"<0x{byte:02X}>" for byte in range(256))
UNUSED = re.compile(r"\[unused\d+\]")  # entries of BERT's vocabularies that no text has
WHITE_SPACE = re.compile(r"\s")  # what fairseq.tokenizer.tokenize_line splits at
# read by fairseq.data.Dictionary as its own; a text piece must never look like one
FAIRSEQ_SPECIALS = frozenset({"<s>", "<pad>", "</s>", "<unk>", "#fairseq:overwrite"})


class PieceCodec(ABC):
    """White space in the pieces of one kind of tokenizer: how it is written, and how to undo it."""

    kind: str
    prefix = ""  # stands before the text when it is tokenised

    def __init__(self, vocab: frozenset[str], special: frozenset[str]) -> None:
        forbidden = FAIRSEQ_SPECIALS | special
        self.usable = frozenset(
            piece
            for piece in vocab
            if piece
            and piece not in forbidden
            and not WHITE_SPACE.search(piece)
            and not BYTE_SYMBOL.search(piece)
        )

    def squeeze(self, text: str) -> str:
        """White space as a separator: one space between words."""
        return " ".join(text.split())

    def without_marker(self, symbol: str) -> str:
        """Vocabulary entry of a symbol."""
        return symbol

    @abstractmethod
    def symbols(self, text: str, encoding: Any) -> list[str]:
        """Symbols of the squeezed ``text``, given the encoding of ``prefix + text``."""

    def all_bytes(self, text: str) -> list[str]:
        """The squeezed ``text`` in byte symbols only."""
        return list(_byte_symbols(self.prefix + text if text else ""))

    def all_symbols(self, pieces: Sequence[str]) -> list[str]:
        """Every symbol that a text can have, in the order of the vocabulary's ``pieces``, bytes last."""
        return [*(piece for piece in pieces if piece in self.usable), *BYTE_SYMBOLS]

    @abstractmethod
    def decode(self, symbols: Sequence[str]) -> str:
        """Text of the symbols."""

    @abstractmethod
    def starts_word(self, symbol: str) -> bool:
        """Whether the symbol begins a word."""


class WordPieceCodec(PieceCodec):
    """``don't`` is ``don @@' @@t``, ``unseen`` is ``un ##seen``.

    The paper's authors mark every piece that is not at a word's beginning (``@@##son``); we mark only
    where ``##`` does not already say it.
    """

    kind = "wordpiece"

    def __init__(self, vocab: frozenset[str], special: frozenset[str], model: Any) -> None:
        super().__init__(vocab, special)
        self.model = model
        self.continuing: str = model.continuing_subword_prefix
        self.longest_word: int = model.max_input_chars_per_word
        self.markers = (GLUE, self.continuing)
        self.initial = frozenset(piece for piece in self.usable if not piece.startswith(self.markers))

    def symbols(self, text: str, encoding: Any) -> list[str]:
        out: list[str] = []
        end = 0  # of the text that `out` spells
        for piece, (start, stop) in zip(encoding.tokens, encoding.offsets, strict=True):
            if start > end and text[end:start] != " ":  # characters that no token covers
                self._uncovered(text, end, start, out)
                end = start if text[start - 1] != " " else start - 1
            glued = start == end and start > 0
            surface = text[start:stop]
            if piece == surface and piece in self.initial:
                out.append(GLUE + piece if glued else piece)
            elif glued and piece == self.continuing + surface and piece in self.usable:
                out.append(piece)
            else:
                self._word(surface, glued, out)
            end = stop
        self._uncovered(text, end, len(text), out)
        return out

    def _uncovered(self, text: str, start: int, stop: int, out: list[str]) -> None:
        glued = start > 0
        for is_space, run in groupby(text[start:stop], key=str.isspace):
            if not is_space:
                self._spell("".join(run), glued, out)
            glued = not is_space

    def _word(self, word: str, glued: bool, out: list[str]) -> None:
        """Spell a word that the model does not know: known runs of characters as pieces, the rest as bytes."""
        for known, letters in groupby(word, key=self.initial.__contains__):
            run = "".join(letters)
            for begin in range(0, len(run), self.longest_word):
                chunk = run[begin : begin + self.longest_word]
                pieces = [token.value for token in self.model.tokenize(chunk)] if known else []
                if known and pieces[0] in self.initial and self.usable.issuperset(pieces):
                    out.append(GLUE + pieces[0] if glued else pieces[0])
                    out.extend(pieces[1:])
                else:
                    self._spell(chunk, glued, out)
                glued = True

    def _spell(self, word: str, glued: bool, out: list[str]) -> None:
        for letter in word:
            for symbol in [letter] if letter in self.initial else _byte_symbols(letter):
                out.append(GLUE + symbol if glued else symbol)
                glued = True

    def all_bytes(self, text: str) -> list[str]:
        return [
            GLUE + symbol if place else symbol
            for word in text.split()
            for place, symbol in enumerate(_byte_symbols(word))
        ]

    def all_symbols(self, pieces: Sequence[str]) -> list[str]:
        whole = [piece for piece in pieces if piece in self.initial]
        inner = [piece for piece in pieces if piece in self.usable and piece.startswith(self.continuing)]
        glued = [GLUE + symbol for symbol in (*whole, *BYTE_SYMBOLS)]
        return [*whole, *inner, *BYTE_SYMBOLS, *glued]

    def decode(self, symbols: Sequence[str]) -> str:
        out = bytearray()
        for symbol in symbols:
            if symbol.startswith(GLUE):
                piece = symbol[len(GLUE) :]
            elif symbol.startswith(self.continuing):
                piece = symbol[len(self.continuing) :]
            else:
                piece = symbol
                out += b" " if out else b""
            out += _byte(piece) or _utf8(piece)
        return out.decode(errors="replace")

    def without_marker(self, symbol: str) -> str:
        return symbol.removeprefix(GLUE)

    def starts_word(self, symbol: str) -> bool:
        return not symbol.startswith(self.markers)


class MetaspaceCodec(PieceCodec):
    """SentencePiece: pieces carry their spaces (``▁Hello``), so bytes need no glue."""

    kind = "sentencepiece"

    def symbols(self, text: str, encoding: Any) -> list[str]:
        pieces = encoding.tokens
        # the dummy space that SentencePiece puts first
        shift = 1 if pieces and pieces[0].startswith(METASPACE) else 0
        spaced = " " * shift + text
        out: list[str] = []
        end = 0
        for piece, (_, stop) in zip(pieces, encoding.offsets, strict=True):
            surface = piece.replace(METASPACE, " ")
            if spaced.startswith(surface, end):
                if piece in self.usable:
                    out.append(piece)
                else:
                    self._spell(surface, out)
                end += len(surface)
            elif stop + shift > end:  # a literal metaspace, or an unknown token
                self._spell(spaced[end : stop + shift], out)
                end = stop + shift
        self._spell(spaced[end:], out)
        return out

    def _spell(self, text: str, out: list[str]) -> None:
        for letter in text:
            piece = METASPACE if letter == " " else letter
            if piece in self.usable and letter != METASPACE:
                out.append(piece)
            else:
                out.extend(_byte_symbols(letter))

    def decode(self, symbols: Sequence[str]) -> str:
        out = bytearray()
        for symbol in symbols:
            out += _byte(symbol) or _utf8(symbol.replace(METASPACE, " "))
        return out.decode(errors="replace").removeprefix(" ")

    def starts_word(self, symbol: str) -> bool:
        return symbol.startswith(METASPACE)


class ByteLevelCodec(PieceCodec):
    """GPT-2's alphabet, one printable character per byte; ``Ġ`` is the space."""

    kind = "byte-level"

    def __init__(self, vocab: frozenset[str], special: frozenset[str], prefix: str) -> None:
        super().__init__(vocab, special)
        self.prefix = prefix
        self.byte_of = _gpt2_alphabet()
        self.letter_of = {byte: letter for letter, byte in self.byte_of.items()}
        self.space = self.letter_of[0x20]

    def squeeze(self, text: str) -> str:
        return text

    def symbols(self, text: str, encoding: Any) -> list[str]:
        content = (self.prefix + text if text else "").encode()
        out: list[str] = []
        end = 0
        for piece in encoding.tokens:
            surface = self._bytes_of(piece)
            start = content.find(surface, end) if piece in self.usable else -1
            if start >= 0:
                self._spell(content[end:start], out)
                out.append(piece)
                end = start + len(surface)
        self._spell(content[end:], out)
        return out

    def _spell(self, content: bytes, out: list[str]) -> None:
        for byte in content:
            letter = self.letter_of[byte]
            out.append(letter if letter in self.usable else f"<0x{byte:02X}>")

    def decode(self, symbols: Sequence[str]) -> str:
        content = b"".join(_byte(symbol) or self._bytes_of(symbol) for symbol in symbols)
        return content.decode(errors="replace").removeprefix(self.prefix)

    def _bytes_of(self, piece: str) -> bytes:
        try:
            return bytes([self.byte_of[letter] for letter in piece])
        except KeyError:  # not of the alphabet: an added token, or a symbol from elsewhere
            return _utf8(piece)

    def starts_word(self, symbol: str) -> bool:
        return symbol.startswith(self.space)


def _byte_symbols(text: str) -> Iterator[str]:
    return (f"<0x{byte:02X}>" for byte in text.encode())


def _byte(piece: str) -> bytes:
    """The byte of a byte symbol; empty for any other piece."""
    match = BYTE_SYMBOL.fullmatch(piece) if piece.startswith("<0x") else None
    return bytes.fromhex(match[1]) if match else b""


def _utf8(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # decode must not raise


def _gpt2_alphabet() -> dict[str, int]:
    """Letter -> byte, after ``bytes_to_unicode`` of https://github.com/openai/gpt-2/blob/master/src/encoder.py."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
