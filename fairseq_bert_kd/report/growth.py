"""Gain against the number of training pairs, over experiments of one task."""

from collections.abc import Iterator, Sequence
from functools import partial

from fairseq_bert_kd.evaluation.text_metrics import NAMES
from fairseq_bert_kd.report.formats import plain_name, signed
from fairseq_bert_kd.report.plot_style import Panel
from fairseq_bert_kd.report.plots import draw_values
from fairseq_bert_kd.report.results import Spread
from fairseq_bert_kd.report.section import Section


def growth_panels(sections: Sequence[Section]) -> Iterator[Panel]:
    """A panel for each task and size whose experiments have two or more numbers of training pairs.

    Experiments with another reference, metric, teacher, or options of the main system stand in panels of their own. An
    experiment whose number of pairs another one before it has is left out.
    """
    kinds: dict[tuple[object, ...], dict[float, list[float]]] = {}
    for section in sections:
        if (
            section.main is None
            or not section.main.gains
            or section.results is None
            or not section.training_pairs
        ):
            continue
        experiment, results = section.experiment, section.results
        reference = experiment.text(results.subset, experiment.target_lang).name
        kind = (
            experiment.task, experiment.size, results.main_metric, results.metrics.settings, section.digests.get(reference),
            experiment.teacher, section.main.options,
        )  # fmt: skip
        kinds.setdefault(kind, {}).setdefault(section.training_pairs, list(section.main.gains.values()))
    drawn = [
        (str(task), str(size), str(metric), points)
        for (task, size, metric, *_), points in kinds.items()
        if len(points) > 1
    ]
    for number, (task, size, metric, points) in enumerate(drawn, 1):
        unit = NAMES[metric]
        alike = sum(other[:2] == (task, size) for other in drawn) > 1
        listed = "; ".join(
            f"{pairs:,}: {signed(sum(gains) / len(gains))}" for pairs, gains in sorted(points.items())
        )
        yield Panel(
            f"gain-by-pairs-{plain_name(task)}-{plain_name(size)}{f'-{number}' if alike else ''}",
            f"Gain against training pairs, {unit}",
            f"{task}, {size} size. Dots are seeds, the line joins their means. Teacher and students of each point know its training pairs only.",
            f"{task}, {size} size: gain by number of training pairs: {listed}.",
            partial(
                draw_values,
                points=points,
                baseline=("no gain", Spread(0.0, None, 1)),
                labels=("training pairs", f"gain, {unit}"),
            ),
        )
