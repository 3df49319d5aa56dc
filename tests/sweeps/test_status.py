"""What the files of runs, and SLURM's commands, make of a study: each state, in the right order of trust."""

from __future__ import annotations

import fcntl
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_slurm import FakeSlurm, FakeStudy, append

from bench.errors import InputError
from bench.files.jsonl import TAIL_BYTES
from bench.files.run_files import read_ends
from bench.flops import forward_gmacs
from sweeps.slurm import submissions
from sweeps.slurm.submissions import JobArray
from sweeps.watch import jobs, pace
from sweeps.watch.named_runs import find_run
from sweeps.watch.status import RunStatus, run_status
from sweeps.watch.status_table import cells, counts, duration
from sweeps.watch.study import Look, Study


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(fake.folder))
    return fake


@pytest.fixture
def study(tmp_path: Path) -> FakeStudy:
    return FakeStudy(tmp_path)


def look(study: FakeStudy) -> Look:
    return Study(study.sweep, study.runs).look()


def of(seen: Look, label: str) -> RunStatus:
    return next(run for run in seen.runs if run.label == label)


def states(study: FakeStudy) -> dict[str, str]:
    return {run.label: run.shown_state for run in look(study).runs}


def submit_all(study: FakeStudy) -> None:
    """Training 22 and scoring 23, of S/4, S/2, B/4 and B/2."""
    labels = ("S/4", "S/2", "B/4", "B/2")
    study.submitted(study.array("training", "22", *labels), study.array("scoring", "23", *labels))


# --- On this machine ---


def test_here_locks_tell_and_slurm_is_not_asked(slurm: FakeSlurm, study: FakeStudy) -> None:
    slurm.accounting()
    slurm.queue()
    for label in ("S/4", "S/2", "B/4"):
        study.started_here(label)
    study.finished("S/4")
    study.given_up("B/4", "it diverged")
    with study.at_work("S/2"):
        assert states(study) == {"S/4": "finished", "S/2": "running", "B/4": "failed", "B/2": "waiting"}
        assert look(study).is_live
    seen = look(study)
    assert of(seen, "S/2").state == "stopped"  # nothing is left to continue it
    assert of(seen, "S/2").node == "laptop"
    assert of(seen, "B/4").error == "it diverged"
    assert not seen.is_live
    assert slurm.calls() == []


def test_here_a_run_between_two_jobs_waits_while_any_job_lives(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.started_here("S/4")
    (study.folder / "jobs").mkdir()
    with (study.folder / "jobs" / ".slot-0").open("w") as slot:
        fcntl.flock(slot, fcntl.LOCK_EX)
        assert set(states(study).values()) == {"waiting"}
        assert look(study).is_live
    recipe = study.sweep.recipes[0]
    assert run_status(recipe, study.run("S/4")).state == "waiting"


def test_a_study_that_is_not_there_is_said(slurm: FakeSlurm, study: FakeStudy) -> None:
    seen = look(study)
    assert {run.state for run in seen.runs} == {"waiting"}
    assert seen.notes == (f"{study.folder}: no such folder; --runs is where `sweep submit` had it",)


# --- On SLURM: what is trusted before what ---

Prepare = Callable[[FakeStudy], object]
NOTHING: Prepare = lambda study: None  # noqa: E731


@pytest.mark.parametrize(
    ("prepare", "training", "scoring", "expected"),
    [
        (NOTHING, "PENDING", "PENDING", "queued"),
        (NOTHING, "RUNNING", "PENDING", "running"),
        (NOTHING, "COMPLETING", "PENDING", "running"),
        (NOTHING, "SUSPENDED", "PENDING", "running"),
        (lambda s: s.trained("S/4"), "COMPLETED", "PENDING", "queued: scoring"),
        # Its job may have others to train, or not have ended yet.
        (lambda s: s.trained("S/4"), "RUNNING", "PENDING", "queued: scoring"),
        (lambda s: s.trained("S/4"), "COMPLETED", "RUNNING", "scoring"),
        (lambda s: s.trained("S/4"), "COMPLETED", "TIMEOUT", "trained"),
        (lambda s: s.trained("S/4"), "COMPLETED", "COMPLETED", "trained"),
        (lambda s: s.finished("S/4"), "COMPLETED", "RUNNING", "finished"),
        (lambda s: s.finished("S/4"), "TIMEOUT", "CANCELLED by 0", "finished"),
        (NOTHING, "TIMEOUT", "CANCELLED", "stopped: TIMEOUT"),
        (NOTHING, "CANCELLED by 1000", "CANCELLED by 1000", "stopped: CANCELLED"),
        (NOTHING, "OUT_OF_MEMORY", "PENDING", "stopped: OUT_OF_MEMORY"),  # the scoring job will never start
        (NOTHING, "FAILED", "CANCELLED", "stopped: FAILED"),
        (NOTHING, "COMPLETED", "COMPLETED", "stopped: COMPLETED"),
        (lambda s: s.given_up("S/4", "it diverged"), "FAILED", "CANCELLED", "failed"),
        (lambda s: s.given_up("S/4", "it diverged"), "RUNNING", "PENDING", "failed"),
        (lambda s: s.given_up("S/4", "no", "scoring"), "RUNNING", "FAILED", "running"),
        (lambda s: (s.trained("S/4"), s.given_up("S/4", "no", "scoring")), "COMPLETED", "FAILED", "failed"),
        (NOTHING, "REQUEUE_HOLD", "PENDING", "queued: REQUEUE_HOLD"),
        (NOTHING, "SPECIAL_EXIT", "PENDING", "queued: SPECIAL_EXIT"),
        (NOTHING, "HIBERNATING", "PENDING", "unknown: HIBERNATING"),
        (lambda s: s.trained("S/4"), "COMPLETED", "HIBERNATING", "unknown: HIBERNATING"),
        (NOTHING, "RUNNING", "HIBERNATING", "running"),
    ],
)
def test_precedence(
    slurm: FakeSlurm, study: FakeStudy, prepare: Prepare, training: str, scoring: str, expected: str
) -> None:
    study.submitted(study.array("training", "22", "S/4"), study.array("scoring", "23", "S/4"))
    prepare(study)
    slurm.accounting(f"22|{training}|training|n1", f"23|{scoring}|scoring|None assigned")
    slurm.queue()
    assert states(study) == {"S/4": expected, "S/2": "waiting", "B/4": "waiting", "B/2": "waiting"}
    assert all(call.startswith("sacct") for call in slurm.calls())


def test_a_training_job_that_scores_goes_on_after_training(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", "22", "S/4"), evaluate="inline")
    study.trained("S/4")
    slurm.accounting("22|RUNNING|training|n1")
    assert states(study)["S/4"] == "running"
    slurm.accounting("22|TIMEOUT|training|n1")
    assert states(study)["S/4"] == "trained"


def test_a_run_given_up_before_is_submitted_anew(slurm: FakeSlurm, study: FakeStudy) -> None:
    """The newest job that has not ended counts; else the newest."""
    study.submitted(study.array("training", "22", "S/4", "S/2", name="first"))
    study.submitted(study.array("training", "30", "S/4", name="second"), number=2)
    slurm.accounting("22_0|TIMEOUT|first|n1", "22_1|TIMEOUT|first|n1", "30|PENDING|second|None assigned")
    assert states(study)["S/4"] == "queued"
    slurm.accounting("22_0|TIMEOUT|first|n1", "22_1|TIMEOUT|first|n1", "30|CANCELLED|second|None assigned")
    seen = look(study)
    assert (of(seen, "S/4").shown_state, of(seen, "S/4").job) == ("stopped: CANCELLED", "30")
    assert (of(seen, "S/2").shown_state, of(seen, "S/2").job) == ("stopped: TIMEOUT", "22_1")


def test_a_run_that_this_machine_continues_is_running(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", "22", "S/4"))
    study.started("S/4", "22")
    slurm.accounting("22|TIMEOUT|training|n1")
    with study.at_work("S/4"):
        assert states(study)["S/4"] == "stopped: TIMEOUT"  # a lock of another start than SLURM's says nothing
        append(study.run("S/4") / "sessions.jsonl", {"time": "2026-01-01T11:00:00+0000", "cluster": "local"})
        assert states(study)["S/4"] == "running"


# --- How SLURM is asked ---


def test_one_call_for_all_jobs(slurm: FakeSlurm, study: FakeStudy) -> None:
    submit_all(study)
    slurm.accounting(
        "22_0|RUNNING|training|n1",
        "22_[1-3%4]|PENDING|training|None assigned",
        "23_[0-3%1]|PENDING|scoring|None assigned",
    )
    slurm.queue()
    seen = look(study)
    assert {run.label: run.state for run in seen.runs} == {
        "S/4": "running", "S/2": "queued", "B/4": "queued", "B/2": "queued",
    }  # fmt: skip
    assert [run.job for run in seen.runs] == ["22_0", "22_1", "22_2", "22_3"]
    assert [run.node for run in seen.runs] == ["n1", None, None, None]
    assert counts(seen.runs) == "0 of 4 finished, 1 running, 3 queued"
    assert seen.notes == ()
    assert [call.split(" -j ") for call in slurm.calls()] == [
        ["sacct -X --noheader --parsable2 --format=JobID,State,JobName,NodeList", "22,23"]
    ]


def test_a_run_that_ends_while_slurm_is_asked_is_not_taken_for_dead(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", "22", "S/4", "S/2"), evaluate="inline")
    finished = study.run("S/4") / "finished.json"
    slurm.says("sacct", "22_0|COMPLETED|training|n1", "22_1|RUNNING|training|n1", first=f"echo '{{}}' > {finished}")
    assert of(look(study), "S/4").state == "finished"


@pytest.mark.parametrize(
    ("listed", "indices"),
    [("22_[0-3%4]", {0, 1, 2, 3}), ("22_[0,2-3]", {0, 2, 3}), ("22_[1-3:2%1]", {1, 3})],
)
def test_waiting_tasks_are_listed_together(slurm: FakeSlurm, study: FakeStudy, listed: str, indices: set[int]) -> None:
    submit_all(study)
    slurm.accounting(f"{listed}|PENDING|training|None assigned")
    slurm.queue()
    queued = {run.job for run in look(study).runs if run.state == "queued"}
    assert queued == {f"22_{index}" for index in indices}


def test_no_call_when_nothing_is_left(slurm: FakeSlurm, study: FakeStudy) -> None:
    submit_all(study)
    for label in ("S/4", "S/2", "B/4"):
        study.finished(label)
    study.given_up("B/2", "it diverged")
    slurm.accounting()
    slurm.queue()
    seen = look(study)
    assert counts(seen.runs) == "3 of 4 finished, 1 failed"
    assert not seen.is_live
    assert slurm.calls() == []


def test_watching_asks_now_and_then_and_reads_files_always(slurm: FakeSlurm, study: FakeStudy) -> None:
    submit_all(study)
    slurm.accounting("22_[0-3]|RUNNING|training|n1", "23_[0-3]|PENDING|scoring|None assigned")
    watched = Study(study.sweep, study.runs, ask_every_s=1000)
    watched.look()
    study.logged("S/4", 8)
    assert of(watched.look(), "S/4").step == 8
    assert len(slurm.calls()) == 1


def test_who_watches_asks_less_often_while_nothing_changes(
    slurm: FakeSlurm, study: FakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_all(study)
    slurm.accounting("22_[0-3]|RUNNING|training|n1", "23_[0-3]|PENDING|scoring|")
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    watched = Study(study.sweep, study.runs, pace.SHORTEST_SECONDS)

    def asked(until: int) -> dict[float, int]:
        """When SLURM is asked by one who looks every 5 s, and how many notes there are then."""
        times = {}
        while clock.seconds < until:
            before = len(slurm.calls())
            notes = watched.look().notes
            if len(slurm.calls()) > before:
                times[clock.seconds] = len(notes)
            clock.seconds += 5
        return times

    assert asked(300) == {0: 0, 10: 1, 30: 1, 70: 1, 130: 1, 190: 1, 250: 1}
    slurm.accounting("22_[0-2]|RUNNING|training|n1", "22_3|TIMEOUT|training|n1", "23_[0-3]|PENDING|scoring|")
    assert asked(345) == {310: 0, 320: 1, 340: 1}


@pytest.mark.slow
def test_a_silent_slurm_is_given_up_in_time(
    slurm: FakeSlurm, study: FakeStudy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Accounting and the queue together; the files tell what they can, and who waits is told."""
    submit_all(study)
    study.finished("S/4")
    for command in ("sacct", "squeue"):
        slurm.says(command, first="/bin/sleep 100")
    monkeypatch.setattr(jobs, "PATIENCE_SECONDS", 3.0)
    begun = time.monotonic()
    seen = look(study)
    assert 2.5 < time.monotonic() - begun < 5
    assert {run.label: run.state for run in seen.runs} == {
        "S/4": "finished", "S/2": "unknown", "B/4": "unknown", "B/2": "unknown",
    }  # fmt: skip
    assert "SLURM does not answer" in seen.notes[0]
    assert "waiting for s" in capfd.readouterr().err  # sacct or squeue, whose turn it is after 2 s
    slurm.queue("22_1|RUNNING|training|n1|None")  # accounting alone is silent
    assert of(look(study), "S/2").state == "running"


@pytest.mark.parametrize("is_there", [False, True])
def test_without_accounting_the_queue_tells_and_says_so(slurm: FakeSlurm, study: FakeStudy, is_there: bool) -> None:
    submit_all(study)
    study.finished("B/4")
    study.trained("B/2")
    if is_there:
        slurm.says("sacct", status=1, error="sacct: error: Slurm accounting storage is disabled")
    slurm.queue(
        "22_0|RUNNING|training|n2|None",
        "23_0|PENDING|scoring||Dependency",
        "99|RUNNING|another|n1|None",
    )
    seen = look(study)
    assert seen.notes == ("sacct does not answer here: states are from squeue and the run folders",)
    assert {run.label: run.shown_state for run in seen.runs} == {
        "S/4": "running", "S/2": "stopped", "B/4": "finished", "B/2": "trained",
    }  # fmt: skip
    assert of(seen, "S/4").node == "n2"
    assert [call.split()[0] for call in slurm.calls()] == ["sacct", "squeue"][not is_there :]


def test_no_answer_is_unknown_never_dead(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", "22", "S/4", "S/2", "B/4"))
    study.finished("S/2")
    study.given_up("B/4", "it diverged")
    slurm.is_down()
    seen = look(study)
    assert {run.label: run.shown_state for run in seen.runs} == {
        "S/4": "unknown", "S/2": "finished", "B/4": "failed", "B/2": "waiting",
    }  # fmt: skip
    assert len(seen.notes) == 1
    assert "SLURM does not answer (squeue: Unable to contact slurm controller)" in seen.notes[0]
    assert seen.is_live


def test_where_slurm_is_not_installed_states_are_unknown(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", "22", "S/4"))
    seen = look(study)
    assert of(seen, "S/4").state == "unknown"
    assert "squeue: not found on the PATH" in seen.notes[0]


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", "REQUEUED"])
def test_a_job_that_is_being_requeued_is_not_taken_for_lost(slurm: FakeSlurm, study: FakeStudy, state: str) -> None:
    study.submitted(study.array("training", "22", "S/4"))
    slurm.accounting(f"22|{state}|training|n1")
    slurm.queue("22|PENDING|training||BeginTime")
    assert states(study)["S/4"] == "queued"
    assert [call.split()[0] for call in slurm.calls()] == ["sacct", "squeue"]

    slurm.queue()
    assert states(study)["S/4"] == ("stopped" if state == "REQUEUED" else f"stopped: {state}")
    slurm.says("squeue", status=1, error="Unable to contact slurm controller")
    seen = look(study)
    assert of(seen, "S/4").state == "unknown"
    assert seen.notes == ("the queue cannot be seen (squeue: Unable to contact slurm controller)",)


def test_jobs_that_accounting_does_not_know_yet_are_in_the_queue(slurm: FakeSlurm, study: FakeStudy) -> None:
    """New jobs have another name there for a moment; held ones are not there at all."""
    study.submitted(study.array("training", "22", "S/4", "S/2"))
    slurm.accounting("22|PENDING|allocation|n1")
    slurm.queue("22_0|PENDING|training||Priority", "22_1|RUNNING|training|n1|None")
    seen = look(study)
    assert (of(seen, "S/4").state, of(seen, "S/2").state) == ("queued", "running")


def test_a_submission_that_was_cut_off_is_known_by_its_name(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", None, "S/4", "S/2"))
    slurm.accounting()
    slurm.queue("22_1|PENDING|training||Priority")
    assert states(study) == {"S/4": "waiting", "S/2": "queued", "B/4": "waiting", "B/2": "waiting"}
    slurm.is_down()
    assert states(study)["S/4"] == "unknown"


def test_jobs_of_other_names_are_not_ours(slurm: FakeSlurm, study: FakeStudy) -> None:
    """Ids of another cluster, or ids that began anew."""
    study.submitted(study.array("training", "22", "S/4"))
    slurm.accounting("22|RUNNING|somebody-elses|n1")
    slurm.queue("22|RUNNING|somebody-elses|n1|None")
    assert states(study)["S/4"] == "stopped"


# --- Several runs in a job, several jobs for a run ---


def test_of_runs_in_one_job_one_is_at_work(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", "22", ["S/4", "S/2", "B/4"]))
    slurm.accounting("22|RUNNING|training|n1")
    assert states(study) == {"S/4": "running", "S/2": "queued", "B/4": "queued", "B/2": "waiting"}
    study.started("S/4", "22")
    study.trained("S/4")
    assert states(study) == {"S/4": "trained", "S/2": "running", "B/4": "queued", "B/2": "waiting"}
    study.started("S/2", "22", time="2026-01-01T10:00:10+0000")
    study.started("B/4", "22", time="2026-01-01T10:00:20+0000")  # S/2 failed, and is tried again afterwards
    assert states(study) == {"S/4": "trained", "S/2": "queued", "B/4": "running", "B/2": "waiting"}


def test_scoring_while_training_goes_on(slurm: FakeSlurm, study: FakeStudy) -> None:
    """The record has the newest scoring job only; the one that is at work has left a row in the run folder."""
    study.submitted(study.array("training", "22", "S/4"), study.array("scoring", "23", "S/4"))
    early = JobArray.model_validate(study.array("scoring", "31", "S/4", name="early"))
    submissions.write_early_scoring(submissions.submission_folder(study.folder, 1), early)
    study.started("S/4", "30", "scoring")
    still_to_come = "23|PENDING|scoring|None assigned", "31|PENDING|early|None assigned"
    slurm.accounting("22|RUNNING|training|n1", "30|RUNNING|early|n2", *still_to_come)
    assert states(study)["S/4"] == "running"
    slurm.accounting("22|PENDING|training|n1", "30|RUNNING|early|n2", *still_to_come)
    seen = look(study)
    assert (of(seen, "S/4").state, of(seen, "S/4").job, of(seen, "S/4").node) == ("scoring", "30", "n2")
    assert all("22,23,30,31" in call for call in slurm.calls())


# --- What is read from the files ---


def test_figures(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", "22", "S/4", "S/2", "B/4"))
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(time.time() - 3700))
    study.started("S/4", "22_0", time=now)
    study.started("S/4", "22_0", precision="bf16", world_size=4)
    study.logged("S/4", 2, images_per_s=1.0)
    study.logged("S/4", 4, images_per_s=64.0)
    study.scored("S/4", 6, 98.765)
    study.started("S/2", "22_1")
    study.finished("S/2")
    study.started("B/4", "22_2", cluster="elsewhere")
    study.logged("B/4", 4)
    slurm.accounting("22_0|RUNNING|training|n3", "22_2|TIMEOUT|training|n1")
    seen = look(study)
    run = of(seen, "S/4")
    assert (run.step, run.steps, run.loss, run.images_per_s) == (4, 12, 0.5, 64.0)
    assert (run.fid, run.fid_step, run.restarts, run.node) == (98.765, 6, 1, "n3")
    assert run.seconds_left == (12 - 4) * 32 / 64
    gmacs = forward_gmacs(study.sweep.recipes[0].model)
    assert run.mfu == pytest.approx(64 * 6 * gmacs / (4 * 0.002 * 1000))
    assert run.elapsed_s == pytest.approx(3700, abs=60)
    assert cells(run)["elapsed"].startswith("1:0")
    assert of(seen, "S/2").elapsed_s == 123
    assert of(seen, "S/2").seconds_left is None
    assert of(seen, "B/4").mfu is None  # no peak is known of that cluster
    assert of(seen, "B/4").seconds_left is None
    assert cells(of(seen, "B/2")) == {
        **dict.fromkeys(cells(run), ""), "model": "B/2", "state": "waiting", "step": "0/12",
    }  # fmt: skip


@pytest.mark.parametrize("rate", [0.0, math.nan, math.inf])
def test_a_rate_that_tells_no_time(slurm: FakeSlurm, study: FakeStudy, rate: float) -> None:
    study.submitted(study.array("training", "22", "S/4"))
    study.started("S/4", "22")
    study.logged("S/4", 4, images_per_s=rate)
    slurm.accounting("22|RUNNING|training|n3")
    run = of(look(study), "S/4")
    assert (run.images_per_s, run.seconds_left, run.mfu) == (None, None, None)
    assert [cells(run)[column] for column in ("images/s", "left", "MFU")] == ["", "", ""]


def test_slow_training_is_not_shown_as_none_at_all(slurm: FakeSlurm, study: FakeStudy) -> None:
    study.submitted(study.array("training", "22", "S/4"))
    study.started("S/4", "22")
    study.logged("S/4", 4, images_per_s=0.125)
    slurm.accounting("22|RUNNING|training|n3")
    assert float(cells(of(look(study), "S/4"))["images/s"]) == pytest.approx(0.125, abs=0.01)


def test_durations() -> None:
    assert [duration(s) for s in (5, 65, 3600, 90061)] == ["0:05", "1:05", "1:00:00", "1-01:01:01"]


def test_only_the_end_of_a_metric_file_is_read(study: FakeStudy) -> None:
    path = study.run("S/4") / "train.jsonl"
    with path.open("wb") as file:
        file.truncate(8 << 30)  # a hole: no disk space, but hours to parse
    append(path, {"step": 3})  # its line begins in the hole
    append(path, {"step": 4})
    for name in ("evals.jsonl", "sessions.jsonl"):
        append(study.run("S/4") / name, {"step": 4})
    counter = Path("/proc/self/io")
    before = _bytes_read(counter)
    files = read_ends(study.sweep.recipes[0], study.run("S/4"))
    assert files.train == {"step": 4}
    if counter.exists():
        assert _bytes_read(counter) - before <= TAIL_BYTES + 4096


def _bytes_read(counter: Path) -> int:
    return int(counter.read_text().split()[1]) if counter.exists() else 0


def test_runs_are_found_by_label_id_and_folder(slurm: FakeSlurm, study: FakeStudy, tmp_path: Path) -> None:
    files = look(study).files
    recipe = study.sweep.recipes[1]
    for name in ("S/2", recipe.id, recipe.folder_name):
        assert find_run(files, name).recipe is recipe
    with pytest.raises(InputError, match=r"S/3: no such run; accepted: S/4, S/2, B/4, B/2, or a recipe's id"):
        find_run(files, "S/3")
    alike = tmp_path / "alike"
    alike.mkdir()
    alike_files = look(FakeStudy(alike, label="{size}")).files
    with pytest.raises(InputError, match=r"S: 2 runs have this label; accepted: S-\w{10}, S-\w{10}$"):
        find_run(alike_files, "S")


def test_a_damaged_record_is_named(slurm: FakeSlurm, study: FakeStudy) -> None:
    submit_all(study)
    record = study.folder / "submissions" / "0001" / "record.json"
    record.write_text(json.dumps({"number": 1}))
    with pytest.raises(InputError, match=r"record\.json: not a whole record"):
        look(study)
