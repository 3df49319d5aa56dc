"""scikit-learn's digits with captions of measured facts, such as "a seven, bold, slanted", and embeddings of words.

The images, and so the reference, are those of `digits`: scores of models that are told labels compare with these.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from typing import TYPE_CHECKING

from bench.data import DatasetFacts
from bench.data.digits import Digits, DigitsPart
from models.parts import NoOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# Of each fact, what the lowest and the highest quarter of a class are called; the others are not mentioned.
FACTS = {"ink": ("thin", "bold"), "width": ("narrow", "wide"), "slant": ("upright", "slanted")}
TOKENS, FEATURES = 6, 32


class _CaptionedDigits(DigitsPart):
    def facts(self, name: str, options: NoOptions) -> DatasetFacts:
        return super().facts(name, options)._replace(caption_shape=(TOKENS, FEATURES))

    def captions(self, name: str, options: NoOptions) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return embedded(texts())

    def load(self, name: str, options: NoOptions, device: torch.device) -> Digits:
        return Digits(device, self.caption_bank(name, options))

    def title(self, name: str, options: NoOptions) -> str:
        return "digits"


def texts() -> list[str]:
    """What is said of each of the 1,797 images."""
    import numpy as np

    pixels, labels = DIGITS_CAPTIONS.images("digits", NoOptions())
    facts = measured(pixels)
    said = [f"{'an' if label == 8 else 'a'} {NUMBERS[label]}" for label in labels]
    for name, (low, high) in FACTS.items():
        for label in range(len(NUMBERS)):
            of_class = np.flatnonzero(labels == label)
            order = of_class[np.argsort(facts[name][of_class], kind="stable")]
            quarter = len(order) // 4
            for word, places in ((low, order[:quarter]), (high, order[-quarter:])):
                for place in places:
                    said[place] += f", {word}"
    return said


def measured(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Facts of images (N, 1, H, W), each (N,): the ink in all; and, of how the ink is spread, its standard deviation
    along the rows, and how far a row further up is to the right."""
    import numpy as np

    ink = pixels[:, 0].astype(np.float64)
    total = ink.sum(axis=(1, 2))
    share = ink / total[:, None, None]
    rows, columns = np.arange(ink.shape[1])[:, None], np.arange(ink.shape[2])[None, :]
    row, column = (rows - _mean(share, rows)), (columns - _mean(share, columns))
    across, down, both = (np.sum(share * each, axis=(1, 2)) for each in (column**2, row**2, row * column))
    return {"ink": total, "width": np.sqrt(across), "slant": -both / down}


def _mean(share: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    import numpy as np

    return np.sum(share * places, axis=(1, 2))[:, None, None]


def embedded(captions: list[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Embeddings (K, S, D) of captions' words, and masks (K, S): a vector of each word and one of its place.

    Raises:
        ValueError: more words than tokens.
    """
    import numpy as np

    words = [caption.replace(",", "").split() for caption in captions]
    embeddings = np.zeros((len(words), TOKENS, FEATURES), np.float32)
    mask = np.zeros((len(words), TOKENS), np.bool_)
    for number, its in enumerate(words):
        if len(its) > TOKENS:
            raise ValueError(f"{captions[number]!r}: {len(its)} words; accepted: up to {TOKENS}")
        for place, word in enumerate(its):
            embeddings[number, place] = _vector(word) + _place(place)
            mask[number, place] = True
    return embeddings, mask


@cache
def _vector(word: str) -> NDArray[np.float32]:
    """(D,) of unit variance: the bytes of the word's SHA-256, of which there are D, so that it is the same anywhere."""
    import numpy as np

    taken = np.frombuffer(hashlib.sha256(word.encode()).digest(), np.uint8).astype(np.float32)
    return (taken - 127.5) / np.float32(256 / math.sqrt(12))


@cache
def _place(place: int) -> NDArray[np.float32]:
    """(D,): sines and cosines, as of positions in a transformer."""
    import numpy as np

    angles = [place / 100 ** (2 * k / FEATURES) for k in range(FEATURES // 2)]
    return np.array([f(angle) for angle in angles for f in (math.sin, math.cos)], np.float32)


DIGITS_CAPTIONS = _CaptionedDigits()
