"""What status, progress and logs say of steps that were skipped and of roll-backs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from recipes import tiny
from rich.console import Console
from runs import start

from bench.commands.progress import training_progress
from bench.files import jsonl
from sweeps.watch.status import RunStatus, run_status
from sweeps.watch.status_table import as_json, print_runs

CASES: dict[str, dict[str, Any]] = {
    "": {"skipped": 0, "roll_backs": 0},
    "1 step skipped": {"skipped": 1},
    "1,234 steps skipped": {"skipped": 1234},
    "rolled back once": {"roll_backs": 1},
    "rolled back 2 times": {"roll_backs": 2},
}


def row(loss: float | None = 0.5, **also: Any) -> dict[str, Any]:
    return {"step": 10, "loss": loss, "images_per_s": 100.0, **also}


def status(folder: Path, **also: Any) -> RunStatus:
    recipe = tiny(seed=len(list(folder.iterdir())))
    run = start(recipe, folder)
    jsonl.append(run / "train.jsonl", row(**also))
    return run_status(recipe, run)


@pytest.mark.parametrize("said", CASES)
def test_a_runs_status_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str) -> None:
    run, plain = status(tmp_path, **CASES[said]), status(tmp_path)
    assert (run.not_finite, plain.not_finite) == (said, "")
    assert as_json([run])[0]["not_finite"] == said
    print_runs([plain, run], [])
    assert ("not finite" in capsys.readouterr().out) is bool(said)
    print_runs([plain], [])
    assert "not finite" not in capsys.readouterr().out


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("said", CASES)
def test_the_progress_of_training_says_it(said: str, is_terminal: bool) -> None:
    out = io.StringIO()
    with training_progress(Console(file=out, force_terminal=is_terminal, width=100), "S/4", 20) as on_row:
        on_row(row(**CASES[said]))
    assert said in out.getvalue()
    assert said in jsonl.in_words(row(**CASES[said]))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_row_whose_steps_were_all_skipped_has_no_loss(tmp_path: Path, is_terminal: bool) -> None:
    out = io.StringIO()
    with training_progress(Console(file=out, force_terminal=is_terminal, width=100), "S/4", 20) as on_row:
        on_row(row(None, skipped=10))
        on_row(row(0.25, step=20, skipped=10))
    assert "no loss" in out.getvalue() and "loss 0.2500" in out.getvalue()
    assert status(tmp_path, loss=None, skipped=10).loss is None
