"""Samplers call the network when they say, draw equally often for every batch, and end the same in any batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_data import PROCESSES, Mixture, run
from sampled import CPU
from torch import Tensor

from bench.objectives.iddpm import IDDPM, IDDPMOptions
from bench.objectives.process import DiscreteProcess
from bench.sample import CHUNK, ChunkedNoise
from bench.samplers import SAMPLERS

X = torch.linspace(-2, 2, 6).view(-1, 1, 1, 1)
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "ddim": [{}, {"eta": 0.5}],
    "heun": [{}, {"shift": 3.0}],
    "sde": [
        {},
        {"last_step": "none"},
        {"last_step": "euler", "shift": 0.5},
        {"last_step": "tweedie", "last_step_size": 0.2, "diffusion": "sbdm"},
        {"diffusion": "constant", "norm": 0.5},
    ],
    "dpm-solver++": [{}, {"order": 1}, {"order": 3, "shift": 2.0}],
    "unipc": [{}, {"order": 1}, {"order": 3, "shift": 2.0}],
}
CASES = [
    (sampler, options, name)
    for sampler in SAMPLERS.builtin
    for options in OPTIONS.get(sampler, [{}])
    for name, process in PROCESSES.items()
    if process.kind in SAMPLERS.find(sampler).serves and ("shift" not in options or "linear" in name)
]


class Counted:
    """Noise that counts how often it is asked for."""

    def __init__(self) -> None:
        self.drawn = 0

    def __call__(self) -> Tensor:
        self.drawn += 1
        return torch.randn(X.shape)


def calls(sampler: str, options: dict[str, Any], name: str, steps: int) -> tuple[list[float], int]:
    """The times at which the network was called, and how often noise was drawn.

    On discrete steps the denoiser is a network's, which is told the times of its training.
    """
    noise = Counted()
    if name != "discrete":
        denoiser = Mixture(PROCESSES[name])
        run(sampler, denoiser, X, steps, noise, **options)
        return denoiser.calls, noise.drawn
    times: list[float] = []

    def network(x: Tensor, t: Tensor, time: float) -> Tensor:
        assert t.tolist() == [time] * len(x)
        times.append(time)
        return torch.sin(x)

    run(sampler, IDDPM(IDDPMOptions(), CPU).denoiser(network, False), X, steps, noise, **options)
    return times, noise.drawn


@given(case=st.sampled_from(CASES), steps=st.integers(3, 40))
@settings(max_examples=80, deadline=None)
def test_the_network_is_called_when_the_sampler_says(case: tuple[str, dict[str, Any], str], steps: int) -> None:
    sampler, options, name = case
    found, process = SAMPLERS.find(sampler), PROCESSES[name]
    expected = found.call_times(process, steps, found.options(**options))
    made, _ = calls(sampler, options, name, steps)
    assert made == expected
    low, high = process.bounds
    at_data = process.grid(2)[-1]
    assert all(low <= t <= high or (process.called_at_data and t == at_data) for t in made)
    assert made == sorted(made, reverse=True)


@pytest.mark.parametrize(
    ("sampler", "name", "steps", "number"),
    [
        ("ddpm", "discrete", 250, 250),
        ("ddim", "discrete", 250, 250),
        ("euler", "linear", 250, 250),
        ("heun", "linear", 125, 250),  # SiT's 250 calls
        ("heun", "trigonometric", 125, 250),
        ("heun", "linear-not-at-data", 50, 99),  # JiT
        ("heun", "noise-levels", 18, 35),  # EDM on CIFAR-10
        ("heun", "discrete", 50, 99),
        ("sde", "linear", 250, 250),
        ("dpm-solver++", "discrete", 20, 20),
        ("unipc", "linear", 20, 20),
    ],
)
def test_number_of_calls(sampler: str, name: str, steps: int, number: int) -> None:
    found = SAMPLERS.find(sampler)
    assert len(found.call_times(PROCESSES[name], steps, found.options())) == number


@pytest.mark.parametrize(
    ("sampler", "options", "drawn"),
    [
        ("ddpm", {}, 9),
        ("ddim", {}, 0),
        ("ddim", {"eta": 0.5}, 9),
        ("euler", {}, 0),
        ("heun", {}, 0),
        ("sde", {}, 9),
        ("sde", {"last_step": "none"}, 10),
        ("dpm-solver++", {}, 0),
        ("unipc", {}, 0),
    ],
)
def test_number_of_draws(sampler: str, options: dict[str, Any], drawn: int) -> None:
    served = SAMPLERS.find(sampler).serves
    name = "discrete" if "discrete" in served else "linear"
    assert calls(sampler, options, name, 10)[1] == drawn


@pytest.mark.parametrize(("sampler", "options", "name"), CASES)
def test_a_sample_depends_on_its_index_alone(sampler: str, options: dict[str, Any], name: str) -> None:
    def made(start: int, stop: int) -> Tensor:
        draw = ChunkedNoise(3, start, stop, (1, 2, 2), CPU)
        if isinstance(PROCESSES[name], DiscreteProcess):
            denoiser: Any = IDDPM(IDDPMOptions(), CPU).denoiser(lambda x, t, time: torch.sin(x), False)
        else:
            denoiser = Mixture(PROCESSES[name], means=(-0.5, 0.6))
        return run(sampler, denoiser, draw(), 5, draw, **options)

    together = made(0, 60)
    assert together.isfinite().all()
    assert len({tuple(row.flatten().tolist()) for row in together}) == 60
    for size in (7, CHUNK):
        parts = [made(start, min(start + size, 60)) for start in range(0, 60, size)]
        assert torch.allclose(torch.cat(parts), together, rtol=1e-5, atol=1e-5)
