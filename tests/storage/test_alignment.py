"""What a store lacks is said with the option that chose it, and with the command that writes it again."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fairseq_bert_kd.storage.alignment import (
    SAMPLED_SENTENCES,
    check_contents,
    check_sentences,
    sampled_sentences,
)
from fairseq_bert_kd.storage.fairseq_data import sentence_hash
from fairseq_bert_kd.storage.smoothing_store import SentenceSmoothingInfo, SourceSmoothingInfo

INFO = SimpleNamespace(
    k=8,
    temperatures=(1.0, 5.0),
    samples=0,
    rebuild_command=lambda path, *more: f"make it again with `{' '.join(['dump', *more])}`",
)


@pytest.mark.parametrize(
    ("option", "choosing"),
    [
        ("--smoothing-temperature", "--smoothing-temperature"),
        ("--kd-objective tail-bucket", "--kd-temperature"),
    ],
)
def test_a_missing_temperature(option, choosing):
    reader = SimpleNamespace(path="train.smooth", info=INFO)
    check_contents(reader, 8, [(option, 5.0)], False)
    message = (
        rf"{option} needs .* has it at 1, 5: choose one of these with {choosing}, or make it again .* 1 2 5`$"
    )
    with pytest.raises(ValueError, match=message):
        check_contents(reader, 8, [(option, 2.0)], False)


@pytest.mark.parametrize(
    ("schema", "name", "options"),
    [
        (SentenceSmoothingInfo, "sentences.unmasked.smooth", "--side sentences --view unmasked"),
        (SentenceSmoothingInfo, "sentences.masked.smooth.shard-1-of-2", "--side sentences --view masked"),
        (SentenceSmoothingInfo, "sentences.masked.hot.smooth", "--side sentences --view masked --name hot"),
        (
            SourceSmoothingInfo,
            "de-en.unmasked.smooth",
            "--side source --source-lang de --target-lang en --view unmasked",
        ),
        (
            SourceSmoothingInfo,
            "de-en.masked.smooth.smooth",
            "--side source --source-lang de --target-lang en --view masked --name smooth",
        ),
        (SourceSmoothingInfo, "smooth", "--side source"),
    ],
)
def test_command_that_writes_a_smoothing_store_again(schema, name, options):
    """As far as the file's name says."""
    command = f"fairseq-bert-kd dump DATA --store-dir d --path SMOOTHER.pt --subset train {options}"
    path = Path("d") / f"train.{name}"
    assert schema.rebuild_command(path) == f"rebuild it with `{command} --overwrite`"
    assert schema.rebuild_command(path, "--topk 9") == f"rebuild it with `{command} --topk 9 --overwrite`"


# ---------------------------------------------------------------- a sample of a large corpus


class Side(list):
    @property
    def sizes(self):
        return np.array([len(tokens) for tokens in self])


class Reader:
    """A store of some targets."""

    path = "train.topk"
    info = SimpleNamespace(row_side="target", rebuild_command=lambda path: "dump it again")

    def __init__(self, targets):
        self._targets = targets
        self.lengths = targets.sizes

    def __len__(self):
        return len(self._targets)

    def rows(self, i):
        return self._targets[i]

    def hashes(self, i):
        return {"target": sentence_hash(self._targets[i])}


SENTENCES = 2 * SAMPLED_SENTENCES
SAMPLED = sampled_sentences(SENTENCES).tolist()
NOT_SAMPLED = min(set(range(SENTENCES)) - set(SAMPLED))


def with_other(number, tokens):
    """The data, of which one sentence is another than in the store."""
    targets = Side(np.array([number % 50 + 4, 2]) for number in range(SENTENCES))
    reader = Reader(Side(targets))
    targets[number] = np.array(tokens)
    return reader, {"target": targets}


def test_the_sample_has_both_ends_and_no_sentence_twice():
    assert len(set(SAMPLED)) == len(SAMPLED) == SAMPLED_SENTENCES
    assert sorted(SAMPLED) == SAMPLED
    assert (SAMPLED[0], SAMPLED[-1]) == (0, SENTENCES - 1)
    assert sampled_sentences(SENTENCES).tolist() == SAMPLED
    assert sampled_sentences(3).tolist() == [0, 1, 2]


def test_every_length_is_compared_in_a_large_corpus_too():
    """A sentence of another length is found without its being in the sample."""
    reader, sides = with_other(NOT_SAMPLED, [4, 5, 2])
    with pytest.raises(ValueError, match=rf"has 2 rows for sentence {NOT_SAMPLED} .* has 3 tokens"):
        check_sentences(reader, sides)


@pytest.mark.parametrize("number", [0, SENTENCES - 1, SAMPLED[500]])
def test_other_tokens_are_found_in_the_sample(number):
    reader, sides = with_other(number, [99, 2])
    with pytest.raises(ValueError, match=rf"the target of sentence {number} .* has other tokens here"):
        check_sentences(reader, sides)


def test_other_tokens_beside_the_sample_are_found_where_everything_is_compared():
    reader, sides = with_other(NOT_SAMPLED, [99, 2])
    assert check_sentences(reader, sides) == SAMPLED_SENTENCES
    with pytest.raises(ValueError, match=rf"the target of sentence {NOT_SAMPLED} .* has other tokens here"):
        check_sentences(reader, sides, everything=True)
