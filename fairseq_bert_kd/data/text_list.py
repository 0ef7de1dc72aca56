"""Texts in memory where a dataset has a binarised file."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class TextList:
    """Texts in memory as a dataset's side.

    Attributes:
        texts: ids of each text, end of sentence included.
    """

    texts: list[Any]

    @property
    def sizes(self) -> Any:
        return np.array([len(text) for text in self.texts])

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> Any:
        return self.texts[row]
