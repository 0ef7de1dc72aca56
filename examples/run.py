"""Run an experiment: text, teachers, stores, students, outputs and report, each step once.

    python examples/run.py SETTINGS [ROW...] [KEY=VALUE...]

SETTINGS is a YAML file or the name of an example (multi30k). A ROW is a system or a group of its table, or `all`.
Every setting can be given as KEY=VALUE: `size=gpu jobs=2 teacher_training.updates=800 seeds=[1]`. A start that was
killed goes on where it was when the same command is given again. --dry-run shows the steps and runs none.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.workflow.engine import Workflow
from examples.workflow.options import check_options
from examples.workflow.settings import check_needs, load


def main(arguments: list[str]) -> int:
    """Exit status: 0, 1 after a step that failed, 2 after a user error."""
    words = [word for word in arguments if word != "--dry-run"]
    if not words or any(word.startswith("-") for word in words):
        print(__doc__)
        return 0 if {"-h", "--help"} & set(words) else 2
    try:
        settings, kind = load(words[0], words[1:])
        out = Path(settings.out)
        workflow = Workflow(out, kind.steps(settings), settings.jobs, settings.gpus)
        if "--dry-run" in arguments:
            workflow.show()
            return 0
        workflow.check()
        check_needs(settings)
        # scores and report run again at every start: what is wrong there costs no hours
        check_options(step for step in workflow.steps if not (step.always or workflow.is_done(step)))
        out.mkdir(parents=True, exist_ok=True)
        kind.check(settings)
        return workflow.run()
    except (ValueError, OSError, ImportError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
