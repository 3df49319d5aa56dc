"""How a run is carried out: its ranks, their devices and precision. Nothing here decides a result.

Which process computes which slice of every batch, and how all of them agree: data-parallel by torch.distributed, gloo
on CPUs, NCCL on GPUs. What ranks agree on (to stop, that all is written) always goes by gloo, so that agreeing never
waits for a GPU. Device, precision and modes are no part of a recipe: they are recorded with every start.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage] - documented
from torch.nn.parallel import DistributedDataParallel

from bench.cpu.linear import by_onednn
from bench.cpu.memory import keep_freed_memory
from bench.device import PLAIN, Modes, Precision
from bench.errors import InputError, RunError
from bench.files.atomic import write_json
from bench.stopping import StopRequest
from bench.training.modes import carried_out, whole

# Ranks wait for each other while rank 0 scores; a dead rank is noticed by its closed connection, not by this.
TIMEOUT = timedelta(hours=24)
# Nodes of a job may load torch minutes apart.
MEETING_SECONDS = 1800.0
CONNECT_SECONDS = 10.0
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


@dataclass(frozen=True)
class Meeting:
    """How ranks that no torchrun started find each other: rank 0 takes a free port and writes it into `file`.

    `file` is on a disk that all share, and of this start alone. `hosts`: what other machines may call this one.
    """

    ranks: Ranks
    file: Path
    hosts: tuple[str, ...] = ("localhost",)


@contextmanager
def joined(device: str, meeting: Meeting | None = None) -> Iterator[Ranks]:
    """The ranks of a meeting, else those that torchrun's environment variables describe, else a single one.

    Raises:
        InputError: WORLD_SIZE is given without torchrun's other variables.
        RunError: rank 0 of the meeting is not reached.
    """
    if (meeting.ranks.world_size if meeting else int(os.environ.get("WORLD_SIZE", "1"))) == 1:
        yield SINGLE
        return
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    if meeting:
        ranks = meeting.ranks
        store = _store(meeting)
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world_size, timeout=TIMEOUT)
        if ranks.is_first:  # all have come
            meeting.file.unlink(missing_ok=True)
    else:
        missing = [name for name in VARIABLES if name not in os.environ]
        if missing:
            raise InputError(f"environment: WORLD_SIZE is set, but not {', '.join(missing)}; torchrun sets all of them")
        dist.init_process_group(backend, timeout=TIMEOUT)
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _store(meeting: Meeting) -> Store:
    """The store by which the ranks of a meeting agree on their connections. Rank 0 holds it, at a port that is free."""
    world_size = meeting.ranks.world_size
    if meeting.ranks.is_first:
        store = TCPStore("localhost", 0, world_size, is_master=True, timeout=TIMEOUT, wait_for_workers=False)
        write_json(meeting.file, {"hosts": meeting.hosts, "port": store.port})
        return store
    deadline = time.monotonic() + MEETING_SECONDS
    problem = f"it did not write {meeting.file}"
    while time.monotonic() < deadline:
        if meeting.file.exists():
            place = json.loads(meeting.file.read_text(encoding="utf-8"))
            for host in place["hosts"]:
                try:  # TCPStore says less, and takes longer
                    socket.create_connection((host, place["port"]), timeout=CONNECT_SECONDS).close()
                except OSError as error:
                    problem = f"{host}, port {place['port']}: {error}"
                else:
                    return TCPStore(host, place["port"], world_size, timeout=TIMEOUT, wait_for_workers=False)
        time.sleep(0.1)
    minutes = MEETING_SECONDS / 60
    raise RunError(f"rank {meeting.ranks.rank} did not reach rank 0 within {minutes:g} minutes ({problem})")


def lost_a_peer(error: Exception) -> bool:
    """Whether an error only says that another rank is gone."""
    if isinstance(error, (dist.DistBackendError, dist.DistNetworkError)):
        return True
    return isinstance(error, RuntimeError) and bool(re.search("gloo|NCCL|[Cc]onnection|[Bb]roken pipe", str(error)))


def prepare_device(device: str, precision: Precision, local_rank: int = 0) -> torch.device:
    """Check that the hardware is there and set matrix precision and determinism for this process.

    A rank takes the GPU of its local rank, or the only one that its launcher lets it see. CUDA runs use deterministic
    algorithms, so that a resumed run equals an uninterrupted one bit for bit.

    Raises:
        InputError: no such device here, or a precision that it lacks.
    """
    if device == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device cuda: no CUDA device here; accepted: cpu")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        index = local_rank if torch.cuda.device_count() > 1 else 0
        if index >= torch.cuda.device_count():
            raise InputError(f"--device cuda: local rank {local_rank}, but {torch.cuda.device_count()} GPUs here")
        torch.cuda.set_device(index)
    elif precision == "tf32":
        raise InputError("--precision tf32: only on CUDA devices; accepted on cpu: fp32, bf16")
    else:
        keep_freed_memory()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # of convolutions, which have a switch of their own
    return torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device(device)


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device, ready to compute there."""
    return by_onednn(network.to(device)) if device.type == "cpu" else network.to(device)


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 within: decoders and feature networks compute alike whatever the precision of the model."""
    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions


def autocast(device: torch.device, precision: Precision, keep_weights: bool = True) -> AbstractContextManager[object]:
    """bf16 matrix products with fp32 weights and sums, or nothing; `keep_weights` in bf16 until the end of it."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=keep_weights
    )  # fmt: skip


OnLog = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Parallel:
    """This process's rank, device, precision and modes, and what follows from them for training.

    Data-parallel training averages gradients over ranks on the way back: DistributedDataParallel, or where every rank
    holds a shard of the weights FSDP2.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "fp32"
    ranks: Ranks = SINGLE
    modes: Modes = PLAIN

    def wrap(self, model: nn.Module) -> nn.Module:
        """What a training step calls instead of the model.

        Raises:
            InputError: torch.compile does not work here.
        """
        network = carried_out(model, self.modes, self.device)
        if self.ranks.world_size == 1 or self.modes.shard:
            return network
        device_ids = [self.device] if self.device.type == "cuda" else None
        # DDP is not asked to look for parameters without a gradient: a static graph would save it nothing.
        return DistributedDataParallel(network, device_ids=device_ids, gradient_as_bucket_view=True)

    def accumulating(self, network: nn.Module, is_last: bool) -> AbstractContextManager[object]:
        """Within, gradients of a piece of a batch are added up; ranks average them with the last piece.

        Of shards with every piece: what a rank then keeps of them is its shard.
        """
        if isinstance(network, DistributedDataParallel) and not is_last:
            return network.no_sync()
        return nullcontext()

    def autocast(self) -> AbstractContextManager[object]:
        # All blocks' weights would be whole at the end of a forward pass, and each is used once.
        return autocast(self.device, self.precision, keep_weights=not self.modes.shard)

    def on_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors on rank 0. Of shards others get none, and no device has more than one of them whole.

        All ranks must call it.
        """
        if not self.modes.shard:
            return dict(tensors)
        put_together = {}
        for name, tensor in tensors.items():
            all_of_it = whole(tensor)
            if self.ranks.is_first:
                put_together[name] = all_of_it.cpu()
        return put_together


@dataclass(frozen=True)
class Execution:
    """Device, ranks, and what to do beside training and scoring.

    Attributes:
        device: cpu or cuda.
        precision: fp32, tf32 or bf16.
        ranks: this process among those that share the run.
        modes: how training steps are carried out.
        stop: asked between steps and batches.
        max_failures: after so many failed attempts the run is given up until `bench.files.run_folder.clear_error`.
        lock_wait_s: how long to wait for another process that works on the run.
        session: recorded in the row of every start: which job, on which node.
        offline: fetch no file of others that is not in the cache.
        trackers: names of `bench.trackers.TRACKERS`.
        on_log: told every row of train.jsonl, evals.jsonl and scores.jsonl as it is written.
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
    modes: Modes = PLAIN
