"""Averages by a power function of time, and others made of them afterwards (Karras et al. 2024, arXiv 2312.02696).

The average of width std at step t is the sum over steps k = 1 ... t of the weights after step k times
(k/t)^(gamma+1) - ((k-1)/t)^(gamma+1) (Sec. 3.1). std is the standard deviation of that profile as a share of t, so the
average grows with training and forgets the first weights at once. Imports no torch.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The least std, of one step in a long training, and that of the average of all steps alike (gamma = 0).
NARROWEST, WIDEST = 1e-5, 1 / math.sqrt(12)
# At most so many cells of time: below that many steps each is one step, and the fit is exact.
CELLS = 4096
# What a profile made of snapshots may differ from the one asked for, and by how much it may enlarge rounding.
MOST_ERROR, MOST_GAIN = 0.05, 1000
# Widths that a message may name.
NAMED = [*(k / 1000 for k in range(1, 20)), *(k / 1000 for k in range(20, 288, 5))]

Snapshots = tuple[tuple[float, int], ...]


@cache
def exponent(std: float) -> float:
    """gamma of a std below `WIDEST`: (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) = std^2 (App. C), the largest root."""
    import numpy as np

    inverse = std**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def share(std: float, step: int) -> float:
    """The share of the old average that is kept at step 1, 2, ...: beta of Sec. 3.1."""
    return (1 - 1 / step) ** (exponent(std) + 1)


def coefficients(snapshots: Snapshots, std: float, step: int) -> list[float]:
    """The numbers by which snapshots, (std, step) each, are multiplied to sum to the average of width `std` at `step`.

    By least squares between the profiles (App. C.2), in double precision. Unlike there the numbers sum to one, so that
    weights that do not change stay as they are. `step` is that of the last snapshots.
    """
    return _fitted(snapshots, (std,), step)[0][0].tolist()


def check_std(snapshots: Snapshots, std: float, step: int) -> None:
    """Refuse a width whose profile cannot be made of the snapshots.

    Raises:
        ValueError: how far off it would be, and the accepted widths.
    """
    (error,), (gain,) = _quality(snapshots, (std,), step)
    if error <= MOST_ERROR and gain <= MOST_GAIN:
        return
    problem = (
        f"its profile is {error:.0%} off" if error > MOST_ERROR else f"it multiplies rounding errors by {gain:.0f}"
    )
    raise ValueError(
        f"std={std!r}: made of the {len(snapshots)} snapshots that are there at step {step}, {problem}; accepted "
        f"there: {_accepted(snapshots, step)}; more with a smaller train.ema_snapshot_every"
    )


def _quality(snapshots: Snapshots, stds: tuple[float, ...], step: int) -> tuple[list[float], list[float]]:
    """Of each width, the distance of its profile from what is made, relative, and by how much rounding grows."""
    numbers, errors = _fitted(snapshots, stds, step)
    return errors.tolist(), abs(numbers).sum(1).tolist()


def _accepted(snapshots: Snapshots, step: int) -> str:
    good = [e <= MOST_ERROR and g <= MOST_GAIN for e, g in zip(*_quality(snapshots, tuple(NAMED), step), strict=True)]
    edges = [k for k, (before, now) in enumerate(pairwise([False, *good, False])) if before != now]
    runs = [(NAMED[first], NAMED[after - 1]) for first, after in zip(edges[::2], edges[1::2], strict=True)]
    kept = ", ".join(f"{std!r}" for std in dict.fromkeys(std for std, _ in snapshots))
    return ", ".join(f"{low:g} to {high:g}" if low < high else f"{low:g}" for low, high in runs) or kept


@cache
def _fitted(
    snapshots: Snapshots, stds: tuple[float, ...], step: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Numbers (width, snapshot) and relative errors (width,) of the least squares."""
    import numpy as np

    even = np.linspace(0, step, min(step, CELLS) + 1).round()
    edges = np.unique(np.concatenate([even, [at for _, at in snapshots]]))
    # Times 1 / sqrt(length), so that the sum of squares is the integral of the profile's.
    made, wanted = (
        np.stack([np.diff(np.minimum(edges / at, 1) ** (exponent(std) + 1)) for std, at in profiles], 1)
        / np.sqrt(np.diff(edges))[:, None]
        for profiles in (snapshots, [(std, step) for std in stds])
    )
    # All numbers but the last are free: the last makes the sum one.
    last = made[:, -1:]
    free = np.linalg.lstsq(made[:, :-1] - last, wanted - last, rcond=None)[0]
    numbers = np.concatenate([free, 1 - free.sum(0, keepdims=True)])
    errors = np.linalg.norm(made @ numbers - wanted, axis=0) / np.linalg.norm(wanted, axis=0)
    return numbers.T, errors
