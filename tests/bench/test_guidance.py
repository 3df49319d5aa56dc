"""Guidance in an interval of times, and by another network: closed forms, what it costs, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recipes import tiny
from sampled import sample_ddim, sample_ddpm
from torch import Tensor, nn

from bench.errors import InputError
from bench.recipe import parse_recipe
from bench.recipe.evaluation import EvaluationConfig
from bench.samplers import NetworkCalls, call_times, network_calls
from bench.samplers.guidance import guided
from bench.score.evaluate import sampling_key
from models import create_model


def small(seed: int, depth: int = 1) -> nn.Module:
    """On 4 x 4 latents with random weights, eight classes."""
    model = create_model("DiT", num_classes=8, depth=depth, hidden_size=16, num_heads=2, patch_size=2, input_size=4)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
    return model.eval()


X, T, Y = torch.randn(3, 4, 4, 4), torch.tensor([5, 500, 999]), torch.tensor([0, 7, 3])


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3, None])
def test_autoguidance_by_its_formula(channels: int | None) -> None:
    model, guide = small(0), small(1)
    strong, weak = model(X, T, Y), guide(X, T, Y)
    count = 4 if channels is None else channels
    expected = strong.clone()
    expected[:, :count] = weak[:, :count] + 2.5 * (strong - weak)[:, :count]
    found = guided(model, Y, 8, 4, 2.5, channels, guide=guide)(X, T, 0.0)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (strong - weak).abs().mean() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, 1e4])
def test_autoguidance_by_itself_is_the_identity(scale: float) -> None:
    model = small(0)
    assert torch.equal(guided(model, Y, 8, 4, scale, None, guide=model)(X, T, 0.0), model(X, T, Y))


@torch.no_grad()
@pytest.mark.parametrize("guide", [None, small(1)])
def test_outside_of_the_interval_it_is_the_class_prediction(guide: nn.Module | None) -> None:
    model = small(0)
    always = guided(model, Y, 8, 4, 2.5, None, guide=guide)(X, T, 0.0)
    network = guided(model, Y, 8, 4, 2.5, None, (200.0, 800.0), guide)
    for time in (0.0, 199.9, 800.1, 999.0):
        assert torch.equal(network(X, T, time), model(X, T, Y)), time
    for time in (200.0, 500.0, 800.0):  # both ends are in it
        assert torch.equal(network(X, T, time), always), time


class Noise(nn.Module):
    """E[noise | x] for Gaussian data whose mean is a label's: 0.5 of class 0, -0.1 of the null label 1; float64."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        level, mean = LEVELS[t].view(-1, 1, 1, 1), torch.tensor([0.5, -0.1], dtype=x.dtype)[y].view(-1, 1, 1, 1)
        return (1 - level).sqrt() * (x - level.sqrt() * mean) / (level * STD**2 + 1 - level)


STD, LEVELS = 0.3, torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


@torch.no_grad()
@pytest.mark.parametrize("interval", [None, (0.0, 999.0), (150.0, 999.0), (0.0, 400.0), (150.0, 400.0)])
def test_guided_samples_of_gaussian_classes_in_closed_form(interval: tuple[float, float] | None) -> None:
    """Guided, the mean is -0.1 + scale 0.6. The ODE keeps (x - alpha mean) / spread(t), so that each change of the
    mean on the way, at the interval's ends, shifts that by alpha / spread there."""
    scale, null = 2.0, 1
    network = guided(Noise(), torch.zeros(2, dtype=torch.int64), null, 1, scale, None, interval)
    doubled = lambda x, t, time: network(x.double(), t, time).double()  # noqa: E731
    low, high = sample_ddim(doubled, 1000, torch.tensor([-1.0, 1.0]).double().view(2, 1, 1, 1), clip=False).flatten()
    further = (scale - 1) * 0.6

    def shift(time: float) -> float:
        level = LEVELS[int(time)]
        return float((level / (level * STD**2 + 1 - level)).sqrt())

    first, last = interval or (0.0, 999.0)
    end = further if first == 0 else STD * further * shift(first)  # there, alpha / spread is 1 / STD
    start = STD * further * shift(last)
    assert float(low + high) / 2 == pytest.approx(0.5 + end - start, abs=0.01)


def evaluation(**given: Any) -> EvaluationConfig:
    return EvaluationConfig(**{"sampling_steps": 6, "guidance_scale": 1.5, "guidance_channels": 3, **given})


def rows_sent(sampler: str, given: EvaluationConfig, batch: int, guide: nn.Module | None) -> tuple[int, int]:
    """Rows that sampling sends through the model and through the guide."""
    model, rows = small(0), {"model": 0, "guide": 0}

    def counting(name: str, network: Any) -> None:
        def count(module: Any, args: tuple[Tensor, ...]) -> None:
            rows[name] += len(args[0])

        network.x_embedder.register_forward_pre_hook(count)

    counting("model", model)
    if guide is not None:
        counting("guide", guide)
    scale, channels, interval = given.guidance_scale, given.guidance_channels, given.guidance_interval
    network = guided(model, torch.arange(batch), 8, 4, scale, channels, interval, guide)
    x = torch.randn(batch, 4, 4, 4)
    with torch.no_grad():
        if sampler == "ddim":
            sample_ddim(network, given.sampling_steps, x, clip=True)
        else:
            sample_ddpm(network, given.sampling_steps, x, lambda: torch.zeros_like(x), clip=True)
    return rows["model"], rows["guide"]


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize(("interval", "guided_calls"), [(None, 6), ((0, 999), 6), ((200, 799), 4), ((0, 1), 1)])
def test_calls_are_counted_as_they_are_made(sampler: str, interval: Any, guided_calls: int) -> None:
    given, diffusion = evaluation(sampler=sampler, guidance_interval=interval), tiny().diffusion
    assert call_times(given, diffusion) == [999, 799, 599, 400, 200, 0]
    assert network_calls(given, diffusion) == NetworkCalls(6, guided_calls)
    assert rows_sent(sampler, given, 3, None) == (3 * (6 + guided_calls), 0)
    assert rows_sent(sampler, given, 3, small(1)) == (3 * 6, 3 * guided_calls)
    plain = evaluation(sampler=sampler, guidance_interval=interval, guidance_scale=1.0)
    assert network_calls(plain, diffusion) == NetworkCalls(6, 0)
    assert rows_sent(sampler, plain, 3, small(1)) == (3 * 6, 0)


# The key of a score


def test_the_key_says_all_that_guidance_is() -> None:
    given = evaluation(guidance_interval=[200.5, 800], guide_step=6)
    key = sampling_key(given, tiny().diffusion, "pixels")
    assert (key["network_calls"], key["guidance_interval"], key["guide"]) == (6, "200.5 to 800", "step 6")
    without = sampling_key(given.model_copy(update={"guidance_scale": 1.0}), tiny().diffusion, "pixels")
    assert [without[name] for name in ("guidance_channels", "guidance_interval", "guide")] == [None] * 3


# What is refused when a recipe is read


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"guidance_interval": [800, 200]}, ["evaluation.guidance_interval", "800 to 200", "low < high", "0 to 999"]),
        ({"guidance_interval": [200, 200]}, ["evaluation.guidance_interval", "low < high"]),
        ({"guidance_interval": [-1, 200]}, ["evaluation.guidance_interval", "0 to 999"]),
        ({"guidance_interval": [0, 1000]}, ["evaluation.guidance_interval", "0 to 999"]),
        ({"guidance_interval": [1, 2]}, ["evaluation.guidance_interval", "no time from 1 to 2"]),
        ({"guidance_interval": [1]}, ["evaluation.guidance_interval"]),
        ({"guidance_interval": [0, float("nan")]}, ["evaluation.guidance_interval"]),
        ({"guidance_scale": 1e30}, ["evaluation.guidance_scale", "10000"]),
        ({"guidance_scale": float("inf")}, ["evaluation.guidance_scale", "finite"]),
        ({"guide": ""}, ["evaluation.guide"]),
        ({"guide_step": 0}, ["evaluation.guide_step"]),
        ({"guide_step": 12}, ["evaluation.guide_step", "accepted: 6"]),
        ({"guide_step": 7}, ["evaluation.guide_step", "accepted: 6"]),
        ({"guide_step": 12, "guidance_scale": 1}, ["evaluation.guide_step"]),
    ],
)
def test_guidance_that_cannot_be_is_refused_when_the_recipe_is_read(changes: dict[str, Any], said: list[str]) -> None:
    evaluation = {"guidance_scale": 1.5, "guidance_channels": 1, **changes}
    line = refused(tiny().model_dump(mode="json"), evaluation=evaluation)
    assert all(part in line for part in said), line


def refused(content: dict[str, Any], **changes: dict[str, Any]) -> str:
    content = {**content, **{name: {**content[name], **section} for name, section in changes.items()}}
    with pytest.raises(InputError) as error:
        parse_recipe(content, "sweep.yaml")
    line = str(error.value)
    assert line.startswith("sweep.yaml: ") and "\n" not in line
    return line


def test_the_last_step_cannot_be_the_guide_where_none_is_kept_before() -> None:
    content = tiny().model_dump(mode="json")
    line = refused(content, train={"checkpoint_steps": []}, evaluation={"guide_step": 12})
    assert "evaluation.guide_step" in line and "train.checkpoint_steps" in line


def test_guidance_needs_a_null_label_or_a_guide() -> None:
    content = tiny().model_dump(mode="json")
    without, scale = {"label_dropout": 0.0}, {"guidance_scale": 1.5, "guidance_channels": 1}
    line = refused(content, train=without, evaluation=scale)
    assert "evaluation.guidance_scale" in line and "train.label_dropout" in line
    for guide in ({"guide_step": 6}, {"guide": "runs/smaller"}, {"guidance_scale": 1}):
        evaluation = {**content["evaluation"], **scale, **guide}
        parse_recipe({**content, "train": {**content["train"], **without}, "evaluation": evaluation}, "x")
