"""Tokenised BLEU as the paper has it, beside sacreBLEU on detokenised text, of every student of an experiment.

The paper scores with Moses's multi-bleu.perl on Moses's tokens, for WMT14 English-German after splitting compounds
as well. sacreBLEU with ``tokenize=none`` and no smoothing is the same number on the same tokens. Writes
``scores-tokenised.json`` into the experiment's folder.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from corpus import read_lines, run
from moses_text import as_moses_tokens, detokenise, split_compounds, splits_hyphens, tokenise
from sacrebleu.metrics import BLEU
from students import Scores, show_and_write, students_outputs

SUBSETS = ("valid", "test")


def multi_bleu(hypotheses: Sequence[str], references: Sequence[str], lowercase: bool = False) -> float:
    """BLEU of lines of tokens, 0 to 100, as multi-bleu.perl prints it (before it rounds)."""
    metric = BLEU(tokenize="none", smooth_method="none", lowercase=lowercase, force=True)
    return metric.corpus_score(list(hypotheses), [list(references)]).score


@dataclass(frozen=True)
class References:
    """A subset's references.

    Attributes:
        tokens: Moses's tokens, escaped.
        raw: before tokenisation; detokenised ``tokens`` where the official files lack it.
        official_raw: whether they have it.
        split_hyphens: whether the tokens have ``@-@``.
        text_is_raw: whether hypotheses are raw text, still to be tokenised.
    """

    tokens: list[str]
    raw: list[str]
    official_raw: bool
    split_hyphens: bool
    text_is_raw: bool


def read_references(out: Path, subset: str, language: str) -> References:
    """``reference/SUBSET.tok`` and ``.raw``, or ``text/SUBSET.LANGUAGE`` where the task's text is raw."""
    tokens_file, raw_file = out / f"reference/{subset}.tok", out / f"reference/{subset}.raw"
    if not tokens_file.exists():
        raw = list(read_lines(out / f"text/{subset}.{language}"))
        return References([tokenise(line, language, True) for line in raw], raw, True, True, True)
    tokens = list(read_lines(tokens_file))
    official = raw_file.exists()
    raw = list(read_lines(raw_file)) if official else [detokenise(line, language) for line in tokens]
    return References(tokens, raw, official, splits_hyphens(tokens), False)


def score(
    text: list[str], references: References, language: str, lowercase: bool, compounds: bool
) -> dict[str, float]:
    """Tokenised BLEU, with split compounds where asked for, and sacreBLEU on detokenised text.

    Args:
        text: ``(sentences,)`` what a student wrote.
        references: of the same sentences.
        language: of the target.
        lowercase: compare without case.
        compounds: also with compounds split.
    """
    if references.text_is_raw:
        tokens, detokenised = [tokenise(line, language, True) for line in text], text
    else:
        tokens = [as_moses_tokens(line, references.split_hyphens) for line in text]
        detokenised = [detokenise(line, language) for line in tokens]
    scores = {"tokenised": multi_bleu(tokens, references.tokens, lowercase)}
    if compounds:
        split = [[split_compounds(line) for line in lines] for lines in (tokens, references.tokens)]
        scores["compounds"] = multi_bleu(*split, lowercase)
    scores["sacrebleu"] = BLEU(lowercase=lowercase).corpus_score(detokenised, [references.raw]).score
    return scores


def signatures(references: References, lowercase: bool, compounds: bool) -> dict[str, str]:
    """What the numbers are, by name."""
    case = "lc" if lowercase else "mixed"
    origin = f"sacremoses {version('sacremoses')}" if references.text_is_raw else "the official files'"
    tokenised = f"multi-bleu.perl|case:{case}|tok:Moses ({origin})|hyphens split:{references.split_hyphens}"
    names = {"tokenised": tokenised}
    if compounds:
        names["compounds"] = f"{tokenised}|compounds:##AT##-##AT##"
    metric = BLEU(lowercase=lowercase)
    metric.corpus_score(["a"], [["a"]])  # the signature counts references
    raw = "official" if references.official_raw else f"detokenised by sacremoses {version('sacremoses')}"
    names["sacrebleu"] = f"{metric.get_signature()}|references:{raw}"
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the experiment's folder")
    parser.add_argument("--language", required=True, help="of the target")
    parser.add_argument("--lowercase", action="store_true", help="compare without case")
    parser.add_argument(
        "--compounds", action="store_true", help="also with split compounds (WMT14 English-German)"
    )
    args = parser.parse_args()
    rows, names = [], {}
    for subset in SUBSETS:
        references = read_references(args.out, subset, args.language)
        names[subset] = signatures(references, args.lowercase, args.compounds)
        for system, seed, text in students_outputs(args.out, subset, len(references.tokens)):
            values = score(text, references, args.language, args.lowercase, args.compounds)
            rows.append(Scores(system, seed, subset, values))
    show_and_write(args.out / "scores-tokenised.json", rows, list(names["test"]), names)


if __name__ == "__main__":
    run(main)
