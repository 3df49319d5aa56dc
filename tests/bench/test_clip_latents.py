"""Latents of clips that others made: read as they are, or refused; samples of them decoded frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import parts_of_clips
import pytest
import torch
import yaml
from latent_runs import save_vae
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from bench.data import data_part
from bench.data.vae import load_vae
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import write_config
from bench.recipe import Recipe, load_recipe, parse_recipe
from bench.run import run
from bench.score.extractors.each_frame import FrameFeatures
from models.parts import look_in

CPU = torch.device("cpu")
SHAPE = (4, 3, 8, 8)
COUNT = 9


@pytest.fixture
def latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """In two files, of which the first one's numbers are float16."""
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path))
    folder = tmp_path / "mine"
    folder.mkdir()
    values = np.random.default_rng(0).normal(size=(COUNT, *SHAPE)).astype(np.float16)
    np.save(folder / "latents-0.npy", values[:5])
    np.save(folder / "latents-1.npy", values[5:].astype(np.float32))
    np.save(folder / "labels.npy", np.arange(COUNT, dtype=np.int32) % 3)
    return values.astype(np.float32)


def recipe_of(folder: Path, **data: Any) -> Recipe:
    vae = str(folder / "vae")
    content = parts_of_clips.recipe(
        model={"in_channels": 4, "frames": 3, "input_size": 8, "num_classes": 3},
        data={"name": "clip-latents", "folder": "mine", "vae": vae, "length": COUNT, "num_classes": 3}
        | {"frames": 3, "image_size": 64}
        | data,
        evaluation={"decoder": vae, "reference": str(folder / "real.npy"), "extractor": "clip_parts:ANY_SQUARES"}
        | {"num_samples": 6, "kid_subset_size": 4},
    )
    parts_of_clips.write(folder)
    path = folder / "latents.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path)


def test_batches_are_the_files_numbers_whatever_the_ranks(tmp_path: Path, latents: np.ndarray) -> None:
    data = recipe_of(tmp_path).data
    examples = data.load(CPU)
    indices = torch.tensor([8, 0, 4, 5, 4])
    x, y = examples.batch(indices, slice(0, 5), torch.Generator())
    assert isinstance(y, Tensor)
    assert len(examples) == COUNT and x.dtype == torch.float32
    assert np.array_equal(x.numpy(), latents[indices.numpy()]) and y.tolist() == [2, 0, 1, 2, 1]
    x, y = examples.batch(indices, slice(3, 5), torch.Generator())
    assert isinstance(y, Tensor)
    assert np.array_equal(x.numpy(), latents[[5, 4]]) and y.tolist() == [2, 1]


def test_a_run_of_clips_in_latents_is_scored_against_clips_of_pixels(tmp_path: Path, latents: np.ndarray) -> None:
    save_vae(tmp_path / "vae", 4)
    np.save(tmp_path / "real.npy", np.random.default_rng(1).integers(0, 256, (8, 3, 3, 64, 64), dtype=np.uint8))
    recipe = recipe_of(tmp_path)
    folder = tmp_path / "study" / recipe.folder_name
    write_config(recipe, folder)
    run(folder, tmp_path / "study")
    last = jsonl.read(folder / "evals.jsonl")[-1]
    assert last["step"] == 4 and {"fid", "frame_fid", "temporal_consistency"} < last.keys()
    assert np.load(folder / last["samples"]).shape == (6, 3, 3, 64, 64)
    vae = load_vae(str(tmp_path / "vae"), CPU, offline=True)
    x = torch.from_numpy(latents[:2])
    decoded = vae.decode(x)
    assert torch.equal(decoded, torch.stack([vae.decode(x[:, :, frame]) for frame in range(3)], dim=2))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no files": (lambda folder: [path.unlink() for path in folder.glob("latents-*")], "mine: no latents-"),
    "images": (lambda folder: np.save(folder / "latents-1.npy", np.zeros((4, 4, 8, 8), np.float32)), "latents-1.npy: "),
    "fewer frames": (
        lambda folder: np.save(folder / "latents-1.npy", np.zeros((4, 4, 2, 8, 8), np.float32)),
        "latents-1.npy: ",
    ),
    "bytes": (lambda folder: np.save(folder / "latents-1.npy", np.zeros((4, *SHAPE), np.uint8)), "latents-1.npy: "),
    "no array": (lambda folder: (folder / "latents-1.npy").write_bytes(b"clips"), "latents-1.npy: "),
    "fewer clips": (lambda folder: (folder / "latents-1.npy").unlink(), "data.length: 9"),
    "no labels": (lambda folder: (folder / "labels.npy").unlink(), "labels.npy: missing"),
    "fewer labels": (lambda folder: np.save(folder / "labels.npy", np.zeros(8, np.int64)), "labels.npy: "),
    "unknown labels": (lambda folder: np.save(folder / "labels.npy", np.full(9, 3)), "labels.npy: labels of 3 to 3"),
    "labels of floats": (lambda folder: np.save(folder / "labels.npy", np.zeros(9)), "labels.npy: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_are_not_what_the_recipe_says_are_refused(case: str, tmp_path: Path, latents: np.ndarray) -> None:
    data = recipe_of(tmp_path).data
    spoil, said = WRONG[case]
    spoil(tmp_path / "mine")
    for refusing in (
        lambda: data_part(data.name).check_ready(data.name, data.options),
        lambda: data.load(CPU),
    ):
        with pytest.raises(InputError) as caught:
            refusing()
        assert said in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_are_refused_before_training(tmp_path: Path, latents: np.ndarray) -> None:
    data = recipe_of(tmp_path).data
    spoilt = latents[5:].copy()
    spoilt[2, 0, 1, 0, 0] = np.nan
    np.save(tmp_path / "mine" / "latents-1.npy", spoilt)
    with pytest.raises(InputError, match=r"latents-1\.npy: has numbers that are not finite"):
        data.load(CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("folder", value) for value in (None, "../mine")),
        *(("length", value) for value in (None, 0, -3)),
        *(("frames", value) for value in (None, 0)),
        *(("image_size", value) for value in (None, 60)),
        ("vae", None),
        ("num_classes", None),
    ],
)
def test_sizes_are_refused_when_the_recipe_is_read(key: str, value: Any, tmp_path: Path) -> None:
    look_in(parts_of_clips.write(tmp_path).parent)
    content = {**parts_of_clips.recipe(), "data": {"name": "clip-latents", "folder": "mine", "vae": "mine"}}
    content["data"] |= {"length": 9, "num_classes": 3, "frames": 3, "image_size": 64, key: value}
    with pytest.raises(InputError, match=rf"^mine: data.{key}: "):
        parse_recipe(content, "mine")


def test_features_of_frames_are_those_of_images_and_a_clips_their_mean() -> None:
    class Mean(FeatureExtractorBase):
        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("mean",)

        def forward(self, input: Tensor) -> tuple[Tensor, ...]:
            assert input.shape[1:] == (3, 5, 6)
            return (input.float().mean(dim=(2, 3)),)

    clips = torch.randint(256, (4, 3, 2, 5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    of_clips, frames = FrameFeatures("frames", Mean("mean", ["mean"]))(clips)
    expected = clips.float().mean(dim=(3, 4)).transpose(1, 2)  # (N, T, 3)
    assert torch.allclose(frames.view(4, 2, 3), expected) and torch.allclose(of_clips, expected.mean(dim=1))
