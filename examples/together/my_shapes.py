import numpy as np

from bench.data import DatasetFacts, PixelDataset


class Shapes(PixelDataset):
    """Discs, squares and crosses of any brightness, somewhere in 8x8 pixels: drawn, so that nothing is downloaded."""

    def facts(self, name, options):
        return DatasetFacts(600, shape=(1, 8, 8), image_shape=(1, 8, 8), num_classes=3)

    def images(self, name, options):
        random = np.random.default_rng(0)
        labels = np.arange(600) % 3
        rows, columns = np.mgrid[:8, :8]
        y, x = (np.abs(axis - random.uniform(2.5, 4.5, (600, 1, 1))) for axis in (rows, columns))
        drawn = np.select(
            [labels[:, None, None] == shape for shape in range(3)],
            [np.hypot(y, x) < 2.5, np.maximum(y, x) < 2, np.minimum(y, x) < 0.7],
        )
        brightness = random.integers(120, 256, (600, 1, 1))
        return (drawn * brightness).astype(np.uint8)[:, None], labels


SHAPES = Shapes()
