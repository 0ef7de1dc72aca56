"""What commands of ours are compared with, as a command: ``import MODULE...`` or ``encode TOKENIZER_FOLDER``."""

import importlib
import sys

LINE = "a man is in the park"


def main(action: str, *arguments: str) -> None:
    """Import modules, or encode one line with transformers' tokenizer."""
    if action == "import":
        for name in arguments:
            importlib.import_module(name)
    else:
        from transformers import AutoTokenizer

        print(" ".join(AutoTokenizer.from_pretrained(arguments[0]).tokenize(LINE)))


if __name__ == "__main__":
    main(*sys.argv[1:])
