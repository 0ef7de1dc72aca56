"""Lossless round trips of four kinds of tokenizers on hostile text, and the pieces themselves."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from fairseq.tokenizer import tokenize_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import assemble_texts
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.piece_codecs import FAIRSEQ_SPECIALS
from tests.tokenization.tiny_tokenizers import KINDS, TEXT, build_tokenizer

HOSTILE = [
    "😀", "👩‍👩‍👧", "🇩🇪", "e\u0301", "\u0301", "\u0327\u0300", "\u00a0", "\u200b", "\u200d", "\ufeff", "\u00ad", "\t", " ", "  ",
    "@@", "##", "@@##", "@", "#", "▁", "▁▁", "Ġ", "Ċ", "<0xF0>", "@@<0xF0>", "<0x", "[MASK]", "[UNK]", "[PAD]", "</s>", "<s>",
    "<unk>", "<pad>", "<mask>", "#fairseq:overwrite", "madeupword0001", "\r", "\x00", "\x07", "\x1c", "\x1f", "\x85", "\u2028",
    "\u3000", "\u180e", "ǆ", "中文", "ﬁ", "İ", "ß", "ا", "क्षि", "\ufffd", "\uffff", "\U0010ffff",
    "don't", "state-of-the-art", "standing", "Mädchen", "a", "B", "7", ".",
]  # fmt: skip
HOSTILE_TEXT = st.lists(
    st.sampled_from(HOSTILE) | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n"), max_size=4),
    max_size=12,
).map("".join)  # fmt: skip
SYMBOLS = st.lists(
    st.sampled_from([*HOSTILE, "<0xFF>", "@@<0xC3>", "<0xA4>", "##s", "@@t"]) | st.text(max_size=3)
)
modest = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokenizers")
    for kind in KINDS:
        build_tokenizer(kind, root / kind)
    return root


@pytest.fixture(scope="module")
def tokenizers(folders: Path) -> dict[str, HfTokenizer]:
    return {kind: HfTokenizer(folders / kind) for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tokenizers: dict[str, HfTokenizer]) -> HfTokenizer:
    return tokenizers[request.param]


def edited(folder: Path, target: Path, edit: Callable[[dict], None]) -> Path:
    """A copy of a tokenizer's folder with its tokenizer.json changed, and read as it stands there."""
    shutil.copytree(folder, target)
    (target / "vocab.txt").unlink(missing_ok=True)
    content = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    edit(content)
    (target / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    config = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    # transformers 4 sets what the config says
    config["add_prefix_space"] = content["pre_tokenizer"].get("add_prefix_space", False)
    (target / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def check_line(tokenizer: HfTokenizer, line: str) -> list[str]:
    symbols = tokenizer.encode(line)
    assert tokenizer.decode(symbols) == tokenizer.normalise(line), line
    assert tokenizer.decode(" ".join(symbols)) == tokenizer.normalise(line)
    assert tokenize_line(" ".join(symbols)) == symbols  # no white space within a symbol
    assert not FAIRSEQ_SPECIALS.intersection(symbols)
    ids = [tokenizer.piece_to_id(symbol) for symbol in symbols]
    assert all(token_id is not None and 0 <= token_id < tokenizer.vocab_size for token_id in ids)
    assert tokenizer.special_id("mask") not in ids
    return symbols


# -- round trips


@modest
@given(line=HOSTILE_TEXT)
def test_hostile_text_survives(tokenizer: HfTokenizer, line: str):
    with mock.patch.object(tokenizer._codec, "all_bytes", side_effect=AssertionError("gave up on the line")):
        check_line(tokenizer, line)


def test_each_hostile_string_survives_alone_and_inside(tokenizer: HfTokenizer):
    for line in HOSTILE:
        for text in (line, f"a{line}b", f"a {line} b", f" {line}", f"{line} ", line * 3):
            check_line(tokenizer, text)


@modest
@given(lines=st.lists(HOSTILE_TEXT, max_size=4))
def test_batch_equals_single_lines(tokenizer: HfTokenizer, lines: list[str]):
    assert tokenizer.encode_batch(lines) == [tokenizer.encode(line) for line in lines]


@modest
@given(symbols=SYMBOLS)
def test_decode_is_total(tokenizer: HfTokenizer, symbols: list[str]):
    assert isinstance(tokenizer.decode(symbols), str)
    assert isinstance(tokenizer.decode(" ".join(symbols)), str)
    for symbol in symbols:
        assert isinstance(tokenizer.is_beginning_of_word(symbol), bool)
        token_id = tokenizer.piece_to_id(symbol)
        assert token_id is None or 0 <= token_id < tokenizer.vocab_size


def test_long_line_without_spaces(tokenizer: HfTokenizer):
    for letter in ("a", "ǆ", "@", "😀", "▁", "ä"):
        symbols = check_line(tokenizer, letter * 10_000)
        assert len(symbols) <= 40_001  # four bytes per character, and XLM-R's dummy space


def test_empty_line_has_no_symbols(tokenizer: HfTokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.encode_batch(["", ""]) == [[], []]
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.decode([]) == tokenizer.decode("") == ""


def test_works_after_pickling(tokenizer: HfTokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("Don't 😀 stand") == tokenizer.encode("Don't 😀 stand")
    assert copy.digest() == tokenizer.digest()


# -- the pieces, written out


@pytest.mark.parametrize(
    ("kind", "line", "symbols"),
    [
        ("bert_uncased", "The Man", "the man"),
        ("bert_uncased", "don't", "don @@' @@t"),
        ("bert_uncased", "man - man", "man - man"),
        ("bert_uncased", "man-man", "man @@- @@man"),
        ("bert_uncased", "  MÄNNER\t\u00a0 the ", "mann ##er the"),
        ("bert_cased", "Mann", "Man ##n"),
        ("bert_cased", "the \u200bman", "the ma ##n"),  # BERT drops format characters
        ("bert_uncased", "a😀", "a @@<0xF0> @@<0x9F> @@<0x98> @@<0x80>"),
        ("bert_uncased", "a 😀", "a <0xF0> @@<0x9F> @@<0x98> @@<0x80>"),
        ("bert_uncased", "standingǆthe", "standing @@<0xC7> @@<0x86> @@the"),
        ("bert_uncased", "a@@", "a @@<0x40> @@<0x40>"),
        ("bert_cased", "[MASK]", "<0x5B> @@M ##A ##S ##K @@<0x5D>"),
        ("roberta", "the man", "the Ġm an"),
        ("roberta", " the  the", "Ġthe Ġ Ġthe"),
        ("roberta", "ß", "Ã Ł"),
        ("roberta", "</s>", "< / s >"),
        ("roberta", "\r", "č"),
        ("xlmr", "the man", "▁the ▁m an"),
        ("xlmr", "  the \t the ", "▁the ▁the"),
        ("xlmr", "😀", "▁ <0xF0> <0x9F> <0x98> <0x80>"),
        ("xlmr", "a▁the", "▁a <0xE2> <0x96> <0x81> t h e"),
        ("xlmr", "a<s>", "▁a <0x3C> s <0x3E>"),
    ],
)
def test_expected_pieces(tokenizers: dict[str, HfTokenizer], kind: str, line: str, symbols: str):
    assert check_line(tokenizers[kind], line) == symbols.split(" ")


def test_known_parts_of_a_word_beyond_the_limit_stay_pieces(tokenizers: dict[str, HfTokenizer]):
    # 100 characters are BERT's longest word: a chunk of 100 and one of 2
    symbols = tokenizers["bert_uncased"].encode("x" * 102)
    assert symbols == ["x", *["##x"] * 99, "@@x", "##x"]


@pytest.mark.parametrize(
    ("kind", "symbols", "text"),
    [
        ("bert_uncased", "un ##seen @@- @@s <unk> x", "unseen-s <unk> x"),
        ("bert_uncased", "##a @@b", "ab"),
        ("bert_uncased", "a <0xC3> @@<0xA4> @@b", "a äb"),
        ("bert_uncased", "a @@<0xC3>", "a\ufffd"),
        ("roberta", "Ã ¤ Ġ<unk> <0x41>", "ä <unk>A"),
        ("roberta", "Ã", "\ufffd"),
        ("xlmr", "▁a b ▁ <0xC3> <0xA4>", "ab ä"),
        ("xlmr", "a ▁b", "a b"),
    ],
)
def test_decode_of_foreign_symbols(tokenizers: dict[str, HfTokenizer], kind: str, symbols: str, text: str):
    assert tokenizers[kind].decode(symbols) == tokenizers[kind].decode(symbols.split()) == text


def test_normalise(tokenizers: dict[str, HfTokenizer]):
    line = " Ä  b\u00a0c\td "
    assert tokenizers["bert_uncased"].normalise(line) == "a b c d"
    assert tokenizers["bert_cased"].normalise(line) == "Ä b c d"
    assert tokenizers["roberta"].normalise(line) == line
    assert tokenizers["xlmr"].normalise(line) == "Ä b c d"


def test_half_a_surrogate_pair_is_refused(tokenizer: HfTokenizer):
    with pytest.raises(ValueError, match="valid Unicode, but has half of a surrogate pair at character 1"):
        tokenizer.encode("a\ud800")


# -- ids


def test_ids_of_bert(tokenizers: dict[str, HfTokenizer], folders: Path):
    tokenizer = tokenizers["bert_uncased"]
    vocab = (folders / "bert_uncased" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    assert [tokenizer.special_id(role) for role in ("pad", "unk", "cls", "mask")] == [0, 1, 2, 4]
    assert tokenizer.piece_to_id("the") == tokenizer.piece_to_id("@@the") == vocab.index("the")
    assert tokenizer.piece_to_id("##s") == vocab.index("##s")
    assert tokenizer.piece_to_id("@@<0xF0>") == tokenizer.piece_to_id("<0xF0>") == tokenizer.unk_id
    assert tokenizer.piece_to_id("ǆ") is None
    assert tokenizer.piece_to_id("@@") is None
    assert tokenizer.vocab_size == len(vocab) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_reads_ordinary_text_as_it_does_by_itself(
    tokenizers: dict[str, HfTokenizer], folders: Path, kind: str
):
    own = AutoTokenizer.from_pretrained(folders / kind)
    for line in TEXT:
        ids = [tokenizers[kind].piece_to_id(symbol) for symbol in tokenizers[kind].encode(line)]
        assert ids == own(line, add_special_tokens=False)["input_ids"], line


@pytest.mark.parametrize(
    ("kind", "text_format", "closing"),
    [
        ("bert_uncased", TextFormat((2,), (3,), mask=4, pad=0, segments=(0, 1)), 3),
        ("roberta", TextFormat((0,), (2, 2), mask=4, pad=1, segments=(0, 0)), 2),
        ("xlmr", TextFormat((0,), (2, 2), mask=4, pad=1, segments=(0, 0)), 2),
    ],
)
def test_text_format(tokenizers: dict[str, HfTokenizer], kind: str, text_format: TextFormat, closing: int):
    assert tokenizers[kind].text_format() == text_format
    assert tokenizers[kind].closing_id == closing


@pytest.mark.parametrize("kind", KINDS)
def test_one_text_and_two_are_laid_out_as_the_tokenizer_does(
    tokenizers: dict[str, HfTokenizer], folders: Path, kind: str
):
    own, tokenizer, lines = AutoTokenizer.from_pretrained(folders / kind), tokenizers[kind], ("the man", "a")
    ids = [[tokenizer.piece_to_id(symbol) for symbol in tokenizer.encode(line)] for line in lines]
    for texts in ([ids[0]], ids):
        texts = [*texts[:-1], [*texts[-1], tokenizer.closing_id]]
        ours = assemble_texts(
            [torch.tensor([text]) for text in texts],
            [torch.tensor([len(text)]) for text in texts],
            tokenizer.text_format(),
        )
        theirs = own(*lines[: len(texts)])
        assert ours.input_ids.tolist() == [theirs["input_ids"]]
        assert ours.attention_mask.tolist() == [theirs["attention_mask"]]
        if "token_type_ids" in own.model_input_names:
            assert ours.token_type_ids.tolist() == [theirs["token_type_ids"]]


@pytest.mark.parametrize(
    ("kind", "beginning", "inside"),
    [
        ("bert_cased", ["the", "<0xF0>", "<unk>"], ["##s", "@@t", "@@<0xF0>"]),
        ("roberta", ["Ġthe", "Ġ"], ["the", "s"]),
        ("xlmr", ["▁the", "▁"], ["the", "<0xF0>"]),
    ],
)
def test_is_beginning_of_word(
    tokenizers: dict[str, HfTokenizer], kind: str, beginning: list[str], inside: list[str]
):
    assert all(map(tokenizers[kind].is_beginning_of_word, beginning))
    assert not any(map(tokenizers[kind].is_beginning_of_word, inside))


def test_digest_names_the_tokenizer_not_the_folder(
    tokenizers: dict[str, HfTokenizer], folders: Path, tmp_path: Path
):
    shutil.copytree(folders / "xlmr", tmp_path / "copy")
    assert HfTokenizer(tmp_path / "copy").digest() == tokenizers["xlmr"].digest()
    assert len({tokenizer.digest() for tokenizer in tokenizers.values()}) == 4


def test_digest_sees_lower_casing(folders: Path, tmp_path: Path):
    def cased(content: dict) -> None:
        content["normalizer"]["lowercase"] = False

    same = edited(folders / "bert_uncased", tmp_path / "same", lambda content: None)
    other = edited(folders / "bert_uncased", tmp_path / "other", cased)
    assert HfTokenizer(same).digest() != HfTokenizer(other).digest()


# -- unusual tokenizers of the three kinds


def xlmr_with_normalizer(content: dict) -> None:
    content["normalizer"] = {"type": "NFKC"}


def xlmr_with_byte_fallback(content: dict) -> None:
    content["model"]["byte_fallback"] = True
    content["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]


def roberta_with_prefix_space(content: dict) -> None:
    content["pre_tokenizer"]["add_prefix_space"] = True


def bert_with_awkward_pieces(content: dict) -> None:
    """Words are whatever stands between white space, so the ambiguous pieces are reached."""
    content["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    vocab = content["model"]["vocab"]
    for piece in (
        "@@",
        "##",
        "@@a",
        "<0xF0>",
        "<s>",
        "</s>",
        "<unk>",
        "#fairseq:overwrite",
        "@",
        "#",
        "##@@",
        "##<0xF0>",
    ):
        vocab.setdefault(piece, len(vocab))


def added_tokens_with_spaces(content: dict) -> None:
    """As ModernBERT: ordinary added tokens that swallow spaces."""
    for text, strips in (("  ", False), ("don't", True)):
        token = {
            "content": text,
            "lstrip": strips,
            "rstrip": strips,
            "single_word": False,
            "normalized": False,
        }
        content["added_tokens"].append({"id": 1000 + len(content["added_tokens"]), "special": False, **token})
    for place, token in enumerate(content["added_tokens"][-2:]):
        token["id"] = len(content["model"]["vocab"]) + place


@pytest.fixture(
    scope="module",
    params=[
        ("xlmr", xlmr_with_normalizer),
        ("xlmr", xlmr_with_byte_fallback),
        ("roberta", roberta_with_prefix_space),
        ("bert_cased", bert_with_awkward_pieces),
        ("roberta", added_tokens_with_spaces),
        ("xlmr", added_tokens_with_spaces),
        ("bert_cased", added_tokens_with_spaces),
    ],
    ids=lambda param: f"{param[0]}-{param[1].__name__}",
)
def unusual(
    request: pytest.FixtureRequest, folders: Path, tmp_path_factory: pytest.TempPathFactory
) -> HfTokenizer:
    kind, edit = request.param
    return HfTokenizer(edited(folders / kind, tmp_path_factory.mktemp("unusual") / "t", edit))


@settings(modest, max_examples=80)
@given(line=HOSTILE_TEXT)
def test_hostile_text_survives_unusual_tokenizers(unusual: HfTokenizer, line: str):
    check_line(unusual, line)


def test_lines_for_unusual_tokenizers(unusual: HfTokenizer):
    for line in ("the  man", " the   ", "x don't  y", "@@ ## @@a <0xF0> <s> a@@ a## a<0xF0>", "▁▁a"):
        check_line(unusual, line)


def test_ambiguous_pieces_are_spelled(folders: Path, tmp_path: Path):
    tokenizer = HfTokenizer(edited(folders / "bert_cased", tmp_path / "t", bert_with_awkward_pieces))
    assert check_line(tokenizer, "@@ ##") == ["@", "@@@", "#", "@@#"]
    assert check_line(tokenizer, "<s>") == ["<0x3C>", "@@s", "@@<0x3E>"]


def test_leading_space_of_a_tokenizer_that_adds_one(folders: Path, tmp_path: Path):
    tokenizer = HfTokenizer(edited(folders / "roberta", tmp_path / "t", roberta_with_prefix_space))
    assert check_line(tokenizer, "the the") == ["Ġthe", "Ġthe"]
    assert check_line(tokenizer, " the") == ["Ġ", "Ġthe"]


def test_spaces_stay_spaces_where_the_normalizer_writes_them_as_pieces_do(folders: Path, tmp_path: Path):
    def as_converted(content: dict) -> None:  # by transformers' converter of SentencePiece models
        strip = {"type": "Strip", "strip_left": False, "strip_right": True}
        runs = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}
        content["normalizer"] = {"type": "Sequence", "normalizers": [strip, runs]}

    folder = edited(folders / "xlmr", tmp_path / "t", as_converted)
    tokenizer = HfTokenizer(folder)
    assert check_line(tokenizer, "the  the   man ") == ["▁the", "▁the", "▁m", "an"]
    assert tokenizer.normalise("the  the   man ") == "the the man"
    assert tokenizer.text_rules.squeezes_spaces
    own = AutoTokenizer.from_pretrained(folder)("the  the   man ", add_special_tokens=False)["input_ids"]
    assert list(tokenizer.text_to_ids("the  the   man ")) == own
    # one of the text itself is kept
    assert check_line(tokenizer, "a▁the") == ["▁a", "<0xE2>", "<0x96>", "<0x81>", "t", "h", "e"]
    assert tokenizer.normalise("a▁the") == "a▁the"


def test_whole_line_of_bytes_when_offsets_are_useless(tokenizers: dict[str, HfTokenizer], monkeypatch):
    tokenizer = pickle.loads(pickle.dumps(tokenizers["bert_cased"]))
    monkeypatch.setattr(tokenizer._codec, "symbols", lambda text, encoding: ["wrong"])
    assert tokenizer.encode("a bc") == ["<0x61>", "<0x62>", "@@<0x63>"]


# -- refusals


def test_missing_folder():
    with pytest.raises(
        ValueError, match=r"`/no/such/folder`: it is neither a folder .* nor the name of a model on the hub"
    ):
        HfTokenizer("/no/such/folder")


def test_folder_without_vocabulary(tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    # transformers 5 makes up five tokens; transformers 4 fails to load
    with pytest.raises(
        ValueError, match=r"nothing beyond its 5 special tokens: a vocabulary file is missing|cannot load"
    ):
        HfTokenizer(tmp_path)


def test_unsupported_kind(folders: Path, tmp_path: Path):
    def whitespace_bpe(content: dict) -> None:
        content["pre_tokenizer"] = {"type": "Whitespace"}

    folder = edited(folders / "roberta", tmp_path / "t", whitespace_bpe)
    with pytest.raises(
        ValueError, match=r"WordPiece \(BERT\), byte-level BPE .* model BPE with pre-tokenizer Whitespace"
    ):
        HfTokenizer(folder)


def without_token(folder: Path, role: str) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config[f"{role}_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_missing_unknown_token(folders: Path, tmp_path: Path):
    folder = edited(folders / "roberta", tmp_path / "t", lambda content: None)
    without_token(folder, "unk")
    with pytest.raises(ValueError, match=r"must have a unk token, but .* has none"):
        HfTokenizer(folder)


def test_missing_mask_token(folders: Path, tmp_path: Path):
    folder = edited(folders / "roberta", tmp_path / "t", lambda content: None)
    without_token(folder, "mask")
    tokenizer = HfTokenizer(folder)  # good enough to tokenise
    assert tokenizer.encode("the") == ["the"]
    with pytest.raises(ValueError, match=r"must have a mask token, but .* has none"):
        tokenizer.text_format()


@pytest.mark.parametrize("closing", [[], ["[SEP]", "[SEP]"]])
def test_format_without_exactly_one_closing_token(folders: Path, tmp_path: Path, closing: list[str]):
    def edit(content: dict) -> None:
        pair = content["post_processor"]["pair"]
        content["post_processor"]["pair"] = pair[:-1] + [
            {"SpecialToken": {"id": token, "type_id": 1}} for token in closing
        ]

    tokenizer = HfTokenizer(edited(folders / "bert_cased", tmp_path / "t", edit))
    with pytest.raises(
        ValueError, match=r"exactly one closing special token, but .* gives '\[CLS\] a \[SEP\] b"
    ):
        tokenizer.text_format()


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "sentencepiece.bpe.model"]
)
def test_a_git_lfs_pointer_is_named(name, tmp_path):
    build_tokenizer("bert_uncased", tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(
        ValueError, match=rf"cannot load a tokenizer .*{name}` is a Git LFS pointer.*`git lfs pull`"
    ):
        HfTokenizer(str(tmp_path))
