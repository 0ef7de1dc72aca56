"""A teacher's rows of a mini-batch from its stores, see `fairseq_bert_kd.batch`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fairseq_bert_kd.batch import TeacherRequirements, pack
from fairseq_bert_kd.data.absent_rows import AbsentRows
from fairseq_bert_kd.storage.topk_store import TopKReader


class StoreRows:
    """One teacher's rows for a corpus, by sentence.

    Args:
        readers: stores of consecutive parts of the corpus (``train``, ``train1``, ...), or parts without one; each has
            what is required.
        requirements: requirements of the criterion.
        weight: weight of this teacher among several.
        upsample_first: times that fairseq repeats the first part (``--upsample-primary``).

    Attributes:
        temperatures: temperatures whose log-normalisers every part has.
    """

    def __init__(
        self,
        readers: Sequence[TopKReader | AbsentRows],
        requirements: TeacherRequirements,
        weight: float = 1.0,
        upsample_first: int = 1,
    ):
        self.readers = list(readers)
        self.topk, self.weight = requirements.topk, weight
        sizes = [len(reader) for reader in self.readers]
        sizes[0] *= upsample_first
        self._starts = np.cumsum([0, *sizes])  # first sentence of each part
        infos = [reader.info for reader in self.readers]
        common = set.intersection(*(set(info.temperatures) for info in infos))
        self.temperatures = tuple(sorted(common))
        self._columns = [[info.temperatures.index(value) for value in self.temperatures] for info in infos]
        self._gold = all(info.gold for info in infos)
        self._samples = min(info.samples for info in infos) if requirements.samples else 0

    def __len__(self) -> int:
        """Sentences, repeated ones counted again."""
        return int(self._starts[-1])

    def teacher_batch(self, sentence_ids: NDArray[np.int64], width: int) -> dict[str, Any]:
        """One dict of ``sample[TEACHER]``: rows of some sentences, in their order, ``width`` positions each."""
        if len(self.readers) == 1:
            joined = self._part(0, sentence_ids, width)
        else:
            part = np.searchsorted(self._starts, sentence_ids, side="right") - 1  # (batch,) store of each row
            joined = {}
            for store in np.unique(part):
                rows = part == store
                # a repeated part begins again
                local = (sentence_ids[rows] - self._starts[store]) % len(self.readers[store])
                for name, values in self._part(int(store), local, width).items():
                    if name not in joined:
                        joined[name] = np.zeros((len(sentence_ids), *values.shape[1:]), values.dtype)
                    joined[name][rows] = values
        fields: dict[str, Any] = pack({name: torch.from_numpy(values) for name, values in joined.items()})
        settings = {"temperatures": self.temperatures, "weight": self.weight, "gold_stored": self._gold}
        return fields | settings

    def _part(self, store: int, sentences: NDArray[np.int64], width: int) -> dict[str, NDArray[Any]]:
        """Fields of the rows from one store, ``(sentences, width, ...)``, each array its own."""
        records, present = self.readers[store].gather_records(sentences, width)
        rows = {
            # ids are uint16 or int32 on disk, and torch has no arithmetic on uint16
            "topk_ids": records["topk_ids"][..., : self.topk].astype(np.int32),
            "topk_logits": records["topk_logits"][..., : self.topk].copy(),
            "present": present,
        }
        if self.temperatures:
            normalisers = records["log_normalisers"][..., self._columns[store]]
            rows["log_normalisers"] = np.ascontiguousarray(normalisers)
        if self._gold:
            rows["gold_logit"] = records["gold_logit"].copy()
        if self._samples:
            rows["sample_ids"] = records["sample_ids"][..., : self._samples].astype(np.int32)
            rows["sample_logits"] = records["sample_logits"][..., : self._samples].copy()
        return rows
