import pytest

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.mentions import DictionaryLinker, Mention, align_mentions, outermost
from tests.tiny_chain import build_teacher_folder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    names = ("bert", "roberta", "xlmr")
    return {name: HfTokenizer(str(build_teacher_folder(name, folder / name))) for name in names}


@pytest.fixture(scope="module")
def tokenizer(tokenizers):
    return tokenizers["bert"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two men stand near a house", "men stand"),
        ("  two   men stand", "men"),
        ("two men, people.", "people"),
        ("Dylan wrote", "Dylan"),  # spelled by bytes or letters
        ("a house", "a house"),
        ("Bób  Dýlan wrote", "Bób  Dýlan"),  # accents go, two spaces are one
        ("Zwei Männer stehen", "Männer"),
    ],
)
def test_a_mention_is_its_pieces(tokenizer, text, said):
    begin = text.index(said)
    pieces = tokenizer.encode(text)
    [(first, last, _)] = align_mentions(tokenizer, text, pieces, [Mention(begin, begin + len(said), "Q1")])
    assert tokenizer.decode(pieces[first:last]) == tokenizer.normalise(said)
    assert tokenizer.decode(pieces[:first]) == tokenizer.normalise(text[:begin])


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlmr"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two men stand", "men stand"),
        ("  two   men  stand", "men"),  # a byte-level tokenizer keeps every space
        ("two\u00a0men stand", "men"),
        ("Dylan wrote", "Dylan"),
        ("a house", "house"),  # of RoBERTa's pieces the first one is a space alone
        ("\u4e2d\u6587 men", "\u6587"),  # a letter is three pieces
        ("\u4e2d\u6587 men", "\u4e2d\u6587"),
        ("two \u2167 men", "men"),
        ("two \u2167 men", "two \u2167"),
    ],
)
def test_the_pieces_of_a_mention_spell_it_and_no_more(tokenizers, kind, text, said):
    """So that no piece of a letter, masked or not, lies outside, and none of other letters or spaces inside."""
    tokenizer, begin = tokenizers[kind], text.index(said)
    pieces = tokenizer.encode(text)
    [(first, last, _)] = align_mentions(tokenizer, text, pieces, [Mention(begin, begin + len(said), "Q1")])
    assert tokenizer.decode(pieces[first:last]).removeprefix(" ") == tokenizer.normalise(said)
    assert tokenizer.decode(pieces[first]).strip()
    assert tokenizer.decode(pieces[:first]).rstrip() == tokenizer.normalise(text[:begin]).rstrip()


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        (0, 99, "not inside"),
        (3, 3, "not inside"),
        (5, 7, "begins or ends inside a piece"),
        (4, 6, "begins or ends inside a piece"),
        (0, 6, "begins or ends inside a piece"),
    ],
)
def test_wrong_offsets_are_refused(tokenizer, begin, end, said):
    text = "two men stand"
    with pytest.raises(ValueError, match=said):
        align_mentions(tokenizer, text, tokenizer.encode(text), [Mention(begin, end, "Q1")])


def test_the_longest_mention_wins():
    nested = [Mention(0, 3, "a"), Mention(0, 9, "b"), Mention(4, 9, "c"), Mention(10, 12, "d")]
    assert outermost(nested) == [Mention(0, 9, "b"), Mention(10, 12, "d")]


def test_linker_takes_the_longest_name():
    linker = DictionaryLinker([("Dylan", "Q1"), ("Bob Dylan", "Q2"), ("New York", "Q3"), ("york", "Q4")])
    text = "bob dylan left New  York; Dylan's York"
    found = linker.link(text)
    assert [(text[begin:end], entity) for begin, end, entity in found] == [
        ("bob dylan", "Q2"),
        ("New  York", "Q3"),
        ("Dylan", "Q1"),
        ("York", "Q4"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("\u0915", "\u0915\u0940 \u092c\u093e\u0924 \u0915", [7]),  # Hindi: a vowel sign makes another word
        ("Rene", "Rene\u0301 and Rene", [10]),
        ("Rene\u0301", "RENE\u0301s Rene\u0301", [7]),
        (
            "\u0130stanbul",
            "in \u0130stanbul",
            [3],
        ),  # whose small letter is two characters, one of them a mark
        ("\u6771\u4eac", "\u79c1\u306f\u6771\u4eac\u306b", [2]),  # Chinese characters stand for themselves
        ("_a", "_a b_a", [0]),
    ],
)
def test_linker_knows_words_of_other_scripts(name, text, said):
    found = DictionaryLinker([(name, "Q1")]).link(text)
    assert [(begin, text[begin:end].casefold()) for begin, end, _ in found] == [
        (begin, name.casefold()) for begin in said
    ]


def test_names_that_differ_in_case_alone_or_not_at_all_take_the_first():
    names = [("Apple", "Q1"), ("apple", "Q2"), ("pear", "Q3"), ("Pear", "Q3"), ("Apple", "Q4")]
    linker = DictionaryLinker(names)
    assert [entity for _, _, entity in linker.link("an APPLE, a pear")] == ["Q1", "Q3"]
    assert linker.ambiguous == ["apple", "Apple"]


def test_a_found_name_inside_a_piece_may_be_left_out(tokenizer):
    text, mentions = "two men stand", [Mention(0, 3, "Q1"), Mention(5, 7, "Q2")]
    pieces = tokenizer.encode(text)
    kept = align_mentions(tokenizer, text, pieces, mentions, skip_inside=True)
    assert kept == align_mentions(tokenizer, text, pieces, mentions[:1]) != []


def test_unknown_pieces_stay_where_they_are(tokenizer):
    """Of a folder whose dictionary has not all pieces: what stands around them is found all the same."""
    pieces = [*tokenizer.encode("two men"), "<unk>", *tokenizer.encode("stand")]
    text = tokenizer.decode(pieces)
    begin = text.index("stand")
    mentions = [Mention(4, 7, "Q1"), Mention(begin, begin + 5, "Q2"), Mention(begin - 4, begin - 2, "Q3")]
    found = align_mentions(tokenizer, text, pieces, mentions, skip_inside=True)
    assert [tokenizer.decode(pieces[first:last]) for first, last, _ in found] == ["men", "stand"]


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlmr"])
@pytest.mark.parametrize("name", ["Z\u00fcrich", "\u5317\u4eac", "\u5317\u4eac Hotel"])
def test_linker_finds_names_in_what_the_tokenizer_leaves_of_a_text(tokenizers, kind, name):
    """An uncased BERT takes accents away and puts spaces between the letters of Chinese."""
    tokenizer = tokenizers[kind]
    linker = DictionaryLinker([(name, "Q1"), ("man", "Q2")], tokenizer.normalise)
    text = tokenizer.decode(tokenizer.encode(f"near {name}, auf"))
    [(begin, end, entity)] = linker.link(text)
    assert (text[begin:end], entity) == (tokenizer.normalise(name), "Q1")
    assert (len(linker.found), len(linker)) == (1, 2)
