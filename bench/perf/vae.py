"""Where the time of encoding and of decoding goes: in the autoencoder, or in reading, cropping and writing."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image

from bench.data.encode import posterior
from bench.data.image_folder import Batches, list_images
from bench.data.shards import save_shard
from bench.data.vae import Autoencoder, load_vae
from bench.files.atomic import replace

PHOTO_SIZE = (500, 375)  # pixels, of many of ImageNet's


@dataclass(frozen=True)
class VaeCost:
    """Median milliseconds an image, in one process that decodes its images itself.

    Attributes:
        vae: the autoencoder's id, `random-weights@00000000` for Stable Diffusion's architecture untrained.
        read_ms: JPEG decoding and cropping; `encode_ms`: both flips through the encoder; `write_ms`: the shard, its
            checksum and record.
        encode_share: encode_ms / (read_ms + encode_ms + write_ms).
        decode_ms: latents to bytes; `save_ms`: the bytes to a file.
        decode_share: decode_ms / (decode_ms + save_ms).
    """

    vae: str
    device: str
    image_size: int
    batch_size: int
    read_ms: float
    encode_ms: float
    write_ms: float
    encode_share: float
    decode_ms: float
    save_ms: float
    decode_share: float


def vae_cost(vae_folder: Path | None, image_size: int, batch_size: int, rounds: int, device: torch.device) -> VaeCost:
    """Encode and decode one batch of photographs `rounds` times, step by step.

    Raises:
        InputError: `vae_folder` is no autoencoder's; None builds Stable Diffusion's with random weights.
    """
    vae = load_vae(str(vae_folder), device, True, batch_size) if vae_folder else _untrained(device, batch_size)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
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

        work: dict[str, Callable[[], object]] = {
            "read_ms": lambda: photos[0],
            "encode_ms": lambda: posterior(vae, images),
            "write_ms": lambda: save_shard(folder, 0, 0, moments, labels, []),
            "decode_ms": lambda: vae.decode(latents),
            "save_ms": lambda: replace(folder / "samples.npy", save),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds):
            for name, do in work.items():
                started = time.perf_counter()
                do()
                times[name].append(1000 * (time.perf_counter() - started) / batch_size)
    ms = {name: statistics.median(values) for name, values in times.items()}
    return VaeCost(
        vae=vae.id,
        device=device.type,
        image_size=image_size,
        batch_size=batch_size,
        **ms,
        encode_share=ms["encode_ms"] / (ms["read_ms"] + ms["encode_ms"] + ms["write_ms"]),
        decode_share=ms["decode_ms"] / (ms["decode_ms"] + ms["save_ms"]),
    )


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
