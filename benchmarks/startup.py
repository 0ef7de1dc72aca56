"""What our commands need until they work, over what fairseq and transformers need by themselves.

Every way is a process of its own, and the figure is its processor time, which other work on the machine hardly moves. A way
of ours does what the bare one does, and what is ours beside it: the plugin, the tokenizer's checks, the store and its checks.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bare_ways import LINE
from benchmarks.synthetic import make_dictionary, make_info, make_pairs, write_corpus, write_store
from benchmarks.table import Length, Row, at_most, spread
from benchmarks.timing import ratios
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.storage.topk_store import store_path

ROOT = Path(__file__).parents[1]
GOAL = 1.15  # of the bare way
DICTIONARY = 8_000
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "man", "is", "in", "the", "park"]

BARE = [sys.executable, "-m", "benchmarks.bare_ways"]
PARK = f"{LINE}\n"


def run(length: Length) -> list[Row]:
    """A row for importing, for tokenising one line, and for training until the first update."""
    quick = length is Length.QUICK
    rounds = 1 if quick else 7
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = 200 if quick else 56_000
        prepare(folder, pairs)
        rows = compare(
            "import of fairseq-train; with --user-dir of ours",
            [*BARE, "import", "fairseq_cli.train"],
            [*BARE, "import", "fairseq_cli.train", "fairseq_bert_kd.tasks"],
            rounds,
        )
        rows += compare(
            "transformers' tokenizer on one line; `tokenize` of one line",
            [*BARE, "encode", str(folder)],
            tokenize(folder),
            rounds,
        )
        rows += compare(
            f"fairseq-train until its first update, {pairs:,} pairs, plain; distilled with a store",
            train(folder, "translation", "label_smoothed_cross_entropy"),
            train(folder, "translation_with_teacher", "label_smoothed_cross_entropy_with_distillation"),
            rounds,
        )
    return rows


def compare(what: str, bare: Sequence[str], ours: Sequence[str], rounds: int) -> list[Row]:
    """Processor seconds of both, in turns, and their ratio."""
    times = [(processor_seconds(bare), processor_seconds(ours)) for _ in range(rounds)]
    bare_times, our_times = map(list, zip(*times, strict=True))
    figures = f"{spread(bare_times, '.2f')}; {spread(our_times, '.2f')}"
    return [
        Row("startup", f"{what}: processor seconds", figures),
        at_most("startup", f"{what}: ours over bare", ratios(our_times, bare_times), GOAL),
    ]


def processor_seconds(command: Sequence[str]) -> float:
    """Processor time of a command and of the processes that it started.

    Raises:
        RuntimeError: the command failed.
    """
    before = os.times()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(command, input=PARK, text=True, capture_output=True, check=False, env=environment)
    after = os.times()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)}: {child.stderr.strip().splitlines()[-1]}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def prepare(folder: Path, sentences: int) -> None:
    """A WordPiece tokenizer, a corpus in fairseq's format, and a store that belongs to it."""
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    dictionary, pairs = make_dictionary(DICTIONARY), make_pairs(sentences, DICTIONARY)
    for language in "ab":
        dictionary.save(str(folder / f"dict.{language}.txt"))
    for split in ("train", "valid"):
        write_corpus((folder / f"{split}.a-b.a", folder / f"{split}.a-b.b"), pairs, DICTIONARY)
    info = make_info(dictionary_size=DICTIONARY, dictionary_digest=dictionary_digest(dictionary.symbols))
    write_store(store_path(folder, "train", "a", "b"), info, pairs["target"].sizes, dictionary.symbols, pairs)


def tokenize(folder: Path) -> list[str]:
    """``fairseq-bert-kd tokenize`` in one process."""
    ours = [sys.executable, "-m", "fairseq_bert_kd", "tokenize", "--tokenizer", str(folder)]
    return [*ours, "--workers", "1", "--input", "-", "--output", "-"]


def train(folder: Path, task: str, criterion: str) -> list[str]:
    """fairseq-train of a student so small that its update takes no time."""
    sizes = [f"--{side}-{size}" for side in ("encoder", "decoder") for size in ("embed-dim", "ffn-embed-dim")]
    words = [
        sys.executable, "-m", "fairseq_cli.train", folder, "--user-dir", ROOT / "fairseq_bert_kd", "--task", task,
        "--criterion", criterion, "-s", "a", "-t", "b", "--arch", "transformer", "--encoder-layers", 1, "--decoder-layers", 1,
        *(word for size in sizes for word in (size, 16)), "--encoder-attention-heads", 1, "--decoder-attention-heads", 1,
        "--optimizer", "adam", "--lr", 1e-3, "--max-tokens", 500, "--max-update", 1, "--disable-validation", "--no-save",
        "--cpu", "--distributed-world-size", 1, "--num-workers", 0,
    ]  # fmt: skip
    return [str(word) for word in words]
