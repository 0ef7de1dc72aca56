"""What a store lacks is said with the option that chose it."""

from types import SimpleNamespace

import pytest

from fairseq_bert_kd.storage.alignment import check_contents

INFO = SimpleNamespace(
    k=8, temperatures=(1.0, 5.0), samples=0, rebuild_command=lambda path: "make it again with `dump`"
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
        rf"{option} needs .* has it at 1, 5: choose one of these with {choosing}, or make it again .* 1 2 5"
    )
    with pytest.raises(ValueError, match=message):
        check_contents(reader, 8, [(option, 2.0)], False)
