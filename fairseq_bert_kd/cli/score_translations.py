"""``fairseq-bert-kd score``: sacreBLEU of fairseq-generate's output on detokenised text."""

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF

from fairseq_bert_kd.report.hypotheses import read_hypotheses, read_lines

HELP = "sacreBLEU and chrF of fairseq-generate's output on detokenised text, with signatures"
EXAMPLE = (
    "example: fairseq-bert-kd score --reference test.en --lowercase plain=plain.1.out,plain.2.out "
    "distilled=distilled.1.out,distilled.2.out"
)


@dataclass(frozen=True)
class Score:
    """Scores of one output.

    Attributes:
        bleu: 0 to 100.
        chrf: 0 to 100.
        length_ratio: hypothesis tokens over reference tokens, as BLEU counts them.
    """

    bleu: float
    chrf: float
    length_ratio: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "systems",
        nargs="+",
        metavar="LABEL=FILE[,FILE...]",
        help="outputs of fairseq-generate; several files of a label are runs with different seeds, "
        "reported as mean and sample standard deviation",
    )
    parser.add_argument("--reference", required=True, help="reference text, raw, one sentence a line")
    parser.add_argument(
        "--tokenizer",
        help="decode the hypotheses with this teacher's tokenizer (for fairseq-generate without --bpe hf_tokenizer)",
    )
    parser.add_argument(
        "--lowercase",
        action="store_true",
        help="compare without case: for uncased teachers, whose pieces have none",
    )
    parser.add_argument("--json", metavar="FILE", help="also write scores and signatures to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-bert-kd score", description=HELP)
    add_arguments(parser)
    return parser


def parse_systems(arguments: Sequence[str]) -> dict[str, list[str]]:
    """``LABEL=FILE[,FILE...]`` to files by label; a bare ``FILE`` is its own label."""
    systems: dict[str, list[str]] = {}
    for argument in arguments:
        label, separator, files = argument.partition("=")
        if not separator:
            label, files = argument, argument
        if label in systems:
            raise ValueError(f"label `{label}` is given twice; join its files with commas")
        systems[label] = [file for file in files.split(",") if file]
        if not systems[label]:
            raise ValueError(f"`{argument}` names no file; write LABEL=FILE[,FILE...]")
    return systems


def format_table(scores: dict[str, list[Score]]) -> str:
    """Mean and, with several runs, sample standard deviation of each system; gains over the first."""
    width = max(len("system"), *map(len, scores))
    header = f"{'system':<{width}}  runs  {'BLEU':>14}  {'chrF2':>14}  length ratio"
    rows = [header, "-" * len(header)]
    for label, runs in scores.items():
        ratio = statistics.mean(run.length_ratio for run in runs)
        bleu, chrf = _spread([run.bleu for run in runs]), _spread([run.chrf for run in runs])
        rows.append(f"{label:<{width}}  {len(runs):>4}  {bleu:>14}  {chrf:>14}  {ratio:>12.3f}")
    labels = list(scores)
    baseline = statistics.mean(run.bleu for run in scores[labels[0]])
    for label in labels[1:]:
        gain = statistics.mean(run.bleu for run in scores[label]) - baseline
        rows.append(f"{label} against {labels[0]}: {gain:+.2f} BLEU")
    return "\n".join(rows)


def _spread(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"


def _decoded(hypotheses: Iterable[str], tokenizer: str) -> list[str]:
    from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

    decode = HfTokenizer(tokenizer).decode
    return [decode(pieces) for pieces in hypotheses]


def main(args: argparse.Namespace) -> None:
    if args.json and Path(args.json).exists() and not args.overwrite:
        raise FileExistsError(f"`{args.json}` exists; pass --overwrite to replace it")
    reference = read_lines(args.reference)
    if not reference:
        raise ValueError(f"reference `{args.reference}` is empty")
    bleu, chrf = BLEU(lowercase=args.lowercase), CHRF(lowercase=args.lowercase)
    scores: dict[str, list[Score]] = {}
    for label, files in parse_systems(args.systems).items():
        scores[label] = []
        for file in files:
            hypotheses = read_hypotheses(file, len(reference), pieces=bool(args.tokenizer))
            if args.tokenizer:
                hypotheses = _decoded(hypotheses, args.tokenizer)
            result = bleu.corpus_score(hypotheses, [reference])
            chrf_result = chrf.corpus_score(hypotheses, [reference])
            scores[label].append(
                Score(result.score, chrf_result.score, result.sys_len / max(result.ref_len, 1))
            )
    signatures = {"BLEU": str(bleu.get_signature()), "chrF2": str(chrf.get_signature())}
    print(format_table(scores))
    for name, signature in signatures.items():
        print(f"{name}: {signature}")
    if args.json:
        results = {
            "signatures": signatures,
            "reference": args.reference,
            "systems": {label: [asdict(run) for run in runs] for label, runs in scores.items()},
        }
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
