"""`ditbench encode`: what it prints, where it writes, and which part of the work a process does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from photos import make_images, noise
from PIL import Image
from test_vae import save_vae
from typer.testing import CliRunner

from bench.commands.encode import encode as command
from bench.data.latent_index import read_index
from bench.errors import InputError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "photos")


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae") / "tiny-vae")


@pytest.fixture
def ditbench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vae_folder: Path) -> Callable[..., str]:
    """`ditbench encode` with small settings, in an environment without ranks; its output."""
    for name in (*os.environ,):
        if name.startswith(("SLURM_", "DITBENCH_")) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(command)

    def call(data: Path, *options: str) -> str:
        small = ["--vae", str(vae_folder), "--image-size", "32", "--shard-size", "4", "--workers", "0"]
        result = CliRunner().invoke(app, [str(data), *small, *options])
        if result.exception:
            raise result.exception
        return result.output

    return call


def test_it_prints_the_section_of_a_recipe(ditbench: Callable[..., str], photos: Path, tmp_path: Path) -> None:
    said = ditbench(photos)
    assert "4 shards made, 0 found whole" in said
    assert "14 images of 3 classes" in said
    section = yaml.safe_load(said.splitlines()[-1])
    assert section == {
        "data": {"name": "photos-32-latents", "vae": "tiny-vae", "length": 14, "num_classes": 3, "image_size": 32}
    }
    assert read_index(tmp_path / "data" / "photos-32-latents").count == 14
    assert "0 shards made, 4 found whole by their checksums\nthe set is whole" in ditbench(photos)


def test_the_default_folder_is_under_the_data_root_and_out_is_taken_as_it_is(
    ditbench: Callable[..., str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path / "elsewhere"))
    ditbench(photos)
    assert read_index(tmp_path / "elsewhere" / "photos-32-latents").name == "photos-32-latents"
    assert "name: own," in ditbench(photos, "--out", "own")
    assert read_index(tmp_path / "own").name == "own"


def test_a_thousand_wordnet_folders_are_imagenet(ditbench: Callable[..., str], tmp_path: Path) -> None:
    Image.fromarray(noise(8, 8)).save(tmp_path / "one.png")
    for number in range(1000):
        (tmp_path / "train" / f"n{number:08d}").mkdir(parents=True)
        os.link(tmp_path / "one.png", tmp_path / "train" / f"n{number:08d}" / "0.png")
    said = ditbench(tmp_path / "train", "--image-size", "8", "--shard-size", "500", "--batch-size", "100")
    assert "{name: imagenet-8-latents, vae: tiny-vae, length: 1000, num_classes: 1000, image_size: 8}" in said
    (tmp_path / "train" / "n00000999").rename(tmp_path / "train" / "n0000099")
    said = ditbench(tmp_path / "train", "--image-size", "8", "--shard-size", "500", "--batch-size", "100")
    assert "{name: train-8-latents," in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digits", "none: digits is another data set's name; give this folder another"),
        ("a:b", "none: name: 'a:b' is no folder name of letters, digits, dots, underscores and hyphens; give this "),
        ("imagenet-256-latents", "none: imagenet-256-latents has 1,281,167 images; give this folder another name"),
        ("07", "data: {name: '07', vae: tiny-vae, length: 14, num_classes: 3, image_size: 32}"),
    ],
)
def test_the_section_is_one_that_a_recipe_takes_or_it_says_why_there_is_none(
    ditbench: Callable[..., str], photos: Path, name: str, said: str
) -> None:
    assert ditbench(photos, "--out", name).splitlines()[-1].startswith(said)


def test_what_is_passed_over_is_said_in_one_line(ditbench: Callable[..., str], photos: Path) -> None:
    said = ditbench(photos)
    (line,) = [line for line in said.splitlines() if "passed over" in line]
    assert line == f"{photos}: 14 images; passed over: 2 files that are not read as images (README, .txt)"


def test_a_name_without_a_letter_of_the_alphabet_makes_a_folder_too(
    ditbench: Callable[..., str], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "写真").mkdir()
    (tmp_path / "写真" / "犬").symlink_to(photos / "dog")
    assert "{name: images-32-latents, vae: tiny-vae, length: 4," in ditbench(tmp_path / "写真")
    assert read_index(tmp_path / "data" / "images-32-latents").classes == ("犬",)


ARRAY = {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_MIN": "7", "SLURM_ARRAY_TASK_COUNT": "2"}


@pytest.mark.parametrize(
    ("variables", "part", "shards"),
    [
        ({}, None, [0, 1, 2, 3]),
        ({}, "2/3", [1]),
        ({}, "1/3", [0, 3]),
        (ARRAY, None, [1, 3]),
        (ARRAY, "1/4", [0]),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, None, [1]),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None, [0, 1, 2, 3]),  # a batch script, without srun
        ({"RANK": "0", "WORLD_SIZE": "2"}, None, [0, 2]),
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, None, [0, 2]),
        ({**ARRAY, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, None, [3]),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "7", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, None, [1]),
    ],
)
def test_a_process_does_its_part(
    ditbench: Callable[..., str],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    part: str | None,
    shards: list[int],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = ditbench(photos, "--out", "set", *(["--part", part] if part else []))
    made = sorted(int(path.stem[-5:]) for path in (tmp_path / "set").glob("shard-*.npy"))
    assert made == shards
    assert (f"{4 - len(shards)} shards of other parts are missing" in said) == (len(shards) < 4)


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_a_part_that_is_none_is_refused(ditbench: Callable[..., str], photos: Path, part: str) -> None:
    with pytest.raises(InputError, match=f"--part {part}: accepted: I/N with I from 1 to N"):
        ditbench(photos, "--part", part)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "9"}, "task 2 of 2 and rank 0 of 1 make no part"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 of 2"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "environment: RANK: 'first'; accepted: an integer"),
    ],
)
def test_ranks_that_cannot_be_are_refused(
    ditbench: Callable[..., str],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    message: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        ditbench(photos)
