"""What samples are compared with: published statistics read as they are, real images, or both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.images import Images, NpzArray, npz_arrays, npz_images, open_images
from bench.errors import InputError
from bench.score.frechet import Gaussian

# feature -> names of mean and covariance in ADM's reference files, and the size of the feature: Inception's pool (FID)
# and the first 7 channels of mixed_6 at 17 x 17 positions (sFID). openai/guided-diffusion, evaluations.
STATISTICS = {"2048": ("mu", "sigma", 2048), "spatial": ("mu_s", "sigma_s", 2023)}


@dataclass(frozen=True)
class Reference:
    """Real images, or what is known of them.

    Attributes:
        name: for people.
        id: `name-10000-0123abcd`: number of images (`statistics` without any) and a hash of statistics and pixels;
            part of every score's key.
        images: None where only statistics are published.
        gaussians: feature -> statistics of the file, which need not be those of `images` (ADM's are of the whole
            training set); empty where they are to be computed from the images.
    """

    name: str
    id: str
    images: Images | None
    gaussians: dict[str, Gaussian]


def open_reference(path: Path, name: str | None = None) -> Reference:
    """Open an ADM reference .npz (mu, sigma, mu_s, sigma_s, arr_0), or images in any form of `open_images`.

    `name` defaults to the name of the folder, or of the file without its ending. Reads all images once, for the id.

    Raises:
        InputError: neither statistics nor images in it, only one array of a pair, or an array that is not as it must
            be.
    """
    if path.suffix == ".npz" and path.is_file():
        arrays = npz_arrays(path)
        gaussians, images = _gaussians(path, arrays), npz_images(path, arrays)
        if not gaussians and images is None:
            held = ", ".join(map(str, arrays.values())) or "nothing"
            raise InputError(
                f"{path}: neither statistics nor images; it has {held}; "
                "accepted: mu and sigma, mu_s and sigma_s, arr_0 uint8 (N, H, W, 1 or 3)"
            )
    else:
        gaussians, images = {}, open_images(path)
    if name is None:
        name = path.resolve().name if path.is_dir() else path.stem
    size = "statistics" if images is None else len(images)
    return Reference(name, f"{name}-{size}-{_digest(images, gaussians)[:8]}", images, gaussians)


def check_feature_size(reference: Reference, feature: str, dim: int) -> None:
    """Refuse to compare a network's features (N, dim) with statistics of another size, if there are any of this name.

    Raises:
        InputError: the sizes differ.
    """
    gaussian = reference.gaussians.get(feature)
    if gaussian is not None and gaussian.dim != dim:
        raise InputError(
            f"{reference.name}: statistics of another feature size: {feature} has {gaussian.dim}, "
            f"the network gives {dim}"
        )


def _gaussians(path: Path, arrays: dict[str, NpzArray]) -> dict[str, Gaussian]:
    gaussians = {}
    for feature, (mean, covariance, dim) in STATISTICS.items():
        present = [name for name in (mean, covariance) if name in arrays]
        if not present:
            continue
        if len(present) == 1:
            raise InputError(f"{path}: has {present[0]} alone; accepted: {mean} together with {covariance}")
        for name, shape in ((mean, (dim,)), (covariance, (dim, dim))):
            if arrays[name].shape != shape or arrays[name].dtype.newbyteorder("=") not in (np.float32, np.float64):
                raise InputError(f"{path}: {arrays[name]}; accepted: float32 or float64 {shape}")
        try:
            gaussians[feature] = Gaussian(arrays[mean].read(), arrays[covariance].read())
        except ValueError as error:
            raise InputError(f"{path}: {mean}, {covariance}: {error}") from None
    return gaussians


def _digest(images: Images | None, gaussians: dict[str, Gaussian]) -> str:
    digest = hashlib.sha256()
    for feature, gaussian in gaussians.items():
        digest.update(f"{feature} {gaussian.dim}".encode())
        digest.update(gaussian.mean.data)
        digest.update(gaussian.covariance.data)
    if images is not None:
        digest.update(images.content_hash().encode())
    return digest.hexdigest()
