"""Tokens per second of the dump, and against the bare teacher on batches that lie ready.

The teacher has random weights in MiniLM-L6-H384's shape (or BERT-base's with ``python -m benchmarks.dump --teacher
bert-base``), which cost what trained ones cost. Both score the same sentences in turns; a ratio is of one round.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from fairseq.data import Dictionary

from benchmarks.synthetic import make_pairs
from benchmarks.table import Row, markdown, spread
from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.shards import WHOLE
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.teachers.dump import StoreDump
from fairseq_bert_kd.teachers.load import Teacher
from fairseq_bert_kd.teachers.token_rows import slices

SHAPES = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
    "minilm": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "bert-base": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
}
CLS, SEP, MASK = 101, 102, 103
GOAL = {"cpu": 0.90, "cuda": 0.85}


def make_teacher(shape: str, dictionary_size: int, device: torch.device, dtype: torch.dtype) -> Teacher:
    """A masked language model over a dictionary of that size."""
    importlib.import_module("fairseq_bert_kd.tasks")
    from fairseq_bert_kd.models.masked_lm_teacher import HfMaskedLM

    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=30522, **SHAPES[shape])
    dictionary = Dictionary()
    for index in range(dictionary_size - len(dictionary)):
        dictionary.add_symbol(f"w{index}")
    ids = torch.randint(1000, 30522, (dictionary_size,))
    ids[dictionary.eos()] = SEP
    text_format = TextFormat(prefix=(CLS,), middle=(SEP,), mask=MASK, pad=0)
    model = HfMaskedLM(transformers.BertForMaskedLM(config), ids, ids, text_format, {})
    task = SimpleNamespace(target_dictionary=dictionary, source_dictionary=dictionary)
    return Teacher(model.eval().to(device=device, dtype=dtype), task, "")


def bare_forward(dump: StoreDump, batches: list[Any]) -> float:
    """Seconds of the encoder and the head alone, on batches that lie ready."""
    model, size, started = dump.model, dump.info.dictionary_size, time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            inputs = batch.inputs.to(dump.device)
            features = model.extract_features(inputs.input_positions, **inputs.inputs)
            for part in slices(len(features), size):
                model.project(features[part])
    if dump.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def our_dump(dump: StoreDump) -> float:
    """Seconds of the whole dump, from the corpus to the published store."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        dump.run(Path(folder) / "store", WHOLE, overwrite=False)
        return time.perf_counter() - started


def measure(
    shape: str, dictionary_size: int, sentences: int, rounds: int, precision: str, text: str
) -> list[Row]:
    """Rows for one teacher, dictionary and kind of text."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    teacher = make_teacher(shape, dictionary_size, device, dtype)
    symbols = teacher.task.target_dictionary.symbols
    info = TopKInfo(
        k=8, dictionary_size=dictionary_size, dictionary_digest=dictionary_digest(symbols), split="train",
        source_lang="a", target_lang="b", passes=7, teacher=shape, teacher_digest="", mask_ratio=0.15, versions={},
        max_tokens=32768 if device.type == "cuda" else 8192,
    )  # fmt: skip
    dump = StoreDump(teacher, make_pairs(sentences, dictionary_size, text), info, device)
    tokens = dump.count(WHOLE)["tokens"]
    batches = list(dump.scorer.prepared(dump.chunks()))
    bare_forward(dump, batches[:2])  # what is paid once
    rates, ratios = [], []
    for round_number in range(rounds):
        ways = [lambda: bare_forward(dump, batches), lambda: our_dump(dump)]
        first = round_number % 2
        seconds = {number: ways[number]() for number in (first, 1 - first)}
        rates.append(tokens / seconds[1])
        ratios.append(seconds[0] / seconds[1])
    what, goal = (
        f"{shape}, {text}, dictionary {dictionary_size:,}, {precision}, {device.type}",
        GOAL[device.type],
    )
    return [
        Row("dump", f"{what}: tokens per second of the dump", spread(rates, ",.0f"), "-", None),
        Row("dump", f"{what}: dump over bare teacher, tokens/s", spread(ratios, ".2f"), f"at least {goal:.2f}",
            statistics.median(ratios) >= goal),
    ]  # fmt: skip


def run(quick: bool, shape: str = "minilm") -> list[Row]:
    """All rows; small and few when ``quick``."""
    if quick:
        return measure("tiny", 1000, 20, 1, "fp32", "captions")
    on_gpu = torch.cuda.is_available()
    sentences, rows = (20_000 if on_gpu else 250), []
    for text, dictionary_size in (("captions", 8_000), ("talks", 8_000), ("talks", 30_000)):
        rows += measure(shape, dictionary_size, sentences, 3, "fp16" if on_gpu else "fp32", text)
    return rows + measure(shape, 8_000, sentences, 3, "bf16", "talks")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", choices=("minilm", "bert-base"), default="minilm")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sys.stdout.write(markdown(run(options.quick, options.teacher)) + "\n")
