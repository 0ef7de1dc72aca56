"""COMET (Rei et al. 2020) by its own package, ``unbabel-comet``: a learned metric that also reads the source."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.compat import import_extra
from fairseq_bert_kd.evaluation.metric import Metric, MetricSettings, Values

BATCH = 16  # segments of a batch


class Comet(Metric):
    """Mean of the segments' COMET, times 100.

    Args:
        settings: how predictions are compared with references; COMET takes the texts as they are.
        model: path of a checkpoint, or a hub name such as ``Unbabel/wmt22-comet-da``.
        sources: ``(sentences,)`` source texts.

    Raises:
        ImportError: unbabel-comet is not installed.
        ValueError: the weights are not there.
    """

    name, title, kind, columns, resampled = "comet", "COMET", "text", ("comet",), "segment COMET"

    def __init__(self, settings: MetricSettings, model: str, sources: Sequence[str]):
        super().__init__(settings)
        comet = import_extra("comet", "comet", "--comet")
        self.model_name, self.sources = model, list(sources)
        try:
            path = model if Path(model).is_file() else comet.download_model(model)
            self.scorer = comet.load_from_checkpoint(path)
        except Exception as error:  # the package raises what its downloader and torch raise
            raise ValueError(
                f"--comet `{model}` cannot be loaded ({type(error).__name__}: {error}); give the path of a COMET checkpoint "
                "(a .ckpt file), or a hub name where the hub can be reached"
            ) from error
        self._known: dict[tuple[str, ...], NDArray[np.float64]] = {}

    @property
    def signature(self) -> str:
        return (
            f"model:{Path(self.model_name).name}|x100|version:{importlib.metadata.version('unbabel-comet')}"
        )

    def _corpus_score(self, predictions: Values, references: Values) -> float:
        return float(self.sentence_scores(predictions, references).mean())

    def sentence_scores(self, predictions: Values, references: Values) -> NDArray[np.float64]:
        if len(self.sources) != len(references):
            raise ValueError(
                f"{len(self.sources)} sources for {len(references)} references; give the source text of the same sentences"
            )
        key = tuple(predictions)
        if key not in self._known:
            texts = zip(self.sources, predictions, references, strict=True)
            segments: list[dict[str, Any]] = [{"src": s, "mt": p, "ref": r} for s, p, r in texts]
            gpus = int(import_extra("torch").cuda.is_available())
            scored = self.scorer.predict(segments, batch_size=BATCH, gpus=gpus)
            self._known[key] = 100 * np.asarray(scored.scores, dtype=np.float64)
        return self._known[key]
