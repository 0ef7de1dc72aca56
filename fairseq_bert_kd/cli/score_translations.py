"""``fairseq-bert-kd score``: sacreBLEU of fairseq-generate's output on detokenised text."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fairseq_bert_kd.cli import paraphrase_scores
from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses, read_lines
from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import signatures, table_metrics
from fairseq_bert_kd.evaluation.significance import Spread, spread
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.evaluation.text_metrics import TOKENIZERS

Scores = dict[str, float]  # by name of the metric: 0 to 100, and the length ratio

HELP = "sacreBLEU and chrF of fairseq-generate's output on detokenised text, with signatures"
EXAMPLE = (
    "example: fairseq-bert-kd score --reference test.en --lowercase plain=plain.1.out,plain.2.out "
    "distilled=distilled.1.out,distilled.2.out"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument(
        "systems",
        nargs="+",
        metavar="LABEL=FILE[,FILE...]",
        help="outputs of fairseq-generate; several files under one label are runs with different seeds, "
        "reported as mean and sample standard deviation",
    )
    parser.add_argument("--reference", required=True, help="raw reference text, one sentence per line")
    parser.add_argument(
        "--tokenizer",
        help="decode the hypotheses with this teacher's tokenizer (for fairseq-generate without --bpe hf_tokenizer)",
    )
    parser.add_argument(
        "--lowercase",
        action="store_true",
        help="compare without case, for uncased teachers",
    )
    parser.add_argument(
        "--tokenize",
        default="13a",
        choices=TOKENIZERS,
        help="sacreBLEU's tokenizer for BLEU; `none` for tokenised text (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write scores and signatures to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")
    paraphrase_scores.add_arguments(parser)


def parse_systems(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Files by label from ``LABEL=FILE[,FILE...]``; a bare ``FILE`` is its own label, even with an equals sign."""
    systems: dict[str, list[str]] = {}
    for argument in arguments:
        label, separator, files = argument.partition("=")
        if not separator or Path(argument).is_file():
            label, files = argument, argument
        if label in systems:
            raise ValueError(f"label `{label}` is given twice; join its files by commas")
        systems[label] = [file for file in files.split(",") if file]
        if not systems[label]:
            raise ValueError(f"`{argument}` names no file; write LABEL=FILE[,FILE...]")
    return systems


def format_table(scores: Mapping[str, Sequence[Scores]]) -> str:
    """Table of each system's mean and, with several runs, sample standard deviation; gains over the first system."""
    width = max(len("system"), *map(len, scores))
    header = f"{'system':<{width}}  runs  {'BLEU':>14}  {'chrF2':>14}  length ratio"
    rows, gains = [header, "-" * len(header)], []
    for label, runs in scores.items():
        bleu, chrf, ratio = (spread([run[key] for run in runs]) for key in ("bleu", "chrf2", "length_ratio"))
        cells = (f"{len(runs):>4}", f"{_text(bleu):>14}", f"{_text(chrf):>14}", f"{ratio.mean:>12.3f}")
        rows.append("  ".join([f"{label:<{width}}", *cells]))
        gains.append((label, bleu))
    (first, base), *others = gains
    for label, bleu in others:
        unequal = f" ({bleu.n} runs against {base.n}: not of the same seeds)" if bleu.n != base.n else ""
        rows.append(f"{label} against {first}: {bleu.mean - base.mean:+.2f} BLEU{unequal}")
    return "\n".join(rows)


def _text(value: Spread) -> str:
    return f"{value.mean:.2f}" if value.sd is None else f"{value.mean:.2f} ± {value.sd:.2f}"


def _decoder(tokenizer: str | None) -> Callable[[str], str]:
    """Function that makes text of a hypothesis."""
    if tokenizer is None:
        return str
    from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

    return HfTokenizer(tokenizer).decode


def main(args: argparse.Namespace) -> None:
    if args.json and Path(args.json).exists() and not args.overwrite:
        raise FileExistsError(f"`{args.json}` exists; pass --overwrite to replace it")
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise ValueError(f"--json `{args.json}` is in a folder that does not exist; create it first")
    reference = read_lines(args.reference)
    if not reference:
        raise ValueError(f"reference `{args.reference}` is empty")
    metrics = table_metrics("bleu", MetricSettings(args.lowercase, args.tokenize))
    decode = _decoder(args.tokenizer)
    further = paraphrase_scores.FurtherScores(args, reference)
    scores: dict[str, list[Scores]] = {}
    for label, files in parse_systems(args.systems).items():
        scores[label] = []
        for file in files:
            hypotheses = read_hypotheses(file, len(reference), pieces=bool(args.tokenizer))
            hypotheses = [decode(text) for text in hypotheses]
            scores[label].append(SystemOutput(metrics, hypotheses, reference).scores)
            further.add(label, hypotheses)
    print(format_table(scores))
    listed = signatures(metrics)
    for name, signature in listed.items():
        print(f"{name}: {signature}")
    further.show()
    if args.json:
        results = {"signatures": listed, "reference": args.reference, "systems": scores, **further.results}
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
