"""The log of a run's newest job: which file it is, its end, and following it while the job goes on."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.errors import InputError, RunError
from bench.files.run_files import RunFiles
from bench.files.run_folder import PHASES, is_finished, is_locked, lock_path, phase_file
from sweeps.slurm import client
from sweeps.watch.pace import SHORTEST_SECONDS, Pace
from sweeps.watch.study import Look

POLL_SECONDS = 0.5
ASK_SECONDS = SHORTEST_SECONDS
END_BYTES = 65536


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
    """The last lines of a log, of 64 KiB at most."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - END_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return lines[1:] if size > END_BYTES else lines


def copy(path: Path, out: IO[bytes], goes_on: Callable[[], bool] = lambda: False) -> None:
    """Write a log out, and what is added to it for as long as `goes_on()`."""
    with path.open("rb") as file:
        while True:
            is_last = not goes_on()  # asked first: what its job wrote until its end is there then
            shutil.copyfileobj(file, out)
            out.flush()
            if is_last:
                return
            time.sleep(POLL_SECONDS)


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
