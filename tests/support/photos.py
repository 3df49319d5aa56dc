"""A small folder of photographs of many sizes, modes and formats, with one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

PHOTOS = load_sample_images().images
# Sorted as they are listed: 14 images of 3 classes.
PATHS = [
    "cat/1.JPEG", "cat/2.jpg", "cat/deep/down/3.png", "cat/grey.png", "cat/inks.jpg",
    "dog/0.png", "dog/1.jpg", "dog/2.jpg", "dog/palette.png",
    "eel/0.bmp", "eel/1.webp", "eel/2.jpg", "eel/3.jpg", "eel/alpha.png",
]  # fmt: skip
MODES = {"grey": "L", "inks": "CMYK", "palette": "P", "alpha": "RGBA"}


def make_images(root: Path) -> Path:
    random = np.random.default_rng(0)
    for number, name in enumerate(PATHS):
        height, width = random.integers(20, 150, 2)
        top, left = random.integers(0, 200, 2)
        image = Image.fromarray(PHOTOS[number % 2][top : top + height, left : left + width])
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.convert(MODES.get(Path(name).stem, "RGB")).save(root / name)
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "README").write_text("no class")
    return root


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
