"""Every benchmark runs; figures that do not depend on time are right."""

import importlib
import os
import re
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest

from benchmarks.__main__ import MODULES
from benchmarks.table import Row, markdown
from fairseq_bert_kd.storage.topk_store import TopKReader


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


def test_reads_compare_every_state_with_fairseq_and_the_authors():
    from benchmarks import store_reads

    rows = store_reads.run(quick=True)
    ratios = [row for row in rows if " over " in row.what]
    assert {row.what.split(":")[0] for row in ratios} == {"warm", "cold", "cold, opening not counted"}
    assert all(float(row.measured.split(" ")[0]) > 0 for row in ratios)
    assert {row.goal for row in ratios if row.met is not None} == {"at least 1", "at least 30"}


def test_an_error_in_a_child_ends_the_benchmark(tmp_path):
    from benchmarks.child import in_new_process

    with pytest.raises(FileNotFoundError):
        in_new_process(os.stat, tmp_path / "absent", method="forkserver")
    with pytest.raises(BrokenProcessPool):
        in_new_process(os.abort, method="forkserver")


def test_a_sparse_store_opens_like_a_real_one_and_leaves_no_file(tmp_path):
    from benchmarks import sparse, synthetic

    synthetic.write_store(tmp_path / "real", synthetic.make_info(), 3000)
    sparse.write_sparse_store(tmp_path / "sparse", 3000)
    real, empty = TopKReader(tmp_path / "real"), TopKReader(tmp_path / "sparse")
    assert real.header.layout == empty.header.layout
    assert len(empty) == 3000
    (tmp_path / "real").unlink()
    (tmp_path / "sparse").unlink()
    assert sparse.sparse_opening_seconds(tmp_path, 10**6) > 0
    assert not list(tmp_path.iterdir())


def test_a_rate_gives_the_sizing_table_without_a_dump(monkeypatch, tmp_path, capsys):
    from benchmarks import __main__, store_growth

    monkeypatch.setattr(store_growth, "run", lambda quick: [Row("growth", "", "", "-", None)])
    monkeypatch.setattr(store_growth, "LAST_RATES", {"verify": 1e6, "merge": 2e6})
    monkeypatch.delitem(sys.modules, MODULES["dump"], raising=False)
    arguments = ["growth", "--quick", "--tokens-per-second", "5000", "--markdown", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    __main__.main()
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "5,000 tokens/s (the rate that was given)" in text
    assert text in capsys.readouterr().out


def test_sizing_follows_from_the_rates(monkeypatch):
    from benchmarks import store_growth

    monkeypatch.setattr(store_growth, "LAST_RATES", {"verify": 1e6, "merge": 2e6})
    table = store_growth.sizing(tokens_per_second=10_500.0, device="a device").splitlines()
    # 10^7 pairs: 7 * 54 tokens each at 10,500/s are 100 h; 36 * 27 + 25 = 997 bytes each; 27e7 positions
    assert re.fullmatch(r"\| 10\^7 \| 10\.0 GB \| 100\.0 \| 5 \| [\d.]+ ms \| 4 min \| 2 min \|", table[6])
