"""What the files of known sentence tasks look like: GLUE's tables, headerless ones, and predictions for GLUE's server."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fairseq_bert_kd.storage.sentence_data import CLASSES, NUMBERS, UNLABELLED


class Headerless(NamedTuple):
    """Columns of a file without a header, counted from 0.

    Attributes:
        width: columns of a line.
        texts: columns of the texts.
        label: column of the label; None if unlabelled.
        open_end: whether a line may have more columns.
    """

    width: int
    texts: tuple[int, ...]
    label: int | None
    open_end: bool = False


@dataclass(frozen=True)
class Preset:
    """A task.

    Attributes:
        texts: names that a header may give to a column, in lower case, for each text of a row.
        label: names that a header may give the label's column.
        headerless: columns of files without a header; None if the task's files have one.
        classes: names of the classes in the order of their numbers, each with its other spellings in files; empty for names
            that the training file gives.
        kind: what the labels are, one of `sentence_data.KINDS`.
        bounds: least and greatest number of a regression.
        metric: metric by which predictions are judged first.
        positive: class whose F1 counts.
    """

    texts: tuple[tuple[str, ...], ...]
    label: tuple[str, ...] = ("label",)
    headerless: Headerless | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kind: str = CLASSES
    bounds: tuple[float, float] | None = None
    metric: str = "accuracy"
    positive: str | None = None


_LABEL_FIRST = Headerless(2, (1,), 0)  # label TAB sentence
_TWO_SENTENCES = (("sentence1", "#1 string"), ("sentence2", "#2 string"))
_ENTAILMENT = {"entailment": (), "not_entailment": ()}
_ONE_LINE = Headerless(1, (0,), None)

# The classes have the names and the order of the GLUE data sets on the Hugging Face hub, F1 is of the class that GLUE names.
PRESETS = {
    "sst2": Preset(
        (("sentence", "content"),), headerless=_LABEL_FIRST, classes={"negative": ("0",), "positive": ("1",)}
    ),
    "mrpc": Preset(
        _TWO_SENTENCES, ("quality", "label"), classes={"not_equivalent": ("0",), "equivalent": ("1",)},
        metric="f1", positive="equivalent",
    ),
    "rte": Preset(_TWO_SENTENCES, classes=_ENTAILMENT),
    "stsb": Preset(
        _TWO_SENTENCES, ("score", "label"), Headerless(7, (5, 6), 4, open_end=True),
        kind=NUMBERS, bounds=(0, 5), metric="spearman",
    ),
    "cola": Preset(
        (("sentence",),), headerless=Headerless(4, (3,), 1),
        classes={"unacceptable": ("0",), "acceptable": ("1",)}, metric="mcc",
    ),
    "qqp": Preset(
        (("question1",), ("question2",)), ("is_duplicate", "label"),
        classes={"not_duplicate": ("0",), "duplicate": ("1",)}, metric="f1", positive="duplicate",
    ),
    "mnli": Preset(
        (("sentence1", "premise"), ("sentence2", "hypothesis")), ("gold_label", "label"),
        classes={"entailment": (), "neutral": (), "contradiction": ()},
    ),
    "qnli": Preset((("question",), ("sentence",)), classes=_ENTAILMENT),
    "wnli": Preset(_TWO_SENTENCES, classes={"not_entailment": ("0",), "entailment": ("1",)}),
    "trec": Preset(
        (("text", "question", "sentence"),), ("label", "coarse_label"), _LABEL_FIRST,
        classes={"DESC": ("0",), "ENTY": ("1",), "ABBR": ("2",), "HUM": ("3",), "LOC": ("4",), "NUM": ("5",)},
    ),
    "snips": Preset(
        (("text", "sentence", "utterance"),), ("label", "intent"), _LABEL_FIRST,
        classes=dict.fromkeys(("AddToPlaylist", "BookRestaurant", "GetWeather", "PlayMusic", "RateBook", "SearchCreativeWork", "SearchScreeningEvent"), ()),
    ),
    "plain": Preset((("text",),), (), _ONE_LINE, kind=UNLABELLED, metric=""),
}  # fmt: skip
# names of columns: a first line that has one of them is a header, whatever the task
HEADER_WORDS = frozenset(
    {"index", "id", "text", "text1", "text2", "content", "labels", "class", "category", "target", "stars"}
    | {name for preset in PRESETS.values() for names in (*preset.texts, preset.label) for name in names}
)
GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")


def glue_lines(task: str, predictions: Sequence[str | float]) -> Iterator[str]:
    """Lines of a file of predictions for GLUE's server: a header, then the row's number from 0 and what was predicted.

    Classes are spelled as in the task's own files, 0 and 1 or words, and numbers are kept in the task's range.

    Args:
        task: one of `GLUE`.
        predictions: names of the preset's classes, or numbers, in the order of the test file.

    Raises:
        ValueError: another task, or a class that it does not have.
    """
    if task not in GLUE:
        raise ValueError(f"GLUE has no task `{task}`; its tasks are {', '.join(GLUE)}")
    preset = PRESETS[task]
    yield "index\tprediction"
    for row, predicted in enumerate(predictions):
        if isinstance(predicted, float):
            low, high = preset.bounds or (float("-inf"), float("inf"))
            spelled = f"{min(max(predicted, low), high):.6f}"
        elif predicted in preset.classes:
            spelled = next(iter(preset.classes[predicted]), predicted)
        else:
            raise ValueError(
                f"the model predicts `{predicted}`, the classes of {task} are {', '.join(preset.classes)}; give a model that was "
                f"trained on data of --task {task}"
            )
        yield f"{row}\t{spelled}"
