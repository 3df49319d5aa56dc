"""What is ready on a machine: packages, devices, SLURM, the cache of fetched files, latents, file locks.

It reports and repairs nothing: every check ends with a finding, whatever it meets.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.data.latent_index import INDEX, data_root, read_index
from bench.errors import InputError
from models.files.assets import ASSETS, DamagedAsset, cache_folder, check, command

COMMAND_TIMEOUT = 5.0  # seconds; sinfo waits much longer for a controller that is down
# Distribution, module and an attribute that it has only if it loads as a whole (diffusers loads parts when asked).
PACKAGES = (
    ("torch", "torch", "nn"),
    ("torchvision", "torchvision.ops", "nms"),
    ("timm", "timm.models.vision_transformer", "Attention"),
    ("diffusers", "diffusers", "AutoencoderKL"),
    ("torch-fidelity", "torch_fidelity", "calculate_metrics"),
    ("submitit", "submitit", "AutoExecutor"),
    ("fvcore", "fvcore.nn", "FlopCountAnalysis"),
)


@dataclass(frozen=True)
class Finding:
    """A line of the report; `broken`: something is installed that does not work."""

    what: str
    state: str
    todo: str = ""
    broken: bool = False


def examine(verify: bool) -> list[Finding]:
    """All findings, the most important first; `verify` computes the checksums of the cache's files too.

    Nothing is left on the disk. Needs neither a GPU, SLURM, a network nor a cache.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that are being imported
        return [*_packages(), *_devices(), _machine(), *_slurm(), *_cache(verify), *_latents(), *_locks()]


def _packages() -> Iterator[Finding]:
    yield Finding("ditbench", _version("ditbench") or "not installed, runs from its folder")
    yield Finding("python", platform.python_version())
    for distribution, module, attribute in PACKAGES:
        installed = _version(distribution)
        if installed is None:
            yield Finding(distribution, "not installed", "make install")
            continue
        try:
            getattr(importlib.import_module(module), attribute)
        except Exception as error:  # a broken package raises whatever it likes
            yield Finding(distribution, f"{installed}: {_reason(error)}", "make install", broken=True)
        else:
            yield Finding(distribution, installed)
    yield from _operators()


def _operators() -> Iterator[Finding]:
    """torchvision's compiled operators work with one version of torch: another leaves them out."""
    try:
        import torch
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 1.0]), 0.5).tolist()
        if kept != [1]:
            raise RuntimeError(f"nms keeps {kept} of two equal boxes, [1] is right")
    except ModuleNotFoundError:
        return
    except Exception as error:
        yield Finding("torchvision::nms", _reason(error), "install torch and torchvision together", broken=True)
    else:
        yield Finding("torchvision::nms", "works")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    """GPUs as torch sees them, and NCCL."""
    try:
        import torch
        from torch.cuda import nccl
        from torch.distributed import is_available, is_nccl_available

        if torch.version.cuda is None:
            yield Finding(
                "cuda", "this torch is built without it", "make install" if shutil.which("nvidia-smi") else ""
            )
        else:
            yield from _gpus()
        built = is_available() and is_nccl_available()
        yield Finding("nccl", ".".join(map(str, nccl.version())) if built else "this torch is built without it")
    except Exception as error:
        yield Finding("cuda", _reason(error))


def _gpus() -> Iterator[Finding]:
    import torch

    with warnings.catch_warnings(record=True) as said:  # why not, such as a driver that is too old
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if not available:
        yield Finding("cuda", ": ".join(["no device", *(_one_line(str(warning.message)) for warning in said)]))
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if about.major >= 8 else "no bf16"  # compute capability 8.0: Ampere
        yield Finding(f"cuda:{index}", f"{about.name}, {about.total_memory / 2**30:.0f} GiB, {bf16}")


def _machine() -> Finding:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("cpu", f"{cores} cores, {memory:.0f} GiB memory")


def _slurm() -> Iterator[Finding]:
    if shutil.which("sbatch") is None:
        yield Finding("slurm", "no sbatch on the PATH", "on a cluster: a login node; else `--cluster local`")
        return
    ok, output = _ask(["sbatch", "--version"])
    yield Finding("slurm", output.strip() if ok else f"sbatch: {output}")
    ok, output = _ask(["sinfo", "--noheader", "--format=%R"])
    partitions = ", ".join(sorted(set(output.split())))
    yield Finding("sinfo", f"partitions: {partitions}" if ok else output, "" if ok else "is the controller up?")
    ok, output = _ask(["sacct", "-X", "--noheader", "--format=JobID"])
    yield Finding("sacct", "answers" if ok else output, "" if ok else "nothing: states are then taken from squeue")


def _ask(arguments: list[str]) -> tuple[bool, str]:
    """Whether a command succeeds in time, and what it prints, or why it does not."""
    if shutil.which(arguments[0]) is None:
        return False, "not found on the PATH"
    # Options that the caller's shell gives to these commands would hide partitions.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SINFO_", "SACCT_", "SLURM_CLUSTERS"))}
    try:
        # A session of its own: what the command starts ends with it, and keeps no pipe open.
        asked = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        return False, _reason(error)
    try:
        output, complaint = asked.communicate(timeout=COMMAND_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(asked.pid, signal.SIGKILL)
        asked.communicate()
        return False, f"no answer in {COMMAND_TIMEOUT:g} s"
    if asked.returncode != 0:
        lines = complaint.split("\n") if complaint.strip() else [f"ended with status {asked.returncode}"]
        return False, _one_line([line for line in lines if line.strip()][-1])
    return True, output


def _cache(verify: bool) -> Iterator[Finding]:
    cache = cache_folder()
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    state = "writable" if there == cache else "not made yet"
    free = f"{shutil.disk_usage(there).free / 1e9:.0f} GB free"
    if problem := _write_problem(there):
        todo = (
            "jobs can read it; to fetch, choose another by DITBENCH_CACHE" if there == cache else "set DITBENCH_CACHE"
        )
        yield Finding("cache", f"{cache}: cannot be written ({problem}), {free}", todo)
    else:
        yield Finding("cache", f"{cache}: {state}, {free}")
    for name, asset in ASSETS.items():
        try:
            statuses = check(name, verify)
        except DamagedAsset as error:
            yield Finding(name, str(error))
            continue
        worst = next((s for state in ("damaged", "missing") for s in statuses if s.state == state), None)
        if worst:
            yield Finding(name, f"{asset.what}: {worst.path.name} {worst.problem or worst.state}", command(name))
        else:
            states = ", ".join(sorted({status.state for status in statuses})) + (", verified" if verify else "")
            size = sum(status.size or 0 for status in statuses)
            yield Finding(name, f"{asset.what}: {states}, {size / 1e6:,.1f} MB")


def _latents() -> Iterator[Finding]:
    root = data_root()
    found = sorted(root.glob(f"*/{INDEX}"))
    if not found:
        yield Finding("data", f"{root}: no latents", "ditbench encode IMAGES --vae NAME --image-size 256")
    for path in found:
        try:
            index = read_index(path.parent)
        except InputError as error:
            problem = str(error).removeprefix(f"{path}: ")
            yield Finding(str(path), f"damaged: {_one_line(problem)}", "the same `ditbench encode` makes it again")
        else:
            about = f"{index.count:,} images of {index.image_size} px, {index.vae.name}"
            yield Finding(str(path.parent), about)


def _locks() -> Iterator[Finding]:
    """Runs, and the cache, rely on a lock keeping others out: some network file systems do not."""
    runs = Path("runs") if Path("runs").is_dir() else Path.cwd()
    for folder in (runs, cache_folder()):
        if not folder.is_dir():
            continue
        if problem := _write_problem(folder):
            yield Finding("file locks", f"{folder}: not tried, cannot be written ({problem})")
            continue
        problem = _lock_problem(folder)
        todo = "" if problem is None else "use a file system with locks (NFS: without nolock, Lustre: with flock)"
        yield Finding("file locks", f"{folder}: {problem or 'work'}", todo)


def _lock_problem(folder: Path) -> str | None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".ditbench-probe-") as first:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return _reason(error)
        with Path(first.name).open("rb+") as second:
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            except OSError as error:
                return _reason(error)
    return "two files hold the same lock"


def _write_problem(folder: Path) -> str | None:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".ditbench-probe-"):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _reason(error: Exception) -> str:
    return _one_line(f"{type(error).__name__}: {error}")


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 160 else f"{words[:160]} ..."
