"""``fairseq-bert-kd gains``: where a system gains over its baseline, by length and by position in the sentence."""

import argparse
import json
from collections.abc import Sequence

from fairseq_bert_kd.cli.score_translations import (
    parse_systems,
    read_reference,
    read_source,
    read_system,
    text_rules,
    warn_of_differences,
)
from fairseq_bert_kd.evaluation.registry import METRICS, signatures
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.evaluation.text_metrics import TOKENIZERS, word_counts
from fairseq_bert_kd.output_files import check_new_file, write_text
from fairseq_bert_kd.report.compare_positions import ORDER, POSITION_BINS, PositionBin, gain_by_position
from fairseq_bert_kd.report.compare_sentences import LengthBin, gain_by_length

HELP = """Gain of a system over its baseline, with 95 % bootstrap intervals: by length of reference and source, and by position in
the sentence. The gain by position is ours: of 100 n-grams in a part of the references, how many more the system's output has
somewhere."""
EXAMPLE = (
    "example: fairseq-bert-kd gains --reference test.en --source test.de plain=plain.1.out,plain.2.out "
    "distilled=distilled.1.out,distilled.2.out"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "systems",
        nargs=2,
        metavar="LABEL=FILE[,FILE...]",
        help="outputs of fairseq-generate, the baseline's first; of both as many, in the same order of seeds",
    )
    parser.add_argument("--reference", required=True, help="raw reference text, one sentence per line")
    parser.add_argument("--source", help="raw source text, for the gain by its length (default: left out)")
    parser.add_argument(
        "--metric",
        default="bleu",
        choices=("bleu", "chrf2", "rougeL"),
        help="score whose gain by length is shown, of BLEU the corpus score and of the others the mean over sentences (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--normalise-like",
        metavar="TOKENIZER",
        help="pass references and outputs through this tokenizer's rules for text first, as `score` does",
    )
    parser.add_argument("--lowercase", action="store_true", help="compare without case")
    parser.add_argument(
        "--tokenize",
        default="13a",
        choices=TOKENIZERS,
        help="sacreBLEU's tokenizer, for BLEU, lengths and positions (default: %(default)s)",
    )
    parser.add_argument(
        "--bins",
        type=int,
        default=POSITION_BINS,
        metavar="N",
        help="bins of lengths, and parts of a sentence (default: %(default)s)",
    )
    parser.add_argument(
        "--order",
        type=int,
        default=ORDER,
        metavar="N",
        help="words of an n-gram, for positions (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the gains to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")


def main(args: argparse.Namespace) -> None:
    """Print the tables; ValueError for outputs that do not fit each other."""
    if args.json:
        check_new_file("--json", args.json, args.overwrite)
    if args.bins < 1 or args.order < 1:
        raise ValueError(f"--bins and --order must be at least 1, got {args.bins} and {args.order}")
    references = read_reference(args.reference)
    sources = read_source(args.source, len(references)) if args.source else None
    baseline, system, pairs = read_pairs(args, references)
    by_length = {"reference": gain_by_length(args.metric, pairs, args.bins)}
    if sources is not None:
        words = word_counts(sources, args.tokenize)
        by_length["source"] = gain_by_length(args.metric, pairs, args.bins, words)
    positions = gain_by_position(pairs, args.bins, args.order, args.lowercase, args.tokenize)
    unit = METRICS[args.metric].title
    runs = f"mean over {len(pairs)} seeds" if len(pairs) > 1 else "one seed"
    print(f"{system} against {baseline}, {runs}; 95 % bootstrap over sentences")
    for side, bins in by_length.items():
        print("\n".join(_length_lines(side, bins, unit)))
    print("\n".join(_position_lines(positions, args.order)))
    listed = signatures(pairs[0][0].metrics)
    print("", *(f"{name}: {signature}" for name, signature in listed.items()), sep="\n")
    if args.json:
        gains = {f"{side}_length": [item._asdict() for item in bins] for side, bins in by_length.items()}
        record = {
            "baseline": baseline,
            "system": system,
            "metric": args.metric,
            "signatures": listed,
            "order": args.order,
        }
        record |= {**gains, "position": [item._asdict() for item in positions]}
        write_text(args.json, json.dumps(record, indent=2) + "\n")


def read_pairs(
    args: argparse.Namespace, references: list[str]
) -> tuple[str, str, list[tuple[SystemOutput, SystemOutput]]]:
    """Names of baseline and system, and both outputs of each seed; ValueError for another number of outputs."""
    settings, normalise = text_rules(args)
    metrics = {args.metric: METRICS[args.metric](settings)}
    references = [normalise(line) for line in references]
    runs = {}
    for label, files in parse_systems(args.systems).items():
        texts = [[normalise(text) for text in run] for run in read_system(files, len(references), None)]
        warn_of_differences(label, files, texts, references, settings, rouge=args.metric == "rougeL")
        runs[label] = [SystemOutput(metrics, run, references) for run in texts]
    (baseline, base), (system, other) = runs.items()
    if len(base) != len(other):
        raise ValueError(
            f"{len(base)} outputs of `{baseline}` and {len(other)} of `{system}`; give one of each for every seed"
        )
    return baseline, system, list(zip(base, other, strict=True))


def _length_lines(side: str, bins: Sequence[LengthBin], unit: str) -> list[str]:
    lines = ["", f"{f'words of the {side}':<24}{'sentences':>10}{f'gain, {unit}':>14}   interval"]
    for item in bins:
        words = f"{item.shortest} to {item.longest}"
        lines.append(
            f"{words:<24}{item.sentences:>10,}{item.gain:>+14.2f}   {item.low:+.2f} to {item.high:+.2f}"
        )
    return lines


def _position_lines(bins: Sequence[PositionBin], order: int) -> list[str]:
    lines = [
        "",
        f"{'part of the reference':<24}{f'{order}-grams':>10}{'baseline':>11}{'gain, per 100':>15}   interval",
    ]
    for item in bins:
        part = f"{item.first} to {item.last} %"
        lines.append(
            f"{part:<24}{item.ngrams:>10,}{item.baseline:>11.2f}{item.gain:>+15.2f}   {item.low:+.2f} to {item.high:+.2f}"
        )
    return lines
