"""Options of where a task's pieces and its teachers' stores come from, for all tasks that have them."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass


@dataclass
class TokenizerOptions(FairseqDataclass):
    """The tokenizer of the data."""

    kd_tokenizer: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder or hub name of the tokenizer that made the pieces; a teacher, a store or an evaluator with another one "
            "is an error. Rewards need it; tasks of sentences take that of --encoder-model by default, else the one that the data "
            "were prepared with"
        },
    )


@dataclass
class StoreOptions(FairseqDataclass):
    """Where stores lie, and how they are compared with the data."""

    kd_store_dir: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder of the stores (--store-dir of dump and vectors), or several separated by colons, one for each data "
            "folder (default: the data folders)"
        },
    )
    kd_check: ChoiceEnum(["sampled", "all"]) = field(  # type: ignore[valid-type]
        default="sampled",
        metadata={
            "help": "sentences whose token ids are compared with the store's hashes before the first step: 1,000 spread over the "
            "corpus, or all (lengths and dictionaries are always compared)"
        },
    )
