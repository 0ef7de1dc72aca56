"""``fairseq-bert-kd rerank``: the best of several outputs per sentence, by a reward or by agreement (MBR)."""

import argparse
import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fairseq_bert_kd.evaluation.comparability import MOST, of_another_text, unread_share
from fairseq_bert_kd.evaluation.fairseq_output import read_lines, read_nbest, read_targets
from fairseq_bert_kd.evaluation.text_metrics import TOKENIZERS
from fairseq_bert_kd.output_files import check_new_file, write_text

logger = logging.getLogger(__name__)

HELP = "choose from n-best lists of fairseq-generate by an evaluator, another reward, or agreement (MBR)"
EXAMPLE = """examples:
  fairseq-generate data-bin ... --beam 8 --nbest 8 > nbest.out
  fairseq-bert-kd rerank nbest.out --by evaluator --evaluator evaluator.pt --sources test.src --output reranked.out
  fairseq-bert-kd rerank nbest.out --by mbr --output mbr.out

What is chosen by a measure is not to be judged by it."""
MBR = "mbr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "nbest", metavar="FILE", help="output of fairseq-generate --nbest N with text (D- lines)"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="output to write, for `score`")
    parser.add_argument(
        "--by",
        default=MBR,
        metavar="REWARD",
        help="mbr takes the output that agrees best with the others, by ROUGE-1; or a reward that needs no reference: evaluator, "
        "cosine, or a weighted sum of both (default: %(default)s)",
    )
    parser.add_argument(
        "--sources", metavar="FILE", help="raw source text, one sentence per line, for rewards"
    )
    parser.add_argument("--evaluator", metavar="FILE", help="checkpoint of a classifier of pairs")
    parser.add_argument("--positive", metavar="CLASS", help="name of its class of paraphrases")
    parser.add_argument(
        "--sentence-encoder",
        metavar="PATH",
        help="encoder of sentences: transformers folder or hub name, or checkpoint of a sentence LSTM",
    )
    parser.add_argument(
        "--copy-penalty",
        type=float,
        default=0.0,
        metavar="W",
        help="take W times the sentence BLEU against the source off the reward (default: %(default)s)",
    )
    parser.add_argument(
        "--tokenize",
        default="13a",
        choices=TOKENIZERS,
        help="sacreBLEU's tokenizer for this BLEU (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def main(args: argparse.Namespace) -> None:
    """Choose and write.

    Raises:
        ValueError: options that do not fit, or outputs and sources of different lengths.
        FileExistsError: the output exists.
    """
    check_new_file("--output", args.output, args.overwrite)
    _check_used(args)
    if args.copy_penalty and (args.by == MBR or not args.sources):
        raise ValueError(
            f"--copy-penalty {args.copy_penalty:g} compares outputs with their sources and is taken off a reward: give --sources "
            "and --by evaluator or cosine, or leave it out"
        )
    if args.copy_penalty < 0:
        raise ValueError(
            f"--copy-penalty must be at least 0, got {args.copy_penalty:g}; the default is 0, no penalty"
        )
    lists = read_nbest(args.nbest)
    values = by_agreement(lists) if args.by == MBR else by_reward(lists, args)
    chosen = [texts[int(np.argmax(scores))] for texts, scores in zip(lists, values, strict=True)]
    lines = (
        f"D-{i}\t{max(scores):.6f}\t{text}\n"
        for i, (text, scores) in enumerate(zip(chosen, values, strict=True))
    )
    write_text(args.output, "".join(lines))
    changed = sum(text != texts[0] for text, texts in zip(chosen, lists, strict=True))
    print(f"{args.output}: {len(chosen):,} sentences, {changed:,} with another output than the first")


def _check_used(args: argparse.Namespace) -> None:
    """Raise ValueError for an option that ``--by`` makes no use of."""
    from fairseq_bert_kd.rewards.combined import parse_terms

    names = set() if args.by == MBR else {name for _, name in parse_terms(args.by)}
    used = {
        "evaluator": "evaluator" in names,
        "positive": "evaluator" in names,
        "sentence_encoder": "cosine" in names,
        "sources": bool(names),
    }
    for name, is_used in used.items():
        if getattr(args, name) and not is_used:
            fitting = "cosine" if name == "sentence_encoder" else "evaluator"
            raise ValueError(
                f"--{name.replace('_', '-')} is not used by --by {args.by}; leave it out, or choose another reward, such as "
                f"--by {fitting}"
            )


def by_agreement(lists: Sequence[Sequence[str]]) -> list[list[float]]:
    """Mean ROUGE-1 of each output against the other ones of its sentence (minimum Bayes risk; Kumar & Byrne 2004).

    Args:
        lists: outputs of each sentence.

    Raises:
        ValueError: most letters are of a script that ROUGE does not read, so that no output would agree with any other.
    """
    from fairseq_bert_kd.rewards.interface import CachedReward
    from fairseq_bert_kd.rewards.overlap import RougeReward

    if (share := unread_share(Counter("".join(text for texts in lists for text in texts)))) > MOST:
        raise ValueError(
            f"--by {MBR} compares outputs by ROUGE-1, which reads ASCII letters and digits only: {share:.0%} of their letters are "
            "others; choose --by evaluator or cosine"
        )
    rouge = CachedReward(RougeReward("rouge-1"))
    values = []
    for texts in lists:
        pairs = [(one, other) for i, one in enumerate(texts) for j, other in enumerate(texts) if i != j]
        if not pairs:
            values.append([1.0])
            continue
        ones, others = map(list, zip(*pairs, strict=True))
        values.append(rouge(others, ones, others).reshape(len(texts), -1).mean(axis=1).tolist())
    return values


def by_reward(lists: Sequence[Sequence[str]], args: argparse.Namespace) -> list[list[float]]:
    """Reward of each output, less the penalty.

    Raises:
        ValueError: no sources or another number of them, a reward that needs references, or outputs in lower case for an
            evaluator that reads case.
    """
    import fairseq_bert_kd.tasks  # noqa: F401  registers the task of evaluators
    from fairseq_bert_kd.rewards.interface import best_device
    from fairseq_bert_kd.rewards.overlap import SourceBleu
    from fairseq_bert_kd.rewards.registry import LOADED, build_reward, parts_of

    if not args.sources:
        raise ValueError(f"--by {args.by} compares outputs with their sources: give --sources")
    sources = read_lines(args.sources)
    if len(sources) != len(lists):
        raise ValueError(
            f"`{args.sources}` has {len(sources)} lines, `{args.nbest}` {len(lists)} sentences; give its own sources"
        )
    if remark := of_another_text(read_targets(args.nbest, "S"), sources, "--sources are"):
        logger.warning("%s: %s", args.nbest, remark)
    files = {
        "evaluator": ("--evaluator", args.evaluator),
        "cosine": ("--sentence-encoder", args.sentence_encoder),
    }
    reward = build_reward(args.by, files, args.positive, "--positive", option="--by")
    if any(part.name not in LOADED for part in parts_of(reward)):
        raise ValueError(
            f"--by {args.by} needs references, which are not at hand when one translates; take evaluator, cosine or {MBR}"
        )
    for part in parts_of(reward):
        part.to(best_device())
    texts = [text for of_sentence in lists for text in of_sentence]
    owners = [source for source, of_sentence in zip(sources, lists, strict=True) for _ in of_sentence]
    reward.check_case(owners, texts)
    values = reward(owners, texts, owners)
    if args.copy_penalty:
        values = values - args.copy_penalty * SourceBleu(args.tokenize, "--tokenize")(owners, texts, owners)
    found = iter(values.tolist())
    return [[next(found) for _ in of_sentence] for of_sentence in lists]
