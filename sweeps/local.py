"""Runs of a sweep as jobs of this machine, through submitit's local executor.

As many jobs as cores, one thread each. All jobs hold the same list of runs, the longest first, and take from it what
is neither finished nor taken: that balances them, and two of them, or two submissions, never train a run twice. A
job that outlives a killed launcher goes on; the same command then finds it by the lock that it holds.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.device import PLAIN, Modes, Precision
from bench.errors import InputError, RunError
from bench.files.names import write_any_text
from bench.files.run_folder import (
    RunLocked,
    clear_error,
    is_finished,
    is_locked,
    log_to_stdout,
    read_error,
    try_lock,
    write_config,
)
from bench.stopping import Stopped, StopRequest
from sweeps.environment import THREAD_VARIABLES, cleaned
from sweeps.expand import Sweep, run_folders
from sweeps.groups import local_slots, work
from sweeps.watch.status import RunStatus, run_status

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# submitit ends local jobs after a time limit; here only the work ends them.
NO_TIME_LIMIT_MINUTES = 60 * 24 * 365


def submit(
    sweep: Sweep,
    runs: Path,
    device: str,
    precision: Precision,
    on_poll: Callable[[list[RunStatus]], None],
    trackers: tuple[str, ...] = (),
    modes: Modes = PLAIN,
) -> list[RunStatus]:
    """Run what is left of a sweep on this machine and wait for it; return the final state of every run.

    Finished runs are left alone, failed ones are tried again, once. `on_poll` is told the state every half second.

    Raises:
        InputError: the folder cannot be written, or holds other recipes.
        RunError: a job died without a reason of its own (killed, out of memory), and again when started anew; or
            jobs were stopped on request.
        KeyboardInterrupt: passed on, after the jobs were told to stop; nothing that was saved is lost.
    """
    folders = run_folders(sweep, runs)
    study = (runs / sweep.name).resolve()
    if tags := [tag for tag in ("%j", "%t", "%A", "%a") if tag in str(study)]:
        raise InputError(f"{study}: submitit puts a job's id in place of {tags[0]}; give another folder with --runs")
    for recipe in sweep.recipes:
        write_config(recipe, folders[recipe.id], sweep.axes.get(recipe.id))
        clear_error(folders[recipe.id])
    queue = [folders[recipe.id].resolve() for recipe in sorted(sweep.recipes, key=work, reverse=True)]

    def state() -> list[RunStatus]:
        return [run_status(recipe, folders[recipe.id]) for recipe in sweep.recipes]

    progress_before = None
    while _unfinished(current := state()):
        progress = [(status.step, status.scores) for status in current]
        if progress == progress_before:
            raise RunError(f"the jobs ended without progress; the reason is in their logs: {study / 'jobs'}")
        jobs = _start_jobs(queue, study, device, precision, modes, trackers)
        progress_before = progress if jobs else None  # all slots are held by jobs of another submission
        try:
            while any(not job.done() for job in jobs) or live_slots(study):
                on_poll(state())
                if not _unfinished(state()):
                    break
                time.sleep(POLL_SECONDS)
            if any(_was_stopped(job) for job in jobs):
                raise RunError("cancelled; what was saved stays, and the same command continues")
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
    final = state()
    on_poll(final)
    return final


def _unfinished(statuses: list[RunStatus]) -> bool:
    return any(status.state not in ("finished", "failed") for status in statuses)


def _start_jobs(
    queue: list[Path], study: Path, device: str, precision: Precision, modes: Modes, trackers: tuple[str, ...]
) -> list[Any]:
    """One submitit job for every slot that no live job holds; fewer if fewer runs are left."""
    import submitit

    slots = range(local_slots(device))
    free = [slot for slot in slots if not is_locked(_slot_path(study, slot))]
    left = sum(not is_finished(folder) for folder in queue)
    executor = submitit.LocalExecutor(folder=study / "jobs")
    executor.update_parameters(timeout_min=NO_TIME_LIMIT_MINUTES, gpus_per_node=1 if device == "cuda" else 0)
    with _jobs_environment(), _stderr_to(study / "jobs" / "controllers.log"):
        return [
            executor.submit(work_through, queue, study, slot, device, precision, modes, trackers)
            for slot in free[: max(0, left - (len(slots) - len(free)))]
        ]


@contextmanager
def _jobs_environment() -> Iterator[None]:
    """Processes started meanwhile compute on one thread, and are of no other job.

    Nor do they look for modules in the working folder, whose `models` or `analysis` would stand for ours.
    """
    with cleaned():
        os.environ.update(dict.fromkeys((*THREAD_VARIABLES, "PYTHONSAFEPATH"), "1"))
        yield


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Processes started meanwhile write errors to a file: an interrupted submitit controller prints a traceback."""
    terminal = os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def work_through(
    queue: list[Path],
    study: Path,
    slot: int,
    device: str,
    precision: Precision,
    modes: Modes,
    trackers: tuple[str, ...],
) -> bool:
    """A job: take runs from the queue until none is left. Runs that fail leave their reason and are passed by.

    SIGTERM stops it, with all work saved; it then returns True.
    """
    import submitit

    from bench.parallel import Execution
    from bench.run import run

    write_any_text()
    log_to_stdout()
    job = submitit.JobEnvironment()
    session = {"cluster": "local", "job": job.job_id, "log": str(job.paths.stdout.relative_to(study))}

    stop = StopRequest().on(signal.SIGTERM)
    with _slot_path(study, slot).open("a") as lock:
        if not try_lock(lock):
            log.warning("slot %d is held by another job; nothing to do here", slot)
            return False
        lock.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, lock)
        lock.flush()
        for folder in queue:
            if is_finished(folder) or read_error(folder):
                continue
            log.info("%s: training and scoring", folder.name)
            try:
                execution = Execution(device, precision, stop=stop, session=session, trackers=trackers, modes=modes)
                run(folder, study, execution)
            except Stopped:
                return True
            except RunLocked:
                continue
            except (InputError, RunError) as error:
                log.error("%s; going on with the next run", error)
            except Exception:
                log.exception("%s failed; going on with the next run", folder)
    return False


def _slot_path(study: Path, slot: int) -> Path:
    return study / "jobs" / f".slot-{slot}"


def live_slots(study: Path) -> list[Path]:
    """The slots of this study's live jobs, whoever started them: files with the job's host and process id."""
    return [path for path in (study / "jobs").glob(".slot-*") if is_locked(path)]


def _was_stopped(job: Any) -> bool:
    """Whether a job that has ended did so on request."""
    return job.paths.result_pickle.exists() and job.exception() is None and job.result() is True
