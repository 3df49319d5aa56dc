"""Every objective at data of known densities: what the best network says is what the denoiser makes of it, and what
the loss is least for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from closed_forms import ONE, TWO, Mixture
from scipy.stats import norm
from torch import Tensor, nn

from bench.objectives import OBJECTIVES, Objective
from bench.objectives.conversions import score
from bench.schema import check_options

CPU = torch.device("cpu")


class Case(NamedTuple):
    """An objective, and independently of our code: its process at its times, and what its network should be asked.

    Attributes:
        times: of the process, to be tried.
        levels: (alpha, sigma) at a time.
        answer: the best output of the network for E[x0 | x], E[noise | x], x and a time.
        told: what the network is told of a time.
        given: the x that the network is given, for x and a time.
    """

    objective: str
    options: dict[str, Any]
    times: tuple[float, ...]
    levels: Callable[[float], tuple[float, float]]
    answer: Callable[[float, float, float, float], float]
    told: Callable[[float], float]
    given: Callable[[float, float], float] = lambda x, t: x


def linear(t: float) -> tuple[float, float]:
    return 1 - t, t


def gvp(t: float) -> tuple[float, float]:
    return math.cos(math.pi * t / 2), math.sin(math.pi * t / 2)


def steps_of(betas: list[float]) -> Callable[[float], tuple[float, float]]:
    levels = np.cumprod(1 - np.array(betas))
    return lambda t: (math.sqrt(levels[round(t)]), math.sqrt(1 - levels[round(t)]))


def cosine(timesteps: int) -> list[float]:
    """IDDPM Eq. 17."""
    f = [math.cos((t / timesteps + 0.008) / (1 + 0.008) * math.pi / 2) ** 2 for t in range(timesteps + 1)]
    return [min(1 - f[t + 1] / f[t], 0.999) for t in range(timesteps)]


DISCRETE = {"linear": steps_of(list(np.linspace(1e-4, 0.02, 1000))), "cosine": steps_of(cosine(1000))}


def discrete(schedule: str, prediction: str) -> Case:
    levels = DISCRETE[schedule]

    def answer(x0: float, noise: float, x: float, t: float) -> float:
        alpha, sigma = levels(t)
        return {"noise": noise, "x0": x0, "velocity": alpha * noise - sigma * x0}[prediction]

    options = {"schedule": schedule, "prediction": prediction}
    return Case("iddpm", options, (0.0, 20.0, 500.0, 900.0), levels, answer, lambda t: t)


def flow(path: str, prediction: str, network_time: str = "noise-at-1", **more: Any) -> Case:
    levels = {"linear": linear, "gvp": gvp}[path]
    to_noise, scale = network_time == "noise-at-1", more.get("time_scale", 1.0)

    def answer(x0: float, noise: float, x: float, t: float) -> float:
        """SiT's released code says data minus noise on the linear path, REPA's noise minus data."""
        rates = (-1.0, 1.0) if path == "linear" else (-math.pi / 2 * levels(t)[1], math.pi / 2 * levels(t)[0])
        velocity = rates[0] * x0 + rates[1] * noise
        return {"noise": noise, "x0": x0, "velocity": velocity if to_noise else -velocity}[prediction]

    options = {"path": path, "prediction": prediction, "network_time": network_time, **more}
    times = (0.01, 0.3, 0.75, 0.99, 1.0)[: 4 if prediction == "noise" else 5]
    return Case("flow", options, times, levels, answer, lambda t: scale * (t if to_noise else 1 - t))


def edm(sigma_data: float) -> Case:
    """Karras et al. 2022, Table 1."""

    def answer(x0: float, noise: float, x: float, t: float) -> float:
        skip = sigma_data**2 / (t**2 + sigma_data**2)
        return (x0 - skip * x) / (t * sigma_data / math.sqrt(t**2 + sigma_data**2))

    return Case(
        "edm",
        {"sigma_data": sigma_data},
        (0.002, 0.1, 1.0, 20.0, 80.0),
        lambda t: (1.0, t),
        answer,
        lambda t: math.log(t) / 4,
        lambda x, t: x / math.sqrt(t**2 + sigma_data**2),
    )


CASES = {
    **{
        f"iddpm {schedule} {prediction}": discrete(schedule, prediction)
        for schedule in ("linear", "cosine")
        for prediction in ("noise", "x0", "velocity")
    },
    **{
        f"flow {path} {prediction} {network_time}": flow(path, prediction, network_time)
        for path in ("linear", "gvp")
        for prediction in ("velocity", "x0", "noise")
        for network_time in ("noise-at-1", "data-at-1")
    },
    "flow told in thousandths": flow("linear", "velocity", "data-at-1", time_scale=1000.0),
    "edm": edm(0.5),
    "edm of other data": edm(1.3),
}


def objective_of(name: str, options: dict[str, Any]) -> Objective:
    kind = OBJECTIVES.find(name)
    return kind(check_options(kind.options, options), CPU)


@pytest.mark.parametrize("data", [ONE, TWO], ids=["a Gaussian", "a mixture"])
@pytest.mark.parametrize("name", CASES)
def test_of_the_best_network_the_denoiser_makes_the_exact_x0_noise_velocity_and_score(name: str, data: Mixture) -> None:
    case = CASES[name]
    objective = objective_of(case.objective, case.options)
    process = OBJECTIVES.find(case.objective).process(
        check_options(OBJECTIVES.find(case.objective).options, case.options)
    )
    for t in case.times:
        alpha, sigma = case.levels(t)
        assert (process.alpha(t), process.sigma(t)) == pytest.approx((alpha, sigma), abs=1e-12)
        spread = math.sqrt(alpha**2 + sigma**2)
        for x in (-1.1 * spread, 0.3 * spread):
            x0 = data.expected(lambda x0, noise: x0, x, alpha, sigma)
            noise = data.expected(lambda x0, noise: noise, x, alpha, sigma)

            def network(given: Tensor, told: Tensor, time: float) -> Tensor:
                assert time == t  # noqa: B023
                assert told.tolist() == pytest.approx([case.told(t)] * 2, rel=1e-12, abs=1e-12)  # noqa: B023
                assert given.flatten().tolist() == pytest.approx([case.given(x, t)] * 2, rel=1e-12)  # noqa: B023
                best = case.answer(x0, noise, x, t)  # noqa: B023
                return torch.full((2, 2, 1, 1), best, dtype=torch.float64)  # and a channel that is not used

            found = objective.denoiser(network, clip=False)(torch.full((2, 1, 1, 1), x, dtype=torch.float64), t)
            near = 1e-8 / min(1, max(alpha, 1e-4), sigma)
            assert found.x0.flatten().tolist() == pytest.approx([x0] * 2, abs=near)
            assert found.noise.flatten().tolist() == pytest.approx([noise] * 2, abs=near)
            step = 1e-4 * spread * max(sigma, 1e-2)
            density = [math.log(data.density(x + side * step, alpha, sigma)) for side in (1, -1)]
            gradient = (density[0] - density[1]) / (2 * step)
            assert score(found.noise, sigma)[0].item() == pytest.approx(gradient, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_clipped_predictions_are_what_x_is_made_of(name: str) -> None:
    case = CASES[name]
    objective = objective_of(case.objective, case.options)
    x = torch.linspace(-4, 4, 8, dtype=torch.float64).view(2, 1, 2, 2)
    for t in case.times:
        alpha, sigma = case.levels(t)
        free = objective.denoiser(lambda x, told, time: 0.7 * x, clip=False)(x, t)
        found = objective.denoiser(lambda x, told, time: 0.7 * x, clip=True)(x, t)
        assert torch.allclose(found.x0, free.x0.clamp(-1, 1), atol=1e-9)
        assert torch.allclose(alpha * found.x0 + sigma * found.noise, x, rtol=1e-5, atol=1e-5)


def test_a_velocity_is_asked_at_data_and_says_the_noise_there() -> None:
    """SiT's integrators end there; clipping must not divide by sigma = 0."""
    x = torch.tensor([[[[0.2]]], [[[1.4]]]])
    velocity = torch.full_like(x, 0.5)
    for clip in (False, True):
        found = objective_of("flow", {}).denoiser(lambda x, told, time: velocity, clip)(x, 0.0)
        assert torch.equal(found.x0, x.clamp(-1, 1) if clip else x)
        assert torch.allclose(found.noise, x + 0.5)


# Whole trainings in one number: data N(0.4, 0.3^2), for which the best network is a line in x.
COUNT = 200_000


class Line(nn.Module):
    """The best network's output plus an error: `answer(x, t)` for the x and the time that it is given."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor], slope: float = 0.0, offset: float = 0.0) -> None:
        super().__init__()
        self.answer, self.slope, self.offset = answer, slope, offset

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.answer(x, t.view(-1, 1, 1).double()) + self.slope * x + self.offset


def best(case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    """In tensors: E[x0 | x] of one Gaussian by precision weighting, then what `case` makes of it."""
    path, prediction = case.options.get("path"), case.options.get("prediction")

    def of_one_gaussian(x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        variance = (0.3 * alpha) ** 2 + sigma**2
        return 0.4 + alpha * 0.09 * (x - 0.4 * alpha) / variance, sigma * (x - 0.4 * alpha) / variance

    def of_edm(given: Tensor, told: Tensor) -> Tensor:
        sigma, spread = (4 * told).exp(), case.options["sigma_data"]
        whole = (sigma**2 + spread**2).sqrt()
        x0, _ = of_one_gaussian(given * whole, torch.ones_like(told), sigma)
        return (x0 - spread**2 / whole**2 * given * whole) / (sigma * spread / whole)

    def answer(x: Tensor, told: Tensor) -> Tensor:
        if case.objective == "iddpm":
            levels = torch.tensor([DISCRETE[case.options["schedule"]](t) for t in range(1000)], dtype=torch.float64)
            alpha, sigma = levels[told.long()].unbind(-1)
        else:
            t = told if case.options["network_time"] == "noise-at-1" else 1 - told
            alpha, sigma = (1 - t, t) if path == "linear" else ((math.pi / 2 * t).cos(), (math.pi / 2 * t).sin())
        x0, noise = of_one_gaussian(x, alpha, sigma)
        if prediction != "velocity":
            return x0 if prediction == "x0" else noise
        if case.objective == "iddpm":
            return alpha * noise - sigma * x0
        velocity = noise - x0 if path == "linear" else math.pi / 2 * (alpha * noise - sigma * x0)
        return velocity if case.options["network_time"] == "noise-at-1" else -velocity

    return of_edm if case.objective == "edm" else answer


def loss_of(objective: Objective, network: nn.Module) -> Tensor:
    x0 = (0.4 + 0.3 * torch.randn(COUNT, 1, 1, generator=torch.Generator().manual_seed(1))).double()
    drawn = objective.draw((COUNT, 1, 1), torch.Generator().manual_seed(2))
    drawn = {key: value.double() if value.is_floating_point() else value for key, value in drawn.items()}
    return objective.losses(network, x0, torch.zeros(COUNT, dtype=torch.int64), drawn)["loss"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *((name, {}) for name in CASES if "thousandths" not in name),
        ("flow linear x0 noise-at-1", {"loss": "velocity"}),
        ("flow gvp noise data-at-1", {"loss": "x0", "times": "logit-normal", "shift": 2.0}),
        ("flow linear velocity data-at-1", {"loss": "noise"}),
        ("iddpm linear velocity", {"weighting": "min-snr"}),
        ("iddpm cosine x0", {"weighting": "p2"}),
        ("iddpm linear noise", {"weighting": "p2", "p2_gamma": 0.5}),
    ],
)
def test_the_best_network_has_the_least_loss(name: str, more: dict[str, Any]) -> None:
    case = CASES[name]
    objective, answer = objective_of(case.objective, {**case.options, **more}), best(case)
    least = loss_of(objective, Line(answer))
    for slope, offset in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        difference = loss_of(objective, Line(answer, slope, offset)) - least
        assert difference.mean() > 4 * difference.std() / COUNT**0.5, (slope, offset)


@pytest.mark.parametrize("path", ["linear", "gvp"])
@pytest.mark.parametrize("mean", [None, 0.8])
def test_the_least_loss_of_a_flow_is_the_integral_of_the_variance(path: str, mean: float | None) -> None:
    """Var(velocity | x) = turn^2 0.09 / (0.09 alpha^2 + sigma^2), turn = alpha sigma' - sigma alpha', over times."""
    options = {} if mean is None else {"times": "logit-normal", "time_mean": mean, "time_std": 0.8}
    case = flow(path, "velocity", **options)
    losses = loss_of(objective_of("flow", case.options), Line(best(case)))
    t = np.linspace(0, 1, 200_002)[1:-1]
    alpha, sigma = (1 - t, t) if path == "linear" else (np.cos(np.pi * t / 2), np.sin(np.pi * t / 2))
    turn = 1 if path == "linear" else np.pi / 2
    density = np.ones_like(t) if mean is None else norm.pdf(np.log(t / (1 - t)), mean, 0.8) / (t * (1 - t))
    expected = (density * turn**2 * 0.09 / (0.09 * alpha**2 + sigma**2)).mean()
    assert losses.mean().item() == pytest.approx(expected, abs=4 * losses.std().item() / COUNT**0.5)
