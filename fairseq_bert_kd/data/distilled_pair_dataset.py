"""A translation dataset with the teachers' rows beside each target."""

from collections.abc import Sequence

from fairseq.data import BaseWrapperDataset

from fairseq_bert_kd.batch import TEACHER
from fairseq_bert_kd.data.store_rows import StoreRows


class DistilledPairDataset(BaseWrapperDataset):
    """Wraps a `LanguagePairDataset`; its collater adds ``batch.TEACHER``.

    fairseq sorts the sentences of a batch by source length, so rows are attached by sentence id.

    Args:
        dataset: pairs with right-padded targets, ids counting through all parts of the corpus.
        teachers: each has rows for every pair.
    """

    def __init__(self, dataset, teachers: Sequence[StoreRows]):
        super().__init__(dataset)
        self.teachers = list(teachers)
        for teacher in self.teachers:
            assert len(teacher) == len(dataset), (len(teacher), len(dataset))

    def collater(self, samples, **kwargs):
        batch = self.dataset.collater(samples, **kwargs)
        if batch:
            ids, width = batch["id"].numpy(), batch["target"].size(1)
            batch[TEACHER] = [teacher.teacher_batch(ids, width) for teacher in self.teachers]
        return batch
