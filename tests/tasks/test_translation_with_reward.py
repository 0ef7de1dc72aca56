"""Training with rewards: what a step samples and scores, what it leaves as it was, what is refused."""

import json

import pytest
import torch
from fairseq import checkpoint_utils, utils
from omegaconf import OmegaConf

from fairseq_bert_kd.batch import POLICY
from fairseq_bert_kd.cli.main import cli_main
from fairseq_bert_kd.criterions.policy_gradient import PolicyGradientConfig, PolicyGradientCriterion
from fairseq_bert_kd.functional.policy_gradient import ADVANTAGES
from fairseq_bert_kd.functional.sampling import allowed_log_probs, sample_sequences, uniform_draws
from fairseq_bert_kd.modules.decoding_policy import DecodingPolicy, evaluation_mode, scoring_input
from fairseq_bert_kd.modules.student_projection import scores_of
from fairseq_bert_kd.rewards import rewarded_samples
from fairseq_bert_kd.rewards.evaluator import load_evaluator
from fairseq_bert_kd.rewards.interface import Reward
from fairseq_bert_kd.rewards.overlap import BleuReward
from fairseq_bert_kd.rewards.reward_log import RewardLog
from fairseq_bert_kd.rewards.rewarded_samples import RewardedSampler, SamplingSettings
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from tests.rewarded_generators import LSTM, TINY, train
from tests.tiny_chain import PLUGIN, logged, run_fairseq, train_student
from tests.tiny_sentences import prepare, write_table
from tests.tiny_sentences import train as train_sentences
from tests.tokenization.tiny_tokenizers import build_tokenizer


@pytest.fixture(scope="module")
def trained(chain, tmp_path_factory):
    """Generators after a few updates of plain training, by architecture."""
    folder = tmp_path_factory.mktemp("generators")
    return {
        name: train(chain.data, folder / name, "--rl-weight", 0, updates=4, model=model)
        for name, model in {"transformer": TINY, "lstm": LSTM}.items()
    }


class Generator:
    """A loaded generator with a batch of its data."""

    def __init__(self, checkpoint, chain):
        [self.model], _, self.task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
        self.task.load_dataset("train")
        data = self.task.datasets["train"]
        self.batch = data.collater([data[i] for i in range(6)])
        self.tokenizer = HfTokenizer(str(chain.bert))
        self.model.train()

    def sampler(self, reward=None, **settings):
        dictionaries = (self.task.src_dict, self.task.tgt_dict)
        return RewardedSampler(
            SamplingSettings(**settings), reward or BleuReward(), dictionaries, self.tokenizer
        )

    def criterion(self, **options):
        config = OmegaConf.structured(PolicyGradientConfig(sentence_avg=False, **options))
        return PolicyGradientCriterion(config, self.task)


@pytest.fixture(params=["transformer", "lstm"])
def generator(request, trained, chain):
    return Generator(trained[request.param], chain)


@pytest.fixture
def transformer(trained, chain):
    return Generator(trained["transformer"], chain)


def gradients(model):
    found = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return found


# ---------------------------------------------------------------- a batch


def test_sampled_and_scored_log_probabilities_are_equal(generator):
    """The samples are the policy's: what the gradient flows through is what was drawn, dropout off in both."""
    sampler = generator.sampler(samples=3)
    with evaluation_mode(generator.model), torch.no_grad():
        drawn, sources = sampler._samples(generator.batch, generator.model, 0)
        policy = {"tokens": drawn.tokens, "sources": sources}
        net_input = scoring_input(generator.batch["net_input"], policy, generator.task.tgt_dict.eos())
        logits = scores_of(generator.model, generator.model(**net_input))
    scored = allowed_log_probs(logits, sampler._symbols).gather(2, drawn.tokens[..., None]).squeeze(2)
    assert drawn.sampled.sum() > 30
    torch.testing.assert_close(scored[drawn.sampled], drawn.log_probs[drawn.sampled], rtol=0, atol=1e-4)
    assert not drawn.tokens[drawn.sampled].eq(generator.task.tgt_dict.pad()).any()


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_train_mode_is_what_it_was(transformer, advantage):
    transformer.model.encoder.dropout_module.eval()  # a part may have a mode of its own
    before = [module.training for module in transformer.model.modules()]
    assert 0 < sum(before) < len(before)
    transformer.sampler(advantage=advantage).rewarded_batch(transformer.batch, transformer.model, 0)
    assert [module.training for module in transformer.model.modules()] == before


def test_a_recurrent_layer_is_scored_in_training_mode_without_dropout():
    """cuDNN refuses the backward pass of one in evaluation mode; without dropout both modes score alike."""
    layer = torch.nn.LSTM(4, 4, num_layers=2, dropout=0.5)
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), layer)
    texts = torch.randn(3, 2, 4)
    model.eval()
    expected, _ = model(texts)
    for training in (True, False):
        model.train()
        layer.train(training)
        with evaluation_mode(model):
            assert (model.training, model[0].training, layer.training) == (False, False, True)
            torch.testing.assert_close(model(texts)[0], expected)
        assert (model.training, model[0].training, layer.training) == (True, True, training)
        assert layer.dropout == 0.5


def test_train_mode_is_what_it_was_after_an_error(transformer):
    class Broken(Reward):
        name = "broken"

        def _scores(self, sources, hypotheses, references):
            raise RuntimeError("no reward")

    with pytest.raises(RuntimeError, match="no reward"):
        transformer.sampler(Broken()).rewarded_batch(transformer.batch, transformer.model, 0)
    assert transformer.model.training


def test_batch_by_source_and_seed(transformer):
    """Other sources in the batch change nothing; another update or seed does."""
    one, _ = transformer.sampler(samples=2).rewarded_batch(transformer.batch, transformer.model, 3)
    data = transformer.task.datasets["train"]
    fewer = data.collater([data[i] for i in (0, 2)])
    other, _ = transformer.sampler(samples=2).rewarded_batch(fewer, transformer.model, 3)

    def by_source(batch, policy):
        """Sequences by number of the sentence; fairseq sorts a batch by length."""
        ids = batch["id"][policy["sources"]].tolist()
        rows = [row[kept].tolist() for row, kept in zip(policy["tokens"], policy["sampled"], strict=True)]
        return {i: [row for row, owner in zip(rows, ids, strict=True) if owner == i] for i in set(ids)}

    found = by_source(transformer.batch, one)
    assert by_source(fewer, other) == {i: found[i] for i in (0, 2)}
    again, _ = transformer.sampler(samples=2).rewarded_batch(transformer.batch, transformer.model, 4)
    seeded, _ = transformer.sampler(samples=2, seed=2).rewarded_batch(transformer.batch, transformer.model, 3)
    assert by_source(transformer.batch, again) != found != by_source(transformer.batch, seeded)


def test_rewards_are_of_the_text_of_the_sample_s_own_source(transformer):
    """The reward says which source it was asked about, and the advantage follows it."""
    asked = []

    class Asked(Reward):
        name = "asked"

        def _scores(self, sources, hypotheses, references):
            asked.extend(zip(sources, hypotheses, references, strict=True))
            return torch.linspace(0, 1, len(sources)).double().numpy()

    sampler = transformer.sampler(Asked(), samples=4, copy_penalty=0)
    policy, log = sampler.rewarded_batch(transformer.batch, transformer.model, 0)
    texts = sampler.texts_of(transformer.batch)
    written = sampler.decoded(policy["tokens"])
    expected = {
        (texts.sources[i], text, texts.references[i])
        for i, text in zip(policy["sources"].tolist(), written, strict=True)
        if text
    }
    assert set(asked) == expected
    for source, _, reference in asked:
        assert source.split() == reference.split()[::-1]  # the corpus turns sentences around
    assert log["rl_samples"] == 24
    assert log["rl_tokens"] == policy["sampled"].sum()
    assert 0 < log["rl_entropy"] / log["rl_tokens"] < 6


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [("rank-centred", [0.4890, 0.3176, -0.3176, -0.4890]), ("mean", [2e-9, 2e-9 / 3, -2e-9 / 3, -2e-9])],
)
def test_a_sure_evaluator_still_tells_samples_apart(transformer, advantage, expected):
    """Rewards that are all 1 in float32."""
    sampler = transformer.sampler(samples=4, advantage=advantage)
    texts = sampler.texts_of(transformer.batch)
    rewards = 1 - 1e-9 * torch.arange(1, 5).double().repeat(6).numpy()
    found = sampler._advantages(texts, rewards, None, 0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([expected] * 6), rtol=1e-3, atol=1e-12)


def test_empty_texts_get_nothing_and_a_copy_is_penalised(transformer):
    sampler = transformer.sampler(copy_penalty=0.5)
    texts = sampler.texts_of(transformer.batch)
    written = ["", texts.sources[1], *texts.references[2:]]
    rewards, true_rewards = sampler._rewards(texts, range(6), written, 0)
    assert true_rewards[0] == rewards[0] == 0
    assert rewards[1] == pytest.approx(true_rewards[1] - 0.5)
    assert true_rewards[2:].tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("control", ["constant", "shuffled"])
def test_controls_keep_the_log_true(transformer, control):
    plain = transformer.sampler(samples=4, advantage="none", copy_penalty=0)
    other = transformer.sampler(samples=4, advantage="none", copy_penalty=0, control=control)
    (policy, log), (controlled, controlled_log) = (
        sampler.rewarded_batch(transformer.batch, transformer.model, 0) for sampler in (plain, other)
    )
    assert controlled_log["rl_reward"] == log["rl_reward"]
    values, found = policy["advantages"].flatten(), controlled["advantages"].flatten()
    assert not torch.equal(values, found)
    expected = torch.ones(24) if control == "constant" else values.sort().values
    torch.testing.assert_close(found.sort().values, expected)


def test_roll_outs_give_every_token_a_value(transformer):
    sampler = transformer.sampler(samples=2, rollouts=2, rollout_stride=2)
    policy, _ = sampler.rewarded_batch(transformer.batch, transformer.model, 0)
    assert policy["advantages"].shape == policy["tokens"].shape
    outside = policy["advantages"][~policy["sampled"]]
    assert not outside.any()
    lengths = policy["sampled"].sum(dim=1)
    row = int(lengths.argmax())
    assert len(policy["advantages"][row, : lengths[row]].unique()) > 1


def test_completions_begin_with_their_prefix(transformer):
    sampler = transformer.sampler(samples=2, rollouts=1)
    with evaluation_mode(transformer.model), torch.no_grad():
        drawn, sources = sampler._samples(transformer.batch, transformer.model, 0)
        completions = sampler._rollouts(transformer.batch, transformer.model, 0, drawn, sources)
    for row, tokens in enumerate(drawn.tokens):
        length = int(drawn.sampled[row].sum())
        assert len(completions[row]) == length - 1
        for place, [text] in enumerate(completions[row], 1):
            prefix = sampler.decoded(tokens[None, :place])[0]
            # the first piece after the prefix may go on with its last word
            assert text.startswith(prefix) or prefix.startswith(text)


def test_completions_go_on_from_prefixes_of_every_length_with_draws_of_their_own(transformer, monkeypatch):
    sampler, asked = transformer.sampler(samples=2, rollouts=1), {"prefixes": [], "streams": []}

    def sampled(policy, limits, symbols, draws, prefixes=None):
        asked["prefixes"].append(prefixes)
        return sample_sequences(policy, limits, symbols, draws, prefixes)

    def drawn_numbers(*arguments):
        asked["streams"].append(arguments[-1])
        return uniform_draws(*arguments)

    monkeypatch.setattr(rewarded_samples, "sample_sequences", sampled)
    monkeypatch.setattr(rewarded_samples, "uniform_draws", drawn_numbers)
    with evaluation_mode(transformer.model), torch.no_grad():
        drawn, sources = sampler._samples(transformer.batch, transformer.model, 0)
        sampler._rollouts(transformer.batch, transformer.model, 0, drawn, sources)
    pad = transformer.task.tgt_dict.pad()
    expected = [
        row[:place].tolist()
        for row, length in zip(drawn.tokens, drawn.sampled.sum(dim=1).tolist(), strict=True)
        for place in range(1, length)
    ]
    assert [[token for token in row if token != pad] for row in asked["prefixes"][1].tolist()] == expected
    assert asked["streams"][0] != asked["streams"][1]


def test_completions_are_rewarded_beside_their_own_source_and_reference(transformer):
    asked = []

    class Asked(Reward):
        name = "asked"

        def _scores(self, sources, hypotheses, references):
            asked.extend(zip(sources, hypotheses, references, strict=True))
            return torch.linspace(0, 1, len(sources)).double().numpy()

    sampler = transformer.sampler(Asked(), samples=2, rollouts=1, rollout_stride=3, copy_penalty=0)
    policy, _ = sampler.rewarded_batch(transformer.batch, transformer.model, 0)
    texts, owners = sampler.texts_of(transformer.batch), policy["sources"].tolist()
    with evaluation_mode(transformer.model), torch.no_grad():
        drawn, sources = sampler._samples(transformer.batch, transformer.model, 0)
        completions = sampler._rollouts(transformer.batch, transformer.model, 0, drawn, sources)
    written = list(zip(owners, sampler.decoded(policy["tokens"]), strict=True))
    written += [(owners[row], text) for row, places in enumerate(completions) for [text] in places]
    assert len(written) > 12
    assert set(asked) == {
        (texts.sources[i], text, texts.references[i]) for i, text in written if text.strip()
    }


def test_the_greedy_baseline_pays_for_copies_as_the_samples_do(transformer):
    sampler = transformer.sampler(samples=2, advantage="greedy", copy_penalty=0.5)
    texts = sampler.texts_of(transformer.batch)
    rewards = torch.linspace(0, 1, 12).double().numpy()
    found = sampler._advantages(texts, rewards, texts.sources, 0)
    baseline = BleuReward()(texts.sources, texts.sources, texts.references) - 0.5
    torch.testing.assert_close(found, torch.tensor(rewards.reshape(6, 2) - baseline[:, None]).float())


def test_completions_are_decoded_in_parts_and_are_the_same(transformer, monkeypatch):
    """All completions of a batch together are thousands of rows of logits over the vocabulary."""
    sampler = transformer.sampler(samples=2, rollouts=2)
    rows = []

    class Counted(DecodingPolicy):
        def __init__(self, model, net_input, rows_of_sources):
            rows.append(len(rows_of_sources))
            super().__init__(model, net_input, rows_of_sources)

    with evaluation_mode(transformer.model), torch.no_grad():
        drawn, sources = sampler._samples(transformer.batch, transformer.model, 0)
        expected = sampler._rollouts(transformer.batch, transformer.model, 0, drawn, sources)
        monkeypatch.setattr(rewarded_samples, "ROLLOUT_ROWS", 10)
        monkeypatch.setattr(rewarded_samples, "DecodingPolicy", Counted)
        found = sampler._rollouts(transformer.batch, transformer.model, 0, drawn, sources)
    assert found == expected
    assert sum(rows) == sum(len(texts) for prefixes in found for texts in prefixes)
    assert len(rows) > 1
    assert max(rows) == 10


# ---------------------------------------------------------------- the criterion


def test_loss_and_gradient_are_the_formula_s(generator):
    policy, _ = generator.sampler(samples=2).rewarded_batch(generator.batch, generator.model, 0)
    criterion = generator.criterion(rl_weight=1.0)
    loss, size, log = criterion(generator.model, {**generator.batch, POLICY: policy})
    assert generator.model.training
    loss.backward()
    found = gradients(generator.model)
    generator.model.eval()
    net_input = scoring_input(generator.batch["net_input"], policy, generator.task.tgt_dict.eos())
    output = generator.model(**net_input)
    log_probs = allowed_log_probs(scores_of(generator.model, output), criterion.symbols)
    expected = -sum(
        policy["advantages"][row, 0] * log_probs[row, place, policy["tokens"][row, place]]
        for row, place in policy["sampled"].nonzero().tolist()
    )
    expected.backward()
    assert size == log["sample_size"] == policy["sampled"].sum()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4, abs=1e-4)
    for name, gradient in gradients(generator.model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_cut_sequences_have_no_end_in_the_loss(transformer):
    sampler = transformer.sampler(samples=2, length_ratio=0, length_added=2)
    policy, log = sampler.rewarded_batch(transformer.batch, transformer.model, 0)
    eos = transformer.task.tgt_dict.eos()
    assert log["rl_cut"] > 0
    ended = policy["tokens"].eq(eos).any(dim=1)
    assert (~ended).sum() == log["rl_cut"]
    assert policy["sampled"].sum() == policy["tokens"].ne(transformer.task.tgt_dict.pad()).sum()


def test_terms_are_weighed_per_token(transformer):
    """(1 - W) of the likelihood per target token, with dropout and label smoothing; both terms per sampled token."""
    transformer.model.encoder.dropout_module.p = transformer.model.decoder.dropout_module.p = 0.0
    for layer in (*transformer.model.encoder.layers, *transformer.model.decoder.layers):
        layer.dropout_module.p = 0.0
    policy, _ = transformer.sampler(samples=2).rewarded_batch(transformer.batch, transformer.model, 0)
    sample = {**transformer.batch, POLICY: policy}
    likelihood, ntokens, _ = transformer.criterion(rl_weight=0.0, label_smoothing=0.1)(
        transformer.model, sample
    )
    alone, scored, _ = transformer.criterion(rl_weight=1.0, label_smoothing=0.1)(transformer.model, sample)
    mixed, size, log = transformer.criterion(rl_weight=0.75, label_smoothing=0.1)(transformer.model, sample)
    assert size == scored != ntokens
    assert float(mixed / size) == pytest.approx(
        float(0.75 * alone / scored + 0.25 * likelihood / ntokens), rel=1e-4
    )
    assert float(log["rl_loss"]) == pytest.approx(float(alone), rel=1e-4, abs=1e-4)


def test_weight_0_is_fairseq_s_criterion(transformer):
    transformer.model.eval()
    from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion

    plain = LabelSmoothedCrossEntropyCriterion(transformer.task, False, 0.1)
    expected, size, _ = plain(transformer.model, transformer.batch)
    transformer.model.train()
    for name, module in transformer.model.named_modules():
        if name.endswith("dropout_module"):
            module.p = 0.0
    found, found_size, _ = transformer.criterion(rl_weight=0.0, label_smoothing=0.1)(
        transformer.model, transformer.batch
    )
    assert size == found_size
    torch.testing.assert_close(found, expected)


def test_kl_to_itself_is_nothing_and_to_another_something(transformer):
    policy, _ = transformer.sampler(samples=2).rewarded_batch(transformer.batch, transformer.model, 0)
    criterion = transformer.criterion(rl_weight=0.0, rl_kl_weight=0.5)
    with evaluation_mode(transformer.model), torch.no_grad():
        net_input = scoring_input(transformer.batch["net_input"], policy, criterion.symbols.eos)
        logits = scores_of(transformer.model, transformer.model(**net_input))
    divergences = []
    for scale in (1.0, 0.5):
        policy["reference"] = allowed_log_probs(logits * scale, criterion.symbols)
        _, _, log = criterion(transformer.model, {**transformer.batch, POLICY: policy})
        divergences.append(float(log["rl_kl"]))
    assert divergences[0] == pytest.approx(0, abs=1e-3)
    assert divergences[1] > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rl_weight": 1.5}, "--rl-weight must be from 0 to 1, got 1.5"),
        ({"rl_kl_weight": -1.0}, "--rl-kl-weight must not be negative, got -1.0"),
    ],
)
def test_refused_weights(transformer, options, message):
    with pytest.raises(ValueError, match=message):
        transformer.criterion(**options)


def test_a_batch_without_samples_is_refused(transformer):
    with pytest.raises(ValueError, match="needs --task translation_with_reward"):
        transformer.criterion()(transformer.model, transformer.batch)


# ---------------------------------------------------------------- training


def test_training_logs_what_it_did_and_goes_on(chain, trained, tmp_path):
    """Also after a kill; the checkpoint holds the generator alone and translates in stock fairseq's way."""
    arguments = (
        "--rl-reward", "0.5*bleu+0.5*rouge-1", "--finetune-from-model", trained["transformer"], "--update-freq", 2,
        "--eval-bleu", "--eval-bleu-args", '{"beam": 2, "max_len_b": 8}', "--best-checkpoint-metric", "source_bleu",
    )  # fmt: skip
    with logged("train_inner") as inner, logged("valid") as valid:
        train(chain.data, tmp_path / "one", *arguments, tokenizer=chain.bert, updates=3)
    with logged("train_inner") as resumed:
        train(chain.data, tmp_path / "two", *arguments, tokenizer=chain.bert, updates=2)
        last = train(chain.data, tmp_path / "two", *arguments, tokenizer=chain.bert, updates=3)
    steps = [json.loads(line) for line in inner]
    assert len(steps) == 3
    names = {"loss", "rl_loss", "nll_loss", "reward", "copy_rate", "cut_rate", "entropy", "sample_length"}
    names |= {"sampling_seconds", "reward_seconds", "update_seconds"}
    assert names <= steps[0].keys()
    assert 0 < float(steps[0]["entropy"]) < 6
    clocks = {"sampling_seconds", "reward_seconds", "update_seconds", "wall", "train_wall", "ups", "wps"}
    final = json.loads(resumed[-1])
    assert {name: value for name, value in final.items() if name not in clocks} == {
        name: value for name, value in steps[-1].items() if name not in clocks
    }
    assert {
        "valid_bleu",
        "valid_source_bleu",
        "valid_ibleu",
        "valid_reward",
        "valid_copy_rate",
    } <= json.loads(valid[-1]).keys()
    one, two = (
        torch.load(path, weights_only=True)["model"]
        for path in (tmp_path / "one" / "checkpoint_last.pt", last)
    )
    plain = torch.load(trained["transformer"], weights_only=True)["model"]
    assert one.keys() == two.keys() == plain.keys()
    assert any((one[name] != plain[name]).any() for name in one)
    for name in one:
        torch.testing.assert_close(one[name], two[name])
    out = run_fairseq(
        "generate", chain.data, "--user-dir", PLUGIN, "--task", "translation", "--path", last, "--beam", 2,
        "--max-len-b", 8, "--cpu", "--batch-size", 5, "--required-batch-size-multiple", 1,
    )  # fmt: skip
    assert out.count("\nH-") == 20
    exported = tmp_path / "exported.pt"
    assert cli_main(["export-student", str(last), "--output", str(exported)]) == 0
    settings = torch.load(exported, weights_only=True)["args"]
    assert (settings.task, settings.criterion) == ("translation", "label_smoothed_cross_entropy")
    assert not [name for name in vars(settings) if name.startswith("rl_")]


@pytest.fixture(scope="module")
def evaluators(chain, tmp_path_factory):
    """Checkpoints of two classifiers of pairs, classes bad and good; the second one reads case."""
    folder = tmp_path_factory.mktemp("evaluators")
    build_tokenizer("bert_cased", folder / "cased")
    tables = [
        argument
        for seed, split in enumerate(("train", "valid"))
        for argument in (f"--{split}", write_table(folder / f"{split}.tsv", 40, seed, pairs=True))
    ]
    columns = ("--columns", "text,other", "--label-column", "label")
    found = {}
    for name, tokenizer in (("uncased", chain.bert), ("cased", folder / "cased")):
        assert prepare(tokenizer, folder / f"data-{name}", *columns, *tables) == 0
        found[name] = train_sentences(folder / f"data-{name}", folder / name, updates=1)
    found["held-out"] = train_sentences(folder / "data-uncased", folder / "held-out", updates=2)
    return found


def judged(evaluators, other="held-out"):
    """Arguments for two evaluators."""
    return ("--rl-evaluator", evaluators["uncased"], "--rl-held-out-evaluator", evaluators[other], "--rl-positive",
            "good", "--eval-bleu", "--eval-bleu-args", '{"beam": 1, "max_len_b": 8}')  # fmt: skip


def test_an_evaluator_rewards_and_another_judges(chain, trained, evaluators, tmp_path):
    """Neither is trained, nor in the checkpoint."""
    start = ("--finetune-from-model", trained["transformer"])
    with logged("valid") as valid:
        last = train(chain.data, tmp_path, *judged(evaluators), *start, tokenizer=chain.bert, updates=1)
    found = json.loads(valid[-1])
    assert 0 < float(found["valid_held_out"]) != float(found["valid_reward"]) > 0
    keys = (torch.load(path, weights_only=True)["model"].keys() for path in (last, trained["transformer"]))
    assert next(keys) == next(keys)


def test_an_evaluator_s_logits_are_float32_under_automatic_casts(evaluators):
    """bfloat16 has few numbers between two good texts' logits."""
    judge = load_evaluator(str(evaluators["held-out"]), "good", "--rl-evaluator")
    texts = [f"the {word}" for word in ("man", "people", "eat", "near", "der", "ein")]
    expected = judge.score_pairs(texts, texts[::-1])
    with torch.autocast("cpu", torch.bfloat16):
        found = judge.score_pairs(texts, texts[::-1])
    assert found == pytest.approx(expected, abs=0.05)
    logits = torch.from_numpy(found).logit()
    assert (logits - logits.bfloat16().double()).abs().max() > 1e-5


def test_a_generator_with_an_adaptive_softmax(chain, tmp_path):
    """fairseq's own log-probabilities write into what the likelihood's gradient needs."""
    model = ("--arch", "transformer_tiny", "--adaptive-softmax-cutoff", "10,20")
    last = train(chain.data, tmp_path, "--rl-reward", "bleu", tokenizer=chain.bert, model=model, updates=1)
    weights = torch.load(last, weights_only=True)["model"].values()
    assert all(weight.isfinite().all() for weight in weights)


def test_an_evaluator_that_does_not_reward_judges(chain, trained, evaluators, tmp_path):
    """Also in plain training, which has the same reward and entropy in its log."""
    options = (*judged(evaluators), "--rl-reward", "rouge-1", "--rl-weight", 0, "--eval-bleu-print-samples")
    with logged("valid") as valid, logged("fairseq_bert_kd.tasks.translation_with_reward") as said:
        train(chain.data, tmp_path, *options, tokenizer=chain.bert, updates=1)
    found = json.loads(valid[-1])
    scores = [float(found[f"valid_{name}"]) for name in ("reward", "evaluator", "held_out")]
    assert len(set(scores)) == 3
    assert 0 < float(found["valid_entropy"]) < 6
    assert [line.split(":")[0] for line in said[-2:]] == ["example hypothesis", "example reference"]


def test_an_evaluator_does_not_judge_itself(chain, evaluators, tmp_path):
    with pytest.raises(ValueError, match="are the same checkpoint, and what rewards cannot judge"):
        train(chain.data, tmp_path, *judged(evaluators, "uncased"), tokenizer=chain.bert)


def test_an_evaluator_that_reads_case_is_refused(chain, evaluators, tmp_path):
    arguments = ("--rl-evaluator", evaluators["cased"], "--rl-positive", "good")
    with pytest.raises(ValueError, match="take two tokenizers that agree on case"):
        train(chain.data, tmp_path, *arguments, tokenizer=chain.bert)
    with pytest.raises(
        ValueError, match="none is named as the one of paraphrases; name it with --rl-positive"
    ):
        train(chain.data, tmp_path, *arguments[:2], tokenizer=chain.bert)


def test_a_distilled_student_is_a_start(chain, tmp_path):
    """A checkpoint of the criterion of distillation is taken as it is."""
    student = train_student(chain.data, tmp_path / "student", "--kd-temperature", 1, updates=1)
    options = ("--rl-reward", "bleu", "--finetune-from-model", student, "--lr", 0)
    last = train(chain.data, tmp_path / "rewarded", *options, tokenizer=chain.bert, updates=1)
    found, expected = (torch.load(path, weights_only=True)["model"] for path in (last, student))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=0)


def test_kl_holds_the_policy_at_its_start(chain, trained, tmp_path):
    start = trained["transformer"]
    arguments = (
        "--rl-reward",
        "bleu",
        "--finetune-from-model",
        start,
        "--rl-kl-weight",
        0.1,
        "--rl-reference",
        start,
    )
    with logged("train_inner") as inner:
        train(chain.data, tmp_path, *arguments, tokenizer=chain.bert)
    first, second = (float(json.loads(line)["rl_kl"]) for line in inner)
    assert first == pytest.approx(0, abs=1e-4)
    assert second > 1e-4


def test_a_reference_reads_what_is_sampled(chain, trained, tmp_path):
    """A longer source or sample than it has learned positions for would end training in the middle; computed ones go on."""
    few = ("--rl-weight", 0, "--max-source-positions", 12, "--max-target-positions", 12)
    learned = train(chain.data, tmp_path / "few", *few, "--decoder-learned-pos", "--encoder-learned-pos", updates=1)  # fmt: skip
    computed = train(chain.data, tmp_path / "computed", *few, updates=1)
    start = ("--rl-reward", "bleu", "--finetune-from-model", trained["transformer"], "--rl-kl-weight", 0.1)

    def rewarded(name, reference, *options):
        options = (*start, "--rl-reference", reference, *options)
        return train(chain.data, tmp_path / name, *options, tokenizer=chain.bert, updates=1)

    with pytest.raises(ValueError, match="reads sources of at most 12 tokens, and training may have 1024"):
        rewarded("long", learned)
    short = ("--max-source-positions", 12)
    with pytest.raises(ValueError, match="reads targets of at most 12 tokens, and training may have 23"):
        rewarded("long", learned, *short)
    assert rewarded("short", learned, *short, "--rl-max-len-a", 0.5, "--rl-max-len-b", 6).exists()
    assert rewarded("longer", computed).exists()


OPTIONS = [
    (("--rl-samples", 1), "needs at least 2, got 1; sample more"),
    (("--rl-advantage", "greedy", "--rl-rollouts", 1), "no form for the 1 roll-outs of a prefix"),
    (("--rl-reward", "meteor"), "`meteor` is not a reward; the rewards are evaluator, cosine, rouge-1"),
    (("--rl-reward", "0.5*bleu+0.2*rouge-1"), "must sum to 1, got 0.7"),
    (
        ("--rl-reward", "evaluator"),
        "needs --rl-evaluator, a checkpoint of a classifier of pairs; give it, or",
    ),
    (("--rl-reward", "cosine"), "reward `cosine` needs --rl-sentence-encoder"),
    (
        ("--best-checkpoint-metric", "bleu"),
        "would choose by what is optimised, --rl-reward bleu; take held_out",
    ),
    (("--rl-rollout-stride", 0), "--rl-rollout-stride must be at least 1, got 0"),
    (("--rl-kl-weight", 0.1), "give --rl-reference"),
    (("--rl-reference", "x.pt"), "--rl-reference is for --rl-kl-weight above 0"),
    (("--rl-held-out-evaluator", "x.pt"), "--rl-held-out-evaluator scores the output of --eval-bleu"),
    (("--kd-tokenizer", ""), "rewards read text: give --kd-tokenizer"),
    (("--checkpoint-activations",), "computes layers again in the backward pass, then with the dropout that"),
    (("--offload-activations",), "computes layers again in the backward pass, then with the dropout that"),
    (("--rl-max-start-ppl", 1.5), r"perplexity on the first batch is .*, above --rl-max-start-ppl 1.5"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=lambda value: str(value)[:40])
def test_refused(chain, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        train(chain.data, tmp_path, "--rl-reward", "bleu", *options, tokenizer=chain.bert)
    assert not list(tmp_path.glob("*.pt"))


def test_training_stops_where_samples_are_copies():
    log = RewardLog()
    sums = {"rl_samples": 10.0, "rl_tokens": 50.0, "rl_reward": 5.0, "rl_cut": 0.0, "rl_entropy": 9.0}
    sums |= dict.fromkeys(("rl_sampling_seconds", "rl_reward_seconds", "rl_update_seconds"), 0.0)
    for _ in range(49):
        log.reduce([{**sums, "rl_copies": 6.0}], 0.5, 0)
    with pytest.raises(ValueError, match=r"60.0 % of the samples of the last 50 updates copy their source"):
        log.reduce([{**sums, "rl_copies": 6.0}], 0.5, 0)


def test_stand_in_has_no_loss_and_the_same_log(transformer):
    sampler = transformer.sampler()
    policy, log = sampler.stand_in(transformer.batch)
    _, other = sampler.rewarded_batch(transformer.batch, transformer.model, 0)
    assert log.keys() == other.keys()
    loss, _, _ = transformer.criterion(rl_weight=1.0)(
        transformer.model, {**transformer.batch, POLICY: policy}
    )
    loss.backward()
    assert loss == 0
    assert utils.item(sum(gradient.abs().sum() for gradient in gradients(transformer.model).values())) == 0


@pytest.mark.parametrize(("advantage", "centred"), [("rank-centred", True), ("none", True), ("rank", False)])
def test_positions_of_roll_outs_are_ranked_as_samples_are(transformer, monkeypatch, advantage, centred):
    found = []

    def token_advantages(prefix_rewards, sequence_advantages, delta, centred):
        found.append(centred)
        return sequence_advantages[:, None]

    monkeypatch.setattr("fairseq_bert_kd.rewards.rewarded_samples.token_advantages", token_advantages)
    sampler = transformer.sampler(samples=2, rollouts=1, rollout_stride=9, advantage=advantage)
    sampler.rewarded_batch(transformer.batch, transformer.model, 0)
    assert found == [centred]
