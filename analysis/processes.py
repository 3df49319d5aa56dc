"""Work on many things by a process for each processor."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_inherited: tuple[Callable[[Any], Any], Sequence[Any]]


def by_all_processors(function: Callable[[Item], Result], items: Sequence[Item], least: int = 1) -> Iterator[Result]:
    """A function's results of items, in their order; its first error is raised.

    The processes are forks: they have all that this one has, and only results are sent. But on Linux forks of what a
    process has imported may crash, and all is done here.

    Args:
        function: returns, and raises, what can be pickled.
        least: items, of which less are done sooner than a process begins.
    """
    processes = min(os.cpu_count() or 1, len(items) // least) if sys.platform == "linux" else 1
    if processes < 2:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(processes, get_context("fork"), _inherit, (function, items)) as pool:
        yield from pool.map(_of_item, range(len(items)), chunksize=max(1, least // 4))


def _inherit(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _inherited
    _inherited = function, items


def _of_item(index: int) -> Any:
    function, items = _inherited
    return function(items[index])
