"""Where a result comes from: recorded with every start and every sample array, never part of an id."""

from __future__ import annotations

import platform
import socket
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from bench.device import Precision


def session(device: torch.device, precision: Precision, resumed_from_step: int) -> dict[str, Any]:
    """A row of sessions.jsonl: when, where and with what a run was started."""
    return {
        "time": now(),
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit(),
        "resumed_from_step": resumed_from_step,
    }


def now() -> str:
    """The local time with its offset, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


@cache
def commit() -> str | None:
    """The suite's checked-out commit, with `+` if tracked files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
