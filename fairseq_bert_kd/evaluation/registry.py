"""All metrics by name."""

from collections.abc import Mapping

from fairseq_bert_kd.evaluation import classification_metrics, text_metrics
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        text_metrics.Bleu,
        text_metrics.Chrf,
        text_metrics.LengthRatio,
        text_metrics.Rouge1,
        text_metrics.Rouge2,
        text_metrics.RougeL,
        classification_metrics.Accuracy,
        classification_metrics.F1,
        classification_metrics.Matthews,
        classification_metrics.Pearson,
        classification_metrics.Spearman,
        classification_metrics.MicroF1,
        classification_metrics.LooseF1,
        classification_metrics.StrictAccuracy,
    )
}
ALIASES = {"chrf": "chrf2", "rouge": "rougeL"}
TITLES = {name: metric.title for name, metric in METRICS.items()}


def find_metric(name: str) -> type[Metric]:
    """Class of a metric by its name or alias.

    Raises:
        ValueError: no metric has this name.
    """
    try:
        return METRICS[ALIASES.get(name, name)]
    except KeyError:
        known = ", ".join(sorted({*METRICS, *ALIASES}))
        raise ValueError(f"`{name}` is not a metric; the metrics are {known}") from None


def table_metrics(main: str, settings: MetricSettings) -> dict[str, Metric]:
    """Metrics of a table by name, in the order of its columns.

    Args:
        main: name or alias of the metric by which systems are compared.
        settings: how predictions are compared with references.

    Raises:
        ValueError: an unknown metric, or a tokenizer that is not available.
        ImportError: a package that the metric needs is not installed.
    """
    return {name: METRICS[name](settings) for name in find_metric(main).columns}


def signatures(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Signatures by title, each once: metrics that share a signature are listed under the first one's title.

    What predictions and references went through before stands at the end, as ``norm:``.
    """
    listed: dict[str, str] = {}
    for metric in metrics.values():
        normalised = metric.settings.normalised
        signature = f"{metric.signature}|norm:{normalised}" if normalised else metric.signature
        if signature not in listed.values():
            listed[metric.signature_title or metric.title] = signature
    return listed
