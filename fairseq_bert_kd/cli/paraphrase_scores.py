"""What ``score --sources`` adds: measures of paraphrases beside BLEU and chrF2."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairseq_bert_kd.evaluation.fairseq_output import read_lines
from fairseq_bert_kd.evaluation.metric import MetricSettings
from fairseq_bert_kd.evaluation.paraphrase_metrics import paraphrase_scores, references_signature
from fairseq_bert_kd.evaluation.registry import METRICS, signatures
from fairseq_bert_kd.evaluation.significance import spread

COPY = "(source copied)"
ROUGE = ("rouge1", "rouge2", "rougeL")
# column -> title; those of a file that is not given are left out
TITLES = {
    "bleu": "BLEU",
    "source_bleu": "source-BLEU",
    "ibleu_0.9": "iBLEU .9",
    "ibleu_0.8": "iBLEU .8",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "evaluator": "evaluator",
    "held_out": "held-out",
    "cosine": "cosine",
    "copy_rate": "copies %",
    "distinct_1": "dist-1",
    "distinct_2": "dist-2",
    "word_entropy": "word entropy",
    "length": "length %",
}
OPTIONS = ("all_references", "evaluator", "held_out_evaluator", "positive", "sentence_encoder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("paraphrases")
    group.add_argument(
        "--sources",
        metavar="FILE",
        help="raw source text, one sentence per line: adds a table with source-BLEU (BLEU against the source), iBLEU, ROUGE, the "
        "rate of copies, distinct n-grams, the entropy of words, the length against the first reference, and a row that copies the sources",
    )
    group.add_argument(
        "--all-references",
        metavar="FILE",
        help="all references of each sentence, tab-separated, for the BLEU of that table (default: --reference alone)",
    )
    group.add_argument(
        "--evaluator", metavar="FILE", help="checkpoint of a classifier of pairs: mean score of the outputs"
    )
    group.add_argument(
        "--held-out-evaluator",
        metavar="FILE",
        help="checkpoint of another one, which never rewarded (not the same file)",
    )
    group.add_argument("--positive", metavar="CLASS", help="name of the evaluators' class of paraphrases")
    group.add_argument(
        "--sentence-encoder",
        metavar="PATH",
        help="encoder of sentences (transformers folder or hub name, or checkpoint of a sentence LSTM): mean cosine with the source",
    )


class ParaphraseScorer:
    """Scores outputs against sources and references.

    Args:
        sources: ``(sentences,)``.
        references: ``(sentences,)`` one of each sentence, for ROUGE.
        all_references: ``(sentences,)`` all of each sentence, for BLEU.
        rewards: further measures by name, 0 to 1.
        settings: case and tokenizer of BLEU.
        raw_sources: ``(sentences,)`` sources as they are in the file; None for the same.
    """

    def __init__(
        self,
        sources: Sequence[str],
        references: Sequence[str],
        all_references: Sequence[Sequence[str]],
        rewards: Mapping[str, Any],
        settings: MetricSettings,
        raw_sources: Sequence[str] | None = None,
    ):
        self._raw_sources = raw_sources or sources
        self.sources, self.references, self.all_references = sources, references, all_references
        self._rewards, self._settings = rewards, settings
        self._rouge = {name: METRICS[name](MetricSettings(normalised=settings.normalised)) for name in ROUGE}

    @classmethod
    def from_args(
        cls,
        args: argparse.Namespace,
        references: Sequence[str],
        settings: MetricSettings,
        normalise: Callable[[str], str],
    ) -> "ParaphraseScorer | None":
        """The scorer of ``--sources``; None without that option.

        Args:
            args: options of the command.
            references: ``(sentences,)``, normalised.
            settings: case and tokenizer of BLEU.
            normalise: what outputs and references go through before they are compared.

        Raises:
            ValueError: files of another length, or options that need ``--sources``.
        """
        if not args.sources:
            if given := [name for name in OPTIONS if getattr(args, name)]:
                option = given[0].replace("_", "-")
                raise ValueError(f"--{option} is for paraphrases: give --sources, or leave it out")
            return None
        raw_sources = read_lines(args.sources)
        sources = [normalise(line) for line in raw_sources]
        rows: list[list[str]] = [[reference] for reference in references]
        if args.all_references:
            rows = [
                [normalise(text) for text in line.split("\t") if text]
                for line in read_lines(args.all_references)
            ]
            if not all(rows):
                raise ValueError(
                    f"`{args.all_references}`, line {rows.index([]) + 1}: no reference; every sentence needs one"
                )
        for path, found in ((args.sources, sources), (args.all_references, rows)):
            if path and len(found) != len(references):
                raise ValueError(
                    f"`{path}` has {len(found)} lines, the reference {len(references)}; give its own file"
                )
        return cls(sources, references, rows, _rewards(args), settings, raw_sources)

    @property
    def signatures(self) -> dict[str, str]:
        """Signatures by title: of BLEU against all references, and of ROUGE."""
        bleu = references_signature(self.all_references, self._settings.lowercase, self._settings.tokenize)
        normalised = self._settings.normalised and f"|norm:{self._settings.normalised}"
        return {"BLEU": bleu + normalised, **signatures(self._rouge)}

    def scores(self, texts: Sequence[str]) -> dict[str, float]:
        """Scores by name of `TITLES`, in per cent (the entropy in bits); rewards as the mean of 0 to 100.

        Raises:
            ValueError: texts in lower case for an evaluator that reads case.
        """
        case, tokenize = self._settings.lowercase, self._settings.tokenize
        found = dict(paraphrase_scores(texts, self.sources, self.all_references, case, tokenize))
        found |= {name: metric.corpus_score(texts, self.references) for name, metric in self._rouge.items()}
        for name, reward in self._rewards.items():
            reward.check_case(self._raw_sources, texts)
            found[name] = 100 * float(reward(self.sources, texts, self.references).mean())
        return found


class FurtherScores:
    """What ``score`` adds to its table and results: nothing without ``--sources``.

    Args:
        args: options of the command.
        references: ``(sentences,)``, normalised.
        settings: case and tokenizer of BLEU.
        normalise: what outputs and references go through before they are compared.

    Attributes:
        results: entries of the results file.

    Raises:
        ValueError: see `ParaphraseScorer.from_args`.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        references: Sequence[str],
        settings: MetricSettings,
        normalise: Callable[[str], str] = str,
    ):
        self._scorer = ParaphraseScorer.from_args(args, references, settings, normalise)
        self._systems: dict[str, list[dict[str, float]]] = {}
        self.results: dict[str, Any] = {}
        if self._scorer is not None:
            self.results |= {"paraphrases": self._systems, "paraphrase_signatures": self._scorer.signatures}
            self.add(COPY, self._scorer.sources)

    def add(self, label: str, *runs: Sequence[str]) -> None:
        """Score the runs of a system."""
        if self._scorer is not None:
            self._systems[label] = [self._scorer.scores(texts) for texts in runs]

    def show(self) -> None:
        """Print the table."""
        if self._scorer is not None:
            print(f"\n{format_table(self._systems)}")
            for name, signature in self.results["paraphrase_signatures"].items():
                print(f"{name}: {signature}")


def _rewards(args: argparse.Namespace) -> dict[str, Any]:
    """The measures that come from files.

    Raises:
        ValueError: a file of another kind, or one evaluator given twice.
    """
    rewards: dict[str, Any] = {}
    if args.evaluator or args.held_out_evaluator or args.sentence_encoder:
        import fairseq_bert_kd.tasks  # noqa: F401  registers the task of sentence models
    if args.evaluator or args.held_out_evaluator:
        from fairseq_bert_kd.rewards.evaluator import check_held_out, load_evaluator

        check_held_out(("--evaluator", args.evaluator), ("--held-out-evaluator", args.held_out_evaluator))
        for name, option in (("evaluator", "evaluator"), ("held_out", "held_out_evaluator")):
            if path := getattr(args, option):
                option = f"--{option.replace('_', '-')}"
                rewards[name] = load_evaluator(path, args.positive, option, name, "--positive")
    if args.sentence_encoder:
        from fairseq_bert_kd.rewards.similarity import CosineReward

        rewards["cosine"] = CosineReward(args.sentence_encoder)
    if not rewards:
        return {}
    from fairseq_bert_kd.rewards.interface import CachedReward, best_device

    for reward in rewards.values():
        reward.to(best_device())
    # systems that began alike write many sentences alike
    return {name: CachedReward(reward) for name, reward in rewards.items()}


def format_table(systems: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Means over the runs of each system, with standard deviations where there are several."""
    first = next(iter(systems.values()))[0]
    columns = [name for name in TITLES if name in first]
    width = max(len("system"), *map(len, systems))
    rows = ["  ".join([f"{'system':<{width}}", *(f"{TITLES[name]:>13}" for name in columns)])]
    rows.append("-" * len(rows[0]))
    for label, runs in systems.items():
        cells = []
        for name in columns:
            found = spread([run[name] for run in runs])
            sd = "" if found.sd is None else f" ± {found.sd:.2f}"
            cells.append(f"{f'{found.mean:.2f}{sd}':>13}")
        rows.append("  ".join([f"{label:<{width}}", *cells]))
    return "\n".join(rows)
