"""Runs a sentence model: its checkpoint, the rows to predict, and what it says about them."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from tqdm import tqdm

import fairseq_bert_kd.tasks  # noqa: F401  registers the task
from fairseq_bert_kd import compat
from fairseq_bert_kd.cli.sentence_labels import labels_for
from fairseq_bert_kd.cli.sentence_pieces import PieceNumbers, most_tokens, tokenise
from fairseq_bert_kd.cli.sentence_scan import scan
from fairseq_bert_kd.cli.sentence_table import table_format
from fairseq_bert_kd.data.sentence_dataset import SentenceDataset
from fairseq_bert_kd.data.text_list import TextList
from fairseq_bert_kd.modules.declared_vector import declared_vector
from fairseq_bert_kd.modules.sentence_checkpoints import trained_spec, untrained_head
from fairseq_bert_kd.storage.fairseq_data import open_sides, sentence_files
from fairseq_bert_kd.storage.sentence_data import (
    CLASSES,
    UNLABELLED,
    SentenceSpec,
    check_same_task,
    check_tokenizer,
    named,
    read_spec,
)
from fairseq_bert_kd.tasks.sentence_prediction_with_teacher import (
    SentencePredictionWithTeacherConfig,
    SentencePredictionWithTeacherTask,
)
from fairseq_bert_kd.teachers.interface import SentenceEncoder
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

ENCODER = "hf_encoder"  # model of pre-trained encoders


class LoadedModel(NamedTuple):
    """A sentence model.

    Attributes:
        model: a fairseq model in evaluation mode.
        task: its task.
        path: checkpoint.
        data: data folder.
        device: where the model lies.
    """

    model: Any
    task: SentencePredictionWithTeacherTask
    path: str
    data: str
    device: torch.device


class Rows(NamedTuple):
    """Rows to predict.

    Attributes:
        name: what they are, for messages.
        dataset: without labels.
        references: their labels as the task's `references`; None if they have none.
    """

    name: str
    dataset: SentenceDataset
    references: list[Any] | None


def load(path: str, data: str | None, cpu: bool, vector: str | None = None) -> LoadedModel:
    """Load a checkpoint, or a pre-trained transformers encoder, on a data folder.

    Args:
        path: checkpoint of a sentence model, or folder or hub name of an encoder.
        data: data folder; None for the one that the checkpoint was trained on.
        cpu: do not use a GPU.
        vector: vector that will be asked for; None for the one that the model itself names, an encoder's folder by its pooling.

    Raises:
        FileNotFoundError: checkpoint or folder missing.
        ValueError: an encoder made for another pooling than ours, no checkpoint of a sentence model, or of another tokenizer or dictionary than the folder.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")
    if not Path(path).is_file() and not path.endswith(".pt"):
        if data is None:
            raise ValueError(f"`{path}` is not a checkpoint, which would name its data; give the data folder")
        model, task = _pretrained(path, data)
        if vector is None:
            model.default_vector = declared_vector(path)[0] or model.default_vector
        return LoadedModel(model.eval().to(device), task, path, data, device)
    trained_spec(path)  # refuses other checkpoints before anything is built
    if data is None:
        _check_data_is_there(path)
    overrides = {} if data is None else {"data": data}
    models, _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides=overrides)
    return LoadedModel(models[0].eval().to(device), task, path, task.cfg.data.split(os.pathsep)[0], device)


def _check_data_is_there(path: str) -> None:
    """FileNotFoundError if the data folder of a checkpoint's training is missing, as seen from another working folder."""
    folder = compat.load_checkpoint(path)["cfg"]["task"]["data"].split(os.pathsep)[0]
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"checkpoint `{path}` was trained on `{folder}`, which is not here (seen from `{os.getcwd()}`); name the folder of "
            "prepared sentences: DATA of evaluate-sentences, --data of encode"
        )


def _pretrained(name: str, data: str) -> tuple[Any, SentencePredictionWithTeacherTask]:
    """A transformers encoder over the dictionary of a data folder, and the task."""
    cfg = SentencePredictionWithTeacherConfig(
        data=data, kd_tokenizer=name, seed=1, train_subset="train", save_dir="", restore_file="", finetune_from_model=None
    )  # fmt: skip
    task = SentencePredictionWithTeacherTask.setup_task(cfg)
    # without a pooler of random weights
    settings = argparse.Namespace(arch=ENCODER, encoder_model=name, classification_pooling="mean")
    return task.build_model(settings, from_checkpoint=True), task


# ---------------------------------------------------------------- rows


def rows_to_predict(args: argparse.Namespace, model: LoadedModel) -> Rows:
    """Rows of ``--input`` or of a split.

    Raises:
        FileNotFoundError: no such split.
        ValueError: rows that the model was not made for.
    """
    rows = _rows_of_file(args, model) if args.input else _rows_of_split(args, model)
    if args.sts and (rows.references is None or not isinstance(rows.references[0], float)):
        raise ValueError(f"--sts needs rows with numbers as labels, {rows.name} has none; give scored pairs")
    if args.sts and len(rows.dataset.texts) != 2:
        raise ValueError(f"--sts compares the two sentences of a row, {rows.name} has one; give pairs")
    model.task.truncate(rows.dataset, rows.name)
    return rows


def _rows_of_split(args: argparse.Namespace, model: LoadedModel) -> Rows:
    spec = read_spec(model.data)
    _check_task(args.sts, model, spec, f"data folder `{model.data}`")
    sides = open_sides(sentence_files(model.data, args.subset, spec.sides), args.subset)
    dataset = model.task.make_dataset(model.data, args.subset, list(sides.values()))
    return Rows(args.subset, dataset, model.task.references(model.data, args.subset, len(dataset)))


def _rows_of_file(args: argparse.Namespace, model: LoadedModel) -> Rows:
    table, own = table_format(args), model.task.spec
    names = own.names if table.kind == CLASSES else ()
    labels = labels_for(table.kind, table.preset, names)
    spec = SentenceSpec(table.kind, labels.names, table.texts, own.tokenizer, own.dictionary)
    _check_task(args.sts, model, spec, f"`{args.input}`")
    tokenizer = HfTokenizer(args.tokenizer or own.tokenizer_name)
    check_tokenizer(f"checkpoint `{model.path}`", own.tokenizer, tokenizer.digest(), tokenizer.name)
    scanned = scan([args.input], table, labels, "test")
    numbering = PieceNumbers(model.task.dictionary)
    texts = tokenise(scanned, table, tokenizer, numbering, Path(args.input).name)
    if numbering.unknown:
        print(
            f"warning: {numbering.unknown:,} of {sum(len(side.ids) for side in texts.texts):,} pieces of {args.input} are not in the "
            "model's dictionary and read as unknown; data that were prepared with --full-dictionary have all"
        )
    eos = model.task.dictionary.eos()
    sides = [
        TextList(list(side.closed(lengths, eos)))
        for side, lengths in zip(texts.texts, texts.lengths().T, strict=True)
    ]
    dataset = model.task.make_dataset(None, args.input, sides)
    if own.max_tokens and own.texts == table.texts:  # as a split of the training's folder
        cut = dataset.truncate(most_tokens(tokenizer, table.texts, own.max_tokens))
        if cut:
            print(f"{args.input}: {cut:,} rows cut to {own.max_tokens} tokens, as the data of the training")
    return Rows(args.input, dataset, None if scanned.labels is None else named(scanned.labels, spec))


def _check_task(sts: bool, model: LoadedModel, spec: SentenceSpec, name: str) -> None:
    """Check that a model with a head was trained for these rows, and warn if the head was not; vectors need none."""
    if sts:
        return
    if model.task.predicted_kind == UNLABELLED:
        raise ValueError(
            f"checkpoint `{model.path}` was trained on unlabelled text and has no classification head; train it on labels "
            "first, or compare sentence vectors with --sts"
        )
    if model.task.spec.texts != spec.texts:
        raise ValueError(
            f"checkpoint `{model.path}` was trained on rows of {model.task.spec.texts} texts, {name} has {spec.texts}"
        )
    check_same_task(model.task.spec, spec, (f"checkpoint `{model.path}`", name))
    if said := untrained_head(model.path, compat.load_checkpoint(model.path)):
        print(f"warning: {said}")


# ---------------------------------------------------------------- predictions


def predict(model: LoadedModel, rows: Rows, batch_size: int) -> list[Any]:
    """What the task makes of the logits (`predictions`) for all rows in their order."""
    head = model.task.cfg.classification_head_name
    values: list[Any] = [None] * len(rows.dataset)
    for batch in _batches(model, rows, batch_size):
        logits, _ = model.model(**batch["net_input"], features_only=True, classification_head_name=head)
        for row, value in zip(batch["id"].tolist(), model.task.predictions(logits), strict=True):
            values[row] = value
    return values


def cosines(model: LoadedModel, rows: Rows, batch_size: int, vector: str | None) -> list[float]:
    """Cosine of the vectors of both texts of every row, -1 to 1.

    Raises:
        ValueError: the model gives no sentence vectors.
    """
    encoder = model.model
    if not isinstance(encoder, SentenceEncoder):
        raise ValueError(
            f"--sts needs a model that gives sentence vectors, `{model.path}` holds a {type(encoder).__name__}; leave --sts out "
            "to use its classification head"
        )
    values = np.empty(len(rows.dataset))
    for batch in _batches(model, rows, batch_size):
        pairs = zip(batch["net_input"]["texts"], batch["net_input"]["lengths"], strict=True)
        first, second = (
            encoder.sentence_vectors(tokens, lengths, vector).double() for tokens, lengths in pairs
        )
        values[batch["id"].cpu().numpy()] = torch.cosine_similarity(first, second).cpu().numpy()
    return values.tolist()


def _batches(model: LoadedModel, rows: Rows, batch_size: int) -> Iterator[dict[str, Any]]:
    iterator = model.task.get_batch_iterator(rows.dataset, max_sentences=batch_size).next_epoch_itr(
        shuffle=False
    )
    with torch.inference_mode(), tqdm(total=len(rows.dataset), desc=rows.name, unit=" rows") as progress:
        for batch in iterator:
            yield utils.move_to_cuda(batch, model.device) if model.device.type == "cuda" else batch
            progress.update(batch["nsentences"])
