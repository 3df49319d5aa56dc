"""Why a run is in its state: what SLURM says, what failed last, and the lines of the log around it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.errors import InputError, RunError
from bench.files.lost_time import lost_time
from bench.files.names import visible
from bench.files.run_files import RunFiles, seconds
from bench.files.run_folder import PHASES, failed_attempts
from sweeps.slurm import client
from sweeps.slurm.submissions import Kind, not_requeued, submission_folder, submitters
from sweeps.watch.jobs import QUEUED
from sweeps.watch.logs import end_of, log_of, newest_log
from sweeps.watch.status import RunStatus
from sweeps.watch.study import Look

SUBMIT_AGAIN = "the same `ditbench sweep submit`"
LOG_LINES = 12
TRACEBACK_LINES = 60

# SLURM's words for why a job waits, by how they begin, the longer ones first.
REASONS = {
    "Resources": "no free resources of the kind it asks for; it is among the next",
    "Priority": "jobs of higher priority come first",
    "DependencyNeverSatisfied": "the job it waits for did not succeed; it will never start",
    "Dependency": "it waits for another job: scoring for training, or for scoring of an earlier checkpoint",
    "JobArrayTaskLimit": "as many tasks of its array are running as the profile's max_parallel allows",
    "BeginTime": "it was put back into the queue, and SLURM lets it start after a moment",
    "Cleaning": "what is left of its last start is being cleaned up",
    "JobHeldUser": "it is held: `scontrol release` it",
    "JobHeldAdmin": "an administrator, or SLURM itself, holds it; `scontrol release` may be refused",
    "launch failed requeued held": "it could not be launched on its node and is held: `scontrol release` it",
    "job requeued in held state": "it was put back and is held: `scontrol release` it",
    "ReqNodeNotAvail": "nodes it needs are down, drained or reserved",
    "Reservation": "it waits for its reservation",
    "QOSMax": "it would go beyond what its QOS allows one user or one job",
    "QOSGrp": "its QOS is used up by all its jobs together",
    "QOS": "its QOS does not allow it now",
    "AssocGrp": "its account is at its limit",
    "AssocMax": "it would go beyond what its account allows one user or one job",
    "Assoc": "its account does not allow it now",
    "PartitionTimeLimit": "its time limit is more than the partition's: mend it in the profile and submit again",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows a job",
    "PartitionDown": "its partition does not start jobs now",
    "PartitionInactive": "its partition does not take jobs now",
    "MaxGRESPerAccount": "its account has as many GPUs as it may",
    "Licenses": "it waits for a licence",
    "BadConstraints": "no node can ever give what it asks for",
    "InvalidAccount": "its account is not valid any more",
    "InvalidQOS": "its QOS is not valid any more",
    "NodeDown": "its node is down",
    "None": "SLURM has not looked at it yet",
}

# How jobs end without being done.
ENDS = {
    "CANCELLED": "cancelled: by `sweep cancel`, scancel or an administrator, or because the job it waited for was lost",
    "TIMEOUT": "its time limit ran out, and it was not put back into the queue",
    "PREEMPTED": "another job took its place, and it was not put back into the queue",
    "NODE_FAIL": "its node failed, and it was not put back into the queue",
    "OUT_OF_MEMORY": "it used more memory than it had asked for (mem_gb in the profile)",
    "FAILED": "it failed; the log says more",
    "BOOT_FAIL": "its node did not start",
    "DEADLINE": "its deadline passed",
    "REVOKED": "another cluster of the federation took it",
    "COMPLETED": "it ended as if all were done, but its run is not",
}
NEVER_STARTED = "it never started, so it was cancelled while it was queued, most likely"


def explain(look: Look, files: RunFiles) -> Iterator[str]:
    """Lines that say it all; if all is well, one says so."""
    run = look.status_of(files)
    where = f" on {run.node}" if run.node and run.state in ("running", "scoring") else ""
    job = f", job {run.job}{where}" if run.job else ""
    yield f"{visible(run.label)}: {run.shown_state}, step {run.step}/{run.steps}{job}"
    yield from _reasons(look, run, files)
    allowed = look.records[-1].profile.max_failures if look.records else 1
    failures: list[tuple[Kind, dict[str, Any]]] = []
    if run.state != "finished":
        for kind in PHASES:
            attempts = failed_attempts(run.folder, kind)
            if attempts:
                failures.append((kind, attempts[-1]))
                failed = sum("lost_s" not in row for row in attempts)  # the others: see `_lost_time`
                yield f"{kind}: {failed} of {allowed} allowed attempts failed"
            yield from _lost_time(run.folder, kind)
    if failures:
        kind, row = max(failures, key=lambda pair: str(pair[1].get("time")))
        yield from _failure(look.study, files, kind, row)
    elif run.state in ("running", "scoring", "finished"):
        yield "all is well: no attempt failed" if run.state != "finished" else "all is well: trained and scored"
    elif run.state in ("stopped", "unknown"):
        log = newest_log(look, files)
        yield from _quoted(log.path, end_of(log.path)[-LOG_LINES:]) if log else ["it left no log"]
    yield from look.notes


def _lost_time(folder: Path, kind: Kind) -> Iterator[str]:
    """What the newest starts lost, if they were stopped before they were of use."""
    account = lost_time(folder, kind)
    if account.starts:
        lost, useful = (timedelta(seconds=round(value)) for value in (account.lost_s, account.useful_s))
        yield (
            f"{kind}: stopped by SLURM {account.starts} times in a row, of little use: {lost} lost, {useful} "
            "useful; it is given up once that is the time of max_failures whole starts"
        )


def _reasons(look: Look, run: RunStatus, files: RunFiles) -> Iterator[str]:
    """What the state means, and what to do about it."""
    if run.state == "queued":
        yield from _why_queued(look, run)
    elif run.state == "stopped" and not look.records:
        yield f"no job of this machine is at it any more; {SUBMIT_AGAIN} continues it"
    elif run.state in ("stopped", "trained") and (row := _not_requeued(look, files)):
        job = row["attempt"].rpartition(".")[0]
        yield f"its job {job} ended with work left, and SLURM did not put it back into the queue: {row['reason']}"
        yield f"{SUBMIT_AGAIN} continues it"
    elif run.state == "stopped":
        meaning = ENDS.get(run.job_state or "", "SLURM has no word of how" if files.first else NEVER_STARTED)
        yield f"its job ended without finishing it: {meaning}; {SUBMIT_AGAIN} continues it"
    elif run.state == "trained":
        job = look.jobs.get(run.folder.name, {}).get("scoring")
        if job:
            yield f"its scoring job {job.job.id} ended: {ENDS.get(job.job.state, job.job.state or 'nothing says how')}"
        yield f"no job is there to score it; {SUBMIT_AGAIN} does that"
    elif run.state == "waiting" and look.is_live and not look.records:
        yield "the jobs of this machine come to it when they are done with others"
    elif run.state == "waiting":
        yield f"no job was submitted for it; {SUBMIT_AGAIN} does that"
    elif run.state == "failed":
        yield f"given up; {SUBMIT_AGAIN} tries it again"
    elif run.state == "unknown" and run.job_state:
        yield f"SLURM calls its job {run.job_state}, a state that ditbench does not know"


def _not_requeued(look: Look, files: RunFiles) -> dict[str, Any] | None:
    """What the last job of a run noted when SLURM did not requeue it."""
    rows = (not_requeued(submission_folder(look.study, one.number), files.folder.name) for one in look.records)
    newest = max((row for row in rows if row), key=lambda row: seconds(row["time"]) or 0, default=None)
    last_start = max(files.newest_s(kind) for kind in PHASES)
    return newest if newest and (seconds(newest["time"]) or 0) >= last_start else None


def _why_queued(look: Look, run: RunStatus) -> Iterator[str]:
    job = look.jobs[run.folder.name][run.job_kind or "training"].job
    if job.state not in QUEUED:
        yield f"its job {job.id} is running: it does its runs one after the other, and this one's turn is to come"
        return
    try:
        # The queue has told it already where accounting could not answer.
        reason = job.reason
        if not reason:
            queue = client.queued_jobs(submitters(look.records), timeout_s=client.SHORT_TIMEOUT_SECONDS)
            reason = queue.get(job.id, job).reason
    except (InputError, RunError) as error:
        yield f"SLURM does not say why ({error})"
        return
    meaning = next((f": {text}" for begin, text in REASONS.items() if reason.startswith(begin)), "")
    yield f"SLURM's reason: {reason or 'none given'}{meaning}"


def _failure(study: Path, files: RunFiles, kind: Kind, row: dict[str, Any]) -> Iterator[str]:
    """When and where the last attempt failed, its error, and the log around it."""
    attempt = str(row.get("attempt", ""))
    facts = [
        str(row.get("time", "")),
        f"job {row['job']}, attempt {attempt}" if "job" in row else f"attempt {attempt}",
        f"node {row['node']}" if row.get("node") else "",
        f"rank {row['rank']}{' on ' + row['host'] if 'host' in row else ''}" if "rank" in row else "",
    ]
    yield f"last failure, in {kind} ({', '.join(fact for fact in facts if fact)}):"
    error = str(row["error"])
    yield f"  {error}"
    path = study / row["log"] if "log" in row else log_of(study, attempt.rpartition(".")[0])
    if path and path.exists():
        yield from _quoted(path, _around(end_of(path), error))
    elif "traceback" in row:
        yield from (f"  | {line}" for line in str(row["traceback"]).splitlines())


def _around(lines: list[str], error: str) -> list[str]:
    """The lines before the last mention of an error, with the traceback that led to it."""
    text = error.splitlines()[0] if error else ""
    last = next((i for i in range(len(lines) - 1, -1, -1) if text and text in lines[i]), len(lines) - 1)
    first = max(0, last - LOG_LINES)
    tracebacks = [i for i in range(max(0, last - TRACEBACK_LINES), last) if "Traceback (most recent call" in lines[i]]
    return lines[min(first, *tracebacks[-1:]) if tracebacks else first : last + 1]


def _quoted(path: Path, lines: list[str]) -> Iterator[str]:
    yield f"{path}:"
    yield from (f"  | {line}" for line in lines)
