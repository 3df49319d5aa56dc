"""How often SLURM is asked by those who watch: less and less often while its answer stays the same."""

from __future__ import annotations

import time

SHORTEST_SECONDS = 10.0
LONGEST_SECONDS = 60.0


class Pace:
    """When the next question is due. `interval_s` doubles with every answer like the one before."""

    def __init__(self, shortest_s: float = SHORTEST_SECONDS) -> None:
        self.interval_s = self._shortest_s = shortest_s
        self._answer: object = None
        self._answered_s: float | None = None

    @property
    def is_slower(self) -> bool:
        return self.interval_s > self._shortest_s

    @property
    def is_due(self) -> bool:
        return self._answered_s is None or time.monotonic() - self._answered_s >= self.interval_s

    def answered(self, answer: object) -> None:
        """Take note of an answer; the time until the next question begins now, however long this one took."""
        is_new = self._answered_s is None or answer != self._answer
        self.interval_s = (
            self._shortest_s if is_new else min(2 * self.interval_s, max(self._shortest_s, LONGEST_SECONDS))
        )
        self._answer, self._answered_s = answer, time.monotonic()
