"""Every benchmark runs; figures that do not depend on time are right."""

import importlib

import pytest

from benchmarks.__main__ import MODULES
from benchmarks.table import Row, markdown


@pytest.mark.parametrize("name", [name for name in MODULES if name != "dump"])
def test_runs_and_fills_a_table(name):
    rows = importlib.import_module(MODULES[name]).run(quick=True)
    assert rows
    assert all(isinstance(row, Row) and row.measured for row in rows)
    assert len(markdown(rows).splitlines()) == len(rows) + 2


def test_dump_is_compared_with_the_bare_teacher_and_the_authors():
    from benchmarks import dump_throughput

    rows = dump_throughput.measure("tiny", 1000, sentences=20, rounds=1, precision="fp32")
    assert len(rows) == 3
    assert all(float(row.measured.replace(",", "").split(" ")[0]) > 0 for row in rows)


def test_a_record_has_36_bytes():
    from benchmarks import store_bytes

    rows = store_bytes.run(quick=True)
    assert [(row.measured, row.met) for row in rows if row.what == "k=8: a record"] == [("36", True)]


def test_sizing_follows_from_the_rates(monkeypatch):
    from benchmarks import store_growth

    monkeypatch.setattr(store_growth, "LAST_RATES", {"verify": 1e6, "merge": 2e6})
    table = store_growth.sizing(tokens_per_second=10_500.0, device="a device").splitlines()
    # 10^7 pairs: 7 * 54 tokens each at 10,500/s are 100 h; 36 * 27 + 25 = 997 bytes each; 27e7 positions
    assert table[6] == "| 10^7 | 10.0 GB | 100.0 | 5 | under 10 ms | 4 min | 2 min |"
