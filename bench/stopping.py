"""Stopping on request: a signal asks, the run saves what it has at the next safe point, and continues when repeated."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Exit status of a process that saved its work because it was asked to stop: not an error, and not done.
STOPPED = 85


class Stopped(Exception):
    """The run stopped early, on request; what it did is saved, and the same command continues."""


class StopRequest:
    """Whether somebody asked the run to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._interruptible = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def on(self, *signals: signal.Signals) -> StopRequest:
        """Listen to signals from now on; the last one that came is remembered. Main thread only."""
        for number in signals:
            signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        if self._interruptible:
            raise Stopped(f"stopped by {self.signal.name}")

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """Within, a request raises `Stopped` at once: for work that has nothing of its own to save."""
        if self:
            raise Stopped("stopped on request")
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False
