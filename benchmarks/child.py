"""Work in a new process."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def in_new_process(function: Callable[..., Any], *arguments: Any, method: str = "spawn") -> Any:
    """What the function returns; its exceptions come here too, and so does a process that is killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        return pool.submit(function, *arguments).result()
