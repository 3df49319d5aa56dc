"""Randomness as a function of (seed, stream, index): never of rank, world size, batch split or history."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """One independent stream of random numbers for each purpose. The values are part of every result: never reuse."""

    INIT = 0
    EPOCH = 1
    STEP = 2
    SAMPLE = 3
    FEATURES = 4
    BASELINE = 5


def generator(seed: int, stream: Stream, index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device` for position `index` (an epoch, a step, a chunk of samples) of a stream."""
    words = np.random.SeedSequence([seed, int(stream), index]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed(int(words[0]) << 32 | int(words[1]))
