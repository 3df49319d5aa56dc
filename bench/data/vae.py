"""The autoencoder between images and latents: diffusers' AutoencoderKL, identified by the hash of its weights."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from bench.data.pixels import check_finite, from_uint8, to_uint8
from bench.errors import InputError
from models.files import tensor_files
from models.files.assets import ASSETS, MissingAsset, check_content, locate

# One file, or as many as diffusers splits large weights into; not its fp16 variants.
WEIGHTS = re.compile(r"diffusion_pytorch_model(-\d+-of-\d+)?\.safetensors")


class Autoencoder:
    """Frozen fp32 weights on a device; a caller may run it under autocast.

    Attributes:
        name: as it was asked for, or the name of its folder where that was a path.
        sha256: of its weights' file (of several one after the other).
        id: `name@` and the first 8 digits of `sha256`.
        scale_factor: the model's latents are the autoencoder's times this (0.18215 for Stable Diffusion's).
        latent_channels: C.
        downsampling: pixels a side for one latent a side.
        network: diffusers' AutoencoderKL.
    """

    def __init__(self, network: AutoencoderKL, name: str, sha256: str, decode_batch_size: int) -> None:
        self.network: Any = network
        self._decode_batch_size = decode_batch_size
        config = self.network.config
        self.name = name
        self.sha256 = sha256
        self.id = f"{name}@{sha256[:8]}"
        self.scale_factor = float(config.scaling_factor)
        self.latent_channels = int(config.latent_channels)
        self.downsampling = 2 ** (len(config.block_out_channels) - 1)

    @property
    def device(self) -> torch.device:
        return self.network.device

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """The posterior of images (N, 3, H, W) uint8: means, then log variances, (N, 2C, h, w) float32, not scaled."""
        posterior = self.network.encode(from_uint8(images.to(self.device, non_blocking=True)), return_dict=False)
        return posterior[0].parameters.float()

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """The images of scaled latents (N, C, h, w): (N, 3, H, W) uint8 on the CPU, a decoding batch at a time.

        Of clips (N, C, T, h, w) every frame by itself: (N, 3, T, H, W).

        Raises:
            ValueError: latents, or images of them, are not finite.
        """
        if x.ndim == 5:
            frames = self.decode(x.transpose(1, 2).flatten(0, 1))
            return frames.unflatten(0, (len(x), x.shape[2])).transpose(1, 2)
        check_finite(x, "latents")
        latents = x.to(self.device, torch.float32) / self.scale_factor
        images = []
        for part in latents.split(self._decode_batch_size):
            batch = self.network.decode(part, return_dict=False)[0]
            check_finite(batch, f"images by {self.id}")
            images.append(to_uint8(batch).cpu())
        return torch.cat(images)


def load_vae(name: str, device: torch.device, offline: bool, decode_batch_size: int = 16) -> Autoencoder:
    """Load an autoencoder by its name among the assets, its folder's name under <cache>/vae/, or its path.

    Raises:
        InputError: there is none of that name, or it is no AutoencoderKL whose weights are whole.
        MissingAsset: an asset that is not in the cache, and `offline`.
        OSError: an asset that is damaged or could not be fetched.
    """
    folder, name = _find(name, offline)
    _check_config(folder)
    weights = sorted(path for path in folder.iterdir() if WEIGHTS.fullmatch(path.name))
    if not weights:
        raise InputError(f"{folder}: no diffusion_pytorch_model.safetensors; accepted: safetensors weights only")
    for path in weights:
        _check_tensors(path)
    digest = _sha256(weights)
    if len(weights) == 1:
        check_content(weights[0], digest)
    return Autoencoder(_load(folder, device), name, digest, decode_batch_size)


def _check_tensors(path: Path) -> None:
    """Refuse weights that are quantised, not finite or not whole: diffusers copies any numbers into floats."""
    try:
        tensors, _ = tensor_files.read_safetensors(path)
        tensor_files.check_floats(tensors)
        tensor_files.check_finite(tensors)
    except ValueError as error:
        raise InputError(f"{path}: the autoencoder cannot be loaded ({error})") from None


def _find(name: str, offline: bool) -> tuple[Path, str]:
    """The folder, and how the autoencoder is named."""
    if name in ASSETS and ASSETS[name].what != "autoencoder":
        accepted = ", ".join(key for key, asset in ASSETS.items() if asset.what == "autoencoder")
        raise InputError(f"{name}: not an autoencoder; accepted: {accepted}, or the path of an AutoencoderKL folder")
    try:
        return locate(name, offline), name
    except MissingAsset as error:
        if name in ASSETS:
            raise
        folder = Path(name)
        if not folder.is_dir():
            raise InputError(f"{error}; or the path of a diffusers AutoencoderKL folder") from None
        return folder, folder.resolve().name


def _check_config(folder: Path) -> None:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        kind = config["_class_name"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"{folder}: not a diffusers AutoencoderKL folder (no config.json that says so)") from None
    if kind != "AutoencoderKL":
        raise InputError(f"{path}: _class_name: {kind!r}; accepted: AutoencoderKL")
    for key in ("shift_factor", "latents_mean", "latents_std"):
        if config.get(key) is not None:
            raise InputError(f"{path}: {key}: {config[key]!r}; accepted: null, latents are only scaled here")
    for key in ("in_channels", "out_channels"):
        if config.get(key, 3) != 3:
            raise InputError(f"{path}: {key}: {config[key]!r}; accepted: 3")
    scale = config.get("scaling_factor", 1.0)  # of the first releases' it is diffusers' default
    is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not is_number or not 0 < scale <= sys.float_info.max:
        raise InputError(f"{path}: scaling_factor: {scale!r}; accepted: a number greater than 0")


def _load(folder: Path, device: torch.device) -> AutoencoderKL:
    """The network with every weight from the file: diffusers would fill in random ones with a warning."""
    load: Any = AutoencoderKL.from_pretrained
    log = logging.getLogger("diffusers")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it warns of is an error here
    try:
        network, report = load(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{folder}: the autoencoder cannot be loaded ({problem})") from None
    finally:
        log.setLevel(level)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            what, first, count = problem.split("_")[0], report[problem][0], len(report[problem])
            raise InputError(f"{folder}: {count} {what} weights, such as {first}; the file does not fit config.json")
    return network.to(device).eval().requires_grad_(False)


def _sha256(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
