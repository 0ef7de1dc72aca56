"""``fairseq-bert-kd dump``: a teacher's top-k logits for every target position, stored beside the data."""

import argparse
import hashlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import fairseq_bert_kd
from fairseq_bert_kd import compat
from fairseq_bert_kd.data.parallel_check import refuse_unequal_sides
from fairseq_bert_kd.storage.topk_store import StoreInfo, TopKWriter, dictionary_digest, store_path

logger = logging.getLogger(__name__)

HELP = "store a teacher's top-k logits for every target position"
EXAMPLE = "example: fairseq-bert-kd dump data-bin --path teacher/checkpoint_best.pt --topk 8 --passes 7"
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    parser.add_argument("data", help="folder that fairseq-preprocess wrote; the store is written into it")
    parser.add_argument(
        "--path", required=True, help="checkpoint of a teacher (--task conditional_masked_lm)"
    )
    parser.add_argument("--subset", default="train", help="split to score (default: %(default)s)")
    parser.add_argument(
        "--topk", type=int, default=8, help="tokens per position (default: %(default)s, as in the paper)"
    )
    parser.add_argument(
        "--passes",
        type=int,
        default=7,
        help="each position is masked in one of this many passes, so 1/PASSES of a target is hidden at a time "
        "(default: %(default)s, as in the paper: close to the 15 %% of training)",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=8192,
        help="source and target tokens of a batch, padding included (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=sorted(PRECISIONS),
        default=None,
        help="arithmetic of the teacher (default: fp16 on a GPU, fp32 on a CPU)",
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-bert-kd dump", description=HELP)
    add_arguments(parser)
    return parser


@dataclass
class Teacher:
    """A loaded C-MLM teacher.

    Attributes:
        model: the fairseq model, in evaluation mode.
        task: its task, set up on the data folder to score.
        digest: sha256 of the checkpoint file, hexadecimal.
    """

    model: Any
    task: Any
    digest: str


@dataclass
class Totals:
    """Sums over scored positions."""

    positions: int = 0
    captured: float = 0.0  # probability mass of the stored tokens at temperature 1
    gold_nll: float = 0.0  # nats
    gold_correct: int = 0


@dataclass
class ScoringPlan:
    """Which (sentence, pass) items are scored, in which batches.

    Attributes:
        sentences: ``(items,)`` corpus index.
        passes: ``(items,)`` number of the pass.
        batches: runs of items of similar length, longest first.
        tokens: source and target tokens of all items.
    """

    sentences: NDArray[np.int64]
    passes: NDArray[np.int64]
    batches: list[NDArray[np.int64]] = field(default_factory=list)
    tokens: int = 0


def load_teacher(path: str, data: str) -> Teacher:
    """Load a C-MLM teacher on a data folder; only the checkpoint is needed, not the original weights.

    Raises:
        ValueError: the checkpoint is no teacher, is unsafe, or was trained with other dictionaries.
        FileNotFoundError: checkpoint or data folder missing.
    """
    state = compat.load_checkpoint(path)
    settings = state.get("cfg") or {}
    model_settings = settings.get("model")
    name = (
        model_settings.get("_name")
        if isinstance(model_settings, dict)
        else getattr(model_settings, "arch", "?")
    )
    if name != "hf_masked_lm":
        raise ValueError(
            f"checkpoint `{path}` is no teacher: it holds a `{name}` model, and a teacher is `hf_masked_lm`; "
            "give the checkpoint that fairseq-train wrote with --task conditional_masked_lm"
        )
    fairseq_bert_kd.register()
    from fairseq import checkpoint_utils

    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides={"data": data})
    return Teacher(models[0].eval(), task, file_digest(path))


def plan_scoring(
    src_lengths: NDArray[np.int64],
    tgt_lengths: NDArray[np.int64],
    scored: NDArray[np.bool_],
    passes: int,
    max_tokens: int,
) -> ScoringPlan:
    """Batches of similar length over all passes of all scored sentences.

    Args:
        src_lengths: ``(sentences,)`` without end of sentence.
        tgt_lengths: ``(sentences,)`` with end of sentence.
        scored: ``(sentences,)`` False for pairs that the teacher has no positions for.
        passes: passes of a target that is long enough; a shorter one gets one pass a position.
        max_tokens: token budget of a batch, padding included.
    """
    from fairseq.data import data_utils

    pair_lengths = src_lengths + tgt_lengths
    order = np.flatnonzero(scored)
    order = order[np.argsort(-pair_lengths[order], kind="stable")]  # longest first: memory peaks at once
    repeats = np.minimum(tgt_lengths[order], passes)
    sentences = np.repeat(order, repeats)
    first_item = np.cumsum(repeats) - repeats
    pass_numbers = np.arange(len(sentences)) - np.repeat(first_item, repeats)
    item_lengths = pair_lengths[sentences]
    plan = ScoringPlan(sentences, pass_numbers, tokens=int(item_lengths.sum()))
    if len(sentences):
        if item_lengths[0] > max_tokens:
            raise ValueError(
                f"--max-tokens {max_tokens} is below the longest pair of {item_lengths[0]} tokens; raise it"
            )
        items = np.arange(len(sentences))
        plan.batches = data_utils.batch_by_size(
            items, None, num_tokens_vec=item_lengths, max_tokens=max_tokens
        )
    return plan


def collate_items(
    plan: ScoringPlan, batch: NDArray[np.int64], source: Any, target: Any, passes: int, pad: int
) -> dict:
    """The teacher's inputs for some items, right-padded; see `HfMaskedLM.forward` for the shapes."""
    tokens = {}  # the passes of a sentence are neighbours: read it once
    for sentence in np.unique(plan.sentences[batch]):
        tokens[sentence] = source[sentence][:-1], target[sentence]
    pairs = [tokens[sentence] for sentence in plan.sentences[batch]]
    src_lengths = torch.tensor([len(src) for src, _ in pairs])
    tgt_lengths = torch.tensor([len(tgt) for _, tgt in pairs])
    src_tokens = torch.full((len(pairs), int(src_lengths.max())), pad)
    tgt_tokens = torch.full((len(pairs), int(tgt_lengths.max())), pad)
    for row, (src, tgt) in enumerate(pairs):
        src_tokens[row, : len(src)] = src
        tgt_tokens[row, : len(tgt)] = tgt
    positions = torch.arange(tgt_tokens.size(1))
    in_pass = positions % passes == torch.from_numpy(plan.passes[batch])[:, None]
    return {
        "src_tokens": src_tokens,
        "src_lengths": src_lengths,
        "tgt_tokens": tgt_tokens,
        "tgt_lengths": tgt_lengths,
        "masked": in_pass & (positions < tgt_lengths[:, None]),
    }


def never_a_target(dictionary: Any) -> Tensor:
    """``(target dictionary,)`` bool: start, padding and the host's filler words, which no target holds."""
    filler = [index in (dictionary.bos_index, dictionary.pad_index) for index in range(len(dictionary))]
    for index, symbol in enumerate(dictionary.symbols):
        filler[index] = filler[index] or symbol.startswith("madeupword")
    return torch.tensor(filler)


def score_batches(
    teacher: Teacher,
    plan: ScoringPlan,
    pairs: Any,
    topk: int,
    passes: int,
    device: torch.device,
    totals: Totals,
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor, Tensor, int]]:
    """Run the teacher; yield sentence ids, positions, top-k ids, top-k logits and tokens of each batch.

    Logits are shifted by their log-normaliser over the whole dictionary, so they are log-probabilities
    at temperature 1; any other temperature only needs them up to a constant.
    """
    dictionary = teacher.task.target_dictionary
    barred = never_a_target(dictionary).to(device)
    for batch in plan.batches:
        inputs = collate_items(plan, batch, pairs.src, pairs.tgt, passes, dictionary.pad())
        masked = inputs["masked"]
        rows, positions = masked.nonzero(as_tuple=True)
        gold = inputs["tgt_tokens"][masked].to(device)
        n_tokens = int(inputs["src_lengths"].sum() + inputs["tgt_lengths"].sum())
        with torch.inference_mode():
            logits = teacher.model(**{name: tensor.to(device) for name, tensor in inputs.items()}).float()
            if not torch.isfinite(logits).all():
                sentence = plan.sentences[batch][rows[(~torch.isfinite(logits)).any(1).nonzero()[0, 0].cpu()]]
                raise ValueError(
                    f"the teacher gave a logit that is not finite for sentence {sentence}; "
                    "score with --precision fp32 or bf16"
                )
            lprobs = logits.masked_fill_(barred, -math.inf).log_softmax(dim=-1)
            topk_lprobs, topk_ids = lprobs.topk(topk, dim=-1)  # (positions, k), descending
            totals.positions += len(gold)
            totals.captured += topk_lprobs.exp().sum().item()
            totals.gold_nll -= lprobs.gather(1, gold[:, None]).sum().item()
            totals.gold_correct += int((topk_ids[:, 0] == gold).sum())
        yield plan.sentences[batch][rows.numpy()], positions, topk_ids.cpu(), topk_lprobs.cpu(), n_tokens


def main(args: argparse.Namespace) -> None:
    for option, value in (("--topk", args.topk), ("--passes", args.passes)):
        if value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}; the paper uses --topk 8 --passes 7")
    teacher = load_teacher(args.path, args.data)
    task, dictionary = teacher.task, teacher.task.target_dictionary
    path = store_path(args.data, args.subset, task.cfg.source_lang, task.cfg.target_lang)
    if path.exists() and not args.overwrite:  # the writer refuses too, but only after the plan is made
        raise FileExistsError(f"top-k store `{path}` exists; pass --overwrite to replace it")
    n_candidates = len(dictionary) - int(never_a_target(dictionary).sum())
    if args.topk > n_candidates:
        raise ValueError(
            f"--topk {args.topk} is above the {n_candidates} symbols of the target dictionary that can be targets; "
            "ask for fewer"
        )
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    precision = args.precision or ("fp16" if device.type == "cuda" else "fp32")
    teacher.model.to(device=device, dtype=PRECISIONS[precision])

    from fairseq.tasks.translation import TranslationTask

    with refuse_unequal_sides(args.subset):
        TranslationTask.load_dataset(task, args.subset)
    pairs = task.datasets[args.subset]
    src_lengths, tgt_lengths = (
        np.asarray(pairs.src_sizes, np.int64) - 1,
        np.asarray(pairs.tgt_sizes, np.int64),
    )
    limit = teacher.model.max_positions()
    scored = src_lengths + tgt_lengths <= limit
    if not scored.all():
        logger.warning(
            "%d of %d pairs (%.2f %%) are longer than the teacher's %d positions: stored as missing, students "
            "learn them from labels alone",
            (~scored).sum(),
            len(scored),
            100.0 * (~scored).mean(),
            limit,
        )
    plan = plan_scoring(src_lengths, tgt_lengths, scored, args.passes, args.max_tokens)
    info = StoreInfo(
        k=args.topk,
        dictionary_size=len(dictionary),
        dictionary_digest=dictionary_digest(dictionary.symbols),
        split=args.subset,
        source_lang=task.cfg.source_lang,
        target_lang=task.cfg.target_lang,
        passes=args.passes,
        teacher=args.path,
        teacher_digest=teacher.digest,
        mask_ratio=task.cfg.cmlm_mask_prob,
        versions={
            "fairseq-bert-kd": fairseq_bert_kd.__version__,
            **{name: metadata.version(name) for name in ("torch", "transformers", "numpy")},
        },
    )
    totals, started = Totals(), time.perf_counter()
    with (
        TopKWriter(path, info, np.where(scored, tgt_lengths, 0), overwrite=args.overwrite) as writer,
        tqdm(total=plan.tokens, unit="tok", unit_scale=True, desc=f"dump {args.subset}") as progress,
    ):
        for sentences, positions, topk_ids, topk_logits, n_tokens in score_batches(
            teacher, plan, pairs, args.topk, args.passes, device, totals
        ):
            writer.write(sentences, positions.numpy(), topk_ids.numpy(), topk_logits.numpy())
            progress.update(n_tokens)
    report(path, totals, len(scored), int(scored.sum()), args, time.perf_counter() - started, plan.tokens)


def report(path, totals, sentences, covered, args, seconds, tokens) -> None:
    """Print what was stored and how well the teacher knows the gold tokens."""
    positions = max(totals.positions, 1)
    print(
        f"{path}: {path.stat().st_size:,} bytes, {totals.positions:,} positions, k={args.topk}, {args.passes} passes"
    )
    print(
        f"sentences with teacher rows: {covered:,} of {sentences:,} ({100.0 * covered / max(sentences, 1):.2f} %)"
    )
    print(
        f"teacher on the gold tokens: accuracy {100.0 * totals.gold_correct / positions:.2f} %, perplexity "
        f"{math.exp(totals.gold_nll / positions):.2f}; the top {args.topk} hold "
        f"{100.0 * totals.captured / positions:.2f} % of its mass at temperature 1"
    )
    print(f"{seconds:.1f} s, {tokens / seconds:,.0f} source and target tokens per second")


def file_digest(path: str) -> str:
    """sha256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
