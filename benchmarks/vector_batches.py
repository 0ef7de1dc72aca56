"""Sentences with stored vectors, and a training step of the model that learns them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fairseq import utils

from benchmarks.synthetic import Side
from benchmarks.timing import seconds
from fairseq_bert_kd.criterions.sentence_representation import SentenceRepresentationCriterion
from fairseq_bert_kd.data.sentence_dataset import SentenceDataset
from fairseq_bert_kd.data.sentence_vector_dataset import SentenceVectorDataset
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.models.sentence_lstm import SentenceLstm, SentenceLstmConfig
from fairseq_bert_kd.modules.sentence_lstm_spec import LstmSpec
from fairseq_bert_kd.storage.schema import ChunkData, empty_records
from fairseq_bert_kd.storage.vector_store import VectorInfo, VectorReader
from fairseq_bert_kd.storage.writer import StoreWriter

WIDTH, VOCABULARY, BATCH = 384, 30_522, 64  # MiniLM's; sentences of a batch
TOKENS = 16  # of a sentence on average, as in a mix of questions, captions and abstracts


def make_sentences(count: int) -> Side:
    """Sentences of random tokens."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(TOKENS) - 0.18, 0.6, count).round(), 3, 64).astype(int)
    return Side([np.append(rng.integers(4, VOCABULARY, length - 1), 2) for length in lengths])


def write_vectors(path: Path, sentences: int, dtype: str) -> VectorReader:
    """A store of random vectors."""
    info = VectorInfo(split="train", teacher="synthetic", versions={}, width=WIDTH, dtype=dtype)
    rng = np.random.default_rng(0)
    with StoreWriter(path, info, np.ones(sentences, np.int64), {}) as writer:
        for chunk in writer.chunks():
            rows = len(writer.sentences(chunk))
            records = empty_records(rows, info)
            records["vector"] = rng.normal(size=(rows, WIDTH))
            hashes = {"input0": np.zeros(rows, "<u8")}
            writer.write_chunk(
                chunk, ChunkData(hashes, np.ones(rows, np.int64), np.zeros(rows, np.uint8), records)
            )
        writer.finish()
    return VectorReader(path)


def datasets(folder: Path, sentences: int, names: dict[str, str | None]) -> dict[str, Any]:
    """Datasets of the same sentences, by name: with vectors of a type, or without."""
    plain = SentenceDataset([make_sentences(sentences)], None, pad=1)
    return {
        name: plain
        if dtype is None
        else SentenceVectorDataset(plain, write_vectors(folder / dtype, sentences, dtype))
        for name, dtype in names.items()
    }


def step_seconds(dataset: SentenceVectorDataset, batches: list[Any], hidden: int, device: str) -> list[float]:
    """Time of forward, loss and backward of the default student with a frozen embedding, for each batch."""
    cfg = SentenceLstmConfig(
        hidden_size=hidden, vector_dim=WIDTH, lstm_layers=1, pooling="max", freeze_embedding=True
    )
    text_format = TextFormat(prefix=(101,), middle=(102,), mask=103, pad=0)
    spec = LstmSpec(VOCABULARY, {}, text_format, {"tokenizer": ""})
    torch.manual_seed(0)
    model = SentenceLstm(torch.randn(VOCABULARY, WIDTH) / 20, torch.arange(VOCABULARY), spec, cfg).to(device)
    criterion = SentenceRepresentationCriterion(SimpleNamespace(similarity="cosine"), "auto", 0.0)
    ready = [dataset.collater([dataset[row] for row in batch]) for batch in batches]
    if device == "cuda":
        ready = [utils.move_to_cuda(sample) for sample in ready]

    def step(sample: Any) -> None:
        model.zero_grad(set_to_none=True)
        loss, _, _ = criterion(model, sample)
        loss.backward()

    step(ready[0])  # pays one-time costs
    return [seconds(lambda sample=sample: step(sample)) for sample in ready]
