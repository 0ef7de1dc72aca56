"""A C-MLM teacher that reads entities: no masked position sees the entity of a mention that covers it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fairseq_bert_kd.batch import TeacherRequirements
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.storage.entity_mentions import (
    FILE,
    MentionsByRow,
    SplitMentions,
    mentions_path,
    read_mentions,
    write_mentions,
)
from fairseq_bert_kd.storage.entity_vectors import read_entity_vectors
from fairseq_bert_kd.storage.fairseq_data import open_pairs
from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from fairseq_bert_kd.teachers.load import load_teacher
from fairseq_bert_kd.teachers.load_live import load_live_teacher
from fairseq_bert_kd.teachers.topk_dump import TopKDump
from tests.tiny_chain import (
    WORDS,
    build_teacher_folder,
    dump,
    preprocess,
    tokenize_corpus,
    train_teacher,
    write_corpus,
)

SPLITS = ("train", "valid", "test")


def cli(*words):
    return cli_main(list(map(str, words)))


def mentions_of(line):
    """Of words 1 and 2, 4 and 5 and so on: both as one mention of the first one's entity."""
    words, found, place = line.split(), [], 0
    for number, word in enumerate(words):
        if number % 3 == 0 and number + 1 < len(words):
            found.append([place, place + len(word) + 1 + len(words[number + 1]), word])
        place += len(word) + 1
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("entity-teacher")
    build_teacher_folder("bert", folder / "bert")
    write_corpus(folder / "raw", train=40, others=12, lengths=(2, 9))
    tokenize_corpus(folder / "raw", folder / "pieces", folder / "bert")
    preprocess(folder / "pieces", folder / "data")
    np.save(folder / "array.npy", np.random.default_rng(1).normal(size=(len(WORDS), 8)).astype(np.float32))
    (folder / "ids.txt").write_text("".join(f"{word}\n" for word in WORDS))
    assert cli("entity-vectors", "--array", folder / "array.npy", "--array-ids", folder / "ids.txt", "--output", folder / "graph.safetensors") == 0  # fmt: skip
    files = []
    for split in SPLITS:
        sides = [(folder / "raw" / f"{split}.{lang}").read_text().splitlines() for lang in ("de", "en")]
        rows = [
            {
                "texts": texts,
                "mentions": [[side, *mention] for side in (0, 1) for mention in mentions_of(texts[side])],
            }
            for texts in zip(*sides, strict=True)
        ]
        path = folder / f"{split}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        files += [f"--{split}", path]
    assert cli("entities", folder / "data", "--vectors", folder / "graph.safetensors", "--tokenizer", folder / "bert", "--entity-span", "all", *files) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder):
    options = (
        "--entity-vectors",
        folder / "graph.safetensors",
        "--entity-init",
        "normal",
        "--entity-layers",
        "mix,full",
    )
    path = train_teacher(folder / "data", folder / "bert", folder / "teacher", *options, "-s", "de", "-t", "en")  # fmt: skip
    state = torch.load(path, weights_only=False)
    for name, weight in state["model"].items():  # large enough to be seen in the logits
        if name.startswith(("entities.stream.", "encoder.encoder.layer.")) and weight.dim() == 2:
            weight *= 10
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def store(folder, checkpoint):
    options = ("--subset", "valid", "--topk", 4, "--passes", 3, "--chunk-sentences", 5, "--temperatures", 1)
    assert dump(folder / "data", checkpoint, *options) == 0
    return TopKReader(store_path(folder / "data", "valid", "de", "en"))


def split_of(folder, split):
    pairs = open_pairs(folder / "data", split, "de", "en")
    return pairs, read_mentions(folder / "data", split, list(pairs.values()))


def test_no_pass_shows_an_entity_of_a_mention_that_covers_a_masked_position(folder, checkpoint, store):
    """Every pass of the dump, every masked position; all other mentions are shown on all their pieces."""
    pairs, mentions = split_of(folder, "valid")
    by_row = MentionsByRow(mentions, len(pairs["target"]), 2)
    teacher = load_teacher(str(checkpoint), str(folder / "data"))
    scorer = TopKDump(teacher, pairs, store.info, torch.device("cpu"), by_row).scorer
    rows = shown = withheld = 0
    for batch in scorer.prepared(range(3)):
        first = batch.chunk.number * 5
        entities, inputs = batch.inputs.inputs["entities"], batch.inputs
        items, columns = np.divmod(inputs.input_positions.numpy(), entities.shape[1])
        for item in np.unique(items):
            of_item = items == item
            positions = inputs.target_positions[of_item]
            [start] = np.unique(columns[of_item] - positions)  # of the target
            sentence = first + inputs.sentences[of_item][0]
            rows += len(positions)
            expected = np.zeros(entities.shape[1], np.int64)
            for row, side, begin, end, entity, _ in mentions.rows:
                if row != sentence:
                    continue
                masked = side == 1 and bool(set(range(begin, end)) & set(positions))
                place = (start if side == 1 else 1) + begin  # [CLS] source [SEP] target
                if masked:
                    withheld += 1
                    assert not entities[item, place : place + end - begin].any()
                else:
                    shown += side
                    expected[place : place + end - begin] = entity
            assert entities[item].tolist() == expected.tolist()
    assert rows == pairs["target"].sizes.sum()
    assert shown > 20
    assert withheld > 20


def test_the_store_holds_the_teachers_rows_and_names_the_vectors(folder, checkpoint, store):
    vectors = read_entity_vectors(folder / "graph.safetensors")
    assert store.info.entities_digest == vectors.digest()
    pairs, mentions = split_of(folder, "valid")
    by_row = MentionsByRow(mentions, len(pairs["target"]), 2)
    model = load_teacher(str(checkpoint), str(folder / "data")).model
    row = int(mentions.rows[mentions.rows[:, 1] == 1][0, 0])  # its target has a mention
    source, target = (torch.tensor(np.asarray(side[row], np.int64)) for side in pairs.values())
    source = source[:-1]
    spans = by_row.spans(row)
    predicted = torch.arange(len(target)) % 3 == 2
    predicted[spans[1][0][0] : spans[1][0][1]] = False  # what is left shows the mention
    batch = {
        "texts": (source[None], target[None]),
        "lengths": (torch.tensor([len(source)]), torch.tensor([len(target)])),
        "predicted": predicted[None],
        "hidden": (torch.arange(len(target)) % 3 == 2)[None],
    }
    with torch.no_grad():
        without = model(**batch)
        entities = [torch.zeros_like(text) for text in batch["texts"]]
        for number, found in enumerate(spans):
            for begin, end, entity in found:
                if number == 0 or not batch["hidden"][0, begin:end].any():
                    entities[number][0, begin:end] = entity
        logits = model(**batch, entities=entities)
    stored = store.rows(row)["topk_ids"][predicted.numpy()]
    excluded = [0, 1]  # start and padding
    logits[:, excluded] = -torch.inf
    assert logits.topk(4).indices.tolist() == stored.tolist()
    assert not torch.allclose(without, model(**batch, entities=entities), atol=1e-3)


def test_training_withholds_entities_by_the_same_rule(folder, checkpoint):
    teacher = load_teacher(str(checkpoint), str(folder / "data"))
    teacher.task.cfg.train_subset = "train"
    teacher.task.load_dataset("train")
    dataset = teacher.task.datasets["train"]
    _, mentions = split_of(folder, "train")
    withheld = shown = 0
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
        items = [dataset[i] for i in range(len(dataset))]
        for row, side, begin, end, entity, _ in mentions.rows:
            seen = items[row]["entities"].seen[side][begin:end]
            if side == 1 and items[row]["predicted"][begin:end].any():
                withheld += 1
                assert not seen.any()
            else:
                shown += side
                assert (seen == entity).all()
    assert withheld > 5
    assert shown > 5
    batch = dataset.collater([dataset[0], dataset[1]])["net_input"]
    assert [part.shape for part in batch["entities"]] == [part.shape for part in batch["texts"]]


def test_a_dump_does_not_go_on_with_other_mentions(folder, checkpoint, store, tmp_path, capsys):
    pairs, mentions = split_of(folder, "valid")
    assert store.info.mentions_digest == mentions.own_digest() != store.info.entities_digest
    data = shutil.copytree(folder / "data", tmp_path / "data")
    fewer = mentions.rows[1:]
    write_mentions(data, mentions.digest, mentions.span, {"valid": SplitMentions(list(pairs.values()), fewer)})  # fmt: skip
    options = ("--subset", "valid", "--topk", 4, "--passes", 3, "--chunk-sentences", 5, "--temperatures", 1)
    assert dump(data, checkpoint, *options) == 2
    assert "mentions_digest" in capsys.readouterr().err


def test_a_dump_marks_the_pieces_that_training_marked(folder, checkpoint, tmp_path, capsys):
    data = shutil.copytree(folder / "data", tmp_path / "data")
    described = data / FILE
    described.write_text(described.read_text().replace('"span": "all"', '"span": "first"'))
    assert dump(data, checkpoint, "--subset", "test") == 2
    assert "by --entity-span first, those that the model was trained with by all" in capsys.readouterr().err


def test_refusals(folder, checkpoint, tmp_path, capsys):
    graph = ("--entity-vectors", folder / "graph.safetensors")
    data, bert = folder / "data", folder / "bert"
    with pytest.raises(ValueError, match="--teacher-attention left-to-right shows one by one"):
        train_teacher(data, bert, tmp_path, *graph, "--teacher-attention", "left-to-right", "-s", "de", "-t", "en")  # fmt: skip
    for option in (("--entity-control", "none"), ("--entity-layers", "mix")):
        with pytest.raises(ValueError, match="has no effect without --entity-vectors"):
            train_teacher(data, bert, tmp_path, *option, "-s", "de", "-t", "en")
    cfg = SimpleNamespace(kd_live_teacher=str(checkpoint), data=str(data))
    with pytest.raises(ValueError, match="reads entities, which a student's batches do not name"):
        load_live_teacher(cfg, TeacherRequirements(topk=4, temperature=1.0))
    np.save(tmp_path / "array.npy", np.eye(len(WORDS), 8, dtype=np.float32))
    assert cli("entity-vectors", "--array", tmp_path / "array.npy", "--array-ids", folder / "ids.txt", "--output", tmp_path / "other.safetensors") == 0  # fmt: skip
    with pytest.raises(ValueError, match="are of other entity vectors"):
        train_teacher(data, bert, tmp_path, "--entity-vectors", tmp_path / "other.safetensors", "-s", "de", "-t", "en")  # fmt: skip
    capsys.readouterr()
    assert dump(data, checkpoint, "--subset", "test", "--compile") == 2
    assert "--compile has no effect on a teacher that reads entities" in capsys.readouterr().err
    other = shutil.copytree(data, tmp_path / "other")
    (other / FILE).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"split `train` of `.*other` has no mentions"
    ):  # not in epoch 2
        train_teacher(f"{data}:{other}", bert, tmp_path, *graph, "-s", "de", "-t", "en")
    described, rows = data / FILE, mentions_path(data, "test")
    kept = described.read_text()
    described.write_text(kept.replace('"test"', '"other"'))
    assert dump(data, checkpoint, "--subset", "test") == 2
    assert "split `test` of" in (said := capsys.readouterr().err)
    assert "has no mentions of entities; run `fairseq-bert-kd entities`" in said
    described.write_text(kept)
    np.save(rows, np.load(rows)[1:])
    assert dump(data, checkpoint, "--subset", "test") == 2
    assert "is damaged" in capsys.readouterr().err
    assert cli("entities", data, "--vectors", folder / "graph.safetensors", "--overwrite", "--train", folder / "train.jsonl") == 2  # fmt: skip
    assert "give --tokenizer" in capsys.readouterr().err
    assert cli("export-student", checkpoint, "--format", "transformers", "--output", tmp_path / "served") == 2
    assert "has an entity stream (--entity-vectors)" in capsys.readouterr().err
    assert not (tmp_path / "served").exists()


def test_a_teachers_new_layers_take_a_rate_of_their_own(folder):
    """Adam's first step is the learning rate, whatever the gradient."""

    def after_one_update(name, factor):
        options = ("--entity-vectors", folder / "graph.safetensors", "--entity-init", "normal")
        rates = ("--optimizer", "adam_by_part", "--lr-scales", f"entities={factor}")
        path = train_teacher(folder / "data", folder / "bert", folder / name, *options, *rates, "-s", "de", "-t", "en", updates=1)  # fmt: skip
        return torch.load(path, weights_only=False)["model"]

    once, tenfold = after_one_update("once", 1), after_one_update("tenfold", 10)
    moved = {name: (tenfold[name] - weight).abs().max().item() for name, weight in once.items()}
    layers = [name for name in moved if name.startswith("entities.stream.")]
    assert max(moved[name] for name in layers) == pytest.approx(9 * 1e-3, rel=1e-2)  # 10 - 1 steps of --lr
    assert not any(distance for name, distance in moved.items() if not name.startswith("entities."))


def test_entities_of_the_last_layer_alone_are_refused(folder, tmp_path):
    """They would reach no masked token."""
    options = ("--entity-vectors", folder / "graph.safetensors", "--entity-layers")
    for kinds in ("mix", "full"):
        with pytest.raises(
            ValueError, match=f"--entity-layers plain,{kinds}: the last layer alone reads entities"
        ):
            train_teacher(
                folder / "data", folder / "bert", tmp_path / kinds, *options, kinds, "-s", "de", "-t", "en"
            )
    train_teacher(folder / "data", folder / "bert", tmp_path / "without", *options, "mix", "--entity-control", "none", "-s", "de", "-t", "en", updates=1)  # fmt: skip
