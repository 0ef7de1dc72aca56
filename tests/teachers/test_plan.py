import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fairseq_bert_kd.teachers.plan import count_tokens, plan_chunk

LENGTHS = [(3, 2), (1, 9), (8, 4), (0, 1), (5, 30)]  # source without, target with end of sentence


def arrays(lengths):
    return (np.array(side, np.int64) for side in zip(*lengths, strict=True))


def test_every_position_is_scored_once_within_the_token_budget():
    src, tgt = arrays(LENGTHS)
    seen, tokens = [], 0
    for batch in plan_chunk(src, tgt, np.ones(5, bool), passes=4, max_tokens=70):
        items = list(zip(batch.sentences, batch.passes, strict=True))
        assert max(sum(LENGTHS[s]) for s, _ in items) * len(items) <= 70
        assert batch.tokens == sum(sum(LENGTHS[s]) for s, _ in items)
        tokens += batch.tokens
        for sentence, number in items:
            seen += [
                (sentence, position) for position in range(LENGTHS[sentence][1]) if position % 4 == number
            ]
    assert sorted(seen) == [(s, p) for s, (_, tgt) in enumerate(LENGTHS) for p in range(tgt)]
    assert tokens == 2 * 5 + 4 * 10 + 4 * 12 + 1 * 1 + 4 * 35
    assert tokens == count_tokens(src, tgt, np.ones(5, bool), passes=4)


def test_sentences_that_are_not_scored_are_left_out():
    src, tgt = arrays(LENGTHS)
    scored = np.array([True, False, True, True, False])
    batches = plan_chunk(src, tgt, scored, passes=4, max_tokens=70)
    assert {int(s) for batch in batches for s in batch.sentences} == {0, 2, 3}
    assert plan_chunk(src, tgt, np.zeros(5, bool), passes=4, max_tokens=70) == []
    assert count_tokens(src, tgt, scored, passes=4) == 2 * 5 + 4 * 12 + 1


def test_a_pair_beyond_the_budget_goes_alone():
    src, tgt = arrays([(5, 30), (2, 3)])
    batches = plan_chunk(src, tgt, np.ones(2, bool), passes=2, max_tokens=20)
    assert [batch.sentences.tolist() for batch in batches] == [[0], [0], [1, 1]]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30),
    st.integers(1, 9),
    st.integers(40, 200),
)
def test_batches_go_from_long_to_short_and_waste_little(lengths, passes, max_tokens):
    src, tgt = arrays(lengths) if lengths else (np.zeros(0, np.int64),) * 2
    batches = plan_chunk(src, tgt, np.ones(len(src), bool), passes, max_tokens)
    widths = [int((src + tgt)[batch.sentences].max()) for batch in batches]
    assert widths == sorted(widths, reverse=True)
    for batch, following in itertools.pairwise(batches):  # full: one more would not fit
        assert (len(batch.sentences) + 1) * (src + tgt)[batch.sentences[0]] > max_tokens, following
