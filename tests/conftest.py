"""What the tests share: one CPU thread, as jobs have, a seed, and one trained feature network."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from bench.recipe import Recipe
from models import parts

torch.set_num_threads(1)
# Typer builds all commands anew at each call, which takes ten times as long as to refuse a word; here they stay.
typer.main.get_command = cache(typer.main.get_command)
gc.disable()  # nothing that is imported goes away again


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, but not in what was imported."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # nanobind takes what is not collected at the end for leaked


@pytest.fixture(autouse=True)
def own_folders_only_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which one test looked for parts may hold a `bench` of its own: no other test looks there."""
    monkeypatch.setattr(parts, "_folders", [*parts._folders])


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


@pytest.fixture(scope="session")
def undisturbed(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], dict[str, Any]]:
    """What a recipe's run measures when nothing disturbs it; each recipe is run once for the whole session."""
    from runs import results

    from bench.files.run_folder import write_config
    from bench.run import run

    home = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(features, home / "features")
    found: dict[str, dict[str, Any]] = {}

    def measured(recipe: Recipe) -> dict[str, Any]:
        key = recipe.model_dump_json()
        if key not in found:
            folder = home / str(len(found))
            write_config(recipe, folder)
            run(folder, home)
            found[key] = results(folder)
        return found[key]

    return measured
