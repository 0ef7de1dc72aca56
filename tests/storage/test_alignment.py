"""What a store lacks is said with the option that chose it, and with the command that writes it again."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fairseq_bert_kd.storage.alignment import check_contents
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
