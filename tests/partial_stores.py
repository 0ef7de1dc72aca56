"""Stores that lack some sentences."""

from pathlib import Path

from fairseq_bert_kd.storage.records import ChunkData
from fairseq_bert_kd.storage.store_info import TOO_LONG
from fairseq_bert_kd.storage.topk_store import TopKReader
from fairseq_bert_kd.storage.topk_writer import TopKWriter


def drop_rows(path: Path, sentences: slice) -> float:
    """Mark sentences of a one-chunk store as too long for its teacher; share of rows left, in percent."""
    reader = TopKReader(path)
    whole = reader.chunk(0)
    assert len(whole.status) == len(reader)
    status, records = whole.status.copy(), whole.records.copy()
    status[sentences] = TOO_LONG
    lengths = whole.lengths.copy()
    parts = (whole.source_hashes.copy(), whole.target_hashes.copy(), lengths)
    data = ChunkData(*parts, status, records)
    records[~data.scored] = 0
    with TopKWriter(path, reader.info, lengths, reader.symbols(), overwrite=True) as writer:
        writer.write_chunk(0, data)
        writer.finish()
    return 100.0 * data.scored.sum() / lengths.sum()
