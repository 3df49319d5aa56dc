"""DPM-Solver++ and UniPC by diffusers: they converge to the ODE on every process, and are the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from known_data import PROCESSES, Mixture, run
from torch import Tensor

X = torch.linspace(-2, 2, 9, dtype=torch.float64).view(-1, 1, 1, 1)


def error(sampler: str, name: str, steps: int, order: int) -> float:
    denoiser = Mixture(PROCESSES[name])
    return (run(sampler, denoiser, X, steps, order=order) - denoiser.exact(X)).abs().max().item()


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("sampler", ["dpm-solver++", "unipc"])
def test_they_converge_to_the_ode_faster_than_euler(sampler: str, order: int, name: str) -> None:
    coarse, fine = (error(sampler, name, steps, order) for steps in (80, 320))
    assert fine < coarse / 5 or fine < 1e-4  # Euler's falls to a quarter; float32 ends below 1e-4
    denoiser = Mixture(PROCESSES[name])
    assert fine < (run("euler", denoiser, X, 320) - denoiser.exact(X)).abs().max() / 4


@pytest.mark.parametrize("name", ["discrete", "linear", "linear-not-at-data", "noise-levels"])
@pytest.mark.parametrize("steps", [2, 9, 100])
def test_of_first_order_dpm_solver_is_ddim(steps: int, name: str) -> None:
    """As its paper says; on straight paths that is Euler's method. To the float32 that diffusers computes in."""
    euler = run("euler", Mixture(PROCESSES[name]), X, steps)
    assert torch.allclose(run("dpm-solver++", Mixture(PROCESSES[name]), X, steps, order=1), euler, rtol=0, atol=2e-5)


def dpm_solver_2m(denoiser: Mixture, x: Tensor, steps: int) -> Tensor:
    """Algorithm 2 of arXiv 2211.01095, of first order at both ends, in x's own coordinates."""
    process = denoiser.process
    times = process.grid(steps)
    levels = [(process.alpha(t), process.sigma(t)) for t in times]
    x0s = [denoiser(x, times[0]).x0]
    for step, (alpha, sigma) in enumerate(levels[1:], 1):
        alpha_before, sigma_before = levels[step - 1]
        predicted = x0s[-1]
        if 1 < step < steps:
            h, h_before = (
                math.log(alpha / sigma) - math.log(alpha_before / sigma_before),
                math.log(alpha_before / sigma_before) - math.log(levels[step - 2][0] / levels[step - 2][1]),
            )
            predicted = predicted + h / (2 * h_before) * (x0s[-1] - x0s[-2])
        # e^-h = (alpha_before sigma) / (sigma_before alpha)
        x = sigma / sigma_before * x + (alpha - sigma * alpha_before / sigma_before) * predicted
        if step < steps:
            x0s.append(denoiser(x, times[step]).x0)
    return x


@pytest.mark.parametrize("steps", [15, 40])
@pytest.mark.parametrize("name", ["discrete", "noise-levels"])
def test_dpm_solver_is_algorithm_2_of_its_paper(name: str, steps: int) -> None:
    process = PROCESSES[name]
    start = X if name == "discrete" else process.sigma(process.grid(2)[0]) * X
    denoiser = Mixture(process, means=(-0.5, 0.6))
    expected = dpm_solver_2m(denoiser, start, steps)
    assert torch.allclose(run("dpm-solver++", denoiser, X, steps), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("sampler", ["dpm-solver++", "unipc"])
@pytest.mark.parametrize("order", [2, 3])
def test_as_few_steps_as_the_order_are_enough(sampler: str, order: int) -> None:
    for process in PROCESSES.values():
        assert run(sampler, Mixture(process), X, order, order=order).isfinite().all()


@pytest.mark.parametrize("sampler", ["dpm-solver++", "unipc"])
def test_the_most_extreme_shifts_and_many_steps_end_in_numbers(sampler: str) -> None:
    for shift in (1e-3, 1e3):
        end = run(sampler, Mixture(PROCESSES["linear"]), X.float(), 250, shift=shift, order=3)
        assert end.isfinite().all()


@pytest.mark.parametrize("sampler", ["dpm-solver++", "unipc"])
def test_the_networks_precision_is_not_the_solvers(sampler: str) -> None:
    denoiser = Mixture(PROCESSES["linear"])
    expected = run(sampler, denoiser, X.float(), 12, order=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(run(sampler, denoiser, X.float(), 12, order=3), expected)
