"""samples.npz of a results folder: samples of runs over training, and real images to compare them with."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from analysis.errors import ResultsError
from analysis.results.files import npz_bytes
from analysis.results.npz import read_npz

EARLIER = re.compile(r"(.+)@(\d+)", re.ASCII | re.DOTALL)
DIMENSIONS = (4, 5)  # of an array of images, of clips
ACCEPTED = "(N, C, H, W) of uint8, or clips (N, C, T, H, W)"
REAL = re.compile(r"real ([1-9]\d*) (.+)", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class SampleFile:
    """Images (10, C, H, W) uint8, or clips (10, C, T, H, W).

    last: run id -> at its last evaluated step; earlier: run id -> step -> before it; real: data -> real images, and
    the number of classes. Its arrays are called RUN, RUN@STEP, and "real CLASSES DATA".
    """

    last: Mapping[str, np.ndarray]
    earlier: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)
    real: Mapping[str, tuple[np.ndarray, int]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The archive, compressed, without a collection."""
        arrays = dict(self.last)
        arrays |= {f"{run}@{step}": images for run, steps in self.earlier.items() for step, images in steps.items()}
        arrays |= {f"real {classes} {data}": images for data, (images, classes) in self.real.items()}
        return npz_bytes(arrays)


def of_collection(npz: bytes, collection: str) -> bytes:
    """A .npz that says of which collection it is, in its comment."""
    buffer = io.BytesIO(npz)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = collection.encode()
    return buffer.getvalue()


def read_samples(path: Path) -> tuple[SampleFile, str | None]:
    """What is in it, and the collection that it is of, None of an earlier version.

    Raises:
        ResultsError: it is damaged, or holds something else.
    """
    try:
        arrays, collection = read_npz(path)
    except ValueError as error:
        raise ResultsError(f"{path}: {error}; collect the sweep again") from error
    last: dict[str, np.ndarray] = {}
    earlier: dict[str, dict[int, np.ndarray]] = {}
    real: dict[str, tuple[np.ndarray, int]] = {}
    for name, images in arrays.items():
        if images.ndim not in DIMENSIONS or images.dtype != np.uint8:
            found = f"shape {images.shape} of {images.dtype}"
            raise ResultsError(f"{path}: samples of {name}: {found}; accepted: {ACCEPTED}")
        if found := REAL.fullmatch(name):
            real[found[2]] = images, int(found[1])
        elif found := EARLIER.fullmatch(name):
            earlier.setdefault(found[1], {})[int(found[2])] = images
        else:
            last[name] = images
    return SampleFile(last, earlier, real), collection or None
