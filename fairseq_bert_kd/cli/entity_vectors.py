"""``fairseq-bert-kd entity-vectors``: vectors of a graph's entities by TransE, or from a library's files."""

import argparse
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fairseq_bert_kd.functional.translation_embeddings import (
    corrupt,
    distances,
    evaluate,
    into_unit_ball,
    margin_loss,
)
from fairseq_bert_kd.output_files import check_new_file, write_text
from fairseq_bert_kd.storage.entity_vectors import (
    EntityVectors,
    check_vectors,
    ids_path,
    write_entity_vectors,
)
from fairseq_bert_kd.storage.triples import Graph, Triple, numbered, read_graph, read_triples
from fairseq_bert_kd.text_lines import open_lines

logger = logging.getLogger(__name__)

HELP = "vectors of a graph's entities by TransE, with their filtered ranking; or take those that another library trained"
EXAMPLE = """examples:
  fairseq-bert-kd entity-vectors --triples train.tsv --valid valid.tsv --output graph.safetensors
  fairseq-bert-kd entity-vectors --array entities.npy --array-ids entity_to_id.tsv.gz --output graph.safetensors"""

# option -> default, what it is; margin, negatives and epochs: chosen on the validation triples of WN18RR (ours)
TRANSE: dict[str, tuple[Any, str]] = {
    "dim": (100, "width of the vectors"),
    "norm": (1, "of the distance"),
    "margin": (5.0, "by which corrupted triples shall be longer"),
    "negatives": (4, "corrupted triples of each true one"),
    "epochs": (20, "passes over the graph"),
    "batch": (1000, "triples of an update"),
    "lr": (0.1, "of Adagrad"),
    "seed": (1, "of the first vectors, order and corruption"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE.safetensors",
        help="file of vectors to write; their ids stand beside it, in FILE.txt",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace it if it exists")
    parser.add_argument(
        "--triples",
        nargs="+",
        metavar="FILE",
        help="training graph: head, relation, tail with tabs; may end in .gz",
    )
    parser.add_argument(
        "--valid",
        nargs="+",
        default=[],
        metavar="FILE",
        help="triples to rank, none of which is in the graph",
    )
    parser.add_argument(
        "--known",
        nargs="+",
        default=[],
        metavar="FILE",
        help="further true triples that the ranking leaves out, such as those of the other evaluation split",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write the ranking of --valid to this file; `report` shows it where it is table-NAME.json of an experiment",
    )
    parser.add_argument(
        "--array",
        metavar="FILE.npy",
        help="instead of training: an array of vectors, as saved from PyKEEN's entity representations, one row per entity",
    )
    parser.add_argument(
        "--array-ids",
        metavar="FILE",
        help="ids of its rows: PyKEEN's entity_to_id.tsv.gz (id, label), or one label a line",
    )
    model = parser.add_argument_group("TransE, with --triples")
    for name, (default, text) in TRANSE.items():
        choices = (1, 2) if name == "norm" else None
        said = f"{text} (default: {default})"
        model.add_argument(f"--{name}", type=type(default), choices=choices, help=said)


def main(args: argparse.Namespace) -> None:
    """Train vectors or take an array of them, and write them.

    Raises:
        ValueError: options that contradict each other, or triples or an array that cannot be used.
        FileNotFoundError: a missing file, or a missing folder for an output.
        FileExistsError: an output exists.
    """
    output = _checked_output(args)
    _check_options(args)
    if args.array:
        vectors = _of_array(args)
        write_entity_vectors(output, vectors)
    else:
        vectors = _write_trained(output, args)
    print(
        f"{output}: {len(vectors.ids):,} vectors of {vectors.vectors.shape[1]}, sha256 {vectors.digest()[:12]}"
    )


def _write_trained(output: Path, args: argparse.Namespace) -> EntityVectors:
    """Train the vectors of a graph, write them, and rank the triples of ``--valid`` by them."""
    evaluated, others = (read_triples(files) if files else [] for files in (args.valid, args.known))
    read = read_graph(args.triples)
    entities, relations, graph = read.entities, read.relations, torch.from_numpy(read.triples)
    print(f"graph: {len(graph):,} triples, {len(entities):,} entities, {len(relations)} relations")
    ranked = _ranked(evaluated, read)
    table, translations = train(graph, len(entities), len(relations), args)
    vectors = EntityVectors(tuple(entities), table.numpy())
    check_vectors(vectors.ids, vectors.vectors, "the trained table")
    write_entity_vectors(output, vectors, translations.numpy())
    if evaluated:
        known = torch.cat([graph, ranked, torch.from_numpy(numbered(others, entities, relations)[0])])
        measures = ranking(evaluate(ranked, table, translations, known, args.norm))
        listed = ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
        print(f"filtered ranking of {len(ranked):,} triples, both sides: {listed}")
        if args.json:
            write_text(args.json, json.dumps(ranking_table(measures, len(ranked), args), indent=1) + "\n")
    return vectors


def ranking(ranks: Tensor) -> dict[str, float]:
    """Mean reciprocal rank, per cent of ranks up to 1, 3 and 10, and mean rank of ``(n,)`` ranks."""
    hits = {f"Hits@{n}": 100 * float((ranks <= n).float().mean()) for n in (1, 3, 10)}
    return {"MRR": float((1 / ranks).mean()), **hits, "mean rank": round(float(ranks.mean()))}


def ranking_table(measures: Mapping[str, float], triples: int, args: argparse.Namespace) -> dict[str, Any]:
    """The measures as a table of a report (see `report.read_tables`); its row is named by the options of TransE."""
    name = ", ".join(f"{option} {getattr(args, option):g}" for option in TRANSE)
    return {
        "format": 1,
        "title": "Filtered ranking of the graph's vectors, head and tail",
        "head": ["TransE", "triples", *measures],
        "rows": [[name, triples, *measures.values()]],
    }


def _checked_output(args: argparse.Namespace) -> Path:
    """The file of vectors; it, the one of their ids and ``--json`` can be written."""
    output = Path(args.output)
    if output.suffix != ".safetensors":
        raise ValueError(f"--output must end in .safetensors, got `{output}`")
    read = [*(args.triples or ()), *args.valid, *args.known, args.array, args.array_ids]
    inputs = {Path(path).resolve() for path in read if path}
    for option, path in (("--output", output), ("--output", ids_path(output)), ("--json", args.json)):
        if path and Path(path).resolve() in inputs:
            raise ValueError(
                f"{option} would replace `{path}`, which this command reads; give another name (the ids of --output are written "
                "beside it, with the ending .txt)"
            )
        if path:
            check_new_file(option, path, args.overwrite)
    return output


def _check_options(args: argparse.Namespace) -> None:
    """ValueError for options that contradict each other; TransE's that are not given become their defaults."""
    if bool(args.triples) == bool(args.array):
        raise ValueError("give either --triples, to train vectors, or --array, to take an array of them")
    if args.json and not args.valid:
        raise ValueError("--json is for the ranking of --valid, and there is no --valid; leave it out")
    if args.array and (args.valid or args.known):
        raise ValueError(
            "--valid and --known rank what --triples trains, and --array trains nothing; leave them out"
        )
    given = [name for name in TRANSE if getattr(args, name) is not None]
    if args.array and given:
        raise ValueError(
            f"--{given[0]} is of TransE, and --array trains nothing; leave it out, or give --triples"
        )
    if bool(args.array) != bool(args.array_ids):
        raise ValueError("--array needs --array-ids, the labels of its rows, and nothing else reads them")
    if args.known and not args.valid:
        raise ValueError("--known is left out when --valid is ranked, and there is no --valid; leave it out")
    for name, (default, _) in TRANSE.items():
        if name not in given:
            setattr(args, name, default)
    if not (0 < args.margin < math.inf and 0 < args.lr < math.inf):  # which NaN is not
        raise ValueError(
            f"--margin and --lr must be finite numbers above 0, got {args.margin:g} and {args.lr:g}; the defaults are "
            f"{TRANSE['margin'][0]:g} and {TRANSE['lr'][0]:g}"
        )
    for name in ("dim", "negatives", "epochs", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(args, name)}")


def train(triples: Tensor, entities: int, relations: int, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Train TransE with Adagrad; entities stay inside the unit ball.

    Args:
        triples: ``(n, 3)`` int64.
        entities: number of entities.
        relations: number of relations.
        args: options of the command.

    Returns:
        ``(entities, dim)`` and ``(relations, dim)``.
    """
    generator = torch.Generator().manual_seed(args.seed)
    bound = 6 / args.dim**0.5  # Bordes et al. 2013
    table, translations = (
        torch.empty(size, args.dim).uniform_(-bound, bound, generator=generator).requires_grad_()
        for size in (entities, relations)
    )
    with torch.no_grad():
        translations /= translations.norm(dim=1, keepdim=True)
        into_unit_ball(table, torch.arange(entities))
    optimizer = torch.optim.Adagrad([table, translations], lr=args.lr)
    start = time.monotonic()
    for epoch in range(1, args.epochs + 1):
        total = 0.0
        for part in torch.randperm(len(triples), generator=generator).split(args.batch):
            total += _update(triples[part], table, translations, optimizer, args, generator)
        if epoch % max(args.epochs // 10, 1) == 0:
            seconds = time.monotonic() - start
            print(f"epoch {epoch}: loss {total / len(triples):.4f} per triple, {seconds:.0f} s", flush=True)
    return table.detach(), translations.detach()


def _update(
    true: Tensor,
    table: Tensor,
    translations: Tensor,
    optimizer: torch.optim.Optimizer,
    args: argparse.Namespace,
    generator: torch.Generator,
) -> float:
    """One update; the summed loss before it."""
    heads, tails = corrupt(true, len(table), args.negatives, generator)

    def look_up(rows: Tensor) -> Tensor:
        return torch.nn.functional.embedding(rows, table, sparse=True)

    relation = torch.nn.functional.embedding(true[:, 1], translations, sparse=True)
    near = distances(look_up(true[:, 0]), relation, look_up(true[:, 2]), args.norm)
    far = distances(look_up(heads), relation[:, None], look_up(tails), args.norm)
    loss = margin_loss(near, far, args.margin)
    optimizer.zero_grad()
    (loss / len(true)).backward()
    # the rows are in range; torch warns of segmentation faults until one chooses
    with torch.sparse.check_sparse_tensor_invariants(False):
        optimizer.step()
    with torch.no_grad():
        into_unit_ball(table, torch.cat([true[:, 0], true[:, 2], heads.flatten(), tails.flatten()]).unique())
    return float(loss.detach())


def _ranked(evaluated: Sequence[Triple], graph: Graph) -> Tensor:
    """``(n, 3)`` numbers of the triples to rank; say how many others there are.

    Raises:
        ValueError: some are in the graph, or there are only others.
    """
    triples, unknown = numbered(evaluated, graph.entities, graph.relations)
    shared = np.isin(graph.keys(triples), graph.keys(graph.triples))
    if shared.any():
        entities, relations = list(graph.entities), list(graph.relations)
        named = ((entities[h], relations[r], entities[t]) for h, r, t in triples[shared].tolist())
        raise ValueError(
            f"{shared.sum():,} of {len(evaluated):,} triples of --valid are in the graph too (first: {' '.join(min(named))}): "
            "their ranks would say nothing; take them out of --triples"
        )
    if unknown:
        print(
            f"{unknown:,} of {len(evaluated):,} triples of --valid have an entity or relation that the graph has not: left out"
        )
    if evaluated and not len(triples):
        raise ValueError(
            "no triple of --valid is of the graph's entities and relations; give triples of the same graph"
        )
    return torch.from_numpy(triples)


def _of_array(args: argparse.Namespace) -> EntityVectors:
    """Vectors of an array, with the labels of its rows."""
    vectors = np.ascontiguousarray(_real_array(args.array), np.float32)
    ids = _labels(args.array_ids)
    check_vectors(ids, vectors, args.array)
    return EntityVectors(ids, vectors)


def _real_array(path: str) -> NDArray[Any]:
    """The array of a .npy file.

    Raises:
        ValueError: it is no such file, or not of real numbers.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        array = None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiuc":
        raise ValueError(f"--array `{path}` is not a .npy file of numbers; save it with numpy.save")
    if array.dtype.kind == "c":
        raise ValueError(
            f"--array `{path}` holds complex numbers, as of RotatE and ComplEx, and an encoder reads real ones; save both parts "
            "side by side: numpy.concatenate([array.real, array.imag], axis=1)"
        )
    return array


def _labels(path: str) -> tuple[str, ...]:
    """Labels of an array's rows, in their order.

    Raises:
        ValueError: a line of another form, a label that is empty, or numbers that do not name each row once.
    """
    rows = [line.rstrip("\r\n").split("\t") for line in open_lines(path)]
    if rows and rows[0] == ["id", "label"]:  # PyKEEN's heading
        rows = rows[1:]
    if {len(row) for row in rows} not in ({1}, {2}) or not all(row[-1] for row in rows):
        raise ValueError(
            f"`{path}`: expected a label on each line, or a number, a tab and a label; give PyKEEN's entity_to_id.tsv.gz, or one "
            "label a line"
        )
    if len(rows[0]) == 1:
        return tuple(label for [label] in rows)
    by_number = dict(rows)
    expected = list(map(str, range(len(rows))))
    if set(by_number) != set(expected):
        raise ValueError(
            f"`{path}`: expected the numbers 0 to {len(rows) - 1} in the first column, once each; give PyKEEN's "
            "entity_to_id.tsv.gz"
        )
    return tuple(by_number[number] for number in expected)
