"""A left-to-right teacher sees the source and what stands before a token, nothing else, whatever the architecture."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
import transformers

from fairseq_bert_kd.functional.text_format import TextFormat
from fairseq_bert_kd.functional.text_input import BIDIRECTIONAL, LEFT_TO_RIGHT, prefix_attention
from fairseq_bert_kd.models.masked_lm_teacher import HfMaskedLM
from tests.models.small_teachers import build_teacher, inputs_of, rebuild
from tests.tiny_chain import build_teacher_folder

OLD = transformers.__version__.startswith("4.")
SOURCE, TARGET = 0, 1
NAMES = ["bert", "electra", "roberta", "xlmr", *([] if OLD else ["distilbert"])]


@pytest.fixture(params=NAMES)
def teacher(request, tmp_path):
    """A left-to-right teacher and inputs that request every position."""
    model, tokenizer, task = build_teacher(
        build_teacher_folder(request.param, tmp_path), attention=LEFT_TO_RIGHT
    )
    return model, inputs_of(tokenizer, task)


@pytest.fixture
def bert(tmp_path):
    return build_teacher(build_teacher_folder("bert", tmp_path), attention=LEFT_TO_RIGHT)


def logits_of(model, inputs):
    """``(batch, tgt_len, dictionary)``, zero on padding."""
    found = model(**inputs)
    logits = torch.zeros(*inputs["predicted"].shape, found.size(1), dtype=found.dtype)
    logits[inputs["predicted"]] = found
    return logits


def changed(inputs, side, row, column):
    """Inputs with one token replaced by another of the dictionary."""
    texts = [text.clone() for text in inputs["texts"]]
    texts[side][row, column] = texts[side][row, column] % 6 + 4  # 4 and above are words
    assert texts[side][row, column] != inputs["texts"][side][row, column]
    return inputs | {"texts": texts}


def embedded(model, inputs):
    """The embedded input, whose gradient can be asked for, and the logits of all positions."""
    held = []

    def keep(_module, _inputs, output):
        output.requires_grad_(True)
        held.append(output)

    hook = model.encoder.embeddings.register_forward_hook(keep)
    logits = logits_of(model, inputs)
    hook.remove()
    return held[0], logits


def first_target_position(model, inputs, row):
    return len(model.text_format.prefix) + int(inputs["lengths"][0][row]) + len(model.text_format.middle)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_token_is_seen_by_predictions_of_itself_and_of_what_stands_before_it(teacher, dtype):
    model, inputs = teacher
    model.to(dtype)
    before = logits_of(model, inputs)
    for row in range(2):
        for position in range(int(inputs["lengths"][1][row]) - 1):
            after = logits_of(model, changed(inputs, TARGET, row, position))
            assert torch.equal(after[row, : position + 1], before[row, : position + 1])
            later = (after != before)[row, position + 1 : inputs["lengths"][1][row]]
            assert later.any(dim=1).all()  # all later ones see it
            assert torch.equal(after[1 - row], before[1 - row])


def test_every_prediction_sees_every_source_token(teacher):
    model, inputs = teacher
    before = logits_of(model, inputs)
    for row in range(2):
        for position in range(int(inputs["lengths"][0][row])):
            after = logits_of(model, changed(inputs, SOURCE, row, position))
            assert (after != before)[row, : inputs["lengths"][1][row]].any(dim=1).all()
            assert torch.equal(after[1 - row], before[1 - row])


@pytest.mark.parametrize("training", [False, True])
def test_gradient_reaches_what_stands_before_and_is_exactly_zero_elsewhere(teacher, training):
    model, inputs = teacher
    embeddings, logits = embedded(model.train(training), inputs)
    for row in range(2):
        start = first_target_position(model, inputs, row)
        for position in range(int(inputs["lengths"][1][row])):
            weights = torch.linspace(1, 2, logits.size(2))
            total = (logits[row, position] * weights).sum()
            (gradient,) = torch.autograd.grad(total, embeddings, retain_graph=True)
            assert not gradient[row, start + position :].any()
            assert not gradient[1 - row].any()
            if not training:  # dropout may cut a path
                assert gradient[row, : start + position].any(dim=1).all()


def test_source_never_sees_the_target(teacher):
    model, inputs = teacher
    start = first_target_position(model, inputs, 0)
    tokens = torch.ones(2, start + 3, dtype=torch.int64)
    ids = torch.arange(5, 5 + tokens.numel()).view_as(tokens)
    other = ids.clone()
    other[:, start:] += 20
    mask = prefix_attention(torch.tensor([start, start]), tokens)
    segments = torch.zeros_like(ids)
    positions = torch.arange(start)  # the separator included, where y_1 is predicted
    shown, replaced = (model.extract_features(positions, batch, segments, mask) for batch in (ids, other))
    assert torch.equal(shown, replaced)
    later = positions + 1
    assert not torch.equal(*(model.extract_features(later, batch, segments, mask) for batch in (ids, other)))


def test_padding_does_not_matter(teacher):
    model, inputs = teacher
    together = logits_of(model, inputs)
    for row in range(2):
        source, target = int(inputs["lengths"][0][row]), int(inputs["lengths"][1][row])
        alone = {
            "texts": [inputs["texts"][0][row : row + 1, :source], inputs["texts"][1][row : row + 1, :target]],
            "lengths": [lengths[row : row + 1] for lengths in inputs["lengths"]],
            "predicted": inputs["predicted"][row : row + 1, :target],
        }
        torch.testing.assert_close(together[row, :target], logits_of(model, alone)[0], rtol=1e-4, atol=1e-5)


def test_one_pass_equals_a_pass_for_each_prefix(teacher):
    """The same model, asked for y_t with the target cut off after y_(t-1), has nothing left to leak."""
    model, inputs = teacher
    logits, width = logits_of(model, inputs), int(inputs["lengths"][1][0])
    source, source_length = inputs["texts"][0][:1], inputs["lengths"][0][:1]
    for position in range(width):
        kept = position + 1  # y_t itself is there and must not be seen: another token stands in its place
        target = changed(inputs, TARGET, 0, position)["texts"][1][:1, :kept]
        asked = torch.arange(kept)[None] == position
        short = model((source, target), (source_length, torch.tensor([kept])), asked)
        torch.testing.assert_close(short[0], logits[0, position], rtol=1e-4, atol=1e-5)


def test_fewer_positions_can_be_asked_for(teacher):
    model, inputs = teacher
    every = logits_of(model, inputs)
    some = torch.zeros_like(inputs["predicted"])
    some[0, 1] = some[1, 0] = True
    torch.testing.assert_close(model(**(inputs | {"predicted": some})), every[some], rtol=1e-4, atol=1e-5)


def test_automatic_casts_see_no_more(bert):
    model, tokenizer, task = bert
    inputs = inputs_of(tokenizer, task)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = logits_of(model, inputs)
        after = logits_of(model, changed(inputs, TARGET, 0, 1))
    assert torch.equal(after[0, :2], before[0, :2])
    assert not torch.equal(after[0, 2:], before[0, 2:])
    assert before.isfinite().all()


def train(model, make_batch, updates, lr=3e-3):
    """Loss in nats of the last 20 updates."""
    optimizer, losses = torch.optim.Adam(model.train().parameters(), lr), []
    for _ in range(updates):
        inputs = make_batch()
        loss = F.cross_entropy(model(**inputs), inputs["texts"][1][inputs["predicted"]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return sum(losses[-20:]) / 20


def random_pairs(copy_source, words, generator, end=2):
    """32 sources of four words; the targets are the same or independent words."""
    source, other = (
        torch.tensor(words)[torch.randint(len(words), (32, 4), generator=generator)] for _ in "ab"
    )
    target = torch.cat([source if copy_source else other, torch.full((32, 1), end)], dim=1)
    return {
        "texts": (source, target),
        "lengths": (torch.full((32,), 4), torch.full((32,), 5)),
        "predicted": torch.ones(32, 5, dtype=torch.bool),
    }


def test_learns_to_copy_the_source_and_not_what_cannot_be_known(bert):
    """Independent targets are the test of a leak: whoever sees y_t gets below log(words)."""
    model, _, task = bert
    words = [index for index in range(4, len(task.target_dictionary)) if index < 9]
    words = [word for word in words if not task.target_dictionary[word].startswith("madeup")]
    assert len(words) == 5
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    generator = torch.Generator().manual_seed(0)
    copier = copy.deepcopy(model)
    unknowable = 4 / 5 * torch.tensor(5.0).log()  # per position; the end of sentence is certain
    assert train(copier, lambda: random_pairs(True, words, generator), 150) < 0.3 * unknowable
    assert train(model, lambda: random_pairs(False, words, generator), 150) > 0.95 * unknowable


def test_checkpoint_says_what_the_teacher_may_see(teacher):
    model, inputs = teacher
    spec = json.loads(model.spec())
    assert spec["attention"] == LEFT_TO_RIGHT
    sizes = len(model.source_to_teacher), len(model.target_to_teacher)
    rebuilt = rebuild(model.spec(), SizedTask(*sizes))
    rebuilt.load_state_dict(model.state_dict())
    assert rebuilt.attention == LEFT_TO_RIGHT
    assert torch.equal(rebuilt(**inputs), model(**inputs))
    assert rebuilt.spec() == model.spec()


class SizedTask:
    """Dictionaries of which only the size is asked for."""

    def __init__(self, source, target):
        self.source_dictionary, self.target_dictionary = range(source), range(target)
        self.dictionaries = {"source": range(source), "target": range(target)}


def test_checkpoint_without_the_field_is_bidirectional(tmp_path):
    model, tokenizer, task = build_teacher(build_teacher_folder("bert", tmp_path))
    assert json.loads(model.spec())["attention"] == BIDIRECTIONAL
    old = {name: value for name, value in json.loads(model.spec()).items() if name != "attention"}
    rebuilt = rebuild(json.dumps(old), task)
    rebuilt.load_state_dict(model.state_dict())
    assert rebuilt.attention == BIDIRECTIONAL
    inputs = inputs_of(tokenizer, task)
    inputs["predicted"] = inputs["predicted"] & (torch.arange(inputs["predicted"].size(1)) == 1)
    assert torch.equal(rebuilt(**inputs), model(**inputs))
    later = model(**changed(inputs, TARGET, 0, 2))
    assert not torch.equal(later[0], model(**inputs)[0])  # it sees the right side


def test_checkpoint_rules_over_the_options(bert):
    model, _, task = bert
    assert rebuild(model.spec(), task, teacher_attention=BIDIRECTIONAL).attention == LEFT_TO_RIGHT


def test_attention_of_a_newer_version_is_refused(bert):
    model, _, task = bert
    spec = json.dumps(json.loads(model.spec()) | {"attention": "right-to-left"})
    message = (
        "must be bidirectional or left-to-right, got `right-to-left`: the checkpoint is of a newer version"
    )
    with pytest.raises(ValueError, match=message):
        rebuild(spec, task)


def test_architecture_whose_attention_cannot_be_told_is_refused_by_name(tmp_path, bert):
    folder = build_teacher_folder("bert", tmp_path / "folder")
    config = transformers.DebertaV2Config(
        vocab_size=2000, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    assert build_teacher(folder)[0].attention == BIDIRECTIONAL
    with pytest.raises(
        ValueError, match="left-to-right does not work with model type `deberta-v2`: the installed"
    ):
        build_teacher(folder, attention=LEFT_TO_RIGHT)


@pytest.mark.skipif(not OLD, reason="transformers 5 tells it")
def test_distilbert_of_transformers_4_is_refused(tmp_path):
    with pytest.raises(ValueError, match="left-to-right does not work with model type `distilbert`"):
        build_teacher(build_teacher_folder("distilbert", tmp_path), attention=LEFT_TO_RIGHT)


def test_tokenizer_without_a_separator_is_refused(tmp_path):
    folder = build_teacher_folder("bert", tmp_path)
    masked_lm = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    bare, ids = TextFormat(prefix=(2,), middle=(), mask=4, pad=0), torch.zeros(8, dtype=torch.int64)
    maps = {"source": ids, "target": ids}
    assert HfMaskedLM(copy.deepcopy(masked_lm), maps, bare, {}).attention == BIDIRECTIONAL
    with pytest.raises(
        ValueError, match="at the separator after the source, and the teacher's tokenizer writes none"
    ):
        HfMaskedLM(masked_lm, maps, bare, {}, LEFT_TO_RIGHT)
