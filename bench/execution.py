"""How a run is carried out. Nothing of it decides a result; most of it is recorded with every start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.device import Precision
from bench.distributed import SINGLE, Ranks
from bench.stopping import StopRequest

OnLog = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Execution:
    """Device, ranks, and what to do beside training and scoring.

    Attributes:
        device: cpu or cuda.
        precision: fp32, tf32 or bf16.
        ranks: this process among those that share the run.
        stop: asked between steps and batches.
        max_failures: after so many failed attempts the run is given up until `bench.run_folder.clear_error`.
        lock_wait_s: how long to wait for another process that works on the run.
        session: recorded in the row of every start: which job, on which node.
        offline: fetch no file of others that is not in the cache.
        trackers: names of `bench.trackers.TRACKERS`.
        on_log: told every row of train.jsonl and evals.jsonl as it is written.
        on_weights: told every kept step once its weights are whole on disk.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    ranks: Ranks = SINGLE
    stop: StopRequest = field(default_factory=StopRequest)
    max_failures: int = 1
    lock_wait_s: float = 0
    session: dict[str, Any] = field(default_factory=dict)
    offline: bool = False
    trackers: tuple[str, ...] = ()
    on_log: OnLog = lambda row: None
    on_weights: Callable[[int], None] = lambda step: None
