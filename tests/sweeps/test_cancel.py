"""`ditbench sweep cancel`: on SLURM, job by job; on this machine, all at once."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, FakeStudy, SweepCommands, submit_two
from sweep_files import DITBENCH, folders, four_runs, rows_logged, submit_here

from bench.files import jsonl
from bench.files.run_folder import is_locked


def scancelled(slurm: FakeSlurm) -> list[str]:
    return [call.removeprefix("scancel ") for call in slurm.calls() if call.startswith("scancel")]


def test_cancelling_all(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    """A whole array in one word; also one that is ending, which may be about to come back. Others' are left alone."""
    submit_two(fake, slurm)
    slurm.queue(
        "22_0|COMPLETING|training|n1|None", "22_1|PENDING|training||Priority",
        "23_0|PENDING|scoring||Dependency", "23_1|PENDING|scoring||Dependency", "99|RUNNING|another|n1|None",
    )  # fmt: skip
    slurm.cancels()
    assert sweep("cancel").splitlines() == [
        "S/4: cancelled training 22_0 (COMPLETING), scoring 23_0 (PENDING)",
        "S/2: cancelled training 22_1 (PENDING), scoring 23_1 (PENDING)",
    ]
    assert scancelled(slurm) == ["22 23"]
    slurm.queue("99|RUNNING|another|n1|None")
    assert sweep("cancel") == "no job of tiny is queued or running on SLURM\n"
    assert len(scancelled(slurm)) == 1


def test_advice_beside_success_is_no_failure(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    slurm.cancels("scancel: info: the cluster goes down at noon")
    assert "S/2: cancelled training 22_1 (PENDING)" in sweep("cancel", "S/2")


def test_cancelling_some(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    slurm.cancels()
    assert sweep("cancel", "S/2", "B/4").splitlines() == [
        "S/2: cancelled training 22_1 (PENDING), scoring 23_1 (PENDING)",
        "B/4: no job of it is queued or running",
    ]
    assert scancelled(slurm) == ["22_1 23_1"]


def test_runs_that_share_a_job_are_cancelled_together(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    fake.submitted(fake.array("training", "22", ["S/4", "S/2", "B/4"]))
    fake.finished("B/4")
    slurm.queue("22|RUNNING|training|n1|None")
    slurm.cancels()
    message = sweep("cancel", "S/4", status=2)
    assert "job 22 does 2 runs one after the other; accepted: naming S/2 as well, or no run" in message
    assert scancelled(slurm) == []
    sweep("cancel", "S/4", "S/2")
    assert scancelled(slurm) == ["22"]


def test_runs_that_left_the_sweep_are_cancelled_with_it(
    sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy
) -> None:
    array = {"kind": "training", "name": "training", "job_id": "22", "tasks": [["XL-1-0123456789"]]}
    fake.submitted(array)
    slurm.queue("22|RUNNING|training|n1|None")
    slurm.cancels(error="scancel: info: the cluster goes down at noon")
    assert sweep("cancel") == "XL-1-0123456789: cancelled training 22 (RUNNING)\n"


def test_what_slurm_does_not_answer_is_not_cancelled(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    slurm.is_down()
    assert "squeue: Unable to contact slurm controller" in sweep("cancel", status=1)
    assert "no such run" in sweep("cancel", "S/3", status=2)


@pytest.mark.slow
def test_cancelling_here(study: Callable[[str], Path], tmp_path: Path) -> None:
    """From another terminal: jobs and launcher end, work is saved, and the same submission continues it."""
    home, path = study("tiny"), four_runs(tmp_path, steps=100_000, log_every=10, save_every=50_000)
    arguments = [str(path), "--runs", str(tmp_path)]

    def ditbench(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(DITBENCH), "sweep", words[0], *arguments, *words[1:]],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    assert ditbench("cancel").stdout == f"nothing is at work on {home} here\n"
    launcher = subprocess.Popen(
        submit_here(path, tmp_path), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        while launcher.poll() is None and rows_logged(path, tmp_path) < 5:
            time.sleep(0.01)
        assert "running" in ditbench("status").stdout
        refused = ditbench("cancel", "S/4")
        assert refused.returncode == 2
        assert "take runs from one queue" in refused.stderr
        done = ditbench("cancel")
        assert done.stdout.startswith("stopped "), done.stderr
        said = launcher.communicate(timeout=60)[1]
    finally:
        launcher.kill()
    assert launcher.returncode == 1
    assert said == "ditbench: cancelled; what was saved stays, and the same command continues\n"
    assert not any(is_locked(slot) for slot in (home / "jobs").glob(".slot-*"))
    started = [folder for folder in folders(path, tmp_path).values() if (folder / "sessions.jsonl").exists()]
    assert started
    for folder in started:
        assert not (folder / "failures.jsonl").exists()
        steps = [row["step"] for row in jsonl.read(folder / "train.jsonl")]
        states = [int(path.stem.removeprefix("state-")) for path in (folder / "checkpoints").glob("state-*")]
        assert not steps or max(states) >= steps[-1]  # saved when it was told to stop
    assert "stopped" in ditbench("status").stdout


def test_jobs_of_another_machine_are_not_signalled(sweep: SweepCommands, fake: FakeStudy) -> None:
    slot = fake.folder / "jobs" / ".slot-0"
    slot.parent.mkdir(parents=True)
    slot.write_text(json.dumps({"host": "elsewhere", "pid": os.getpid()}))
    assert sweep("cancel") == f"nothing is at work on {fake.folder} here\n"
    with slot.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "its jobs are on elsewhere; cancel them there" in sweep("cancel", status=2)
