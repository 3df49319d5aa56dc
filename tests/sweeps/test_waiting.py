"""Whoever waits for SLURM is told what for: soon, not too often, and across waits that follow each other."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from sweeps.slurm import waiting


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SAY_AFTER_SECONDS", 0.4)
    monkeypatch.setattr(waiting, "SAY_AGAIN_SECONDS", 0.9)
    monkeypatch.setattr(waiting, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "_last_wait_ended", float("-inf"))


def test_short_waits_one_after_the_other_are_one_silence(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        waiting.pause(0.25, "the first")
    assert capfd.readouterr().err.count("waiting for the first") == 1
    waiting.pause(1.0, "the first")
    assert capfd.readouterr().err.count("waiting for the first") == 1
    waiting.pause(0.5, "the second")
    assert capfd.readouterr().err.count("waiting for the second") == 1


def test_a_quick_answer_needs_no_word(capfd: pytest.CaptureFixture[str]) -> None:
    done = waiting.run(["/bin/sh", "-c", "echo out; printf '\\377' >&2; exit 3"], dict(os.environ), 30)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "\N{REPLACEMENT CHARACTER}")
    assert capfd.readouterr().err == ""


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """Else a wrapper's sbatch would submit after all."""
    script = f"/bin/sh -c 'sleep 2; touch {tmp_path}/late' & wait"
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.run(["/bin/sh", "-c", script], dict(os.environ), 0.3)
    assert time.monotonic() - begun < 1.5
    time.sleep(2.2)
    assert not (tmp_path / "late").exists()
