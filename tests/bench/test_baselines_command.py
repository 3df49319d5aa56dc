"""`ditbench baselines`: of a sweep, a recipe or a run, into a results folder; refused in a line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command_line import ditbench
from recipes import content
from sweep_files import write_sweep

from analysis.results.baselines import NAMES, read_baselines


def test_a_sweep_s_baselines_are_printed_and_written_where_figures_look(
    study: Callable[[str], Path], tmp_path: Path
) -> None:
    runs = study("tiny").parent  # with the feature network, as after a run
    sweep = write_sweep(tmp_path, "tiny", {"model.patch_size": [4, 2], "seed": [0, 1]})
    out = tmp_path / "results" / "mine"
    asked = ["baselines", sweep, "--runs", runs, "--out", out, "--draws", "2"]
    done = ditbench(*asked)
    assert done.status == 0, done.err
    found = read_baselines(out / "baselines.csv")
    assert found["baseline"].tolist() == [*NAMES]  # four runs, one way of scoring
    assert set(found["num_samples"]) == {60}
    for row in found.to_dict("records"):
        assert f"{row['fid']:.4g}" in done.out
        assert NAMES[row["baseline"]] in done.out
    first = (out / "baselines.csv").read_bytes()
    assert ditbench(*asked).status == 0
    assert (out / "baselines.csv").read_bytes() == first
    assert ditbench("verify", out).status == 0


def test_a_recipe_s_file_will_do(study: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(study("tiny"), tmp_path / "runs" / "single")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content({"evaluation.metrics": ["fid"]})))
    monkeypatch.chdir(tmp_path)
    done = ditbench("baselines", "recipe.yaml", "--draws", "1")
    assert done.status == 0, done.err
    assert len(read_baselines(tmp_path / "results" / "single" / "baselines.csv")) == len(NAMES)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "nothing: accepted: a sweep's or recipe's file"),
        ("scaling", "imagenet-256-latents: latents"),
        ("DiT-XL/2", "DiT-XL/2: accepted"),
        (".", "no run folder"),
    ],
)
def test_what_has_no_images_of_its_own_is_refused_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ditbench("baselines", what)
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_a_results_folder_that_cannot_be_made_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = ditbench("baselines", "digits", "--runs", tmp_path / "runs", "--out", tmp_path / "file")
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.safetensors"))
