"""From images to scores on latents: the whole path in small, training that resumes, and what is refused beforehand."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import batches_of, tensors
from full_path import VAE, Settings, full_path, make_images, make_inception, make_vae
from ranks import on_ranks
from recipes import LATENTS, recipe
from trainings import assert_same, trainer_of

from bench.data.encode import encode
from bench.data.image_folder import list_images
from bench.data.vae import load_vae
from bench.errors import InputError
from bench.files import checkpoint
from bench.parallel import SINGLE, Ranks
from bench.ready import check_ready
from bench.recipe import Recipe
from models.files.assets import MissingAsset

CPU = torch.device("cpu")
COUNT = 12


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with an autoencoder, and a data root with the latents of 12 photographs of 2 classes."""
    root = tmp_path_factory.mktemp("encoded")
    make_images(root / "images", COUNT)
    make_vae(root / "cache/vae" / VAE, small=True)
    vae = load_vae(str(root / "cache/vae" / VAE), CPU, offline=True)
    encode(list_images(root / "images"), root / "data/photos", vae, 64, "fp32", 5, 4, 0)
    return root


@pytest.fixture
def here(encoded: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DITBENCH_DATA", str(encoded / "data"))
    monkeypatch.setenv("DITBENCH_CACHE", str(encoded / "cache"))
    return encoded


def on_photos(**changes: Any) -> Recipe:
    own = {"data.vae": VAE, "data.length": COUNT, "data.num_classes": 2, "model.num_classes": 2}
    small = {"train.batch_size": 4, "train.steps": 9, "evaluation.kid_subset_size": 5}
    return recipe({**LATENTS, **own, **small, "evaluation.decoder": VAE, **changes})


@pytest.mark.slow
def test_the_whole_path_in_small(tmp_path: Path) -> None:
    """Encode, train, sample with guidance, decode, score by Inception, export: see tests/support/full_path.py."""
    settings = Settings("DiT-S/8", 4, 4, 2, 2, 4, "cpu", "fp32", small=True)
    stages, row = full_path(tmp_path, settings)
    assert [stage.stage for stage in stages][:2] == ["encode (both flips)", "train, sample and score"]
    assert row["decoder"].startswith(f"{VAE}@")
    assert (row["guidance_scale"], row["guidance_channels"], row["num_samples"]) == (1.5, 3, 4)
    assert row["reference"].startswith("photos-4-")
    assert row["extractor"].startswith("inception-v3-compat-")
    assert row["pipeline_latents_differ_by"] < 1e-4


def trained(folder: Path, stops: tuple[int, ...], ranks: Ranks = SINGLE) -> dict[str, torch.Tensor]:
    """The last state of a training that was begun anew after each of `stops`."""
    what = on_photos()
    for stop in (*stops, what.train.steps):
        trainer = trainer_of(what, folder, ranks)
        trainer.resume(what.train.steps)
        trainer.train_until(stop)
        if stop < what.train.steps:
            checkpoint.save_state(folder / "checkpoints", stop, trainer._state())
    return checkpoint.load_state(folder / "checkpoints", what.train.steps)


def test_training_on_latents_resumes_bit_for_bit(here: Path, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    assert_same(trained(tmp_path / "whole", ()), trained(tmp_path / "parts", (2, 5)))


def test_every_epoch_draws_anew_from_the_posteriors(here: Path) -> None:
    what = on_photos()
    batches = batches_of(what, what.data.load(CPU))
    epochs = [torch.cat([batches(epoch * 3 + step)[0] for step in range(3)]) for epoch in range(2)]
    labels = [torch.cat([batches(epoch * 3 + step)[1] for step in range(3)]) for epoch in range(2)]
    assert all(len(x) == COUNT for x in epochs)
    assert not any(torch.equal(a, b) for a in epochs[0] for b in epochs[1]), "a draw came twice"
    assert {int(y) for y in torch.cat(labels)} <= {0, 1, 2}


def _shares(ranks: Ranks, step: int, data: Path) -> list[bytes]:
    os.environ["DITBENCH_DATA"] = str(data)  # ranks may be copies of a process that began before
    what = on_photos()
    return [part.numpy().tobytes() for part in tensors(batches_of(what, what.data.load(CPU), ranks)(step))]


@pytest.mark.slow
def test_ranks_share_a_batch_of_latents_bit_for_bit(here: Path) -> None:
    for step in (0, 4):
        whole = _shares(SINGLE, step, here / "data")
        for world_size in (2, 4):
            shares = on_ranks(world_size, _shares, step, here / "data")
            assert [b"".join(parts) for parts in zip(*shares, strict=True)] == whole


def test_a_sweep_that_lacks_something_is_refused_before_it_is_submitted(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which they are wanted, each with what to do about it."""
    cache, data = tmp_path / "cache", tmp_path / "data"
    monkeypatch.setenv("DITBENCH_DATA", str(data))
    monkeypatch.setenv("DITBENCH_CACHE", str(cache))

    def refusal(**changes: Any) -> str:
        with pytest.raises((InputError, MissingAsset)) as caught:
            check_ready(on_photos(**changes), offline=True)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert str(data / "photos") in refusal()
    assert "ditbench encode" in refusal()
    shutil.copytree(here / "data", data)
    assert refusal(**{"data.vae": "owner/other"}) == (
        f"data.vae: owner/other, but the latents photos have {VAE} in their index.json"
    )
    assert "data.length: 11, but the latents photos have 12" in refusal(**{"data.length": 11})
    assert VAE in refusal()
    make_vae(cache / "vae" / VAE, small=True)
    assert "photos" in refusal()
    assert "references" in refusal()
    (cache / "references").mkdir()
    np.savez(cache / "references/photos.npz", arr_0=np.zeros((6, 64, 64, 3), np.uint8))
    assert "`ditbench prepare inception-v3-compat`" in refusal()
    make_inception(cache / "extractors/weights-inception-2015-12-05-6726825d.pth")
    check_ready(on_photos(), offline=True)
    elsewhere = (cache / "references/photos.npz").rename(tmp_path / "photos.npz")
    assert "references" in refusal()
    check_ready(on_photos(**{"evaluation.reference": str(elsewhere)}), offline=True)


def test_a_decoder_of_another_scale_is_refused(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.data.decoders import load_decoder
    from bench.data.latent_index import read_index

    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path))
    make_vae(tmp_path / "vae/other", small=True)
    config = json.loads((tmp_path / "vae/other/config.json").read_text())
    (tmp_path / "vae/other/config.json").write_text(json.dumps({**config, "scaling_factor": 0.5}))
    evaluation = on_photos(**{"evaluation.decoder": "other"}).evaluation
    with pytest.raises(InputError, match=r"evaluation\.decoder: other@.* scale factor of 0\.5, .* of 0\.18215"):
        load_decoder(evaluation, CPU, offline=True, latents=read_index(here / "data/photos"))
