"""Weights, preconditioning, schedules, times and grids against tables and formulas that are written out here."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor, nn

from bench.objectives import OBJECTIVES, Objective
from bench.objectives.iddpm import IDDPM, IDDPMOptions
from bench.objectives.process import DiscreteProcess, LinearPath, NoiseLevels, TrigonometricPath, cosine_betas
from bench.schema import check_options

CPU = torch.device("cpu")
LABELS = torch.zeros(4, dtype=torch.int64)


def objective_of(name: str, **options: Any) -> Objective:
    kind = OBJECTIVES.find(name)
    return kind(check_options(kind.options, options), CPU)


class Answers(nn.Module):
    """A network with one answer, which keeps what it was asked."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.asked.append((x, t))
        return self.output


# Signal-to-noise ratios of four steps, and by hand: weights of the network's own loss.
SNR = (20.0, 5.0, 1.0, 0.1)
BY_HAND: dict[tuple[str, str, float], list[float]] = {
    ("min-snr", "noise", 5.0): [0.25, 1.0, 1.0, 1.0],  # min(SNR, 5) / SNR
    ("min-snr", "x0", 5.0): [5.0, 5.0, 1.0, 0.1],  # min(SNR, 5)
    ("min-snr", "velocity", 5.0): [0.238095, 0.833333, 0.5, 0.0909091],  # min(SNR, 5) / (SNR + 1)
    ("min-snr", "noise", 1.0): [0.05, 0.2, 1.0, 1.0],
    ("min-snr", "velocity", 1.0): [0.047619, 0.166667, 0.5, 0.0909091],
    ("p2", "noise", 1.0): [0.047619, 0.166667, 0.5, 0.909091],  # 1 / (1 + SNR)
    ("p2", "noise", 0.5): [0.218218, 0.408248, 0.707107, 0.953463],
    ("p2", "x0", 1.0): [0.952381, 0.833333, 0.5, 0.0909091],  # SNR / (1 + SNR)
    ("p2", "velocity", 1.0): [0.0453515, 0.138889, 0.25, 0.0826446],  # SNR / (1 + SNR)^2
}


class FourSteps(IDDPM):
    @classmethod
    def process(cls, options: IDDPMOptions) -> DiscreteProcess:
        return DiscreteProcess(tuple(snr / (1 + snr) for snr in SNR))


@pytest.mark.parametrize(("weighting", "prediction", "gamma"), BY_HAND)
def test_weights_of_steps(weighting: Any, prediction: Any, gamma: float) -> None:
    key = {"min-snr": "min_snr_gamma", "p2": "p2_gamma"}[weighting]
    options = check_options(IDDPMOptions, {"weighting": weighting, "prediction": prediction, key: gamma})
    objective = FourSteps(options, CPU)
    expected = BY_HAND[weighting, prediction, gamma]
    assert objective.loss_weights().tolist() == pytest.approx(expected, rel=1e-5)
    drawn = {"t": torch.arange(4), "noise": torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))}
    found = objective.losses(Answers(torch.full((4, 1, 2, 2), 0.3)), torch.zeros(4, 1, 2, 2), LABELS, drawn)
    assert (found["loss"] / found["mse"]).tolist() == pytest.approx(expected, rel=1e-5), "mse stays as it is"


def test_a_weighting_leaves_the_bound_alone() -> None:
    drawn = {"t": torch.tensor([0, 10, 500, 999]), "noise": torch.full((4, 1, 2, 2), 0.5)}
    output = torch.full((4, 2, 2, 2), 0.3)
    plain = objective_of("iddpm").losses(Answers(output), torch.zeros(4, 1, 2, 2), LABELS, drawn)
    weighted = objective_of("iddpm", weighting="min-snr").losses(
        Answers(output), torch.zeros(4, 1, 2, 2), LABELS, drawn
    )
    assert torch.equal(plain["loss"], plain["mse"] + plain["vb"])
    assert torch.equal(weighted["vb"], plain["vb"])
    assert not torch.equal(weighted["loss"], plain["loss"])


@pytest.mark.parametrize("timesteps", [2, 10, 1000])
def test_cosine_schedule(timesteps: int) -> None:
    """alpha_bar is Eq. 17 up to where beta would pass 0.999; the sampler's process and the tables agree."""
    f = [math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(timesteps + 1)]
    process = OBJECTIVES.find("iddpm").process(IDDPMOptions(timesteps=timesteps, schedule="cosine"))
    assert process.alphas_bar[:-1] == pytest.approx([f[t + 1] / f[0] for t in range(timesteps - 1)], rel=1e-9)
    assert process.alphas_bar[-1] == pytest.approx(process.alphas_bar[-2] * 0.001, rel=1e-9)
    assert max(cosine_betas(timesteps)) == 0.999
    tables = IDDPM(IDDPMOptions(timesteps=timesteps, schedule="cosine"), CPU).diffusion
    assert tables.alphas_bar.tolist() == pytest.approx(process.alphas_bar, rel=1e-6)
    for name in ("x0_from_xt", "x0_from_noise", "posterior_log_variance", "log_betas"):
        assert getattr(tables, name).isfinite().all(), name


# Karras et al. 2022, Table 1 at sigma_data = 0.5, by hand: c_skip, c_out, c_in, c_noise.
PRECONDITIONING = {
    0.5: (0.5, 0.35355339, 1.41421356, -0.17328680),
    0.002: (0.999984, 0.001999984, 1.999984, -1.553652),
    80.0: (3.906097e-5, 0.4999902, 0.01249976, 1.095507),
}


@pytest.mark.parametrize("sigma", PRECONDITIONING)
def test_edm_preconditions_its_network(sigma: float) -> None:
    """By what the network is given, and by the x0 of an output of 0 and of 1."""
    c_skip, c_out, c_in, c_noise = PRECONDITIONING[sigma]
    x = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
    asked: list[Tensor] = []

    def network(output: float) -> Any:
        def call(x: Tensor, told: Tensor, time: float) -> Tensor:
            asked.extend([x, told])
            return torch.full_like(x, output)

        return call

    edm = objective_of("edm")
    by_zero = edm.denoiser(network(0.0), False)(x, sigma).x0.item()
    by_one = edm.denoiser(network(1.0), False)(x, sigma).x0.item()
    assert by_zero / 3 == pytest.approx(c_skip, rel=1e-6)
    assert by_one - by_zero == pytest.approx(c_out, rel=1e-6)
    assert (asked[0].item() / 3, asked[1].item()) == pytest.approx((c_in, c_noise), rel=1e-6)


def test_edm_loss_is_the_weighted_error_of_x0() -> None:
    """lambda(sigma) (D(x; sigma) - x0)^2, Eq. 2 and Table 1, in float64; from noise that swamps x0 to almost none."""
    random = torch.Generator().manual_seed(0)
    x0, noise, output = torch.randn(3, 4, 2, 3, 3, generator=random, dtype=torch.float64)
    sigma = torch.tensor([0.002, 0.3, 5.0, 80.0], dtype=torch.float64)
    net = Answers(output)
    found = objective_of("edm", sigma_data=0.7).losses(net, x0, LABELS, {"sigma": sigma, "noise": noise})["loss"]
    s = sigma.view(-1, 1, 1, 1)
    x = x0 + s * noise
    total = s**2 + 0.49
    denoised = 0.49 / total * x + s * 0.7 / total.sqrt() * net.output
    expected = (total / (s * 0.7) ** 2 * (denoised - x0) ** 2).mean((1, 2, 3))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)  # the output is read in float32
    ((given, told),) = net.asked
    assert torch.allclose(given, x / total.sqrt())
    assert told.tolist() == pytest.approx([math.log(value) / 4 for value in sigma.tolist()])


def test_edm_steps_are_those_of_the_paper() -> None:
    """Eq. 5, ends included: the last step goes from sigma_min to 0."""
    grid = NoiseLevels(0.002, 80, 7).grid(18)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert grid == pytest.approx([*expected, 0.0], rel=1e-12)
    assert (grid[0], grid[-2]) == (80, 0.002)


T = torch.tensor([0.02, 0.3, 0.6, 0.98], dtype=torch.float64)  # of which the ends are beyond JiT's 0.05


@pytest.mark.parametrize("path", ["linear", "gvp"])
@pytest.mark.parametrize("network_time", ["noise-at-1", "data-at-1"])
def test_losses_in_other_spaces_are_those_of_the_converted_prediction(path: str, network_time: str) -> None:
    """Converted by hand, and as JiT does by max(sigma, 0.05) where that divides by sigma."""
    random = torch.Generator().manual_seed(0)
    x0, noise, output = torch.randn(3, 4, 2, 3, 3, generator=random, dtype=torch.float64)
    t = T.view(-1, 1, 1, 1)
    a, s = (1 - t, t) if path == "linear" else ((math.pi / 2 * t).cos(), (math.pi / 2 * t).sin())
    da, ds = (-1.0, 1.0) if path == "linear" else (-math.pi / 2 * s, math.pi / 2 * a)
    turn = a * ds - s * da
    x = a * x0 + s * noise
    divisor_s, divisor_a = s.clamp(min=0.05), a.clamp(min=0.05)
    velocity = da * x0 + ds * noise
    sign = 1 if network_time == "noise-at-1" else -1
    said = sign * output
    # (prediction, space) -> what the output is in that space, and what it should be.
    pairs = {
        ("x0", "velocity"): ((ds * x - turn * output) / divisor_s, (ds * x - turn * x0) / divisor_s),
        ("noise", "velocity"): ((da * x + turn * output) / divisor_a, (da * x + turn * noise) / divisor_a),
        ("x0", "noise"): ((x - a * output) / divisor_s, (x - a * x0) / divisor_s),
        ("noise", "x0"): ((x - s * output) / divisor_a, (x - s * noise) / divisor_a),
        ("velocity", "x0"): ((ds * x - s * said) / turn, x0),
        ("velocity", "noise"): ((a * said - da * x) / turn, noise),
        ("velocity", "velocity"): (said, velocity),
        ("x0", "x0"): (output, x0),
        ("noise", "noise"): (output, noise),
    }
    for (prediction, space), (predicted, truth) in pairs.items():
        objective = objective_of("flow", path=path, prediction=prediction, loss=space, network_time=network_time)
        found = objective.losses(Answers(output), x0, LABELS, {"t": T, "noise": noise})
        expected = (predicted - truth).square().mean((1, 2, 3))
        assert found["loss"].tolist() == pytest.approx(expected.tolist(), rel=1e-5), (prediction, space)
        own = (
            (said - velocity) if prediction == "velocity" else output - (x0 if prediction == "x0" else noise)
        ).square()
        assert found["mse"].tolist() == pytest.approx(own.mean((1, 2, 3)).tolist(), rel=1e-5)


def test_jit_as_its_paper_writes_it() -> None:
    """x prediction, v loss (arXiv 2511.13720, Alg. 1): z = t x + (1 - t) e, v = (x - z) / max(1 - t, 0.05)."""
    random = torch.Generator().manual_seed(0)
    x, e, output = torch.randn(3, 4, 2, 3, 3, generator=random, dtype=torch.float64)
    theirs = 1 - T.view(-1, 1, 1, 1)
    z = theirs * x + (1 - theirs) * e
    divisor = (1 - theirs).clamp(min=0.05)
    expected = ((x - z) / divisor - (output - z) / divisor).square().mean((1, 2, 3))
    net = Answers(output)
    jit = objective_of("flow", prediction="x0", loss="velocity", network_time="data-at-1")
    found = jit.losses(net, x, LABELS, {"t": T, "noise": e})["loss"]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    ((given, told),) = net.asked
    assert torch.allclose(given, z)
    assert torch.allclose(told, 1 - T)


def draws(count: int = 20_000, **options: Any) -> np.ndarray:
    drawn = objective_of("flow", **options).draw((count, 1, 2, 2), torch.Generator().manual_seed(0))
    assert drawn["noise"].shape == (count, 1, 2, 2)
    return drawn["t"].double().numpy()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.8, 0.8), (-1.5, 0.3)])
def test_logit_normal_times_by_their_quantiles(mean: float, std: float) -> None:
    t = draws(times="logit-normal", time_mean=mean, time_std=std)
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        expected = 1 / (1 + math.exp(-(mean + std * norm.ppf(level))))
        below = (t < expected).mean()
        assert abs(below - level) < 4 * math.sqrt(level * (1 - level) / len(t))
    assert kstest(np.log(t / (1 - t)), norm(mean, std).cdf).pvalue > 1e-3


def test_uniform_times() -> None:
    assert kstest(draws(), "uniform").pvalue > 1e-3


def test_edm_noise_levels_are_log_normal() -> None:
    drawn = objective_of("edm", p_mean=-0.4, p_std=1.7).draw((20_000, 1, 2, 2), torch.Generator().manual_seed(0))
    assert kstest(drawn["sigma"].double().log().numpy(), norm(-0.4, 1.7).cdf).pvalue > 1e-3


@pytest.mark.parametrize("path", ["linear", "gvp"])
@pytest.mark.parametrize("times", ["uniform", "logit-normal"])
def test_a_shift_multiplies_the_noise_to_signal_ratio(path: str, times: str) -> None:
    plain, shifted = (draws(path=path, times=times, shift=shift) for shift in (1.0, 3.0))
    inside = (plain > 0.01) & (plain < 0.99)
    ratio = {"linear": lambda t: t / (1 - t), "gvp": lambda t: np.tan(np.pi / 2 * t)}[path]
    np.testing.assert_allclose(ratio(shifted[inside]), 3 * ratio(plain[inside]), rtol=1e-4)


@pytest.mark.parametrize("path", [LinearPath(), TrigonometricPath(), LinearPath(False, bounds=(1e-3, 1 - 1e-3))])
@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_grids_run_from_the_largest_time_to_data_and_mean_the_same_shift(
    path: LinearPath, shift: float, steps: int
) -> None:
    grid, plain = path.grid(steps, shift), path.grid(steps)
    assert (len(grid), grid[0], grid[-1]) == (steps + 1, path.bounds[1], 0.0)
    assert all(later < earlier for earlier, later in pairwise(grid))
    if path.bounds[1] == 1:
        for time, even in zip(grid[1:-1], plain[1:-1], strict=True):
            ratio = path.sigma(even) / path.alpha(even)
            assert path.sigma(time) / path.alpha(time) == pytest.approx(shift * ratio, rel=1e-9)
        assert plain == pytest.approx([1 - step / steps for step in range(steps + 1)], abs=1e-15)


@pytest.mark.parametrize(
    ("prediction", "bounds", "at_data"),
    [("velocity", (0.0, 1.0), True), ("x0", (1e-3, 1.0), False), ("noise", (1e-3, 1 - 1e-3), False)],
)
def test_where_a_prediction_says_everything(prediction: str, bounds: tuple[float, float], at_data: bool) -> None:
    """SiT's: 1e-3 from data (noise) for networks that do not say the velocity; no time of a grid is beyond."""
    kind = OBJECTIVES.find("flow")
    for path in ("linear", "gvp"):
        process = kind.process(check_options(kind.options, {"prediction": prediction, "path": path}))
        assert (process.bounds, process.called_at_data) == (bounds, at_data)
        for steps, shift in ((1, 1.0), (7, 3.0), (250, 0.5)):
            assert all(bounds[0] <= t <= bounds[1] for t in process.grid(steps, shift)[:-1])
    if not at_data:
        with pytest.raises(ValueError, match=r"^sampling_steps: 5000\b"):
            process.grid(5000)


SHAPES = ((4, 2, 5), (4, 2, 3, 3), (4, 2, 3, 2, 2))
EACH = [
    ("iddpm", {}),
    ("iddpm", {"prediction": "velocity", "schedule": "cosine", "weighting": "p2"}),
    ("iddpm", {"prediction": "x0", "weighting": "min-snr"}),
    ("flow", {}),
    ("flow", {"path": "gvp", "prediction": "x0", "loss": "velocity", "times": "logit-normal", "shift": 2.0}),
    ("flow", {"prediction": "noise", "network_time": "data-at-1"}),
    ("edm", {}),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "options"), EACH)
def test_sequences_images_and_videos_have_the_same_losses(
    name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """The same numbers in another shape; every sample its own row, by the columns' names."""
    objective = objective_of(name, **options)
    drawn = objective.draw(shape, torch.Generator().manual_seed(3))
    assert drawn["noise"].shape == shape
    assert all(len(values) == 4 for values in drawn.values())
    x0, output = torch.randn(2, *shape, generator=torch.Generator().manual_seed(4))
    found = objective.losses(Answers(output), x0, LABELS, drawn)
    assert tuple(found) == tuple(objective.columns)
    assert objective.columns[0] == "loss"
    flat = (4, 2, math.prod(shape[2:]), 1)
    again = objective.losses(
        Answers(output.view(flat)), x0.view(flat), LABELS, {**drawn, "noise": drawn["noise"].view(flat)}
    )
    for column in objective.columns:
        assert found[column].shape == (4,)
        assert torch.allclose(found[column], again[column], rtol=1e-5)
        alone = {key: values[1:2] for key, values in drawn.items()}
        one = objective.losses(Answers(output[1:2]), x0[1:2], LABELS[1:2], alone)
        assert torch.allclose(one[column], found[column][1:2], rtol=1e-5)


@pytest.mark.parametrize(("name", "options"), [each for each in EACH if each[0] != "iddpm"])
def test_channels_that_are_not_used_change_nothing(name: str, options: dict[str, Any]) -> None:
    """SiT's networks have twice the channels; the second half was never trained."""
    objective = objective_of(name, **options)
    x0, output, other = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(4))
    drawn = objective.draw((4, 2, 3, 3), torch.Generator().manual_seed(3))
    half = objective.losses(Answers(output), x0, LABELS, drawn)
    whole = objective.losses(Answers(torch.cat([output, other], 1)), x0, LABELS, drawn)
    for column in objective.columns:
        assert torch.equal(half[column], whole[column])


@pytest.mark.parametrize(("name", "options"), EACH)
def test_draws_are_a_function_of_their_generator_alone(name: str, options: dict[str, Any]) -> None:
    first = objective_of(name, **options).draw((6, 2, 3, 3), torch.Generator().manual_seed(3))
    torch.manual_seed(9)
    again = objective_of(name, **options).draw((6, 2, 3, 3), torch.Generator().manual_seed(3))
    other = objective_of(name, **options).draw((6, 2, 3, 3), torch.Generator().manual_seed(4))
    for key, values in first.items():
        assert torch.equal(values, again[key])
        assert not torch.equal(values, other[key])


@pytest.mark.parametrize(("name", "options"), EACH)
def test_nothing_waits_for_the_device(name: str, options: dict[str, Any]) -> None:
    """On the meta device, where a tensor has no values that Python could ask for."""
    kind = OBJECTIVES.find(name)
    meta = torch.device("meta")
    objective = kind(check_options(kind.options, options), meta)
    drawn = objective.draw((4, 2, 3, 3), torch.Generator().manual_seed(0))
    x = torch.zeros(4, 2, 3, 3, device=meta)
    for output in (x, torch.cat([x, x], 1)):
        objective.losses(Answers(output), x, LABELS.to(meta), {key: values.to(meta) for key, values in drawn.items()})
        for clip in (True, False):
            denoiser = objective.denoiser(lambda x, told, time: output, clip)  # noqa: B023
            for t in denoiser.process.grid(4)[:-1]:
                assert denoiser(x, t).x0.device == meta
