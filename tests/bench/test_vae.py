"""Autoencoders: diffusers' numbers, named by their weights, and refused unless every weight comes from the file."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file

from bench.data.vae import Autoencoder, load_vae
from bench.errors import InputError
from models.files.assets import DamagedAsset, MissingAsset

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_vae(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A small autoencoder with Stable Diffusion's structure: 4 channels, an eighth of the side."""
    build: Any = AutoencoderKL  # its annotations say tuples of one
    arguments = {
        "block_out_channels": (8, 8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build(**{**arguments, **changes}).save_pretrained(folder)
    return folder


def diffusers_vae(folder: Path) -> Any:
    load: Any = AutoencoderKL.from_pretrained
    return load(folder, low_cpu_mem_usage=False).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae") / "tiny-vae")


@pytest.fixture(scope="module")
def vae(folder: Path) -> Autoencoder:
    return load_vae(str(folder), CPU, offline=True)


def images(count: int, size: int = 32) -> torch.Tensor:
    random = np.random.default_rng(1)
    return torch.from_numpy(random.integers(0, 256, (count, 3, size, size), dtype=np.uint8))


def latents(count: int) -> torch.Tensor:
    return torch.randn((count, 4, 4, 4), generator=torch.Generator().manual_seed(2))


def test_it_says_what_it_is(vae: Autoencoder, folder: Path) -> None:
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert (vae.name, vae.sha256, vae.id) == ("tiny-vae", digest, f"tiny-vae@{digest[:8]}")
    assert (vae.scale_factor, vae.latent_channels, vae.downsampling) == (0.18215, 4, 8)
    assert vae.device == CPU


def test_other_shapes_are_read_from_the_configuration(tmp_path: Path) -> None:
    changes = {
        "block_out_channels": (8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "latent_channels": 3,
        "scaling_factor": 0.5,
    }
    vae = load_vae(str(save_vae(tmp_path / "vae", **changes)), CPU, offline=True)
    assert (vae.scale_factor, vae.latent_channels, vae.downsampling) == (0.5, 3, 4)
    assert vae.moments(images(2)).shape == (2, 6, 8, 8)
    assert vae.decode(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 32, 32)


def test_moments_are_those_of_diffusers(vae: Autoencoder, folder: Path) -> None:
    pixels = images(3)
    x = torch.from_numpy((pixels.numpy().astype(np.float64) / 255 * 2 - 1).astype(np.float32))
    with torch.no_grad():
        expected = diffusers_vae(folder).encode(x).latent_dist.parameters
    found = vae.moments(pixels)
    assert (found.shape, found.dtype, found.requires_grad) == ((3, 8, 4, 4), torch.float32, False)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_images_are_those_of_diffusers(vae: Autoencoder, folder: Path) -> None:
    z = latents(5)
    with torch.no_grad():
        x = diffusers_vae(folder).decode(z / 0.18215).sample.double().numpy()
    expected = np.floor((x.clip(-1, 1) + 1) * 127.5 + 0.5)
    found = vae.decode(z)
    assert (found.shape, found.dtype, found.device) == ((5, 3, 32, 32), torch.uint8, CPU)
    assert np.abs(found.numpy() - expected).max() <= 1  # a value near one half may round either way
    assert (found.numpy() != expected).mean() < 0.001


def test_encoding_and_decoding_err_as_the_autoencoder_does(vae: Autoencoder, folder: Path) -> None:
    pixels = images(2)
    with torch.no_grad():
        x = diffusers_vae(folder)(pixels.double().div(127.5).sub(1).float(), sample_posterior=False).sample
    own_error = ((x.clamp(-1, 1) + 1) * 127.5 - pixels).abs().mean()
    decoded = vae.decode(vae.moments(pixels)[:, :4] * vae.scale_factor)
    error = (decoded.float() - pixels.float()).abs().mean()
    assert float(error) == pytest.approx(float(own_error), abs=0.51)
    assert own_error > 1, "an untrained one errs"


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_how_many_are_decoded_at_a_time_changes_nothing(vae: Autoencoder, folder: Path, batch_size: int) -> None:
    z = latents(5)
    found = load_vae(str(folder), CPU, True, batch_size).decode(z)
    assert (found.int() - vae.decode(z).int()).abs().max() <= 1


def test_images_are_clamped(tmp_path: Path) -> None:
    folder = save_vae(tmp_path / "vae")
    weights = load_file(folder / WEIGHTS)
    weights["decoder.conv_out.weight"].zero_()
    weights["decoder.conv_out.bias"].copy_(torch.tensor([-9.0, 9.0, 0.0]))
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    decoded = load_vae(str(folder), CPU, True).decode(latents(1))
    assert [decoded[0, channel].unique().tolist() for channel in range(3)] == [[0], [255], [128]]


def test_half_precision_files_are_computed_with_in_full(folder: Path, tmp_path: Path) -> None:
    diffusers_vae(folder).half().save_pretrained(tmp_path / "half")
    assert load_file(tmp_path / "half" / WEIGHTS)["encoder.conv_in.weight"].dtype == torch.float16
    rounded = {name: tensor.float() for name, tensor in load_file(tmp_path / "half" / WEIGHTS).items()}
    reference = diffusers_vae(folder)
    reference.load_state_dict(rounded)
    with torch.no_grad():
        expected = reference.encode(images(2) / 127.5 - 1).latent_dist.parameters
    found = load_vae(str(tmp_path / "half"), CPU, True).moments(images(2))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_its_id_follows_its_weights_and_not_its_place(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tiny-vae")
    moved = load_vae(str(tmp_path / "tiny-vae"), CPU, True)
    other = load_vae(str(save_vae(tmp_path / "other" / "tiny-vae", seed=1)), CPU, True)
    assert moved.id == load_vae(str(folder), CPU, True).id != other.id


def test_weights_in_several_files_are_hashed_together(folder: Path, tmp_path: Path) -> None:
    diffusers_vae(folder).save_pretrained(tmp_path / "split", max_shard_size="20KB")
    files = sorted((tmp_path / "split").glob("*.safetensors"))
    assert len(files) > 2
    vae = load_vae(str(tmp_path / "split"), CPU, True)
    assert vae.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    whole = load_vae(str(folder), CPU, True)
    assert torch.equal(vae.moments(images(1)), whole.moments(images(1)))


def test_one_put_into_the_cache_is_found_by_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path))
    shutil.copytree(folder, tmp_path / "vae" / "somebody" / "own")
    vae = load_vae("somebody/own", CPU, offline=True)
    assert vae.name == "somebody/own"
    assert vae.id.startswith("somebody/own@")


def test_a_published_one_is_named_with_the_command_that_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path))
    with pytest.raises(MissingAsset, match="ditbench prepare stabilityai/sd-vae-ft-mse"):
        load_vae("stabilityai/sd-vae-ft-mse", CPU, offline=True)
    with pytest.raises(InputError, match=r"^dinov2-vitl14: not an autoencoder; accepted: stabilityai/sd-vae-ft-ema, "):
        load_vae("dinov2-vitl14", CPU, offline=True)
    with pytest.raises(InputError, match=r"^'nowhere': no such asset.* path of a diffusers AutoencoderKL folder$"):
        load_vae("nowhere", CPU, offline=True)


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def with_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return rewrite


def truncate(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(5000)


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "not a diffusers AutoencoderKL folder"),
        (lambda folder: (folder / "config.json").write_text("[]"), "not a diffusers AutoencoderKL folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a diffusers AutoencoderKL folder"),
        (configured(_class_name="UNet2DModel"), "_class_name: 'UNet2DModel'; accepted: AutoencoderKL"),
        (configured(shift_factor=0.1), "shift_factor: 0.1; accepted: null"),
        (configured(in_channels=4), "in_channels: 4; accepted: 3"),
        (configured(norm_num_groups=3), "cannot be loaded"),
        (configured(layers_per_block=2), r"\d+ missing weights, such as .*; the file does not fit config.json"),
        (pickle_only, "no diffusion_pytorch_model.safetensors; accepted: safetensors weights only"),
        (truncate, "cannot be loaded"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"junk" * 100), "cannot be loaded"),
        (with_weights(lambda w: w.pop("quant_conv.weight")), "1 missing weights, such as quant_conv.weight"),
        (with_weights(lambda w: w.update(more=torch.zeros(1))), "1 unexpected weights, such as more"),
        (with_weights(lambda w: w.update({"quant_conv.weight": torch.zeros(3, 3)})), "cannot be loaded .*quant_conv"),
    ],
    ids=range(14),
)
def test_what_is_not_a_whole_autoencoder_is_refused_in_one_line(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], spoil: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(folder, tmp_path / "vae")
    spoil(tmp_path / "vae")
    with pytest.raises(InputError, match=message) as caught:
        load_vae(str(tmp_path / "vae"), CPU, offline=True)
    assert str(tmp_path / "vae") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("scale", [None, 0, 0.0, -0.18215, float("nan"), float("inf"), 10**400, "0.18215", True, [1]])
def test_a_scale_that_is_none_is_named(folder: Path, tmp_path: Path, scale: Any) -> None:
    shutil.copytree(folder, tmp_path / "vae")
    configured(scaling_factor=scale)(tmp_path / "vae")
    with pytest.raises(InputError, match=r"config\.json: scaling_factor: .*; accepted: a number greater than 0"):
        load_vae(str(tmp_path / "vae"), CPU, offline=True)


@pytest.mark.parametrize("key", ["shift_factor", "latents_mean", "latents_std"])
@pytest.mark.parametrize("value", [float("nan"), -1, "0.1", [0.1]])
def test_a_shift_is_named(folder: Path, tmp_path: Path, key: str, value: Any) -> None:
    shutil.copytree(folder, tmp_path / "vae")
    configured(**{key: value})(tmp_path / "vae")
    with pytest.raises(InputError, match=rf"config\.json: {key}: .*; accepted: null"):
        load_vae(str(tmp_path / "vae"), CPU, offline=True)


def test_the_first_releases_have_the_scale_of_diffusers(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "vae")
    content = json.loads((tmp_path / "vae" / "config.json").read_text())
    del content["scaling_factor"]
    (tmp_path / "vae" / "config.json").write_text(json.dumps(content))
    assert load_vae(str(tmp_path / "vae"), CPU, offline=True).scale_factor == 0.18215


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_num_groups": 0},
        {"block_out_channels": None},
        {"block_out_channels": []},
        {"latent_channels": "four"},
        {"layers_per_block": -1},
        {"down_block_types": ["NoSuchBlock"] * 4},
        {"act_fn": "none"},
    ],
)
def test_configurations_that_build_nothing_end_in_one_line(
    folder: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    shutil.copytree(folder, tmp_path / "vae")
    configured(**changes)(tmp_path / "vae")
    with pytest.raises(InputError) as caught:
        load_vae(str(tmp_path / "vae"), CPU, offline=True)
    assert str(tmp_path / "vae") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fetched_weights_are_compared_with_what_was_fetched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path))
    name = "stabilityai/sd-vae-ft-mse"
    shutil.copytree(folder, tmp_path / "vae" / name)
    files = {f"vae/{name}/{path.name}": path for path in (tmp_path / "vae" / name).iterdir()}
    manifest = {
        key: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size}
        for key, path in files.items()
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert load_vae(name, CPU, offline=True).name == name
    weights = tmp_path / "vae" / name / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DamagedAsset, match=rf"{WEIGHTS}: its SHA-256 .* in manifest.json .*`ditbench prepare {name}`"):
        load_vae(name, CPU, offline=True)
