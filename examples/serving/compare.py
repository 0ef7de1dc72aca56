"""One student in fairseq and in CTranslate2, and its teacher: speed, size, BLEU, equal translations.

The ways of translating take turns; their speeds are of decoding alone, without start, tokenizer or files.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import ctranslate2
from sacrebleu.metrics import BLEU

from fairseq_bert_kd.compat import load_checkpoint
from fairseq_bert_kd.evaluation.comparability import remarks
from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses, read_lines
from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.storage.fairseq_data import read_dictionary
from fairseq_bert_kd.tokenization.dictionary import check_pieces
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

# fairseq-generate with its own stopwatch, or one that counts processor time
FAIRSEQ = "import time; {patch}from fairseq_cli.generate import cli_main; cli_main()"
PROCESSOR_TIME = "time.perf_counter = time.process_time; "


@dataclass
class Way:
    """A way of translating.

    Attributes:
        size: bytes on disk of what it loads.
        pieces: of the best hypothesis of every sentence.
        seconds: of each turn.
    """

    size: int
    pieces: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="data-bin with the dictionaries and the test set")
    needed = {
        "student": "written by `fairseq-bert-kd export-student`",
        "float32": "folder of ct2-fairseq-converter",
        "int8": "the same with --quantization int8",
        "source": "raw source text of the test set",
        "reference": "raw target text of the test set",
        "tokenizer": "the teacher's: folder or hub name",
    }
    for name, description in needed.items():
        parser.add_argument(f"--{name}", required=True, help=description)
    parser.add_argument("--teacher", help="its checkpoint, to score the test set with")
    parser.add_argument("--lowercase", action="store_true", help="BLEU without case, for uncased teachers")
    parser.add_argument("--lenpen", type=float, default=0.6)
    for name, default in {"beam": 5, "max-len-b": 200, "batch-size": 32, "threads": 1, "turns": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the processor's seconds, not the clock's: for a busy machine, with --threads 1",
    )
    return parser


def translate_with_fairseq(args: argparse.Namespace, way: Way, expected: int) -> None:
    """A run of stock ``fairseq-generate``; it times its own decoding."""
    command = [
        *(sys.executable, "-c", FAIRSEQ.format(patch=PROCESSOR_TIME if args.processor_time else "")),
        *(args.data, "--path", args.student, "--gen-subset", "test", "--cpu"),
        *("--beam", args.beam, "--lenpen", args.lenpen, "--max-len-b", args.max_len_b),
        *("--batch-size", args.batch_size, "--required-batch-size-multiple", 1, "--num-workers", 0),
    ]
    # the file is our own export; stock fairseq cannot read it with torch's safe loading
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as out:
        words = list(map(str, command))
        done = subprocess.run(
            words, env=environment, stdout=out, stderr=subprocess.PIPE, text=True, check=False
        )
        timed = re.search(
            r"Translated [\d,]+ sentences \([\d,]+ tokens\) in ([\d.]+)s",
            Path(out.name).read_text() + done.stderr,
        )
        if done.returncode or not timed:
            sys.exit(f"fairseq-generate failed:\n{done.stderr[-2000:]}")
        way.pieces = read_hypotheses(out.name, expected, pieces=True)
    way.seconds.append(float(timed[1]))


def translate_with_ctranslate2(
    args: argparse.Namespace, way: Way, translator: ctranslate2.Translator, sources: list[list[str]]
) -> None:
    clock = time.process_time if args.processor_time else time.monotonic
    search = {"beam_size": args.beam, "length_penalty": args.lenpen, "max_decoding_length": args.max_len_b}
    started = clock()
    results = translator.translate_batch(sources, max_batch_size=args.batch_size, **search)
    way.seconds.append(clock() - started)
    way.pieces = [" ".join(result.hypotheses[0]) for result in results]


def score_with_teacher(args: argparse.Namespace) -> tuple[int, float]:
    """Parameters of the teacher, and seconds of its seven passes over the test set (``dump``, with its start)."""
    weights = load_checkpoint(args.teacher)["model"].values()
    parameters = sum({tensor.data_ptr(): tensor.numel() for tensor in weights}.values())
    with tempfile.TemporaryDirectory() as folder:
        for path in Path(args.data).iterdir():
            if path.name.startswith(("dict.", "test.")) and path.suffix != ".topk":
                shutil.copy(path, folder)
        command = ["fairseq-bert-kd", "dump", folder, "--path", args.teacher, "--subset", "test", "--cpu"]
        environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
        started = time.monotonic(), sum(os.times()[2:4])
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        wall, processor = time.monotonic() - started[0], sum(os.times()[2:4]) - started[1]
        return parameters, processor if args.processor_time else wall


def measure(args: argparse.Namespace, tokenizer: HfTokenizer) -> dict[str, Way]:
    """All ways, `args.turns` times in turn; the first to run warms nothing of the others."""
    sources = tokenizer.encode_batch(read_lines(args.source))
    ways = {"fairseq, float32": Way(os.path.getsize(args.student))}
    translators = {}
    for kind, folder in {"float32": args.float32, "int8": args.int8}.items():
        name = f"CTranslate2, {kind}"
        ways[name] = Way(sum(path.stat().st_size for path in Path(folder).iterdir()))
        translators[name] = ctranslate2.Translator(folder, compute_type=kind, intra_threads=args.threads)
    for _ in range(args.turns):
        translate_with_fairseq(args, ways["fairseq, float32"], len(sources))
        for name, translator in translators.items():
            translate_with_ctranslate2(args, ways[name], translator, sources)
    return ways


def table(ways: dict[str, Way], references: list[str], tokenizer: HfTokenizer, lowercase: bool) -> list[str]:
    """Markdown; speeds as the median of the turns, ratios turn by turn."""
    first = ways["fairseq, float32"]
    bleu = BLEU(lowercase=lowercase)
    rows = [
        "| | sentences/s | against fairseq | on disk | BLEU | same as fairseq |",
        "|---|---|---|---|---|---|",
    ]
    for name, way in ways.items():
        ratios = [base / own for base, own in zip(first.seconds, way.seconds, strict=True)]
        texts = [tokenizer.decode(line) for line in way.pieces]
        for remark in remarks(texts, references, MetricSettings(lowercase)):
            print(f"{name}: {remark}", file=sys.stderr)
        score = bleu.corpus_score(texts, [references]).score
        same = sum(map(str.__eq__, way.pieces, first.pieces))
        rows.append(
            f"| {name} | {len(references) / statistics.median(way.seconds):.1f} | {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {way.size / 1e6:.1f} MB | {score:.2f} | "
            f"{same:,} of {len(references):,} |"
        )
    return [*rows, "", f"BLEU: {bleu.get_signature()}"]


def main() -> None:
    args = get_parser().parse_args()
    if args.processor_time and args.threads != 1:
        sys.exit(f"--processor-time adds up threads and needs --threads 1, got {args.threads}")
    references = read_lines(args.reference)
    if len(references) != len(read_lines(args.source)):
        sys.exit(f"`{args.source}` and `{args.reference}` must have the same number of lines")
    tokenizer = HfTokenizer(args.tokenizer)
    for path in sorted(Path(args.data).glob("dict.*.txt")):
        check_pieces(tokenizer, read_dictionary(path), f"`{path}`")
    print("\n".join(table(measure(args, tokenizer), references, tokenizer, args.lowercase)))
    if args.teacher:
        parameters, seconds = score_with_teacher(args)
        print(
            f"teacher: {parameters:,} parameters, {parameters * 4 / 1e6:.1f} MB in float32; its seven passes over the "
            f"test set took {seconds:.0f} s with their start ({len(references) / seconds:.1f} sentences/s)"
        )


if __name__ == "__main__":
    main()
