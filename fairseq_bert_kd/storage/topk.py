"""The schema of token rows: a teacher's k best tokens for every target position, with logits and log-normalisers."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fairseq_bert_kd.storage.fairseq_data import (
    SideFiles,
    decode_dictionary,
    dictionary_digest,
    translation_files,
)
from fairseq_bert_kd.storage.folds import Fold, FoldTeacher, parse_fold
from fairseq_bert_kd.storage.probabilities import token_probs
from fairseq_bert_kd.storage.schema import ChunkData, RowFault, StoreInfo
from fairseq_bert_kd.storage.store_folders import rebuilding

STRIDED_PLAN = "strided"  # position t of a target was masked and scored in pass t mod passes
PREFIX_PLAN = "left-to-right"  # nothing was masked: position t was scored from the source and positions < t
MASK_PLANS = (STRIDED_PLAN, PREFIX_PLAN)
LOGIT_DTYPE = np.dtype("<f2")
NORMALISER_DTYPE = np.dtype("<f4")
NOT_IMPORTED = 3  # status of a sentence that an imported table does not hold
OTHER_FOLD = 4  # status of a sentence of another fold, in a store of one fold
NORMALISER_SLACK = 1e-4  # nats; float32 sums over a dictionary of 10^5 stay well within
_ID_LIMIT = 2**31
_ROW_BLOCK = 1 << 16  # rows whose probabilities are in memory together
# order of the header's `info` since format 2, which is part of its bytes
_STATED = (
    "k", "dictionary_size", "dictionary_digest", "split", "source_lang", "target_lang", "passes", "teacher",
    "teacher_digest", "mask_ratio", "versions", "temperatures", "gold", "samples", "sample_seed",
    "source_dictionary_digest", "tokenizer_digest", "precision", "device", "max_tokens", "chunk_sentences", "origin",
    "mask_plan", "folds", "entities_digest", "mentions_digest",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TopKInfo(StoreInfo):
    """Statement of the creator of a store of token rows; see `StoreInfo` for the fields of every store.

    Attributes:
        k: teacher tokens per row.
        dictionary_size: symbols of the student's target dictionary, special ones included.
        dictionary_digest: digest of these symbols, see `fairseq_data.dictionary_digest`.
        source_lang: source language, as in the data's file names.
        target_lang: target language, as in the data's file names.
        passes: passes over each sentence, see ``mask_plan``; 1 when left-to-right.
        mask_ratio: share of target tokens masked while the teacher was trained, 0 to 1.
        temperatures: those with a log-normaliser in each row, positive, ascending; empty where not known.
        gold: whether each row holds the gold token and its logit.
        samples: tokens in each row that were drawn from the teacher outside the stored ones.
        sample_seed: seed of these draws.
        source_dictionary_digest: digest as ``dictionary_digest``, for the source side; "" where not known.
        mask_plan: one of `MASK_PLANS`, what the teacher could see.
        entities_digest: of the entity vectors that the teacher read; "" for a teacher without entities.
        mentions_digest: of the mentions that carried them; likewise.
        folds: for out-of-fold soft labels the teacher of the one fold that the store holds, or of all folds; else empty.
    """

    k: int
    dictionary_size: int
    dictionary_digest: str
    source_lang: str
    target_lang: str
    passes: int
    mask_ratio: float
    temperatures: tuple[float, ...] = (1.0, 5.0, 10.0)
    gold: bool = False
    samples: int = 0
    sample_seed: int = 0
    source_dictionary_digest: str = ""
    mask_plan: str = STRIDED_PLAN
    folds: tuple[FoldTeacher, ...] = ()
    entities_digest: str = ""
    mentions_digest: str = ""

    schema: ClassVar[str] = "top-k logits"
    version: ClassVar[int] = 2
    suffix: ClassVar[str] = "topk"
    command: ClassVar[str] = "fairseq-bert-kd dump"
    sides: ClassVar[tuple[str, ...]] = ("source", "target")
    row_side: ClassVar[str | None] = "target"
    dictionary_side: ClassVar[str | None] = "target"
    status_names: ClassVar[tuple[str, ...]] = ("scored", "too_long", "not_finite", "not_imported")
    mask_plans: ClassVar[tuple[str, ...]] = MASK_PLANS
    blobs: ClassVar[tuple[str, ...]] = ("dictionary",)
    # rows whose best token is the gold token, and negative log-likelihood of the gold tokens at temperature 1, in nats
    unknown: ClassVar[Mapping[str, Any]] = {"gold_correct": -1, "gold_nll": math.nan}

    @property
    def fold(self) -> Fold | None:
        """The fold that the store holds; None where it holds the whole corpus."""
        return parse_fold(self.folds[0].fold) if len(self.folds) == 1 else None

    @property
    def statuses(self) -> tuple[str, ...]:
        return (*self.status_names, "other_fold") if self.fold else self.status_names

    @property
    def hides(self) -> bool:
        """Whether a bidirectional teacher saw its mask token at the positions that it predicted."""
        return True

    # ------------------------------------------------------------ layout

    @property
    def record_dtype(self) -> np.dtype[Any]:
        ids = np.dtype("<u2" if self.dictionary_size <= 2**16 else "<i4")
        parts: list[tuple] = []
        if self.temperatures:
            parts.append(("log_normalisers", NORMALISER_DTYPE, (len(self.temperatures),)))
        parts += [("topk_ids", ids, (self.k,)), ("topk_logits", LOGIT_DTYPE, (self.k,))]
        if self.gold:
            parts += [("gold_id", ids), ("gold_logit", LOGIT_DTYPE)]
        if self.samples:
            parts += [("sample_ids", ids, (self.samples,)), ("sample_logits", LOGIT_DTYPE, (self.samples,))]
        return np.dtype(parts)

    @property
    def table_columns(self) -> list[tuple]:
        return [
            ("scored_rows", "<i8"),
            ("gold_correct", "<i8"),
            ("gold_nll", "<f8"),  # summed
            ("captured", "<f8", (len(self.temperatures),)),  # mass of the k tokens, summed
            ("missing", "<i8", (len(self.statuses) - 1,)),  # sentences, by status
        ]

    @property
    def summary_room(self) -> int:
        return super().summary_room + 32 * len(self.temperatures)

    # ------------------------------------------------------------ header

    def stated(self) -> dict[str, Any]:
        """The header's ``info``; what the first stores did not have only where it is not the default."""
        stated = {name: getattr(self, name) for name in _STATED}
        if self.mask_plan == STRIDED_PLAN:
            del stated["mask_plan"]
        stated["folds"] = [asdict(teacher) for teacher in self.folds]
        for name in ("folds", "entities_digest", "mentions_digest"):
            if not stated[name]:
                del stated[name]
        return stated

    @classmethod
    def parse(cls, stated: Mapping[str, Any]) -> "TopKInfo":
        temperatures = tuple(map(float, stated["temperatures"]))
        folds = tuple(FoldTeacher(**teacher) for teacher in stated.get("folds", ()))
        return super().parse({**stated, "temperatures": temperatures, "folds": folds})  # type: ignore[return-value]

    def constants(self) -> dict[str, Any]:
        return {"value_kind": "logits", "value_origin": "best logit of the row", "mask_plan": self.mask_plan}

    def check(self) -> None:
        super().check()
        for name, least in (("k", 1), ("dictionary_size", 1), ("passes", 1), ("samples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.mask_plan not in self.mask_plans:
            raise ValueError(f"mask_plan must be {' or '.join(self.mask_plans)}, got {self.mask_plan!r}")
        if self.mask_plan == PREFIX_PLAN and self.passes != 1:
            raise ValueError(f"a left-to-right store was scored in 1 pass, got passes={self.passes}")
        if self.k > self.dictionary_size:
            raise ValueError(
                f"k={self.k} exceeds the dictionary of {self.dictionary_size} symbols; take a smaller k"
            )
        if self.dictionary_size > _ID_LIMIT:
            raise ValueError(f"dictionary_size must fit int32 ids, got {self.dictionary_size}")
        if not 0 <= self.mask_ratio <= 1:
            raise ValueError(f"mask_ratio must be a share from 0 to 1, got {self.mask_ratio}")
        folds = [parse_fold(teacher.fold) for teacher in self.folds]
        if len(folds) > 1 and folds != [Fold(number, len(folds)) for number in range(1, len(folds) + 1)]:
            raise ValueError(f"folds must be one or all in order, got {', '.join(map(str, folds))}")
        temperatures = self.temperatures
        positive = all(isinstance(t, float) and 0 < t < math.inf for t in temperatures)
        if not positive or list(temperatures) != sorted(set(temperatures)):
            raise ValueError(
                f"temperatures must be positive, ascending and different, got {list(temperatures)}"
            )

    def check_blob(self, name: str, raw: bytes) -> None:
        symbols = decode_dictionary(raw)
        if len(symbols) != self.dictionary_size:
            raise ValueError(f"it has {len(symbols)} lines, not {self.dictionary_size}")
        if dictionary_digest(symbols) != self.dictionary_digest:
            raise ValueError("it does not match its digest in the header")

    # ------------------------------------------------------------ rows

    def row_faults(self, records: NDArray[Any]) -> list[RowFault]:
        ids, logits = records["topk_ids"].astype(np.int64), records["topk_logits"].astype(np.float32)
        ordered = np.sort(ids, axis=1)
        faults = [
            self._id_fault("topk_ids", ids),
            RowFault((ordered[:, 1:] == ordered[:, :-1]).any(axis=1), "topk_ids must differ", ids),
            RowFault(~np.isfinite(logits).all(axis=1), "topk_logits must be finite in float16", logits),
            RowFault((logits[:, 1:] > logits[:, :-1]).any(axis=1), "topk_logits must descend", logits),
            RowFault(logits[:, 0] != 0, "topk_logits must begin with 0, the best of the row", logits),
        ]
        for column, temperature in enumerate(self.temperatures):
            normaliser = records["log_normalisers"][:, column]
            stored = np.log(np.exp(logits.astype(np.float64) / temperature).sum(axis=1))
            bad = ~np.isfinite(normaliser) | (normaliser < stored - NORMALISER_SLACK)
            rule = f"the log-normaliser at temperature {temperature:g} must be at least the stored tokens'"
            faults.append(RowFault(bad, rule, normaliser))
        if self.gold:
            faults += self._gold_faults(records, ids, logits)
        if self.samples:
            faults += self._sample_faults(records, ids, logits[:, -1])
        return faults

    def _gold_faults(self, records: NDArray[Any], ids: NDArray[Any], logits: NDArray[Any]) -> list[RowFault]:
        gold, gold_logit = records["gold_id"].astype(np.int64), records["gold_logit"].astype(np.float32)
        hits = ids == gold[:, None]  # (rows, k)
        stored = logits[np.arange(len(ids)), hits.argmax(axis=1)]  # (rows,) of the gold token, if stored
        fits = np.where(hits.any(axis=1), stored == gold_logit, gold_logit <= logits[:, -1])
        return [
            self._id_fault("gold_id", gold[:, None])._replace(values=gold),
            RowFault(~np.isfinite(gold_logit) | ~fits, "gold_logit must fit the stored logits", gold_logit),
        ]

    def _sample_faults(
        self, records: NDArray[Any], ids: NDArray[Any], lowest: NDArray[Any]
    ) -> list[RowFault]:
        drawn = records["sample_ids"].astype(np.int64)  # (rows, samples)
        logits = records["sample_logits"].astype(np.float32)
        known = (drawn[:, :, None] == ids[:, None, :]).any(axis=(1, 2))
        if self.gold:
            known |= (drawn == records["gold_id"][:, None]).any(axis=1)
        above = ~(np.isfinite(logits) & (logits <= lowest[:, None])).all(axis=1)
        return [
            self._id_fault("sample_ids", drawn),
            RowFault(known, "sample_ids must lie outside the stored tokens", drawn),
            RowFault(above, "sample_logits must be finite and at most the last stored one", logits),
        ]

    def _id_fault(self, name: str, ids: NDArray[np.int64]) -> RowFault:
        """``(rows, n)`` ids must be of the dictionary."""
        outside = ((ids < 0) | (ids >= self.dictionary_size)).any(axis=1)
        return RowFault(outside, f"{name} must lie in the target dictionary of {self.dictionary_size}", ids)

    def count(self, data: ChunkData) -> dict[str, Any]:
        records = data.records[data.scored]
        blocks = [records[start : start + _ROW_BLOCK] for start in range(0, len(records), _ROW_BLOCK)]
        captured = [
            float(sum(token_probs(block, self.temperatures, t).sum(axis=1).sum() for block in blocks))
            for t in self.temperatures
        ]
        return super().count(data) | {"captured": captured}

    def summarise(self, table: NDArray[Any]) -> dict[str, Any]:
        """Counts and means over all chunks; exact sums, so the order of chunks and shards does not matter."""
        summary = super().summarise(table)
        scored = summary["scored_rows"]
        gold_known = bool((table["gold_correct"] >= 0).all() and np.isfinite(table["gold_nll"]).all())
        known = scored > 0 and gold_known
        return summary | {
            "captured_mass": [
                math.fsum(column) / scored if scored else None for column in table["captured"].T
            ],
            "gold_accuracy": int(table["gold_correct"].sum()) / scored if known else None,
            "gold_nll": math.fsum(table["gold_nll"]) / scored if known else None,
        }

    # ------------------------------------------------------------ data

    def files(self, folder: str | Path) -> dict[str, SideFiles]:
        return translation_files(folder, self.split, self.source_lang, self.target_lang)

    def dictionaries(self) -> dict[str, tuple[str, str]]:
        return {
            "target": (f"dict.{self.target_lang}.txt", self.dictionary_digest),
            "source": (f"dict.{self.source_lang}.txt", self.source_dictionary_digest),
        }

    @classmethod
    def rebuild_command(cls, path: Path, *more: str) -> str:
        split, *rest = path.name.split(".")
        options = ["--path TEACHER.pt", f"--subset {shlex.quote(split)}"]
        if len(rest) > 3 and rest[3] == cls.suffix:  # SPLIT.SRC-TGT.TGT.NAME.topk
            options.append(f"--name {shlex.quote(rest[2])}")
        return rebuilding(path, cls.command, *options, *more)


def scoring_plan(info: TopKInfo) -> str:
    """``7 passes``, or ``1 pass, left to right``; for reports."""
    return "1 pass, left to right" if info.mask_plan == PREFIX_PLAN else f"{info.passes} passes"
