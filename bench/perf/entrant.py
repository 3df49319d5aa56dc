"""One contender's process: it imports what the contender needs, and then forks for every job, so that each is measured
in a fresh process with nothing of the others in its memory.

`python -m bench.perf.entrant NAME`; a job is a line of JSON in, a line of JSON out (`Server` speaks it). Forking is
safe here: nothing is computed before, so there are no threads of torch's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bench.errors import RunError
from bench.perf.contenders import WITHOUT, Work, contender
from bench.recipe import parse_recipe

if TYPE_CHECKING:
    import torch

WARM_UP = 1  # calls that are dropped: the first makes the optimiser's moments and takes memory from the system
OPERATORS = 15  # rows of a profile


@dataclass(frozen=True)
class Server:
    """The process of a contender; `errors`: what it writes to its standard error."""

    name: str
    process: subprocess.Popen[str]
    errors: IO[str]

    def measure(self, kind: str, work: Work, repeats: int, trace: Path | None = None) -> dict[str, Any]:
        """`measured` in a process of its own; with `trace` `profiled`.

        Raises:
            RunError: it failed, or was killed.
        """
        job = {"kind": kind, "recipe": work.recipe.model_dump(mode="json"), "repeats": repeats}
        job |= {"device": work.device, "precision": work.precision, "trace": trace and str(trace)}
        assert self.process.stdin and self.process.stdout
        print(json.dumps(job), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline() or '{"status": 1}')
        status = answer["status"]
        if status:
            reason = f"killed by signal {-status}; out of memory?" if status < 0 else self.last_words()
            raise RunError(f"{self.name}: {work.recipe.model.name}: {reason}")
        return answer["result"]

    def last_words(self) -> str:
        """The last line that it wrote to its standard error."""
        self.errors.seek(0)
        return ([line for line in self.errors.read().splitlines() if line.strip()] or ["failed"])[-1]


@contextmanager
def serving(name: str) -> Iterator[Server]:
    """A contender's process, once it has imported everything: that would disturb what is measured meanwhile.

    Raises:
        RunError: an import failed.
    """
    command, pipe = [sys.executable, "-m", "bench.perf.entrant", name], subprocess.PIPE
    # Whether there is a GPU may be asked by an import; by default the answer makes CUDA useless after a fork.
    env = {**os.environ, "PYTORCH_NVML_BASED_CUDA_CHECK": "1", **WITHOUT.get(name, {})}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=env) as process,
    ):
        server = Server(name, process, errors)
        assert process.stdout
        if not process.stdout.readline():
            raise RunError(f"{name}: {server.last_words()}")
        yield server


def measured(kind: str, name: str, work: Work, repeats: int) -> dict[str, Any]:
    """What a contender does, `repeats` times after `WARM_UP`.

    Returns:
        seconds: of each; parameters: that are trained; peak_bytes: of the process's memory, or of the GPU's.
    """
    network, call = getattr(contender(name), _method(kind))(work)
    for _ in range(WARM_UP):
        call()
    return {
        "seconds": _timed(call, repeats, work.device),
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "peak_bytes": _peak_bytes(work.device),
    }


def profiled(kind: str, name: str, work: Work, repeats: int, trace: Path) -> dict[str, Any]:
    """The same under torch's profiler: a Chrome trace in `trace`; returns the table of its top operators as text."""
    from torch.profiler import profile

    _, call = getattr(contender(name), _method(kind))(work)
    for _ in range(WARM_UP):
        call()
    with profile() as profiler:
        for _ in range(repeats):
            call()
    profiler.export_chrome_trace(str(trace))
    order = "self_cuda_time_total" if work.device == "cuda" else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=order, row_limit=OPERATORS, max_name_column_width=50)
    return {"operators": table}


def _method(kind: str) -> str:
    return {"train": "training", "sample": "sampling"}[kind]


def _timed(call: Callable[[], object], repeats: int, device: str) -> list[float]:
    """Seconds of each call. On a GPU by events, so that nothing waits for it between calls."""
    if device != "cuda":
        times = [time.perf_counter()]
        for _ in range(repeats):
            call()
            times.append(time.perf_counter())
        return [after - before for before, after in pairwise(times)]
    import torch

    marks = [_mark()]
    for _ in range(repeats):
        call()
        marks.append(_mark())
    torch.cuda.synchronize()
    return [before.elapsed_time(after) / 1000 for before, after in pairwise(marks)]


def _mark() -> torch.cuda.Event:
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    # Not ru_maxrss, which the system hands on from the process that started this one.
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found
    return 1024 * int(found[1])


def _work_off(name: str, line: str) -> dict[str, Any]:
    """What a job's own process found out."""
    job = json.loads(line)
    kind, repeats = job["kind"], job["repeats"]
    work = Work(parse_recipe(job["recipe"], "job"), job["device"], job["precision"])
    if job["trace"]:
        return profiled(kind, name, work, repeats, Path(job["trace"]))
    return measured(kind, name, work, repeats)


def _serve(name: str) -> None:
    contender(name)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            _answer(name, line, write)
        os.close(write)
        with os.fdopen(read, encoding="utf-8") as pipe:
            result = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, "result": json.loads(result or "null")}), file=answers, flush=True)


def _answer(name: str, line: str, write: int) -> None:
    """In the child: never returns."""
    status = 1
    try:
        with os.fdopen(write, "w", encoding="utf-8") as pipe:
            json.dump(_work_off(name, line), pipe)
        status = 0
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
