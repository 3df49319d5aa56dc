"""What SLURM says of jobs, and what it is told to do with them. One call for all jobs of a question."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.errors import InputError, RunError
from sweeps.environment import clean

# A controller that is down is tried by SLURM's commands for about this long before they say so.
TIMEOUT_SECONDS = 100

# These may complain and succeed: what they say then is not all that there is. What orders say besides is advice.
QUESTIONS = ("squeue", "sacct")

# In sbatch's message where nobody refused anything.
NO_ANSWER = ("Unable to contact slurm controller", "Socket timed out", "Zero Bytes were transmitted")

# How long squeue remembers a job that ended depends on the cluster (MinJobAge, five minutes by default).
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
    "REVOKED",
}  # fmt: skip
# States in which accounting shows a job for a moment while it is being requeued.
MAYBE_REQUEUED = {"NODE_FAIL", "PREEMPTED", "REQUEUED"}


@dataclass(frozen=True)
class Job:
    """One job, or one task of an array. `name` is empty where SLURM was not asked for it."""

    id: str
    state: str
    name: str = ""
    node: str = ""
    reason: str = ""

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


def require(command: str) -> None:
    """Refuse where SLURM's commands are not there.

    Raises:
        InputError: they are not on the PATH.
    """
    if shutil.which(command) is None:
        raise InputError(f"{command}: not found on the PATH; run this where SLURM's commands are (a login node)")


def queued_jobs(users: Iterable[int] = ()) -> dict[str, Job]:
    """All jobs of this user, and of `users`, that squeue knows and that have not ended: by id, array tasks one by one.

    Raises:
        InputError: no squeue here.
        RunError: SLURM does not answer.
    """
    require("squeue")
    # By number: squeue says nothing and succeeds where a name is not known, and LOGNAME may be anybody's.
    numbers = ",".join(str(uid) for uid in sorted({os.getuid(), *users}))
    output = _ask(["squeue", "--noheader", "--array", f"--user={numbers}", "--format=%i|%T|%j|%N|%r"])
    jobs = (Job(*line.split("|", 4)) for line in output.splitlines() if line.count("|") >= 4)
    return {job.id: job for job in jobs if not job.has_ended}


def accounted_jobs(ids: Iterable[str]) -> dict[str, Job] | None:
    """The last state of jobs by id, whoever's, from accounting; None where there is no accounting to ask."""
    arrays = sorted({job_id.partition("_")[0] for job_id in ids})
    if not arrays:
        return {}
    if shutil.which("sacct") is None:
        return None
    command = ["sacct", "-X", "--noheader", "--parsable2", "--format=JobID,State,JobName,NodeList", "-j"]
    try:
        output = _ask([*command, ",".join(arrays)])
    except RunError:
        return None
    jobs: dict[str, Job] = {}
    for line in output.splitlines():
        job_id, state, name, node = (line.split("|") + [""] * 4)[:4]
        state = (state.split() or ["UNKNOWN"])[0]  # "CANCELLED by 0"
        for single in _single_ids(job_id):
            jobs[single] = Job(single, state, name, "" if node == "None assigned" else node)
    return jobs


def _single_ids(job_id: str) -> Iterator[str]:
    """`22_3` as it is; tasks that accounting still shows together, `22_[4-11,15,20-30:2%4]`, one by one."""
    array = re.fullmatch(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", job_id)
    if array is None:
        yield from [] if "[" in job_id else [job_id]
        return
    for part in array[2].split(","):
        bounds, _, step = part.partition(":")
        first, _, last = bounds.partition("-")
        for index in range(int(first), int(last or first) + 1, int(step or 1)):
            yield f"{array[1]}_{index}"


def cancel(ids: list[str]) -> None:
    """Cancel jobs; one that has ended already is no error.

    Raises:
        RunError: SLURM does not answer.
    """
    if ids:
        require("scancel")
        _ask(["scancel", *ids])


def requeue(job_id: str) -> None:
    """Put a running job back into the queue, from its own batch script.

    Raises:
        RunError: SLURM refuses.
    """
    _ask(["scontrol", "requeue", job_id])


def _ask(command: list[str]) -> str:
    # Else SLURM cuts a list of array tasks off after 64 characters.
    environment = {**clean(os.environ), "SLURM_BITSTR_LEN": "0"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # names of other jobs may be anything
            timeout=TIMEOUT_SECONDS,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{command[0]}: no answer from SLURM's controller within {TIMEOUT_SECONDS} s") from None
    if done.returncode or (done.stderr.strip() and command[0] in QUESTIONS):
        raise RunError(f"{command[0]}: {shortened(done.stderr) or f'exit status {done.returncode}'}")
    return done.stdout


def shortened(message: str) -> str:
    """SLURM's own words in one line, without the names of its commands."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    for prefix in ("error: ", "fatal: "):
        lines = [line.split(prefix, 1)[-1] for line in lines]
    return "; ".join(dict.fromkeys(line.rstrip(".") for line in lines))
