"""Refuse a teacher whose tokeniser cannot write the target language: an uncased one drops German or Vietnamese accents."""

import argparse
from pathlib import Path

from corpus import read_lines, run

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

ALLOWED_SHARE = 0.1  # of lines: odd spaces and control characters may go


def changed_lines(lines: list[str], tokenizer: HfTokenizer, lowercase: bool) -> list[tuple[str, str]]:
    """Lines that the tokeniser does not give back, each with what it gives."""
    changed = []
    for line in lines:
        kept, wanted = tokenizer.normalise(line), " ".join(line.split())
        if (kept.lower() != wanted.lower()) if lowercase else (kept != wanted):
            changed.append((line, kept))
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--lowercase", action="store_true", help="case may go: scores compare without it")
    parser.add_argument("file", type=Path, help="text of the target language")
    args = parser.parse_args()
    lines = list(read_lines(args.file))
    changed = changed_lines(lines, HfTokenizer(args.tokenizer), args.lowercase)
    if len(changed) > ALLOWED_SHARE * len(lines):
        before, after = changed[0]
        raise ValueError(
            f"the teacher's tokenizer must keep the text of `{args.file}`, which students learn to write, but "
            f"`{args.tokenizer}` changes {len(changed):,} of {len(lines):,} lines, first {before!r} to {after!r}. "
            "Take a cased, multilingual teacher (the paper: bert-base-multilingual-cased)."
        )


if __name__ == "__main__":
    run(main)
