"""Whether weights are there is told by their header alone; what they hold is checked when it is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.files import checkpoint
from bench.files.run_folder import weights_path

NAME, RUN = "ema std=0.05", "0123456789"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = weights_path(tmp_path, 4, NAME)
    checkpoint.save_tensors(path, {"w": torch.arange(1000.0)}, {"step": "4", "weights": NAME, "run": RUN})
    return path


def test_whole_weights_of_this_run_are_there(path: Path) -> None:
    assert checkpoint.has_weights(path.parent, 4, NAME, RUN)


def test_truncated_missing_and_others_are_not(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, folder = path.read_bytes(), path.parent
    assert not checkpoint.has_weights(folder, 4, NAME, "another-run")
    assert not checkpoint.has_weights(folder, 5, NAME, RUN)
    for size in (0, 5, 100, len(content) - 1):
        path.write_bytes(content[:size])
        assert not checkpoint.has_weights(folder, 4, NAME, RUN)
    assert str(path) in caplog.text
    path.write_bytes(content)
    path.rename(weights_path(folder, 8, NAME))
    assert not checkpoint.has_weights(folder, 8, NAME, RUN)


def test_a_changed_value_is_found_when_it_is_read(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert checkpoint.has_weights(path.parent, 4, NAME, RUN)
    with pytest.raises(checkpoint.CorruptCheckpoint, match="checksum"):
        checkpoint.read_weights(path.parent, 4, NAME, RUN)
