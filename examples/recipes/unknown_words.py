"""``<unk>`` of a corpus as one symbol, the unknown symbol of dictionaries and teacher, in files of pieces.

Our tokeniser spells every text, ``<unk>`` too (``< @@un ##k @@>``). Gigaword's authors wrote it for words outside
their vocabulary, and the paper gives it to BERT as its unknown token. The files are changed in place.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from corpus import read_lines, run

from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

WORD = "<unk>"


def with_unknown_symbol(pieces: Sequence[str], spelled: Sequence[str], tokenizer: HfTokenizer) -> list[str]:
    """A line's pieces with the symbol for every whole word that ``spelled`` spells."""
    out: list[str] = []
    for place, piece in enumerate(pieces):
        out.append(piece)
        following = pieces[place + 1 : place + 2]
        whole = not following or tokenizer.is_beginning_of_word(following[0])
        if whole and out[-len(spelled) :] == list(spelled):
            out[-len(spelled) :] = [WORD]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True, help="the one that made the pieces")
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args()
    tokenizer = HfTokenizer(args.tokenizer)
    if tokenizer.kind != "wordpiece":
        raise ValueError(
            f"the teacher must have WordPiece, where `{WORD}` alone stands for a word, but `{args.tokenizer}` is "
            f"{tokenizer.kind}, which would lose the space before it. Take a BERT (the paper: bert-base-uncased)."
        )
    spelled = tokenizer.encode(WORD)
    for file in args.files:
        words, changed = 0, file.with_name(f"{file.name}.tmp")
        with open(changed, "w", encoding="utf-8") as out:
            for line in read_lines(file):
                pieces = with_unknown_symbol(line.split(), spelled, tokenizer)
                words += pieces.count(WORD)
                out.write(" ".join(pieces) + "\n")
        os.replace(changed, file)
        print(f"{file}: {words:,} unknown words")


if __name__ == "__main__":
    run(main)
