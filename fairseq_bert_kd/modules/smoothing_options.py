"""Options of text smoothing, for a criterion of classifiers and for the task of translation."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass

MLM, UNIGRAM, UNIFORM, DROPOUT = "mlm", "unigram", "uniform", "dropout"
ORIGINS = (MLM, UNIGRAM, UNIFORM, DROPOUT)
STORED = (MLM, DROPOUT)  # those that need a store
BOTH, MIXED, ONLY = "both", "mixed", "only"
SCHEDULES = (BOTH, MIXED, ONLY)
DEFAULT_RATE = 0.5


@dataclass
class SmoothingOptions(FairseqDataclass):
    """What is mixed into the input words, and when."""

    smoothing_weight: float = field(
        default=0.5,
        metadata={
            "help": "lambda, weight of the words that the masked language model expects; 0 trains without smoothing "
            "(default 0.5: the authors' later code)"
        },
    )
    smoothing_temperature: float = field(
        default=1.0,
        metadata={"help": "temperature of their distribution; one that the store has a log-normaliser for"},
    )
    smoothing_topk: int = field(
        default=16,
        metadata={
            "help": "expected words per position, at most those of the store; 0 for all of them (of the smallest store of several "
            "parts of a corpus). The mass of all others stays on the original word"
        },
    )
    smoothing_view: ChoiceEnum(["unmasked", "masked"]) = field(  # type: ignore[valid-type]
        default="unmasked",
        metadata={
            "help": "which store: the model saw the word that it replaces, or it did not (dump --view)"
        },
    )
    smoothing_special: bool = field(
        default=False,
        metadata={"help": "smooth the end of sentence too, which is the encoder's closing token"},
    )
    smoothing_schedule: ChoiceEnum(SCHEDULES) = field(  # type: ignore[valid-type]
        default=BOTH,
        metadata={
            "help": "both: each batch plain and smoothed, half of the loss each, in one update; mixed: each sentence is smoothed "
            "with probability --smoothing-rate; only: every sentence. Validation is plain"
        },
    )
    smoothing_rate: float = field(
        default=DEFAULT_RATE,
        metadata={"help": "probability of a smoothed sentence, of --smoothing-schedule mixed"},
    )
    smoothing_source: ChoiceEnum(ORIGINS) = field(  # type: ignore[valid-type]
        default=MLM,
        metadata={
            "help": "where the words come from: mlm, a store; as controls, which need none: unigram, the training text's own "
            "frequencies, and uniform; as a control of equal strength, with the store: dropout, which replaces a word by the "
            "unknown symbol as often as mlm would move its weight to others"
        },
    )
    smoothing_store: str = field(
        default="default",
        metadata={"help": "name of the store (dump --side sentences or source --name)"},
    )
    smoothing_store_dir: Optional[str] = field(
        default=None,
        metadata={
            "help": "folder of the stores (dump --store-dir), or several separated by colons, one for each data folder "
            "(default: the data folders)"
        },
    )
