"""What runs say of themselves, as lines for a person, while their jobs go on; and the logs of the jobs."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.errors import InputError, RunError
from bench.files.run_files import RunFiles
from bench.files.run_folder import PHASES, is_finished, is_locked, lock_path, phase_file
from sweeps.slurm import client
from sweeps.watch.pace import SHORTEST_SECONDS, Pace
from sweeps.watch.study import Look

ASK_SECONDS = SHORTEST_SECONDS
END_BYTES = 65536

# A line as `bench.files.run_folder` has it logged.
STAMP = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ([A-Z]+) ")
# What submitit says of its own doings, and the rows of metrics as earlier versions printed them.
CHATTER = re.compile(r"submitit [A-Z]+ \(|\{'step': ")


@dataclass(frozen=True)
class JobLog:
    """A job's log; `slurm_job` is its id, None outside of SLURM."""

    path: Path
    slurm_job: str | None


def newest_log(look: Look, run: RunFiles) -> JobLog | None:
    """The log of the job that started the run last, or died before it could; else the run's own; None before that."""
    found: dict[str, tuple[float, JobLog]] = {}
    for kind, start in run.newest.items():
        if "log" in start:
            log = JobLog(look.study / start["log"], start["job"] if "attempt" in start else None)
            found[start["job"]] = run.newest_s(kind), log
    for job in look.jobs.get(run.folder.name, {}).values():
        path = log_of(look.study, job.job.id)
        if path and job.job.id not in found:
            found[job.job.id] = path.stat().st_mtime, JobLog(path, job.job.id)
    there = [(time_s, log) for time_s, log in found.values() if log.path.exists()]
    if there:
        return max(there, key=lambda pair: pair[0])[1]
    own = [path for phase in PHASES if (path := phase_file(run.folder, "log.txt", phase)).exists()]
    return JobLog(max(own, key=lambda path: path.stat().st_mtime), None) if own else None


def log_of(study: Path, job_id: str) -> Path | None:
    """Where submitit puts the log of a SLURM job, if it is there; ranks share it."""
    return next(study.glob(f"submissions/*/jobs/{job_id}_0_log.out"), None) if job_id else None


def end_of(path: Path) -> list[str]:
    """The last lines of a job's log, of 64 KiB at most, less what submitit says."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - END_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    whole = lines[1:] if size > END_BYTES else lines
    return [line for line in whole if not CHATTER.match(line)]


class Line(NamedTuple):
    """`time`: when it was written, as text that sorts; of a line without, that of the line before it."""

    time: str
    text: str


class RunLines:
    """The lines of one run, as they are written: of its own log, or, until it has one, its own of its job's log."""

    def __init__(self, look: Look, run: RunFiles, at_most_bytes: int | None = None) -> None:
        """`at_most_bytes`: of each file's end, to begin with."""
        self._own = [_Growing(phase_file(run.folder, "log.txt", phase), at_most_bytes) for phase in PHASES]
        job = newest_log(look, run)
        self._job = (
            _Growing(job.path, at_most_bytes) if job and job.path not in [log.path for log in self._own] else None
        )
        self._name = run.folder.name
        self._names = re.compile("|".join(map(re.escape, look.files)))
        self._current = self._name  # what a job says before its first run is for all of them

    @property
    def paths(self) -> list[Path]:
        """The files that the lines are in, and the job's log."""
        return [log.path for log in (*self._own, self._job) if log and log.path.exists()]

    def new(self, to_end: bool = False) -> list[Line]:
        """The lines that were added since the last call, by time; `to_end`: also one that is not whole yet."""
        own = [line for log in self._own for line in log.new(to_end)]
        if own or any(log.path.exists() for log in self._own):
            lines = sorted(own, key=lambda line: line.time)
        else:
            lines = [line for line in self._job.new(to_end) if self._is_own(line.text)] if self._job else []
        # Earlier versions began each row with the run's folder.
        return [Line(line.time, line.text.replace(f"{self._name} step", "step", 1)) for line in lines]

    def _is_own(self, text: str) -> bool:
        """Whether a line of a job's log is about the run: the newest run that was named is at work."""
        if CHATTER.match(text):
            return False
        if named := self._names.findall(text):
            self._current = named[-1]
        return self._current == self._name


class _Growing:
    """A file of lines that is being written."""

    def __init__(self, path: Path, at_most_bytes: int | None) -> None:
        self.path, self._at_most = path, at_most_bytes
        self._read = 0
        self._time = ""

    def new(self, to_end: bool) -> list[Line]:
        """The lines that were added since the last call; `to_end`: also one that is not whole yet."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                cut = self._read == 0 and self._at_most is not None and size > self._at_most
                file.seek(size - self._at_most if cut and self._at_most else min(self._read, size))
                content = file.read()
                self._read = file.tell()
        except FileNotFoundError:
            return []
        whole = len(content) if to_end else content.rfind(b"\n") + 1
        self._read -= len(content) - whole
        lines = content[:whole].decode("utf-8", errors="replace").removesuffix("\n").split("\n")[1 if cut else 0 :]
        return [self._line(text) for text in lines] if whole else []

    def _line(self, text: str) -> Line:
        """Without milliseconds, and the level where all is well."""
        if found := STAMP.match(text):
            self._time = found[1]
            level = "" if found[2] == "INFO" else f"{found[2]} "
            text = f"{found[1].partition(',')[0]} {level}{text[found.end() :]}"
        return Line(self._time, text)


class JobGoesOn:
    """Whether a log's job is still there. SLURM is asked now and then; where it does not answer, the job goes on."""

    def __init__(self, log: JobLog, folder: Path, users: Collection[int] = ()) -> None:
        self._job, self._folder, self._users = log.slurm_job, folder, users
        self._pace = Pace(ASK_SECONDS)

    def __call__(self) -> bool:
        if self._job is None:
            return any(is_locked(lock_path(self._folder, phase)) for phase in PHASES)
        if not self._pace.is_due:
            return True
        try:
            job = client.queued_jobs(self._users, timeout_s=client.SHORT_TIMEOUT_SECONDS).get(self._job)
        except (InputError, RunError) as error:
            self._pace.answered(str(error))
            return not is_finished(self._folder)
        self._pace.answered(job)
        return job is not None
