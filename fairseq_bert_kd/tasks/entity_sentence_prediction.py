"""Task ``entity_sentence_prediction``: classes or numbers for sentences whose tokens name entities."""

from dataclasses import dataclass

from fairseq.tasks import register_task

from fairseq_bert_kd.data.entity_dataset import EntitySentenceDataset
from fairseq_bert_kd.storage.entity_mentions import read_mentions
from fairseq_bert_kd.tasks.sentence_prediction_with_teacher import (
    SentencePredictionWithTeacherConfig,
    SentencePredictionWithTeacherTask,
)


@dataclass
class EntitySentencePredictionConfig(SentencePredictionWithTeacherConfig):
    """Options of `sentence_prediction_with_teacher`; the mentions stand in the data folder."""


@register_task("entity_sentence_prediction", dataclass=EntitySentencePredictionConfig)
class EntitySentencePredictionTask(SentencePredictionWithTeacherTask):
    """`sentence_prediction_with_teacher` with the mentions that ``fairseq-bert-kd entities`` wrote, for ``entity_encoder``."""

    def build_model(self, cfg, from_checkpoint=False):
        model = super().build_model(cfg, from_checkpoint)
        if not hasattr(model, "entities_digest"):
            raise ValueError(
                "--task entity_sentence_prediction is for --arch entity_encoder; without entities give --task "
                "sentence_prediction_with_teacher"
            )
        return model

    def make_dataset(self, folder, split, texts, targets=None, shuffle_seed=None):
        """Rows with their entities.

        Raises:
            FileNotFoundError: the split has no mentions.
            ValueError: they name rows of other vectors than the model's, or the rows are of no data folder.
        """
        if folder is None:
            raise ValueError(
                "a table of texts has no mentions of entities; make a data folder of it (prepare-sentences, entities) and give "
                "its split"
            )
        mentions = read_mentions(folder, split)
        model, _ = self._built
        if mentions.digest != model.entities_digest():
            raise ValueError(
                f"the mentions of split `{split}` of `{folder}` are of other entity vectors (sha256 {mentions.digest[:12]}) than "
                f"the model's ({model.entities_digest()[:12]}); run `fairseq-bert-kd entities` with the model's vectors"
            )
        return EntitySentenceDataset(texts, targets, self.dictionary.pad(), shuffle_seed, mentions)
