"""Where a result comes from: recorded with every start and every sample array, never part of an id."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any

import torch

from bench.device import Precision
from bench.metrics import now
from bench.revision import commit


def session(device: torch.device, precision: Precision, world_size: int) -> dict[str, Any]:
    """What a row of sessions.jsonl says of when, where and with what a run was started."""
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
