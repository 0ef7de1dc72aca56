"""What criterions of sentences have in common whose model reads smoothed words in training (Wu et al. 2020)."""

import inspect
from typing import Any

from fairseq_bert_kd.modules.text_smoother import SpecialIds, TextSmoother, log_means


class SmoothedInputs:
    """Mixin before a criterion of single sentences: in training the model reads smoothed words, in validation plain ones.

    With ``--smoothing-schedule both`` each sentence counts twice, so the plain and the smoothed loss weigh half each. Weight 0
    is the criterion itself.

    Attributes:
        smoother: of the options; the task opens its store.
    """

    def __init__(self, cfg, task):
        super().__init__(cfg, task)  # type: ignore[call-arg]
        self.smoother = TextSmoother(cfg, task.cfg.seed)
        self.special = SpecialIds.of(task.source_dictionary)

    def prepare(self, model):
        """Check that a model can read smoothed words.

        Raises:
            ValueError: it cannot.
        """
        if self.smoother.active and "smoothed" not in inspect.signature(model.forward).parameters:
            raise ValueError(
                f"--smoothing-weight above 0 needs a model that reads smoothed words, `{type(model).__name__}` does not; choose "
                "--arch hf_encoder, tinybert_3x192 or sentence_lstm, or --smoothing-weight 0"
            )
        prepare: Any = getattr(super(), "prepare", None)
        if prepare is not None:
            prepare(model)

    def set_num_updates(self, updates):
        """The draws follow the number of updates."""
        self.smoother.updates = updates

    def forward(self, model, sample, reduce=True):
        loss_of: Any = super().forward  # type: ignore[misc]
        if not (model.training and self.smoother.active):
            return loss_of(model, sample, reduce)
        if not self.smoother.has_rows(sample):
            # of validation, for a worker that has none left: fairseq ignores the gradient, and all must log the same names
            loss, sample_size, logs = loss_of(model, sample, reduce)
            return loss, sample_size, logs | self.smoother.log_of_none(loss)
        [tokens] = sample["net_input"]["texts"]
        sample, text = self.smoother.smoothed_batch(sample, tokens, self.special)
        net_input = {**sample["net_input"], "smoothed": (text,)}
        loss, sample_size, logs = loss_of(model, {**sample, "net_input": net_input}, reduce)
        return loss, sample_size, logs | self.smoother.log(text, net_input["texts"][0])

    @classmethod
    def reduce_metrics(cls, logging_outputs):
        super().reduce_metrics(logging_outputs)  # type: ignore[misc]
        log_means(logging_outputs)
