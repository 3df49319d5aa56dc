"""What a run does about a loss or gradient that is not finite: the recipe's `train.non_finite`.

stop         It ends with an error at the next row of train.jsonl; what was saved before stays.
skip         The step's update is left out: weights, moments and averages stay as they are, bit for bit. A run ends with
             an error at the first row that `MOST_SKIPPED` steps in a row, or all steps of the run, led to without an
             update.
roll-back    At the next row the run goes back to the state that it saved last, cuts the rows after it, and goes on with
             the batches that follow the failed ones, which it passes over. It ends with an error where it would go back
             to the same state once more than `MOST_ROLL_BACKS` times. roll-backs.jsonl has a row for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.files import jsonl
from bench.parallel import Ranks

MOST_SKIPPED = 100
MOST_ROLL_BACKS = 3


class Skips:
    """The steps that are left out, counted on the device, so that no step waits for it.

    Attributes:
        counts: how many so far, and how many of them in a row until now; (2,) int64.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self._ranks = ranks
        self.counts = torch.zeros(2, dtype=torch.int64, device=device)

    def left_out(self, finite: Tensor) -> Tensor:
        """Whether a step is left out: the same on all ranks, one of which may have met what is not finite alone."""
        shares = finite.float()
        self._ranks.average_(shares)
        left_out = shares < 1
        self.counts = (self.counts + left_out) * torch.stack([torch.ones_like(left_out), left_out])
        return left_out


@contextmanager
def unchanged_where(left_out: Tensor | None, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Undo what is done to `tensors` within, where `left_out` (a bool on the device); None is never."""
    before = [] if left_out is None else [tensor.clone() for tensor in tensors]
    yield
    if left_out is not None:
        for tensor, old in zip(tensors, before, strict=True):
            torch.where(left_out, old, tensor, out=tensor)


class RollBacks:
    """A run's roll-backs: how many, and which batches each passed over.

    One row each of roll-backs.jsonl: `step`, gone back to; `failed_step`, at which a row could not be written; and
    `first_step`, whose loss or gradient was the first that was not finite. The file is all that resuming needs: a step
    before `step`, where a damaged state lets it be repeated, takes the batch that it took.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "roll-backs.jsonl"
        self.rows: list[dict[str, Any]] = []

    def read(self) -> None:
        """Take over what is recorded.

        Raises:
            RunError: the file is damaged.
        """
        self.rows = jsonl.read(self._path)

    def add(self, step: int, failed_step: int, first_step: int, writes: bool) -> None:
        """One more, recorded by the rank that `writes`, before anything else of it is done.

        Raises:
            RunError: the file cannot be written.
        """
        row = {"step": step, "failed_step": failed_step, "first_step": first_step, "time": jsonl.now()}
        self.rows.append(row)
        if writes:
            jsonl.append(self._path, row)

    def to(self, step: int) -> int:
        """How many went back to this step."""
        return sum(row["step"] == step for row in self.rows)

    def before(self, step: int) -> int:
        """How many went back to earlier steps."""
        return sum(row["step"] < step for row in self.rows)

    def batch(self, step: int) -> int:
        """Which batch step 0, 1, ... takes, counted from 0: its own number, and those passed over before it."""
        return step + sum(row["failed_step"] - row["step"] for row in self.rows if row["step"] <= step)
