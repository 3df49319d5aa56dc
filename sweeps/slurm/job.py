"""What a SLURM job does: its runs, one after the other, by all its ranks together; and how it ends.

Exit status: 0 when nothing is left for it to do, `STOPPED` after it saved its work because SLURM asked (preemption,
time limit), 1 when an attempt failed and others are left. `sweeps.slurm.after` acts on it, in the job's batch script;
of a job that is cancelled, SLURM ends that script too, and nothing is requeued.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.device import Modes, Precision
from bench.errors import InputError, RunError
from bench.files import jsonl
from bench.files.names import write_any_text
from bench.files.run_folder import (
    is_finished,
    is_trained,
    log_to_stdout,
    phase_file,
    progress,
    read_config,
    read_error,
)
from bench.stopping import STOPPED, Stopped, StopRequest
from sweeps.slurm import last_words
from sweeps.slurm.submissions import Kind, cancelled_runs

if TYPE_CHECKING:
    from bench.parallel import Execution, Ranks

log = logging.getLogger(__name__)

# What SLURM is asked to send before the end of a job; submitit's default as well.
STOP_SIGNAL = signal.SIGUSR2

# The process that held a run's lock may outlive its job for a while, on a node that lost its connection.
LOCK_WAIT_SECONDS = 600


@dataclass(frozen=True)
class Task:
    """One job, or one task of an array; submitit pickles it. Paths are absolute.

    `folders` are its run folders, `study` the folder above them, `submission` the folder of its submission.
    """

    kind: Kind
    folders: tuple[Path, ...]
    study: Path
    submission: Path
    device: str
    precision: Precision
    modes: Modes
    cluster: str
    max_failures: int
    trackers: tuple[str, ...]
    inline_scoring: bool
    score_as_ready: bool

    def __call__(self) -> None:
        # First of all: a signal may come while torch is loading.
        stop = StopRequest().on(STOP_SIGNAL, signal.SIGTERM)
        write_any_text()
        log_to_stdout()
        try:
            self._begin(stop)
        except Exception as error:
            self._leave(error)
            raise

    def _begin(self, stop: StopRequest) -> None:
        import submitit

        from bench.parallel import Meeting, Ranks, joined

        job = submitit.JobEnvironment()
        # Never the shell's MASTER_PORT, nor one that is a function of the job: others may hold it.
        meeting = Meeting(
            Ranks(job.global_rank, job.num_tasks, job.local_rank),
            file=self.submission / "ranks" / f"{_attempt()}.json",
            hosts=(_host(), socket.gethostname()),
        )
        with joined(self.device, meeting) as ranks:
            status = self._work(ranks, stop)
            if status:
                sys.stdout.flush()
                os._exit(status)  # at once: a rank whose peer is gone would wait for it on the way out
        for number in (STOP_SIGNAL, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # all is done; Python's exit would let the signal kill it

    def _work(self, ranks: Ranks, stop: StopRequest) -> int:
        """Go through the runs; return the exit status."""
        failed: list[Path] = []
        for folder in self.folders:
            if ranks.from_first(self._is_done(folder)):
                continue
            log.info("%s: %s", folder.name, self.kind)
            try:
                self._do(folder, ranks, stop)
                continue
            except Stopped:
                return STOPPED
            except Exception as error:  # in the run's log and failures.jsonl, if it began
                log.error("%s: %s", folder.name, error)
                self._leave(error)
            failed.append(folder)
            if ranks.world_size > 1:
                break  # peers may be gone: the next attempt goes on, with this run or the next one
        given_up = [folder for folder in self.folders if read_error(folder, self.kind)]
        # Given up altogether, a job has failed, and no scoring job waits for it; else scoring goes on with the others.
        return 1 if set(failed) - set(given_up) or len(given_up) == len(self.folders) else 0

    def _is_done(self, folder: Path) -> bool:
        """Whether nothing is left of a run for this job, or no more attempts."""
        if is_finished(folder) or read_error(folder, self.kind) or folder.name in cancelled_runs(self.submission):
            return True
        trained = is_trained(read_config(folder), folder)
        if self.kind == "scoring":
            return bool(read_error(folder, "training")) and not trained
        return trained and not self.inline_scoring

    def _do(self, folder: Path, ranks: Ranks, stop: StopRequest) -> None:
        from bench.run import run, score, train

        execution = self._execution(folder, ranks, stop)
        if self.kind == "scoring":
            score(folder, self.study, execution)
        elif self.inline_scoring:
            run(folder, self.study, execution)
        else:
            train(folder, execution)

    def _execution(self, folder: Path, ranks: Ranks, stop: StopRequest) -> Execution:
        from bench.parallel import Execution

        def on_weights(step: int) -> None:
            if self.score_as_ready and ranks.is_first:
                self._submit_scoring(folder, step)

        return Execution(
            device=self.device,
            precision=self.precision,
            ranks=ranks,
            stop=stop,
            max_failures=self.max_failures,
            lock_wait_s=LOCK_WAIT_SECONDS,
            session={**self._session(), "progress": progress(folder, self.kind)},
            offline=True,
            trackers=self.trackers,
            on_weights=on_weights,
            modes=self.modes,
        )

    def _session(self) -> dict[str, Any]:
        """What identifies this attempt: recorded with every start and every failure."""
        import submitit

        job = submitit.JobEnvironment()
        return {
            "job": job.job_id,
            "attempt": _attempt(),
            "node": os.environ.get("SLURM_JOB_NODELIST", ""),
            "host": _host(),
            "cluster": self.cluster,
            "log": str(job.paths.stdout.relative_to(self.study)),
        }

    def _leave(self, error: Exception) -> None:
        """Leave this rank's error for the end of the batch script, which also sees deaths without a word."""
        import submitit

        is_expected = isinstance(error, (InputError, RunError))
        text = str(error) if is_expected else f"{type(error).__name__}: {error}"
        parallel = sys.modules.get("bench.parallel")  # not there if the error is a torch that does not load
        is_echo = parallel is not None and parallel.lost_a_peer(error)
        try:
            last_words.leave(self.submission, _attempt(), submitit.JobEnvironment().global_rank, _host(), text, is_echo)
        except RunError as problem:
            log.error("%s", problem)

    def _submit_scoring(self, folder: Path, step: int) -> None:
        """Have the kept step scored by a job of its own, now. Where that is refused, the last scoring job does it."""
        command = [sys.executable, "-m", "sweeps.slurm.score_early", str(self.submission), folder.name, str(step)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            log.warning("step %d: no scoring job could be submitted in time; it is scored after training", step)
            return
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:]
            log.warning("step %d: no scoring job could be submitted (%s); it is scored after training", step, reason)


def _attempt() -> str:
    """This start of the job, as `sweeps.slurm.after` names it."""
    import submitit

    return f"{submitit.JobEnvironment().job_id}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def _host() -> str:
    """SLURM's name of this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def last_start(folder: Path, kind: Kind, attempt: str) -> dict[str, Any] | None:
    """The row of a run's newest start, if it belongs to this attempt."""
    rows = jsonl.read(phase_file(folder, "sessions.jsonl", kind))
    return rows[-1] if rows and rows[-1].get("attempt") == attempt else None
