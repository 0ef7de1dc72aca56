import pytest

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.mentions import DictionaryLinker, Mention, align_mentions, outermost
from tests.tiny_chain import build_teacher_folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    build_teacher_folder("bert", folder)
    return HfTokenizer(str(folder))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("two men stand near a house", "men stand"),
        ("  two   men stand", "men"),
        ("two men, people.", "people"),
        ("Dylan wrote", "Dylan"),  # spelled by bytes or letters
        ("a house", "a house"),
    ],
)
def test_a_mention_is_its_pieces(tokenizer, text, said):
    begin = text.index(said)
    [(first, last, _)] = align_mentions(tokenizer, text, [Mention(begin, begin + len(said), "Q1")])
    pieces = tokenizer.encode(text)
    assert tokenizer.decode(pieces[first:last]) == tokenizer.normalise(said)
    assert tokenizer.decode(pieces[:first]) == tokenizer.normalise(text[:begin])


@pytest.mark.parametrize(
    ("begin", "end", "said"), [(0, 99, "not inside"), (3, 3, "not inside"), (5, 7, "inside a piece")]
)
def test_wrong_offsets_are_refused(tokenizer, begin, end, said):
    with pytest.raises(ValueError, match=said):
        align_mentions(tokenizer, "two men stand", [Mention(begin, end, "Q1")])


def test_the_longest_mention_wins():
    nested = [Mention(0, 3, "a"), Mention(0, 9, "b"), Mention(4, 9, "c"), Mention(10, 12, "d")]
    assert outermost(nested) == [Mention(0, 9, "b"), Mention(10, 12, "d")]


def test_linker_takes_the_longest_name():
    linker = DictionaryLinker({"Dylan": "Q1", "Bob Dylan": "Q2", "New York": "Q3", "york": "Q4"})
    text = "bob dylan left New  York; Dylan's York"
    found = linker.link(text)
    assert [(text[begin:end], entity) for begin, end, entity in found] == [
        ("bob dylan", "Q2"),
        ("New  York", "Q3"),
        ("Dylan", "Q1"),
        ("York", "Q4"),
    ]


def test_names_that_differ_in_case_alone_take_the_first():
    linker = DictionaryLinker({"Apple": "Q1", "apple": "Q2", "pear": "Q3", "Pear": "Q3"})
    assert [entity for _, _, entity in linker.link("an APPLE, a pear")] == ["Q1", "Q3"]
    assert linker.ambiguous == ["apple"]


def test_a_found_name_inside_a_piece_may_be_left_out(tokenizer):
    mentions = [Mention(0, 3, "Q1"), Mention(5, 7, "Q2")]
    kept = align_mentions(tokenizer, "two men stand", mentions, skip_inside=True)
    assert kept == align_mentions(tokenizer, "two men stand", mentions[:1]) != []
