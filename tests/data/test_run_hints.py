"""Hints at the start of a run: which number of threads to try."""

import os
import re

import pytest
import torch

from fairseq_bert_kd.data import run_hints
from fairseq_bert_kd.data.run_hints import fitting_threads, say_first_line, say_threads, usable_cpus


@pytest.mark.parametrize(
    ("threads", "cpus", "others", "expected"),
    [
        (8, 8, 0.0, 8),  # all free
        (8, 8, 2.6, 5),
        (8, 8, 30.0, 1),  # more programs than CPUs
        (1, 2, 7.0, 1),
        (64, 2, 0.0, 2),  # a container that sees more CPUs than it may use
        (2, 8, 5.0, 2),  # few threads fit beside the others
    ],
)
def test_threads_fit_into_what_others_leave(threads, cpus, others, expected):
    assert fitting_threads(threads, cpus, others) == expected


@pytest.mark.parametrize(
    ("threads", "load", "device", "said"),
    [
        (
            4,
            4.0,
            "cpu",
            "4 OpenMP threads run on 4 CPUs of which other programs use about 3.0.*try OMP_NUM_THREADS=1$",
        ),
        (4, 9.0, "cpu", "use about 4.0.*try OMP_NUM_THREADS=1$"),
        (4, 1.0, "cpu", None),  # the load is our own
        (1, 9.0, "cpu", None),  # nothing fewer to try
        (4, 9.0, "cuda", None),
    ],
)
def test_a_number_is_said_where_threads_wait_for_each_other(monkeypatch, caplog, threads, load, device, said):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(run_hints, "usable_cpus", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    say_threads(device)
    if said is None:
        assert not caplog.records
    else:
        [record] = caplog.records
        assert re.search(said, record.getMessage())


@pytest.mark.parametrize(
    ("quota", "cpus"), [("200000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("", 8), (None, 8)]
)
def test_a_containers_quota_counts(monkeypatch, tmp_path, quota, cpus):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota + "\n")
    assert usable_cpus(str(tmp_path / "cpu.max")) == cpus


def test_an_interval_that_is_not_known_is_not_said(caplog):
    caplog.set_level("INFO", run_hints.__name__)
    say_first_line(None)
    assert not caplog.records
    say_first_line(50)
    assert "after 50 updates (--log-interval)" in caplog.text
