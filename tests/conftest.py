"""What the tests share: one CPU thread, as jobs have, a seed, and one trained feature network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the digits network, trained once for the whole session."""
    from bench.score.extractors import digits_cnn

    folder = tmp_path_factory.mktemp("features")
    digits_cnn.trained(folder)
    return folder


@pytest.fixture
def study(features: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make a study folder that already has the feature network."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(features, folder / "features")
        return folder

    return make
