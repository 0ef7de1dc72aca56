"""Reads references and predictions: text, the output of fairseq-generate, classes and numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fairseq_bert_kd.text_lines import open_lines

LAST_LINE = "Generate "  # of fairseq-generate's output, with fairseq's own score
LARGEST_REST = 7  # sentences that fairseq drops at --required-batch-size-multiple 8, its default


def read_lines(path: str | Path) -> list[str]:
    """Lines of a text as fairseq counts them: only a line feed ends a line.

    Raises:
        ValueError: the file is not UTF-8 text.
    """
    return list(open_lines(path))


def read_hypotheses(path: str | Path, expected: int, pieces: bool = False) -> list[str]:
    """Best hypothesis of every sentence, in corpus order.

    Args:
        path: output of fairseq-generate (without ``--quiet``).
        expected: number of sentences.
        pieces: take the ``H-`` lines (pieces) instead of the detokenised ``D-`` lines.

    Raises:
        ValueError: sentences are missing or too many, a sentence is in two places (lines of an n-best list are
            consecutive), a line is cut in its middle, or there are no hypotheses at all.
    """
    prefix = "H-" if pieces else "D-"
    hypotheses, ended = _read_hypotheses(path, prefix)
    if not hypotheses:
        raise ValueError(
            f"`{path}` has no `{prefix}` lines; give the output of fairseq-generate (without --quiet). Plain lines, such as those of "
            f"a served student, are scored by `sacrebleu REFERENCE -i {path}`"
        )
    missing = sorted(set(range(expected)) - set(hypotheses))
    beyond = sorted(set(hypotheses) - set(range(expected)))
    if missing:
        raise ValueError(
            f"`{path}` translates {len(hypotheses)} of {expected} sentences, first missing: {missing[0]}. "
            f"Likely {' Or '.join(_causes(missing, expected, ended))}"
        )
    if beyond:
        raise ValueError(
            f"`{path}` has sentence {beyond[0]}, the reference only {expected} lines; give its own reference"
        )
    return [hypotheses[index][0] for index in range(expected)]


def read_nbest(path: str | Path) -> list[list[str]]:
    """All hypotheses of every sentence, in corpus order, the best one first.

    Args:
        path: output of ``fairseq-generate --nbest N``.

    Raises:
        ValueError: a broken line, no hypotheses, several outputs in one file, or a sentence that is missing.
    """
    lists, _ = _read_hypotheses(path, "D-")
    if not lists:
        raise ValueError(
            f"`{path}` has no `D-` lines; give the output of fairseq-generate --nbest N (without --quiet)"
        )
    if missing := sorted(set(range(max(lists) + 1)) - set(lists)):
        raise ValueError(f"`{path}` has no output for sentence {missing[0]}; decode again")
    return [lists[index] for index in range(len(lists))]


def _read_hypotheses(path: str | Path, prefix: str) -> tuple[dict[int, list[str]], bool]:
    """Hypotheses by sentence, each sentence's in the file's order, and whether the file has the last line of a finished run.

    Raises:
        ValueError: a broken line, or a sentence in two places.
    """
    hypotheses: dict[int, list[str]] = {}
    last, ended = -1, False
    for line in open_lines(path, keep_ends=True):
        ended = ended or line.startswith(LAST_LINE)
        if not line.startswith(prefix):
            continue
        fields = line.rstrip("\r\n").split("\t", 2)
        if len(fields) < 3 or not fields[0][2:].isdecimal() or not line.endswith("\n"):
            raise ValueError(
                f"`{path}` has a broken line {line.rstrip()!r}, expected `{prefix}NUMBER score text` and a line feed. "
                "The run was cut short: decode again"
            )
        index = int(fields[0][2:])
        if index in hypotheses and index != last:
            raise ValueError(
                f"`{path}` has sentence {index} in two places, so it holds more than one output; decode again into "
                "another file"
            )
        hypotheses.setdefault(index, []).append(fields[2])
        last = index
    return hypotheses, ended


def read_undecoded_targets(path: str | Path) -> list[str]:
    """The test set's own pieces in an output of fairseq-generate; empty if it decoded them (``--bpe``)."""
    targets: list[str] = []
    pieces: dict[str, str] = {}
    for line in open_lines(path):
        kind, _, rest = line.partition("-")
        number, _, text = rest.partition("\t")
        if kind == "T":
            targets.append(text)
        elif kind == "H":
            pieces[number] = text  # score and hypothesis
        elif kind == "D" and pieces.get(number, text) != text:
            return []
    return targets


def read_targets(path: str | Path, kind: str = "T") -> dict[int, str]:
    """The test set's own targets (``S`` for sources) in an output of fairseq-generate, by number of the sentence: text, or pieces as they are."""
    targets = {}
    for line in open_lines(path):
        number, tab, text = line.partition("\t")
        if tab and number.startswith(f"{kind}-") and number[2:].isdecimal():
            targets[int(number[2:])] = text
    return targets


def _causes(missing: Sequence[int], expected: int, ended: bool) -> list[str]:
    """Possible causes of missing sentences with what to do, the likeliest first; those that are excluded are left out.

    Args:
        missing: numbers of the missing sentences, ascending.
        expected: lines of the reference.
        ended: whether the output has the last line of a finished run.
    """
    causes = []
    if len(missing) <= LARGEST_REST:
        causes.append(
            "fairseq drops the last partial batch: decode with --required-batch-size-multiple 1, or with --user-dir and "
            "--task translation_with_teacher."
        )
    if missing[0] == expected - len(missing):
        causes.append(
            "the reference goes on after the last sentence of the test set: give its own reference."
        )
    else:  # first: the others are rare
        causes.insert(
            0,
            "longer sources were skipped (--skip-invalid-size-inputs-valid-test): decode without that option and with "
            "larger --max-source-positions, or leave these lines out of test set and reference.",
        )
    if not ended:
        causes.append("the run was cut short: decode again.")
    return causes


def read_classes(path: str | Path) -> list[str]:
    """Names of classes, one per line.

    Raises:
        ValueError: not UTF-8, or a line without a class.
    """
    classes = [line.strip() for line in read_lines(path)]
    if "" in classes:
        raise ValueError(f"`{path}`, line {classes.index('') + 1}: no class; write one class per line")
    return classes


def read_sets(path: str | Path) -> list[tuple[str, ...]]:
    """Names of classes with tabs between them, a row's on a line; an empty line is a row without any.

    Raises:
        ValueError: not UTF-8.
    """
    return [tuple(name for name in line.split("\t") if name) for line in read_lines(path)]


def read_numbers(path: str | Path) -> list[float]:
    """Numbers, one per line.

    Raises:
        ValueError: not UTF-8, or a line that is not a number.
    """
    try:
        return [float(line) for line in read_lines(path)]
    except ValueError as error:
        raise ValueError(f"`{path}`: {error}; write one number per line") from None


# readers of references by kind of task; predictions of classes and numbers are written like references
READERS: dict[str, Callable[[str | Path], list[Any]]] = {
    "text": read_lines,
    "classes": read_classes,
    "numbers": read_numbers,
    "sets": read_sets,
}


def prediction_line(prediction: Any) -> str:
    """A prediction as `READERS` read it: a class, a number, or the classes of a set."""
    return "\t".join(prediction) if isinstance(prediction, tuple) else f"{prediction}"


def read_predictions(kind: str, path: str | Path, expected: int) -> list[Any]:
    """Predictions of a system: the output of fairseq-generate for texts, else one per line."""
    return read_hypotheses(path, expected) if kind == "text" else READERS[kind](path)
