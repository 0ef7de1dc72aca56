"""A student, and batches as training has them: random tokens with the lengths of talks, sorted, and made-up teacher rows."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset
from fairseq.data.data_utils import batch_by_size
from fairseq.models.transformer import TransformerModel
from numpy.typing import NDArray

from benchmarks.synthetic import make_dictionary, make_info, make_pairs, make_records
from fairseq_bert_kd.batch import TEACHER, TeacherRequirements
from fairseq_bert_kd.data.store_rows import StoreRows
from fairseq_bert_kd.models.student_presets import distilled_transformer_base
from fairseq_bert_kd.storage.topk import TopKInfo

PAD = 1
TEMPERATURES = (1.0, 2.0, 5.0, 10.0)
K = SAMPLES = 8
SMALL = {
    "encoder_embed_dim": 256, "encoder_ffn_embed_dim": 1024, "encoder_attention_heads": 4, "encoder_layers": 3,
    "decoder_embed_dim": 256, "decoder_ffn_embed_dim": 1024, "decoder_attention_heads": 4, "decoder_layers": 3,
}  # fmt: skip
TINY = {name: 16 if name.endswith("dim") else 1 for name in SMALL}
SIZES = {"tiny": TINY, "small": SMALL, "base": {}}  # beside the preset's: 6+6 layers, 512, feed-forward 2048


@dataclass(frozen=True)
class Setting:
    """What is trained, and on what.

    Attributes:
        size: a key of `SIZES`.
        dictionary: number of symbols of the target dictionary, which the source shares.
        max_tokens: tokens of a batch on its longer side, padding counted, as ``--max-tokens``.
        device: "cpu" or "cuda".
        precision: "fp32", "bf16" (autocast) or "fp16" (all weights).
        batches: number of different batches, from short sentences to long ones.
    """

    size: str
    dictionary: int
    max_tokens: int
    device: str
    precision: str = "fp32"
    batches: int = 3

    @property
    def dtype(self) -> torch.dtype:
        """Type of parameters and their gradients."""
        return torch.float16 if self.precision == "fp16" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """Context of the forward pass."""
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)


class RowsInMemory:
    """Teacher rows with a reader's interface: the same rows for every sentence."""

    def __init__(self, info: TopKInfo, lengths: NDArray[Any]):
        self.info, self.lengths = info, lengths
        self.records = make_records(info, int(lengths.max()) * 64)

    def __len__(self) -> int:
        return len(self.lengths)

    def gather_records(self, sentence_ids: NDArray[Any], width: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """``(batch, width)`` records, and where there is a token."""
        present = np.arange(width) < self.lengths[sentence_ids][:, None]
        places = np.arange(present.size).reshape(present.shape) % len(self.records)
        rows = self.records[places]
        rows[~present] = np.zeros((), rows.dtype)
        return rows, present


def make_task(symbols: int) -> Any:
    """What criterions and models need of a task."""
    dictionary = make_dictionary(symbols)
    return SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)


def make_student(setting: Setting, task: Any) -> TransformerModel:
    """A student in training mode, with random weights."""
    torch.manual_seed(0)
    options = argparse.Namespace(max_source_positions=1024, max_target_positions=1024, **SIZES[setting.size])
    distilled_transformer_base(options)
    student = TransformerModel.build_model(options, task)
    return student.to(device=setting.device, dtype=setting.dtype).train()


def make_batches(setting: Setting, dictionary: Dictionary) -> list[dict[str, Any]]:
    """Batches as fairseq makes them of sentences sorted by length, with one teacher's rows."""
    pairs = make_pairs(max(2 * setting.max_tokens, 400), setting.dictionary)
    source, target = ([torch.from_numpy(side[i]) for i in range(len(side))] for side in pairs.values())
    dataset = LanguagePairDataset(
        source, pairs["source"].sizes, dictionary, target, pairs["target"].sizes, dictionary, shuffle=False
    )
    info = make_info(
        K, dictionary_size=setting.dictionary, temperatures=TEMPERATURES, gold=True, samples=SAMPLES
    )
    reader: Any = RowsInMemory(info, pairs["target"].sizes)
    teacher = StoreRows([reader], TeacherRequirements(K, samples=True))
    found = batch_by_size(
        dataset.ordered_indices(),
        dataset.num_tokens,
        max_tokens=setting.max_tokens,
        required_batch_size_multiple=8,
    )
    # from the middle of equal parts, so that neither the shortest nor the longest stand for all
    middles = (np.arange(setting.batches) + 0.5) * len(found) / setting.batches
    batches = []
    for place in middles.astype(int):
        batch = dataset.collater([dataset[int(index)] for index in found[place]])
        batch[TEACHER] = [teacher.teacher_batch(batch["id"].numpy(), batch["target"].size(1))]
        batches.append(utils.move_to_cuda(batch) if setting.device == "cuda" else batch)
    return batches
