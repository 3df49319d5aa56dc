"""The whole path that ImageNet takes, at true architecture sizes: images -> latents -> DiT -> samples -> scores.

    .venv/bin/python tests/support/full_path.py              a few images, on the CPU, in minutes
    .venv/bin/python tests/support/full_path.py --device cuda --precision bf16 --model DiT-XL/2 --images 512 \
        --samples 1024 --batch-size 128 --steps 100 --sampling-steps 250                      real batch sizes, on a GPU

Everything goes through the command line, as a user does it. The autoencoder and Inception have their true
architectures and file formats and seeded random weights, the images are crops of scikit-learn's two photographs: the
scores mean nothing, and must come out finite, equal to those of `ditbench evaluate`, and the exported diffusers
pipeline must give the suite's latents. Prints a table of stages (images/s, peak memory) and writes it to --out.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from bench.perf.random_inception import random_weights

VAE = "random-sd-vae"
CLASSES = ("china", "flower")
DITBENCH = Path(sys.executable).parent / "ditbench"


@dataclass(frozen=True)
class Stage:
    """One command: what it was, seconds with its start, images/s, peak memory of its process (not of a GPU) in GB."""

    stage: str
    seconds: float | None
    images_per_s: float | None
    peak_memory_gb: float | None


@dataclass(frozen=True)
class Settings:
    """How large the path is. `image_size` and the autoencoder are ImageNet's unless `small`."""

    model: str
    images: int
    samples: int
    steps: int
    sampling_steps: int
    batch_size: int
    device: str
    precision: str
    small: bool

    @property
    def image_size(self) -> int:
        return 64 if self.small else 256


def full_path(folder: Path, settings: Settings) -> tuple[list[Stage], dict[str, Any]]:
    """Go through all stages in `folder`; return them, and the row of scores."""
    os.environ.update(DITBENCH_CACHE=str(folder / "cache"), DITBENCH_DATA=str(folder / "data"))
    size, stages = settings.image_size, []
    make_images(folder / "images", settings.images)
    make_vae(folder / "cache/vae" / VAE, small=settings.small)
    make_inception(folder / "cache/extractors/weights-inception-2015-12-05-6726825d.pth")
    make_reference(folder, size, settings.device)
    device = ("--device", settings.device)

    def stage(name: str, images: int | None, *arguments: object) -> str:
        before, printed = time.perf_counter(), folder / "output.txt"
        with printed.open("w") as output:
            process = subprocess.Popen([DITBENCH, *map(str, arguments)], stdout=output, stderr=output, cwd=folder)
            _, status, usage = os.wait4(process.pid, 0)
        seconds, text = time.perf_counter() - before, printed.read_text()
        if status:
            raise RuntimeError(f"ditbench {' '.join(map(str, arguments))}\n{text}")
        stages.append(Stage(name, seconds, images and images / seconds, usage.ru_maxrss / 1e6))
        return text

    encode = ("encode", "images", "--vae", VAE, "--image-size", size, "--out", "data/photos", "--offline")
    stage("encode (both flips)", 2 * settings.images, *encode, *device, "--batch-size", min(16, settings.images))
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(make_recipe(settings)))
    run = ("run", recipe, "--folder", "run", "--offline", *device, "--precision", settings.precision)
    stage("train, sample and score", None, *run)
    samples = f"run/samples/step-{settings.steps:08d}.npy"
    evaluate = ("evaluate", samples, "--reference", "photos", "--kid-subset-size", settings.images // 2, "--offline")
    printed = _json(stage("score again", settings.samples, *evaluate, *device, "--format", "json"))
    export_samples = ("export-samples", samples, "samples.npz")
    stage("samples to ADM .npz", settings.samples, *export_samples)
    evaluate = ("evaluate", "samples.npz", *evaluate[2:])
    from_npz = _json(stage("score the .npz", settings.samples, *evaluate, *device, "--format", "json"))
    stage("export to diffusers", None, "export", "run", "--out", "pipeline", "--offline")

    (row,) = (json.loads(line) for line in (folder / "run/evals.jsonl").read_text().splitlines())
    for metric in ("fid", "sfid", "inception_score", "precision", "recall", "kid"):
        assert np.isfinite(row[metric]), metric
        assert printed[metric] == row[metric] == from_npz[metric], (metric, printed[metric], row[metric])
    row["pipeline_latents_differ_by"] = pipeline_difference(folder, settings)
    sessions = (folder / "run/train.jsonl").read_text().splitlines()
    trained = json.loads(sessions[-1])["images_per_s"]
    stages += [
        Stage("of it, training", None, trained, None),
        Stage("of it, sampling and decoding", None, row["sampling_images_per_s"], None),
    ]
    return stages, row


def _json(text: str) -> dict[str, Any]:
    """The object at the end of what a command printed."""
    return json.loads(text[text.index("{\n") :])


def make_images(folder: Path, count: int) -> None:
    """An ImageFolder of crops of various sizes from scikit-learn's two photographs, as JPEG."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    for index in range(count):
        photo = load_sample_images().images[index % 2]
        side = random.integers(260, 400, size=2)
        top, left = (int(random.integers(0, n - s)) for n, s in zip(photo.shape[:2], side, strict=True))
        path = folder / CLASSES[index % 2] / f"{index:05d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo[top : top + side[0], left : left + side[1]]).save(path, quality=95)


def make_vae(folder: Path, small: bool) -> None:
    """Stable Diffusion's autoencoder, or a narrow one, with seeded random weights in diffusers' format."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    channels = (16, 16, 32, 32) if small else (128, 256, 512, 512)
    build: Any = AutoencoderKL  # its annotations say tuples of one
    build(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=channels,
        layers_per_block=1 if small else 2,
        latent_channels=4,
        norm_num_groups=8 if small else 32,
        sample_size=256,
        scaling_factor=0.18215,
    ).save_pretrained(folder)


def make_inception(path: Path) -> None:
    """Inception v3 as FID uses it, with seeded random weights in the official file's layout."""
    path.parent.mkdir(parents=True)
    torch.save(random_weights(), path)


def make_reference(folder: Path, size: int, device: str) -> None:
    """photos.npz as ADM's reference files are: mu, sigma, mu_s, sigma_s, and the images, at `size`."""
    from bench.data.image_folder import read_image
    from bench.data.images import ArrayImages
    from bench.parallel import SINGLE
    from bench.score.extractors import load_extractor
    from bench.score.features import extract
    from bench.stopping import StopRequest

    paths = sorted((folder / "images").rglob("*.JPEG"))
    images = np.stack([read_image(path, size) for path in paths])
    extractor = load_extractor("inception-v3-compat", folder, offline=True)
    where = torch.device(device)
    work = folder / "reference-features"
    features = extract(ArrayImages(images), extractor.network, work, where, SINGLE, StopRequest())
    pool, spatial = features.gaussian(extractor.features), features.gaussian(str(extractor.spatial))
    (folder / "cache/references").mkdir(parents=True)
    np.savez(
        folder / "cache/references/photos.npz",
        arr_0=images.transpose(0, 2, 3, 1),
        mu=pool.mean,
        sigma=pool.covariance,
        mu_s=spatial.mean,
        sigma_s=spatial.covariance,
    )


def make_recipe(settings: Settings) -> dict[str, Any]:
    data = {"vae": VAE, "length": settings.images, "num_classes": len(CLASSES), "image_size": settings.image_size}
    return {
        "label": "photos",
        "model": {"name": settings.model, "image_size": settings.image_size, "num_classes": len(CLASSES)},
        "data": {"name": "photos", **data},
        "train": {"steps": settings.steps, "batch_size": settings.batch_size, "log_every": max(1, settings.steps // 2)},
        "evaluation": {
            "sampling_steps": settings.sampling_steps,
            "guidance_scale": 1.5,
            "num_samples": settings.samples,
            "decoder": VAE,
            "reference": "photos",
            "kid_subset_size": settings.images // 2,
            "batch_size": min(settings.samples, 128),
        },
    }


def pipeline_difference(folder: Path, settings: Settings) -> float:
    """Largest difference of latents between diffusers' pipeline and the suite, in units of their spread.

    The same noise and weights, DDIM, guidance on all four channels, which is what diffusers' pipeline does.
    """
    from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
    from sampled import sample_ddim

    from bench.samplers.guidance import guided
    from bench.weights import load_weights_of

    labels, num_steps, scale = [0, 1], settings.sampling_steps, 4.0
    pipeline = DiTPipeline.from_pretrained(folder / "pipeline", trust_remote_code=True)
    pipeline.set_progress_bar_config(disable=True)
    decoded: list[torch.Tensor] = []
    decode = pipeline.vae.decode
    pipeline.vae.decode = lambda latents: (decoded.append(latents), decode(latents))[1]
    pipeline(labels, guidance_scale=scale, num_inference_steps=num_steps, generator=torch.Generator().manual_seed(1))
    theirs = decoded[0] * pipeline.vae.config.scaling_factor

    weights = load_weights_of(str(folder / "run"), None, offline=True)
    noise = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    network = guided(weights.model, torch.tensor(labels), weights.num_classes, theirs.shape[1], scale, None)
    with torch.inference_mode():
        ours = sample_ddim(network, num_steps, noise, clip=False)
    return float((ours - theirs).abs().max() / ours.std())


def main() -> None:
    """Run it, print the stages and the scores, and write both beside each other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="a new folder for all files")
    parser.add_argument("--model", default="DiT-S/8")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--sampling-steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--small", action="store_true", help="a narrow autoencoder and 64 pixels")
    parser.add_argument("--out", type=Path, help="folder for stages.csv and scores.json")
    options = vars(parser.parse_args())
    folder, out = options.pop("folder").resolve(), options.pop("out")
    stages, row = full_path(folder, Settings(**options))
    for stage in stages:
        numbers = zip((stage.seconds, stage.images_per_s, stage.peak_memory_gb), ("s", "images/s", "GB"), strict=True)
        print(f"{stage.stage:30s}", *(f"{number:8.3g} {unit}" for number, unit in numbers if number is not None))
    print(json.dumps(row, indent=1))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "scores.json").write_text(json.dumps({"settings": options, **row}, indent=1) + "\n")
        with (out / "stages.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(asdict(stages[0])), lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(stage).items()} for stage in stages
            )


if __name__ == "__main__":
    main()
