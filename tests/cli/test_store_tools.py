"""``fairseq-bert-kd store``: what the tools print, and their exit status."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from fairseq_bert_kd.cli import store_tools, store_verify
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.cli.store_show_topk import _aligned, _width
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.shards import Shard
from fairseq_bert_kd.storage.topk_store import TopKReader
from tests.storage.small_stores import (
    NAME,
    PAIRS,
    SYMBOLS,
    assemble,
    flip,
    header_of,
    make_info,
    make_parts,
    write_data,
    write_store,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / NAME


@pytest.fixture
def store(path):
    return write_store(path)


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


@pytest.fixture
def run(capsys):
    """Run a tool; status, standard output and standard error."""

    def run(*arguments):
        status = cli_main(["store", *map(str, arguments)])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return status, printed.out, printed.err

    return run


# ---------------------------------------------------------------- dispatch


def test_without_a_tool_help_is_printed(run):
    status, out, _ = run()
    assert status == 2
    assert all(f"  {name:<7} {tool.summary}" in out for name, tool in store_tools.TOOLS.items())
    assert "usage: fairseq-bert-kd store [-h] [COMMAND]" in out


def test_every_tool_has_a_summary_and_help_with_an_example(capsys):
    for name, (module, _) in store_tools.TOOLS.items():
        assert importlib.util.find_spec(module), module
        with pytest.raises(SystemExit) as stop:
            cli_main(["store", name, "--help"])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert f"usage: fairseq-bert-kd store {name}" in out
        assert "example" in out


def test_unknown_tool(capsys):
    with pytest.raises(SystemExit) as stop:
        cli_main(["store", "repair"])
    assert stop.value.code == 2
    assert "invalid choice: 'repair'" in capsys.readouterr().err


def test_errors_of_the_system_are_one_line(run, store, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", "x.topk")

    monkeypatch.setattr(store_verify, "verify_store", fail)
    status, out, err = run("verify", store)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == "fairseq-bert-kd store: [Errno 13] Permission denied: 'x.topk'"


LIGHT = """
import sys
from fairseq_bert_kd.cli.main import cli_main
status = cli_main(sys.argv[1:])
print(status, sorted({"torch", "fairseq", "transformers", "tokenizers"} & set(sys.modules)))
"""


def test_tools_are_light(tmp_path, store):
    shards = [str(write_store(tmp_path / "other.topk", shard=Shard(i, 2))) for i in range(2)]
    tools = [
        ["verify", str(store), "--data", str(write_data(tmp_path / "data"))],
        ["stat", str(store)],
        ["show", str(store), "2"],
        ["merge", *shards],
    ]
    for arguments in tools:
        command = [sys.executable, "-c", LIGHT, "store", *arguments]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        assert child.stdout.splitlines()[-1] == "0 []", arguments
        assert child.stderr == ""  # no bar, as it is no terminal


# ---------------------------------------------------------------- verify


def test_verify_a_sound_store(run, store, data):
    status, out, err = run("verify", store, "--data", data)
    size = store.stat().st_size
    assert (status, err) == (0, "")
    assert out == (
        f"{store}: all well: 5 sentences, 13 rows, 1 sentences missing, 3 chunks, {size:,} bytes, "
        f"belongs to {data}\n"
    )


def test_verify_a_sound_shard(run, path):
    shard = write_store(path, shard=Shard(1, 2))
    _, out, _ = run("verify", shard)
    assert out.startswith(
        f"{shard}: all well: shard 2/2, 2 sentences, 5 rows, 0 sentences missing, 1 chunks, "
    )


def test_verify_a_bad_store_among_good_ones(run, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = write_store(tmp_path / "bad.topk")
    for chunk in (0, 2):
        flip(bad, header_of(bad).layout.starts["status"] + 2 * chunk)
    status, out, err = run("verify", "bad.topk", store)
    assert status == 1
    assert out.startswith(f"{store}: all well: 5 sentences")
    assert err.splitlines() == [
        "bad.topk: chunk 0 (sentences 0 to 1) does not match its digest",
        "bad.topk: chunk 2 (sentences 4 to 4) does not match its digest",
        "bad.topk: where it is damaged, copy it again or rebuild it with `fairseq-bert-kd dump DATA --store-dir . "
        "--path TEACHER.pt --subset bad --overwrite`",
    ]


def test_verify_a_truncated_store_says_it_once(run, store):
    store.write_bytes(store.read_bytes()[:-1])
    status, out, err = run("verify", store)
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"store {store} is truncated: ")


def test_verify_other_data(run, store, tmp_path):
    data = write_data(tmp_path / "data", [PAIRS[0], *PAIRS[:4]])
    status, _, err = run("verify", store, "--data", data)
    assert status == 1
    assert f"{store}: it was made from another text: the source of sentence 1 (line 2 of the text)" in err


@pytest.mark.parametrize(
    "arguments", [["none.topk"], ["."], ["STORE", "none.topk"], ["STORE", "--data", "none"]]
)
def test_verify_with_a_mistake_in_the_call(run, store, arguments):
    status, out, err = run("verify", *[store if word == "STORE" else word for word in arguments])
    assert (status, out) == (2, "")
    assert "none" in err or "not a file" in err


def test_verify_shows_a_bar_for_a_large_store(run, store, monkeypatch):
    monkeypatch.setattr(store_tools, "_LARGE", 1)
    _, _, err = run("verify", store)
    assert f"verify {NAME}" in err


# ---------------------------------------------------------------- stat


def test_stat_prints_header_table_and_advice(run, path):
    info = make_info(gold=True, samples=1, precision="fp16", device="cuda", max_tokens=4096)
    write_store(path, info, gold_correct=1, gold_nll=2.0)  # each of three chunks: 1 correct, 2 nats
    status, out, err = run("stat", path)
    assert (status, err) == (0, "")
    for line in (
        "  data           train, de -> en",
        "  scored         in 7 passes, fp16 on cuda batches of 4,096 tokens",
        "  mask ratio     15 % of target tokens while the teacher was trained",
        "  stored         top 3 of 10 tokens, gold token, 1 drawn tokens (seed 0); 28 bytes per position",
        "  temperatures   1, 10",
        "  sentences      5, of them 1 missing (1 too_long)",
        "  positions      13, of them 11 scored (84.62 %)",
        "  captured mass  87.5 % at T=1, 35.0 % at T=10",
        "  on gold        accuracy 27.27 %, perplexity 1.725 (each token masked)",  # 3 / 11, exp(6 / 11)
        "  origin         dump; numpy 2.0, straße ü",
        "rows: 11 scored ones of all 3 chunks",
        "    3   87.49 %    0.00 %   35.04 %  100.00 %",
        " 0.80 - 0.90 |#################################### 100.0 %",
        "entropy in bits at T=1, mean 1.750: of the 3 tokens",
        "and the rest as one, a lower bound of the teacher's",
    ):
        assert line in out.splitlines(), line
    assert "suggested --kd-topk: 3 (our own rule: " in out
    assert "suggested --kd-temperature: 1 (our own rule: " in out
    assert all(len(line) <= 60 for line in out.splitlines() if "|" in line)


def test_stat_says_that_it_looked_at_a_sample(run, store):
    _, out, _ = run("stat", store, "--rows", 4)
    assert "rows: 5 scored ones of 1 of 3 chunks, spread evenly (--rows 0 reads all)" in out


def test_stat_warns(run, path):
    parts = make_parts()
    for chunk in parts.chunks:
        chunk.records["log_normalisers"][chunk.scored, 1] = 7
    _, out, _ = run("stat", assemble(path, parts))
    assert "warning: at T=10 the top 3 hold 0.3 % of the mass: the student sees only their order" in out


def test_stat_without_normalisers(run, path):
    write_store(path, make_info(temperatures=(), origin="import"))
    status, out, _ = run("stat", path)
    assert status == 0
    assert "  temperatures   none: the mass outside the stored tokens is not known\n" in out
    assert "  captured mass  not known\n" in out
    assert out.splitlines()[-1] == "rows: 11 scored ones of all 3 chunks"
    values = json.loads(run("stat", path, "--json")[1])
    assert (values["temperatures"], values["suggested_topk"], values["warnings"]) == ([], None, [])


def test_stat_without_rows(run, path):
    status, out, _ = run("stat", write_store(path, pairs=[], missing=()))
    assert status == 0
    assert "no scored row among them" in out


def test_stat_as_json(run, path):
    write_store(path, make_info(gold=True), gold_correct=1, gold_nll=2.0)
    _, out, _ = run("stat", path, "--json")
    values = json.loads(out)
    assert values["info"]["k"] == 3
    assert values["gold_perplexity"] == pytest.approx(np.exp(6 / 11))
    assert values["looked_at"] == {"chunks": 3, "rows": 11}
    assert values["temperatures"][0]["mean_entropy_bits"] == pytest.approx(1.75, rel=1e-3)
    assert values["suggested_temperature"] == 1
    assert values["warnings"] == []


def test_stat_as_json_without_rows(run, path):
    _, out, _ = run("stat", write_store(path, pairs=[], missing=()), "--json")
    assert json.loads(out)["suggested_topk"] is None


def test_stat_refuses_a_negative_number(run, store):
    status, _, err = run("stat", store, "--rows=-1")
    assert status == 2
    assert "--rows must be at least 0 (all), got -1" in err


# ---------------------------------------------------------------- show


def shown(out):
    """Words of each line."""
    return [line.split() for line in out.splitlines()]


def test_show_with_data(run, store, data):
    status, out, _ = run("show", store, 0, "--data", data)
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == (
        f"sentence 0 of {NAME} (train, de -> en), 3 positions, teacher bert-base-multilingual-cased, T=1"
    )
    assert lines[1:4] == ["source  b </s>", "target  a b </s>", ""]
    assert lines[4:] == [  # 1/2, 1/4, 1/8 and a rest of 1/8
        "   gold          1.          2.          3.            rest",
        "0  a     50.0 %  *a  50.0 %  b   25.0 %  c   12.5 %  12.5 %",
        "1  b     25.0 %  a   50.0 %  *b  25.0 %  c   12.5 %  12.5 %",
        "2  </s>       ?  a   50.0 %  b   25.0 %  c   12.5 %  12.5 %",
        "?: the gold token is not among the stored ones",
    ]


def test_show_with_less_tokens_counts_the_others_as_rest(run, store):
    _, out, _ = run("show", store, 3, "--top", 1)
    assert shown(out)[-1] == ["0", "a", "50.0", "%", "50.0", "%"]


def test_show_at_another_temperature(run, store):
    _, out, _ = run("show", store, 3, "--temperature", 10)
    assert shown(out)[-1] == [
        "0",
        "a",
        "12.5",
        "%",
        "b",
        "11.7",
        "%",
        "c",
        "10.9",
        "%",
        "65.0",
        "%",
    ]  # (1, 2**-0.1, 2**-0.2) / 8


def test_show_gold_tokens_of_the_store(run, path):
    info = make_info(gold=True)
    parts = make_parts(info)
    parts.chunks[1].records["gold_id"][4], parts.chunks[1].records["gold_logit"][4] = 9, -np.log(32)
    _, out, _ = run("show", assemble(path, parts), 3)
    assert shown(out)[-1] == [
        "0",
        "f",
        "1.6",
        "%",
        "a",
        "50.0",
        "%",
        "b",
        "25.0",
        "%",
        "c",
        "12.5",
        "%",
        "12.5",
        "%",
    ]  # 1/2 / 32


def test_show_without_normalisers(run, path):
    _, out, _ = run("show", write_store(path, make_info(temperatures=())), 3)
    assert ["0", "a", "57.1", "%", "b", "28.6", "%", "c", "14.3", "%", "0.0", "%"] in shown(
        out
    )  # 4/7, 2/7, 1/7
    assert out.splitlines()[-1].startswith("probabilities are over the stored tokens only")


def test_show_a_missing_sentence(run, store, data):
    status, out, _ = run("show", store, 1, "--data", data)
    assert status == 0
    assert "the teacher has not scored it: longer than the teacher can read (too_long)" in out
    assert "source  c d </s>" in out
    assert "rest" not in out


def test_show_a_sentence_of_a_shard(run, path):
    shard = write_store(path, shard=Shard(1, 2))
    _, out, _ = run("show", shard, 3)
    assert out.startswith("sentence 3 of ")
    assert "1 positions" in out
    status, _, err = run("show", shard, 4)
    assert status == 2
    assert f"sentence 4 is in shard 1/2, {shard} is shard 2/2; name that file" in err


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        ([5], "SENTENCE must be from 0 to 4, a corpus index, got 5"),
        ([-1], "SENTENCE must be from 0 to 4, a corpus index, got -1"),
        ([0, "--temperature", 5], "--temperature must be one of the stored 1, 10, got 5"),
        ([0, "--temperature", "nan"], "--temperature must be one of the stored 1, 10, got nan"),
        ([0, "--top", 4], "--top must be from 1 to 3, what the store holds, got 4"),
        ([0, "--top", 0], "--top must be from 1 to 3"),
        ([0, "--data", "none"], "Dataset not found"),
    ],
    ids=str,
)
def test_show_refuses(run, store, arguments, reported):
    status, out, err = run("show", store, *arguments)
    assert (status, out) == (2, "")
    assert reported in err


@pytest.mark.parametrize("temperature", ["0", "-1", "inf", "nan"])
def test_show_refuses_absurd_temperatures(run, path, temperature):
    write_store(path, make_info(temperatures=()))
    status, _, err = run("show", path, 0, f"--temperature={temperature}")
    assert status == 2
    assert "--temperature must be positive" in err


def test_show_refuses_other_data(run, store, tmp_path):
    data = write_data(tmp_path / "data", PAIRS[::-1])
    status, _, err = run("show", store, 0, "--data", data)
    assert status == 2
    assert "the source of sentence 0 (line 1 of the text) has other tokens here" in err
    data = write_data(tmp_path / "data", PAIRS[:1])
    assert run("show", store, 4, "--data", data)[0] == 2


@pytest.mark.parametrize(
    ("section", "reported"), [("records", "does not match its digest"), ("dictionary", "its dictionary")]
)
def test_show_refuses_damage(run, store, section, reported):
    flip(store, header_of(store).layout.starts[section])
    status, _, err = run("show", store, 0)
    assert status == 2
    assert reported in err


def test_show_escapes_what_a_terminal_obeys(run, path):
    symbols = [*SYMBOLS[:4], "\x1b[31m", "\ud800", *SYMBOLS[6:]]
    info = make_info(dictionary_digest=dictionary_digest(symbols))
    parts = make_parts(info)
    parts.symbols = symbols
    _, out, _ = run("show", assemble(path, parts), 3)
    assert r"\x1b[31m  50.0 %  \ud800  25.0 %" in out


def test_columns_count_wide_and_combining_characters():
    assert [_width(text) for text in ("ab", "日本", "e\u0301", "")] == [2, 4, 1, 0]
    assert list(
        _aligned([["", "1.", "", "rest"], ["0", "日", "5 %", "1 %"], ["10", "abc", "50 %", "2 %"]])
    ) == [
        "    1.         rest",
        " 0  日    5 %   1 %",
        "10  abc  50 %   2 %",
    ]


# ---------------------------------------------------------------- merge


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "shards").mkdir()
    return [write_store(tmp_path / "shards" / NAME, shard=Shard(i, 3)) for i in range(3)]


def test_merge_gives_the_store(run, store, shards):
    status, out, err = run("merge", *shards[::-1])
    output = shards[0].parent / NAME
    assert (status, err) == (0, "")
    assert out == f"{output}: merged from 3 shards: 5 sentences, 13 rows, 1 sentences missing\n"
    assert output.read_bytes() == store.read_bytes()
    assert all(shard.exists() for shard in shards)


def test_merge_to_another_name_and_remove(run, store, shards, tmp_path):
    output = tmp_path / "other.topk"
    status, out, _ = run("merge", *shards, "--output", output, "--remove-shards")
    assert status == 0
    assert out.splitlines()[-1] == "removed 3 shards"
    assert output.read_bytes() == store.read_bytes()
    assert not any(shard.exists() for shard in shards)


def test_merge_removes_the_shards_of_a_store_that_was_complete(run, shards):
    run("merge", *shards)
    status, out, _ = run("merge", *shards, "--remove-shards")
    assert status == 0
    assert "was complete already: 5 sentences" in out
    assert not any(shard.exists() for shard in shards)


def test_merge_keeps_the_shards_when_the_complete_store_is_damaged(run, shards):
    run("merge", *shards)
    output = shards[0].parent / NAME
    flip(output, header_of(output).layout.starts["records"])
    status, _, err = run("merge", *shards, "--remove-shards")
    assert status == 2
    assert f"the shards were kept, as {output} was there before and is damaged (chunk 0" in err
    assert all(shard.exists() for shard in shards)
    assert run("merge", *shards, "--remove-shards", "--overwrite")[0] == 0
    assert not any(shard.exists() for shard in shards)


def test_merge_keeps_the_shards_when_the_complete_store_holds_other_rows(run, shards):
    output = shards[0].parent / NAME
    parts = make_parts()
    parts.chunks[1].records["log_normalisers"] += 1
    assemble(output, parts)
    status, _, err = run("merge", *shards, "--remove-shards")
    assert status == 2
    assert f"holds other rows than {shards[1]} in chunk 1" in err
    assert all(shard.exists() for shard in shards)


def test_merge_keeps_the_shards_when_it_fails(run, shards):
    flip(shards[1], header_of(shards[1]).layout.starts["records"])
    status, out, err = run("merge", *shards, "--remove-shards")
    assert (status, out) == (2, "")
    assert "chunk 1 (sentences 2 to 3) does not match its digest" in err
    assert all(shard.exists() for shard in shards)
    assert not (shards[0].parent / NAME).exists()


def test_merge_does_not_replace_a_file_unasked(run, shards):
    output = shards[0].parent / NAME
    output.write_bytes(b"precious")
    status, _, err = run("merge", *shards)
    assert status == 2
    assert "pass --overwrite to replace it" in err
    assert output.read_bytes() == b"precious"
    assert run("merge", *shards, "--overwrite")[0] == 0
    assert len(TopKReader(output)) == 5


def test_merge_refuses_what_is_absent_or_not_a_shard(run, shards, store, tmp_path):
    assert "shard 3/3 is missing" in run("merge", *shards[:2])[2]
    assert "is not named like a shard" in run("merge", store)[2]
    assert (
        "the shards belong to several stores by their names"
        in run("merge", shards[0], tmp_path / "x.shard-2-of-3")[2]
    )
    assert "--output" in run("merge", *shards, "--output", shards[1])[2]
    assert (
        "does not exist" in run("merge", shards[0], shards[1], f"{shards[2]}x", "--output", tmp_path / "y")[2]
    )


def test_merge_of_one_store_never_removes_itself(run, store):
    for options in ([], ["--overwrite"], ["--remove-shards"], ["--overwrite", "--remove-shards"]):
        status, _, err = run("merge", store, "--output", store, *options)
        assert status == 2
        assert "is one of the shards; give another name" in err
        assert store.exists()
