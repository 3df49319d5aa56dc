"""The ranks of a run: which process computes which slice of every batch, and how all of them agree.

Data-parallel by torch.distributed: gloo on CPUs, NCCL on GPUs. What ranks agree on (to stop, that all is written)
always goes by gloo, so that agreeing never waits for a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bench.errors import InputError

# Ranks wait for each other while rank 0 scores; a dead rank is noticed by its closed connection, not by this.
TIMEOUT = timedelta(hours=24)
T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """One process among `world_size`; `local_rank` counts on its machine and chooses its GPU."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the run's files."""
        return self.rank == 0

    def share(self, length: int) -> slice:
        """This rank's slice of a batch of `length`, which is a multiple of the world size."""
        size = length // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def maximum(self, *values: float) -> list[float]:
        """The largest of every rank's values, one by one. All ranks must call it."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def total(self, *values: float) -> list[float]:
        """The sum over ranks, one by one. All ranks must call it."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def from_first(self, value: T) -> T:
        """Rank 0's value, a small Python object, on every rank: ranks of other nodes may see older files."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    def do_on_first(self, work: Callable[[], None]) -> None:
        """Have rank 0 do something. Where it fails, rank 0 raises and the others end with status 2, without a word."""
        error = None
        if self.is_first:
            try:
                work()
            except Exception as caught:
                error = caught
        failed = self.from_first(error is not None)
        if error is not None:
            raise error
        if failed:
            raise SystemExit(2)

    def wait_for_all(self) -> None:
        """Return once every rank has called it."""
        self.maximum(0.0)

    def average_(self, tensor: Tensor) -> None:
        """Replace a tensor by its mean over ranks, on its own device. All ranks must call it."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
            tensor /= self.world_size

    def gathered(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor, stacked by rank, (world size, ...). All ranks must call it."""
        stacked = tensor.new_zeros((self.world_size, *tensor.shape))
        stacked[self.rank] = tensor
        if self.world_size > 1:
            dist.all_reduce(stacked)  # one summand is not zero: exact
        return stacked

    def _reduced(self, values: tuple[float, ...], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, operation)  # a CPU tensor: gloo
        return tensor.tolist()


SINGLE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The ranks that torchrun's environment variables describe, or a single one where WORLD_SIZE is unset or 1.

    Raises:
        InputError: WORLD_SIZE is given without the others.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE
        return
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise InputError(f"environment: WORLD_SIZE is set, but not {', '.join(missing)}; torchrun sets all of them")
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
    finally:
        dist.destroy_process_group()
