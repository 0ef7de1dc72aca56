"""Markers around arguments: a written-out row, and what becomes of sizes and mentions."""

import numpy as np

from fairseq_bert_kd.data.entity_dataset import EntitySentenceDataset
from fairseq_bert_kd.data.marked_texts import mark_arguments, rows_without
from fairseq_bert_kd.data.text_list import TextList
from fairseq_bert_kd.storage.entity_mentions import Mentions

EOS, PAD, HEAD, TAIL = 2, 1, 90, 91


def texts_of(*rows):
    return TextList([np.array([*row, EOS]) for row in rows])


def mentions_of(*rows, span="all"):
    return Mentions(np.array(rows, np.int64).reshape(-1, 6), "", span)


def dataset(texts, mentions, markers=(HEAD, TAIL)):
    texts, mentions = mark_arguments(texts, mentions, markers)
    return EntitySentenceDataset(texts, None, PAD, None, mentions)


def test_relation_in_one_text():
    """10 11 | 12 | 13 with head 10 11, tail 12 (they touch) and a further mention 13; the second row has none."""
    mentions = mentions_of((0, 0, 2, 3, 6, 2), (0, 0, 0, 2, 5, 1), (0, 0, 3, 4, 7, 0))
    found = dataset([texts_of((10, 11, 12, 13), (10,))], mentions)
    item = found[0]
    assert item["texts"][0].tolist() == [HEAD, 10, 11, HEAD, TAIL, 12, TAIL, 13, EOS]
    assert item["entities"][0].tolist() == [0, 5, 5, 0, 0, 6, 0, 7, 0]
    assert item["arguments"][0].tolist() == [0, 1, 0, 0, 0, 2, 0, 0, 0]
    batch = found.collater([item, found[1]])["net_input"]
    assert batch["arguments"][0].tolist() == [item["arguments"][0].tolist(), [0] * 9]
    assert found[1]["texts"][0].tolist() == [10, EOS]
    assert found.sizes.tolist() == [9, 2]
    assert rows_without(mentions, 2, rows=2) == found.rows_without(2) == 1
    assert found.truncate(7) == 1
    assert found.rows_without(2) == 1  # the tail is the last piece that is left
    assert found.truncate(6) == 1
    assert [found.rows_without(arguments) for arguments in (0, 1, 2)] == [0, 1, 2]
    assert found[0]["texts"][0].tolist() == [HEAD, 10, 11, HEAD, TAIL, EOS]
    assert found[0]["arguments"][0].tolist() == [0, 1, 0, 0, 0, 0]  # the tail lies behind the cut


def test_relation_between_two_texts_and_an_argument_without_vector():
    mentions = mentions_of((0, 0, 0, 1, 5, 1), (0, 1, 1, 2, 0, 2), (1, 1, 0, 1, 3, 2), span="first")
    found = dataset([texts_of((10, 11), (12,)), texts_of((20, 21), (22, 23))], mentions)
    assert [text.tolist() for text in found[0]["texts"]] == [
        [HEAD, 10, HEAD, 11, EOS],
        [20, TAIL, 21, TAIL, EOS],
    ]
    assert [row.tolist() for row in found[0]["entities"]] == [[0, 5, 0, 0, 0], [0] * 5]
    assert [row.tolist() for row in found[0]["arguments"]] == [[0, 1, 0, 0, 0], [0, 0, 2, 0, 0]]
    assert found.rows_without(2) == 1
    assert found.truncate(8) == 1  # of the first row's second text 20, the marker and the tail are left
    assert found.rows_without(2) == 1
    assert found.truncate(6) == 2  # and now no tail
    assert found.rows_without(2) == 2
    found = dataset([texts_of((10, 11), (12,)), texts_of((20, 21), (22, 23))], mentions)
    assert [text.tolist() for text in found[1]["texts"]] == [[12, EOS], [TAIL, 22, TAIL, 23, EOS]]


def test_typing_marks_the_first_argument_alone():
    mentions = mentions_of((0, 0, 0, 1, 5, 1), (0, 0, 1, 2, 6, 2))
    found = dataset([texts_of((10, 11))], mentions, markers=(HEAD,))
    assert found[0]["texts"][0].tolist() == [HEAD, 10, HEAD, 11, EOS]
    assert found[0]["entities"][0].tolist() == [0, 5, 0, 6, 0]
