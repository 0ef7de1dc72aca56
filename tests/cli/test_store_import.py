"""Tables of any teacher become stores: what an export holds comes back, and every mistake is found before writing."""

import importlib
import json
import tracemalloc

import numpy as np
import pytest

from fairseq_bert_kd.cli import dispatch, store_export, store_import_table
from fairseq_bert_kd.cli.store_tools import PROG, TOOLS
from fairseq_bert_kd.storage.fairseq_data import sentence_hash
from fairseq_bert_kd.storage.folds import FoldTeacher
from fairseq_bert_kd.storage.schema import SCORED, ChunkData, empty_records
from fairseq_bert_kd.storage.topk import NOT_IMPORTED, TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter
from fairseq_bert_kd.storage.verify import verify_store
from tests.storage.small_stores import NAME, PAIRS, SYMBOLS, make_info, write_data
from tests.storage.small_stores import write_store as write_hand_store

pa = pytest.importorskip("pyarrow")

FOLDS = (FoldTeacher("1/2", "one/best.pt", "a"), FoldTeacher("2/2", "other/best.pt", "b"))
LENGTHS = np.array([len(target) for _, target in PAIRS], dtype=np.int32)


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data-bin")


def teacher_chunk(info, sentences, status):
    """Rows of a teacher of the whole dictionary for some of `PAIRS`; gold tokens are the targets'."""
    rng = np.random.default_rng(sentences.start)
    gold = np.concatenate([PAIRS[i][1] for i in sentences])
    logits = rng.normal(size=(len(gold), len(SYMBOLS))).astype(np.float16).astype(np.float32)
    order = np.argsort(-logits, axis=1)
    logits -= logits.max(axis=1, keepdims=True)
    records = empty_records(len(gold), info)
    records["topk_ids"] = order[:, : info.k]
    records["topk_logits"] = np.take_along_axis(logits, order, 1)[:, : info.k]
    for place, temperature in enumerate(info.temperatures):
        records["log_normalisers"][:, place] = np.log(np.exp(logits / temperature).sum(1))
    if info.gold:
        records["gold_id"], records["gold_logit"] = gold, logits[np.arange(len(gold)), gold]
    if info.samples:
        others = [
            [i for i in row[info.k :] if i != token][: info.samples]
            for row, token in zip(order, gold, strict=True)
        ]
        records["sample_ids"] = others
        records["sample_logits"] = np.take_along_axis(logits, np.array(others), 1)
    hashes = {
        side: np.array([sentence_hash(PAIRS[i][place]) for i in sentences], dtype=np.uint64)
        for place, side in enumerate(("source", "target"))
    }
    chunk = ChunkData(hashes, LENGTHS[sentences.start : sentences.stop].astype(np.int64), status, records)
    records[~chunk.scored] = 0
    return chunk


def write_store(path, info, missing=(1,)):
    with TopKWriter(path, info, LENGTHS, SYMBOLS) as writer:
        for chunk in writer.chunks():
            sentences = writer.sentences(chunk)
            status = np.array([1 if i in missing else SCORED for i in sentences], dtype=np.uint8)
            writer.write_chunk(chunk, teacher_chunk(info, sentences, status))
        writer.finish()
    return path


def run(table, data, *options):
    arguments = [str(table), "--data", str(data), "--source-lang", "de", "--target-lang", "en", *options]
    dispatch.run(TOOLS, PROG, ["import", *arguments])
    return TopKReader(data / NAME)


def write_table(path, table, batch_rows=None):
    if path.suffix == ".parquet":
        importlib.import_module("pyarrow.parquet").write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=batch_rows)
    return path


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("suffix", store_export.SUFFIXES)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperatures": (), "k": 10},
        {"temperatures": (1 / 3, 1.0), "gold": True},
        {"gold": True, "samples": 2, "sample_seed": 5},
        {"chunk_sentences": 100},
        {"mask_plan": "left-to-right", "passes": 1, "mask_ratio": 0.0},
        {"folds": FOLDS},
    ],
    ids=str,
)
def test_export_and_import_give_the_same_rows(tmp_path, data, suffix, changes):
    info = make_info(**changes)
    original = TopKReader(write_store(tmp_path / "original.topk", info))
    table = tmp_path / f"table{suffix}"
    dispatch.run(TOOLS, PROG, ["export", str(original.path), str(table)])
    found = run(table, data)
    for i in range(len(original)):
        assert found.rows(i).tobytes() == original.rows(i).tobytes()
        assert found.status(i) == original.status(i)
        assert found.hashes(i) == original.hashes(i)
    assert verify_store(found.path, data) == []
    changed = {
        name: getattr(found.info, name)
        for name in info.stated() | found.info.stated()
        if getattr(found.info, name) != getattr(info, name)
    }
    assert changed.keys() == {"origin", "versions", "source_dictionary_digest"}
    assert found.info.origin == "import"


def test_another_teacher_takes_nothing_from_the_exported_one(tmp_path, data):
    info = make_info(teacher_digest="ab", precision="fp16", device="cpu", mask_ratio=0.25)
    original = write_store(tmp_path / "original.topk", info)
    table = tmp_path / "table.parquet"
    dispatch.run(TOOLS, PROG, ["export", str(original), str(table)])
    said = run(table, data, "--teacher", "another").info
    assert (said.teacher, said.teacher_digest, said.precision, said.device) == ("another", "", "", "")
    assert said.mask_ratio == 0
    said = run(table, data, "--teacher", info.teacher, "--overwrite").info
    assert (said.teacher_digest, said.precision, said.mask_ratio) == ("ab", "fp16", 0.25)


def test_one_fold_alone_is_no_store(tmp_path, data, capsys):
    original = write_store(tmp_path / "original.topk", make_info(folds=FOLDS[1:]))
    table = tmp_path / "table.arrow"
    dispatch.run(TOOLS, PROG, ["export", str(original), str(table)])
    with pytest.raises(ValueError, match="holds fold 2/2 alone; join the stores of all folds"):
        run(table, data)
    assert not (data / NAME).exists()


def test_batches_and_chunks_need_not_fit(tmp_path, data, monkeypatch):
    original = TopKReader(write_store(tmp_path / "original.topk", make_info()))
    table = tmp_path / "table.arrow"
    dispatch.run(TOOLS, PROG, ["export", str(original.path), str(table)])
    whole = pa.ipc.open_file(str(table)).read_all().combine_chunks()
    monkeypatch.setattr(store_import_table, "_BATCH_ROWS", 2)
    for rows in (1, 3, 100):
        found = run(write_table(tmp_path / f"{rows}.arrow", whole, rows), data, "--overwrite")
        assert b"".join(found.rows(i).tobytes() for i in range(5)) == b"".join(
            original.rows(i).tobytes() for i in range(5)
        )


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_a_table_may_begin_with_missing_sentences(tmp_path, data, suffix):
    """Of a corpus whose longest sentences come first, the first batch of a table has no pieces."""
    original = TopKReader(
        write_store(tmp_path / "original.topk", make_info(gold=True, samples=2), missing=(0, 1, 2))
    )
    assert original.info.chunk_sentences <= 3
    table = tmp_path / f"table{suffix}"
    dispatch.run(TOOLS, PROG, ["export", str(original.path), str(table)])
    found = run(table, data)
    assert (found.info.k, found.info.samples) == (original.info.k, 2)
    assert [found.status(i) for i in range(5)] == [1, 1, 1, SCORED, SCORED]
    assert found.rows(4).tobytes() == original.rows(4).tobytes()


def test_fewer_tokens_than_the_table_has(tmp_path, data):
    original = TopKReader(write_store(tmp_path / "original.topk", make_info()))
    table = tmp_path / "table.arrow"
    dispatch.run(TOOLS, PROG, ["export", str(original.path), str(table)])
    found = run(table, data, "--topk", "2")
    assert found.rows(0)["topk_ids"].tolist() == original.rows(0)["topk_ids"][:, :2].tolist()
    assert found.rows(0)["log_normalisers"].tolist() == original.rows(0)["log_normalisers"].tolist()
    with pytest.raises(ValueError, match="--topk must be from 1 to 3, the pieces of a row, got 4"):
        run(table, data, "--overwrite", "--topk", "4")


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_memory_does_not_grow_with_the_table(tmp_path, suffix):
    peaks = []
    for times in (40, 400):
        pairs = [([2], list(range(4, 10)) * 10)] * times
        folder = tmp_path / str(times)
        data = write_data(folder, pairs)
        original = write_hand_store(
            folder / "original.topk", make_info(chunk_sentences=10), pairs, missing=()
        )
        table = folder / f"table{suffix}"
        dispatch.run(TOOLS, PROG, ["export", str(original), str(table)])
        tracemalloc.start()
        found = run(table, data)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.missing_sentences == 0
    layout = found.header.layout
    assert peaks[1] - peaks[0] < (layout.ends["records"] - layout.starts["records"]) / 2
    assert pa.default_memory_pool().bytes_allocated() < 1 << 20  # batches are given back


# ---------------------------------------------------------------- another program's tables


def rows_of(sentences=(0, 2), **columns):
    """A table as another teacher's script would write it: pieces a, b, c with probabilities 1/2, 1/4 and 1/8."""
    keys = [(i, t) for i in sentences for t in range(LENGTHS[i])]
    values = {
        "sentence": [i for i, _ in keys],
        "position": [t for _, t in keys],
        "topk_tokens": [["a", "b", "c"]] * len(keys),
        "topk_logprobs": [[float(np.log(p)) for p in (1 / 2, 1 / 4, 1 / 8)]] * len(keys),
    }
    return {name: value for name, value in (values | columns).items() if value is not None}


def test_log_probabilities(tmp_path, data):
    found = run(write_table(tmp_path / "t.parquet", pa.table(rows_of())), data, "--teacher", "a large one")
    assert [found.status(i) for i in range(5)] == [0, NOT_IMPORTED, 0, NOT_IMPORTED, NOT_IMPORTED]
    assert found.rows(2)["topk_ids"].tolist() == [[4, 5, 6]] * 4
    logits = np.log([1, 1 / 2, 1 / 4]).astype(np.float16)
    assert found.rows(0)["topk_logits"].tolist() == [logits.tolist()] * 3
    # as stored: the rounded logits' mass and the rest's, an eighth of the whole, 2 in units of the best's half
    expected = np.log(np.exp(logits.astype(np.float64)).sum() + 2 * (1 / 8))
    assert found.rows(0)["log_normalisers"] == pytest.approx(np.full((3, 1), expected), rel=1e-6)
    assert found.info.temperatures == (1.0,)
    assert (found.info.teacher, found.info.origin, found.info.passes) == ("a large one", "import", 1)
    assert found.header.summary["missing_sentences"]["not_imported"] == 3
    assert found.header.summary["captured_mass"] == pytest.approx([7 / 8], rel=1e-3)
    assert verify_store(found.path, data) == []


def test_raw_logits_with_their_normaliser(tmp_path, data):
    count = int(LENGTHS[0] + LENGTHS[2])
    values = rows_of(
        topk_logprobs=None, topk_logits=[[3.0, 2.0, -1.0]] * count, **{"log_normaliser_at_2": [2.5] * count}
    )
    found = run(write_table(tmp_path / "t.arrow", pa.table(values)), data)
    assert found.rows(0)["topk_logits"].tolist() == [[0, -1, -4]] * 3
    assert found.rows(0)["log_normalisers"].tolist() == [[2.5 - 3 / 2]] * 3
    assert found.info.temperatures == (2.0,)


def test_logits_alone_make_a_store_without_normalisers(tmp_path, data):
    count = int(LENGTHS[0] + LENGTHS[2])
    values = rows_of(topk_logprobs=None, topk_logits=[[3.0, 2.0, -1.0]] * count)
    found = run(write_table(tmp_path / "t.arrow", pa.table(values)), data, "--mask-plan", "left-to-right")
    assert found.info.temperatures == ()
    assert found.info.mask_plan == "left-to-right"
    assert found.header.summary["captured_mass"] == []


def test_lists_of_every_kind(tmp_path, data):
    table = pa.table(rows_of())
    pieces = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    for kind in (pa.large_list(pa.float64()), pa.list_(pa.float32(), 3)):
        table = table.set_column(3, "topk_logprobs", table["topk_logprobs"].cast(kind))
        found = run(write_table(tmp_path / "t.arrow", table), data, "--overwrite")
        assert found.rows(0)["topk_ids"].tolist() == [[4, 5, 6]] * 3
    flat = table["topk_tokens"].combine_chunks()
    as_dictionary = pa.ListArray.from_arrays(flat.offsets, flat.values.dictionary_encode())
    assert as_dictionary.type == pieces
    table = table.set_column(2, "topk_tokens", as_dictionary)
    found = run(write_table(tmp_path / "t.arrow", table), data, "--overwrite")
    assert found.rows(2)["topk_ids"].tolist() == [[4, 5, 6]] * 4


def test_gold_tokens(tmp_path, data):
    gold = [SYMBOLS[token] for i in (0, 2) for token in PAIRS[i][1]]
    logits = [{"a": 1 / 2, "b": 1 / 4}.get(piece, 1 / 64) for piece in gold]
    values = rows_of(gold_token=gold, gold_logit=[float(np.log(p)) for p in logits])
    found = run(write_table(tmp_path / "t.arrow", pa.table(values)), data)
    assert found.rows(0)["gold_id"].tolist() == PAIRS[0][1]
    nll = -(np.log(1 / 2) + np.log(1 / 4) + 5 * np.log(1 / 64)) / 7
    assert found.header.summary["gold_nll"] == pytest.approx(nll, rel=1e-3)
    assert found.header.summary["gold_accuracy"] == 1 / 7
    values["gold_token"][1] = "f"
    message = "sentence 0, position 1: the gold token is not the target's token in the data"
    with pytest.raises(ValueError, match=message):
        run(write_table(tmp_path / "t.arrow", pa.table(values)), data, "--overwrite")


def test_empty_table(tmp_path, data):
    schema = pa.table(rows_of()).schema
    found = run(write_table(tmp_path / "t.arrow", schema.empty_table()), data)
    assert found.missing_sentences == 5


# ---------------------------------------------------------------- what is refused


def replaced(row, **values):
    """The other teacher's columns with one row's values replaced."""
    columns = rows_of()
    for name, value in values.items():
        columns[name] = [*columns[name][:row], value, *columns[name][row + 1 :]]
    return columns


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (replaced(4, topk_tokens=["a", "zebra", "c"]), "sentence 2, position 1: piece 'zebra' is not in the target dict"),
        (replaced(4, topk_tokens=["a", "b", "a"]), r"sentence 2, position 1: topk_ids must differ, got \[4, 5, 4\]"),
        (replaced(4, topk_tokens=["a", "b"]), "sentence 2, position 1: column topk_tokens must hold 3 values .* got 2"),
        (replaced(4, topk_tokens=None), "column topk_tokens must hold 3 values in every row, got 0"),
        (replaced(4, topk_tokens=["a", None, "c"]), "column topk_tokens must not hold nulls"),
        (replaced(2, topk_logprobs=[-1.0, -3.0, -2.0]), "sentence 0, position 2: topk_logits must descend"),
        (replaced(2, topk_logprobs=[-0.1, -0.1, -0.1]), "sentence 0, position 2: .* sum of at most 1, got a sum of 2.71"),
        (replaced(2, topk_logprobs=[-1.0, -2.0, -np.inf]), "position 2: topk_logits must be finite in float16"),
        (replaced(2, topk_logprobs=[-1.0, -2.0, np.nan]), "sentence 0, position 2: topk_logits must be finite in float16"),
        (replaced(2, topk_logprobs=[-1.0, -2.0, -1e9]), "topk_logits must be finite in float16"),
        (replaced(1, position=2), "sentence 0, position 2: rows must be sorted by sentence and position, each once"),
        (replaced(2, position=3), "sentence 0, position 3: a sentence needs a row .* got 3 rows, 3 tokens"),
        (replaced(2, sentence=1, position=0), "sentence 0, position 0: a sentence needs a row .* got 2 rows, 3 tokens"),
        (replaced(6, sentence=5), "sentence 5, position 3: the data have sentences 0 to 4"),
        (replaced(6, sentence=None), "column sentence must hold integers without nulls"),
        (rows_of(position=[0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0]), "column position must hold integers"),
        (rows_of(topk_tokens=["a"] * 7), "column topk_tokens must hold lists, got string"),
        (rows_of(topk_logprobs=[[0, 1, 2]] * 7), "column topk_logprobs must hold floating-point numbers"),
        (rows_of(topk_tokens=None), "the table has no column topk_tokens; it has position, sentence, topk_logprobs"),
        (rows_of(topk_logprobs=None), "the table has no column topk_logits"),
        (rows_of(topk_logits=[[0.0, -1.0, -2.0]] * 7), "has both topk_logits and topk_logprobs"),
        (rows_of(log_normaliser_at_2=[1.0] * 7), "topk_logprobs are of temperature 1; leave out the column log_norm"),
        (rows_of(topk_logprobs=None, topk_logits=[[0.0, -1.0, -2.0]] * 7, log_normaliser_at_x=[1.0] * 7), "got `x`"),
        (rows_of(topk_logprobs=None, topk_logits=[[0.0, -1.0, -2.0]] * 7, log_normaliser_at_0=[1.0] * 7), "must be positive"),
        (rows_of(gold_logit=[-1.0] * 7), "no column gold_token"),
        (rows_of(target_hash=pa.array([7] * 7, pa.uint64())), "sentence 0, position 0: the target of the data has other tok"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_mistakes_are_found_before_anything_is_written(tmp_path, data, columns, message):
    table = write_table(tmp_path / "t.arrow", pa.table(columns))
    before = sorted(path.name for path in data.iterdir())
    with pytest.raises(ValueError, match=message) as caught:
        run(table, data)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in data.iterdir()) == before


def test_mistake_in_the_last_row_keeps_the_old_store(tmp_path, data):
    run(write_table(tmp_path / "good.arrow", pa.table(rows_of())), data)
    before = (data / NAME).read_bytes()
    bad = write_table(tmp_path / "bad.arrow", pa.table(replaced(6, topk_tokens=["a", "b", "zebra"])))
    with pytest.raises(ValueError, match="zebra"):
        run(bad, data, "--overwrite")
    assert (data / NAME).read_bytes() == before
    assert not (data / (NAME + ".partial")).exists()


def test_existing_store_is_kept_unless_asked(tmp_path, data):
    table = write_table(tmp_path / "t.arrow", pa.table(rows_of()))
    before = run(table, data).path.read_bytes()
    with pytest.raises(FileExistsError, match="exists; pass --overwrite to replace it, or --name"):
        run(table, data)
    other = write_table(tmp_path / "other.arrow", pa.table(rows_of(sentences=(0,))))
    assert run(other, data, "--overwrite").missing_sentences == 4
    assert run(table, data, "--overwrite").path.read_bytes() == before
    run(table, data, "--name", "second")
    assert (data / "train.de-en.en.second.topk").exists()


def test_unfinished_work_of_another_table_does_not_shine_through(tmp_path, data, monkeypatch):
    table = write_table(tmp_path / "t.arrow", pa.table(rows_of()))

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TopKWriter, "finish", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(table, data)
    found = run(write_table(tmp_path / "other.arrow", pa.table(rows_of(sentences=(2,)))), data)
    assert [found.status(i) for i in range(5)] == [NOT_IMPORTED, NOT_IMPORTED, 0, NOT_IMPORTED, NOT_IMPORTED]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("t.csv", ValueError, r"must end in .parquet, .arrow, .feather, got 't.csv'"),
        ("none.arrow", FileNotFoundError, "table .*none.arrow does not exist"),
        ("text.arrow", ValueError, "is not a table of the form that its name says"),
        ("text.parquet", ValueError, "is not a table of the form that its name says"),
    ],
)
def test_files_that_are_not_tables(tmp_path, data, name, error, message):
    if name.startswith("text"):
        (tmp_path / name).write_text("sentence,position\n")
    with pytest.raises(error, match=message):
        run(tmp_path / name, data)


def test_exported_table_of_another_dictionary_is_read_by_pieces(tmp_path):
    original = TopKReader(write_store(tmp_path / "original.topk", make_info()))
    table = tmp_path / "table.arrow"
    dispatch.run(TOOLS, PROG, ["export", str(original.path), str(table)])
    symbols = [*SYMBOLS[:4], *SYMBOLS[:3:-1]]  # f, e, d, c, b, a
    data = write_data(tmp_path / "data-bin", symbols=symbols)
    found = run(table, data)
    order = {piece: i for i, piece in enumerate(symbols)}
    expected = [[order[SYMBOLS[i]] for i in row] for row in original.rows(0)["topk_ids"].tolist()]
    assert found.rows(0)["topk_ids"].tolist() == expected


def test_metadata_that_cannot_be_read(tmp_path, data):
    for raw in (b"{oops", b"[]", json.dumps({"info": 7}).encode()):
        table = pa.table(rows_of()).replace_schema_metadata({store_export.METADATA_KEY: raw})
        with pytest.raises(ValueError, match="the table's metadata `fairseq_bert_kd` cannot be read"):
            run(write_table(tmp_path / "t.arrow", table), data)


def test_statuses_by_name(tmp_path, data):
    """Rows with position -1 say why a sentence is missing."""
    values = rows_of(sentences=(0,))
    for sentence, status in ((1, "too_long"), (3, "not_finite"), (4, "of another program")):
        values["sentence"].append(sentence)
        values["position"].append(-1)
        values["topk_tokens"] = [*values["topk_tokens"], None]
        values["topk_logprobs"] = [*values["topk_logprobs"], None]
        values.setdefault("status", ["scored"] * 3).append(status)
    found = run(write_table(tmp_path / "t.arrow", pa.table(values)), data)
    assert [TopKInfo.status_names[found.status(i)] for i in range(5)] == [
        "scored", "too_long", "not_imported", "not_finite", "not_imported",
    ]  # fmt: skip
