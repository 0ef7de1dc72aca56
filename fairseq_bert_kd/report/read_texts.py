"""Facts of the raw texts: digests, training pairs, and whether experiments of one task use the same texts."""

from collections.abc import Sequence
from itertools import combinations

from fairseq_bert_kd.compat import file_digest
from fairseq_bert_kd.report.formatting import list_text
from fairseq_bert_kd.report.read_experiment import Experiment, Notes

_SUBSETS = ("train", "valid", "test")
_SCORING = ("metric", "lowercase", "bleu_tokenize")


def text_digests(experiment: Experiment) -> dict[str, str]:
    """sha256 of every raw text that exists, by ``SUBSET.LANGUAGE``."""
    languages = (experiment.source_lang, experiment.target_lang)
    paths = [experiment.text(subset, language) for subset in _SUBSETS for language in languages]
    return {path.name: file_digest(path) for path in paths if path.is_file()}


def training_pairs(experiment: Experiment) -> int | None:
    """Lines of the raw training text; None without it."""
    path = experiment.text("train", experiment.source_lang)
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def note_other_data(
    experiments: Sequence[Experiment], digests: Sequence[dict[str, str]], notes: Sequence[Notes]
) -> None:
    """Note experiments of one task that differ in texts or scoring, since their scores are not comparable.

    Validation and test texts and the metric's settings must be the same. Training texts may differ: the table says how
    many pairs they have.

    Args:
        experiments: experiments of a report.
        digests: `text_digests` of each.
        notes: notes of each; those of the later experiment get the note.
    """
    for i, j in combinations(range(len(experiments)), 2):
        before, after = experiments[i], experiments[j]
        if before.task != after.task:
            continue
        names = sorted(digests[i].keys() & digests[j].keys())
        differing = [
            *(name for name in names if digests[i][name] != digests[j][name] and not name.startswith("train.")),
            *(name for name in _SCORING if getattr(before, name) != getattr(after, name)),
        ]
        if differing:
            notes[j].add(
                list_text(differing),
                f"not those of “{before.title}”, which has the same task name `{after.task}`: their scores are not "
                "comparable",
            )
