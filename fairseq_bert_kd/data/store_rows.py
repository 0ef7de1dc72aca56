"""From stores to the teacher's entry of a mini-batch, see `fairseq_bert_kd.batch`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_bert_kd.batch import TeacherNeeds, encode_logits, encode_normalisers
from fairseq_bert_kd.data.absent_rows import AbsentRows
from fairseq_bert_kd.storage.topk_store import TopKReader


class StoreRows:
    """One teacher's rows for a corpus, by sentence.

    Args:
        readers: stores of consecutive parts of the corpus (``train``, ``train1``, ...), or parts without one; each has
            what is needed.
        needs: of the criterion.
        weight: of this teacher among several.
        upsample_first: how many times the host repeats the first part (``--upsample-primary``).

    Attributes:
        temperatures: at which every part knows its log-normalisers.
    """

    def __init__(
        self,
        readers: Sequence[TopKReader | AbsentRows],
        needs: TeacherNeeds,
        weight: float = 1.0,
        upsample_first: int = 1,
    ):
        self.readers = list(readers)
        self.topk, self.weight = needs.topk, weight
        sizes = [len(reader) for reader in self.readers]
        sizes[0] *= upsample_first
        self._starts = np.cumsum([0, *sizes])  # first sentence of each part
        infos = [reader.info for reader in self.readers]
        common = set.intersection(*(set(info.temperatures) for info in infos))
        self.temperatures = tuple(sorted(common))
        self._columns = [[info.temperatures.index(value) for value in self.temperatures] for info in infos]
        self._gold = all(info.gold for info in infos)
        self._samples = min(info.samples for info in infos) if needs.samples else 0

    def __len__(self) -> int:
        """Sentences, repeated ones counted again."""
        return int(self._starts[-1])

    def entry(self, sentence_ids: NDArray[np.int64], width: int) -> dict[str, Any]:
        """Rows of some sentences, in their order, ``width`` positions each."""
        if len(self.readers) == 1:
            joined = self._part(0, sentence_ids, width)
        else:
            part = np.searchsorted(self._starts, sentence_ids, side="right") - 1  # [batch row -> store]
            joined = {}
            for store in np.unique(part):
                rows = part == store
                # a repeated part begins again
                local = (sentence_ids[rows] - self._starts[store]) % len(self.readers[store])
                for name, values in self._part(int(store), local, width).items():
                    if name not in joined:
                        joined[name] = np.zeros((len(sentence_ids), *values.shape[1:]), values.dtype)
                    joined[name][rows] = values
        entry: dict[str, Any] = {name: _as_tensor(values) for name, values in joined.items()}
        settings = {"temperatures": self.temperatures, "weight": self.weight, "gold_stored": self._gold}
        return entry | settings

    def _part(self, store: int, sentences: NDArray[np.int64], width: int) -> dict[str, NDArray[Any]]:
        """Rows from one store by name, each array its own, in the types of the batch (float16 and float32 for bits)."""
        records, present = self.readers[store].gather_records(sentences, width)
        rows = {
            "ids": records["topk_ids"][..., : self.topk].astype(np.int32),
            "logit_bits": records["topk_logits"][..., : self.topk].copy(),
            "present": present,
        }
        if self.temperatures:
            rows["normaliser_bits"] = np.ascontiguousarray(
                records["log_normalisers"][..., self._columns[store]]
            )
        if self._gold:
            rows["gold_logit_bits"] = records["gold_logit"].copy()
        if self._samples:
            rows["sample_ids"] = records["sample_ids"][..., : self._samples].astype(np.int32)
            rows["sample_logit_bits"] = records["sample_logits"][..., : self._samples].copy()
        return rows


def _as_tensor(values: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(values)
    if tensor.dtype == torch.float16:
        return encode_logits(tensor)
    return encode_normalisers(tensor) if tensor.dtype == torch.float32 else tensor
