"""Where the time of encoding and of decoding goes: in the autoencoder, or in reading, cropping and writing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image

from bench.data.encode import posterior
from bench.data.image_folder import Batches, list_images
from bench.data.shards import save_shard
from bench.data.vae import Autoencoder
from bench.files.atomic import replace
from bench.perf.document import OURS
from bench.perf.turns import Measure

Parts = dict[str, Callable[[], object]]

PHOTO_SIZE = (500, 375)  # pixels, of many of ImageNet's
AUTOENCODER = "the autoencoder alone"


def vae_measures(folder: Path, device: torch.device, image_size: int = 256, batch_size: int = 4) -> list[Measure]:
    """Encoding and decoding a batch of photographs, made in `folder`, by Stable Diffusion's autoencoder untrained.

    Ours is all that one process does: JPEG decoding and cropping, both flips through the encoder, the shard with its
    checksum and record; latents to bytes, and these to a file. The autoencoder's time is a part of ours.
    """
    vae = _untrained(device, batch_size)
    _save_photos(folder / "photos" / "class", batch_size)
    photos = Batches(list_images(folder / "photos"), image_size, [range(batch_size)])
    images = photos[0].images
    moments = posterior(vae, images)
    latents = torch.from_numpy(moments[:, 0, : vae.latent_channels]).float() * vae.scale_factor
    decoded = vae.decode(latents).numpy()
    labels = [0] * batch_size

    def save(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, decoded, allow_pickle=False)

    of_encoding: Parts = {
        "read": lambda: photos[0],
        AUTOENCODER: lambda: posterior(vae, images),
        "write": lambda: save_shard(folder, 0, 0, moments, labels, []),
    }
    of_decoding: Parts = {
        AUTOENCODER: lambda: vae.decode(latents),
        "write": lambda: replace(folder / "samples.npy", save),
    }
    return [
        Measure(f"{what} {batch_size} images of {image_size} px", _whole(parts), items=batch_size, unit="images")
        for what, parts in (("encode", of_encoding), ("decode", of_decoding))
    ]


def _whole(parts: Parts) -> Callable[[int], dict[str, float]]:
    """`Measure.turn` of parts, one after the other: ours is their sum."""

    def turn(_: int) -> dict[str, float]:
        seconds = {}
        for name, do in parts.items():
            started = time.perf_counter()
            do()
            seconds[name] = time.perf_counter() - started
        return {OURS: sum(seconds.values()), AUTOENCODER: seconds[AUTOENCODER]}

    return turn


def _save_photos(folder: Path, count: int) -> None:
    """scikit-learn's two photographs as JPEG files, in turns."""
    from sklearn.datasets import load_sample_images

    folder.mkdir(parents=True)
    photos = [Image.fromarray(photo).resize(PHOTO_SIZE) for photo in load_sample_images().images]
    for number in range(count):
        photos[number % len(photos)].save(folder / f"{number:05d}.jpg", quality=95)


def _untrained(device: torch.device, decode_batch_size: int) -> Autoencoder:
    """Stable Diffusion's autoencoder (Rombach et al. 2022; 83.7 M parameters) with seeded random weights."""
    build: Any = AutoencoderKL
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=32,
            sample_size=256,
            scaling_factor=0.18215,
        )
    return Autoencoder(network.to(device).eval().requires_grad_(False), "random-weights", "0" * 64, decode_batch_size)
