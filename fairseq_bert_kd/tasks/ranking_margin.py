"""Task ``ranking_margin``: sources with a reference and a sample of the generator, on which an evaluator goes on to learn."""

import logging
from dataclasses import dataclass, field
from typing import Optional

import numpy as np
from fairseq import utils
from fairseq.tasks import register_task
from numpy.typing import NDArray

from fairseq_bert_kd.data.sentence_dataset import SentenceDataset
from fairseq_bert_kd.data.text_list import TextList
from fairseq_bert_kd.evaluation.fairseq_output import read_hypotheses, read_lines
from fairseq_bert_kd.evaluation.paraphrase_metrics import distance_places, edit_distances
from fairseq_bert_kd.functional.truncation import cut_text
from fairseq_bert_kd.rewards.evaluator import positive_class
from fairseq_bert_kd.rewards.overlap import RougeReward
from fairseq_bert_kd.storage.sentence_data import check_tokenizer
from fairseq_bert_kd.tasks.sentence_prediction_with_teacher import (
    SentencePredictionWithTeacherConfig,
    SentencePredictionWithTeacherTask,
)
from fairseq_bert_kd.tokenization.dictionary import token_ids
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

logger = logging.getLogger(__name__)

TEXTS = 3  # of a triple
FILES = {
    "ranking_sources": "the raw text that the generator read",
    "ranking_references": "the raw references of these sources",
    "ranking_samples": "what fairseq-generate wrote for them",
}


@dataclass
class RankingMarginTaskConfig(SentencePredictionWithTeacherConfig):
    """Options of ``sentence_prediction_with_teacher``, and the texts that are ranked."""

    ranking_sources: Optional[str] = field(
        default=None, metadata={"help": "raw text that the generator read, one sentence per line"}
    )
    ranking_references: Optional[str] = field(
        default=None, metadata={"help": "raw reference text, one sentence per line"}
    )
    ranking_samples: Optional[str] = field(
        default=None,
        metadata={
            "help": "what the generator wrote: output of fairseq-generate with text, for example with --sampling --beam 1"
        },
    )
    ranking_positive: Optional[str] = field(
        default=None,
        metadata={
            "help": "name of the class of paraphrases (default: the positive class that the data were prepared with)"
        },
    )


@register_task("ranking_margin", dataclass=RankingMarginTaskConfig)
class RankingMarginTask(SentencePredictionWithTeacherTask):
    """Training rows are triples of source, reference and sample; validation is that of the data folder's labelled pairs.

    Attributes:
        positive: number of the class of paraphrases.
    """

    positive: int

    def build_criterion(self, cfg, *args, **kwargs):
        name = getattr(cfg, "_name", None)
        if name != "ranking_margin":
            raise ValueError(f"task ranking_margin needs --criterion ranking_margin, not `{name}`")
        self.positive = positive_class(
            self.spec, self.cfg.ranking_positive, f"data folder `{self.cfg.data}`", "--ranking-positive"
        )
        return super().build_criterion(cfg, *args, **kwargs)

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """Load the triples for training, else a split of the folder.

        Raises:
            ValueError: files that are not given or do not belong together.
        """
        if split != self.cfg.train_subset:
            super().load_dataset(split, epoch, combine, **kwargs)
            return
        sources, references, samples = self._texts()
        name = self._tokenizer_name
        tokenizer = HfTokenizer(name)
        check_tokenizer(f"data folder `{self.cfg.data}`", self.spec.tokenizer, tokenizer.digest(), name)
        sides = [
            TextList(self._cut(token_ids(tokenizer, self.dictionary, texts)))
            for texts in (sources, references, samples)
        ]
        rouge = RougeReward("rouge-l")(sources, samples, references)
        places = distance_places(edit_distances(sources, references))
        targets = np.stack([rouge, places], axis=1)  # (rows, 2) float64
        self.datasets[split] = SentenceDataset(sides, targets, self.dictionary.pad(), self.cfg.seed)

    def _texts(self) -> tuple[list[str], list[str], list[str]]:
        cfg = self.cfg
        for name, what in FILES.items():
            if not getattr(cfg, name):
                raise ValueError(
                    f"task ranking_margin needs --{name.replace('_', '-')} FILE, {what}; give it"
                )
        sources, references = read_lines(cfg.ranking_sources), read_lines(cfg.ranking_references)
        if len(sources) != len(references):
            raise ValueError(
                f"`{cfg.ranking_sources}` has {len(sources)} lines, `{cfg.ranking_references}` {len(references)}; give the two "
                "sides of one text"
            )
        return sources, references, read_hypotheses(cfg.ranking_samples, len(sources))

    def _cut(self, texts: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
        """Texts of which any two fit into the model."""
        if self.row_limit is None:
            return texts
        most = max(self.row_limit // 2, 1)
        if cut := sum(len(text) > most for text in texts):
            logger.warning(
                "%d of %d texts were cut to %d tokens, half of what the model reads (or of --max-positions)",
                *(cut, len(texts), most),
            )
        return [cut_text(text, most) for text in texts]

    def filter_indices_by_size(self, indices, dataset, max_positions=None, ignore_invalid_inputs=False):
        """All rows: of the three texts of a triple the model reads two at a time, so that all may be longer than it reads."""
        limits = [max_positions] if isinstance(max_positions, int) else [*(max_positions or ())]
        kept = tuple(
            limit for limit in limits if len(dataset.texts) < TEXTS or limit != self._model_positions
        )
        return super().filter_indices_by_size(indices, dataset, kept or None, ignore_invalid_inputs)

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        if len(sample["net_input"]["texts"]) != TEXTS:  # a worker without a batch may get one of validation
            data = self.datasets[self.cfg.train_subset]
            stand_in = data.collater([data[0]])
            sample = utils.move_to_cuda(stand_in) if sample["id"].is_cuda else stand_in
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)
