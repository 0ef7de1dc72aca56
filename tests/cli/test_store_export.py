"""A store as a table: every number of every row, and where the table is not written."""

import importlib
import json
import sys

import numpy as np
import pytest

from fairseq_bert_kd.cli import dispatch, store_export
from fairseq_bert_kd.cli.store_tools import PROG, TOOLS
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.schema import SCORED, ChunkData, empty_records
from fairseq_bert_kd.storage.shards import Shard, shard_path
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter

pa = pytest.importorskip("pyarrow")

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(16)), "straße\udc80"]
LENGTHS = np.array([2, 1, 3, 0, 4, 2, 1], dtype=np.int32)
STATUS = [0, 1, 0, 0, 0, 2, 0]  # sentence 3 is scored and empty
INFO = TopKInfo(
    k=3,
    dictionary_size=len(SYMBOLS),
    dictionary_digest=dictionary_digest(SYMBOLS),
    split="train",
    source_lang="de",
    target_lang="en",
    passes=7,
    teacher="t",
    teacher_digest="",
    mask_ratio=0.15,
    versions={},
    temperatures=(1.0, 2.5),
    gold=True,
    samples=2,
    chunk_sentences=2,
)
PLAIN = {"temperatures": (), "gold": False, "samples": 0}


WHOLE = Shard(0, 1)


def write_store(path, shard=WHOLE, **changes):
    """Random rows of a whole dictionary."""
    info = TopKInfo(**{**INFO.__dict__, **changes})
    with TopKWriter(path, info, LENGTHS, SYMBOLS, shard) as writer:
        for chunk in writer.chunks():
            sentences = writer.sentences(chunk)
            lengths, status = writer.lengths(chunk), np.array([STATUS[s] for s in sentences], np.uint8)
            rng = np.random.default_rng(chunk)
            logits = rng.normal(size=(lengths.sum(), len(SYMBOLS))).astype(np.float16).astype(np.float32)
            order = np.argsort(-logits, axis=1)
            logits = np.take_along_axis(logits, order, 1)
            logits -= logits[:, :1]
            records = empty_records(len(logits), info)
            records["topk_ids"], records["topk_logits"] = order[:, :3], logits[:, :3]
            for column, temperature in enumerate(info.temperatures):
                records["log_normalisers"][:, column] = np.log(np.exp(logits / temperature).sum(1))
            if info.gold:
                records["gold_id"], records["gold_logit"] = order[:, 5], logits[:, 5]
            if info.samples:
                records["sample_ids"], records["sample_logits"] = order[:, 6:8], logits[:, 6:8]
            hashes = np.arange(len(status), dtype=np.uint64)
            data = ChunkData({"source": hashes, "target": hashes + np.uint64(9)}, lengths, status, records)
            records[~data.scored] = 0
            writer.write_chunk(chunk, data)
        writer.finish()
    return shard_path(path, shard)


def export(store, out, *options):
    dispatch.run(TOOLS, PROG, ["export", str(store), str(out), *options])


def read(path):
    if path.suffix == ".parquet":
        return importlib.import_module("pyarrow.parquet").read_table(path)
    return pa.ipc.open_file(str(path)).read_all()


def expected(store):
    """Rows as dicts, made the slow, obvious way."""
    reader = TopKReader(store)
    rows = []
    names = [s.encode("utf-8", "replace").decode() for s in SYMBOLS]
    for sentence in range(len(reader)):
        status = TopKInfo.status_names[reader.status(sentence)]
        hashes = {f"{side}_hash": value for side, value in reader.hashes(sentence).items()}
        if reader.status(sentence) != SCORED:
            rows.append({"sentence": sentence, "position": -1, "status": status, **hashes})
            continue
        for position, record in enumerate(reader.rows(sentence)):
            row = {"sentence": sentence, "position": position, "status": status, **hashes}
            for column, temperature in enumerate(reader.info.temperatures):
                row[f"log_normaliser_at_{temperature:g}"] = float(record["log_normalisers"][column])
            for name in ("topk_ids", "topk_logits", "gold_id", "gold_logit", "sample_ids", "sample_logits"):
                if name in record.dtype.names:
                    row[name] = record[name].tolist()
            row["topk_tokens"] = [names[i] for i in row["topk_ids"]]
            if "sample_ids" in row:
                row["sample_tokens"] = [names[i] for i in row["sample_ids"]]
            if "gold_id" in row:
                row["gold_token"] = names[row["gold_id"]]
            rows.append(row)
    return rows


@pytest.mark.parametrize("suffix", store_export.SUFFIXES)
@pytest.mark.parametrize("changes", [{}, PLAIN])
def test_every_value_of_every_row(tmp_path, suffix, changes, capsys):
    store = write_store(tmp_path / "train.de-en.en.topk", **changes)
    out = tmp_path / f"table{suffix}"
    export(store, out)
    rows = [{n: v for n, v in row.items() if v is not None} for row in read(out).to_pylist()]
    assert rows == expected(store)
    assert {path.name for path in tmp_path.iterdir()} == {store.name, out.name}
    assert "of 7 sentences" in capsys.readouterr().out


def test_column_names_and_types(tmp_path):
    export(write_store(tmp_path / "s.topk"), tmp_path / "t.arrow")
    schema = read(tmp_path / "t.arrow").schema
    assert {field.name: str(field.type).split("<")[0] for field in schema} == {
        "sentence": "int64",
        "position": "int32",
        "status": "dictionary",
        "source_hash": "uint64",
        "target_hash": "uint64",
        "log_normaliser_at_1": "float",
        "log_normaliser_at_2.5": "float",
        "topk_ids": "list",
        "topk_tokens": "list",
        "topk_logits": "list",
        "gold_id": "int32",
        "gold_token": "dictionary",
        "gold_logit": "float",
        "sample_ids": "list",
        "sample_tokens": "list",
        "sample_logits": "list",
    }
    metadata = json.loads(schema.metadata[b"fairseq_bert_kd"])
    assert metadata["info"]["k"] == 3
    assert metadata["summary"]["missing_sentences"] == {"too_long": 1, "not_finite": 1, "not_imported": 0}
    export(tmp_path / "s.topk", tmp_path / "n.arrow", "--no-tokens")
    assert set(schema.names) - set(read(tmp_path / "n.arrow").schema.names) == {
        "topk_tokens",
        "gold_token",
        "sample_tokens",
    }


def test_shards_keep_corpus_indices(tmp_path):
    whole = write_store(tmp_path / "s.topk")
    rows = []
    for index in range(3):
        (tmp_path / str(index)).mkdir()
        shard = write_store(tmp_path / str(index) / "s.topk", Shard(index, 3))
        export(shard, tmp_path / f"{index}.parquet")
        rows += read(tmp_path / f"{index}.parquet").to_pylist()
    rows = [{n: v for n, v in row.items() if v is not None} for row in rows]
    assert sorted(rows, key=lambda row: (row["sentence"], row["position"])) == expected(whole)


def test_existing_table_is_kept_unless_asked(tmp_path):
    store, out = write_store(tmp_path / "s.topk"), tmp_path / "t.parquet"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="t.parquet exists; pass --overwrite"):
        export(store, out)
    assert out.read_text() == "mine"
    export(store, out, "--overwrite")
    assert read(out).num_rows == len(expected(store))


def test_bad_names(tmp_path):
    store = write_store(tmp_path / "s.parquet")
    with pytest.raises(ValueError, match=r"must end in \.parquet, \.arrow, \.feather, got 't.csv'"):
        export(store, tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match="folder .* does not exist"):
        export(store, tmp_path / "none" / "t.arrow")
    with pytest.raises(FileExistsError, match="is the store itself"):
        export(store, store, "--overwrite")
    with pytest.raises(FileNotFoundError, match="store .* does not exist"):
        export(tmp_path / "none.topk", tmp_path / "t.arrow")


def test_damaged_store_leaves_no_table(tmp_path):
    store, out = write_store(tmp_path / "s.topk"), tmp_path / "t.arrow"
    raw = bytearray(store.read_bytes())
    raw[TopKReader(store).header.layout.ends["records"] - 1] ^= 1
    store.write_bytes(raw)
    with pytest.raises(
        ValueError, match="is damaged: chunk 3 \\(sentences 6 to 6\\) does not match its digest"
    ):
        export(store, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.topk"]


def test_missing_pyarrow_names_the_install_line(tmp_path, monkeypatch):
    store = write_store(tmp_path / "s.topk")

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        export(store, tmp_path / "t.arrow")
    assert list(tmp_path.glob("t.arrow*")) == []


def test_pandas_reads_it(tmp_path):
    pd = pytest.importorskip("pandas")
    store = write_store(tmp_path / "s.topk")
    export(store, tmp_path / "t.parquet")
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert frame["sentence"].tolist() == [row["sentence"] for row in expected(store)]
