"""The end of a job's batch script: what is requeued and what is counted; the record and the copy of code it uses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from recipes import tiny

from bench.errors import InputError, RunError
from bench.files import jsonl
from bench.files.lost_time import LostTime, lost_time
from bench.files.run_folder import (
    Phase,
    clear_error,
    failed_attempts,
    phase_file,
    progress,
    read_error,
    record_failure,
    weights_path,
    write_config,
)
from bench.flops import count
from bench.provenance import commit
from bench.stopping import STOPPED
from sweeps.cluster import ClusterProfile
from sweeps.slurm import after, last_words, submissions
from sweeps.slurm.client import Job
from sweeps.slurm.launch import make_task
from sweeps.slurm.snapshot import copy_code
from sweeps.slurm.submissions import JobArray, Submission

KILLED, TOO_EARLY, TOO_EARLY_TERM = 128 + 9, 128 + 12, 128 + 15
RECIPES = [tiny(seed=seed) for seed in range(3)]
STEPS = RECIPES[0].train.steps
# What SLURM gives task 1 of array 70, started for the third time.
ARRAY = {"SLURM_JOB_ID": "72", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "1", "SLURM_RESTART_COUNT": "2"}
ATTEMPT = "70_1.2"


class Study:
    """A submission of an array, whose task 0 does the first run and task 1 the two others, and a scontrol."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "study"
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.scontrol(f'echo "$@" >> "{self.calls}"')
        self.runs = [self.folder / recipe.folder_name for recipe in RECIPES]
        for recipe, run in zip(RECIPES, self.runs, strict=True):
            write_config(recipe, run)
        self.submit()

    def scontrol(self, script: str) -> None:
        (self.bin / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / "scontrol").chmod(0o755)

    def submit(self, kind: Phase = "training", **profile: Any) -> Path:
        """Record the submission; its folder."""
        first, *others = [run.name for run in self.runs]
        array = JobArray(kind=kind, name="the-array", job_id="70", tasks=((first,), tuple(others)))
        self.submission = Submission(
            number=1,
            time="2026-01-01T00:00:00+0000",
            sweep="study",
            cluster="here",
            profile=slurm_profile(**{"max_failures": 2, **profile}),
            commit="0123456789ab",
            trackers=("tensorboard",),
            arrays=(array,),
        )
        return submissions.write(self.folder, self.submission).parent

    def start(self, run: Path, kind: Phase = "training", attempt: str = ATTEMPT, seconds_ago: float = 0) -> None:
        """What a start leaves in a run's folder, once it has started up."""
        time = datetime.fromtimestamp(datetime.now().timestamp() - seconds_ago).astimezone().isoformat()
        row = {"time": time, "attempt": attempt, "progress": progress(run, kind)}
        jsonl.append(phase_file(run, "sessions.jsonl", kind), row)

    def end(self, status: int, index: int = 1, name: str = "the-array", lived_s: float = 100) -> int:
        """The end of the batch script, which has run for so long; its status."""
        arguments = [str(self.folder / "submissions" / "0001"), name, str(index), str(status), str(lived_s)]
        return after.main(arguments)

    def die_in(self, attempt: str, *srun: str) -> None:
        """What the job's log has of a start, with lines of srun."""
        log = self.folder / "submissions" / "0001" / "jobs" / "70_1_0_log.out"
        log.parent.mkdir(exist_ok=True)
        with log.open("a") as file:
            file.write("\n".join([f"attempt {attempt}", "step 100: loss 0.5", *srun, ""]))

    def requeued(self) -> list[str]:
        """What scontrol was called with."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def counted(self, kind: Phase = "training") -> list[list[str]]:
        """The reasons of failed attempts, run by run."""
        return [[row["error"] for row in failed_attempts(run, kind)] for run in self.runs]


def slurm_profile(**keys: Any) -> ClusterProfile:
    needed = {"executor": "slurm", "time_limit": "01:00:00", "training": [{}], "evaluation": [{"mem_gb": 2.5}]}
    return ClusterProfile.model_validate({**needed, **keys})


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    made = Study(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    for name, value in ARRAY.items():
        monkeypatch.setenv(name, value)
    return made


def save_state(run: Path, step: int) -> None:
    path = run / "checkpoints" / f"state-{step:08d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.touch()


def train(run: Path) -> None:
    """As if it were trained."""
    save_state(run, STEPS)
    for step in RECIPES[0].train.kept_steps():
        weights_path(run / "checkpoints", step).touch()


def finish(run: Path) -> None:
    (run / "finished.json").write_text("{}")


# Requeueing


def test_a_job_that_saved_its_work_is_requeued_and_nothing_is_counted(study: Study, capfd: Any) -> None:
    study.start(study.runs[1])
    save_state(study.runs[1], 4)
    assert study.end(STOPPED) == STOPPED
    assert study.requeued() == ["requeue 70_1"]
    assert study.counted() == [[], [], []]
    assert capfd.readouterr().out == "exit status 85: requeueing, 2 of 2 runs are left\n"


def test_a_job_without_an_array_is_requeued_by_its_own_number(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name)
    assert study.end(1, index=0) == 1
    assert study.requeued() == ["requeue 72"]
    assert [row["attempt"] for row in failed_attempts(study.runs[0])] == ["72.0"]


@pytest.mark.parametrize("status", [TOO_EARLY, TOO_EARLY_TERM])
def test_a_signal_before_anything_began_is_no_failure(study: Study, status: int) -> None:
    assert study.end(status) == status
    assert study.requeued() == ["requeue 70_1"]
    assert study.counted() == [[], [], []]


@pytest.mark.parametrize(("requeue", "status"), [(True, STOPPED), (True, KILLED), (False, STOPPED), (False, 1)])
def test_nothing_left_is_success_whatever_the_status(study: Study, requeue: bool, status: int) -> None:
    """The signal, or the death, came after all was done: what waits for this job must not be cancelled."""
    study.submit(requeue=requeue, evaluate="after")
    study.start(study.runs[1])
    train(study.runs[1])
    finish(study.runs[1])
    train(study.runs[2])
    assert study.end(status) == 0
    assert study.requeued() == []
    assert study.counted() == [[], [], []]


def test_what_is_trained_is_left_only_where_the_job_scores_too(study: Study) -> None:
    for run in study.runs[1:]:
        train(run)
    study.submit(evaluate="inline")
    assert study.end(STOPPED) == STOPPED
    assert study.requeued() == ["requeue 70_1"]


def test_a_profile_without_requeueing_is_obeyed(study: Study, capfd: Any) -> None:
    study.submit(requeue=False)
    study.start(study.runs[1])
    save_state(study.runs[1], 4)
    assert study.end(STOPPED) == STOPPED
    assert study.requeued() == []
    assert "not requeued" in capfd.readouterr().out


# Requeueing that fails, and cancelling


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after, "ASK_AGAIN_SECONDS", (0.01, 0.05))


def saved_and_stopped(study: Study) -> Path:
    """A run that is left; the folder of its submission."""
    study.start(study.runs[1])
    save_state(study.runs[1], 4)
    return study.folder / "submissions" / "0001"


DOWN = "echo 'slurm_requeue error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


@pytest.mark.usefixtures("impatient")
def test_requeueing_is_tried_until_it_works(study: Study) -> None:
    folder = saved_and_stopped(study)
    study.scontrol(f'echo "$@" >> "{study.calls}"\n[ $(wc -l < "{study.calls}") -ge 8 ] || {{ {DOWN}; }}')
    assert study.end(STOPPED) == STOPPED
    assert study.requeued() == ["requeue 70_1"] * 8
    assert study.counted() == [[], [], []]
    assert submissions.not_requeued(folder, study.runs[1].name) is None


@pytest.mark.usefixtures("impatient")
def test_requeueing_is_given_up_when_the_jobs_time_is_over(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved_and_stopped(study)
    study.scontrol(DOWN)
    monkeypatch.setattr(after, "LAST_WORD_SECONDS", 0.0)
    end_s = time.time() + 0.5
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(end_s))
    with pytest.raises(RunError, match="Unable to contact slurm controller"):
        study.end(STOPPED)
    assert 0.4 < time.time() - end_s + 0.5 < 5
    for run in study.runs[1:]:
        row = submissions.not_requeued(folder, run.name)
        assert row
        assert row["attempt"] == ATTEMPT
        assert "Unable to contact slurm controller" in row["reason"]
    assert submissions.not_requeued(folder, study.runs[0].name) is None
    assert study.counted() == [[], [], []]


def test_slurms_end_of_the_job_ends_the_attempts(study: Study) -> None:
    folder = saved_and_stopped(study)
    study.scontrol(f'echo "$@" >> "{study.calls}"\n{DOWN}')
    command = [sys.executable, "-m", "sweeps.slurm.after", str(folder), "the-array", "1", "85"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not study.requeued():
        time.sleep(0.05)
    time.sleep(0.3)  # it waits for the next attempt
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert said.startswith("not requeued: scontrol: Unable to contact slurm controller")
    assert submissions.not_requeued(folder, study.runs[1].name)


def test_a_cancelled_job_is_not_requeued(study: Study) -> None:
    folder = saved_and_stopped(study)
    submissions.cancel_runs(folder, [study.runs[1].name])
    assert study.end(STOPPED) == STOPPED
    assert study.requeued() == ["requeue 70_1"], "its other run is wanted"
    submissions.cancel_runs(folder, [study.runs[2].name])
    assert study.end(STOPPED) == STOPPED
    assert len(study.requeued()) == 1


@pytest.mark.usefixtures("impatient")
def test_a_job_that_is_cancelled_meanwhile_is_not_requeued(study: Study) -> None:
    folder = saved_and_stopped(study)
    runs = json.dumps({"runs": [run.name for run in study.runs]})
    study.scontrol(f'echo "$@" >> "{study.calls}"\necho {shlex.quote(runs)} > "{folder}/cancelled.json"\n{DOWN}')
    assert study.end(STOPPED) == STOPPED
    assert len(study.requeued()) == 1
    (folder / "cancelled.json").unlink()
    study.calls.unlink()
    study.scontrol(f'echo {shlex.quote(runs)} > "{folder}/cancelled.json"')  # too late: SLURM has requeued it
    scancel = study.bin / "scancel"
    scancel.write_text(f'#!/bin/sh\necho "$@" >> "{study.calls}"\n')
    scancel.chmod(0o755)
    assert study.end(STOPPED) == STOPPED
    assert study.requeued() == ["70_1"], "it is cancelled once more"


# Counting


def test_an_attempt_that_failed_is_requeued_until_there_were_too_many(study: Study) -> None:
    """The run left its reason itself, so none is put down to the one after it."""
    first, second = study.runs[1:]
    study.start(first)
    record_failure(first, "training", "diverged", 2, {"attempt": ATTEMPT})
    study.start(second)
    assert study.end(1) == 1
    assert study.requeued() == ["requeue 70_1"]
    record_failure(first, "training", "diverged again", 2, {"attempt": "70_1.3"})
    finish(second)
    assert study.end(1) == 0, "of two runs, one is finished: what waits for the job can go on with it"
    assert study.requeued() == ["requeue 70_1"]
    assert study.counted() == [[], ["diverged", "diverged again"], []]


def test_a_job_whose_runs_were_all_given_up_has_failed(study: Study, capfd: Any) -> None:
    for run in study.runs[1:]:
        record_failure(run, "training", "diverged", 1, {"attempt": ATTEMPT})
    assert study.end(1) == 1
    assert study.requeued() == []
    assert capfd.readouterr().out == "exit status 1: not requeued\n"


def test_a_death_without_a_word_is_counted_once_to_the_run_that_was_at_work(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.start(study.runs[1], attempt="70_1.1")
    save_state(study.runs[1], 4)
    study.start(study.runs[2])
    assert study.end(KILLED) == KILLED
    assert study.end(KILLED) == KILLED  # the same attempt
    (reason,) = study.counted()[2]
    assert study.counted() == [[], [], [reason]]
    assert "exit status 137 (SIGKILL: out of memory, most often)" in reason
    assert study.requeued() == ["requeue 70_1", "requeue 70_1"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    study.start(study.runs[2], attempt="70_1.3")
    assert study.end(KILLED) == KILLED
    assert read_error(study.runs[2]) == reason
    assert len(study.requeued()) == 3, "the other run is left"


SRUN_KILLED = "srun: error: n1: task 0: Killed"


def test_the_reason_is_that_of_the_rank_that_died_first(study: Study) -> None:
    """srun kills the others, so that the job's status is 137 whatever happened."""
    study.start(study.runs[2])
    folder = study.folder / "submissions" / "0001"
    last_words.leave(folder, ATTEMPT, 0, "n1", "RuntimeError: Connection closed by peer [127.0.0.1]", True)
    last_words.leave(folder, ATTEMPT, 3, "n2", "OSError: [Errno 98] Address already in use", False)
    last_words.leave(folder, "70_1.1", 1, "n1", "an earlier start's", False)
    study.die_in(ATTEMPT, "srun: error: n2: task 3: Exited with exit code 1", SRUN_KILLED)
    assert study.end(KILLED) == KILLED
    (row,) = failed_attempts(study.runs[2])
    assert row["error"] == "rank 3 on n2: OSError: [Errno 98] Address already in use"
    assert (row["rank"], row["host"]) == (3, "n2")


@pytest.mark.slow
def test_an_error_before_any_run_began_is_known_too(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 of a job waits for rank 0, which never comes."""
    import bench.parallel

    folder = study.folder / "submissions" / "0001"
    task = make_task("training", [run.name for run in study.runs[1:]], study.folder, folder, study.submission)
    place = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURMD_NODENAME": "n2"}
    for name, value in {**place, "SUBMITIT_EXECUTOR": "slurm", "MASTER_PORT": "1", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bench.parallel, "MEETING_SECONDS", 0.1)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    try:
        with pytest.raises(RunError, match="did not reach rank 0"):
            task()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert study.end(KILLED) == KILLED
    (row,) = failed_attempts(study.runs[1])
    assert row["error"].startswith("rank 1 on n2: rank 1 did not reach rank 0")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("Killed", "SIGKILL"),
        ("Out Of Memory", "mem_gb"),
        ("Segmentation fault (core dumped)", "Segmentation fault"),
        ("Exited with exit code 1", "exit code 1"),
    ],
)
def test_a_rank_that_left_no_word_is_named_by_srun(study: Study, words: str, reason: str) -> None:
    """Though a survivor had time to complain of its loss in the run's folder, and an earlier start ended otherwise."""
    run = study.runs[2]
    study.start(run)
    study.die_in("70_1.1", "srun: error: n3: tasks 0-3: Bus error", "exit status 135: requeueing")
    study.die_in(ATTEMPT, f"srun: error: n2: task 1: {words}", "srun: launch/slurm: _step_signal", SRUN_KILLED)
    echo = "RuntimeError: Connection closed by peer [127.0.0.1]"
    last_words.leave(study.folder / "submissions" / "0001", ATTEMPT, 0, "n1", echo, True)
    record_failure(run, "training", echo, 2, {"attempt": ATTEMPT, "rank": 0, "lost_a_peer": True})
    assert study.end(KILLED) == KILLED
    (row,) = failed_attempts(run)
    assert row["error"].startswith("rank 1 on n2: ")
    assert reason in row["error"]
    assert ("out of memory" in row["error"]) == (words == "Killed")
    assert row["rank"] == 1


def test_a_death_before_any_run_began_is_put_down_to_the_first_that_is_left(study: Study) -> None:
    finish(study.runs[1])
    study.start(study.runs[2], attempt="70_1.1")
    assert study.end(1) == 1
    (reason,) = study.counted()[2]
    assert "exit status 1 (an error before the run began, or SLURM's own)" in reason
    assert study.requeued() == ["requeue 70_1"]


def test_a_job_that_never_begins_does_not_go_round_for_ever(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a setup line that fails: two attempts for each of its two runs."""
    for restart in range(3):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        assert study.end(1) == 1
        assert len(study.requeued()) == restart + 1
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert study.end(1) == 1
    assert len(study.requeued()) == 3
    assert [len(reasons) for reasons in study.counted()] == [0, 2, 2]


# Useful time against lost time: of an hour, 2 minutes before its end SLURM signals


@pytest.mark.parametrize("words", ["Terminated", "User defined signal 2"])
def test_a_rank_that_could_not_listen_to_the_signal_yet_makes_the_stop_no_failure(study: Study, words: str) -> None:
    """srun kills the others, which were listening."""
    study.die_in(ATTEMPT, f"srun: error: n2: task 1: {words}", SRUN_KILLED)
    assert study.end(KILLED) == KILLED
    assert study.counted() == [[], [], []]
    assert lost_time(study.runs[1], "training") == LostTime(1, 0, 100)


@pytest.mark.parametrize("status", [STOPPED, TOO_EARLY, TOO_EARLY_TERM])
def test_preemptions_while_a_job_starts_up_give_nothing_up(
    study: Study, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour was planned for each start: what is lost in a few minutes of some is not the job's fault."""
    study.submit("scoring", max_failures=3)
    for restart in range(10):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        if status == STOPPED:
            study.start(study.runs[1], "scoring", f"70_1.{restart}")
        assert study.end(status, lived_s=300) == status
        assert len(study.requeued()) == restart + 1
    assert study.counted("scoring") == [[], [], []]
    assert lost_time(study.runs[1], "scoring") == LostTime(10, 0, 3000)


@pytest.mark.parametrize("kind", ["training", "scoring"])
@pytest.mark.parametrize("status", [STOPPED, TOO_EARLY])
def test_whole_starts_that_save_nothing_are_three_and_no_more(
    study: Study, kind: Phase, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.submit(kind, max_failures=3)
    for restart in range(3):
        assert read_error(study.runs[1], kind) is None
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        if status == STOPPED:
            study.start(study.runs[1], kind, f"70_1.{restart}")
        assert study.end(status, lived_s=3480) == status
    error = str(read_error(study.runs[1], kind))
    assert "3 starts" in error
    assert "lost 2:54:00" in error
    assert "time_limit (now 1:00:00)" in error
    assert len(study.requeued()) == 3, "the other run is left"
    clear_error(study.runs[1])
    assert lost_time(study.runs[1], kind).starts == 0


def test_a_run_that_gains_one_step_a_start_is_given_up(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of two minutes, of which starting up takes nearly all."""
    study.submit(max_failures=3, time_limit="00:02:00", signal_before_end_s=30)
    run = study.runs[1]
    save_state(run, 2)
    jsonl.append(run / "train.jsonl", {"step": 2, "images_per_s": 10 * RECIPES[0].train.batch_size})  # 0.1 s a step
    for step in range(3, 6):
        assert read_error(run) is None
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(step))
        study.start(run, attempt=f"70_1.{step}", seconds_ago=4)  # of which saving the step takes most
        save_state(run, step)
        assert study.end(STOPPED, lived_s=75) == STOPPED
    assert "3 starts" in str(read_error(run))
    assert [row["useful_s"] for row in jsonl.read(run / "stops.jsonl")] == [0.1, 0.1, 0.1]


def test_a_run_whose_starts_are_of_use_goes_on_for_ever(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with starts among them that were of none."""
    study.submit(max_failures=3, time_limit="00:02:00", signal_before_end_s=30)
    run = study.runs[1]
    jsonl.append(run / "train.jsonl", {"step": 2, "images_per_s": RECIPES[0].train.batch_size})  # 1 s a step
    for restart in range(12):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        study.start(run, attempt=f"70_1.{restart}", seconds_ago=20)
        if restart % 3 == 2:
            save_state(run, 10 * restart)
        assert study.end(STOPPED, lived_s=75) == STOPPED
    assert read_error(run) is None
    assert lost_time(run, "training").starts == 0


def test_scores_and_samples_are_of_use_as_steps_are(study: Study) -> None:
    study.submit("scoring", max_failures=1)
    stuck, moving = study.runs[1:]
    study.start(moving, "scoring", seconds_ago=3000)
    samples = moving / "samples" / ".step-00000006"
    samples.mkdir(parents=True)
    (samples / "00000000-00000007.npy").touch()
    assert study.end(STOPPED, lived_s=3480) == STOPPED
    assert read_error(moving, "scoring") is None
    (row,) = jsonl.read(moving / "scoring-stops.jsonl")
    assert row["useful_s"] == pytest.approx(3000, abs=5)
    assert row["lost_s"] == pytest.approx(480, abs=5)
    assert lost_time(stuck, "scoring").starts == 0


def test_an_attempt_that_learned_how_little_memory_there_is_was_not_for_nothing(study: Study) -> None:
    study.start(study.runs[1])
    (study.runs[1] / "micro_batches.json").write_text('{"micro_batches": 2}')
    assert study.end(STOPPED) == STOPPED
    assert study.counted() == [[], [], []]


def test_a_training_job_that_sampled_is_not_stuck(study: Study) -> None:
    study.submit(evaluate="inline")
    train(study.runs[1])
    study.start(study.runs[1])
    samples = study.runs[1] / "samples" / ".step-00000006"
    samples.mkdir(parents=True)
    (samples / "00000000-00000007.npy").touch()
    assert study.end(STOPPED) == STOPPED
    assert study.counted() == [[], [], []]


def test_runs_that_this_attempt_did_not_reach_are_not_stuck(study: Study) -> None:
    study.start(study.runs[1], attempt="70_1.1")
    assert study.end(STOPPED) == STOPPED
    assert study.counted() == [[], [], []]


def test_scoring_is_counted_apart(study: Study) -> None:
    study.submit("scoring", max_failures=1)
    study.start(study.runs[2], "scoring")
    assert study.end(KILLED) == KILLED
    assert read_error(study.runs[2], "scoring")
    assert study.counted() == [[], [], []]
    assert study.requeued() == ["requeue 70_1"], "the other run is left"


def test_a_scoring_job_that_training_submitted_is_found_by_its_own_record(study: Study) -> None:
    record = JobArray(kind="scoring", name="early", job_id="80", tasks=((study.runs[0].name,),))
    submissions.write_early_scoring(study.folder / "submissions" / "0001", record)
    assert study.end(1, index=0, name="early") == 1
    assert len(study.counted("scoring")[0]) == 1
    finish(study.runs[0])
    assert study.end(1, index=0, name="early") == 0


@pytest.mark.slow
def test_where_slurm_refuses_the_job_says_why_and_ends(study: Study) -> None:
    study.scontrol("echo 'slurm_requeue error: Requested operation is presently disabled' >&2; exit 1")
    command = [
        sys.executable,
        "-m",
        "sweeps.slurm.after",
        str(study.folder / "submissions" / "0001"),
        "the-array",
        "1",
        "85",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "not requeued: scontrol: Requested operation is presently disabled\n"
    study.scontrol("exit 0")
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (STOPPED, "")


# Records


def test_a_record_is_read_back_whole(study: Study) -> None:
    profile = {"gpu": {"name": "A", "peak_tflops": {"bf16": 312.0}}, "precision": "bf16", "sbatch": {"x": True}}
    folder = study.submit(**profile, device="cuda", training=[{"gpus_per_node": 2}], evaluation=[{"gpus_per_node": 1}])
    assert submissions.read(folder / "record.json") == study.submission
    early = JobArray(kind="scoring", name="early", job_id=None, tasks=((study.runs[0].name,),))
    submissions.write_early_scoring(folder, early)
    (whole,) = submissions.read_all(study.folder)
    assert whole.arrays == (*study.submission.arrays, early)
    submissions.write(study.folder, study.submission.model_copy(update={"number": 12}))
    assert [one.number for one in submissions.read_all(study.folder)] == [1, 12]
    assert submissions.read_all(study.folder / "none") == []


def test_tasks_and_jobs_find_each_other(study: Study) -> None:
    (array,) = study.submission.arrays
    single = array.model_copy(update={"tasks": array.tasks[:1]})
    assert [array.task_id(0), array.task_id(1), single.task_id(0)] == ["70_0", "70_1", "70"]
    assert array.model_copy(update={"job_id": None}).task_id(1) is None
    for one in (array, single):
        for index in range(len(one.tasks)):
            assert one.index_of(Job(str(one.task_id(index)), "RUNNING")) == index


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda text: text[:-40], "line"),
        (lambda text: text.replace('"sweep"', '"swoop"'), "sweep: missing"),
        (lambda text: text.replace('"number"', '"more": 1, "number"'), "more: unknown key"),
        (lambda text: text.replace('"training",', '"trainings",'), "arrays.0.kind"),
        (lambda text: "[]", "mapping"),
        (lambda text: "", "line 1"),
    ],
    ids=["cut short", "missing key", "unknown key", "wrong value", "a list", "empty"],
)
def test_a_damaged_record_is_named_with_what_to_do(study: Study, change: Callable[[str], str], named: str) -> None:
    path = study.folder / "submissions" / "0001" / "record.json"
    path.write_text(change(path.read_text()))
    for read in (lambda: submissions.read(path), lambda: submissions.read_all(study.folder)):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: not a whole record of a submission (")
        assert named in str(caught.value)
        assert "squeue --me" in str(caught.value)


# The copy of the code

IMPORTS = """
import json
import analysis.results.files, bench.flops, bench.provenance, models, sweeps.slurm.after, sweeps.slurm.job
print(json.dumps({
    "files": [m.__file__ for m in (models, bench.flops, sweeps.slurm.job, analysis.results.files)],
    "commit": bench.provenance.commit(),
    "gmacs": bench.flops.count("DiT-S/8").gmacs,
}))
"""


@pytest.mark.slow
def test_jobs_run_the_copy_of_the_code(tmp_path: Path) -> None:
    """As their batch scripts start them: there, with PYTHONPATH set to it."""
    code = tmp_path / "submissions" / "0001" / "code"
    copy_code(code)
    options = {"cwd": code, "env": {**os.environ, "PYTHONPATH": str(code)}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", IMPORTS], check=True, **options)
    found = json.loads(done.stdout)
    assert all(Path(file).is_relative_to(code) for file in found["files"])
    assert found["commit"] == commit()
    assert found["gmacs"] == count("DiT-S/8").gmacs
    assert not list(code.rglob(".*")), "hidden files are none of the code"
    (code / "COMMIT").write_text("feedfacecafe\n")
    (code / "models" / "__init__.py").write_text("raise SystemExit('the copy')\n")
    done = subprocess.run([sys.executable, "-c", IMPORTS], **options)
    assert (done.returncode, done.stderr) == (1, "the copy\n")


def test_a_copy_of_a_copy_keeps_the_commit(tmp_path: Path) -> None:
    copy_code(tmp_path / "code")
    (tmp_path / "code" / "COMMIT").write_text("feedfacecafe\n")
    copied = str(tmp_path / "b")
    script = f"from pathlib import Path; from sweeps.slurm.snapshot import copy_code; copy_code(Path({copied!r}))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "code")}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path / "code", env=environment)
    assert (tmp_path / "b" / "COMMIT").read_text() == "feedfacecafe\n"


def test_a_folder_that_cannot_take_the_copy_is_named(tmp_path: Path) -> None:
    copy_code(tmp_path / "code")
    with pytest.raises(InputError, match=rf"^{tmp_path}/code: the code could not be copied there"):
        copy_code(tmp_path / "code")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/code"):
        copy_code(tmp_path / "file" / "code")
