"""The authors' dump as a store: what they trained with is what we train with, and nothing of the file is run."""

import argparse
import contextlib
import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.authors_dump import SpecialIds, dump_hiddens, dump_topk
from benchmarks.authors_format import DUMB, PLATFORM, AuthorsReader, open_shelve, saved, write_authors_shelve
from fairseq_bert_kd.cli import store_import
from fairseq_bert_kd.cli.authors_shelve import load_pair, unwrap
from fairseq_bert_kd.functional.soft_targets import paper
from fairseq_bert_kd.storage.fairseq_data import open_pairs, sentence_hash
from fairseq_bert_kd.storage.store_info import NOT_FINITE, NOT_IMPORTED, SCORED
from fairseq_bert_kd.storage.topk_store import TopKReader
from fairseq_bert_kd.storage.topk_writer import TopKWriter

WORDS = [f"w{i}" for i in range(40)]
STUDENT = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]
ONMT = ["<unk>", "<blank>", "<s>", "</s>", *WORDS[::-1]]  # other order, other special ids
K = 12  # stored in the dumps here; 128 in theirs
EOS = 2


def write_side(prefix, sentences):
    """The host's mmap format, int32 ids."""
    sizes = np.array([len(s) for s in sentences], dtype="<i4")
    with open(f"{prefix}.idx", "wb") as file:
        file.write(struct.pack("<9sQBQ", b"MMIDIDX\x00\x00", 1, 4, len(sentences)) + sizes.tobytes())
        file.write((4 * (np.cumsum(sizes, dtype="<i8") - sizes)).astype("<i8").tobytes())
    Path(f"{prefix}.bin").write_bytes(np.concatenate(sentences).astype("<i4").tobytes())


def write_data(folder, sources, targets):
    """Sentences without end of sentence, as student ids."""
    write_side(folder / "train.de-en.de", [[*s, EOS] for s in sources])
    write_side(folder / "train.de-en.en", [[*t, EOS] for t in targets])
    for lang in ("de", "en"):
        (folder / f"dict.{lang}.txt").write_text("".join(f"{w} 1\n" for w in WORDS), encoding="utf-8")


def make_rows(rows, rng, step=2.0**-5):
    """Descending logits below 32 on a grid of ``step``, different ids."""
    logits = -np.sort(-rng.integers(-32 / step + 1, 32 / step, (rows, K)) * step, axis=1)
    return logits.astype(np.float16), np.stack([rng.permutation(len(ONMT))[:K] for _ in range(rows)])


class World:
    """A data folder of six sentences and the dump of it."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.folder, self.shelve, self.vocabulary = folder, folder / "topk", folder / "vocab.txt"
        self.lengths = [3, 1, 7, 20, 2, 5]
        self.targets = [rng.integers(4, 44, n).tolist() for n in self.lengths]
        self.sources = [rng.integers(4, 44, n).tolist() for n in (4, 2, 9, 30, 1, 6)]
        self.rows = [make_rows(n + 1, rng) for n in self.lengths]
        self.write()

    def write(self, kind=DUMB, zipped=False):
        write_data(self.folder, self.sources, self.targets)
        self.vocabulary.write_text("\n".join(ONMT) + "\n", encoding="utf-8")
        write_authors_shelve(self.shelve, self.rows, kind, zipped)

    def put(self, key, value):
        """Replace a raw value of the shelve."""
        shelf = open_shelve(self.shelve, DUMB)
        for sentence, rows in enumerate(self.rows):
            shelf[str(sentence)] = saved(*rows)
        shelf.dict[key] = value
        shelf.close()

    def run(self, *options):
        parser = argparse.ArgumentParser()
        store_import.add_arguments(parser)
        names = [str(self.shelve), "--data", str(self.folder), "--vocabulary", str(self.vocabulary)]
        store_import.main(parser.parse_args([*names, "--source-lang", "de", "--target-lang", "en", *options]))
        return TopKReader(self.folder / "train.de-en.en.topk")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def student_ids(ids):
    """By symbol, the obvious way."""
    names = {"<blank>": "<pad>"}
    return [[STUDENT.index(names.get(ONMT[i], ONMT[i])) for i in row] for row in np.asarray(ids).tolist()]


# ---------------------------------------------------------------- what is imported


@pytest.mark.parametrize("kind", [DUMB, PLATFORM])
@pytest.mark.parametrize("zipped", [False, True])
def test_everything_put_in_comes_out(world, kind, zipped):
    for left in world.folder.glob("topk*"):
        left.unlink()
    world.write(kind, zipped)
    reader, theirs = world.run("--topk", "8"), AuthorsReader(world.shelve)
    pairs = open_pairs(world.folder, "train", "de", "en")
    for sentence, (logits, ids) in enumerate(world.rows):
        records = reader.rows(sentence)
        assert records["topk_ids"].tolist() == student_ids(ids[:, :8])
        expected = logits.astype(np.float64) - logits.astype(np.float64)[:, :1]
        assert records["topk_logits"].astype(np.float64).tolist() == expected[:, :8].tolist()
        assert reader.status(sentence) == SCORED
        assert reader.hashes(sentence) == tuple(sentence_hash(side[sentence]) for side in pairs)
        read_logits, read_ids = theirs.rows(sentence)
        assert read_logits.tolist() == logits[:, :8].tolist()
        assert read_ids.tolist() == ids[:, :8].tolist()
    info = reader.info
    assert (info.k, info.temperatures, info.passes, info.mask_ratio) == (8, (), 7, 0.15)
    assert info.origin.startswith("import of the authors' shelve (dump ")
    assert reader.symbols() == STUDENT


def test_onmt_special_tokens_have_their_places():
    token_map = store_import.map_tokens(ONMT, STUDENT)
    assert token_map.student_ids[:5].tolist() == [3, 1, 0, 2, 43]  # <unk> <blank> <s> </s> w39


def loss(world, seed=1):
    """The paper's loss from the original tensors and from the store, each ``(positions,)``."""
    reader, generator = TopKReader(world.folder / "train.de-en.en.topk"), torch.Generator().manual_seed(seed)
    original, imported = [], []
    for sentence, (logits, ids) in enumerate(world.rows):
        lprobs = torch.randn(len(ids), len(STUDENT), generator=generator).double().log_softmax(-1)
        theirs = torch.tensor(student_ids(ids[:, :8])), torch.from_numpy(logits[:, :8])
        records = reader.rows(sentence)
        ours = (
            torch.from_numpy(records["topk_ids"].astype(np.int64)),
            torch.from_numpy(records["topk_logits"].copy()),
        )
        for losses, (tokens, values) in ((original, theirs), (imported, ours)):
            normaliser = torch.zeros(len(lprobs), dtype=torch.float64)
            losses.append(paper(lprobs.gather(1, tokens), normaliser, values.double(), 10.0))
    return torch.cat(original), torch.cat(imported)


def test_loss_is_the_authors_to_1e_6_where_the_differences_are_float16(world):
    world.run()
    original, imported = loss(world)
    assert (original - imported).abs().max() < 1e-6


def test_loss_of_any_logits_below_32_differs_by_the_rounding_only(world):
    rng = np.random.default_rng(5)
    world.rows = [
        (-np.sort(-rng.uniform(-32, 32, (n + 1, K)).astype(np.float16), axis=1), make_rows(n + 1, rng)[1])
        for n in world.lengths
    ]
    world.write()
    world.run()
    original, imported = loss(world)
    # a logit is off by 2**-6 at most, so the teacher's probabilities by a factor of exp(2 * 2**-6 / 10) at most
    spread = 12.0  # nats between the student's best and worst token, generously
    assert (original - imported).abs().max() < (np.exp(2 * 2**-6 / 10) - 1) * spread
    assert (original - imported).abs().max() > 1e-9  # it is rounding, and it is there


halves = st.floats(-31.984375, 31.984375, width=16)


@given(halves, halves)
@settings(max_examples=300, deadline=None)
def test_difference_of_float16_logits_below_32(one, other):
    """float32 holds the difference to 2**-19; float16 holds it exactly on its own grid or between best/2 and best."""
    best, worse = max(one, other), min(one, other)
    exact = best - worse  # float64 holds it
    stored = float((np.float32(worse) - np.float32(best)).astype(np.float16))
    assert abs(-stored - exact) <= (2**-6 if exact >= 32 else 2**-7) + 2**-18
    if worse >= best / 2 or (32 * one == int(32 * one) and 32 * other == int(32 * other)):
        assert -stored == exact


# ---------------------------------------------------------------- what is not there


def test_blank_line_holds_the_sentence_before_it_and_is_left_out(world, capsys):
    """Their make_db stores the pair before a blank line once more; its row count can fit by chance."""
    world.sources[2] = []  # the target has as many tokens as before
    world.targets[4], world.rows[4] = [], world.rows[3]
    world.write()
    reader = world.run()
    assert [reader.status(i) for i in range(6)] == [0, 0, NOT_IMPORTED, 0, NOT_IMPORTED, 0]
    assert not reader.rows(2)["topk_logits"].any()
    assert "4 of 6 sentences" in capsys.readouterr().out


def test_pairs_above_512_tokens_are_absent_and_others_must_not_be(world):
    world.sources[3] = [5] * (512 - 3 - 20 + 1)
    world.rows[3] = None
    world.write()
    assert world.run().status(3) == NOT_IMPORTED
    world.sources[3] = [5] * (512 - 3 - 20)
    world.write()
    with pytest.raises(ValueError, match="sentence 3 is not in .* though it has at most 512 tokens"):
        world.run("--overwrite")
    assert world.run("--overwrite", "--allow-missing").status(3) == NOT_IMPORTED


def test_not_finite_sentence_stops_or_is_marked(world):
    world.rows[2][0][5, 9] = np.nan
    world.write()
    assert world.run().status(2) == SCORED  # beyond the first 8
    world.rows[2][0][5, 3] = np.nan
    world.write()
    with pytest.raises(ValueError, match="sentence 2 of .*topk: position 5: a logit is not finite"):
        world.run("--overwrite")
    assert world.run("--overwrite", "--allow-missing").status(2) == NOT_FINITE


def test_absent_token_is_refused_by_name_or_skipped(world):
    words = [w for w in WORDS if w != "w7"]
    (world.folder / "dict.en.txt").write_text("".join(f"{w} 1\n" for w in words), encoding="utf-8")
    unknown = ONMT.index("w7")
    logits, ids = world.rows[0]
    for _, other in world.rows:
        other[other == unknown] = 40 - 12  # nowhere, at first
    rng = np.random.default_rng(9)
    allowed = [i for i in range(len(ONMT)) if i != unknown]
    for _, other in world.rows:
        for row in other:
            row[:] = rng.permutation(allowed)[:K]
    ids[1, 2] = unknown
    write_authors_shelve(world.shelve, world.rows)
    with pytest.raises(
        ValueError, match=r"sentence 0 .*position 1: .* lacks the teacher's token 'w7' \(and 0 more"
    ):
        world.run()
    reader = world.run("--absent-tokens", "skip", "--overwrite")  # the refused run left unfinished work
    symbols = reader.symbols()
    kept = [j for j in range(K) if j != 2][:8]
    assert [symbols[i] for i in reader.rows(0)["topk_ids"][1]] == [
        {"<blank>": "<pad>"}.get(ONMT[i], ONMT[i]) for i in ids[1, kept]
    ]
    assert reader.rows(0)["topk_logits"][1].tolist() == (logits[1, kept] - logits[1, 0]).tolist()


# ---------------------------------------------------------------- bad input


def fault(change):
    """A world with one bad sentence, 1, of two rows."""

    def apply(world):
        logits, ids = (part.copy() for part in world.rows[1])
        world.rows[1] = change(logits, ids)
        world.write()

    return apply


def set_at(array, place, value):
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, i: (z[:1], i[:1]), "has 1 rows, the target 2 tokens, end of sentence included"),
        (lambda z, i: (z[:, :7], i[:, :7]), "7 tokens per position, --topk is 8"),
        (lambda z, i: (z, i[:, :8]), "of the same shape"),
        (lambda z, i: (z.astype(np.float64), i), "logits must be float16 and ids int64"),
        (lambda z, i: (z, set_at(i, (1, 0), 44)), "position 1: id 44 is not in the vocabulary of 44"),
        (lambda z, i: (z, set_at(i, (0, 0), -1)), "position 0: id -1 is not in"),
        (lambda z, i: (z, set_at(i, (1, 0), i[1, 1])), "position 1: topk_ids must differ"),
        (lambda z, i: (z[:, ::-1].copy(), i), "position 0: logits must descend"),
        (lambda z, i: (set_at(z, (0, 0), 65504) - 0, i), None),
        (
            lambda z, i: (set_at(set_at(z, (0, 0), 65504), (0, slice(1, K)), -65504), i),
            "too far apart for float16",
        ),
    ],
)
def test_rows_that_cannot_be_theirs(world, change, message):
    fault(change)(world)
    if message is None:
        assert world.run().status(1) == SCORED
        return
    with pytest.raises(ValueError, match=message) as caught:
        world.run()
    assert "sentence 1" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("six", "key b'six', which is no line number"),
        ("007", "key b'007'"),
        ("-1", "key b'-1'"),
        ("6", "has sentence 6, the data only 6 sentences"),
    ],
)
def test_keys_that_are_no_sentences(world, key, message):
    world.put(key, pickle.dumps(b""))
    with pytest.raises(ValueError, match=message):
        world.run()


def test_truncated_files(world):
    data = world.shelve.with_name("topk.dat")
    whole = data.read_bytes()
    data.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"sentence \d: .*topk\.dat ends before its \d+ bytes"):
        world.run()
    inner = saved(*world.rows[4])
    for cut in (inner[:-1], inner[:200], inner[:20], b""):
        world.put("4", pickle.dumps(cut, 3))
        with pytest.raises(
            ValueError, match="sentence 4 of .*(torch cannot safely load|torch.save does not write)"
        ):
            world.run("--overwrite")
    world.put("4", pickle.dumps(inner, 3)[:-5])
    with pytest.raises(ValueError, match="sentence 4 of .*no pickled bytes object"):
        world.run("--overwrite")


def test_no_shelve(world, tmp_path):
    world.shelve = tmp_path / "nothing"
    with pytest.raises(FileNotFoundError, match="give the name without the ending"):
        world.run()
    world.shelve = tmp_path / "dict.en.txt"
    with pytest.raises(ValueError, match="is no shelve"):
        world.run()
    world.shelve = tmp_path / "odd"
    (tmp_path / "odd.dat").write_bytes(b"")
    (tmp_path / "odd.dir").write_bytes(b"'0', (0, __import__('os').abort())\n")
    with pytest.raises(ValueError, match=r"odd\.dir, line 1: expected"):
        world.run()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "line 2: expected one token, got ''"),
        (b"a\nb c\n", "line 2: expected one token, got 'b c'"),
        (b"a\nb\na\n", "line 3: 'a' stands on line 1 too"),
        (b"PK\x03\x04\x00\x00\xff", "is no text; objects of OpenNMT are not loaded"),
        (b"\x80\x02\x8a\nl\xfc\x9cF", "is no text"),
    ],
)
def test_vocabularies_that_are_none(world, content, message):
    world.vocabulary.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        world.run()


def test_wrong_vocabulary_is_noticed(world, caplog):
    world.run()
    assert "the vocabulary or the data are probably not those of the dump" in caplog.text  # random rows here


# ---------------------------------------------------------------- nothing runs


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def torch_saved(thing, zipped):
    with io.BytesIO() as file:
        torch.save(thing, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_malicious_shelve_value_does_not_run(world, tmp_path, protocol):
    trap = tmp_path / "ran"
    for thing in (Evil(trap), [b"x", Evil(trap)], b"x" * 9 if protocol < 3 else Evil(trap)):
        world.put("2", pickle.dumps(thing, protocol))
        with pytest.raises(ValueError, match="sentence 2 of .*nothing of it was run"):
            world.run("--overwrite")
    assert not trap.exists()
    pickle.loads(pickle.dumps(Evil(trap), protocol))
    assert trap.exists()  # it would have


@pytest.mark.parametrize("zipped", [False, True])
def test_malicious_tensor_value_does_not_run(world, tmp_path, zipped):
    trap = tmp_path / "ran"
    value = torch_saved((Evil(trap), world.rows[2]), zipped)
    world.put("2", pickle.dumps(value, 3))
    with pytest.raises(ValueError, match="sentence 2 of .*torch cannot safely load .*nothing of it was run"):
        world.run()
    assert not trap.exists()
    torch.load(io.BytesIO(value), weights_only=False)
    assert trap.exists()


@pytest.mark.parametrize(
    "thing", [{"logits": 1}, (torch.zeros(1, 1),), (torch.zeros(1).half(), torch.zeros(1).long()), (1, 2), []]
)
def test_other_safe_objects_are_refused(thing):
    with pytest.raises(ValueError, match="not a pair of tensors"):
        load_pair(torch_saved(thing, False))


def test_other_forms_of_torch_are_refused():
    with io.BytesIO() as file:
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
        with pytest.raises(ValueError, match="torch.save does not write"):
            load_pair(file.getvalue())


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_unwrap_gives_the_bytes_or_a_value_error(raw):
    for protocol in (3, 4, 5):
        assert unwrap(pickle.dumps(raw, protocol)) == raw
    for value in (raw, b"\x80\x03" + raw):  # what is no bytes object is a ValueError, nothing else
        with contextlib.suppress(ValueError):
            assert isinstance(unwrap(value), bytes)


# ---------------------------------------------------------------- running


def test_import_goes_on_where_it_was_killed(world, monkeypatch):
    monkeypatch.setattr(store_import, "StoreInfo", lambda **f: StoreInfoOf(**f, chunk_sentences=2))
    whole = world.run().path.read_bytes()
    (world.folder / "train.de-en.en.topk").unlink()
    written, write = [], TopKWriter.write_chunk

    def fails_at_last(self, chunk, data):
        if chunk == 2:
            raise KeyboardInterrupt
        written.append(chunk)
        write(self, chunk, data)

    monkeypatch.setattr(TopKWriter, "write_chunk", fails_at_last)
    with pytest.raises(KeyboardInterrupt):
        world.run()
    monkeypatch.setattr(TopKWriter, "write_chunk", lambda self, c, d: (written.append(c), write(self, c, d)))
    assert world.run().path.read_bytes() == whole
    assert written == [0, 1, 2]


StoreInfoOf = store_import.StoreInfo


def test_second_import_does_nothing_and_another_dump_is_refused(world, capsys):
    world.run()
    world.run()
    assert "holds this dump already" in capsys.readouterr().out
    world.rows[0] = make_rows(4, np.random.default_rng(7))
    world.write()
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        world.run()
    assert world.run("--overwrite").rows(0)["topk_ids"].tolist() == student_ids(world.rows[0][1][:, :8])


def test_help_says_how_to_export_the_vocabulary(capsys):
    with pytest.raises(SystemExit):
        store_import.get_parser().parse_args(["--help"])
    printed = capsys.readouterr().out
    assert "fields[0][1].vocab.itos" in printed
    assert "example" in printed


# ---------------------------------------------------------------- their two steps


def test_re_enacted_dump_masks_each_position_once_and_can_be_imported(world):
    """The teacher says what it sees: hidden state = (position, its masked positions); the head spreads them."""
    special, seen = SpecialIds(101, 102, 103), []

    def hidden_states(batch):
        seen.append(batch)
        positions = torch.arange(batch.input_ids.size(1)).expand_as(batch.input_ids)
        return torch.stack(
            [positions, (batch.input_ids == 103).sum(1, keepdim=True).expand_as(positions)], -1
        ).half()

    pairs = [(s, t) for s, t in zip(world.sources, world.targets, strict=True)]
    pairs[3] = ([5] * 490, pairs[3][1])
    rows = dump_hiddens(world.folder, pairs, special, hidden_states, batch_size=4)
    assert rows == sum(n + 1 for n in world.lengths) - 21
    assert [b.sentences for b in seen] == [[0, 1, 2, 4], [5]]
    assert seen[0].input_ids.shape == (4 + 2 + 7 + 3, 9 + 7 + 3)
    head = lambda hidden: hidden[:, :1] - torch.arange(44).half() * hidden[:, 1:]  # noqa: E731
    assert dump_topk(world.folder, head, "cpu", topk=K) == rows
    logits, ids = AuthorsReader(world.folder / "topk").rows(2)  # 9 source tokens, 8 rows in 7 copies
    assert logits[:, 0].tolist() == [11, 12, 13, 14, 15, 16, 17, 18]  # position in the pair, in target order
    assert (logits[:, 0] - logits[:, 1]).tolist() == [
        2,
        1,
        1,
        1,
        1,
        1,
        1,
        2,
    ]  # positions 0 and 7 share a copy
    assert ids[:, :3].tolist() == [[0, 1, 2]] * 8
    assert world.run("--allow-missing").status(3) == NOT_IMPORTED
