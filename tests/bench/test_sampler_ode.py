"""Euler and Heun on the probability-flow ODE, against closed forms and the algorithms of the papers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from known_data import CONTINUOUS, PROCESSES, SOLVERS, Mixture, run
from sampled import CPU, sample_ddim
from torch import Tensor

from bench.objectives.iddpm import IDDPM, IDDPMOptions
from bench.objectives.process import DiscreteProcess, NoiseLevels, Process, alphas_bar, linear_betas

X = torch.linspace(-2, 2, 9, dtype=torch.float64).view(-1, 1, 1, 1)
# Steps so fine that a chain of whole ones can be spread evenly: 15 x 2^8.
FINE = DiscreteProcess(alphas_bar(linear_betas(3841)))
EVENLY = {**{name: PROCESSES[name] for name in CONTINUOUS}, "discrete": FINE}


def error(sampler: str, process: Process, steps: int) -> float:
    """The largest, for Gaussian data. On discrete steps `steps` is of those before the last, to data."""
    denoiser = Mixture(process, std=1.0 if process is FINE else 0.3)  # the last step's own error is next to none
    got = run(sampler, denoiser, X, steps + 1 if process is FINE else steps)
    return (got - denoiser.exact(X)).abs().max().item()


@pytest.mark.parametrize("name", EVENLY)
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_falls_as_a_power_of_the_step(sampler: str, order: int, name: str) -> None:
    coarse, fine = (error(sampler, EVENLY[name], steps) for steps in (60, 120))
    assert fine < 0.05
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_on_a_mixture_falls_as_a_power_of_the_step(sampler: str, order: int, name: str) -> None:
    denoiser = Mixture(PROCESSES[name], means=(-0.8, 0.1, 0.9), std=0.3)
    exact = run("heun", denoiser, X, 1500)
    coarse, fine = ((run(sampler, denoiser, X, steps) - exact).abs().max().item() for steps in (120, 240))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("sampler", SOLVERS)
def test_data_without_spread_take_any_number_of_steps(sampler: str) -> None:
    """The prediction of x0 is exact at every time, and then so is every step."""
    for process in PROCESSES.values():
        if process.called_at_data:  # where such a prediction divides 0 by 0
            continue
        for steps in (3, 10):
            end = run(sampler, Mixture(process, means=(0.7,), std=0.0), X, steps)
            assert end.flatten().tolist() == pytest.approx([0.7] * len(X), abs=1e-5)


def test_euler_on_discrete_steps_is_ddim() -> None:
    """Their Eq. 12 with sigma 0, written out; to rounding in float64."""
    process = PROCESSES["discrete"]
    for steps in (2, 7, 50, 1000):
        times, x = process.grid(steps), X
        for now, then in pairwise(times):
            level, next_level = (1.0 if t < 0 else process.alpha(t) ** 2 for t in (now, then))
            _, noise, _ = Mixture(process)(x, now)
            x0 = (x - math.sqrt(1 - level) * noise) / math.sqrt(level)
            x = math.sqrt(next_level) * x0 + math.sqrt(1 - next_level) * noise
        assert torch.allclose(run("euler", Mixture(process), X, steps), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [2, 13, 250])
def test_euler_of_a_network_is_our_ddim(steps: int, clip: bool) -> None:
    def network(x: Tensor, t: Tensor, time: float) -> Tensor:
        return torch.sin(2 * x + t.view(-1, 1, 1, 1) / 1000)

    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    ddim = sample_ddim(network, steps, x, clip)
    euler = run("euler", IDDPM(IDDPMOptions(), CPU).denoiser(network, clip), x, steps)
    assert ddim.std() > 0.1
    assert torch.allclose(euler, ddim, rtol=1e-4, atol=1e-5)


def test_heun_on_noise_levels_is_edms_algorithm_1() -> None:
    process = NoiseLevels(0.002, 80.0, 7.0)
    steps, denoiser = 18, Mixture(process, means=(-0.5, 0.6))
    roots = [80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7)) for i in range(steps)]
    levels = [root**7 for root in roots] + [0.0]
    x = levels[0] * X
    for now, then in pairwise(levels):
        slope = (x - denoiser(x, now).x0) / now
        ahead = x + (then - now) * slope
        if then:
            slope = (slope + (ahead - denoiser(ahead, then).x0) / then) / 2
        x = x + (then - now) * slope
    assert torch.allclose(run("heun", denoiser, X, steps), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "trigonometric"])
def test_heun_on_a_flow_path_is_heuns_method_on_the_velocity(name: str) -> None:
    denoiser, steps = Mixture(PROCESSES[name], means=(-0.5, 0.6)), 12

    def velocity(x: Tensor, t: float) -> Tensor:
        x0, noise, _ = denoiser(x, t)
        angle = math.pi / 2 * t
        turned = math.pi / 2 * (math.cos(angle) * noise - math.sin(angle) * x0)
        return noise - x0 if name == "linear" else turned

    x, size = X, 1 / steps
    for step in range(steps):
        t = 1 - step / steps
        first = velocity(x, t)
        x = x - size / 2 * (first + velocity(x - size * first, t - size))
    assert torch.allclose(run("heun", denoiser, X, steps), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", SOLVERS)
@pytest.mark.parametrize("name", PROCESSES)
def test_results_have_the_noises_type_and_leave_it_alone(name: str, sampler: str) -> None:
    for dtype in (torch.float32, torch.float64):
        x = X.to(dtype)
        end = run(sampler, Mixture(PROCESSES[name]), x, 4)
        assert end.dtype == dtype
        assert torch.equal(x, X.to(dtype))


@pytest.mark.parametrize("sampler", SOLVERS)
def test_float32_is_enough_where_next_to_no_data_are_left(sampler: str) -> None:
    """A chain whose last step holds a thousandth of a thousandth of the data, as on a cosine schedule."""
    process = DiscreteProcess(tuple(math.cos(math.pi / 2 * (step + 0.5) / 1000.5) ** 2 for step in range(1000)))
    assert process.alpha(999) < 2e-3
    single, double = (run(sampler, Mixture(process), X.to(dtype), 20) for dtype in (torch.float32, torch.float64))
    assert torch.allclose(single.double(), double, rtol=0, atol=2e-5)


@pytest.mark.parametrize("sampler", SOLVERS)
@pytest.mark.parametrize("name", [name for name in CONTINUOUS if name != "noise-levels"])
def test_a_shift_leaves_the_samples_and_moves_the_times(name: str, sampler: str) -> None:
    plain, shifted = Mixture(PROCESSES[name]), Mixture(PROCESSES[name])
    assert torch.allclose(run(sampler, plain, X, 300), run(sampler, shifted, X, 300, shift=3.0), rtol=0, atol=0.01)
    process = plain.process
    now, then = ([process.sigma(t) / process.alpha(t) for t in one.calls if 0 < t < 1] for one in (plain, shifted))
    assert then == pytest.approx([3 * ratio for ratio in now])
