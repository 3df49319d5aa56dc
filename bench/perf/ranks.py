"""What things cost, as ratios of medians measured in one run, interleaved: machines and their load differ."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bench.flops import forward_gmacs
from bench.parallel import SINGLE, Meeting, Parallel, Ranks, joined
from bench.recipe import Recipe
from bench.run import build_trainer
from bench.train import Trainer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CPU = torch.device("cpu")
NUM_RANKS = 2


@dataclass(frozen=True)
class RanksCost:
    """Median milliseconds of one training step, one thread a process, fp32.

    Attributes:
        batch_size: of the whole batch.
        gradient_mb: what the ranks sum in every step, 4 bytes a parameter, in 1e6 bytes.
        one_process_ms: the whole batch in one process, the other waiting.
        half_batch_ms: half of the batch in each of two processes at once, without communication.
        all_reduce_ms: the sum of the gradient over the two processes, and nothing else (gloo, loopback).
        in_turns_ms: half of the batch in each, then the sum, step by step: what waiting for the slower one adds.
        two_ranks_ms: the data-parallel step.
        speedup: one_process_ms / two_ranks_ms.
        unaccounted: two_ranks_ms / in_turns_ms - 1: what is neither half of the work, nor the sum, nor waiting.
    """

    model: str
    gmacs: float
    batch_size: int
    gradient_mb: float
    one_process_ms: float
    half_batch_ms: float
    all_reduce_ms: float
    in_turns_ms: float
    two_ranks_ms: float
    speedup: float
    unaccounted: float


def ranks_cost(recipe: Recipe, rounds: int, steps: int) -> RanksCost:
    """Measure one recipe's training step by one process and by two, `rounds` times `steps` of each, in turns."""
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    arguments = (recipe, rounds, steps, results)
    with tempfile.TemporaryDirectory() as folder:
        meetings = [Meeting(Ranks(rank, NUM_RANKS, rank), Path(folder) / "port.json") for rank in range(NUM_RANKS)]
        processes = [context.Process(target=_measure, args=(meeting, *arguments)) for meeting in meetings]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a rank of the measurement failed")
    return results.get()


def _measure(meeting: Meeting, recipe: Recipe, rounds: int, steps: int, results: mp.SimpleQueue[RanksCost]) -> None:
    torch.set_num_threads(1)
    half = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"batch_size": recipe.train.batch_size // NUM_RANKS})}
    )
    with joined("cpu", meeting) as ranks, tempfile.TemporaryDirectory() as folder:
        both = _trainer(recipe, Path(folder), ranks)
        alone = _trainer(recipe, Path(folder), SINGLE)
        without = _trainer(half, Path(folder), SINGLE)
        gradient = torch.zeros(sum(p.numel() for p in both.model.parameters() if p.requires_grad))
        work: dict[str, Callable[[], object]] = {
            "one_process_ms": alone.take_step if ranks.is_first else lambda: None,
            "half_batch_ms": without.take_step,
            "all_reduce_ms": lambda: dist.all_reduce(gradient),
            "in_turns_ms": lambda: (without.take_step(), dist.all_reduce(gradient)),
            "two_ranks_ms": both.take_step,
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds + 1):
            for name, step in work.items():
                ranks.wait_for_all()
                started = time.perf_counter()
                for _ in range(steps):
                    step()
                times[name].append(1000 * (time.perf_counter() - started) / steps)
        # The first round warms up; the slower rank is the one that a step waits for.
        medians = {name: ranks.maximum(statistics.median(values[1:]))[0] for name, values in times.items()}
        if ranks.is_first:
            results.put(
                RanksCost(
                    model=recipe.label,
                    gmacs=forward_gmacs(recipe.model),
                    batch_size=recipe.train.batch_size,
                    gradient_mb=gradient.numel() * 4 / 1e6,
                    **medians,
                    speedup=medians["one_process_ms"] / medians["two_ranks_ms"],
                    unaccounted=medians["two_ranks_ms"] / medians["in_turns_ms"] - 1,
                )
            )


def _trainer(recipe: Recipe, folder: Path, ranks: Ranks) -> Trainer:
    return build_trainer(recipe, recipe.data.load(CPU), folder, forward_gmacs(recipe.model), Parallel(CPU, ranks=ranks))


def as_row(cost: DataclassInstance) -> dict[str, str]:
    """Column -> value as it is printed and written."""
    return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in asdict(cost).items()}
