"""The reverse SDE: its formula written out, and the marginals of the probability-flow ODE whatever its noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from known_data import CONTINUOUS, PROCESSES, Mixture, run
from torch import Tensor

from bench.objectives.process import LinearPath, NoiseLevels, Process
from bench.samplers.sde import SDE, SDEOptions

DIFFUSIONS = ("sigma", "constant", "sbdm")


def moments(denoiser: Mixture, steps: int, **options: Any) -> tuple[float, float]:
    """Mean and variance of the samples for Gaussian data, exactly.

    Every step is affine, so every source of noise gets a pixel of its own, and their squares add up.
    """
    sources = steps + (options.get("last_step") == "none")
    basis = torch.eye(sources, dtype=torch.float64).view(sources, 1, 1, 1, sources)
    draws = iter(basis[1:])
    end = run("sde", denoiser, basis[0], steps, lambda: next(draws), **options)
    assert next(draws, None) is None  # all were drawn
    zero = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    mean = run("sde", denoiser, zero, steps, lambda: zero, **options)
    return mean.item(), (end - mean).square().sum().item()


@pytest.mark.parametrize("last_step", ["tweedie", "none"])
@pytest.mark.parametrize("diffusion", DIFFUSIONS)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_samples_have_the_datas_mean_and_variance(name: str, diffusion: str, last_step: str) -> None:
    options: dict[str, Any] = {"diffusion": diffusion, "last_step": last_step}
    if last_step != "none":
        options["last_step_size"] = 0.01
    mean, variance = moments(Mixture(PROCESSES[name]), 400, **options)
    assert mean == pytest.approx(0.4, abs=0.002)
    assert variance == pytest.approx(0.09, rel=0.02 if diffusion != "constant" else 0.05)


@pytest.mark.parametrize("norm", [0.3, 1.0, 2.5])
def test_the_noise_has_no_say_in_the_variance(norm: float) -> None:
    _, coarse = moments(Mixture(LinearPath()), 100, norm=norm, last_step="none")
    _, fine = moments(Mixture(LinearPath()), 400, norm=norm, last_step="none")
    assert abs(fine - 0.09) < abs(coarse - 0.09) / 3  # of first order in the step
    assert fine == pytest.approx(0.09, rel=0.01)


@pytest.mark.parametrize("diffusion", DIFFUSIONS)
def test_ode_and_sde_give_a_mixture_the_same_marginals(diffusion: str) -> None:
    denoiser, count = Mixture(LinearPath(), means=(-0.8, 0.5), std=0.2), 20_000
    generator = torch.Generator().manual_seed(1)

    def draw() -> Tensor:
        return torch.randn(count, 1, 1, 1, generator=generator, dtype=torch.float64)

    sde = run("sde", denoiser, draw(), 150, draw, diffusion=diffusion, last_step="tweedie", last_step_size=0.01)
    ode = run("heun", denoiser, draw(), 50)
    quantiles = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    between = (quantiles - 0.5).abs() > 0.1  # there are next to no data between the two
    difference = sde.flatten().quantile(quantiles) - ode.flatten().quantile(quantiles)
    assert difference[between].abs().max() < 0.03
    assert (sde > -0.15).double().mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("last_step", ["mean", "euler", "tweedie", "none"])
@pytest.mark.parametrize("diffusion", DIFFUSIONS)
def test_two_steps_by_the_formula(diffusion: Any, last_step: Any) -> None:
    """dx = (v - D s) dt + sqrt(2 D) dW on the linear path, D twice what it is by default."""
    denoiser, h, norm = Mixture(LinearPath()), 0.3, 2.0
    options: dict[str, Any] = {"diffusion": diffusion, "last_step": last_step, "norm": norm}
    if last_step == "none":
        h = 0.5  # the grid's
    else:
        options["last_step_size"] = h
    begin = 1 - 1e-3 if diffusion == "sbdm" else 1.0

    def drift_and_d(x: Tensor, t: float) -> tuple[Tensor, Tensor, float]:
        x0, noise, _ = denoiser(x, t)
        d = norm * {"sigma": t, "constant": 1.0, "sbdm": t / (1 - t) if t < 1 else math.nan}[diffusion]
        return noise - x0, noise - x0 + d * noise / t, d

    noise = torch.randn(3, 4, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x = begin * noise[0]
    _, drift, d = drift_and_d(x, begin)
    x = x - (begin - h) * drift + math.sqrt(2 * d * (begin - h)) * noise[1]
    velocity, drift, d = drift_and_d(x, h)
    expected = {
        "mean": x - h * drift,
        "euler": x - h * velocity,
        "tweedie": denoiser(x, h).x0,
        "none": x - h * drift + math.sqrt(2 * d * h) * noise[2],
    }[last_step]
    draws = iter(noise[1:])
    got = run("sde", denoiser, noise[0], 2, lambda: next(draws), **options)
    assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", [LinearPath(), NoiseLevels(0.002, 80.0, 7.0)])
def test_without_noise_it_is_eulers_method(process: Process) -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(-1, 1, 1, 1)
    got = run("sde", Mixture(process), x, 20, lambda: torch.ones_like(x), norm=0.0, last_step="none")
    assert torch.allclose(got, run("euler", Mixture(process), x, 20), rtol=0, atol=1e-9)


def test_250_steps_are_sits() -> None:
    """249 even ones from noise on, and the last from 0.04."""
    expected = torch.linspace(1, 0.04, 250, dtype=torch.float64).tolist()
    assert SDE.call_times(LinearPath(), 250, SDEOptions()) == pytest.approx(expected)
