"""Studies as `sweep submit` and its jobs leave them, and SLURM's commands that say what a test has them say."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line import Ended, ditbench
from sweep_files import DITBENCH, FOUR, SIZE_AND_PATCH, write_sweep

from bench.files.run_folder import lock_path, phase_file, weights_path
from sweeps.cluster import ClusterProfile
from sweeps.expand import Sweep, load_sweep, run_folders
from sweeps.slurm import submissions
from sweeps.slurm.submissions import JobArray, Kind, Submission

STEPS = 12
PROFILE: dict[str, Any] = {
    "executor": "slurm",
    "time_limit": "01:00:00",
    "gpu": {"name": "a device", "peak_tflops": {"fp32": 0.001, "bf16": 0.002}},
    "training": [{}],
    "evaluation": [{}],
}


class FakeSlurm:
    """A folder of commands. Put nothing else on the PATH, and those that were not told what to say are not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": str(self.folder)}

    def says(self, command: str, *lines: str, status: int = 0, error: str = "", first: str = "") -> None:
        """Have a command print lines, complain, and end with a status; `first`: what the shell does before."""
        script = [f'echo {command} "$@" >> {shlex.quote(str(self.folder / "calls"))}']
        script += [first, *(f"printf '%s\\n' {shlex.quote(line)}" for line in lines)]
        script += [f"echo {shlex.quote(error)} >&2"] if error else []
        aside = self.folder / f".{command}"
        aside.write_text("\n".join(["#!/bin/sh", *script, f"exit {status}"]) + "\n")
        aside.chmod(0o755)
        aside.replace(self.folder / command)  # at once: a test may be polling

    def accounting(self, *jobs: str) -> None:
        """Have sacct know jobs, each `ID|STATE|NAME|NODE`."""
        self.says("sacct", *jobs)

    def queue(self, *jobs: str) -> None:
        """Have squeue know jobs, each `ID|STATE|NAME|NODE|REASON`."""
        self.says("squeue", *jobs)

    def cancels(self, error: str = "") -> None:
        """Have scancel empty the queue, and complain."""
        squeue = shlex.quote(str(self.folder / "squeue"))
        self.says("scancel", error=error, first=f"printf '#!/bin/sh\\n' > {squeue}")

    def is_down(self) -> None:
        """No answer from any command."""
        for command in ("sacct", "squeue", "scancel"):
            self.says(command, status=1, error="slurm_load_jobs error: Unable to contact slurm controller")

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


class FakeStudy:
    """Four runs, S/4, S/2, B/4 and B/2, of 12 steps, of which 6 and 12 are scored."""

    def __init__(self, folder: Path, label: str = SIZE_AND_PATCH) -> None:
        self.file = write_sweep(folder, "tiny", FOUR, label=label)
        self.runs = folder / "runs"
        self.sweep: Sweep = load_sweep(self.file)
        self.folder = self.runs / self.sweep.name
        folders = run_folders(self.sweep, self.runs)
        self._folders = {recipe.label: folders[recipe.id] for recipe in self.sweep.recipes}

    def run(self, label: str) -> Path:
        """A run's folder, made if need be."""
        self._folders[label].mkdir(parents=True, exist_ok=True)
        return self._folders[label]

    def submitted(self, *arrays: dict[str, Any], number: int = 1, **profile: Any) -> Submission:
        """Record a submission; see `array`. Scoring jobs that training jobs submitted: `write_early_scoring`."""
        submission = Submission(
            number=number,
            time="2026-01-01T10:00:00+0000",
            sweep=self.sweep.name,
            cluster="test",
            profile=ClusterProfile.model_validate({**PROFILE, **profile}),
            commit=None,
            trackers=(),
            arrays=tuple(JobArray.model_validate(array) for array in arrays),
        )
        submissions.write(self.folder, submission)
        return submission

    def array(self, kind: Kind, job_id: str | None, *tasks: str | Sequence[str], name: str = "") -> dict[str, Any]:
        """An array whose tasks are runs, or lists of runs packed into a job, by label. Its name: training, scoring."""
        packed = [[task] if isinstance(task, str) else list(task) for task in tasks]
        folders = [[self.run(label).name for label in task] for task in packed]
        return {"kind": kind, "name": name or kind, "job_id": job_id, "tasks": folders}

    def started(
        self, label: str, job: str, kind: Kind = "training", time: str = "2026-01-01T10:00:00+0000", **row: Any
    ) -> Path:
        """Add a start by a SLURM job; returns where its log would be."""
        log = f"submissions/0001/jobs/{job}_0_log.out"
        facts = {"time": time, "precision": "fp32", "world_size": 1, "job": job, "attempt": f"{job}.0"}
        facts |= {"node": "n1", "cluster": "test", "log": log}
        append(phase_file(self.run(label), "sessions.jsonl", kind), {**facts, **row})
        return self.folder / log

    def started_here(self, label: str) -> None:
        row = {"time": "2026-01-01T10:00:00+0000", "host": "laptop", "job": "4711", "cluster": "local"}
        append(self.run(label) / "sessions.jsonl", row | {"log": "jobs/4711_0_log.out"})

    def logged(self, label: str, step: int, images_per_s: float = 64.0) -> None:
        append(self.run(label) / "train.jsonl", {"step": step, "loss": 0.5, "images_per_s": images_per_s})

    def scored(self, label: str, step: int, fid: float) -> None:
        append(self.run(label) / "evals.jsonl", {"step": step, "fid": fid})

    def trained(self, label: str) -> None:
        self.logged(label, STEPS)
        for step in (6, STEPS):
            path = weights_path(self.run(label) / "checkpoints", step)
            path.parent.mkdir(exist_ok=True)
            path.touch()

    def finished(self, label: str) -> None:
        self.trained(label)
        content = {"step": STEPS, "time": "2026-01-01T10:02:03+0000"}
        (self.run(label) / "finished.json").write_text(json.dumps(content))

    def failed_once(self, label: str, error: str, kind: Kind = "training", **facts: Any) -> None:
        row = {"time": "2026-01-01T10:01:00+0000", "error": error, "attempt": "22_0.0", **facts}
        append(phase_file(self.run(label), "failures.jsonl", kind), row)

    def given_up(self, label: str, error: str, kind: Kind = "training") -> None:
        phase_file(self.run(label), "error.json", kind).write_text(json.dumps({"error": error}))

    @contextmanager
    def at_work(self, label: str) -> Iterator[None]:
        """Hold a run's lock, as its job on this machine does."""
        with lock_path(self.run(label)).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class SweepCommands:
    """`ditbench sweep`, on one study, with the commands of a fake SLURM."""

    slurm: FakeSlurm
    fake: FakeStudy

    def arguments(self, verb: str, *more: str) -> list[str]:
        return [str(DITBENCH), "sweep", verb, str(self.fake.file), *more, "--runs", str(self.fake.runs)]

    def __call__(self, verb: str, *more: str, status: int = 0) -> str:
        """What it prints; the last line of stderr where a `status` other than 0 is expected."""
        done = self.ended(verb, *more)
        assert done.status == status, done.err
        return done.err if status else done.out

    def ended(self, verb: str, *more: str) -> Ended:
        return ditbench(*self.arguments(verb, *more)[1:], PATH=str(self.slurm.folder))

    def start(self, verb: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.arguments(verb, *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.slurm.environment,
            # A test run in the background ignores the signal, and its children would too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def submit_two(fake: FakeStudy, slurm: FakeSlurm) -> None:
    """S/4 is trained by 22_0, S/2 waits as 22_1; their scoring jobs are 23_0 and 23_1."""
    fake.submitted(fake.array("training", "22", "S/4", "S/2"), fake.array("scoring", "23", "S/4", "S/2"))
    log = fake.started("S/4", "22_0")
    log.parent.mkdir()
    log.write_text("step 2\nstep 4\n")
    fake.logged("S/4", 4)
    fake.scored("S/4", 6, 98.765)
    slurm.accounting("22_0|RUNNING|training|n1", "22_1|PENDING|training|None assigned", "23_[0-1]|PENDING|scoring|")
    slurm.queue(
        "22_0|RUNNING|training|n1|None", "22_1|PENDING|training||Priority",
        "23_0|PENDING|scoring||Dependency", "23_1|PENDING|scoring||Dependency",
    )  # fmt: skip


def append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
