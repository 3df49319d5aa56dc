"""`ditbench sweep status`, `logs` and `why`, as a person types them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, FakeStudy, SweepCommands, append, submit_two
from rich.console import Console

from sweeps.expand import run_folders
from sweeps.slurm import submissions
from sweeps.watch import logs, progress
from sweeps.watch.status import RunStatus
from sweeps.watch.study import Study

# --- status ---


def test_the_table(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    lines = sweep("status").splitlines()
    heads = ["model", "state", "step", "loss", "Fréchet distance", "images/s", "MFU", "elapsed", "left", "restarts"]
    assert lines[0].split("  ")[0] == "model"
    assert [head for head in [*heads, "node"] if head not in lines[0]] == []
    row = lines[1].split()
    assert row[:4] == ["S/4", "running", "4/12", "0.5000"]
    assert row[-1] == "n1"
    assert "98.77 at 6" in lines[1]
    assert lines[2].split() == ["S/2", "queued", "0/12"]
    assert lines[-1] == "0 of 4 finished, 1 running, 1 queued, 2 waiting"
    assert len(slurm.calls()) == 1


def test_json_has_all_fields_of_all_runs(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    (slurm.folder / "sacct").unlink()
    done = sweep.ended("status", "--json")
    rows = json.loads(done.out)
    assert [row["label"] for row in rows] == ["S/4", "S/2", "B/4", "B/2"]
    assert {tuple(row) for row in rows} == {tuple(RunStatus.__annotations__)}
    assert rows[0] | {"elapsed_s": 0, "mfu": 0} == {
        "label": "S/4",
        "id": fake.sweep.recipes[0].id,
        "folder": str(fake.run("S/4")),
        "state": "running",
        "step": 4,
        "steps": 12,
        "loss": 0.5,
        "fid": 98.765,
        "fid_step": 6,
        "scores": 1,
        "wanted_scores": 2,
        "not_finite": "",
        "images_per_s": 64.0,
        "mfu": 0,
        "elapsed_s": 0,
        "seconds_left": 4.0,
        "restarts": 0,
        "node": "n1",
        "job": "22_0",
        "job_kind": "training",
        "job_state": "RUNNING",
        "error": None,
    }
    assert done.err == "sacct does not answer here: states are from squeue and the run folders\n"


def test_when_training_ends_is_told_if_it_can_be(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    fake.submitted(fake.array("training", "22", "S/4", "S/2", "B/4", "B/2"))
    for label in ("S/4", "S/2", "B/4"):
        fake.logged(label, 4, images_per_s=1.0 if label == "S/2" else 2.0)
    fake.finished("B/2")
    slurm.accounting("22_[0-2]|RUNNING|training|n1")
    assert sweep("status").splitlines()[-1] == "1 of 4 finished, 3 running; training ends in about 4:16"
    slurm.accounting("22_[0-1]|RUNNING|training|n1", "22_2|PENDING|training|")
    assert sweep("status").splitlines()[-1] == "1 of 4 finished, 2 running, 1 queued"


def test_looking_changes_nothing(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    fake.failed_once("S/4", "it diverged")

    def content() -> dict[Path, tuple[int, str]]:
        paths = [fake.runs, *fake.runs.rglob("*")]
        digests = {p: "" if p.is_dir() else hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
        return {path: (path.stat().st_mtime_ns, digest) for path, digest in digests.items()}

    before = content()
    for arguments in (["status"], ["status", "--json"], ["logs", "S/4"], ["why", "S/4"], ["why", "S/2"]):
        sweep(*arguments)
    assert content() == before
    assert {call.split()[0] for call in slurm.calls()} == {"sacct", "squeue"}


def test_watching_ends_by_itself(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    """Without a terminal it prints a line for every change, and here all is over at the first look."""
    fake.submitted(fake.array("training", "22", "S/4", "S/2"))
    fake.finished("S/4")
    fake.scored("S/4", 12, 12.5)
    slurm.accounting("22_1|TIMEOUT|training|n1")
    assert sweep("status", "--watch").splitlines() == [
        "S/4      finished  step 12/12  fid 12.5 at 12",
        "S/2      stopped: TIMEOUT step 0/12",
        "1 of 4 finished, 1 stopped, 2 waiting",
    ]


def test_watching_tells_changes_until_ctrl_c(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    watching = sweep.start("status", "--watch")
    assert watching.stdout
    assert watching.stdout.readline() == "S/4      running   step 4/12  fid 98.77 at 6\n"
    assert watching.stdout.readline() == "S/2      queued    step 0/12\n"
    fake.scored("S/4", 12, 50.0)
    assert watching.stdout.readline() == "S/4      running   step 4/12  fid 50 at 12\n"
    watching.send_signal(signal.SIGINT)
    assert watching.communicate(timeout=20) == ("", "")
    assert watching.returncode == 0
    assert len(slurm.calls()) == 1  # it looked at the files more often than that


def test_a_terminal_shows_what_it_has_room_for(
    slurm: FakeSlurm, fake: FakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(slurm.folder))
    submit_two(fake, slurm)
    fake.given_up("B/2", "it diverged")
    runs = Study(fake.sweep, fake.runs).look().runs

    def shown(width: int, height: int) -> list[str]:
        console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
        with progress.watch(fake.sweep.recipes, console) as show:
            show(runs, ["a note"])
        assert isinstance(console.file, io.StringIO)
        frames = console.file.getvalue().split("0 of 4 finished")  # one as it is shown, one that stays
        return f"0 of 4 finished{frames[-1]}".splitlines()

    whole = "\n".join(shown(150, 40))
    for text in ("S/4", "S/2", "B/4", "B/2", "98.77 at 6", "MFU", "node", "a note", "1 running, 1 failed, 1 queued"):
        assert text in whole
    low = shown(150, 10)
    assert len(low) <= 10
    assert "and 2 more: 1 queued, 1 waiting" in "\n".join(low)
    assert "S/4" in "\n".join(low)
    assert "B/2" in "\n".join(low)
    narrow = shown(70, 40)
    assert max(map(len, narrow)) <= 70
    assert "…" not in "\n".join(narrow)
    assert "98.77 at 6" in "\n".join(narrow)
    assert "node" not in "\n".join(narrow)


def test_a_terminal_shows_a_bar_and_how_losses_fell(fake: FakeStudy) -> None:
    fake.started_here("S/4")
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40, color_system="standard")
    with fake.at_work("S/4"), progress.watch(fake.sweep.recipes, console) as show:
        for step, loss in ((2, 0.9), (4, 0.5), (6, 0.3)):
            append(fake.run("S/4") / "train.jsonl", {"step": step, "loss": loss, "images_per_s": 64.0})
            show(Study(fake.sweep, fake.runs).look().runs, [])
    assert isinstance(console.file, io.StringIO)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue().rpartition("0 of 4 finished")[2]).splitlines()
    assert set(last[1].strip()) <= set("━╸╺")
    assert last[2].startswith("┏")
    (row,) = (line for line in last if "S/4" in line)
    assert "│ 0.3000 │   █▃▁ │" in row
    assert max(map(len, last)) <= 80


def test_bad_arguments(sweep: SweepCommands) -> None:
    assert "--json is one look, --watch many" in sweep("status", "--watch", "--json", status=2)
    for verb in ("logs", "why", "cancel"):
        message = sweep(verb, "S/3", status=2)
        if verb != "cancel":
            assert "S/3: no such run; accepted: S/4, S/2, B/4, B/2, or a recipe's id" in message


def test_looking_needs_no_torch() -> None:
    watch = ("study", "status_table", "progress", "why", "cancel", "logs", "named_runs")
    modules = ", ".join(f"sweeps.watch.{name}" for name in watch)
    code = f"import sys, ditbench, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- logs ---


def test_logs_of_the_newest_job(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    done = sweep.ended("logs", "S/4")
    log = fake.folder / "submissions" / "0001" / "jobs" / "22_0_0_log.out"
    assert (done.out, done.err, done.status) == ("step 2\nstep 4\n", f"{log}\n", 0)

    scoring = fake.started("S/4", "23_0", "scoring", time="2026-01-01T10:05:00+0000")
    scoring.write_text("scored\n")
    assert sweep("logs", fake.sweep.recipes[0].id) == "scored\n"
    fake.started("S/4", "22_0", time="2026-01-01T10:06:00+0000")  # requeued: it goes on in the same file
    assert sweep("logs", fake.run("S/4").name) == "step 2\nstep 4\n"


def test_logs_of_a_job_that_died_before_its_run_began(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    assert "S/2: no log yet: it is queued" in sweep("logs", "S/2", status=1)
    slurm.accounting("22_[0-1]|FAILED|training|n1", "23_[0-1]|CANCELLED|scoring|")
    (fake.folder / "submissions" / "0001" / "jobs" / "22_1_0_log.out").write_text("module: command not found\n")
    assert sweep("logs", "S/2") == "module: command not found\n"


def test_logs_without_a_job_are_the_runs_own(sweep: SweepCommands, fake: FakeStudy) -> None:
    (fake.run("S/4") / "log.txt").write_text("started from step 0\n")
    assert sweep("logs", "S/4") == "started from step 0\n"


def test_following_until_the_job_ends(sweep: SweepCommands, fake: FakeStudy) -> None:
    fake.started_here("S/4")
    log = fake.folder / "jobs" / "4711_0_log.out"
    log.parent.mkdir()
    log.write_text("step 2\n")
    with fake.at_work("S/4"):
        following = sweep.start("logs", "S/4", "-f")
        assert following.stdout
        assert following.stdout.readline() == "step 2\n"
        with log.open("a") as file:
            file.write("step 4\n")
        assert following.stdout.readline() == "step 4\n"
        interrupted = sweep.start("logs", "S/4", "--follow")
        assert interrupted.stdout
        interrupted.stdout.readline()
        interrupted.send_signal(signal.SIGINT)
        assert interrupted.communicate(timeout=20)[1] == f"{log}\n"
        assert interrupted.returncode == 0
        with log.open("a") as file:
            file.write("last words\n")
    assert following.communicate(timeout=20)[0] == "last words\n"
    assert following.returncode == 0


def test_following_a_slurm_job(
    slurm: FakeSlurm, fake: FakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that waits to be continued goes on, and so does one of which SLURM says nothing."""
    monkeypatch.setenv("PATH", str(slurm.folder))
    monkeypatch.setattr(logs, "ASK_SECONDS", 0.0)
    goes_on = logs.JobGoesOn(logs.JobLog(tmp_path / "log", "22_0"), fake.run("S/4"))
    slurm.queue("22_0|RUNNING|training|n1|None")
    assert goes_on()
    slurm.queue("22_0|PENDING|training||BeginTime")
    assert goes_on()
    slurm.is_down()
    assert goes_on()
    slurm.queue("22_1|RUNNING|training|n1|None")
    assert not goes_on()


def test_a_runs_own_log_comes_before_its_jobs(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    """As two jobs write it, of training and of scoring: by time, without what only a program needs."""
    submit_two(fake, slurm)
    (fake.run("S/4") / "log.txt").write_text(
        "2026-01-01 10:00:00,123 INFO started from step 0\n"
        "2026-01-01 10:00:02,000 INFO step 2: loss 0.5000, 64 images/s\n"
        "2026-01-01 10:00:09,000 ERROR Traceback (most recent call last):\n  File x\nKeyError: 1\n"
    )
    (fake.run("S/4") / "scoring-log.txt").write_text(
        "2026-01-01 10:00:05,000 INFO step 6: Fréchet distance 98.77\n2026-01-01 10:00:10,000 INFO and"
    )
    done = sweep.ended("logs", "S/4")
    assert done.out.splitlines() == [
        "2026-01-01 10:00:00 started from step 0",
        "2026-01-01 10:00:02 step 2: loss 0.5000, 64 images/s",
        "2026-01-01 10:00:05 step 6: Fréchet distance 98.77",
        "2026-01-01 10:00:09 ERROR Traceback (most recent call last):",
        "  File x",
        "KeyError: 1",
        "2026-01-01 10:00:10 and",  # its process was killed
    ]
    job_log = fake.folder / "submissions" / "0001" / "jobs" / "22_0_0_log.out"
    own = [fake.run("S/4") / name for name in ("log.txt", "scoring-log.txt")]
    assert done.err.splitlines() == [str(path) for path in (*own, job_log)]


def test_of_a_job_with_several_runs_each_has_its_own_lines(
    sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy
) -> None:
    fake.submitted(fake.array("training", "22", ["S/4", "S/2"]))
    slurm.accounting("22|RUNNING|training|n1")
    log = fake.started("S/4", "22")
    fake.started("S/2", "22")
    log.parent.mkdir()
    first, second = fake.run("S/4").name, fake.run("S/2").name
    log.write_text(
        "module: loaded\n"
        "submitit INFO (2026-01-01 10:00:00,000) - Starting with JobEnvironment(job_id=22)\n"
        f"2026-01-01 10:00:00,000 INFO {first} step 2: loss 0.5000, 64 images/s\n"
        "a warning of torch\n"
        f"2026-01-01 10:00:05,000 INFO {second}: training\n"
        "{'step': 2, 'loss': 0.25}\n"
        f"2026-01-01 10:00:06,000 INFO {second} step 2: loss 0.2500, 64 images/s\n"
        "another\n"
        "submitit ERROR (2026-01-01 10:00:07,000) - Submitted job triggered an exception\n"
    )
    assert sweep("logs", "S/4").splitlines() == [
        "module: loaded",
        "2026-01-01 10:00:00 step 2: loss 0.5000, 64 images/s",
        "a warning of torch",
    ]
    assert sweep("logs", "S/2").splitlines() == [
        "module: loaded",
        f"2026-01-01 10:00:05 {second}: training",
        "2026-01-01 10:00:06 step 2: loss 0.2500, 64 images/s",
        "another",
    ]


def test_the_newest_lines_of_all_runs_with_their_names(sweep: SweepCommands, fake: FakeStudy) -> None:
    assert "no run has a log yet: 0 of 4 finished, 4 waiting" in sweep("logs", status=1)
    for label, seconds in (("S/4", 0), ("B/2", 1)):
        lines = [f"2026-01-01 10:00:{10 * step + seconds:02},000 INFO step {step}\n" for step in range(1, 6)]
        (fake.run(label) / "log.txt").write_text("2026-01-01 10:00:00,000 INFO before\n" + "".join(lines))
    assert sweep("logs").splitlines() == [
        f"{label} | 2026-01-01 10:00:{10 * step + seconds:02} step {step}"
        for step in range(1, 6)
        for label, seconds in (("S/4", 0), ("B/2", 1))
    ]


def test_following_all_runs(sweep: SweepCommands, fake: FakeStudy) -> None:
    fake.started_here("S/4")
    with fake.at_work("S/4"):
        following = sweep.start("logs", "--follow")
        assert following.stdout
        (fake.run("S/4") / "log.txt").write_text("step 2\nhalf")
        assert following.stdout.readline() == "S/4 | step 2\n"
        with (fake.run("S/4") / "log.txt").open("a") as file:
            file.write(" a line\n")
        assert following.stdout.readline() == "S/4 | half a line\n"
    assert following.communicate(timeout=20)[0] == ""
    assert following.returncode == 0


def test_runs_of_one_label_are_told_apart_by_their_folders(tmp_path: Path, slurm: FakeSlurm) -> None:
    (tmp_path / "alike").mkdir()
    alike = FakeStudy(tmp_path / "alike", label="the same")
    folders = [run_folders(alike.sweep, alike.runs)[recipe.id] for recipe in alike.sweep.recipes]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "log.txt").write_text(f"{folder.name[-4:]}\n")
    lines = SweepCommands(slurm, alike)("logs").splitlines()
    assert sorted(lines) == sorted(f"{folder.name} | {folder.name[-4:]}" for folder in folders)


# --- why ---


def test_why_all_is_well(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    fake.finished("B/4")
    assert sweep("why", "S/4").splitlines() == [
        "S/4: running, step 4/12, job 22_0 on n1",
        "all is well: no attempt failed",
    ]
    assert sweep("why", "B/4").splitlines() == ["B/4: finished, step 12/12", "all is well: trained and scored"]
    assert "no job was submitted for it; the same `ditbench sweep submit` does that" in sweep("why", "B/2")


def test_why_on_this_machine(sweep: SweepCommands, fake: FakeStudy) -> None:
    fake.started_here("S/4")
    assert "no job of this machine is at it any more; the same" in sweep("why", "S/4")
    with fake.at_work("S/4"):
        assert sweep("why", "S/4").splitlines()[-1] == "all is well: no attempt failed"
        assert "the jobs of this machine come to it" in sweep("why", "S/2")
    fake.failed_once("S/4", "it diverged")
    fake.given_up("S/4", "it diverged")
    assert "training: 1 of 1 allowed attempts failed" in sweep("why", "S/4")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "Priority: jobs of higher priority come first"),
        ("Resources", "no free resources"),
        ("BeginTime", "put back into the queue"),
        ("Dependency", "it waits for another job"),
        ("DependencyNeverSatisfied", "it will never start"),
        ("QOSMaxJobsPerUserLimit", "beyond what its QOS allows"),
        ("AssocGrpGRES", "its account is at its limit"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-3]", "ReqNodeNotAvail, UnavailableNodes:n[1-3]: nodes it needs"),
        ("JobHeldUser", "`scontrol release` it"),
        ("launch failed requeued held", "could not be launched"),
        ("SomethingNew", "SLURM's reason: SomethingNew\n"),
    ],
)
def test_why_it_waits(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy, reason: str, words: str) -> None:
    fake.submitted(fake.array("training", "22", "S/4", "S/2"))
    slurm.accounting("22_[0-1]|PENDING|training|")
    slurm.queue(f"22_0|PENDING|training||{reason}", "22_1|PENDING|training||Other")
    assert words in sweep("why", "S/4")


def test_why_it_waits_in_a_running_job(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    fake.submitted(fake.array("training", "22", ["S/4", "S/2"]))
    slurm.accounting("22|RUNNING|training|n1")
    assert "its job 22 is running: it does its runs one after the other" in sweep("why", "S/2")


def test_why_it_failed(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    fake.failed_once("S/4", "an earlier one", attempt="21_0.0")
    error = "ValueError: bad shape"
    facts = {"job": "22_0", "attempt": "22_0.1", "node": "n7", "rank": 3, "log": "submissions/0001/jobs/22_0_0_log.out"}
    fake.failed_once("S/4", error, traceback="Traceback (most recent call last)", **facts)
    fake.failed_once("S/4", "another rank of that attempt", **facts)
    log = fake.folder / "submissions" / "0001" / "jobs" / "22_0_0_log.out"
    noise = [f"step {step}" for step in range(100)]
    traceback = ["ERROR Traceback (most recent call last):", *(f"  File {n}" for n in range(20)), f"ERROR {error}"]
    log.write_text("\n".join([*noise, *traceback, *noise]) + "\n")
    lines = sweep("why", "S/4").splitlines()
    assert "training: 2 of 3 allowed attempts failed" in lines
    head = lines.index(
        "last failure, in training (2026-01-01T10:01:00+0000, job 22_0, attempt 22_0.1, node n7, rank 3):"
    )
    assert lines[head + 1 : head + 3] == [f"  {error}", f"{log}:"]
    assert lines[head + 3 :] == [f"  | {line}" for line in traceback]

    fake.given_up("S/4", error)
    said = sweep("why", "S/4")
    assert said.startswith("S/4: failed")
    assert "given up; the same `ditbench sweep submit` tries it again" in said


def test_why_says_what_its_stops_cost(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    for attempt, useful_s in (("22_0.0", 0.0), ("22_0.1", 900.0), ("22_0.2", 0.5), ("22_0.3", 1.5)):
        row = {"time": "2026-01-01T10:00:00+0000", "attempt": attempt, "useful_s": useful_s, "lost_s": 150.0}
        append(fake.run("S/4") / "stops.jsonl", row)
    (line,) = (line for line in sweep("why", "S/4").splitlines() if "stopped by SLURM" in line)
    assert "2 times in a row" in line
    assert "allowed attempts failed" not in sweep("why", "S/4")
    fake.failed_once("S/4", "given up", lost_s=300.0)
    assert "training: 0 of 3 allowed attempts failed" in sweep("why", "S/4")
    assert "0:05:00 lost, 0:00:02 useful" in line


def test_why_it_failed_where_the_log_is_gone(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    fake.submitted(fake.array("scoring", "23", "S/4"))
    slurm.accounting("23|PENDING|scoring|")
    slurm.queue("23|PENDING|scoring||BeginTime")
    fake.trained("S/4")
    fake.failed_once("S/4", "KeyError: 1", "scoring", traceback="Traceback\n  line\nKeyError: 1", log="gone")
    lines = sweep("why", "S/4").splitlines()
    assert "scoring: 1 of 3 allowed attempts failed" in lines
    assert lines[-4:] == ["  KeyError: 1", "  | Traceback", "  |   line", "  | KeyError: 1"]


def test_why_it_stopped(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    slurm.accounting("22_0|OUT_OF_MEMORY|training|n1", "22_1|CANCELLED by 0|training|", "23_[0-1]|CANCELLED|scoring|")
    lines = sweep("why", "S/4").splitlines()
    assert lines[0] == "S/4: stopped: OUT_OF_MEMORY, step 4/12, job 22_0"
    assert "more memory than it had asked for" in lines[1]
    assert "the same `ditbench sweep submit` continues it" in lines[1]
    assert lines[-1] == "  | step 4"
    assert "it left no log" in sweep("why", "S/2")
    slurm.is_down()
    said = sweep("why", "S/4")
    assert said.startswith("S/4: unknown")
    assert "SLURM does not answer" in said


def test_why_it_was_not_requeued(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    """Said until a later job has started the run."""
    submit_two(fake, slurm)
    slurm.accounting("22_0|FAILED|training|n1", "22_1|FAILED|training|n1", "23_[0-1]|CANCELLED|scoring|")
    folder = submissions.submission_folder(fake.folder, 1)
    submissions.record_not_requeued(folder, "22_0.0", [fake.run("S/4").name], "scontrol: Socket timed out")
    said = sweep("why", "S/4")
    assert "its job 22_0 ended with work left" in said
    assert "scontrol: Socket timed out" in said
    assert "Socket timed out" not in sweep("why", "S/2")
    later = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() + 5))
    fake.started("S/4", "24_0", time=later)
    assert "Socket timed out" not in sweep("why", "S/4")


def test_why_a_trained_run_has_no_scores(sweep: SweepCommands, slurm: FakeSlurm, fake: FakeStudy) -> None:
    submit_two(fake, slurm)
    fake.trained("S/4")
    slurm.accounting("22_[0-1]|COMPLETED|training|n1", "23_[0-1]|TIMEOUT|scoring|n1")
    said = sweep("why", "S/4")
    assert "S/4: trained, step 12/12, job 23_0" in said
    assert "its scoring job 23_0 ended: its time limit ran out" in said
    assert "no job is there to score it" in said
