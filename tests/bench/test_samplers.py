"""Samplers on data whose optimal network is known in closed form, and against diffusers' schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from known_data import Mixture, run
from sampled import CPU, losses, never, sample_ddim, sample_ddpm
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.objectives.denoiser import Network
from bench.objectives.diffusion import GaussianDiffusion
from bench.objectives.discrete import Variance
from bench.objectives.iddpm import IDDPM, IDDPMOptions
from bench.objectives.process import LinearPath
from bench.samplers import SAMPLERS
from bench.samplers.ddim import DDIM, DDIMOptions
from bench.samplers.guidance import guided
from models import BLOCKS, create_model
from models.transformer import DiT

PROCESS = IDDPM(IDDPMOptions(), CPU).diffusion
# alpha_bar by the network's timestep, for networks that know the noise level.
ALPHAS_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))

MEAN, STD = 0.4, 0.3


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def noise_of_gaussian_data(mean: float, std: float) -> Network:
    """E[noise | x_t] for data N(mean, std^2), in float64."""

    def network(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
        level = torch.from_numpy(ALPHAS_BAR)[t].view(-1, 1, 1, 1)
        return (1 - level).sqrt() * (x - level.sqrt() * mean) / (level * std**2 + 1 - level)

    return network


def with_optimal_variance(network: Network, std: float, kept: list[int]) -> Network:
    """Appends the v whose variance is that of q(x_{t-1} | x_t) for data of that spread, at the kept timesteps."""
    values = torch.zeros(1000, dtype=torch.float64)
    levels = [1.0, *(float(ALPHAS_BAR[t]) for t in kept)]
    for step in range(1, len(kept)):  # nothing is drawn at step 0
        previous, level = levels[step], levels[step + 1]
        beta = 1 - level / previous
        small = beta * (1 - previous) / (1 - level)
        x0_weight = beta * math.sqrt(previous) / (1 - level)
        spread = std**2 * (1 - level) / (level * std**2 + 1 - level)  # Var[x_0 | x_t]
        log_variance = math.log(small + x0_weight**2 * spread)
        values[kept[step]] = 2 * (log_variance - math.log(small)) / (math.log(beta) - math.log(small)) - 1

    def both(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
        return torch.cat([network(x, t, time), values[t].view(-1, 1, 1, 1).expand_as(x)], dim=1)

    return both


def curved(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
    """Some network of 2C channels, nonlinear in x, that differs between timesteps; v in [-1, 1]."""
    phase = t.view(-1, 1, 1, 1).to(x.dtype) / 1000
    return torch.cat([torch.sin(2 * x + phase) + 0.3 * x.flip(-1), torch.cos(3 * x - 5 * phase)], dim=1)


def only_noise(network: Network) -> Network:
    return lambda x, t, time=0.0: network(x, t, time)[:, : x.shape[1]]


# Known answers


def test_ddim_transports_noise_to_gaussian_data() -> None:
    """DDIM of an affine network is affine: its slope and intercept are the data's spread and mean."""
    x = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
    low, middle, high = sample_ddim(noise_of_gaussian_data(MEAN, STD), 1000, x, clip=False).flatten().tolist()
    assert (high - low) / 4 == pytest.approx(STD, rel=0.01)
    assert middle == pytest.approx(MEAN, abs=0.01)
    assert (high + low) / 2 == pytest.approx(middle, abs=1e-9)


def test_ddim_error_shrinks_with_the_steps() -> None:
    x = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    errors = []
    for steps in (10, 50, 250, 1000):
        low, high = sample_ddim(noise_of_gaussian_data(MEAN, STD), steps, x, clip=False).flatten()
        errors.append(abs((high - low).item() / 2 - STD))
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < errors[1] / 3


@pytest.mark.parametrize("steps", [10, 250])
def test_ddim_of_point_data_ends_at_the_point(steps: int) -> None:
    """For data without spread the prediction of x_0 is exact at every step, so any number of steps is."""
    x = torch.randn(4, 1, 2, 2, dtype=torch.float64)
    end = sample_ddim(noise_of_gaussian_data(0.7, 0.0), steps, x, clip=False)
    assert end.flatten().tolist() == pytest.approx([0.7] * 16, abs=1e-4)


@pytest.mark.parametrize("steps", [2, 5, 50, 1000])
def test_ddpm_with_the_optimal_variance_has_the_datas_mean_and_variance(steps: int) -> None:
    """Exact for any number of steps: every source of noise gets a pixel of its own, and their squares add up.

    The last step returns E[x_0 | x_1] and so lacks Var[x_0 | x_1].
    """
    process = PROCESS.respace(steps)
    kept = process.timesteps.tolist()
    network = with_optimal_variance(noise_of_gaussian_data(MEAN, STD), STD, kept)
    level = float(ALPHAS_BAR[-1])
    basis = torch.eye(steps, dtype=torch.float64)  # the initial noise, then one draw a step but the last
    draws = iter(basis[1:])
    start = math.sqrt(level) * MEAN + math.sqrt(level * STD**2 + 1 - level) * basis[0].view(1, 1, 1, -1)
    end = sample_ddpm(network, process.num_steps, start, lambda: next(draws).view(1, 1, 1, -1), clip=False).flatten()
    assert next(draws, None) is None  # called once a step except the last
    zero = torch.full((1, 1, 1, 1), math.sqrt(level) * MEAN, dtype=torch.float64)
    mean = sample_ddpm(network, process.num_steps, zero, lambda: torch.zeros_like(zero), clip=False).item()
    missing = STD**2 * (1 - ALPHAS_BAR[0]) / (ALPHAS_BAR[0] * STD**2 + 1 - ALPHAS_BAR[0])
    assert mean == pytest.approx(MEAN, abs=1e-4)
    assert (end - mean).square().sum().item() == pytest.approx(STD**2 - missing, rel=1e-4)


def test_ddpm_statistics() -> None:
    """The same with random numbers: mean, variance and fourth moment of many samples."""
    process = PROCESS.respace(20)
    network = with_optimal_variance(noise_of_gaussian_data(MEAN, STD), STD, process.timesteps.tolist())
    count = 100_000
    generator = torch.Generator().manual_seed(3)

    def draw() -> Tensor:
        return torch.randn(count, 1, 1, 1, generator=generator, dtype=torch.float64)

    samples = sample_ddpm(network, process.num_steps, draw(), draw, clip=False)
    assert samples.mean().item() == pytest.approx(MEAN, abs=5 * STD / math.sqrt(count))
    assert samples.var().item() == pytest.approx(STD**2, rel=0.002 + 5 * math.sqrt(2 / count))
    fourth = ((samples - MEAN) / STD).pow(4).mean().item()
    assert fourth == pytest.approx(3, abs=0.02 + 5 * math.sqrt(96 / count))


@pytest.mark.parametrize("v", [-1.0, 1.0])
def test_ddpm_noise_has_the_learned_variance(v: float) -> None:
    """Two steps and a network that predicts no noise: the one draw enters with a known factor."""
    process = PROCESS.respace(2)
    first, last = float(ALPHAS_BAR[0]), float(ALPHAS_BAR[-1])
    beta = 1 - last / first
    variance = beta if v == 1 else beta * (1 - first) / (1 - last)
    x = torch.zeros(1, 1, 1, 1)

    def network(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
        return torch.cat([torch.zeros_like(x), torch.full_like(x, v)], dim=1)

    end = sample_ddpm(network, process.num_steps, x, lambda: torch.ones_like(x), clip=False)
    assert end.item() == pytest.approx(math.sqrt(variance / first), rel=1e-5)


def test_ddpm_without_a_learned_variance_draws_with_beta() -> None:
    process, x = PROCESS.respace(7), torch.randn(2, 3, 4, 4)
    noise = [torch.randn_like(x) for _ in range(6)]

    def upper(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
        return torch.cat([only_noise(curved)(x, t, time), torch.ones_like(x)], dim=1)

    fixed = sample_ddpm(only_noise(curved), process.num_steps, x, iter(noise).__next__, clip=False)
    assert torch.allclose(fixed, sample_ddpm(upper, process.num_steps, x, iter(noise).__next__, clip=False), atol=1e-6)


@pytest.mark.parametrize("steps", [2, 30, 1000])
def test_fixed_variances_are_beta_and_the_posteriors(steps: int) -> None:
    """Of the step itself, in closed form; at step 0 the posterior's is that of step 1 (IDDPM Sec. 3.1)."""
    kept = PROCESS.respace(steps).timesteps.tolist()
    levels = [1.0, *(float(ALPHAS_BAR[t]) for t in kept)]
    betas = [1 - levels[step + 1] / levels[step] for step in range(steps)]
    small = [beta * (1 - levels[step]) / (1 - levels[step + 1]) for step, beta in enumerate(betas)]
    small[0] = small[1]
    cases: list[tuple[Variance | None, list[float]]] = [("fixed-large", betas), ("fixed-small", small), (None, betas)]
    for variance, expected in cases:
        denoiser = IDDPM(IDDPMOptions(variance=variance), CPU).denoiser(only_noise(curved), False).respace(steps)
        for step in {0, 1, steps // 2, steps - 1}:
            found = denoiser(torch.zeros(1, 1, 2, 2), step).log_variance.exp()
            assert found.item() == pytest.approx(expected[step], rel=1e-4)


# DDIM with eta (Song et al. 2020, Eq. 16)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("steps", [3, 10])
def test_ddim_noise_has_the_variance_of_its_formula(steps: int, eta: float) -> None:
    """A network that predicts no noise: each of the draws reaches the end by a known factor."""
    levels = [1.0, *(float(ALPHAS_BAR[t]) for t in PROCESS.respace(steps).timesteps)]
    basis = torch.eye(steps - 1, dtype=torch.float64)
    draws = iter(basis)

    def silent(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
        return torch.zeros_like(x)

    x = torch.zeros(1, 1, 1, steps - 1, dtype=torch.float64)
    end = sample_ddim(silent, steps, x, False, lambda: next(draws).view(x.shape), eta).flatten()
    assert next(draws, None) is None  # drawn in every step but the last
    for step, factor in zip(range(steps - 1, 0, -1), end.tolist(), strict=True):
        previous, current = levels[step], levels[step + 1]
        variance = eta**2 * (1 - previous) / (1 - current) * (1 - current / previous)
        assert factor == pytest.approx(math.sqrt(variance / previous), rel=3e-4)


def test_ddim_of_eta_one_is_ddpm_with_the_posteriors_variance() -> None:
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    noise = [torch.randn_like(x) for _ in range(11)]
    ddim = sample_ddim(only_noise(curved), 12, x, False, iter(noise).__next__, eta=1.0)
    small = IDDPMOptions(variance="fixed-small")
    assert torch.allclose(ddim, sample_ddpm(only_noise(curved), 12, x, iter(noise).__next__, False, small), atol=1e-3)
    large = sample_ddpm(only_noise(curved), 12, x, iter(noise).__next__, False)
    assert not torch.allclose(ddim, large, atol=0.1)


def test_ddim_of_eta_zero_draws_nothing_and_is_the_default() -> None:
    x = torch.randn(2, 1, 2, 2)
    assert torch.equal(sample_ddim(curved, 9, x, False, never, eta=0.0), DDIM.sample(
        IDDPM(IDDPMOptions(), CPU).denoiser(curved, False), x, 9, never, DDIMOptions()
    ))  # fmt: skip


# Against diffusers


def scheduler(kind: type[Any], process: GaussianDiffusion, clip: bool, **options: Any) -> Any:
    """A diffusers scheduler with one step for each of ours; its own float32 table would cost four digits."""
    made = kind(num_train_timesteps=process.num_steps, trained_betas=process.betas.numpy(), clip_sample=clip, **options)
    made.alphas_cumprod = torch.from_numpy(ALPHAS_BAR)[process.timesteps]
    made.set_timesteps(process.num_steps)
    return made


def agree(got: Tensor, expected: Tensor) -> None:
    """Within float32 rounding, as far as the steps magnify it."""
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("steps", [2, 25, 1000])
def test_ddim_equals_diffusers(steps: int, clip: bool, eta: float) -> None:
    process = PROCESS.respace(steps)
    theirs = scheduler(DDIMScheduler, process, clip, set_alpha_to_one=True)
    x = torch.randn(2, 3, 4, 4)
    expected, generator = x, torch.Generator().manual_seed(5)
    for step in theirs.timesteps.tolist():
        noise = only_noise(curved)(expected, process.timesteps[step].expand(2), 0.0)
        # diffusers too can make the noise fit the clipped x_0; by default it does not.
        drawn = torch.randn(x.shape, generator=generator)
        options: Any = {"eta": eta, "variance_noise": drawn} if step else {}
        expected = theirs.step(noise, step, expected, use_clipped_model_output=True, **options).prev_sample
    again = torch.Generator().manual_seed(5)
    got = sample_ddim(curved, process.num_steps, x, clip, lambda: torch.randn(x.shape, generator=again), eta)
    agree(got, expected)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("steps", [2, 25, 1000])
def test_ddpm_equals_diffusers(steps: int, learned: bool, clip: bool) -> None:
    process = PROCESS.respace(steps)
    variance_type = "learned_range" if learned else "fixed_large"
    theirs = scheduler(DDPMScheduler, process, clip, variance_type=variance_type)
    network = curved if learned else only_noise(curved)
    x = torch.randn(2, 3, 4, 4)
    expected, generator = x, torch.Generator().manual_seed(5)
    for step in theirs.timesteps.tolist():
        output = network(expected, process.timesteps[step].expand(2), 0.0)
        expected = theirs.step(output, step, expected, generator=generator).prev_sample
    again = torch.Generator().manual_seed(5)
    got = sample_ddpm(network, process.num_steps, x, lambda: torch.randn(x.shape, generator=again), clip)
    agree(got, expected)


# What a sample depends on


def test_ddim_is_deterministic_and_rows_are_independent() -> None:
    process, x = PROCESS.respace(9), torch.randn(3, 2, 4, 4)
    together = sample_ddim(curved, process.num_steps, x, clip=False)
    assert torch.equal(sample_ddim(curved, process.num_steps, x, clip=False), together)
    assert torch.equal(sample_ddim(curved, process.num_steps, x[1:2], clip=False), together[1:2])


def test_ddpm_depends_on_its_draws_alone() -> None:
    process, x = PROCESS.respace(9), torch.randn(3, 2, 4, 4)
    noise = [torch.randn_like(x) for _ in range(8)]
    first = sample_ddpm(curved, process.num_steps, x, iter(noise).__next__, clip=False)
    torch.manual_seed(99)
    assert torch.equal(sample_ddpm(curved, process.num_steps, x, iter(noise).__next__, clip=False), first)
    for index in range(8):
        changed = [n + (i == index) for i, n in enumerate(noise)]
        assert not torch.equal(sample_ddpm(curved, process.num_steps, x, iter(changed).__next__, clip=False), first)


@pytest.mark.parametrize("steps", [2, 13])
def test_ddpm_draws_once_a_step_except_the_last(steps: int) -> None:
    x = torch.randn(1, 1, 2, 2)
    enough = [torch.randn_like(x) for _ in range(steps - 1)]
    noise = iter([*enough, torch.full_like(x, math.nan)])
    end = sample_ddpm(curved, steps, x, noise.__next__, clip=False)
    assert end.isfinite().all()
    assert next(noise).isnan().all()  # the one too many is still there


def test_the_initial_noise_is_not_changed() -> None:
    x = torch.randn(2, 1, 2, 2)
    before = x.clone()
    sample_ddim(curved, 3, x, clip=True)
    sample_ddpm(curved, 3, x, lambda: torch.randn_like(x), clip=True)
    assert torch.equal(x, before)


@pytest.mark.parametrize("steps", [2, 3, 40])
def test_clipped_samples_are_images(steps: int) -> None:
    """Both samplers end at the clipped prediction of x_0 itself: the last step has weight 1 on it, 0 on x."""
    process, x = PROCESS.respace(steps), 3 * torch.randn(4, 3, 4, 4)

    def wild(x: Tensor, t: Tensor, time: float = 0.0) -> Tensor:
        return 5 * curved(x, t).clamp(-0.2, 0.2)

    ddim = sample_ddim(wild, process.num_steps, x, clip=True)
    ddpm = sample_ddpm(wild, process.num_steps, x, lambda: torch.randn_like(x), clip=True)
    for sample in (ddim, ddpm):
        assert sample.isfinite().all()
        assert sample.abs().max() <= 1
        assert sample.abs().max() == 1
    unclipped = sample_ddim(wild, process.num_steps, x, clip=False)
    assert unclipped.abs().max() > 1


def test_clipping_changes_nothing_while_predictions_are_images() -> None:
    network = noise_of_gaussian_data(0.2, 0.01)
    x = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    process = PROCESS.respace(20)
    free, clipped = (sample_ddim(network, process.num_steps, x, clip) for clip in (False, True))
    assert torch.allclose(free, clipped, rtol=0, atol=1e-5)


# Guidance


def small(block: str = "adaln-zero", dtype: torch.dtype = torch.float32) -> DiT:
    """One block on 4 x 4 latents with random weights, eight classes."""
    model = create_model(
        "DiT", block=block, num_classes=8, depth=1, hidden_size=16, num_heads=2, patch_size=2, input_size=4
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model.to(dtype).eval()


def rows_of(scale: float, steps: int, batch: int) -> int:
    """Rows that a DDIM run sends through the transformer."""
    model = small()
    rows: list[int] = []
    model.x_embedder.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    network = guided(model, torch.arange(batch), 8, 4, scale, 3)
    with torch.no_grad():
        sample_ddim(network, steps, torch.randn(batch, 4, 4, 4), clip=False)
    return sum(rows)


@pytest.mark.parametrize(("scale", "factor"), [(1.0, 1), (1, 1), (1.5, 2), (4.0, 2), (0.0, 2)])
def test_guidance_costs_a_second_row_and_scale_one_does_not(scale: float, factor: int) -> None:
    assert rows_of(scale, steps=6, batch=3) == factor * 6 * 3


@torch.no_grad()
@pytest.mark.parametrize("channels", [3, None])
def test_guided_network_by_its_formula(channels: int | None) -> None:
    model = small()
    x, t, y = torch.randn(3, 4, 4, 4), torch.tensor([5, 500, 999]), torch.tensor([0, 7, 3])
    conditional, null = model(x, t, y), model(x, t, torch.full_like(y, 8))
    count = 4 if channels is None else channels
    expected = conditional.clone()
    expected[:, :count] = null[:, :count] + 2.5 * (conditional - null)[:, :count]
    assert torch.allclose(guided(model, y, 8, 4, 2.5, channels)(x, t, 0.0), expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(guided(model, y, 8, 4, 1.0, channels)(x, t, 0.0), conditional, rtol=1e-4, atol=1e-5)
    assert (conditional - null).abs().mean() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_samplers_get_float32_from_a_half_precision_network(scale: float) -> None:
    model = small(dtype=torch.bfloat16)
    network = guided(model, torch.tensor([1, 2]), 8, 4, scale, 3)
    x = torch.randn(2, 4, 4, 4).bfloat16()
    assert network(x, torch.tensor([3, 3]), 0.0).dtype == torch.float32


# No waiting for the device


class NoHostSync(TorchDispatchMode):
    """Raises at operators that a GPU must be waited for."""

    FORBIDDEN = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2",
                 "unique_dim")  # fmt: skip

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().removeprefix("aten::").split(".")[0]
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if name in self.FORBIDDEN or by_mask:
            raise AssertionError(f"{func.name()} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: float(x.mean()),
        lambda x: torch.equal(x, x),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_the_detector_detects(waits: Callable[[Tensor], object]) -> None:
    with pytest.raises(AssertionError, match="waits"), NoHostSync():
        waits(torch.randn(4))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_sampling_does_not_wait_for_the_device(block: str, scale: float) -> None:
    network = guided(small(block), torch.arange(2), 8, 4, scale, 3)
    process, x = PROCESS.respace(3), torch.randn(2, 4, 4, 4)
    with torch.no_grad(), NoHostSync():
        ddim = sample_ddim(network, process.num_steps, x, clip=True)
        ddpm = sample_ddpm(network, process.num_steps, x, lambda: torch.randn_like(x), clip=True)
    assert ddim.shape == ddpm.shape == x.shape


@pytest.mark.parametrize("sampler", ["euler", "heun", "sde", "dpm-solver++"])  # unipc does: its docstring
def test_no_sampler_but_unipc_waits_for_the_device(sampler: str) -> None:
    x = torch.randn(2, 1, 2, 2)
    discrete = "discrete" in SAMPLERS.find(sampler).serves
    denoiser = IDDPM(IDDPMOptions(), CPU).denoiser(only_noise(curved), False) if discrete else Mixture(LinearPath())
    with NoHostSync():
        assert run(sampler, denoiser, x, 4, lambda: torch.randn_like(x)).shape == x.shape


@pytest.mark.parametrize("block", BLOCKS)
def test_losses_do_not_wait_for_the_device(block: str) -> None:
    model, x0 = small(block), torch.randn(3, 4, 4, 4)
    t, y, noise = torch.tensor([0, 1, 999]), torch.tensor([0, 8, 3]), torch.randn(3, 4, 4, 4)
    with NoHostSync():
        loss = losses(model, x0, t, y, noise)["loss"].mean()
        loss.backward()
    assert loss.isfinite()
