"""The losses: the variational term against numerical integration, and what each of them trains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from linear_process import ALPHAS_BAR, BETAS, PROCESS, at, integral, normal, posterior
from sampled import losses
from scipy.integrate import quad
from torch import Tensor, nn

from bench.objectives.iddpm import IDDPM, IDDPMOptions

pytestmark = pytest.mark.usefixtures("seeded")


class Fixed(nn.Module):
    """Predicts the same noise, and variance if it has one, for every input."""

    def __init__(self, noise: Tensor, v: Tensor | None) -> None:
        super().__init__()
        self.noise = nn.Parameter(noise)
        self.v = None if v is None else nn.Parameter(v)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.noise if self.v is None else torch.cat([self.noise, self.v], dim=1)


def predictions(v: float, t: int, noise_error: float) -> tuple[float, float]:
    """(mean, log variance) of p(x_{t-1} | x_t) for x0 = 0.2, noise 0.9 predicted with that error."""
    xt = math.sqrt(ALPHAS_BAR[t]) * 0.2 + math.sqrt(1 - ALPHAS_BAR[t]) * 0.9
    x0 = (xt - math.sqrt(1 - ALPHAS_BAR[t]) * (0.9 + noise_error)) / math.sqrt(ALPHAS_BAR[t])
    mean, variance = posterior(t, x0, xt) if t else (x0, posterior(1, 0, 0)[1])
    return mean, (v + 1) / 2 * math.log(BETAS[t]) + (1 - v) / 2 * math.log(variance)


def expected_vb(v: float, t: int, noise_error: float) -> float:
    """The term in bits by numerical integration: KL for t > 0, the bin's likelihood at t = 0."""
    mean, log_variance = predictions(v, t, noise_error)
    if t == 0:
        mass = quad(lambda x: normal(x, mean, math.exp(log_variance)), 0.2 - 1 / 255, 0.2 + 1 / 255, epsabs=1e-14)[0]
        return -math.log2(mass)
    xt = math.sqrt(ALPHAS_BAR[t]) * 0.2 + math.sqrt(1 - ALPHAS_BAR[t]) * 0.9
    true_mean, true_variance = posterior(t, 0.2, xt)

    def integrand(x: float) -> float:
        log_p = -((x - mean) ** 2) / (2 * math.exp(log_variance)) - log_variance / 2
        log_q = -((x - true_mean) ** 2) / (2 * true_variance) - math.log(true_variance) / 2
        return normal(x, true_mean, true_variance) * (log_q - log_p)

    return integral(integrand, true_mean, math.sqrt(true_variance)) / math.log(2)


@pytest.mark.parametrize("t", [0, 1, 5, 250, 999])
@pytest.mark.parametrize(("v", "noise_error"), [(-1.0, 0.1), (1.0, 0.0), (0.3, -0.5)])
def test_variational_term_is_the_integral(t: int, v: float, noise_error: float) -> None:
    x0, steps = at(0.2, t)
    noise = torch.full_like(x0, 0.9)
    xt = PROCESS.q_sample(x0, steps, noise)
    got = PROCESS.vb_terms(x0, xt, steps, noise + noise_error, torch.full_like(x0, v))
    assert got.shape == (1,)
    assert got.item() == pytest.approx(expected_vb(v, t, noise_error), rel=2e-3, abs=2e-6)


def test_variational_term_of_a_perfect_prediction_is_zero() -> None:
    """The true noise and v = -1, the posterior variance."""
    x0, noise = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3)
    t = torch.tensor([1, 10, 500, 999])
    got = PROCESS.vb_terms(x0, PROCESS.q_sample(x0, t, noise), t, noise, torch.full_like(x0, -1.0))
    assert got.abs().max() < 1e-5


def test_losses_are_means_over_each_samples_elements() -> None:
    """A batch whose steps differ: every sample's terms are the mean of its elements' own terms."""
    generator = torch.Generator().manual_seed(0)
    x0, noise, predicted, v = (torch.rand(3, 2, 2, 2, generator=generator) - 0.5 for _ in range(4))
    t = torch.tensor([0, 3, 700])
    y = torch.zeros(3, dtype=torch.int64)
    found = losses(Fixed(predicted, v), x0, t, y, noise)
    assert {name: tuple(value.shape) for name, value in found.items()} == {"loss": (3,), "mse": (3,), "vb": (3,)}
    xt = PROCESS.q_sample(x0, t, noise)
    for i in range(3):
        mse = np.mean([(p - n) ** 2 for p, n in zip(predicted[i].flatten(), noise[i].flatten(), strict=True)])
        assert found["mse"][i].item() == pytest.approx(mse, rel=1e-5)
        elements = []
        for j in range(8):
            one = [z[i].flatten()[j].view(1, 1, 1, 1) for z in (x0, xt, predicted, v)]
            elements.append(PROCESS.vb_terms(one[0], one[1], t[i : i + 1], one[2], one[3]).item())
        assert found["vb"][i].item() == pytest.approx(np.mean(elements), rel=1e-5)
        assert found["loss"][i].item() == pytest.approx(mse + np.mean(elements), rel=1e-5)


@pytest.mark.parametrize("t", [0, 1, 400])
def test_each_output_is_trained_by_its_own_loss(t: int) -> None:
    """mse trains the noise, the variational term the variance; not the other way about (IDDPM Sec. 3.1)."""
    shape = (2, 1, 3, 3)
    generator = torch.Generator().manual_seed(1)
    x0, noise, predicted = (0.3 * torch.randn(shape, generator=generator) for _ in range(3))
    steps, y = torch.full((2,), t), torch.zeros(2, dtype=torch.int64)

    def gradients(name: str) -> tuple[Tensor | None, Tensor | None]:
        model = Fixed(predicted.clone(), torch.full(shape, 0.2))
        losses(model, x0, steps, y, noise)[name].sum().backward()
        assert model.v is not None
        return model.noise.grad, model.v.grad

    noise_of_mse, v_of_mse = gradients("mse")
    assert v_of_mse is None or not v_of_mse.any()
    assert noise_of_mse is not None
    assert torch.allclose(noise_of_mse, 2 * (predicted - noise) / 9, rtol=1e-5)
    noise_of_vb, v_of_vb = gradients("vb")
    assert noise_of_vb is None or not noise_of_vb.any()
    assert v_of_vb is not None
    assert (v_of_vb != 0).all()
    noise_of_loss, v_of_loss = gradients("loss")
    assert noise_of_loss is not None
    assert v_of_loss is not None
    assert torch.equal(noise_of_loss, noise_of_mse)
    assert torch.equal(v_of_loss, v_of_vb)


def test_gradient_of_the_variational_term_points_to_the_posterior_variance() -> None:
    """With the true noise, lowering v towards -1 lowers the bound."""
    x0, noise = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    model = Fixed(noise.clone(), torch.zeros_like(x0))
    losses(model, x0, torch.tensor([2, 20]), torch.zeros(2, dtype=torch.int64), noise)["vb"].sum().backward()
    assert model.v is not None
    assert model.v.grad is not None
    assert (model.v.grad > 0).all()


def test_without_a_variance_the_loss_is_the_mean_square() -> None:
    x0, noise, predicted = (torch.randn(2, 3, 2, 2) for _ in range(3))
    found = losses(Fixed(predicted, None), x0, torch.tensor([0, 9]), torch.zeros(2).long(), noise)
    assert torch.allclose(found["mse"], ((predicted - noise) ** 2).mean((1, 2, 3)))
    assert torch.equal(found["loss"], found["mse"])
    assert torch.equal(found["vb"], torch.zeros(2))


def test_the_network_sees_the_noised_image_and_the_original_timesteps() -> None:
    """A network that answers x_t plus its timestep: the respaced process asks about 0, 500, 999."""

    class Echo(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return x + t.view(-1, 1, 1, 1) + 10_000 * y.view(-1, 1, 1, 1)

    x0 = torch.full((3, 1, 1, 1), 0.5)
    objective = IDDPM(IDDPMOptions(), torch.device("cpu"))
    objective.diffusion = PROCESS.respace(3)
    drawn = {"t": torch.arange(3), "noise": torch.zeros_like(x0)}
    found = objective.losses(Echo(), x0, torch.tensor([0, 1, 0]), drawn)
    expected = [
        (math.sqrt(ALPHAS_BAR[t]) * 0.5 + t + 10_000 * y) ** 2 for t, y in zip((0, 500, 999), (0, 1, 0), strict=True)
    ]
    assert found["mse"].tolist() == pytest.approx(expected, rel=1e-5)


def test_losses_of_a_half_precision_network_are_computed_in_float32() -> None:
    """Exactly the losses of its outputs converted first: v + 1 in bfloat16 would lose most digits of v."""
    x0, noise = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    half = Fixed(0.1 * torch.randn_like(x0), 0.01 * torch.rand_like(x0)).bfloat16()
    assert half.v is not None
    single = Fixed(half.noise.detach().float(), half.v.detach().float())
    t, y = torch.tensor([5]), torch.tensor([0])
    found, expected = (losses(model, x0, t, y, noise) for model in (half, single))
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name]), name
