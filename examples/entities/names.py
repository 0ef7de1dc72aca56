"""Names of WN18RR's entities for the dictionary linker: entity, tab, name; the name is what stands before the first comma.

python examples/entities/names.py wn18rr > names.tsv
"""

import sys
from pathlib import Path

from fairseq_bert_kd.text_lines import open_lines, packed_or_not


def main() -> None:
    for line in open_lines(packed_or_not(Path(sys.argv[1], "entity2text.txt"))):
        entity, _, text = line.rstrip("\n").partition("\t")
        print(entity, text.split(", ")[0], sep="\t")


if __name__ == "__main__":
    main()
