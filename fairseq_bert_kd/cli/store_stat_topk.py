"""``fairseq-bert-kd store stat`` of token rows: header, captured mass, which k and temperature fit."""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from fairseq_bert_kd.cli.store_facts import (
    fact_of_sentences,
    fact_of_versions,
    facts_of_origin,
    print_facts,
)
from fairseq_bert_kd.cli.store_tools import progress_bar
from fairseq_bert_kd.storage.gold_stat import GoldStat, GoldStats
from fairseq_bert_kd.storage.header import Header
from fairseq_bert_kd.storage.smoothing_store import UNMASKED, open_rows
from fairseq_bert_kd.storage.topk import PREFIX_PLAN, scoring_plan
from fairseq_bert_kd.storage.topk_stat import (
    BINS,
    ENOUGH_MASS,
    ENOUGH_ROWS,
    RowStat,
    TemperatureStat,
    row_stat,
    suggested_k,
    suggested_temperature,
    token_counts,
    warnings,
)
from fairseq_bert_kd.storage.topk_store import TopKReader

_STATISTICS = (
    "temperature",
    "tokens",
    "mean_mass",
    "share_below_half",
    "mass_histogram",
    "entropy_histogram",
)
SEEN = {PREFIX_PLAN: "from the left", UNMASKED: "each token seen"}
_BAR = 36  # characters of a histogram's longest bar; a line stays within 60


def main(args: argparse.Namespace) -> None:
    """Print what `store stat` is asked for."""
    reader = open_rows(args.store)
    layout = reader.header.layout
    share = min(1.0, args.rows / layout.rows) if args.rows and layout.rows else 1.0
    records = layout.ends["records"] - layout.starts["records"]
    with progress_bar(f"stat {reader.path.name}", int(share * records)) as bar:
        stat = row_stat(reader, args.rows, bar.update)
    if args.json:
        print(json.dumps(as_json(reader, stat), indent=2, default=np.ndarray.tolist))
        return
    print_facts(reader, _facts(reader.header), row_lines(stat))


# ---------------------------------------------------------------- the header


def _facts(header: Header) -> Iterator[tuple[str, str]]:
    info: Any = header.info
    layout, summary = header.layout, header.finished
    yield from _origin(header)
    how = [word for word in (info.precision, info.device and f"on {info.device}") if word]
    how += [f"batches of {info.max_tokens:,} tokens"] if info.max_tokens else []
    yield "scored", f"in {scoring_plan(info)}, {' '.join(how) or 'precision and device not known'}"
    yield "mask ratio", f"{100 * info.mask_ratio:g} % of target tokens while the teacher was trained"
    known = ("gold token",) if info.gold else ()
    drawn = (f"{info.samples} drawn tokens (seed {info.sample_seed})",) if info.samples else ()
    stored = ", ".join((f"top {info.k} of {info.dictionary_size:,} tokens", *known, *drawn))
    yield "stored", f"{stored}; {info.record_dtype.itemsize} bytes per position"
    yield (
        "temperatures",
        ", ".join(f"{t:g}" for t in info.temperatures)
        or "none: the mass outside the stored tokens is not known",
    )
    yield fact_of_sentences(header)
    coverage = f" ({100 * summary['scored_rows'] / layout.rows:.2f} %)" if layout.rows else ""
    yield "positions", f"{layout.rows:,}, of them {summary['scored_rows']:,} scored{coverage}"
    yield "chunks", f"{layout.chunks:,} of {info.chunk_sentences:,} sentences"
    masses = zip(info.temperatures, summary["captured_mass"], strict=True)
    held = ", ".join(f"{100 * mass:.1f} % at T={t:g}" for t, mass in masses if mass is not None)
    yield "captured mass", held or "not known"
    if summary["gold_nll"] is None:
        yield "on gold", "not known"
    else:
        accuracy, perplexity = summary["gold_accuracy"], math.exp(min(summary["gold_nll"], 700))
        seen = SEEN.get(info.mask_plan, "each token masked")
        yield "on gold", f"accuracy {100 * accuracy:.2f} %, perplexity {perplexity:.4g} ({seen})"
        yield "", _fold_words(info)
    yield fact_of_versions(header)


def _origin(header: Header) -> Iterator[tuple[str, str]]:
    """Format, data and teachers: the one teacher, or that of each fold."""
    info: Any = header.info
    data = f"{info.split}, {info.source_lang} -> {info.target_lang}" if info.target_lang else info.split
    for name, value in facts_of_origin(header, data):
        if name != "teacher" or not info.folds:
            yield name, value
    for teacher in info.folds:
        yield f"fold {teacher.fold}", f"{teacher.teacher} (sha256 {teacher.teacher_digest})"


def _fold_words(info: Any) -> str:
    """Whether the teachers have seen what they scored, as far as the header tells."""
    if info.folds:
        return "out of fold: each sentence by a teacher that was trained without it"
    return "in-sample where the teacher was trained on this split"


# ---------------------------------------------------------------- the rows


def row_lines(stat: RowStat) -> Iterator[str]:
    """Table, histograms, advice and warnings."""
    part = f"all {stat.chunks:,} chunks"
    if stat.chunks < stat.chunks_in_all:
        part = f"{stat.chunks:,} of {stat.chunks_in_all:,} chunks, spread evenly (--rows 0 reads all)"
    yield f"rows: {stat.rows:,} scored ones of {part}"
    if not stat.rows:
        yield "no scored row among them; read all with --rows 0"
    if stat.gold is not None:
        yield ""
        yield from _gold_lines(stat.gold)
    if not stat.temperatures:
        return
    yield ""
    yield from _mass_table(stat)
    for t in stat.temperatures:
        yield from _histograms(t)
    yield ""
    yield from _advice(stat)
    for warning in warnings(stat):
        yield f"warning: {warning}"


def _gold_lines(stats: GoldStats) -> Iterator[str]:
    yield "gold token of these rows: accuracy, perplexity, and share of rows where it is among the best k'"
    tokens = token_counts(len(stats.all.ranks) - 1)
    names = "".join(f"{f'k = {count}':>9}" for count in tokens)
    yield f"{'':<10}{'accuracy':>9}{'ppl':>9}{names}"
    for name, stat in {
        "all": stats.all,
        **{f"fold {fold}": of for fold, of in stats.by_fold.items()},
    }.items():
        if not stat.rows:
            continue
        perplexity = "-" if stat.perplexity is None else f"{stat.perplexity:.4g}"
        shares = "".join(f"{100 * stat.within(count):>9.2f}" for count in tokens)
        yield f"{name:<10}{100 * stat.accuracy:>9.2f}{perplexity:>9}{shares}"


def _mass_table(stat: RowStat) -> Iterator[str]:
    yield "captured mass of the best k' tokens: mean, and rows where it is below one half"
    yield "   k'" + "".join(f"{f'T={t.temperature:g}':>20}" for t in stat.temperatures)
    columns = [(t.mean_mass, t.share_below_half) for t in stat.temperatures]
    for i, tokens in enumerate(stat.temperatures[0].tokens):
        cells = [f"{100 * mass[i]:.2f} % {100 * below[i]:>7.2f} %" for mass, below in columns]
        yield f"{tokens:>5}" + "".join(f"{cell:>20}" for cell in cells)


def _histograms(t: TemperatureStat) -> Iterator[str]:
    k, at = t.tokens[-1], f"at T={t.temperature:g}"
    yield ""
    yield f"captured mass of the top {k} {at}, share of rows"
    yield from _histogram(t.mass_histogram.tolist(), 1.0)
    yield ""
    yield f"entropy in bits {at}, mean {t.mean_entropy:.3f}: of the {k} tokens"
    yield "and the rest as one, a lower bound of the teacher's"
    yield from _histogram(t.entropy_histogram.tolist(), t.most_entropy)


def _histogram(counts: list[int], top: float) -> Iterator[str]:
    """A line per bin, from 0 to ``top``; at most 60 characters."""
    most, total = max(counts), sum(counts)
    for i, count in enumerate(counts):
        edges = f"{i * top / BINS:5.2f} -{(i + 1) * top / BINS:5.2f}"
        bar = "#" * max(round(_BAR * count / most), 1 if count else 0)
        yield f"{edges} |{bar:<{_BAR}} {100 * count / total:5.1f} %"


def _advice(stat: RowStat) -> Iterator[str]:
    first, k = stat.at_one, suggested_k(stat)
    stored = first.tokens[-1]
    yield (
        f"suggested --kd-topk: {k} (our own rule: the least k' whose mean mass at T={first.temperature:g} is at least "
        f"{ENOUGH_MASS:g} of that of all {stored}, and with which at most {100 * ENOUGH_ROWS:g} in 100 rows more are below "
        "one half)"
    )
    yield (
        f"suggested --kd-temperature: {suggested_temperature(stat):g} (our own rule: the highest stored one at which the "
        f"top {stored} hold half of the mass on average, else the lowest)"
    )


# ---------------------------------------------------------------- JSON


def as_json(reader: TopKReader, stat: RowStat) -> dict[str, Any]:
    """Header and statistics as plain values; NaN and infinity do not occur."""
    header = reader.header
    nll = header.finished["gold_nll"]
    perplexity = None if nll is None or nll >= 700 else math.exp(nll)  # beyond it is infinite
    return {
        "path": str(reader.path),
        "version": header.info.version,
        "digest": header.digest,
        "file_bytes": header.layout.file_bytes,
        "record_bytes": header.info.record_dtype.itemsize,
        "info": asdict(header.info),
        "shard": [header.shard.index, header.shard.count],
        "corpus_sentences": header.corpus_sentences,
        "sentences": header.layout.sentences,
        "positions": header.layout.rows,
        "chunks": header.layout.chunks,
        "summary": header.summary,
        "gold_perplexity": perplexity,
        "looked_at": {"chunks": stat.chunks, "rows": stat.rows},
        "temperatures": [
            {name: getattr(t, name) for name in _STATISTICS}
            | {"mean_entropy_bits": t.mean_entropy, "most_entropy_bits": t.most_entropy}
            for t in stat.temperatures
        ],
        "gold": _gold_json(stat.gold),
        "suggested_topk": suggested_k(stat) if stat.temperatures else None,
        "suggested_temperature": suggested_temperature(stat) if stat.temperatures else None,
        "warnings": warnings(stat),
    }


def _gold_json(stats: GoldStats | None) -> dict[str, Any] | None:
    """Accuracy, perplexity and ranks over the sampled rows, and by fold."""

    def plain(stat: GoldStat) -> dict[str, Any]:
        if not stat.rows:
            return {"rows": 0}
        return {
            "rows": stat.rows,
            "accuracy": stat.accuracy,
            "perplexity": stat.perplexity,
            "ranks": stat.ranks.tolist(),
        }

    if stats is None:
        return None
    return plain(stats.all) | {"folds": {fold: plain(stat) for fold, stat in stats.by_fold.items()}}
