"""Failures: counted by attempt, kept for good, given up after so many; scoring's apart from training's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranks import on_ranks
from recipes import tiny
from runs import StudyFolder, Undisturbed, results, start

from bench.errors import RunError
from bench.files import jsonl
from bench.files.run_folder import (
    Phase,
    clear_error,
    failed_attempts,
    is_finished,
    is_trained,
    phase_file,
    read_error,
    record_failure,
    weights_path,
)
from bench.parallel import Execution, Ranks
from bench.run import run, score, train

PHASES: tuple[Phase, ...] = ("training", "scoring")
DIVERGES = tiny(train={"learning_rate": 1e18})


def errors(folder: Path, phase: Phase = "training") -> list[str]:
    return [row["error"] for row in failed_attempts(folder, phase)]


# Records


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_is_given_up_after_so_many_failed_attempts(tmp_path: Path, phase: Phase) -> None:
    for number in (1, 2):
        record_failure(tmp_path, phase, f"error {number}", 3, {"attempt": number, "node": "n1"})
        assert read_error(tmp_path, phase) is None
    record_failure(tmp_path, phase, "error 3", 3, {"attempt": 3, "node": "n2"})
    assert read_error(tmp_path, phase) == "error 3"
    assert errors(tmp_path, phase) == ["error 1", "error 2", "error 3"]
    rows = jsonl.read(phase_file(tmp_path, "failures.jsonl", phase))
    assert [(row["attempt"], row["node"]) for row in rows] == [(1, "n1"), (2, "n1"), (3, "n2")]
    other: Phase = "scoring" if phase == "training" else "training"
    assert (errors(tmp_path, other), read_error(tmp_path, other)) == ([], None)


def test_phases_have_files_of_their_own(tmp_path: Path) -> None:
    for phase in PHASES:
        record_failure(tmp_path, phase, f"of {phase}", 1, {"attempt": 1})
    assert {path.name for path in tmp_path.iterdir()} == {
        "failures.jsonl", "error.json", "scoring-failures.jsonl", "scoring-error.json",
    }  # fmt: skip
    assert [read_error(tmp_path, phase) for phase in PHASES] == ["of training", "of scoring"]


def test_ranks_that_fail_together_count_once_by_the_first_reason(tmp_path: Path) -> None:
    for rank in range(4):
        record_failure(tmp_path, "training", f"of rank {rank}", 2, {"attempt": "7.0", "rank": rank})
    assert errors(tmp_path) == ["of rank 0"]
    assert read_error(tmp_path) is None
    record_failure(tmp_path, "training", "again", 2, {"attempt": "7.1"})
    assert errors(tmp_path) == ["of rank 0", "again"]
    assert read_error(tmp_path) == "again"


def test_counting_starts_anew_when_the_run_may_be_tried_again(tmp_path: Path) -> None:
    """Attempts after it may even have the same names, and what was before is still on record."""
    for phase in PHASES:
        for attempt in (1, 2):
            record_failure(tmp_path, phase, f"{phase} {attempt}", 2, {"attempt": attempt})
    clear_error(tmp_path)
    for phase in PHASES:
        assert (errors(tmp_path, phase), read_error(tmp_path, phase)) == ([], None)
        record_failure(tmp_path, phase, "later", 2, {"attempt": 2})
        assert (errors(tmp_path, phase), read_error(tmp_path, phase)) == (["later"], None)
        told = [row["error"] for row in jsonl.read(phase_file(tmp_path, "failures.jsonl", phase))]
        assert told == [f"{phase} 1", f"{phase} 2", None, "later"]


def test_clearing_a_run_that_never_failed_leaves_no_trace(tmp_path: Path) -> None:
    clear_error(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_error_file_still_says_that_the_run_was_given_up(tmp_path: Path) -> None:
    (tmp_path / "error.json").write_text('{"err')
    assert "error.json cannot be read" in str(read_error(tmp_path))


# Runs


def test_a_run_with_three_attempts_is_given_up_after_the_third(study: StudyFolder) -> None:
    folder = start(DIVERGES, study("a"))
    reasons = []
    for number in (1, 2, 3):
        with pytest.raises(RunError, match="not finite") as caught:
            run(folder, folder.parent, Execution(max_failures=3, session={"attempt": f"7.{number}", "node": "n1"}))
        reasons.append(str(caught.value))
        assert (read_error(folder) is None) == (number < 3)
    for _ in range(2):
        with pytest.raises(RunError, match=r"^failed before: .*not finite"):
            run(folder, folder.parent, Execution(max_failures=3))
    assert errors(folder) == reasons, "a refusal is no attempt"
    given_up = json.loads((folder / "error.json").read_text())
    assert (given_up["error"], given_up["attempt"], given_up["node"]) == (reasons[2], "7.3", "n1")
    clear_error(folder)
    with pytest.raises(RunError, match=r"^((?!failed before).)*not finite"):
        run(folder, folder.parent, Execution(max_failures=3))
    assert read_error(folder) is None


def test_attempts_without_a_name_are_told_apart(study: StudyFolder) -> None:
    folder = start(DIVERGES, study("a"))
    for _ in range(2):
        with pytest.raises(RunError, match="not finite"):
            run(folder, folder.parent, Execution(max_failures=2))
    assert len(errors(folder)) == 2
    assert read_error(folder) is not None


def test_an_unforeseen_error_is_recorded_with_where_it_happened(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start(tiny(), study("a"))

    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("of nothing")

    with monkeypatch.context() as patch:
        patch.setattr("bench.train.BatchSampler.__call__", broken)
        with pytest.raises(ZeroDivisionError):
            run(folder, folder.parent, Execution(max_failures=2))
    (row,) = failed_attempts(folder)
    assert row["error"] == "ZeroDivisionError: of nothing"
    assert "in broken" in row["traceback"]
    assert "in broken" in (folder / "log.txt").read_text()
    run(folder, folder.parent, Execution(max_failures=2))
    assert is_finished(folder)


# Scoring apart


def test_scoring_goes_as_far_as_there_are_weights(study: StudyFolder, undisturbed: Undisturbed) -> None:
    recipe = tiny()
    folder = start(recipe, study("apart"))
    score(folder, folder.parent, Execution())  # before training: nothing to do
    assert (jsonl.read(folder / "evals.jsonl"), is_finished(folder)) == ([], False)
    train(folder, Execution())
    last = weights_path(folder / "checkpoints", 12)
    aside = last.rename(folder / "last")
    score(folder, folder.parent, Execution())
    assert [row["step"] for row in jsonl.read(folder / "evals.jsonl")] == [6]
    assert not is_finished(folder)
    aside.rename(last)
    score(folder, folder.parent, Execution())
    assert is_finished(folder)
    assert results(folder) == undisturbed(recipe)
    assert len(jsonl.read(folder / "scoring-sessions.jsonl")) == 3
    assert len(jsonl.read(folder / "sessions.jsonl")) == 1


def test_scoring_that_fails_does_not_keep_training_from_going_on(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny()
    folder = start(recipe, study("a"))
    train(folder, Execution())
    with monkeypatch.context() as patch:
        patch.setattr("bench.score.fidelity.Scorer.score", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            score(folder, folder.parent, Execution())
    assert read_error(folder, "scoring") == "ZeroDivisionError: division by zero"
    assert "division by zero" in (folder / "scoring-log.txt").read_text()
    assert read_error(folder) is None
    train(folder, Execution())
    with pytest.raises(RunError, match=r"^failed before: ZeroDivisionError"):
        score(folder, folder.parent, Execution())
    clear_error(folder)
    score(folder, folder.parent, Execution())
    assert is_finished(folder)


def _score(ranks: Ranks, folder: Path, study: Path) -> None:
    score(folder, study, Execution(ranks=ranks))


@pytest.mark.parametrize(("step", "world_size"), [(6, 1), (12, 1), (6, 2)])
def test_damaged_weights_are_not_scored_but_made_again(
    study: StudyFolder, undisturbed: Undisturbed, step: int, world_size: int
) -> None:
    recipe = tiny()
    folder = start(recipe, study("apart"))
    train(folder, Execution())
    weights = weights_path(folder / "checkpoints", step)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    message = f"{folder}: the EMA weights of step {step} cannot be read back; submit again to make them again"
    for error in on_ranks(world_size, _score, folder, folder.parent):
        assert isinstance(error, RunError)
        assert str(error) == message
    assert errors(folder, "scoring") == [message]
    assert not is_trained(recipe, folder), "submitted again, it would not be trained"
    clear_error(folder)
    score(folder, folder.parent, Execution())  # a scoring job that comes first scores what it can
    assert not is_finished(folder)
    train(folder, Execution())
    assert weights.read_bytes() == whole
    score(folder, folder.parent, Execution())
    assert is_finished(folder)
    found = results(folder)
    found["evals.jsonl"].sort(key=lambda row: row["step"])
    assert found == undisturbed(recipe)
