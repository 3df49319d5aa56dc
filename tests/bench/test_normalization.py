"""Normalised latents: what training sees, what a run keeps of it, and how its samples come back to images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ditbench
from full_path import VAE, make_images, make_vae
from latent_runs import make_run, recipe_of, save_vae
from numpy.typing import NDArray
from test_latents import ALL, SCALE, in_index, random_moments, seeded, write_set

from bench.data import data_part
from bench.data.decoders import OfNormalized
from bench.data.encode import encode
from bench.data.image_folder import list_images
from bench.data.latent_index import read_index
from bench.data.latents import Latents
from bench.data.normalization import KEPT, Normalization, keep, normalization_of, read_kept
from bench.data.vae import load_vae
from bench.errors import InputError
from bench.export.pipeline import export
from bench.files import checkpoint
from bench.files.run_folder import weights_path, write_config
from bench.files.verify_run import verify_run
from bench.parallel import Execution
from bench.provenance import made_from_path
from bench.recipe import Recipe, parse_recipe
from bench.run import train
from bench.weights import load_weights_of

CPU = torch.device("cpu")


def raw_statistics(moments: NDArray[np.float16]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation per channel of scaled draws, both flips, by the definition in float64."""
    whole = moments.astype(np.float64)
    means, variances = whole[:, :, :4], np.exp(whole[:, :, 4:])
    mean = means.mean(axis=(0, 1, 3, 4))
    between = ((means - mean[:, None, None]) ** 2).mean(axis=(0, 1, 3, 4))
    return SCALE * mean, SCALE * np.sqrt(between + variances.mean(axis=(0, 1, 3, 4)))


@pytest.mark.parametrize("shard_size", [1, 4, 23, 100])
def test_statistics_are_the_data_sets_whatever_the_shards(tmp_path: Path, shard_size: int) -> None:
    moments = random_moments(23)
    found = normalization_of(write_set(tmp_path / "set", moments, shard_size), tmp_path / "set")
    mean, std = raw_statistics(moments)
    assert np.allclose(found.mean, mean, rtol=1e-12)
    assert np.allclose(found.std, std, rtol=1e-12)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_training_sees_latents_less_the_mean_over_the_deviation(tmp_path: Path, ranks: int) -> None:
    write_set(tmp_path / "set", moments := random_moments(23))
    mean, std = (values[:, None, None] for values in raw_statistics(moments))
    indices = torch.arange(12)
    plain = Latents(tmp_path / "set", CPU).batch(indices, ALL, seeded())[0].double().numpy()
    data, size = Latents(tmp_path / "set", CPU, normalize=True), 12 // ranks
    parts = [data.batch(indices, slice(r * size, (r + 1) * size), seeded())[0] for r in range(ranks)]
    assert np.allclose(torch.cat(parts).double().numpy(), (plain - mean) / std, rtol=1e-5, atol=1e-6)
    many = data.batch(torch.arange(23).repeat(2000), ALL, seeded())[0]
    assert many.mean(dim=(0, 2, 3)).abs().max() < 0.02
    assert (many.std(dim=(0, 2, 3)) - 1).abs().max() < 0.02


class Identity:
    id, latent_channels = "identity", 4

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_decoding_undoes_it(tmp_path: Path) -> None:
    write_set(tmp_path / "set", random_moments(23))
    normalization = normalization_of(read_index(tmp_path / "set"), tmp_path / "set")
    indices = torch.arange(23)
    z = Latents(tmp_path / "set", CPU).batch(indices, ALL, seeded())[0]
    x = Latents(tmp_path / "set", CPU, normalize=True).batch(indices, ALL, seeded())[0]
    decoder = OfNormalized(Identity(), normalization)
    assert not torch.allclose(x, z, atol=0.1)
    assert torch.allclose(decoder.decode(x), z, rtol=1e-5, atol=1e-6)
    assert torch.allclose(decoder.decode(x.double()), z, rtol=1e-5, atol=1e-6)
    assert (decoder.id, decoder.latent_channels) == ("identity", 4)


def constant_channel(folder: Path) -> None:
    shutil.rmtree(folder)
    moments = random_moments(23)
    moments[:, :, 2], moments[:, :, 6] = 0.5, -30
    write_set(folder, moments)


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (constant_channel, ("index.json: std: ", "of channel 2", "data.normalize")),
        (in_index(lambda c: c["std"].__setitem__(1, 0.0)), ("index.json: std: 0 of channel 1", "data.normalize")),
        (in_index(lambda c: c["std"].__setitem__(1, -1.0)), ("index.json: std: -1 of channel 1",)),
        (in_index(lambda c: c["std"].__setitem__(1, float("nan"))), ("index.json: std",)),
        (in_index(lambda c: c["mean"].__setitem__(3, float("inf"))), ("index.json: mean",)),
        (in_index(lambda c: c.pop("mean")), ("index.json: mean: missing",)),
        (in_index(lambda c: c.update(std=c["std"][:3])), ("index.json: std: has 3 channels, mean 4",)),
        (in_index(lambda c: c.update(mean=[0.0] * 3, std=[1.0] * 3)), ("index.json: mean: has 3 of 4",)),
        (in_index(lambda c: c.update(std=[1.0] * 4)), ("index.json: std: [1.0, 1.0, 1.0, 1.0], but its shards give",)),
        (in_index(lambda c: c["mean"].reverse()), ("index.json: mean: ", "but its shards give")),
    ],
    ids=range(10),
)
def test_statistics_that_are_not_those_of_the_latents_are_refused(
    tmp_path: Path, spoil: Callable[[Path], object], parts: tuple[str, ...], records: bool
) -> None:
    """With the shards' records and from the shards alone, as they may have been copied."""
    folder = tmp_path / "set"
    write_set(folder, random_moments(23))
    spoil(folder)
    if not records:
        for path in folder.glob("shard-*.json"):
            path.unlink()
    with pytest.raises(InputError) as caught:
        Latents(folder, CPU, normalize=True)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))
    for part in parts:
        assert part in str(caught.value)


def test_a_record_of_another_shard_is_not_believed(tmp_path: Path) -> None:
    write_set(tmp_path / "set", random_moments(23))
    write_set(tmp_path / "other", random_moments(23, seed=1))
    shutil.copy(tmp_path / "other/shard-00001.json", tmp_path / "set/shard-00001.json")
    Latents(tmp_path / "set", CPU, normalize=True)


NORMALIZATION = Normalization(latents="shapes", mean=(0.1, -2.0, 0.5, 3.0), std=(0.5, 2.0, 1.0, 0.25))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "missing; samples of this run are decoded"),
        (lambda path: path.write_text("{"), "JSON"),
        (lambda path: path.write_bytes(b"\xff\x00"), "normalization.json: "),
        (lambda path: edit(path, mean=[0.1, -2.0, 0.5, 3.5]), "checksum: "),
        (lambda path: edit(path, std=[0.5, 0.0, 1.0, 0.25]), "std: 0 of channel 1"),
        (lambda path: edit(path, std=[0.5, float("nan"), 1.0, 0.25]), "std"),
        (lambda path: edit(path, more=1), "more: unknown key"),
    ],
    ids=range(7),
)
def test_what_a_run_kept_is_refused_where_it_is_damaged(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    keep(tmp_path, NORMALIZATION)
    assert read_kept(tmp_path) == NORMALIZATION
    spoil(tmp_path / KEPT)
    with pytest.raises(InputError, match=message) as caught:
        read_kept(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / KEPT))
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_with_the_latents_that_it_was_begun_with(tmp_path: Path) -> None:
    keep(tmp_path, NORMALIZATION)
    keep(tmp_path, NORMALIZATION)
    other = NORMALIZATION.model_copy(update={"mean": (0.2, -2.0, 0.5, 3.0)})
    with pytest.raises(InputError, match=r"normalization.json: the run was trained with mean \[0.1, .* has \[0.2, "):
        keep(tmp_path, other)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/state-00000005.safetensors").touch()
    (tmp_path / KEPT).unlink()
    with pytest.raises(InputError, match="missing"):
        keep(tmp_path, NORMALIZATION)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    make_images(root / "images", 12)
    make_vae(root / "cache/vae" / VAE, small=True)
    vae = load_vae(str(root / "cache/vae" / VAE), CPU, offline=True)
    encode(list_images(root / "images"), root / "data/photos", vae, 64, "fp32", 5, 4, 0)
    return root


@pytest.fixture
def here(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DITBENCH_DATA", str(photos / "data"))
    monkeypatch.setenv("DITBENCH_CACHE", str(photos / "cache"))
    return photos


def on_photos(**data: Any) -> Recipe:
    model = {"name": "DiT", "depth": 1, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "image_size": 64}
    content = {
        "model": {**model, "num_classes": 2},
        "data": {"name": "photos", "vae": VAE, "length": 12, "num_classes": 2, "image_size": 64, **data},
        "train": {"steps": 4, "batch_size": 4, "checkpoint_steps": [2]},
        "evaluation": {"decoder": VAE, "reference": "photos", "num_samples": 4, "kid_subset_size": 2},
    }
    return parse_recipe(content, "recipe.yaml")


def test_a_run_on_normalised_latents_is_sampled_with_its_own_statistics(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its latents are not: weights are sampled on other machines than they were trained on."""
    run = tmp_path / "run"
    write_config(on_photos(normalize=True), run)
    train(run, Execution(offline=True))
    index = read_index(here / "data/photos")
    assert read_kept(run) == Normalization(latents="photos", mean=index.mean, std=index.std)
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path / "nothing"))
    sampled = ("sample", run, "--num-samples", 2, "--sampling-steps", 3, "--seed", 5, "--offline")
    done = ditbench(*sampled, "--out", tmp_path / "a.npy")
    assert (done.status, done.err) == (0, "")
    made = json.loads(made_from_path(tmp_path / "a.npy").read_text())
    assert made["normalization"] == read_kept(run).id

    weights = load_weights_of(str(run), None, offline=True)
    assert weights.normalization == read_kept(run)
    # By hand: the same weights in a run without normalisation give x; its images are those of x std + mean.
    plain = tmp_path / "plain"
    write_config(on_photos(), plain)
    tensors, _ = checkpoint.load_tensors(weights_path(run / "checkpoints", 4))
    checkpoint.save_tensors(weights_path(plain / "checkpoints", 4), tensors)
    vae = load_vae(VAE, CPU, offline=True)
    caught: list[torch.Tensor] = []
    with monkeypatch.context() as patch:
        patch.setattr("bench.data.vae.Autoencoder.decode", lambda self, x: caught.append(x) or to_images(x))
        assert ditbench("sample", plain, *sampled[2:], "--out", tmp_path / "b.npy").status == 0
    assert "normalization" not in json.loads(made_from_path(tmp_path / "b.npy").read_text())
    mean, std = (torch.tensor(values)[:, None, None] for values in (index.mean, index.std))
    assert np.array_equal(np.load(tmp_path / "a.npy"), vae.decode(caught[0] * std + mean).numpy())

    assert not [problem for _, problems in verify_run(run) for problem in problems]
    (run / KEPT).unlink()
    assert [problem for _, problems in verify_run(run) for problem in problems]
    done = ditbench(*sampled, "--out", tmp_path / "c.npy")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert str(run / KEPT) in done.err
    assert not (tmp_path / "c.npy").exists()


def to_images(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(x), 3, 64, 64, dtype=torch.uint8)


def test_latents_that_were_encoded_anew_do_not_continue_a_run(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    write_config(on_photos(normalize=True), run)
    train(run, Execution(offline=True))
    max((run / "checkpoints").glob("ema-*")).unlink()  # so that there is something left to train
    images = sorted((here / "images").rglob("*.JPEG"))
    shutil.copytree(here / "images", tmp_path / "images")
    shutil.copy(images[0], tmp_path / "images" / images[1].relative_to(here / "images"))
    vae = load_vae(VAE, CPU, offline=True)
    encode(list_images(tmp_path / "images"), tmp_path / "data/photos", vae, 64, "fp32", 5, 4, 0)
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(InputError, match=r"normalization\.json: the run was trained with mean"):
        train(run, Execution(offline=True))


def test_such_a_run_is_not_exported_as_a_pipeline_that_only_scales(tmp_path: Path) -> None:
    save_vae(tmp_path / "vae", 4)
    content = recipe_of(tmp_path / "vae").model_dump(mode="json")
    content["data"]["normalize"] = True
    run = make_run(tmp_path / "run", parse_recipe(content, "recipe.yaml"))
    with pytest.raises(InputError, match=r"data\.normalize: true"):
        export(run, tmp_path / "out", offline=True)


def test_the_option_is_off_by_default_and_part_of_the_recipe() -> None:
    assert not on_photos().data.facts.normalized
    assert on_photos(normalize=False).id == on_photos().id != on_photos(normalize=True).id
    part = data_part("imagenet-256-latents")
    assert part.facts("imagenet-256-latents", part.options(vae="x", normalize=True)).normalized
    assert not part.facts("imagenet-256-latents", part.options(vae="x")).normalized
