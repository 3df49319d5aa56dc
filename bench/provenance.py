"""Where a result comes from: recorded with every start and every sample array, never part of an id."""

from __future__ import annotations

import json
import logging
import os
import platform
import socket
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.files.atomic import write_json
from bench.files.jsonl import now

if TYPE_CHECKING:
    import torch

    from bench.parallel import Precision

log = logging.getLogger(__name__)

# What the suite writes of how samples were made. Nothing else beside samples is taken into a row: no metric, above all.
MADE_FROM = (
    *("run", "step", "weights", "post_hoc", "seed", "commit"),
    *("sampler", "sampling_steps", "network_calls", "clip_denoised"),
    *("guidance_scale", "guidance_channels", "guidance_interval", "guide"),
    *("decoder", "num_samples", "labels", "sampling_gmacs", "normalization", "objective", "captions"),
)
# Of these, what decides no sample.
FACTS = ("commit", "sampling_gmacs")
# `bench.data.images.Images.content_hash` of the samples that it is about.
CONTENT_HASH = "content_hash"


def session(device: torch.device, precision: Precision, world_size: int) -> dict[str, Any]:
    """What a row of sessions.jsonl says of when, where and with what a run was started."""
    import torch

    from bench.cpu import linear

    return {
        "time": now(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "onednn": device.type == "cpu" and linear.pays(),
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
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # installed: git would tell of the project whose folder it is in
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def completed(made_from: dict[str, Any]) -> dict[str, Any]:
    """With what earlier versions, all of whose samplers called the network once a step, did not write."""
    unsaid = {"network_calls": made_from["sampling_steps"]} if "sampling_steps" in made_from else {}
    return {**unsaid, **made_from}


def made_from_path(samples: Path) -> Path:
    """Where it is written how samples were made: their whole name and .json."""
    named = samples if samples.name not in ("", "..") else samples.resolve()
    return named.with_name(f"{named.name}.json")


def write_made_from(samples: Path, made_from: dict[str, Any], content_hash: str) -> None:
    """Write beside samples how they were made.

    Raises:
        RunError: it could not be written.
    """
    write_json(made_from_path(samples), {**made_from, CONTENT_HASH: content_hash})


def read_made_from(samples: Path, content_hash: str, say: Callable[[str], object] = log.warning) -> dict[str, Any]:
    """How samples with this hash of their pixels were made; empty unless the suite wrote it of them.

    `say` is told of a file beside them that is ignored.
    """
    path = made_from_path(samples)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        problem = _problem(content, content_hash)
    except FileNotFoundError:
        earlier = samples.with_suffix(".json")  # as earlier versions named it; it has no hash
        if samples.suffix == ".npy" and earlier.is_file():
            say(f"{earlier}: ignored, it does not say of which pixels it is ({CONTENT_HASH})")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        content, problem = {}, f"cannot be read ({error})"
    if problem:
        say(f"{path}: ignored, {problem}")
        return {}
    return {key: value for key, value in content.items() if key != CONTENT_HASH}


def _problem(content: Any, content_hash: str) -> str | None:
    """Why a document is not what `write_made_from` wrote for these pixels, if it is not."""
    if not isinstance(content, dict):
        return "it is no JSON object"
    if content.get(CONTENT_HASH) != content_hash:
        said = str(content.get(CONTENT_HASH))[:8]
        return f"it is of other pixels ({CONTENT_HASH} {said!r}, the samples have {content_hash[:8]!r})"
    for key, value in content.items():
        if key not in (*MADE_FROM, CONTENT_HASH):
            return f"the suite writes no {key!r} there"
        if not (value is None or isinstance(value, (str, int, float))):
            return f"{key!r} is no plain value"
    return None
