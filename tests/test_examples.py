"""Every folder of examples/, run as a reader would: copied to an empty folder elsewhere, to a point on its figure."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import ditbench

from bench.flops import cost_of
from models import parts
from sweeps.expand import load_sweep
from sweeps.own.part import keep_part

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
INSTALLED = Path(sys.executable).with_name("ditbench")

# Example -> the figure's data, and the column and values that show that its parts are in it.
SHOWN = {
    "block": ("blocks.csv", "block", {"adaln-zero", "my_block:MEAN"}),
    "family": ("gflops_vs_fid.csv", "label", {"my_net:FAMILY/small", "my_net:FAMILY/large"}),
    "objective": ("blocks.csv", "block", {"adaln-zero, iddpm", "adaln-zero, my_objective:L1"}),
    "sampler": ("gflops_vs_fid.csv", "label", {"S/4", "S/2"}),
    "data": ("gflops_vs_fid.csv", "label", {"S/4", "S/2"}),
    "metric": ("metrics.csv", "metric", {"fid", "kid", "spread"}),
    "figure": ("my_figure.csv", "label", {"S/4", "S/2"}),
    "together": ("gflops_vs_fid.csv", "label", {"DiT S", "DiT B", "parallel S", "parallel B", "mixer S", "mixer B"}),
}


@pytest.fixture(autouse=True)
def _looked_for_here_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one example's modules are found is not where the next one's are."""
    monkeypatch.setattr(parts, "_folders", [])


def commands(example: str) -> Iterator[list[str]]:
    (block,) = re.findall(r"```sh\n(.*?)```", (EXAMPLES / example / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "ditbench"
        yield arguments


def copied(example: str, into: Path) -> Path:
    """What a user has who took the folder, and nothing else of the checkout."""
    shutil.copytree(EXAMPLES / example, into / example, ignore=shutil.ignore_patterns("runs", "results", "__pycache__"))
    return into / example


def test_every_example_is_run_and_has_its_place_on_the_page() -> None:
    assert {folder.name for folder in EXAMPLES.iterdir() if folder.is_dir()} == set(SHOWN)
    assert set(re.findall(r"\]\(examples/(\w+)\)", PAGE)) == set(SHOWN)


def test_excerpts_are_of_the_files() -> None:
    files = [file.read_text(encoding="utf-8") for pattern in ("*/*.py", "*/*.yaml") for file in EXAMPLES.glob(pattern)]
    excerpts = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL)
    assert excerpts
    assert [excerpt for excerpt in excerpts if not any(excerpt in file for file in files)] == []


def test_the_study_of_the_block_is_of_this_file(tmp_path: Path) -> None:
    """The names in results/try have a hash of its content: an edit asks for another `ditbench try`."""
    kept = keep_part(str(EXAMPLES / "block" / "my_block.py"), None, None, tmp_path)
    assert kept.path in set(pd.read_csv(ROOT / "results" / "try" / "runs.csv")["block"])


@pytest.mark.parametrize("example", SHOWN)
def test_the_recipes_are_read_and_their_networks_counted(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(example, tmp_path)
    monkeypatch.chdir(folder)
    (file,) = folder.glob("*.yaml")
    for recipe in load_sweep(file).recipes:
        cost = cost_of(recipe.model.name, recipe.model.architecture())
        assert cost.macs > 10_000 and cost.parameters > 1000


@pytest.mark.slow
@pytest.mark.parametrize("example", SHOWN)
def test_the_commands_lead_to_the_figure(
    example: str, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(example, tmp_path)
    monkeypatch.chdir(folder)
    (file,) = folder.glob("*.yaml")
    shutil.copytree(features, folder / "runs" / file.stem / "features")  # which takes longer than the example
    for arguments in commands(example):
        # Each as a process of its own once is proof enough; in this process they are seconds faster.
        run = installed if example == "together" else ditbench_here
        run(arguments)
    name, column, values = SHOWN[example]
    (data,) = folder.rglob(name)
    points = pd.read_csv(data)
    shown = points[points[column].isin(list(values))]
    assert set(shown[column]) == values
    distances = shown["fid" if "fid" in shown else "mean"]
    assert np.isfinite(distances).all()
    picture = data.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


def ditbench_here(arguments: list[str]) -> None:
    ended = ditbench(*arguments)
    assert ended.status == 0, f"{arguments}\n{ended.out}{ended.err}"


def installed(arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([INSTALLED, *arguments], env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, f"{arguments}\n{ended.stdout}{ended.stderr}"
