"""Ranks on this machine, by gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from bench.parallel import joined

# A process that has loaded torch, but computed nothing, is copied for every rank.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bench.run", "torch._dynamo", "sklearn.datasets"])
HANG_SECONDS = 300


def on_ranks(world_size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(ranks, *arguments)` returns on each of `world_size` processes, or the exception it raises.

    `EOFError` for a process that died.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pipes, processes = [], []
    try:
        for rank in range(world_size):
            ours, theirs = CONTEXT.Pipe(duplex=False)
            variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
            process = CONTEXT.Process(target=_rank, args=(theirs, variables, function, arguments), daemon=True)
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


def _rank(answer: Any, variables: dict[str, int], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {name: str(value) for name, value in variables.items()}
    torch.set_num_threads(1)
    try:
        with joined("cpu") as ranks:
            value = function(ranks, *arguments)
    except Exception as error:
        value = error
    answer.send(value)
