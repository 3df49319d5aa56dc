"""What samples are compared with: published statistics read as they are, real images, or both."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.images import IN_NPZ, Images, NpzArray, npz_arrays, npz_images, open_images
from bench.errors import InputError
from bench.files.atomic import replace
from bench.files.names import shown
from bench.score.frechet import Gaussian
from models.files.assets import ASSETS, locate

# layer -> names of mean and covariance in ADM's reference files, and the size of the feature: Inception's pool (FID)
# and the first 7 channels of mixed_6 at 17 x 17 positions (sFID). openai/guided-diffusion, evaluations.
STATISTICS = {"2048": ("mu", "sigma", 2048), "spatial": ("mu_s", "sigma_s", 2023)}
# The form of `write_statistics`: arrays EXTRACTOR, NUM_IMAGES, CONTENT_HASH, and a pair for each layer.
EXTRACTOR, NUM_IMAGES, CONTENT_HASH = "extractor", "num_images", "content_hash"
MEAN, COVARIANCE = "mean_", "covariance_"


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
        extractor: id of the network whose features the statistics are of; None where the file does not say.
    """

    name: str
    id: str
    images: Images | None
    gaussians: dict[str, Gaussian]
    extractor: str | None = None


def open_reference(path: Path, name: str | None = None) -> Reference:
    """Open a reference .npz of ADM (mu, sigma, mu_s, sigma_s, arr_0) or of `write_statistics`, or images.

    Images are taken in any form of `open_images`.

    `name` defaults to the name of the folder, or of the file without its ending. Reads all images once, for the id.

    Raises:
        InputError: neither statistics nor images in it, only one array of a pair, or an array that is not as it must
            be.
    """
    extractor = None
    if path.suffix == ".npz" and path.is_file():
        arrays = npz_arrays(path)
        extractor = _extractor(path, arrays)
        read = _gaussians if extractor is None else _own_gaussians
        gaussians, images = read(path, arrays), npz_images(path, arrays)
        if not gaussians and images is None:
            held = ", ".join(map(str, arrays.values())) or "nothing"
            raise InputError(
                f"{path}: neither statistics nor images; it has {held}; "
                f"accepted: mu and sigma, mu_s and sigma_s, {IN_NPZ}"
            )
    else:
        gaussians, images = {}, open_images(path)
    if name is None:
        name = shown(path.resolve().name if path.is_dir() else path.stem)
    size = "statistics" if images is None else len(images)
    return Reference(name, f"{name}-{size}-{_digest(images, gaussians)[:8]}", images, gaussians, extractor)


def find_reference(name: str, offline: bool) -> Reference:
    """The reference of a name of `models.files.assets.ASSETS`, of a path, or of a name of the cache's references.

    Raises:
        InputError: it is none.
        MissingAsset: it is not in the cache and cannot be fetched.
    """
    path = Path(name)
    if name not in ASSETS and path.exists():
        return open_reference(path)
    return open_reference(locate(name, offline), name)


def write_statistics(
    path: Path, extractor: str, gaussians: dict[str, Gaussian], num_images: int, content_hash: str
) -> None:
    """Write a reference .npz: mean (D,) and covariance (D, D) of each layer, float64, and what they are of.

    Raises:
        RunError: the file could not be written.
    """
    arrays = {EXTRACTOR: np.array(extractor), NUM_IMAGES: np.array(num_images), CONTENT_HASH: np.array(content_hash)}
    for layer, gaussian in gaussians.items():
        arrays |= {MEAN + layer: gaussian.mean, COVARIANCE + layer: gaussian.covariance}

    def write(aside: Path) -> None:
        with aside.open("wb") as file:  # numpy would add .npz to the name
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    replace(path, write)


def check_extractor(reference: Reference, extractor: str) -> None:
    """Refuse to compare features of one network with statistics of another's.

    Raises:
        InputError: the reference says whose its statistics are, and it is another's.
    """
    if reference.extractor not in (None, extractor):
        raise InputError(
            f"{reference.name}: has statistics of {reference.extractor} features, the samples' are of {extractor}; "
            "`ditbench reference` makes statistics of any extractor"
        )


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
        gaussians[feature] = _gaussian(path, arrays, mean, covariance, dim)
    return gaussians


def _extractor(path: Path, arrays: dict[str, NpzArray]) -> str | None:
    """Whose features the statistics are of, in a file of `write_statistics`; None in any other."""
    found = arrays.get(EXTRACTOR)
    if found is None:
        return None
    if found.dtype.kind != "U" or found.shape != ():
        raise InputError(f"{path}: {found}; accepted: the extractor's id as one text")
    return str(found.read())


def _own_gaussians(path: Path, arrays: dict[str, NpzArray]) -> dict[str, Gaussian]:
    layers = [name.removeprefix(MEAN) for name in arrays if name.startswith(MEAN)]
    missing = [name for name in (NUM_IMAGES, *(COVARIANCE + layer for layer in layers)) if name not in arrays]
    if missing or not layers:
        raise InputError(
            f"{path}: has no {(missing or [MEAN + 'LAYER'])[0]}; `ditbench reference` makes the file again"
        )
    if arrays[NUM_IMAGES].dtype.kind not in "iu" or arrays[NUM_IMAGES].shape != ():
        raise InputError(f"{path}: {arrays[NUM_IMAGES]}; accepted: one integer")
    count = int(arrays[NUM_IMAGES].read())
    return {
        layer: _gaussian(path, arrays, MEAN + layer, COVARIANCE + layer, math.prod(arrays[MEAN + layer].shape), count)
        for layer in layers
    }


def _gaussian(
    path: Path, arrays: dict[str, NpzArray], mean: str, covariance: str, dim: int, count: int | None = None
) -> Gaussian:
    for name, shape in ((mean, (dim,)), (covariance, (dim, dim))):
        if arrays[name].shape != shape or arrays[name].dtype.newbyteorder("=") not in (np.float32, np.float64):
            raise InputError(f"{path}: {arrays[name]}; accepted: float32 or float64 {shape}")
    try:
        return Gaussian(arrays[mean].read(), arrays[covariance].read(), count)
    except ValueError as error:
        raise InputError(f"{path}: {mean}, {covariance}: {error}") from None


def _digest(images: Images | None, gaussians: dict[str, Gaussian]) -> str:
    """SHA-256, in hex, of values: statistics as float64, little-endian, row by row, whatever the file had."""
    digest = hashlib.sha256()
    for feature, gaussian in gaussians.items():
        digest.update(f"{feature} {gaussian.dim}".encode())
        for values in (gaussian.mean, gaussian.covariance):
            digest.update(np.ascontiguousarray(values, dtype="<f8").data)
    if images is not None:
        digest.update(images.content_hash().encode())
    return digest.hexdigest()
