"""Sums over the logs of batches and workers, for ``reduce_metrics``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairseq import utils


def log_sums(logging_outputs: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, float]:
    """Sum of each name over all logs, as a number; a log without the name counts 0."""
    return {name: utils.item(sum(log.get(name, 0) for log in logging_outputs)) for name in names}
