"""``fairseq-bert-kd score``: sacreBLEU of fairseq-generate's output on detokenised text."""

import argparse
import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fairseq_bert_kd.cli import paraphrase_scores
from fairseq_bert_kd.evaluation.comet_metric import Comet
from fairseq_bert_kd.evaluation.comparability import of_another_text, remarks
from fairseq_bert_kd.evaluation.fairseq_output import (
    read_hypotheses,
    read_lines,
    read_targets,
    read_undecoded_targets,
)
from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.registry import signatures, table_metrics
from fairseq_bert_kd.evaluation.significance import Spread, spread
from fairseq_bert_kd.evaluation.system_output import SystemOutput
from fairseq_bert_kd.evaluation.text_metrics import TOKENIZERS
from fairseq_bert_kd.output_files import check_new_file, write_text
from fairseq_bert_kd.text_lines import open_lines
from fairseq_bert_kd.tokenization.dictionary import check_pieces, foreign_symbols
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

Scores = dict[str, float]  # by name of the metric: 0 to 100, and the length ratio
UNKNOWN_TARGET = "<<unk>>"  # as fairseq writes it, so that it equals no hypothesis
COPIED_SHARE = 0.01  # of the symbols, that may be words of --replace-unk: our choice

HELP = "sacreBLEU and chrF of fairseq-generate's output on detokenised text, with signatures"
EXAMPLE = (
    "example: fairseq-bert-kd score --reference test.en --normalise-like bert-base-uncased plain=plain.1.out,plain.2.out "
    "distilled=distilled.1.out,distilled.2.out"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
        "--normalise-like",
        metavar="TOKENIZER",
        help="pass references and outputs through this tokenizer's rules for text first (case, accents, compatibility forms, "
        "spaces): give the student's, which cannot write what they take away; stands in the signature",
    )
    parser.add_argument("--lowercase", action="store_true", help="compare without case; accents stay")
    parser.add_argument(
        "--tokenize",
        default="13a",
        choices=TOKENIZERS,
        help="sacreBLEU's tokenizer for BLEU; `none` for tokenised text (default: %(default)s)",
    )
    parser.add_argument(
        "--comet",
        metavar="MODEL",
        help="also score with COMET, times 100: path of a checkpoint or hub name; needs --source and the package unbabel-comet",
    )
    parser.add_argument("--source", help="raw source text, for --comet")
    parser.add_argument(
        "--training",
        nargs="+",
        default=[],
        metavar="FILE",
        help="raw text that was trained on: says how many references, and --sources, stand in it word for word, case aside",
    )
    parser.add_argument("--json", metavar="FILE", help="also write scores and signatures to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")
    paraphrase_scores.add_arguments(parser)


def parse_systems(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Files by label from ``LABEL=FILE[,FILE...]``; a bare ``FILE`` is its own label, even with an equals sign."""
    systems: dict[str, list[str]] = {}
    for argument in arguments:
        label, separator, names = argument.partition("=")
        files = [file for file in (names if separator else argument).split(",") if file]
        if Path(argument).is_file():
            label, files = argument, [argument]
        if label in systems:
            raise ValueError(f"label `{label}` is given twice; join its files by commas")
        systems[label] = files
        if not files:
            raise ValueError(f"`{argument}` names no file; write LABEL=FILE[,FILE...]")
    return systems


def format_table(scores: Mapping[str, Sequence[Scores]]) -> str:
    """Table of each system's mean and, with several runs, sample standard deviation; gains over the first system."""
    width = max(len("system"), *map(len, scores))
    header = f"{'system':<{width}}  runs  {'BLEU':>14}  {'chrF2':>14}  length ratio"
    with_comet = all("comet" in run for runs in scores.values() for run in runs)
    header += f"  {'COMET':>14}" if with_comet else ""
    rows, gains = [header, "-" * len(header)], []
    for label, runs in scores.items():
        bleu, chrf, ratio = (spread([run[key] for run in runs]) for key in ("bleu", "chrf2", "length_ratio"))
        cells = (f"{len(runs):>4}", f"{_text(bleu):>14}", f"{_text(chrf):>14}", f"{ratio.mean:>12.3f}")
        comet = [f"{_text(spread([run['comet'] for run in runs])):>14}"] if with_comet else []
        rows.append("  ".join([f"{label:<{width}}", *cells, *comet]))
        gains.append((label, bleu))
    (first, base), *others = gains
    for label, bleu in others:
        unequal = f" ({bleu.n} runs against {base.n}: not of the same seeds)" if bleu.n != base.n else ""
        rows.append(f"{label} against {first}: {bleu.mean - base.mean:+.2f} BLEU{unequal}")
    return "\n".join(rows)


def _text(value: Spread) -> str:
    return f"{value.mean:.2f}" if value.sd is None else f"{value.mean:.2f} ± {value.sd:.2f}"


def read_system(files: Sequence[str], expected: int, tokenizer: HfTokenizer | None) -> list[list[str]]:
    """Texts of each run of a system.

    Args:
        files: outputs of fairseq-generate, one per run.
        expected: number of sentences.
        tokenizer: makes text of the pieces; None takes the text that is there.

    Raises:
        ValueError: an output does not hold every sentence once, or holds pieces of another tokenizer.
    """
    runs = []
    for file in files:
        hypotheses = read_hypotheses(file, expected, pieces=tokenizer is not None)
        if tokenizer is not None:
            targets = {symbol for text in read_undecoded_targets(file) for symbol in text.split()}
            check_pieces(tokenizer, targets - {UNKNOWN_TARGET}, f"the test set in `{file}`")
            _check_hypotheses(tokenizer, hypotheses, file)
            hypotheses = [tokenizer.decode(text) for text in hypotheses]
        runs.append(hypotheses)
    return runs


def _check_hypotheses(tokenizer: HfTokenizer, hypotheses: Sequence[str], file: str) -> None:
    """Check that pieces are of a tokenizer; a few others may be words that --replace-unk copied."""
    symbols = [symbol for text in hypotheses for symbol in text.split()]
    foreign = foreign_symbols(tokenizer, symbols)
    if len(foreign) > COPIED_SHARE * len(symbols):
        check_pieces(tokenizer, set(symbols), f"the hypotheses in `{file}`")
    elif foreign:
        logger.warning(
            "%s: %d of %d symbols are no pieces of `%s` (first: `%s`) and stay as they are",
            *(file, len(foreign), len(symbols), tokenizer.name, foreign[0]),
        )


def read_reference(path: str) -> list[str]:
    """Lines of ``--reference``; ValueError where there are none."""
    reference = read_lines(path)
    if not reference:
        raise ValueError(f"reference `{path}` is empty; give the text that was translated to")
    return reference


def read_source(path: str, sentences: int) -> list[str]:
    """Lines of ``--source``; ValueError for another number of them than the reference has."""
    sources = read_lines(path)
    if len(sources) != sentences:
        raise ValueError(
            f"--source `{path}` has {len(sources)} lines, the reference has {sentences}; give the same sentences"
        )
    return sources


def warn_of_differences(
    label: str,
    files: Sequence[str],
    runs: Sequence[Sequence[str]],
    reference: Sequence[str],
    settings: MetricSettings,
    rouge: bool = False,
    sources: Sequence[str] = (),
) -> None:
    """Log a warning of whatever was not prepared alike in a system's outputs and the reference.

    Args:
        label: name of the system.
        files: outputs of fairseq-generate, one per run.
        runs: ``(sentences,)`` texts of each, as they are compared.
        reference: ``(sentences,)`` likewise.
        settings: how they are compared.
        rouge: whether ROUGE is among the scores.
        sources: ``(sentences,)`` lines of ``--sources``, if any.
    """
    texts = [text for run in runs for text in run]
    for remark in remarks(texts, reference, settings, rouge):
        logger.warning("%s: %s", label, remark)
    for file in files:
        if remark := of_another_text(read_targets(file), reference):
            logger.warning("%s: %s", file, remark)
        if sources and (remark := of_another_text(read_targets(file, "S"), sources, "--sources are")):
            logger.warning("%s: %s", file, remark)


def text_rules(
    args: argparse.Namespace, load: Callable[[str], HfTokenizer] = HfTokenizer
) -> tuple[MetricSettings, Callable[[str], str]]:
    """Settings of the metrics, and what texts pass through before they are compared, by ``--normalise-like``."""
    settings = MetricSettings(args.lowercase, args.tokenize)
    if not args.normalise_like:
        return settings, str
    like = load(args.normalise_like)
    return settings._replace(normalised=like.label()), like.normalise


def learned_sentences(files: Sequence[str], sides: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many texts of each side stand in training text, as a line or a column of a tab-separated one.

    Case and white space do not count. The files are read once, line by line.
    """
    from fairseq_bert_kd.data.negatives import plain

    wanted = {name: list(map(plain, texts)) for name, texts in sides.items()}
    learned = (plain(text) for file in files for line in open_lines(file) for text in line.split("\t"))
    found = set().union(*wanted.values()).intersection(learned)
    return {name: sum(text in found for text in texts) for name, texts in wanted.items()}


def main(args: argparse.Namespace) -> None:
    if args.json:
        check_new_file("--json", args.json, args.overwrite)
    if args.source and not args.comet:
        raise ValueError(
            "--source is read for --comet alone; add it, give --sources for the table of paraphrases, or leave --source out"
        )
    if args.comet and not args.source:
        raise ValueError("--comet reads the source too; give its raw text with --source")
    reference = read_reference(args.reference)
    sides = {"references": reference, **({"sources": read_lines(args.sources)} if args.sources else {})}
    learned = learned_sentences(args.training, sides) if args.training else {}  # before the work
    load = functools.cache(HfTokenizer)  # both options may name the same one
    tokenizer = load(args.tokenizer) if args.tokenizer else None
    settings, normalise = text_rules(args, load)
    metrics = table_metrics("bleu", settings)
    if args.comet:
        metrics["comet"] = Comet(settings, args.comet, read_source(args.source, len(reference)))
    reference = [normalise(line) for line in reference]
    further = paraphrase_scores.FurtherScores(args, reference, settings, normalise)
    scores: dict[str, list[Scores]] = {}
    for label, files in parse_systems(args.systems).items():
        runs = [[normalise(text) for text in run] for run in read_system(files, len(reference), tokenizer)]
        warn_of_differences(
            label,
            files,
            runs,
            reference,
            settings,
            rouge=bool(args.sources),
            sources=sides.get("sources", ()),
        )
        scores[label] = [SystemOutput(metrics, run, reference).scores for run in runs]
        further.add(label, *runs)
    print(format_table(scores))
    listed = signatures(metrics)
    for name, signature in listed.items():
        print(f"{name}: {signature}")
    further.show()
    for name, count in learned.items():
        total = len(sides[name])
        print(f"{count:,} of {total:,} {name} ({count / total:.1%}) are in the training text")
    if args.json:
        results = {"signatures": listed, "reference": args.reference, "systems": scores, **further.results}
        results |= {"in_training_text": learned} if learned else {}
        write_text(args.json, json.dumps(results, indent=2) + "\n")
