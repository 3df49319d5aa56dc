"""`--no-own-parts`: nothing that a stranger's recipe, sweep or command line names by module:Name is imported."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import ditbench
from recipes import content
from sweep_files import FOUR, write_sweep

from bench.data import DATA
from bench.errors import InputError
from bench.files.run_folder import read_config
from bench.objectives import OBJECTIVES
from bench.recipe import load_recipe
from bench.samplers import SAMPLERS
from bench.samplers.ddim import DDIM
from bench.score.extractors import EXTRACTORS
from bench.score.metrics import METRICS
from models import parts
from models.designs import DESIGNS
from models.parts import FORBIDDEN, Seam, look_in
from models.registry import FAMILIES

SEAMS = {
    "model.name": FAMILIES,
    "model.block": DESIGNS,
    "data.name": DATA,
    "diffusion.objective": OBJECTIVES,
    "evaluation.sampler": SAMPLERS,
    "evaluation.extractor": EXTRACTORS,
    "evaluation.metrics": METRICS,
}


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that leaves a file when it runs; own parts are forbidden."""
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nPart = object\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FORBIDDEN, "1")
    return tmp_path


def changes(key: str) -> dict[str, object]:
    return {key: ["stranger:Part"] if key == "evaluation.metrics" else "stranger:Part"}


def test_every_seam_is_tried() -> None:
    here = {id(seam) for seam in SEAMS.values()}
    root = Path(parts.__file__).parents[1]
    files = [path for folder in ("models", "bench", "sweeps") for path in (root / folder).rglob("*.py")]
    assert sum(path.read_text().count("= Seam(") for path in files) == len(here)
    assert {seam.key for seam in SEAMS.values()} == set(SEAMS)


@pytest.mark.parametrize("key", SEAMS)
def test_a_recipe_is_refused_unread(key: str, stranger: Path) -> None:
    recipe = stranger / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content(changes(key))))
    with pytest.raises(InputError, match="--no-own-parts") as caught:
        load_recipe(recipe)
    for said in (str(recipe), key.rpartition(".")[2], "stranger:Part", *SEAMS[key].builtin):
        assert said in str(caught.value)
    assert not (stranger / "ran").exists()


@pytest.mark.parametrize("key", SEAMS)
def test_so_is_the_recipe_of_a_run_or_a_job(key: str, stranger: Path) -> None:
    config = {"id": "0", "label": "", "look_in": [str(stranger)], "recipe": content(changes(key))}
    config["recipe"].pop("label")
    (stranger / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="--no-own-parts"):
        read_config(stranger)
    assert not (stranger / "ran").exists()


@pytest.mark.parametrize("verb", ["plan", "submit", "status"])
def test_so_is_a_sweep(verb: str, stranger: Path) -> None:
    path = write_sweep(stranger, "theirs", {**FOUR, "evaluation.sampler": ["stranger:Part"]})
    ended = ditbench("sweep", verb, path)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "--no-own-parts" in ended.err
    assert not (stranger / "ran").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("figure", "stranger:Part"),
        ("sample", "DiT-XL/2-256", "--out", "x.npy", "--sampler", "stranger:Part"),
        (
            "evaluate",
            "images.npy",
            "--reference",
            "images.npy",
            "--kid-subset-size",
            10,
            "--extractor",
            "stranger:Part",
        ),
        ("reference", "images", "--extractor", "stranger:Part", "--out", "reference.npz"),
        ("flops", "stranger:Part"),
        ("flops", "DiT-S/2", "--block", "stranger:Part"),
    ],
)
def test_so_is_an_option_with_the_flag(
    arguments: tuple[object, ...], stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("images.npy", np.zeros((20, 3, 8, 8), np.uint8))
    monkeypatch.setenv(FORBIDDEN, "")  # so that it is what it was after the flag has set it
    ended = ditbench("--no-own-parts", *arguments)
    assert os.environ[FORBIDDEN] == ""
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "--no-own-parts" in ended.err
    assert not (stranger / "ran").exists()


def test_without_it_the_code_runs(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORBIDDEN, "")
    look_in(stranger)
    part = Seam("part", "a.key", {}, ())
    assert part.find("stranger:Part") is object
    assert (stranger / "ran").exists()


def test_builtins_are_found_and_their_paths_are_paths(stranger: Path) -> None:
    assert SAMPLERS.find("ddim") is DDIM
    with pytest.raises(ValueError, match="--no-own-parts"):
        SAMPLERS.find(SAMPLERS.builtin["ddim"])
