"""Where a result comes from: recorded with every start and every sample array, never part of an id."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.files.jsonl import now

if TYPE_CHECKING:
    import torch

    from bench.parallel import Precision


def session(device: torch.device, precision: Precision, world_size: int) -> dict[str, Any]:
    """What a row of sessions.jsonl says of when, where and with what a run was started."""
    import torch

    return {
        "time": now(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "world_size": world_size,
    }


# In a copy of the code (see `sweeps.slurm.snapshot`): the commit that it was copied from.
COMMIT_FILE = Path(__file__).parents[1] / "COMMIT"


@cache
def commit() -> str | None:
    """The suite's checked-out commit, with `+` if tracked files differ from it; None outside a checkout.

    A copy of the code carries its commit in a file.
    """
    if COMMIT_FILE.exists():
        return COMMIT_FILE.read_text(encoding="utf-8").strip() or None
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
