"""Ranks on this machine, by gloo."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.parallel import Meeting, Ranks, joined

# A process that has loaded torch, but computed nothing, is copied for every rank.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bench.run", "torch._dynamo", "sklearn.datasets"])
HANG_SECONDS = 300


def on_ranks(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(ranks, *arguments)` returns on each of `world_size` processes, or the exception it raises.

    `EOFError` for a process that died.
    """
    folder = tempfile.TemporaryDirectory()
    pipes, processes = [], []
    try:
        for rank in range(world_size):
            ours, theirs = CONTEXT.Pipe(duplex=False)
            meeting = Meeting(Ranks(rank, world_size, rank), Path(folder.name) / "port.json")
            process = CONTEXT.Process(target=_rank, args=(theirs, meeting, function, arguments), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        answers = []
        for rank, pipe in enumerate(pipes):
            assert pipe.poll(HANG_SECONDS), f"rank {rank} hangs"
            try:
                answers.append(pipe.recv())
            except EOFError as error:
                answers.append(error)
        return answers
    finally:
        for process in processes:
            process.kill()
            process.join()
        folder.cleanup()


def _rank(answer: Any, meeting: Meeting, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        with joined("cpu", meeting) as ranks:
            value = function(ranks, *arguments)
    except Exception as error:
        value = error
    answer.send(value)
