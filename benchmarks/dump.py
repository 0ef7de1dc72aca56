"""Tokens per second of the dump, and against the bare teacher on batches that lie ready.

The teacher has random weights in MiniLM-L6-H384's shape, which cost what trained ones cost. Both score the same sentences.
"""

import importlib
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from benchmarks.synthetic import make_dictionary, make_info, make_pairs
from benchmarks.table import Length, Row, at_least, spread
from benchmarks.timing import in_turns, ratios
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.shards import WHOLE
from fairseq_bert_kd.teachers.load import Teacher
from fairseq_bert_kd.teachers.token_rows import slices
from fairseq_bert_kd.teachers.topk_dump import TopKDump

SHAPES = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
}  # fmt: skip
CLS, SEP, MASK = 101, 102, 103
TEXT_FORMAT = TextFormat(prefix=(CLS,), middle=(SEP,), mask=MASK, pad=0)
GOAL = {"cpu": 0.90, "cuda": 0.85}


def make_teacher(shape: str, dictionary_size: int, device: torch.device, dtype: torch.dtype) -> Teacher:
    """A masked language model over a dictionary of that size."""
    importlib.import_module("fairseq_bert_kd.tasks")
    from fairseq_bert_kd.models.masked_lm_teacher import HfMaskedLM

    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=30522, **SHAPES[shape])
    dictionary = make_dictionary(dictionary_size)
    ids = torch.randint(1000, 30522, (dictionary_size,))
    ids[dictionary.eos()] = SEP
    model = HfMaskedLM(transformers.BertForMaskedLM(config), {"source": ids, "target": ids}, TEXT_FORMAT, {})
    task = SimpleNamespace(target_dictionary=dictionary, source_dictionary=dictionary)
    return Teacher(model.eval().to(device=device, dtype=dtype), task, "")


@torch.inference_mode()
def bare_forward(dump: TopKDump, batches: list[Any]) -> None:
    """The encoder and the head alone, on batches that lie ready."""
    for batch in batches:
        inputs = batch.inputs.to(dump.device)
        features = dump.model.extract_features(inputs.input_positions, **inputs.inputs)
        for part in slices(len(features), dump.info.dictionary_size):
            dump.model.project(features[part])


def whole_dump(dump: TopKDump) -> None:
    """The whole dump, from the corpus to the published store."""
    with tempfile.TemporaryDirectory() as folder:
        dump.run(Path(folder) / "store", WHOLE, overwrite=False)


def measure(shape: str, dictionary_size: int, sentences: int, rounds: int, precision: str) -> list[Row]:
    """Rows for one teacher and dictionary."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    teacher = make_teacher(shape, dictionary_size, device, dtype)
    info = make_info(
        dictionary_size=dictionary_size,
        dictionary_digest=dictionary_digest(teacher.task.target_dictionary.symbols),
        max_tokens=32768 if device.type == "cuda" else 8192,
    )
    dump = TopKDump(teacher, make_pairs(sentences, dictionary_size), info, device)
    tokens = dump.count(WHOLE)["tokens"]
    batches = list(dump.scorer.prepared(dump.chunks()))
    ways = {"bare": lambda: bare_forward(dump, batches), "dump": lambda: whole_dump(dump)}
    times = in_turns(ways, rounds)
    what = f"{shape}, dictionary {dictionary_size:,}, {precision}, {device.type}"
    rates, shares = [tokens / one for one in times["dump"]], ratios(times["bare"], times["dump"])
    return [
        Row("dump", f"{what}: tokens per second of the dump", spread(rates, ",.0f")),
        at_least("dump", f"{what}: dump over bare teacher, tokens/s", shares, GOAL[device.type]),
    ]


def run(length: Length) -> list[Row]:
    """All rows, or those of a length."""
    if length is Length.QUICK:
        return measure("tiny", 1000, 20, 1, "fp32")
    on_gpu = torch.cuda.is_available()
    sentences, precision = (20_000, "fp16") if on_gpu else (250, "fp32")
    settings = ((8_000, precision), (30_000, precision), (8_000, "bf16"))
    rounds = 2 if length is Length.SHORT else 3
    return [row for size, kind in settings for row in measure("minilm", size, sentences, rounds, kind)]
