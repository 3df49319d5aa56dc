"""What SLURM says of jobs, and what it is told to do with them. One call for all jobs of a question."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import InputError, RunError
from sweeps.environment import clean
from sweeps.slurm import waiting

# A controller that is down is tried by SLURM's commands for about this long before they say so.
TIMEOUT_SECONDS = 60.0
# For what a command can do without.
SHORT_TIMEOUT_SECONDS = 6.0

# These may complain and succeed: what they say then is not all that there is. What orders say besides is advice.
QUESTIONS = ("squeue", "sacct")

# In SLURM's messages where nobody refused anything: what was asked for may have been done all the same.
NO_ANSWER = (
    "Unable to contact slurm controller", "Socket timed out", "Zero Bytes were transmitted", "Connection refused",
    "Connection reset", "Connection timed out", "Transport endpoint", "communication connection failure",
    "temporarily unable to accept job", "Resource temporarily unavailable", "Message send failure",
    "Message receive failure", "Slurm backup controller in standby mode",
)  # fmt: skip
# After such a message the job may be there late.
LOOK_AGAIN_SECONDS = (2.0, 4.0, 8.0)

# In sbatch's message where fewer tasks may be accepted; one that names another limit is a refusal.
TOO_MANY = re.compile(r"\w*Submit\w*Limit|job submit limit|Invalid job array specification", re.IGNORECASE)
OTHER_LIMIT = re.compile(r"\b(?:Assoc|QOS)(?!\w*Submit)\w+Limit")
# SLURM's default MaxArraySize is 1001.
SAFE_ARRAY = 1000

# How long squeue remembers a job that ended depends on the cluster (MinJobAge, five minutes by default).
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
    "REVOKED",
}  # fmt: skip
# It does not start before somebody releases it.
HELD = {"REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
HELD_REASONS = ("JobHeld", "launch failed requeued held", "job requeued in held state")
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

    @property
    def is_held(self) -> bool:
        return self.state in HELD or (self.state == "PENDING" and self.reason.startswith(HELD_REASONS))


class NoAnswer(RunError):
    """SLURM does not answer: what was asked of it may have been done, or not."""


class NotAllowed(RunError):
    """SLURM does not let this user do that: the jobs are another's."""


class TooMany(RunError):
    """SLURM does not accept so many jobs now; fewer it may."""


def require(command: str) -> None:
    """Refuse where SLURM's commands are not there.

    Raises:
        InputError: they are not on the PATH.
    """
    if shutil.which(command) is None:
        raise InputError(f"{command}: not found on the PATH; run this where SLURM's commands are (a login node)")


def queued_jobs(users: Iterable[int] = (), *, timeout_s: float | None = None) -> dict[str, Job]:
    """All jobs of this user, and of `users`, that squeue knows and that have not ended: by id, array tasks one by one.

    Raises:
        InputError: no squeue here.
        RunError: SLURM does not answer.
    """
    # By number: squeue says nothing and succeeds where a name is not known, and LOGNAME may be anybody's.
    numbers = ",".join(str(uid) for uid in sorted({os.getuid(), *users}))
    jobs = _queue("--array", f"--user={numbers}", timeout_s=timeout_s)
    return {job.id: job for job in jobs if not job.has_ended}


def _queue(*options: str, timeout_s: float | None = None) -> list[Job]:
    require("squeue")
    output = _ask(["squeue", "--noheader", *options, "--format=%i|%T|%j|%N|%r"], timeout_s)
    return [Job(*line.split("|", 4)) for line in output.splitlines() if line.count("|") >= 4]


def accounted_jobs(ids: Iterable[str], timeout_s: float | None = None) -> dict[str, Job] | None:
    """The last state of jobs by id, whoever's, from accounting; None where there is no accounting to ask."""
    arrays = sorted({job_id.partition("_")[0] for job_id in ids})
    if not arrays:
        return {}
    if shutil.which("sacct") is None:
        return None
    try:
        return {job.id: job for job in _accounting("-j", ",".join(arrays), timeout_s=timeout_s)}
    except RunError:
        return None


def _accounting(*options: str, timeout_s: float | None = None) -> Iterator[Job]:
    command = ["sacct", "-X", "--noheader", "--parsable2", "--format=JobID,State,JobName,NodeList", *options]
    for line in _ask(command, timeout_s).splitlines():
        job_id, state, name, node = (line.split("|") + [""] * 4)[:4]
        state = (state.split() or ["UNKNOWN"])[0]  # "CANCELLED by 0"
        for single in _single_ids(job_id):
            yield Job(single, state, name, "" if node == "None assigned" else node)


def _single_ids(job_id: str) -> Iterator[str]:
    """`22_3` as it is; tasks that accounting still shows together, `22_[4-11,15,20-30:2%4]`, one by one."""
    part = r"\d+(?:-\d+(?::[1-9]\d*)?)?"
    array = re.fullmatch(rf"(\d+)_\[({part}(?:,{part})*)(?:%\d+)?\]", job_id)
    if array is None:
        yield from [] if "[" in job_id else [job_id]
        return
    for part in array[2].split(","):
        bounds, _, step = part.partition(":")
        first, _, last = bounds.partition("-")
        for index in range(int(first), int(last or first) + 1, int(step or 1)):
            yield f"{array[1]}_{index}"


def largest_array() -> int:
    """How many tasks SLURM lets an array have; a number that is safe nearly everywhere if it does not say."""
    try:
        config = _ask(["scontrol", "show", "config"], SHORT_TIMEOUT_SECONDS)
    except RunError:
        return SAFE_ARRAY
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    tasks = re.search(r"\bmax_array_tasks=(\d+)", config)
    return max(1, min(int(limit[1]) for limit in (size, tasks) if limit)) if size else SAFE_ARRAY


def submit(script: Path, name: str, newer_than: int = 0) -> str:
    """Hand a batch script to sbatch; returns the id of its job or array, the one of this name `newer_than` an id.

    sbatch may fail, or be silent, although its job is in: then it is looked for by its name, and taken for submitted.

    Raises:
        TooMany: SLURM does not accept so many now.
        InputError: SLURM refuses it, in its own words.
        NoAnswer: the job may be there, or come to be there.
    """
    require("sbatch")
    try:
        said = _ask(["sbatch", str(script)])
        if answer := re.search(r"\bjob (\d+)", said):
            return answer[1]
        problem = RunError(f"sbatch: {shortened(said) or 'no word of a job'}")
    except RunError as error:
        problem = error
    is_unknown = isinstance(problem, NoAnswer)
    for seconds in (0.0, *(LOOK_AGAIN_SECONDS if is_unknown else ())):
        if seconds:
            waiting.pause(seconds, f"SLURM to say whether {name} is there ({problem})")
        try:
            # SLURM may hold what it refused as a job that failed.
            if found := job_named(name, newer_than, also_ended=is_unknown):
                return found
        except (InputError, RunError):
            continue
    if is_unknown:
        raise problem
    said = str(problem).removeprefix("sbatch: ")
    raise TooMany(said) if TOO_MANY.search(said) and not OTHER_LIMIT.search(said) else InputError(said)


def job_named(name: str, newer_than: int = 0, also_ended: bool = True) -> str | None:
    """The id of the newest job or array of a name, running, waiting or ended, if it is higher than another.

    Raises:
        InputError: no squeue here.
        RunError: SLURM does not answer.
    """
    jobs = _queue("--states=all", f"--name={name}")
    if not also_ended:
        jobs = [job for job in jobs if not job.has_ended]
    elif not jobs and shutil.which("sacct"):  # squeue forgets jobs that ended
        try:
            jobs = list(_accounting("--starttime=now-1days", f"--name={name}", timeout_s=SHORT_TIMEOUT_SECONDS))
        except RunError:
            jobs = []
    ids = (int(job.id.partition("_")[0]) for job in jobs if job.name == name)
    newest = max(ids, default=0)
    return str(newest) if newest > newer_than else None


def cancel(ids: list[str]) -> None:
    """Cancel jobs; one that has ended already is no error.

    Raises:
        NotAllowed: one is another user's.
        RunError: SLURM does not answer.
    """
    if ids:
        require("scancel")
        _ask(["scancel", *ids])


def requeue(job_id: str, timeout_s: float | None = None) -> None:
    """Put a running job back into the queue, from its own batch script.

    Raises:
        RunError: SLURM refuses.
    """
    _ask(["scontrol", "requeue", job_id], timeout_s)


def _ask(command: list[str], timeout_s: float | None = None) -> str:
    # Else SLURM cuts a list of array tasks off after 64 characters.
    environment = {**clean(os.environ), "SLURM_BITSTR_LEN": "0"}
    timeout_s = TIMEOUT_SECONDS if timeout_s is None else timeout_s
    try:
        done = waiting.run(command, environment, timeout_s)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]}: no answer from SLURM's controller within {timeout_s:.0f} s") from None
    except OSError as error:
        raise RunError(f"{command[0]}: cannot be started ({error.strerror})") from None
    if done.returncode or (done.stderr.strip() and command[0] in QUESTIONS):
        said = shortened(done.stderr) or f"exit status {done.returncode}"
        kinds = {NoAnswer: NO_ANSWER, NotAllowed: ("permission denied",)}
        kind = next((kind for kind, words in kinds.items() if any(word in said for word in words)), RunError)
        raise kind(f"{command[0]}: {said}")
    return done.stdout


def shortened(message: str) -> str:
    """SLURM's own words in one line, without the names of its commands."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    for prefix in ("error: ", "fatal: "):
        lines = [line.split(prefix, 1)[-1] for line in lines]
    return "; ".join(dict.fromkeys(line.rstrip(".") for line in lines))
