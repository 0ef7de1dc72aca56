"""Stat: masses, entropies and advice, computed by hand."""

import math

import numpy as np
import pytest

from fairseq_bert_kd.storage.schema import ChunkData, empty_records
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.topk_stat import (
    row_stat,
    sampled_chunks,
    suggested_k,
    suggested_temperature,
    token_counts,
    warnings,
)
from fairseq_bert_kd.storage.topk_store import TopKReader
from tests.storage.small_stores import (
    NAME,
    PAIRS,
    assemble,
    flip,
    header_of,
    make_info,
    make_parts,
    write_store,
)

ROUNDING = 1e-3  # logits are float16


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


def stat_of(path, **options):
    return row_stat(TopKReader(path, shard=True), **options)


def store_with(path, rows, **changes):
    """A store whose rows are in turn ``(logits, normalisers)``."""
    parts = make_parts(make_info(**changes))
    number = 0
    for chunk in parts.chunks:
        for row in np.flatnonzero(chunk.scored):
            logits, normalisers = rows[number % len(rows)]
            chunk.records["topk_logits"][row] = logits
            if parts.info.temperatures:
                chunk.records["log_normalisers"][row] = normalisers
            number += 1
    return assemble(path, parts)


HALVES = ((0, -math.log(2), -math.log(4)), (math.log(2), math.log(8)))  # 1/2, 1/4, 1/8, rest 1/8
CERTAIN = ((0, -20, -20), (0, math.log(8)))  # 1 and nothing else


@pytest.mark.parametrize(
    ("k", "counts"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (10, (1, 2, 4, 8, 10))],
)
def test_token_counts(k, counts):
    assert token_counts(k) == counts


@pytest.mark.parametrize(
    ("chunks", "rows", "sample_rows", "chosen"),
    [
        (10, 1000, 300, [1, 5, 8]),
        (10, 1000, 1, [5]),
        (4, 100, 0, [0, 1, 2, 3]),
        (4, 100, 100, [0, 1, 2, 3]),
        (4, 100, 99, [0, 1, 2, 3]),
        (4, 100, 50, [1, 3]),
        (1, 5, 2, [0]),
        (0, 0, 10, []),
        (3, 0, 0, [0, 1, 2]),
    ],
)
def test_sampled_chunks_are_spread_evenly(chunks, rows, sample_rows, chosen):
    assert sampled_chunks(chunks, rows, sample_rows) == chosen


def test_negative_number_of_rows_is_refused():
    with pytest.raises(ValueError, match="at least 0 rows are sampled"):
        sampled_chunks(3, 30, -1)


def test_equal_rows(path):
    """Every row is 1/2, 1/4, 1/8 and a rest of 1/8: 1.75 bits."""
    stat = stat_of(write_store(path))
    one, ten = stat.temperatures
    assert (stat.chunks, stat.chunks_in_all, stat.rows) == (3, 3, 11)
    assert (one.temperature, one.tokens, one.rows) == (1, (1, 2, 3), 11)
    assert one.mean_mass == pytest.approx([0.5, 0.75, 0.875], rel=ROUNDING)
    assert one.share_below_half[1:] == [0, 0]
    assert one.mean_entropy == pytest.approx(1.75, rel=ROUNDING)
    assert one.most_entropy == 2  # four buckets
    assert one.mass_histogram.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 11, 0]  # 0.8 to 0.9
    assert one.entropy_histogram.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 11, 0]  # 1.6 to 1.8 bits
    # at 10: 1/8, 2**-0.1 / 8 and 2**-0.2 / 8, together 0.1250 + 0.1166 + 0.1088
    assert ten.mean_mass == pytest.approx([0.125, 0.2416, 0.3504], rel=ROUNDING)
    assert ten.share_below_half == [1, 1, 1]


def test_unequal_rows(path):
    """Six rows of halves and five certain ones."""
    stat = stat_of(store_with(path, [HALVES, CERTAIN]))
    one = stat.temperatures[0]
    assert one.mean_mass == pytest.approx(
        [(6 * 0.5 + 5) / 11, (6 * 0.75 + 5) / 11, (6 * 0.875 + 5) / 11], rel=ROUNDING
    )
    assert one.mean_entropy == pytest.approx(6 * 1.75 / 11, rel=ROUNDING)
    assert one.mass_histogram.tolist() == [0] * 8 + [6, 5]  # 1 is in the last bin
    assert one.entropy_histogram.tolist() == [5] + [0] * 7 + [6, 0]


def test_rows_below_one_half(path):
    """A normaliser of log 4: 1/4, 1/8, 1/16; 0.4375 in all."""
    quarter = (HALVES[0], (math.log(4), math.log(8)))
    one = stat_of(store_with(path, [HALVES, quarter])).temperatures[0]
    assert one.share_below_half[1:] == [5 / 11, 5 / 11]


def test_mass_beyond_1_is_rounding(path):
    """The format allows a log-normaliser of a little less than the stored tokens' own."""
    stat = stat_of(store_with(path, [((0, -20, -20), (-5e-5, 3.0))]))
    assert stat.temperatures[0].mean_mass == [1, 1, 1]


def test_mean_mass_of_all_tokens_is_the_headers(path):
    stat = stat_of(write_store(path))
    expected = header_of(path).summary["captured_mass"]
    assert [t.mean_mass[-1] for t in stat.temperatures] == pytest.approx(expected, rel=1e-12)


def test_sample_is_of_whole_chunks(path):
    sample = stat_of(write_store(path), sample_rows=4)
    assert (sample.chunks, sample.chunks_in_all, sample.rows) == (1, 3, 5)  # the middle one


def test_shard(path):
    shard = write_store(path, shard=Shard(2, 3))
    assert stat_of(shard).rows == 3


def test_store_without_scored_rows(path):
    stat = stat_of(write_store(path, missing=range(5)))
    assert (stat.rows, stat.temperatures) == (0, [])
    assert stat_of(write_store(path.with_name("empty"), pairs=[], missing=())).chunks == 0


def test_whole_vocabulary_has_no_rest(path):
    """Ten equal tokens of ten: log2(10) bits, and the most that there is."""
    info = make_info(k=10, temperatures=(1.0,))
    parts = make_parts(make_info())
    parts.info = info

    chunks = []
    for chunk in parts.chunks:
        records = empty_records(len(chunk.records), info)
        records["topk_ids"], records["log_normalisers"] = np.arange(10), math.log(10)
        records[~chunk.scored] = 0
        chunks.append(ChunkData(chunk.hashes, chunk.lengths, chunk.status, records))
    parts.chunks = chunks
    one = stat_of(assemble(path, parts)).temperatures[0]
    assert one.most_entropy == pytest.approx(math.log2(10))
    assert one.mean_entropy == pytest.approx(math.log2(10), rel=1e-6)
    assert one.mean_mass == pytest.approx([0.1, 0.2, 0.4, 0.8, 1], rel=1e-6)


def test_nothing_is_known_without_normalisers(path):
    stat = stat_of(write_store(path, make_info(temperatures=())))
    assert (stat.rows, stat.temperatures) == (11, [])
    assert warnings(stat) == []


def test_single_token(path):
    one = stat_of(write_store(path, make_info(k=1))).temperatures[0]
    assert one.mean_mass == pytest.approx([0.5])
    assert (one.mean_entropy, one.most_entropy) == (pytest.approx(1, rel=ROUNDING), 1)


# ---------------------------------------------------------------- advice


@pytest.mark.parametrize(
    ("logits", "normaliser", "k"),
    [
        ((0, -20, -20), 0.0, 1),  # the first holds all
        ((0, -math.log(2), -20), math.log(1.5), 2),  # 2/3, 1/3: the first holds less than 0.9
        ((0, 0, 0), math.log(3), 3),  # 0.67 of the mass is not 0.9
        ((0, -math.log(2), -math.log(4)), math.log(1.75 / 0.02), 3),  # of little mass, shares are of that
    ],
)
def test_suggested_k(path, logits, normaliser, k):
    assert suggested_k(stat_of(store_with(path, [(logits, (normaliser, 3.0))]))) == k


def test_suggested_k_counts_rows_below_one_half(path):
    """One token holds 0.91 of the mass of three on average, but two rows of eleven fall below a half."""
    falling = (
        (0, -math.log(1.05), -math.log(1.05)),
        (math.log(4.2), 3.0),
    )  # 0.238, 0.227, 0.227: 0.465, 0.69
    certain = ((0, -20, -20), (0, 3.0))
    stat = stat_of(store_with(path, [falling, *[certain] * 5]))
    one = stat.temperatures[0]
    assert one.mean_mass[0] > 0.9 * one.mean_mass[2]
    assert one.share_below_half == [2 / 11, 2 / 11, 0]
    assert suggested_k(stat) == 3


def test_suggested_k_is_looked_up_at_the_lowest_temperature_without_1(path):
    stat = stat_of(store_with(path, [((0, -20, -20), (0.0, 3.0))], temperatures=(0.5, 2.0)))
    assert suggested_k(stat) == 1


@pytest.mark.parametrize(
    ("normalisers", "temperature"),
    [
        ((math.log(1.75), math.log(4)), 10),  # 1 and 0.70
        ((math.log(1.75), math.log(8)), 1),  # 1 and 0.35
        ((math.log(8), math.log(8)), 1),  # 0.22: none holds a half, so the lowest
    ],
)
def test_suggested_temperature(path, normalisers, temperature):
    stat = stat_of(store_with(path, [(HALVES[0], normalisers)]))
    assert suggested_temperature(stat) == temperature


def test_warning_of_a_temperature_that_leaves_little(path):
    stat = stat_of(store_with(path, [(HALVES[0], (math.log(2), math.log(2.8034 / 0.004)))]))
    assert warnings(stat) == [
        "at T=10 the top 3 hold 0.4 % of the mass: the student sees only their order; choose a lower "
        "--kd-temperature or a larger --topk"
    ]


def test_no_warning_where_they_hold_enough(path):
    assert warnings(stat_of(write_store(path))) == []


# ---------------------------------------------------------------- damage


def test_damaged_chunk_is_refused(path):
    write_store(path)
    flip(path, header_of(path).layout.ends["records"] - 1)
    with pytest.raises(
        ValueError, match=r"chunk 2 \(sentences 4 to 4\) does not match its digest .*store verify"
    ):
        stat_of(path)


def test_damaged_index_is_refused(path):
    write_store(path)
    content = bytearray(path.read_bytes())
    place = header_of(path).layout.starts["offsets"] + 8
    content[place : place + 8] = (10**6).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"chunk 0 \(sentences 0 to 1\): the index is wrong at sentence 0"):
        TopKReader(path).checked_chunk(0)


def test_chunk_of_a_shard_has_its_number_in_the_corpus(path):
    reader = TopKReader(write_store(path, shard=Shard(1, 3)), shard=True)
    assert reader.checked_chunk(0).lengths.tolist() == [len(target) for _, target in PAIRS[2:4]]
