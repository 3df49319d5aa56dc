"""What a second process costs: a training step by two ranks, beside one process and beside what the two have to do."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bench.flops import forward_gmacs
from bench.parallel import SINGLE, Meeting, Parallel, Ranks, joined
from bench.perf.document import OURS, Products, as_document
from bench.recipe import Recipe
from bench.run import build_trainer
from bench.train import Trainer

CPU = torch.device("cpu")
NUM_RANKS = 2


def ranks_measured(recipes: Sequence[Recipe], rounds: int, steps: int, told: Callable[[str], object]) -> dict[str, Any]:
    """The document (`bench.perf.document`) of each recipe's training step, one thread a process, fp32, on CPUs.

    Contenders: ours is the data-parallel step by two ranks; one process takes the whole batch, the other waiting; in
    turns, each of both takes half of the batch and then they sum the gradient (gloo, loopback), which is what the step
    has to do, waiting for the slower one included. Seconds of a round are the means of `steps`, of the slower rank.
    Rows also have `gmacs` and `gradient_mb`: what is summed, in 1e6 bytes.
    """
    rows: list[dict[str, Any]] = []
    products = Products(CPU)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for recipe in recipes:
            products.measure()
            rows += _of_recipe(recipe, rounds, steps)
            told(f"{rows[-1]['what']}: {rounds} rounds")
        return as_document("ranks", rows, products)
    finally:
        torch.set_num_threads(threads)


def _of_recipe(recipe: Recipe, rounds: int, steps: int) -> list[dict[str, Any]]:
    """The rows of one, of `rounds` after one that is dropped."""
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


def _measure(
    meeting: Meeting, recipe: Recipe, rounds: int, steps: int, results: mp.SimpleQueue[list[dict[str, Any]]]
) -> None:
    torch.set_num_threads(1)
    half = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"batch_size": recipe.train.batch_size // NUM_RANKS})}
    )
    with joined("cpu", meeting) as ranks, tempfile.TemporaryDirectory() as folder:
        both = _trainer(recipe, Path(folder), ranks)
        alone = _trainer(recipe, Path(folder), SINGLE)
        without = _trainer(half, Path(folder), SINGLE)
        gradient = torch.zeros(sum(p.numel() for p in both.model.parameters() if p.requires_grad))
        ways: dict[str, Callable[[], object]] = {
            OURS: both.take_step,
            "one process": alone.take_step if ranks.is_first else lambda: None,
            "in turns": lambda: (without.take_step(), dist.all_reduce(gradient)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):
            for name, step in ways.items():
                ranks.wait_for_all()
                started = time.perf_counter()
                for _ in range(steps):
                    step()
                # The slower rank is the one that a step waits for.
                seconds[name] += ranks.maximum((time.perf_counter() - started) / steps)
        if ranks.is_first:
            facts = {"gmacs": forward_gmacs(recipe.model), "gradient_mb": gradient.numel() * 4 / 1e6}
            what = f"step of {recipe.label} b{recipe.train.batch_size}"
            results.put(
                [
                    {"what": what, "contender": name, "items": 0, "unit": "", **facts, "seconds": [[s] for s in of[1:]]}
                    for name, of in seconds.items()
                ]
            )


def _trainer(recipe: Recipe, folder: Path, ranks: Ranks) -> Trainer:
    return build_trainer(recipe, recipe.data.load(CPU), folder, forward_gmacs(recipe.model), Parallel(CPU, ranks=ranks))
