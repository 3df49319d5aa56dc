"""A study and the commands of a fake SLURM, for what people type to watch and cancel a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, FakeStudy, SweepCommands


@pytest.fixture
def slurm(tmp_path: Path) -> FakeSlurm:
    return FakeSlurm(tmp_path / "bin")


@pytest.fixture
def fake(tmp_path: Path) -> FakeStudy:
    return FakeStudy(tmp_path)


@pytest.fixture
def sweep(slurm: FakeSlurm, fake: FakeStudy) -> SweepCommands:
    return SweepCommands(slurm, fake)
