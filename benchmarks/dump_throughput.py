"""Tokens per second of the dump against the bare teacher, and against the authors' two steps.

The teacher has random weights in MiniLM-L6-H384's shape (or BERT-base's with ``--teacher bert-base``), which cost
what trained ones cost. All three score the same sentences; runs alternate, and ratios are of one round's times.
"""

import argparse
import importlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from fairseq.data import Dictionary

from benchmarks import authors_dump
from benchmarks.table import Row
from fairseq_bert_kd.functional.pair_input import PairFormat
from fairseq_bert_kd.storage.fairseq_data import Sides, dictionary_digest
from fairseq_bert_kd.storage.shards import WHOLE
from fairseq_bert_kd.storage.topk import TopKInfo
from fairseq_bert_kd.teachers.dump import StoreDump
from fairseq_bert_kd.teachers.load import Teacher

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
GOAL_BARE = {"cpu": 0.90, "cuda": 0.85}
GOAL_AUTHORS = 1.5


class Side:
    """Sentences in memory with the interface of `IndexedTokens`."""

    def __init__(self, sentences: list[np.ndarray]):
        self.sentences = sentences
        self.sizes = np.array([len(tokens) for tokens in sentences], np.int32)

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.sentences[index]


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
    pair_format = PairFormat(prefix=(CLS,), middle=(SEP,), mask=MASK, pad=0)
    model = HfMaskedLM(transformers.BertForMaskedLM(config), ids, ids, pair_format, {})
    task = SimpleNamespace(target_dictionary=dictionary, source_dictionary=dictionary)
    return Teacher(model.eval().to(device=device, dtype=dtype), task, "")


def make_pairs(sentences: int, dictionary_size: int, text: str = "captions") -> Sides:
    """Random tokens with the lengths of image captions (Multi30k's pieces) or of talks (TED's words)."""
    rng = np.random.default_rng(0)
    if text == "captions":
        source, target = rng.normal(18, 5, sentences), rng.normal(15, 5, sentences)
    else:  # mean 20, standard deviation 13.5, as measured on the training set
        source = rng.lognormal(2.81, 0.61, sentences)
        target = source * rng.lognormal(0.0, 0.2, sentences)

    def side(lengths: np.ndarray) -> Side:
        lengths = np.clip(lengths.round(), 3, 150).astype(int)
        return Side([np.append(rng.integers(4, dictionary_size, n - 1), 2) for n in lengths])

    return Sides(source=side(source), target=side(target))


def bare_forward(dump: StoreDump, batches: list[Any]) -> float:
    """Seconds of the encoder and the head alone, on batches that lie ready."""
    scorer, started = dump.scorer, time.perf_counter()
    with torch.inference_mode():
        for prepared in batches:
            features = scorer.features(prepared)
            for part in scorer.slices(len(features)):
                dump.scorer.model.head(features[part])
    if dump.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def our_dump(dump: StoreDump) -> float:
    """Seconds of the whole dump, from the corpus to the published store."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        dump.run(Path(folder) / "store", WHOLE, overwrite=False)
        return time.perf_counter() - started


def authors_two_steps(dump: StoreDump) -> float:
    """Seconds of their two steps on the same sentences with the same teacher."""
    model, device = dump.scorer.model, dump.device
    source_ids, target_ids = model.source_ids.cpu().numpy(), model.target_ids.cpu().numpy()
    pairs = [
        (source_ids[source[:-1]].tolist(), target_ids[target[:-1]].tolist())
        for source, target in zip(dump.pairs["source"], dump.pairs["target"], strict=True)
    ]

    def hidden_states(batch: authors_dump.Batch) -> torch.Tensor:
        hidden = model.encoder(
            input_ids=batch.input_ids.to(device),
            token_type_ids=batch.token_types.to(device),
            attention_mask=batch.attention.to(device),
        )[0]
        head = model.head
        return head.layer_norm(head.activation(head.dense(hidden)))

    def head(hidden: torch.Tensor) -> torch.Tensor:
        return model.head.projection(hidden.to(model.head.projection.weight.dtype))

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        authors_dump.dump_hiddens(folder, pairs, authors_dump.SpecialIds(CLS, SEP, MASK), hidden_states)
        authors_dump.dump_topk(folder, head, device)
        return time.perf_counter() - started


def measure(
    shape: str,
    dictionary_size: int,
    sentences: int,
    rounds: int,
    precision: str,
    text: str = "captions",
    authors: bool = True,
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
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: bare_forward(dump, batches),
        "ours": lambda: our_dump(dump),
    }
    if authors:
        ways["authors"] = lambda: authors_two_steps(dump)
    bare_forward(dump, batches[:2])  # what is paid once
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(rounds):
        order = itertools.islice(itertools.cycle(ways), round_number, round_number + len(ways))
        for name in order:
            seconds[name].append(ways[name]())
    what = f"{shape}, {text}, dictionary {dictionary_size:,}, {precision}, {device.type}"

    def ratio(slow: str, fast: str) -> tuple[float, str]:
        ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
        middle = statistics.median(ratios)
        return middle, f"{middle:.2f} (median of {rounds}, {min(ratios):.2f} to {max(ratios):.2f})"

    rate = tokens / statistics.median(seconds["ours"])
    LAST_RATES[what] = rate
    bare, shown = ratio("bare", "ours")
    goal = GOAL_BARE[device.type]
    rows = [
        Row("dump", f"{what}: tokens per second of the dump", f"{rate:,.0f}", "-", None),
        Row("dump", f"{what}: dump over bare teacher, tokens/s", shown, f"at least {goal:.2f}", bare >= goal),
    ]
    if authors:
        theirs, shown = ratio("authors", "ours")
        rows.append(
            Row(
                "dump",
                f"{what}: dump over the authors' two steps, tokens/s",
                shown,
                f"at least {GOAL_AUTHORS}",
                theirs >= GOAL_AUTHORS,
            )
        )
    return rows


LAST_RATES: dict[str, float] = {}  # tokens per second of the dumps of the last run, by what they were of


def run(quick: bool, shape: str = "minilm") -> list[Row]:
    """All rows; small and few when ``quick``."""
    on_gpu = torch.cuda.is_available()
    sentences, rounds = (20, 1) if quick else (20_000 if on_gpu else 250, 3)
    rows, precision = [], "fp16" if on_gpu else "fp32"
    for text, dictionary_size in (("captions", 8_000), ("talks", 8_000), ("talks", 30_000)):
        rows += measure(shape, dictionary_size, sentences, rounds, precision, text)
    rows += measure(shape, 8_000, sentences, rounds, "bf16", "talks", authors=False)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", choices=("minilm", "bert-base"), default="minilm")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for row in run(options.quick, options.teacher):
        sys.stdout.write(f"{row.what}: {row.measured} (goal {row.goal})\n")
