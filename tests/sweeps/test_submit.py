"""`ditbench sweep submit` on SLURM: answers that are lost, limits that are hit, and jobs between two states."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Ended, ditbench
from fake_slurm import PROFILE, FakeStudy
from small_slurm import SmallSlurm

from bench.errors import RunError
from sweeps.slurm import client, ending, score_early, submissions, waiting

LABELS = ("S/4", "S/2", "B/4", "B/2")


class Case:
    """Four runs, a profile, and a SLURM."""

    def __init__(self, folder: Path) -> None:
        self.study = FakeStudy(folder)
        self.slurm = SmallSlurm(folder / "bin")
        self.profile_file = folder / "profile.yaml"
        self.profile()

    def profile(self, **keys: Any) -> None:
        mfu = {"training": 0.2, "sampling": 0.2, "source": "assumed"}
        self.profile_file.write_text(yaml.safe_dump({**PROFILE, "mfu": mfu, **keys}))

    def sweep(self, verb: str, *more: str) -> Ended:
        arguments = [verb, self.study.file, *more, "--runs", self.study.runs]
        return ditbench("sweep", *arguments, PATH=str(self.slurm.folder))

    def submit(self, status: int = 0) -> Ended:
        done = self.sweep("submit", "--cluster", str(self.profile_file))
        assert done.status == status, done.err
        assert "Traceback" not in done.err
        return done

    def tasks(self) -> dict[str, Counter[str]]:
        """How many live jobs every run has, by kind, as the records tell them."""
        arrays = {a.name: a for record in submissions.read_all(self.study.folder) for a in record.arrays}
        found: dict[str, Counter[str]] = {"training": Counter(), "scoring": Counter()}
        for job in self.slurm.jobs():
            array = arrays[job["name"]]
            for run in array.tasks[array.index_of(client.Job(job["id"], job["state"]))]:
                found[array.kind][run] += 1
        return found

    def is_whole(self) -> bool:
        """Every run is trained by one job, and scored by one that waits for just that."""
        if not all(job["dependency"] for job in self.slurm.jobs() if "-scoring-" in job["name"]):
            return False
        once = Counter(self.study.run(label).name for label in LABELS)
        return self.tasks() == {"training": once, "scoring": once} and self.waits_for_its_training()

    def waits_for_its_training(self) -> bool:
        """Whether every scoring job waits for the training job of the same runs."""
        records = submissions.read_all(self.study.folder)
        runs_of = {
            str(array.task_id(index)): task
            for record in records
            for array in record.arrays
            if array.job_id
            for index, task in enumerate(array.tasks)
        }
        names = {a.name: a for record in records for a in record.arrays}
        for job in self.slurm.jobs():
            if names[job["name"]].kind == "scoring" and job["dependency"]:
                kind, _, on = job["dependency"].split(",")[0].partition(":")
                wanted = f"{on}_{job['id'].partition('_')[2]}" if kind == "aftercorr" else on
                if runs_of[wanted] != runs_of[job["id"]]:
                    return False
        return True


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(client, "LOOK_AGAIN_SECONDS", (0.1, 0.1))
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(waiting, "SAY_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(ending, "LOOK_AGAIN_SECONDS", (0.1, 0.1))
    monkeypatch.setattr(ending, "ENDING_SECONDS", 1.5)
    return Case(tmp_path)


# --- Answers that are lost ---


@pytest.mark.parametrize("fault", ["lost", "fails", "hangs"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_job_whose_answer_was_lost_is_taken_for_submitted(case: Case, fault: str, which: int) -> None:
    """By its name, in the same call; the array that comes after it waits for it."""
    case.slurm.misbehave("sbatch", *["none"] * which, fault)
    said = case.submit().out
    assert case.is_whole()
    assert "70: training, an array of 4" in said
    assert "71: scoring, an array of 4" in said
    assert "nothing to submit: of 4 runs 0 finished, 4 queued or running" in case.submit().out
    assert len(case.slurm.calls("sbatch")) == 2


@pytest.mark.parametrize("which", [0, 1])
def test_a_job_that_comes_up_late_is_not_submitted_twice(case: Case, which: int) -> None:
    """Nobody can see it when sbatch gave up; the next `submit` does, and submits what is missing beside it."""
    case.slurm.misbehave("sbatch", *["none"] * which, "lost")
    case.slurm.misbehave("squeue", *["none"], *["Unable to contact slurm controller"] * 3)
    said = case.submit(status=1)
    assert "SLURM does not answer" in said.err
    assert len(case.slurm.jobs()) == 4 * (which + 1)
    case.submit()
    assert case.is_whole()
    assert "nothing to submit" in case.submit().out
    assert all(array.job_id for record in submissions.read_all(case.study.folder) for array in record.arrays)


@pytest.mark.parametrize("which", [0, 1])
def test_a_request_that_never_arrived_is_made_again_by_the_same_command(case: Case, which: int) -> None:
    """Also that of the second array, whose first one is in the queue already."""
    case.slurm.misbehave("sbatch", *["none"] * which, "Unable to contact slurm controller (connect failure)")
    case.submit(status=1)
    assert len(case.slurm.jobs()) == 4 * which
    said = case.submit().out
    assert case.is_whole()
    assert ("0 runs to train, 0 to score, 4 to score after their training" in said) == (which == 1)


def test_what_a_job_needs_is_there_before_sbatch_is_called(case: Case) -> None:
    """Else one whose answer was lost would start, find nothing to do, and fail."""
    case.slurm.misbehave("sbatch", "stuck")
    case.submit(status=1)
    (script,) = case.slurm.calls("sbatch")[0]
    text = Path(script).read_text()
    (link,) = [line for line in text.splitlines() if line.startswith("ln -sf ")]
    target = link.split()[2].replace('"${SLURM_ARRAY_TASK_ID:-0}"', "3")
    assert (Path(script).parent / target).exists()


def test_the_second_array_is_completed_for_tasks_that_are_left(case: Case) -> None:
    """Training of some runs has ended meanwhile: indices have gaps, and one is alone."""
    case.slurm.misbehave("sbatch", "none", "Unable to contact slurm controller")
    case.submit(status=1)
    case.slurm.change("70_1", state="FAILED")
    case.slurm.change("70_2", state="RUNNING")
    case.submit()
    assert case.is_whole()
    dependencies = {job["dependency"] for job in case.slurm.jobs() if job["dependency"]}
    assert dependencies == {"afterok:71", "aftercorr:70"}


def test_scoring_jobs_that_were_lost_alone_are_submitted_again(case: Case) -> None:
    case.submit()
    case.slurm.change("71", state="CANCELLED")
    case.submit()
    assert case.is_whole()
    assert [job["dependency"] for job in case.slurm.jobs()[4:]] == ["aftercorr:70"] * 4


def test_a_refusal_takes_back_what_was_accepted(case: Case) -> None:
    case.slurm.misbehave("sbatch", "none", "Batch job submission failed: Invalid partition name specified")
    said = case.submit(status=2)
    assert "SLURM refused the scoring array: Batch job submission failed: Invalid partition name specified" in said.err
    assert not case.slurm.jobs()
    case.slurm.misbehave("sbatch", "none", "Invalid partition name specified")
    case.slurm.misbehave("scancel", "Socket timed out")
    assert "70" in case.submit(status=2).err or case.slurm.jobs()
    case.submit()  # ends them first: their record says that they were cancelled
    assert case.is_whole()


def test_waiting_is_said(case: Case) -> None:
    case.slurm.misbehave("squeue", "stuck")
    assert "waiting for squeue" in case.submit(status=1).err
    case.slurm.misbehave("sbatch", "hangs")
    assert "waiting for sbatch" in case.submit().err


# --- Limits ---


def test_arrays_are_no_larger_than_slurm_says(case: Case) -> None:
    case.slurm.set(MaxArraySize=3)
    case.submit()
    assert case.is_whole()
    sizes = Counter(job["id"].partition("_")[0] for job in case.slurm.jobs())
    assert sorted(sizes.values()) == [1, 1, 3, 3]


@pytest.mark.parametrize(("max_parallel", "expected"), [(1, 1), (3, 3), (1000, 1000)])
def test_arrays_cut_for_their_size_share_what_may_run_at_once(case: Case, max_parallel: int, expected: int) -> None:
    case.profile(max_parallel=max_parallel)
    case.slurm.set(MaxArraySize=2)
    case.submit()
    assert case.is_whole()
    training = [job for job in case.slurm.jobs() if "-training-" in job["name"]]
    first = {job["id"].partition("_")[0]: int(job["at_once"]) for job in training if not job["dependency"]}
    assert sum(first.values()) == min(expected, 4)
    assert len(first) == (1 if max_parallel == 1 else 2)


def test_without_a_word_of_slurms_arrays_are_of_a_safe_size(case: Case) -> None:
    (case.slurm.folder / "scontrol").unlink()
    case.submit()
    assert case.is_whole()


@pytest.mark.parametrize("limit", [pytest.param(1, marks=pytest.mark.slow), 3, 5, 8])
def test_what_fits_is_submitted_and_the_same_command_continues(case: Case, limit: int) -> None:
    case.slurm.set(max_submit=limit)
    for attempt in range(20):
        done = case.sweep("submit", "--cluster", str(case.profile_file))
        assert max([*case.tasks()["training"].values(), *case.tasks()["scoring"].values(), 0]) <= 1
        assert case.waits_for_its_training()
        assert len(case.slurm.jobs()) <= limit
        if attempt == 0:
            assert len(case.slurm.jobs()) == limit
            assert done.status == (0 if limit == 8 else 1)
            assert ("AssocMaxSubmitJobLimit" in done.err) == (limit < 8)
        elif done.status == 0 and "nothing to submit: of 4 runs 4 finished" in done.out:
            break
        for job in case.slurm.jobs():  # all training jobs succeed, then scoring jobs
            if "-training-" in job["name"]:
                _end(case, job, trained=True)
        for job in case.slurm.jobs():
            _end(case, job, trained=False)
    else:
        pytest.fail("it never came to an end")


def _end(case: Case, job: dict[str, Any], trained: bool) -> None:
    arrays = {a.name: a for record in submissions.read_all(case.study.folder) for a in record.arrays}
    array = arrays[job["name"]]
    for run in array.tasks[array.index_of(client.Job(job["id"], ""))]:
        label = next(label for label in LABELS if case.study.run(label).name == run)
        (case.study.trained if trained else case.study.finished)(label)
    case.slurm.change(job["id"], state="COMPLETED")


def test_another_limit_is_a_refusal(case: Case) -> None:
    words = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    case.slurm.misbehave("sbatch", f"QOSMaxWallDurationPerJobLimit\nsbatch: error: {words}")
    assert "SLURM refused the training array: QOSMaxWallDurationPerJobLimit" in case.submit(status=2).err
    assert len(case.slurm.calls("sbatch")) == 1


def test_where_nothing_fits_nothing_is_left_behind(case: Case) -> None:
    case.slurm.set(max_submit=0)
    assert "SLURM takes no more jobs now" in case.submit(status=1).err
    case.slurm.set(max_submit=100)
    case.submit()
    assert case.is_whole()


# --- Between two states ---


def test_right_after_a_cancel_all_is_submitted_again(case: Case) -> None:
    """Jobs that are still ending then are none."""
    case.submit()
    case.slurm.change("70", state="RUNNING", if_cancelled=[["COMPLETING"]])
    said = case.sweep("cancel")
    assert said.status == 0
    assert "still ending" in said.out
    assert "4 runs to train" in case.submit().out
    assert Counter(job["state"] for job in case.slurm.jobs()) == {"COMPLETING": 4, "PENDING": 8}


def test_a_cancelled_job_that_comes_back_is_cancelled_again(case: Case) -> None:
    """It had asked to be requeued the moment before."""
    case.submit()
    case.slurm.change("70_0", state="RUNNING", if_cancelled=[["COMPLETING", "COMPLETING", "PENDING"], ["CANCELLED"]])
    assert case.sweep("cancel").status == 0
    assert not case.slurm.jobs()


@pytest.mark.parametrize("state", ["COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"])
def test_a_job_is_cancelled_whatever_its_state(case: Case, state: str) -> None:
    case.submit()
    (record,) = submissions.read_all(case.study.folder)
    run = (case.study.run("S/4").name,)
    training, scoring = (str(array.task_id(array.tasks.index(run))) for array in record.arrays)
    case.slurm.change(training, state=state)
    assert f"training {training} ({state})" in case.sweep("cancel", "S/4").out
    left = {job["id"] for job in case.slurm.jobs()}
    assert len(left) == 6
    assert not left & {training, scoring}


@pytest.mark.parametrize("fault", ["lost", "Unable to contact slurm controller", "hangs"])
def test_a_failed_scancel_is_repeated_where_it_did_not_work(case: Case, fault: str) -> None:
    case.submit()
    case.slurm.misbehave("scancel", fault)
    assert case.sweep("cancel").status == 0
    assert not case.slurm.jobs()
    case.submit()
    assert case.is_whole()


def test_a_cancel_that_did_not_end_is_ended_by_submit(case: Case) -> None:
    case.submit()
    case.slurm.misbehave("scancel", *["Unable to contact slurm controller"] * 40)
    done = case.sweep("cancel")
    assert done.status == 1
    assert "still there, though cancelled" in done.err
    case.slurm.misbehave("scancel")
    assert "4 runs to train" in case.submit().out
    assert case.is_whole()


def test_what_may_not_be_cancelled_goes_on(case: Case) -> None:
    """The jobs of a colleague, say."""
    case.submit()
    case.slurm.misbehave("scancel", "Kill job error on job id 70: Access/permission denied")
    assert "permission denied" in case.sweep("cancel").err
    assert len(case.slurm.calls("scancel")) == 1
    assert submissions.cancelled_runs(case.study.folder / "submissions" / "0001") == set()
    assert "nothing to submit" in case.submit().out


def test_submit_waits_for_what_becomes_of_a_job_that_is_ending(case: Case) -> None:
    case.submit()
    case.slurm.change("70_0", state="COMPLETING", then=["COMPLETING", "CANCELLED"])
    case.slurm.change("70_1", state="COMPLETING", then=["COMPLETING", "PENDING"])
    said = case.submit().out
    assert "1 runs to train" in said
    assert "3 queued or running" in said


def test_a_job_that_does_not_end_is_named(case: Case) -> None:
    case.submit()
    case.slurm.change("70_0", state="COMPLETING")
    assert "70_0 is still ending" in case.submit().out


def test_a_held_job_is_named(case: Case) -> None:
    case.submit()
    case.slurm.change("70_0", reason="launch failed requeued held")
    assert "70_0 is held (launch failed requeued held): scontrol release 70_0" in case.submit().out


# --- Scoring while training goes on ---


@pytest.fixture
def early(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Four runs in training, whose profile lets five scoring jobs be at work."""
    case.profile(evaluate="as-ready", evaluation=[{"max_parallel": 5}])
    case.submit()
    monkeypatch.setenv("PATH", str(case.slurm.folder))
    return case


def score(case: Case, *labels: str, step: int = 6) -> None:
    for label in labels:
        folder = case.study.folder / "submissions" / "0001"
        score_early.main([str(folder), case.study.run(label).name, str(step)])


def test_early_and_last_scoring_jobs_together_are_no_more_than_the_profile_says(early: Case) -> None:
    (last,) = {job["at_once"] for job in early.slurm.jobs() if "-scoring-" in job["name"]}
    score(early, *LABELS)
    jobs = early.slurm.jobs()[8:]
    free = [job for job in jobs if job["dependency"] == "singleton"]
    assert len(jobs) == 4
    assert int(last) + len(free) <= 5
    # The others go one behind another.
    assert [job["dependency"] for job in jobs] == [
        "singleton",
        "singleton",
        "singleton,afterany:72",
        "singleton,afterany:73",
    ]


def test_room_that_was_made_is_used(early: Case) -> None:
    score(early, "S/4", "S/2")
    early.slurm.change("72", state="COMPLETED")
    score(early, "B/4")
    assert early.slurm.jobs()[-1]["dependency"] == "singleton"


def test_a_job_that_waits_scores_later_checkpoints_too(early: Case) -> None:
    score(early, "S/4")
    score(early, "S/4")
    assert len(early.slurm.jobs()) == 9
    early.slurm.change("72", state="RUNNING")  # it may be past it
    score(early, "S/4")
    assert len(early.slurm.jobs()) == 10
    assert "nothing to submit" in early.submit().out
    assert early.sweep("cancel").status == 0
    assert not early.slurm.jobs()


def test_the_last_step_is_left_to_the_last_job_and_one_at_once_leaves_no_room(early: Case) -> None:
    score(early, "S/4", step=12)
    assert len(early.slurm.jobs()) == 8
    early.sweep("cancel")
    score(early, "S/4")
    assert not early.slurm.jobs(), "its training was cancelled"
    early.profile(evaluate="as-ready", evaluation=[{"max_parallel": 1}])
    early.submit()
    folder = early.study.folder / "submissions" / "0002"
    score_early.main([str(folder), early.study.run("S/4").name, "6"])
    assert len(early.slurm.jobs()) == 8


def test_an_early_job_whose_answer_was_lost_is_found_among_those_of_its_name(early: Case) -> None:
    score(early, "S/4")
    early.slurm.change("72", state="COMPLETED")
    early.slurm.misbehave("sbatch", "lost")
    score(early, "S/4")
    assert [job["id"] for job in early.slurm.jobs()[8:]] == ["73"]
    (array,) = [a for r in submissions.read_all(early.study.folder) for a in r.arrays if a.early]
    assert array.job_id == "73"
    early.slurm.change("73", state="COMPLETED")
    early.slurm.misbehave("sbatch", "Unable to contact slurm controller")
    with pytest.raises(RunError):
        score(early, "S/4")
