"""Predicting the velocity: its loss, and the same samples and bound as from the noise it stands for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from linear_process import ALPHAS_BAR
from sampled import CPU, losses, sample_ddim, sample_ddpm
from torch import Tensor, nn

from bench.objectives.denoiser import Network
from bench.objectives.iddpm import IDDPM, IDDPMOptions

pytestmark = pytest.mark.usefixtures("seeded")

VELOCITY = IDDPMOptions(prediction="velocity")
LEVELS = torch.tensor(ALPHAS_BAR, dtype=torch.float64)


def at(t: Tensor) -> Tensor:
    return LEVELS[t].view(-1, 1, 1, 1)


class Says(nn.Module):
    """A network with one answer."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.output = torch.cat(outputs, dim=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.output


def example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0, steps, their noise, and what becomes of x0."""
    x0, noise = torch.randn(2, 5, 2, 3, 3, dtype=torch.float64)
    t = torch.tensor([0, 1, 250, 998, 999])
    return x0, t, noise, at(t).sqrt() * x0 + (1 - at(t)).sqrt() * noise


@pytest.mark.parametrize("step", [0, 1, 400, 999])
@pytest.mark.parametrize("clip", [False, True])
def test_the_denoiser_gives_what_the_velocity_stands_for(step: int, clip: bool) -> None:
    x0, noise = torch.randn(2, 4, 2, 3, 3, dtype=torch.float64)
    t = torch.full((4,), step)
    xt = at(t).sqrt() * x0 + (1 - at(t)).sqrt() * noise
    velocity = at(t).sqrt() * noise - (1 - at(t)).sqrt() * x0
    denoised = IDDPM(VELOCITY, CPU).denoiser(lambda x, t, time=0.0: velocity, clip)(xt, step)
    assert torch.allclose(denoised.x0, x0.clamp(-1, 1) if clip else x0, rtol=0, atol=1e-5)
    again = at(t).sqrt() * denoised.x0 + (1 - at(t)).sqrt() * denoised.noise
    assert torch.allclose(again, xt, rtol=0, atol=1e-5), "x0 and noise are not what x is made of"


def test_the_exact_velocity_has_no_loss_and_the_exact_noise_has() -> None:
    x0, t, noise, _ = example()
    y = torch.zeros(len(t), dtype=torch.int64)
    velocity = at(t).sqrt() * noise - (1 - at(t)).sqrt() * x0
    exact = losses(Says(velocity), x0, t, y, noise, VELOCITY)
    assert exact["mse"].max() < 1e-10
    assert torch.equal(exact["loss"], exact["mse"])
    as_noise = losses(Says(noise), x0, t, y, noise, VELOCITY)
    expected = (noise - (at(t).sqrt() * noise - (1 - at(t)).sqrt() * x0)).square().mean((1, 2, 3))
    assert torch.allclose(as_noise["mse"].double(), expected, rtol=1e-5, atol=1e-10)


def test_the_bound_is_that_of_the_noise_which_the_velocity_stands_for() -> None:
    """A wrong prediction, said once as noise and once as velocity."""
    x0, t, noise, xt = example()
    y, v = torch.zeros(len(t), dtype=torch.int64), torch.rand_like(x0) - 0.5
    wrong = noise + 0.3 * torch.randn_like(noise)
    x0_of_it = (xt - (1 - at(t)).sqrt() * wrong) / at(t).sqrt()
    velocity = at(t).sqrt() * wrong - (1 - at(t)).sqrt() * x0_of_it
    by_noise = losses(Says(wrong, v), x0, t, y, noise)["vb"]
    by_velocity = losses(Says(velocity, v), x0, t, y, noise, VELOCITY)["vb"]
    assert (by_noise > 1e-4).all()
    assert torch.allclose(by_velocity, by_noise, rtol=1e-3)


# Data N(0.4, 0.3^2), whose best predictions are known.


def best(kind: str) -> Network:
    def network(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
        a, s = at(t).sqrt(), (1 - at(t)).sqrt()
        noise = s * (x - a * 0.4) / (a**2 * 0.3**2 + s**2)
        x0 = 0.4 + a * 0.3**2 * (x - a * 0.4) / (a**2 * 0.3**2 + s**2)
        return noise if kind == "noise" else a * noise - s * x0

    return network


def by_ddim(network: Network, x: Tensor, options: IDDPMOptions) -> Tensor:
    return sample_ddim(network, 20, x, clip=False, options=options)


def by_ddpm(network: Network, x: Tensor, options: IDDPMOptions) -> Tensor:
    random = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(x.shape, generator=random, dtype=x.dtype)

    return sample_ddpm(network, 20, x, draw, clip=False, options=options)


@pytest.mark.parametrize("sample", [by_ddim, by_ddpm])
def test_exact_velocities_sample_as_exact_noises_do(
    sample: Callable[[Network, Tensor, IDDPMOptions], Tensor],
) -> None:
    x = torch.randn(500, 1, 2, 2, dtype=torch.float64)
    by_noise = sample(best("noise"), x, IDDPMOptions())
    by_velocity = sample(best("velocity"), x, VELOCITY)
    assert by_noise.std() > 0.2
    assert torch.allclose(by_velocity, by_noise, rtol=0, atol=1e-4)
    assert not torch.allclose(sample(best("velocity"), x, IDDPMOptions()), by_noise, rtol=0, atol=0.1)
