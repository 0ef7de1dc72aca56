"""Facts of the raw texts: digests, training pairs, and whether experiments of one task use the same texts."""

from collections.abc import Sequence

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

    Validation and test texts and the metric's settings must be the same for a task; training texts for a task, a size
    and a number of pairs.

    Args:
        experiments: experiments of a report.
        digests: `text_digests` of each.
        notes: notes of each; those of the later experiment get the note.
    """
    for i, experiment in enumerate(experiments):
        for earlier, before in enumerate(experiments[:i]):
            if before.task != experiment.task:
                continue
            same_size = (before.size, training_pairs(before)) == (experiment.size, training_pairs(experiment))
            names = sorted(digests[i].keys() & digests[earlier].keys())
            differing = [name for name in names if digests[i][name] != digests[earlier][name]]
            differing = [name for name in differing if same_size or not name.startswith("train.")]
            if differing:
                notes[i].add(
                    list_text(differing),
                    f"not the data of “{before.title}”, which has the same task name `{experiment.task}`: "
                    "their scores are not comparable",
                )
            scoring = [name for name in _SCORING if getattr(before, name) != getattr(experiment, name)]
            if scoring:
                notes[i].add(
                    list_text(scoring),
                    f"not scored like “{before.title}” of the same task: their scores are not comparable",
                )
