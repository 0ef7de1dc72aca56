"""A Hugging Face tokenizer as a lossless pair of functions between a line of text and a list of symbols.

The symbols are the teacher's own vocabulary pieces, so that a fairseq dictionary can be mapped to teacher
ids. Where the vocabulary cannot spell the text, UTF-8 byte symbols ``<0xF0>`` stand in, as in SentencePiece.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fairseq_bert_kd.compat import import_transformers

GLUE = "@@"  # in front of a word-initial WordPiece that follows without white space
METASPACE = "\u2581"  # SentencePiece's visible space
BYTE_SYMBOL = re.compile(r"<0x([0-9A-F]{2})>")
WHITE_SPACE = re.compile(r"\s")  # what fairseq.tokenizer.tokenize_line splits at
# read by fairseq.data.Dictionary as its own; a text piece must never look like one
FAIRSEQ_SPECIALS = frozenset({"<s>", "<pad>", "</s>", "<unk>", "#fairseq:overwrite"})
DIGEST_SAMPLE = "Ein  M\u00e4dchen A\u0308 \ufb01 \u2167 \u4e2d\u6587 \u00bd\u200b \u00a0x"  # case, accents, compatibility, spaces
KINDS = "WordPiece (BERT), byte-level BPE (RoBERTa), SentencePiece with Metaspace (XLM-R)"


@dataclass(frozen=True)
class PairTemplate:
    """Teacher ids around a pair: ``prefix A middle B last``.

    Attributes:
        prefix: ids before the source, e.g. ``[CLS]``.
        middle: ids between source and target, e.g. ``[SEP]`` or ``</s></s>``.
        last: id of the token in the end slot, after the target.
        source_segment: token type id of the source part.
        target_segment: token type id of the target part.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    last: int
    source_segment: int
    target_segment: int


class HfTokenizer:
    """Line of text <-> list of symbols, with ``decode(encode(line)) == normalise(line)`` for any line.

    Attributes:
        name: the folder or hub name it was loaded from.
        kind: "wordpiece", "sentencepiece" or "byte-level".
        vocab_size: number of ids, added tokens included.
        unk_id: teacher id of its unknown token.
        n_byte_lines: lines so far that had to be written as bytes from end to end (rare: a sign of an
            unusual tokenizer).
    """

    def __init__(self, path_or_name: str) -> None:
        """Load the tokenizer.

        Raises:
            ValueError: it cannot be loaded, has no Rust backend, no vocabulary, no unknown token, or is of
                a kind that we cannot invert.
            InstallationError: transformers is missing.
        """
        self.name = str(path_or_name)
        loaded = _load(self.name)
        backend = loaded.backend_tokenizer
        settings = json.loads(backend.to_str())
        self._special_ids: dict[str, int | None] = {
            role: getattr(loaded, f"{role}_token_id") for role in ("cls", "sep", "mask", "pad", "unk")
        }
        self._vocab: dict[str, int] = backend.get_vocab(with_added_tokens=True)
        special = {token["content"] for token in settings["added_tokens"] if token["special"]}
        special.update(loaded.all_special_tokens)
        if not set(self._vocab) - special:
            raise ValueError(
                f"tokenizer `{self.name}` must have a vocabulary, but holds nothing beyond its "
                f"{len(self._vocab)} special tokens: a vocabulary file is missing from the folder. "
                "Copy tokenizer.json (or vocab.txt, or sentencepiece.bpe.model) from the model's origin."
            )
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self.unk_id: int = self._special_id("unk")  # byte symbols and fairseq's <unk> need it
        self._normalizer = backend.normalizer
        self._plain = _plain_clone(settings)
        self._codec = _codec_for(self.name, settings, self._plain, frozenset(self._vocab), frozenset(special))
        self.kind = self._codec.kind
        self._has_segments = "token_type_ids" in loaded.model_input_names
        # transformers 4 and 5 write the same rules differently, so we hash what they do to a sample
        rules = (self.kind, self.normalise(DIGEST_SAMPLE))
        self._digest = _digest(settings["model"], self._vocab, rules)
        self.n_byte_lines = 0

    def normalise(self, line: str) -> str:
        """What of ``line`` the tokenizer sees, and what ``decode(encode(line))`` gives back.

        The tokenizer's own normalizer (lower case, accents, ...); then, for WordPiece and SentencePiece,
        runs of white space become one space and the ends are stripped, because these tokenizers treat
        white space as a separator only. Byte-level BPE keeps every character.

        Raises:
            ValueError: half of a surrogate pair, which no UTF-8 text holds.
        """
        try:
            text = line if self._normalizer is None else self._normalizer.normalize_str(line)
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text must be valid Unicode, but has half of a surrogate pair at character {error.start}. "
                "Read the file as UTF-8 with errors='replace'."
            ) from None
        return self._codec.squeeze(text)

    def encode(self, line: str) -> list[str]:
        """Symbols of one line; none contains white space, every one has a teacher id."""
        return self.encode_batch([line])[0]

    def encode_batch(self, lines: Sequence[str]) -> list[list[str]]:
        """``encode`` of every line, in the tokenizers library's own threads."""
        texts = [self.normalise(line) for line in lines]
        prepared = [self._codec.prefix + text for text in texts]
        encodings = self._plain.encode_batch(prepared, add_special_tokens=False)
        return [self._symbols(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]

    def decode(self, symbols: Sequence[str] | str) -> str:
        """Text of any sequence of symbols (a string is split at white space). Never raises.

        Broken UTF-8 in byte symbols becomes U+FFFD; symbols from elsewhere, such as fairseq's ``<unk>``,
        stay as they are.
        """
        return self._codec.decode(symbols.split() if isinstance(symbols, str) else symbols)

    def piece_to_id(self, symbol: str) -> int | None:
        """Teacher id of a symbol, or None when the teacher does not know it.

        The glue marker is taken off; a byte symbol that the vocabulary lacks has the unknown token's id.
        """
        piece = self._codec.without_marker(symbol)
        known = self._vocab.get(piece)
        return self.unk_id if known is None and BYTE_SYMBOL.fullmatch(piece) else known

    def is_beginning_of_word(self, symbol: str) -> bool:
        """Whether the symbol itself says that white space stands before it."""
        return self._codec.starts_word(symbol)

    @property
    def cls_id(self) -> int:
        """Teacher id that opens its input."""
        return self._special_id("cls")

    @property
    def sep_id(self) -> int:
        """Teacher id of its separator."""
        return self._special_id("sep")

    @property
    def mask_id(self) -> int:
        """Teacher id of its mask."""
        return self._special_id("mask")

    @property
    def pad_id(self) -> int:
        """Teacher id of its padding."""
        return self._special_id("pad")

    def pair_template(self) -> PairTemplate:
        """How the teacher lays out a pair, read from an encoded example.

        Raises:
            ValueError: no mask token, or not exactly one special token after the target.
        """
        self._special_id("mask")  # without a mask there is no masked language model
        example = self._plain.encode("a", "b", add_special_tokens=True)
        order = [part for part, _ in groupby(example.sequence_ids) if part is not None]
        if order != [0, 1] or example.sequence_ids[-2:] != [1, None]:
            raise ValueError(
                "the teacher's layout of a pair must be source, target and exactly one closing special token, "
                f"but `{self.name}` gives {' '.join(example.tokens)!r} for 'a' and 'b'. Use a tokenizer whose "
                "post-processor closes a pair with one token, as BERT's [SEP] and RoBERTa's </s>."
            )
        source, target = example.sequence_ids.index(0), example.sequence_ids.index(1)
        source_end = source + example.sequence_ids.count(0)
        return PairTemplate(
            prefix=tuple(example.ids[:source]),
            middle=tuple(example.ids[source_end:target]),
            last=example.ids[-1],
            # RoBERTa has one segment only, whatever its post-processor says
            source_segment=example.type_ids[source] if self._has_segments else 0,
            target_segment=example.type_ids[target] if self._has_segments else 0,
        )

    def digest(self) -> str:
        """Hexadecimal sha256 of vocabulary, model and text rules, independent of the folder's path.

        The same with transformers 4 and 5, unless the two load the folder with different text rules.
        """
        return self._digest

    def _symbols(self, text: str, encoding: Any) -> list[str]:
        symbols = self._codec.symbols(text, encoding)
        if self._codec.decode(symbols) == text:
            return symbols
        self.n_byte_lines += 1
        return self._codec.all_bytes(text)

    def _special_id(self, role: str) -> int:
        token_id = self._special_ids[role]
        if token_id is None:
            raise ValueError(
                f"the teacher's tokenizer must have a {role} token, but `{self.name}` has none. "
                "Use the tokenizer of a masked language model (BERT, RoBERTa, XLM-R), or name the token "
                f"as `{role}_token` in its tokenizer_config.json."
            )
        return token_id


class _Codec(ABC):
    """How one kind of tokenizer writes white space, and how to undo it."""

    kind: str
    prefix = ""  # put before the text when it is tokenised

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
        """The vocabulary's name of a symbol."""
        return symbol

    @abstractmethod
    def symbols(self, text: str, encoding: Any) -> list[str]:
        """Symbols of the squeezed ``text``, given the encoding of ``prefix + text``."""

    @abstractmethod
    def all_bytes(self, text: str) -> list[str]:
        """The squeezed ``text`` in byte symbols only."""

    @abstractmethod
    def decode(self, symbols: Sequence[str]) -> str:
        """Text of the symbols."""

    @abstractmethod
    def starts_word(self, symbol: str) -> bool:
        """Whether white space stands before the symbol."""


class _WordPiece(_Codec):
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
        end = 0
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
        """A word that the model does not know: its known runs of characters as pieces, the rest as bytes."""
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


class _Metaspace(_Codec):
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

    def all_bytes(self, text: str) -> list[str]:
        return list(_byte_symbols(text))

    def decode(self, symbols: Sequence[str]) -> str:
        out = bytearray()
        for symbol in symbols:
            out += _byte(symbol) or _utf8(symbol.replace(METASPACE, " "))
        return out.decode(errors="replace").removeprefix(" ")

    def starts_word(self, symbol: str) -> bool:
        return symbol.startswith(METASPACE)


class _ByteLevel(_Codec):
    """GPT-2's alphabet, one printable character for each byte; ``Ġ`` is the space."""

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

    def all_bytes(self, text: str) -> list[str]:
        return list(_byte_symbols(self.prefix + text if text else ""))

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


def _load(name: str) -> Any:
    transformers = import_transformers()
    try:
        loaded = transformers.AutoTokenizer.from_pretrained(name)
    except (
        Exception
    ) as error:  # transformers and its Rust part raise very different types, plain Exception too
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"cannot load a tokenizer from `{name}`: it is neither a folder that holds one (tokenizer.json or "
            "the vocabulary files, with tokenizer_config.json) nor the name of a model on the hub that can be "
            f"reached from here. Give the folder, or download it where there is a network. ({reason})"
        ) from error
    if getattr(loaded, "backend_tokenizer", None) is None:
        raise ValueError(
            f"tokenizer `{name}` must have a Rust backend (a fast tokenizer), but {type(loaded).__name__} has "
            "none. Use a model that ships tokenizer.json, or convert it with transformers' convert_slow_tokenizer."
        )
    return loaded


def _plain_clone(settings: dict[str, Any]) -> Any:
    """The backend for text that is already normalised, where "[MASK]" is five ordinary characters."""
    from tokenizers import Tokenizer

    settings = json.loads(json.dumps(settings)) | {"normalizer": None, "truncation": None, "padding": None}
    for node in _nodes(settings["pre_tokenizer"]):
        if node["type"] == "ByteLevel":
            node["add_prefix_space"] = False  # see _codec_for: we put it there ourselves
    clone = Tokenizer.from_str(json.dumps(settings))
    clone.encode_special_tokens = True
    return clone


def _codec_for(
    name: str, settings: dict[str, Any], plain: Any, vocab: frozenset[str], special: frozenset[str]
) -> _Codec:
    model = settings["model"]["type"]
    nodes = {node["type"]: node for node in _nodes(settings["pre_tokenizer"])}
    if model == "WordPiece" and settings["model"]["continuing_subword_prefix"]:
        return _WordPiece(vocab, special, plain.model)
    if model == "BPE" and "ByteLevel" in nodes:
        # added always, not only before a line without a space: else a leading space would be lost
        return _ByteLevel(vocab, special, " " if nodes["ByteLevel"]["add_prefix_space"] else "")
    if model in ("Unigram", "BPE") and nodes.get("Metaspace", {}).get("replacement") == METASPACE:
        return _Metaspace(vocab, special)
    raise ValueError(
        f"the tokenizer must be one of {KINDS}, but `{name}` has model {model} with pre-tokenizer "
        f"{' + '.join(nodes) or 'none'}. Choose a teacher with one of these."
    )


def _nodes(component: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The leaves of a serialised component, through nested Sequences."""
    if component is None:
        return
    if component["type"] == "Sequence":
        for child in component["pretokenizers"]:
            yield from _nodes(child)
    else:
        yield component


def _digest(model: dict[str, Any], vocab: dict[str, int], rules: tuple[str, ...]) -> str:
    stated = {key: value for key, value in model.items() if value}  # None and "" are both "not set"
    if isinstance(model["vocab"], list):  # Unigram's scores pass through floats of versions' own printing
        stated["vocab"] = [(piece, round(score, 4)) for piece, score in model["vocab"]]
    return hashlib.sha256(json.dumps([stated, vocab, rules], sort_keys=True).encode()).hexdigest()


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
