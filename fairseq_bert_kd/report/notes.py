"""What is missing or odd in an experiment: collected while it is read, shown in the report."""

import re
from pathlib import Path
from typing import NamedTuple


class Note(NamedTuple):
    """A sentence for the reader.

    Attributes:
        where: what it is about, a run or a file; "" for the experiment.
        text: what is missing or odd, and what the report does about it.
    """

    where: str
    text: str


class Notes(list[Note]):
    """Notes in the order in which they were found, each once; paths in them start at the experiment's folder.

    Args:
        folder: of the experiment.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self._prefixes = [f"{path}/" for path in dict.fromkeys((Path(folder).absolute(), Path(folder)))]

    def add(self, where: str, text: object) -> None:
        """Note something; ``text`` may be an exception."""
        told = str(text)
        for prefix in self._prefixes:
            told = re.sub(rf"(?<![\w./-]){re.escape(prefix)}", "", told)  # where a path begins
        note = Note(where, told)
        if note not in self:
            self.append(note)
