"""Digests of data, versions of libraries: what a number of the report rests on."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import fairseq_bert_kd
from fairseq_bert_kd.report.experiment import Experiment
from fairseq_bert_kd.report.notes import Notes
from fairseq_bert_kd.report.stores import StoreStat
from fairseq_bert_kd.storage.topk_stat import token_counts

_SUBSETS = ("train", "valid", "test")
_SCORING = ("metric", "lowercase", "bleu_tokenize")
_LIBRARIES = ("sacrebleu", "rouge-score", "numpy", "matplotlib")
_BLOCK = 1 << 20


def file_digest(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def text_digests(experiment: Experiment) -> dict[str, str]:
    """sha256 of every raw text that is there, by ``SUBSET.LANGUAGE``."""
    languages = (experiment.source_lang, experiment.target_lang)
    paths = [experiment.text(subset, language) for subset in _SUBSETS for language in languages]
    return {path.name: file_digest(path) for path in paths if path.is_file()}


def training_pairs(experiment: Experiment) -> int | None:
    """Lines of the raw training text; None where it is not there."""
    path = experiment.text("train", experiment.source_lang)
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def library_versions() -> dict[str, str]:
    """Of what this report was made with; installed ones only."""
    versions = {"python": platform.python_version(), "fairseq-bert-kd": fairseq_bert_kd.__version__}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def store_record(stat: StoreStat) -> dict[str, Any]:
    """What a store's header says: digests, the teacher, how it was scored."""
    info, header = stat.reader.info, stat.reader.header
    return {
        "digest": header.digest,
        "dictionary_digest": info.dictionary_digest,
        "tokenizer_digest": info.tokenizer_digest,
        "teacher": info.teacher,
        "teacher_digest": info.teacher_digest,
        "k": info.k,
        "passes": info.passes,
        "mask_plan": info.mask_plan,
        "temperatures": list(info.temperatures),
        "captured_mass": {
            f"{t:g}": {str(k): masses[k - 1] for k in token_counts(info.k)} for t, masses in stat.mass.items()
        },
        "gold_accuracy": stat.gold_accuracy,
        "gold_perplexity": stat.gold_perplexity,
        "scored_share": stat.scored_share,
        "versions": dict(sorted(info.versions.items())),
    }


def note_other_data(experiments: list[Experiment], digests: list[dict[str, str]], notes: list[Notes]) -> None:
    """Tell of experiments of the same task whose texts, or whose ways of scoring, differ: their scores do not compare.

    Validation and test texts and the metric's settings must be the same for a task, training texts for a task, a size and a
    number of pairs.

    Args:
        experiments: of a report.
        digests: `text_digests` of each.
        notes: of each; those of the later experiment are told.
    """
    for i, experiment in enumerate(experiments):
        for earlier in range(i):
            before = experiments[earlier]
            if before.task != experiment.task:
                continue
            same_size = (before.size, training_pairs(before)) == (experiment.size, training_pairs(experiment))
            names = sorted(digests[i].keys() & digests[earlier].keys())
            differing = [name for name in names if digests[i][name] != digests[earlier][name]]
            differing = [name for name in differing if same_size or not name.startswith("train.")]
            if differing:
                notes[i].add(
                    ", ".join(differing),
                    f"other data than in “{before.title}” under the same task name `{experiment.task}`: "
                    "their scores do not compare",
                )
            scoring = [name for name in _SCORING if getattr(before, name) != getattr(experiment, name)]
            if scoring:
                notes[i].add(
                    ", ".join(scoring),
                    f"scored otherwise than “{before.title}” of the same task: their scores do not compare",
                )
