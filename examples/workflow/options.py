"""Reads the options of all steps as their programs will: a misspelt one would end an experiment after the hours before it."""

import contextlib
import difflib
import io
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

from examples.workflow.engine import Step
from fairseq_bert_kd.cli import dispatch, main
from fairseq_bert_kd.compat import require_fairseq

USER_DIR = "$(fairseq-bert-kd --user-dir)"
MOST_CHOICES = 20  # fairseq has hundreds of architectures
_END = re.compile(r"[&|;<>()]+")  # of a program's words


def check_options(steps: Iterable[Step]) -> None:
    """Check the options of every fairseq-train, fairseq-generate and fairseq-bert-kd; values that bash fills in stay unchecked.

    Raises:
        ValueError: a program would refuse its options.
        ImportError: fairseq is not there.
    """
    seen = set()
    for step in steps:
        kind = re.sub(r"\d+", "0", step.command)  # seeds and numbers of folds: the same options
        if kind in seen:
            continue
        seen.add(kind)
        for name, *words in programs(step.command):
            if reason := refusal(name, words):
                raise ValueError(f"step {step.name} would end with `{reason}`. Correct its settings")


def programs(command: str) -> Iterator[list[str]]:
    """Words of each program in a line of bash, as far as they can be told without running it."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="&|;<>()")
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        for word in [*lexer, ";"]:
            if not _END.fullmatch(word):
                words.append(word)
            elif words:
                yield words
                words = []
    except ValueError:  # quotes that only bash understands
        return


def refusal(name: str, words: Sequence[str]) -> str:
    """What a program would say of its options; empty if it takes them, or is none of ours and fairseq's."""
    given = [word for word in words if word not in ("--user-dir", USER_DIR)]
    if len(words) - len(given) not in (0, 2) or any("$" in word or "`" in word for word in given):
        return ""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            _parse(name, given)
    except SystemExit as end:
        return _shortened(said.getvalue().strip().splitlines()[-1]) if end.code else ""
    except (ValueError, OSError):  # a parser may read what an earlier step makes, such as a model's folder
        return ""
    return ""


def _shortened(reason: str) -> str:
    """argparse's words, with the choices most alike where there are too many to read."""
    found = re.fullmatch(r"(.*invalid choice: '?(.*?)'?) \(choose from (.*)\)", reason)
    choices = re.findall(r"[^', ]+", found[3]) if found else []
    if found is None or len(choices) <= MOST_CHOICES:
        return reason
    alike = difflib.get_close_matches(found[2], choices)
    return f"{found[1]} (most alike: {', '.join(alike) or 'none'})"


def _parse(name: str, words: Sequence[str]) -> None:
    """Parse the options of a program; SystemExit as argparse does."""
    if name == main.PROG and words and words[0] in main.COMMANDS:
        dispatch.get_parser(main.COMMANDS, name, words[0]).parse_args(words[1:])
    elif name in ("fairseq-train", "fairseq-generate"):
        require_fairseq()
        from fairseq import options

        import fairseq_bert_kd.tasks  # noqa: F401  registers all of ours

        parser = options.get_training_parser() if name == "fairseq-train" else options.get_generation_parser()
        parser.prog = name
        options.parse_args_and_arch(parser, input_args=list(words))
