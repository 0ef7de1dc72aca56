"""Tokenised BLEU as the paper has it, beside sacreBLEU on detokenised text, of every student of an experiment.

The paper scores with Moses's multi-bleu.perl on Moses's tokens, for WMT14 English-German after splitting compounds
as well. sacreBLEU with ``tokenize=none`` and no smoothing is the same number on the same tokens. Writes
``scores-tokenised.json`` into the experiment's folder.
"""

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from corpus import read_lines, run
from moses_text import as_moses_tokens, detokenise, split_compounds, splits_hyphens, tokenise
from sacrebleu.metrics import BLEU
from students import show_and_write, students_outputs


def multi_bleu(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool = False) -> float:
    """BLEU of lines of tokens, 0 to 100, as multi-bleu.perl prints it (before it rounds)."""
    metric = BLEU(tokenize="none", smooth_method="none", lowercase=lowercase, force=True)
    return metric.corpus_score(list(hypotheses), [list(references)]).score


class References(NamedTuple):
    """A subset's references.

    Attributes:
        tokens: Moses's tokens, escaped.
        raw: before tokenisation; detokenised ``tokens`` where the official files lack it.
        text_is_raw: whether hypotheses are raw text, still to be tokenised.
        origin: where tokens and raw text come from.
    """

    tokens: list[str]
    raw: list[str]
    text_is_raw: bool
    origin: tuple[str, str]


def read_references(out: Path, subset: str, language: str) -> References:
    """``reference/SUBSET.tok`` and ``.raw``, or ``text/SUBSET.LANGUAGE`` where the task's text is raw."""
    moses = f"sacremoses {version('sacremoses')}"
    tokens_file, raw_file = out / f"reference/{subset}.tok", out / f"reference/{subset}.raw"
    if not tokens_file.exists():
        raw = list(read_lines(out / f"text/{subset}.{language}"))
        return References([tokenise(line, language, True) for line in raw], raw, True, (moses, "official"))
    tokens = list(read_lines(tokens_file))
    if raw_file.exists():
        return References(tokens, list(read_lines(raw_file)), False, ("the official files'", "official"))
    raw = [detokenise(line, language) for line in tokens]
    return References(tokens, raw, False, ("the official files'", f"detokenised by {moses}"))


def score(text: list[str], references: References, args: argparse.Namespace) -> dict[str, float]:
    """Tokenised BLEU of what a student wrote, with split compounds if requested, and sacreBLEU on detokenised text."""
    if references.text_is_raw:
        tokens, detokenised = [tokenise(line, args.language, True) for line in text], text
    else:
        hyphens = splits_hyphens(references.tokens)
        tokens = [as_moses_tokens(line, hyphens) for line in text]
        detokenised = [detokenise(line, args.language) for line in tokens]
    scores = {"tokenised": multi_bleu(tokens, references.tokens, args.lowercase)}
    if args.compounds:
        split = [[split_compounds(line) for line in lines] for lines in (tokens, references.tokens)]
        scores["compounds"] = multi_bleu(*split, args.lowercase)
    scores["sacrebleu"] = BLEU(lowercase=args.lowercase).corpus_score(detokenised, [references.raw]).score
    return scores


def signatures(references: References, args: argparse.Namespace) -> dict[str, str]:
    """What the numbers are, by name."""
    case, (tokens, raw) = "lc" if args.lowercase else "mixed", references.origin
    hyphens = splits_hyphens(references.tokens) or references.text_is_raw
    tokenised = f"multi-bleu.perl|case:{case}|tok:Moses ({tokens})|hyphens split:{hyphens}"
    metric = BLEU(lowercase=args.lowercase)
    metric.corpus_score(["a"], [["a"]])  # the signature counts references
    split = {"compounds": f"{tokenised}|compounds:##AT##-##AT##"} if args.compounds else {}
    return {"tokenised": tokenised, **split, "sacrebleu": f"{metric.get_signature()}|references:{raw}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the experiment's folder")
    parser.add_argument("--language", required=True, help="of the target")
    parser.add_argument("--lowercase", action="store_true", help="compare without case")
    parser.add_argument("--compounds", action="store_true", help="also with split compounds (WMT14)")
    args = parser.parse_args()
    rows, names = [], {}
    for subset in ("valid", "test"):
        references = read_references(args.out, subset, args.language)
        names[subset] = signatures(references, args)
        for student, text in students_outputs(args.out, subset, len(references.tokens)):
            rows.append(student | score(text, references, args))
    show_and_write(args.out / "scores-tokenised.json", rows, names)


if __name__ == "__main__":
    run(main)
