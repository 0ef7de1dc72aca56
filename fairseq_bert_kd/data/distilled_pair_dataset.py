"""A translation dataset with the teacher's rows beside each target."""

from collections.abc import Sequence

import numpy as np
import torch

from fairseq_bert_kd.batch import TEACHER, encode_logits
from fairseq_bert_kd.data.complete_batches import CompleteBatchesDataset
from fairseq_bert_kd.storage.topk_store import TopKReader


class DistilledPairDataset(CompleteBatchesDataset):
    """Wraps a `LanguagePairDataset`; its collater adds ``batch.TEACHER``.

    The host sorts the sentences of a batch by source length, so rows are attached by sentence id.

    Args:
        dataset: pairs with right-padded targets, ids counting through all stores.
        readers: stores of consecutive parts of the corpus (``train``, ``train1``, ...); all hold at
            least ``topk`` tokens.
        topk: teacher tokens per position to load.
        upsample_first: how many times the host repeats the first part (``--upsample-primary``).
    """

    def __init__(self, dataset, readers: Sequence[TopKReader], topk: int, upsample_first: int = 1):
        super().__init__(dataset)
        self.readers = list(readers)
        self.topk = topk
        sizes = [len(reader) for reader in self.readers]
        sizes[0] *= upsample_first
        self.starts = np.cumsum([0, *sizes])  # first id of each part
        assert self.starts[-1] == len(dataset), (self.starts, len(dataset))

    def collater(self, samples, **kwargs):
        batch = self.dataset.collater(samples, **kwargs)
        if batch:
            batch[TEACHER] = self.teacher_rows(batch["id"].numpy(), width=batch["target"].size(1))
        return batch

    def teacher_rows(self, sentence_ids: np.ndarray, width: int) -> dict[str, torch.Tensor]:
        """Rows of the sentences, in their order; shapes and types as in `fairseq_bert_kd.batch`."""
        if len(self.readers) == 1:
            rows = self.readers[0].gather(sentence_ids, width, self.topk)
            return _as_tensors(rows.topk_ids.astype(np.int32), rows.topk_logits.copy(), rows.present)
        shape = (len(sentence_ids), width, self.topk)
        ids, logits = np.zeros(shape, np.int32), np.zeros(shape, np.float16)
        present = np.zeros(shape[:2], np.bool_)
        part = np.searchsorted(self.starts, sentence_ids, side="right") - 1  # [batch row -> store]
        for store in np.unique(part):
            rows = part == store
            reader = self.readers[store]
            sentences = (sentence_ids[rows] - self.starts[store]) % len(
                reader
            )  # a repeated part begins again
            ids[rows], logits[rows], present[rows] = reader.gather(sentences, width, self.topk)
        return _as_tensors(ids, logits, present)


def _as_tensors(ids: np.ndarray, logits: np.ndarray, present: np.ndarray) -> dict[str, torch.Tensor]:
    return {
        "ids": torch.from_numpy(ids),
        "logit_bits": encode_logits(torch.from_numpy(logits)),
        "present": torch.from_numpy(present),
    }
