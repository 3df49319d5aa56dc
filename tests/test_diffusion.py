"""The diffusion process against scalar loops, Bayes' rule on a grid and numerical integration."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor, nn

from bench.diffusion import (
    GaussianDiffusion,
    discretized_gaussian_log_likelihood,
    gaussian_kl,
    linear_betas,
    respaced_steps,
)

STEPS = 1000


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def scalar_schedule() -> tuple[list[float], list[float]]:
    """beta_t and alpha_bar_t of the paper in plain Python floats."""
    betas, alphas_bar, product = [], [], 1.0
    for t in range(STEPS):
        beta = 1e-4 + (0.02 - 1e-4) * t / (STEPS - 1)
        product *= 1 - beta
        betas.append(beta)
        alphas_bar.append(product)
    return betas, alphas_bar


BETAS, ALPHAS_BAR = scalar_schedule()
PROCESS = GaussianDiffusion.linear()


def normal(x: float, mean: float, variance: float) -> float:
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def integral(f: Callable[[float], float], centre: float, std: float) -> float:
    """Integral of a bell of that centre and width, times something smooth."""
    return quad(f, centre - 12 * std, centre + 12 * std, points=[centre], epsabs=1e-13, epsrel=1e-11, limit=400)[0]


def posterior(t: int, x0: float, xt: float) -> tuple[float, float]:
    """Mean and variance of q(x_{t-1} | x_t, x_0) by precision-weighting the two Gaussians that define it."""
    beta, previous = BETAS[t], ALPHAS_BAR[t - 1]
    # q(x_{t-1} | x_0) = N(sqrt(previous) x0, 1 - previous); q(x_t | x_{t-1}) as a function of x_{t-1} is a bell too.
    precision = 1 / (1 - previous) + (1 - beta) / beta
    mean = (math.sqrt(previous) * x0 / (1 - previous) + math.sqrt(1 - beta) * xt / beta) / precision
    return mean, 1 / precision


def at(values: float, t: int) -> tuple[Tensor, Tensor]:
    return torch.full((1, 1, 1, 1), values), torch.tensor([t])


# Schedule


def test_betas_run_from_1e_4_to_002() -> None:
    betas = linear_betas(STEPS)
    assert betas.dtype == torch.float64
    assert betas.tolist() == pytest.approx(BETAS, rel=1e-12)
    assert (betas[0].item(), betas[-1].item()) == (pytest.approx(1e-4), pytest.approx(0.02))


@pytest.mark.parametrize("steps", [100, 250, 4000])
def test_other_lengths_keep_the_total_noise(steps: int) -> None:
    """The sum of betas, so about the same alpha_bar at the end."""
    betas = linear_betas(steps)
    assert len(betas) == steps
    assert betas.sum().item() == pytest.approx(sum(BETAS), rel=1e-9)
    assert betas[-1].item() == pytest.approx(0.02 * 1000 / steps)


@pytest.mark.parametrize("steps", [2, 10, 20])
def test_too_few_training_steps_are_an_error(steps: int) -> None:
    with pytest.raises(ValueError, match=str(steps)):
        GaussianDiffusion.linear(steps)


def test_the_shortest_schedule_is_finite() -> None:
    process = GaussianDiffusion.linear(21)
    for name in ("alphas_bar", "x0_from_xt", "x0_from_noise", "posterior_log_variance", "log_betas"):
        assert getattr(process, name).isfinite().all(), name


def test_tables_are_the_closed_forms() -> None:
    previous = [1.0, *ALPHAS_BAR[:-1]]
    rows = list(zip(BETAS, ALPHAS_BAR, previous, strict=True))
    variance = [b * (1 - p) / (1 - a) for b, a, p in rows]
    expected = {
        "alphas_bar": ALPHAS_BAR,
        "alphas_bar_previous": previous,
        "sqrt_alphas_bar": [math.sqrt(a) for a in ALPHAS_BAR],
        "sqrt_one_minus_alphas_bar": [math.sqrt(1 - a) for a in ALPHAS_BAR],
        "x0_from_xt": [1 / math.sqrt(a) for a in ALPHAS_BAR],
        "x0_from_noise": [math.sqrt((1 - a) / a) for a in ALPHAS_BAR],
        "posterior_mean_x0": [b * math.sqrt(p) / (1 - a) for b, a, p in rows],
        "posterior_mean_xt": [(1 - p) * math.sqrt(1 - b) / (1 - a) for b, a, p in rows],
        "posterior_log_variance": [math.log(v) for v in [variance[1], *variance[1:]]],
        "log_betas": [math.log(b) for b in BETAS],
    }
    for name, values in expected.items():
        table = getattr(PROCESS, name)
        assert table.dtype == torch.float32, name
        np.testing.assert_allclose(table.double().numpy(), values, rtol=2e-7, atol=1e-12, err_msg=name)
    assert PROCESS.timesteps.tolist() == list(range(STEPS))


def test_the_last_step_is_almost_pure_noise() -> None:
    assert PROCESS.alphas_bar[-1].item() == pytest.approx(4.0358e-5, rel=1e-3)


# Forward process


@pytest.mark.parametrize("t", [0, 1, 37, 999])
def test_q_sample_is_the_markov_chain(t: int) -> None:
    """Noise added step by step (DDPM Eq. 2) has the mean and variance of the shortcut (Eq. 4)."""
    mean, variance = 1.0, 0.0
    for beta in BETAS[: t + 1]:
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    zero, steps = at(0.0, t)
    one = torch.ones_like(zero)
    assert PROCESS.q_sample(one, steps, zero).item() == pytest.approx(mean, rel=1e-6)
    assert PROCESS.q_sample(zero, steps, one).item() ** 2 == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize("t", [0, 200, 999])
def test_q_sample_statistics(t: int) -> None:
    count = 200_000
    noise = torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(t))
    x0 = torch.full_like(noise, 0.7)
    xt = PROCESS.q_sample(x0, torch.full((count,), t), noise).double()
    variance = 1 - ALPHAS_BAR[t]
    assert xt.mean().item() == pytest.approx(0.7 * math.sqrt(ALPHAS_BAR[t]), abs=5 * math.sqrt(variance / count))
    assert xt.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / count))


def test_every_sample_has_its_own_step() -> None:
    x0, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    t = torch.tensor([999, 0, 500])
    together = PROCESS.q_sample(x0, t, noise)
    for i in range(3):
        expected = math.sqrt(ALPHAS_BAR[t[i]]) * x0[i] + math.sqrt(1 - ALPHAS_BAR[t[i]]) * noise[i]
        assert torch.allclose(together[i], expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(t=st.integers(0, 999), x0=st.floats(-3, 3, width=32), noise=st.floats(-4, 4, width=32))
def test_predict_x0_inverts_q_sample(t: int, x0: float, noise: float) -> None:
    image, steps = at(x0, t)
    drawn = torch.full_like(image, noise)
    back = PROCESS.predict_x0(PROCESS.q_sample(image, steps, drawn), steps, drawn)
    # float32 rounding of x_t, magnified by 1 / sqrt(alpha_bar).
    assert back.item() == pytest.approx(x0, abs=1e-6 * (1 + abs(x0) + abs(noise)) / math.sqrt(ALPHAS_BAR[t]))


# Posterior


@pytest.mark.parametrize("t", [1, 2, 40, 500, 999])
@pytest.mark.parametrize(("x0", "xt"), [(0.5, -0.3), (-1.0, 2.0)])
def test_posterior_is_bayes_rule(t: int, x0: float, xt: float) -> None:
    """The product q(x_t | x_{t-1}) q(x_{t-1} | x_0) integrated on a grid."""
    previous = np.linspace(-9, 9, 400_001)
    log_density = -((xt - math.sqrt(1 - BETAS[t]) * previous) ** 2) / (2 * BETAS[t])
    log_density -= (previous - math.sqrt(ALPHAS_BAR[t - 1]) * x0) ** 2 / (2 * (1 - ALPHAS_BAR[t - 1]))
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = float((weights * previous).sum())
    variance = float((weights * (previous - mean) ** 2).sum())
    image, steps = at(x0, t)
    assert PROCESS.posterior_mean(image, torch.full_like(image, xt), steps).item() == pytest.approx(mean, abs=2e-6)
    assert PROCESS.posterior_log_variance[t].exp().item() == pytest.approx(variance, rel=1e-5)
    assert posterior(t, x0, xt) == pytest.approx((mean, variance), rel=1e-6)


def test_posterior_at_step_zero_is_x0() -> None:
    image, steps = at(0.37, 0)
    assert PROCESS.posterior_mean(image, torch.full_like(image, -5.0), steps).item() == pytest.approx(0.37, rel=1e-6)


@pytest.mark.parametrize("t", [0, 1, 300, 999])
def test_learned_variance_runs_from_posterior_variance_to_beta(t: int) -> None:
    step = max(t, 1)  # the variance of step 0, which is 0, is replaced by that of step 1
    low = math.log(BETAS[step] * (1 - ALPHAS_BAR[step - 1]) / (1 - ALPHAS_BAR[step]))
    high = math.log(BETAS[t])
    for v, expected in [(-1.0, low), (1.0, high), (0.0, (low + high) / 2), (0.5, 0.25 * low + 0.75 * high)]:
        assert PROCESS.log_variance(*at(v, t)).item() == pytest.approx(expected, rel=1e-5)


# Respacing


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


# Kullback-Leibler divergence and likelihood


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    mean1=st.floats(-2, 2), mean2=st.floats(-2, 2), log_variance1=st.floats(-4, 2), log_variance2=st.floats(-4, 2)
)  # fmt: skip
def test_kl_is_the_integral(mean1: float, mean2: float, log_variance1: float, log_variance2: float) -> None:
    variance1, variance2 = math.exp(log_variance1), math.exp(log_variance2)

    def integrand(x: float) -> float:
        log_ratio = (
            (log_variance2 - log_variance1) / 2
            + (x - mean2) ** 2 / (2 * variance2)
            - (x - mean1) ** 2 / (2 * variance1)
        )
        return normal(x, mean1, variance1) * log_ratio

    expected = integral(integrand, mean1, math.sqrt(variance1))
    values = [torch.tensor(v, dtype=torch.float64) for v in (mean1, log_variance1, mean2, log_variance2)]
    assert gaussian_kl(*values).item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


BINS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


@pytest.mark.parametrize("mean", [-1.5, -1.0, -0.3, 0.0, 0.501, 1.0, 3.0])
@pytest.mark.parametrize("std", [0.003, 0.02, 0.4, 5.0])
def test_bins_hold_all_of_the_mass(mean: float, std: float) -> None:
    log_variance = torch.full_like(BINS, 2 * math.log(std))
    mass = discretized_gaussian_log_likelihood(BINS, torch.full_like(BINS, mean), log_variance).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("value", [0, 1, 100, 254, 255])
@pytest.mark.parametrize(("mean", "std"), [(-0.95, 0.05), (0.0, 0.3), (0.97, 0.01), (-0.22, 0.02), (2.0, 1.0)])
def test_a_bins_likelihood_is_its_integral(value: int, mean: float, std: float) -> None:
    """8-bit value v covers (v +- 0.5) / 127.5 - 1; 0 and 255 reach to infinity."""
    low = mean - 12 * std if value == 0 else (value - 0.5) / 127.5 - 1
    high = mean + 12 * std if value == 255 else (value + 0.5) / 127.5 - 1
    mass = quad(lambda x: normal(x, mean, std**2), low, high, epsabs=1e-16, limit=400)[0] if low < high else 0.0
    got = discretized_gaussian_log_likelihood(
        BINS[value], torch.tensor(mean, dtype=torch.float64), torch.tensor(2 * math.log(std), dtype=torch.float64)
    )
    assert got.exp().item() == pytest.approx(mass, rel=1e-6, abs=2e-12)


def test_a_value_far_out_of_reach_has_a_finite_likelihood() -> None:
    x = torch.tensor([-1.0, 0.0, 1.0], requires_grad=True)
    log_likelihood = discretized_gaussian_log_likelihood(x, torch.tensor([9.0, 9.0, -9.0]), torch.full((3,), -9.0))
    log_likelihood.sum().backward()
    assert log_likelihood.tolist() == pytest.approx([math.log(1e-12)] * 3)
    assert x.grad is not None
    assert x.grad.isfinite().all()


# Losses


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
    losses = PROCESS.losses(Fixed(predicted, v), x0, t, y, noise)
    assert {name: tuple(value.shape) for name, value in losses.items()} == {"loss": (3,), "mse": (3,), "vb": (3,)}
    xt = PROCESS.q_sample(x0, t, noise)
    for i in range(3):
        mse = np.mean([(p - n) ** 2 for p, n in zip(predicted[i].flatten(), noise[i].flatten(), strict=True)])
        assert losses["mse"][i].item() == pytest.approx(mse, rel=1e-5)
        elements = []
        for j in range(8):
            one = [z[i].flatten()[j].view(1, 1, 1, 1) for z in (x0, xt, predicted, v)]
            elements.append(PROCESS.vb_terms(one[0], one[1], t[i : i + 1], one[2], one[3]).item())
        assert losses["vb"][i].item() == pytest.approx(np.mean(elements), rel=1e-5)
        assert losses["loss"][i].item() == pytest.approx(mse + np.mean(elements), rel=1e-5)


@pytest.mark.parametrize("t", [0, 1, 400])
def test_each_output_is_trained_by_its_own_loss(t: int) -> None:
    """mse trains the noise, the variational term the variance; not the other way about (IDDPM Sec. 3.1)."""
    shape = (2, 1, 3, 3)
    generator = torch.Generator().manual_seed(1)
    x0, noise, predicted = (0.3 * torch.randn(shape, generator=generator) for _ in range(3))
    steps, y = torch.full((2,), t), torch.zeros(2, dtype=torch.int64)

    def gradients(name: str) -> tuple[Tensor | None, Tensor | None]:
        model = Fixed(predicted.clone(), torch.full(shape, 0.2))
        PROCESS.losses(model, x0, steps, y, noise)[name].sum().backward()
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
    PROCESS.losses(model, x0, torch.tensor([2, 20]), torch.zeros(2, dtype=torch.int64), noise)["vb"].sum().backward()
    assert model.v is not None
    assert model.v.grad is not None
    assert (model.v.grad > 0).all()


def test_without_a_variance_the_loss_is_the_mean_square() -> None:
    x0, noise, predicted = (torch.randn(2, 3, 2, 2) for _ in range(3))
    losses = PROCESS.losses(Fixed(predicted, None), x0, torch.tensor([0, 9]), torch.zeros(2).long(), noise)
    assert torch.allclose(losses["mse"], ((predicted - noise) ** 2).mean((1, 2, 3)))
    assert torch.equal(losses["loss"], losses["mse"])
    assert torch.equal(losses["vb"], torch.zeros(2))


def test_the_network_sees_the_noised_image_and_the_original_timesteps() -> None:
    """A network that answers x_t plus its timestep: the respaced process asks about 0, 500, 999."""

    class Echo(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return x + t.view(-1, 1, 1, 1) + 10_000 * y.view(-1, 1, 1, 1)

    x0 = torch.full((3, 1, 1, 1), 0.5)
    losses = PROCESS.respace(3).losses(Echo(), x0, torch.arange(3), torch.tensor([0, 1, 0]), torch.zeros_like(x0))
    expected = [
        (math.sqrt(ALPHAS_BAR[t]) * 0.5 + t + 10_000 * y) ** 2 for t, y in zip((0, 500, 999), (0, 1, 0), strict=True)
    ]
    assert losses["mse"].tolist() == pytest.approx(expected, rel=1e-5)


def test_losses_of_a_half_precision_network_are_computed_in_float32() -> None:
    """Exactly the losses of its outputs converted first: v + 1 in bfloat16 would lose most digits of v."""
    x0, noise = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    half = Fixed(0.1 * torch.randn_like(x0), 0.01 * torch.rand_like(x0)).bfloat16()
    assert half.v is not None
    single = Fixed(half.noise.detach().float(), half.v.detach().float())
    t, y = torch.tensor([5]), torch.tensor([0])
    losses, expected = (PROCESS.losses(model, x0, t, y, noise) for model in (half, single))
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name]), name
