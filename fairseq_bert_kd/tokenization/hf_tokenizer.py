"""A Hugging Face tokenizer as a lossless pair of functions between a line of text and a list of symbols.

The symbols are the teacher's own vocabulary pieces, so that a fairseq dictionary can be mapped to teacher
ids. Where the vocabulary cannot spell the text, UTF-8 byte symbols ``<0xF0>`` stand in, as in SentencePiece.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from fairseq_bert_kd.compat import file_fault, import_transformers, is_lfs_pointer
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.tokenization.piece_codecs import (
    BYTE_SYMBOL,
    METASPACE,
    UNUSED,
    ByteLevelCodec,
    MetaspaceCodec,
    PieceCodec,
    WordPieceCodec,
)
from fairseq_bert_kd.tokenization.text_rules import TextRules, check_folder, normalizer_from

logger = logging.getLogger(__name__)

DIGEST_SAMPLE = "Ein  M\u00e4dchen A\u0308 \ufb01 \u2167 \u4e2d\u6587 \u00bd\u200b \u00a0x"  # case, accents, compatibility, spaces
# beginnings of their names
FILES = ("tokenizer", "vocab", "merges", "sentencepiece", "spiece", "special_tokens_map")
KINDS = "WordPiece (BERT), byte-level BPE (RoBERTa), SentencePiece with Metaspace (XLM-R)"


class HfTokenizer:
    """Line of text <-> list of symbols, with ``decode(encode(line)) == normalise(line)`` for any line.

    Attributes:
        name: the folder or hub name it was loaded from.
        kind: "wordpiece", "sentencepiece" or "byte-level".
        vocab_size: number of ids, added tokens included.
        unk_id: teacher id of its unknown token.
        text_rules: what it does to text.
    """

    def __init__(self, path_or_name: str) -> None:
        """Load the tokenizer, and log what it does to text.

        Raises:
            ValueError: it cannot be loaded, has no Rust backend, no vocabulary, no unknown token, is of
                a kind that we cannot invert, or lowers the case of a cased model.
            InstallationError: transformers is missing.
        """
        self.name = str(path_or_name)
        loaded = _load(self.name)
        backend = loaded.backend_tokenizer
        settings = json.loads(backend.to_str())
        self._special_ids: dict[str, int | None] = {
            role: getattr(loaded, f"{role}_token_id") for role in ("cls", "mask", "pad", "unk")
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
        self.unk_id: int = self.special_id("unk")  # byte symbols and fairseq's <unk> need it
        self._normalizer = _normalizer_of(backend, settings)
        self._plain = _plain_clone(settings)
        self._codec = _codec_for(self.name, settings, self._plain, frozenset(self._vocab), frozenset(special))
        self.kind = self._codec.kind
        self._has_segments = "token_type_ids" in loaded.model_input_names
        self.text_rules = TextRules.of(self.normalise)
        check_folder(
            self.name, self.text_rules, self._codec.usable, lambda piece: self._codec.decode([piece])
        )
        logger.info("tokenizer `%s`: %s", self.name, self.text_rules)
        # transformers 4 and 5 write the same rules differently, so we hash what they do to a sample
        rules = (self.kind, self.normalise(DIGEST_SAMPLE))
        self._digest = _digest(settings["model"], self._vocab, rules)

    def normalise(self, line: str) -> str:
        """The part of ``line`` that the tokenizer sees, which ``decode(encode(line))`` gives back.

        The tokenizer's own normalizer (lower case, accents, ...); then, for WordPiece and SentencePiece,
        runs of white space become one space and the ends are stripped, because these tokenizers treat
        white space as a separator only. Byte-level BPE keeps every character.

        Raises:
            ValueError: half of a surrogate pair, which UTF-8 text cannot hold.
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

    def all_symbols(self) -> list[str]:
        """Every symbol that a line can have, in the order of the teacher's ids; symbols of bytes come last."""
        return self._codec.all_symbols(sorted(self._vocab, key=self._vocab.__getitem__))

    def piece_to_id(self, symbol: str) -> int | None:
        """Teacher id of a symbol, or None when the teacher does not know it.

        The glue marker is taken off; a byte symbol that the vocabulary lacks has the unknown token's id.
        """
        piece = self._codec.without_marker(symbol)
        known = self._vocab.get(piece)
        return self.unk_id if known is None and BYTE_SYMBOL.fullmatch(piece) else known

    def text_to_ids(self, text: str) -> tuple[int, ...]:
        """Teacher ids of a text's symbols, without special tokens."""
        return tuple(self.piece_to_id(symbol) or 0 for symbol in self.encode(text))

    def whole_words(self) -> dict[int, str]:
        """Text of each piece that begins a word and is no special or unused token, by teacher id in their order."""
        pieces = sorted(self._vocab, key=self._vocab.__getitem__)
        return {
            self._vocab[piece]: self.decode([piece]).strip()
            for piece in pieces
            if piece in self._codec.usable and self._codec.starts_word(piece) and not UNUSED.fullmatch(piece)
        }

    def is_beginning_of_word(self, symbol: str) -> bool:
        """Whether the symbol itself says that white space stands before it."""
        return self._codec.starts_word(symbol)

    def special_id(self, role: str) -> int:
        """Teacher id of its ``cls``, ``mask``, ``pad`` or ``unk`` token; ValueError if it has none."""
        token_id = self._special_ids[role]
        if token_id is None:
            raise ValueError(
                f"the teacher's tokenizer must have a {role} token, but `{self.name}` has none. "
                "Use the tokenizer of a masked language model (BERT, RoBERTa, XLM-R), or name the token "
                f"as `{role}_token` in its tokenizer_config.json."
            )
        return token_id

    @property
    def closing_id(self) -> int:
        """Teacher id that closes its input, after one text or two."""
        return self._encoded_pair().ids[-1]

    def text_format(self) -> TextFormat:
        """The teacher's layout of one text and of two, read from an encoded example.

        Raises:
            ValueError: no mask token, or not exactly one special token after the last text.
        """
        mask = self.special_id("mask")  # first: without a mask there is no masked language model
        example = self._encoded_pair()
        first, second = example.sequence_ids.index(0), example.sequence_ids.index(1)
        end_of_first = first + example.sequence_ids.count(0)
        return TextFormat(
            prefix=tuple(example.ids[:first]),
            middle=tuple(example.ids[end_of_first:second]),
            mask=mask,
            pad=self.special_id("pad"),
            # RoBERTa has one segment only, whatever its post-processor says
            segments=(example.type_ids[first], example.type_ids[second]) if self._has_segments else (0, 0),
        )

    def _encoded_pair(self) -> Any:
        """The texts "a" and "b" with the special tokens of a pair."""
        example = self._plain.encode("a", "b", add_special_tokens=True)
        order = [text for text, _ in groupby(example.sequence_ids) if text is not None]
        if order != [0, 1] or example.sequence_ids[-2:] != [1, None]:
            raise ValueError(
                "the teacher's layout of a pair must be source, target and exactly one closing special token, "
                f"but `{self.name}` gives {' '.join(example.tokens)!r} for 'a' and 'b'. Use a tokenizer whose "
                "post-processor closes a pair with one token, as BERT's [SEP] and RoBERTa's </s>."
            )
        return example

    def save(self, folder: str) -> None:
        """Write the tokenizer's files, as ``AutoTokenizer.from_pretrained`` reads them."""
        _load(self.name).save_pretrained(folder)

    def digest(self) -> str:
        """Hexadecimal sha256 of vocabulary, model and text rules, independent of the folder's path.

        The same with transformers 4 and 5, unless the two load the folder with different text rules.
        """
        return self._digest

    def label(self) -> str:
        """The last part of its name and the beginning of its digest, for signatures."""
        return f"{Path(self.name).name}-{self._digest[:8]}"

    def _symbols(self, text: str, encoding: Any) -> list[str]:
        symbols = self._codec.symbols(text, encoding)
        return symbols if self._codec.decode(symbols) == text else self._codec.all_bytes(text)


def _load(name: str) -> Any:
    transformers = import_transformers(models=False)
    for path in sorted(Path(name).glob("*")) if Path(name).is_dir() else ():
        if path.name.startswith(FILES) and path.is_file() and is_lfs_pointer(path):
            raise ValueError(f"cannot load a tokenizer from `{name}`: {file_fault(path)}")
    try:
        loaded = transformers.AutoTokenizer.from_pretrained(name)
    except Exception as error:  # transformers and its Rust part raise very different types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if Path(name).is_dir() and (
            checkpoints := sorted(path.name for path in Path(name).glob("checkpoint*.pt"))
        ):
            raise ValueError(
                f"`{name}` holds fairseq's checkpoints and no tokenizer: give `{Path(name, checkpoints[0])}` where a checkpoint "
                "is asked for, else the folder of the pre-trained model"
            ) from None
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


def _normalizer_of(backend: Any, settings: dict[str, Any]) -> Any:
    """The backend's normalizer, which leaves spaces as spaces; None where there is none.

    transformers' converter of SentencePiece models replaces a run of spaces by ``▁``, as the pieces write it. That could not
    be told from a ``▁`` of the text, which is kept.
    """
    changed = json.loads(json.dumps(settings["normalizer"]))
    replacing = [
        node for node in _nodes(changed) if node["type"] == "Replace" and node["content"] == METASPACE
    ]
    for node in replacing:
        node["content"] = " "
    return normalizer_from(changed) if replacing else backend.normalizer


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
) -> PieceCodec:
    model = settings["model"]["type"]
    nodes = {node["type"]: node for node in _nodes(settings["pre_tokenizer"])}
    if model == "WordPiece" and settings["model"]["continuing_subword_prefix"]:
        return WordPieceCodec(vocab, special, plain.model)
    if model == "BPE" and "ByteLevel" in nodes:
        # added always, not only before a line without a space: else a leading space would be lost
        return ByteLevelCodec(vocab, special, " " if nodes["ByteLevel"]["add_prefix_space"] else "")
    if model in ("Unigram", "BPE") and nodes.get("Metaspace", {}).get("replacement") == METASPACE:
        return MetaspaceCodec(vocab, special)
    raise ValueError(
        f"the tokenizer must be one of {KINDS}, but `{name}` has model {model} with pre-tokenizer "
        f"{' + '.join(nodes) or 'none'}. Choose a teacher with one of these."
    )


def _nodes(component: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The leaves of a serialised normalizer or pre-tokenizer, through nested Sequences."""
    if component is None:
        return
    if component["type"] == "Sequence":
        for child in component.get("pretokenizers") or component.get("normalizers") or ():
            yield from _nodes(child)
    else:
        yield component


def _digest(model: dict[str, Any], vocab: dict[str, int], rules: tuple[str, ...]) -> str:
    stated = {key: value for key, value in model.items() if value}  # None and "" are both "not set"
    if isinstance(model["vocab"], list):  # Unigram's scores pass through floats of versions' own printing
        stated["vocab"] = [(piece, round(score, 4)) for piece, score in model["vocab"]]
    return hashlib.sha256(json.dumps([stated, vocab, rules], sort_keys=True).encode()).hexdigest()
