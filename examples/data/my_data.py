from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from bench.data import DatasetFacts, PixelDataset


class TurnedDigits(PixelDataset):
    """scikit-learn's digits, turned by 90 degrees."""

    def facts(self, name, options):
        return DatasetFacts(1797, shape=(1, 8, 8), image_shape=(1, 8, 8), num_classes=10)

    def images(self, name, options):
        digits: Any = load_digits()
        images = np.rot90(digits.images[:, None], axes=(2, 3))
        return (images * 255 / 16).round().astype(np.uint8), digits.target


TURNED = TurnedDigits()
