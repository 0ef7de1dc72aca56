"""What fairseq asks a dataset for its items' lengths."""

from typing import Any

from numpy.typing import NDArray


class TokenSizes:
    """Answers from ``sizes``, ``(items,)`` tokens of each item."""

    sizes: NDArray[Any]

    def num_tokens(self, index):
        return int(self.sizes[index])

    def num_tokens_vec(self, indices):
        return self.sizes[indices]

    def size(self, index):
        return int(self.sizes[index])
