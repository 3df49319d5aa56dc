"""Respaced processes: the kept steps by hand, their noise levels those of the whole process."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from linear_process import ALPHAS_BAR, BETAS, PROCESS, STEPS

from bench.objectives.diffusion import respaced_steps


@pytest.mark.parametrize("num_steps", [2, 3, 16, 50, 250, 999, 1000])
def test_respaced_process_has_the_same_noise_levels(num_steps: int) -> None:
    process = PROCESS.respace(num_steps)
    kept = process.timesteps.tolist()
    assert (process.num_steps, len(set(kept)), kept[0], kept[-1]) == (num_steps, num_steps, 0, 999)
    assert kept == sorted(kept)
    gaps = np.diff(kept)
    assert gaps.max() - gaps.min() <= 1
    np.testing.assert_allclose(process.alphas_bar.double().numpy(), [ALPHAS_BAR[t] for t in kept], rtol=1e-6)
    # Its own betas follow from those levels alone.
    levels = [1.0, *(ALPHAS_BAR[t] for t in kept)]
    betas = [1 - after / before for before, after in pairwise(levels)]
    np.testing.assert_allclose(process.betas.numpy(), betas, rtol=1e-9)
    np.testing.assert_allclose(process.log_betas.double().numpy(), np.log(betas), rtol=1e-6)


@pytest.mark.parametrize(("steps", "expected"), [(5, [0, 250, 500, 749, 999]), (4, [0, 333, 666, 999]), (2, [0, 999])])
def test_kept_steps_by_hand(steps: int, expected: list[int]) -> None:
    """Multiples of 999 / (steps - 1), rounded; halves to even."""
    assert respaced_steps(STEPS, steps).tolist() == expected


def test_respacing_to_all_steps_changes_nothing() -> None:
    same = PROCESS.respace(STEPS)
    assert same.timesteps.tolist() == list(range(STEPS))
    np.testing.assert_allclose(same.betas.numpy(), BETAS, rtol=1e-9)


def test_respacing_twice_keeps_the_networks_timesteps() -> None:
    """From 0 .. 999 to 5 steps to 3: the second choice is among the first's."""
    twice = PROCESS.respace(5).respace(3)
    assert twice.timesteps.tolist() == [0, 500, 999]
    np.testing.assert_allclose(twice.alphas_bar.numpy(), [ALPHAS_BAR[t] for t in (0, 500, 999)], rtol=1e-6)


@pytest.mark.parametrize("num_steps", [-1, 0, 1, 1001])
def test_impossible_numbers_of_steps_are_errors(num_steps: int) -> None:
    with pytest.raises(ValueError, match=rf"{num_steps} is not in 2 \.\. 1000"):
        PROCESS.respace(num_steps)
