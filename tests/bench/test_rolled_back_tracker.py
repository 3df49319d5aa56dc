"""A run that was rolled back, as TensorBoard shows it: every step once, as it was trained in the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes import tiny

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.files import jsonl
from bench.trackers import open_trackers


def test_steps_that_are_trained_again_in_one_session_are_shown_once(tmp_path: Path) -> None:
    folder = tmp_path / "study" / "S-4-0123456789"
    folder.mkdir(parents=True)
    (tracker,) = open_trackers(["tensorboard"], folder, tiny(), 0)

    def note(step: int, loss: float) -> None:
        row = {"step": step, "loss": loss}
        jsonl.append(folder / "train.jsonl", row)
        tracker.log(row)

    for step in (2, 4, 6, 8):
        note(step, 1.0)
    tracker.log({"step": 4, "fid": 7.0})  # a score that comes late is of no training
    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    jsonl.cut_after(folder / "train.jsonl", 2)
    for step in (4, 6, 8, 10):
        note(step, 0.5)
    tracker.close()
    for shown in (board.Reload(), EventAccumulator(str(folder / "tensorboard")).Reload()):
        losses = [(event.step, event.value) for event in shown.Scalars("train/loss")]
        assert losses == [(2, 1.0), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)]
