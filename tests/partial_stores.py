"""Stores that lack some sentences."""

from pathlib import Path

from fairseq_bert_kd.storage.schema import TOO_LONG, ChunkData
from fairseq_bert_kd.storage.topk_store import TopKReader, TopKWriter


def drop_rows(path: Path, sentences: slice) -> float:
    """Mark sentences of a one-chunk store as too long for its teacher; share of rows left, in percent."""
    reader = TopKReader(path)
    whole = reader.chunk(0)
    assert len(whole.status) == len(reader)
    status, records = whole.status.copy(), whole.records.copy()
    status[sentences] = TOO_LONG
    lengths = whole.lengths.copy()
    hashes = {side: values.copy() for side, values in whole.hashes.items()}
    data = ChunkData(hashes, lengths, status, records)
    records[~data.scored] = 0
    with TopKWriter(path, reader.info, lengths, reader.symbols(), overwrite=True) as writer:
        writer.write_chunk(0, data)
        writer.finish()
    return 100.0 * data.scored.sum() / lengths.sum()
