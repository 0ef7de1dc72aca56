"""A readable refusal where the host only asserts."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refuse_unequal_sides(split: str) -> Iterator[None]:
    """Turn the host's assertion on a corpus whose sides differ in length into a `ValueError`.

    Args:
        split: the split being loaded, for the message.
    """
    try:
        yield
    except AssertionError as error:
        if "same number of examples" not in str(error):
            raise
        raise ValueError(
            f"source and target of split `{split}` have different numbers of sentences; give fairseq-preprocess "
            "files with the same number of lines (`fairseq-bert-kd tokenize --parallel` checks that)"
        ) from None
