"""Work on many things by a process for each processor."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from analysis.errors import ResultsError

Item = TypeVar("Item")
Result = TypeVar("Result")

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_inherited: tuple[Callable[[Any], Any], Sequence[Any]]


def by_all_processors(function: Callable[[Item], Result], items: Sequence[Item], least: int = 1) -> Iterator[Result]:
    """A function's results of items, in their order; its first error is raised.

    The processes are forks: they have all that this one has, and only results are sent. Where that is not safe, on
    other systems than Linux, this process does all.

    Args:
        function: returns, and raises, what can be pickled.
        least: the fewest items that are worth a process.

    Raises:
        ResultsError: a process was killed.
    """
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1  # those that it may use
    processes = min(processors, len(items) // least)
    if processes < 2:
        yield from map(function, items)
        return
    try:
        with ProcessPoolExecutor(processes, get_context("fork"), _inherit, (function, items)) as pool:
            yield from pool.map(_of_item, range(len(items)), chunksize=max(1, least // 4))
    except BrokenProcessPool:
        raise ResultsError(
            f"one of {processes} processes that shared the work was killed (out of memory?); the same command after "
            "`taskset -c 0` has one do it all"
        ) from None


def _inherit(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _inherited
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to all: the first process ends the others
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # killed itself, it could not
    _inherited = function, items


def _of_item(index: int) -> Any:
    function, items = _inherited
    return function(items[index])
