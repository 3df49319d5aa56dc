"""The contenders of `ditbench perf` do the same work: equal outputs, losses, gradients, samples and parameters."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from recipes import tiny
from torch import Tensor, nn

from bench.objectives.iddpm import IDDPM, IDDPMOptions
from bench.objectives.process import alphas_bar, linear_betas
from bench.perf.contenders import CONTENDERS, Entrant, Work, contender
from bench.perf.contenders.plain_diffusion import PlainDiffusion, sample
from bench.perf.contenders.plain_network import PlainDiT
from bench.perf.entrant import measured, profiled
from bench.run import build_model
from bench.sample import ChunkedNoise
from models.diffusers_weights import state_dict_to_diffusers

CPU = torch.device("cpu")
DEPTH, CLASSES, WIDTH, FREQUENCIES = 2, 10, 16, 256
MODEL = {"depth": DEPTH, "frequency_embedding_size": FREQUENCIES}  # diffusers has no other number of them
STEPS = 5


def work(sampler: str = "ddim") -> Work:
    guided = {"sampler": sampler, "sampling_steps": STEPS, "guidance_scale": 1.5, "guidance_channels": None}
    evaluation = {**guided, "clip_denoised": False, "batch_size": 4}
    return Work(tiny(model=MODEL, evaluation=evaluation), "cpu", "fp32")


def weights() -> dict[str, Tensor]:
    """Of our network, such that its output depends on all of them; a new one predicts zero."""
    model, random = build_model(work().recipe, CPU), torch.Generator().manual_seed(0)
    return {
        name: tensor if name == "pos_embed" else 0.1 * torch.randn(tensor.shape, generator=random)
        for name, tensor in model.state_dict().items()
    }


def both() -> tuple[nn.Module, PlainDiT]:
    ours, plain = build_model(work().recipe, CPU), PlainDiT(work().arch)
    ours.load_state_dict(weights())
    plain.load_state_dict(weights())
    return ours, plain


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0, steps with the first and the last among them, labels with the null label, noise."""
    random = torch.Generator().manual_seed(1)
    t = torch.tensor([0, 0, 1, 400, 998, 999])
    # Pixels of both ends, whose bins are open.
    x0 = torch.randn(len(t), 1, 8, 8, generator=random).clamp(-1, 1)
    labels = torch.tensor([0, 3, 9, CLASSES, 5, CLASSES])
    return x0, t, labels, torch.randn(x0.shape, generator=random)


def test_the_plain_network_computes_what_ours_does() -> None:
    ours, plain = both()
    x, t, labels, _ = batch()
    with torch.no_grad():
        torch.testing.assert_close(plain(x, t, labels), ours(x, t, labels), rtol=1e-4, atol=1e-5)


def test_the_plain_loss_and_its_gradient_are_ours() -> None:
    ours, plain = both()
    x0, t, labels, noise = batch()
    of_ours = IDDPM(IDDPMOptions(), CPU).losses(ours, x0, labels, {"t": t, "noise": noise})["loss"]
    of_plain = PlainDiffusion(alphas_bar(linear_betas(1000)), CPU).losses(plain, x0, t, labels, noise)
    torch.testing.assert_close(of_plain, of_ours, rtol=1e-4, atol=1e-5)
    of_ours.mean().backward()
    of_plain.mean().backward()
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)


def drawn(sampler: str, names: tuple[str, ...]) -> dict[str, Tensor]:
    """What each contender samples with the same weights."""
    found = {}
    for name in names:
        entrant: Entrant = contender(name).sampling(work(sampler))
        of = state_dict_to_diffusers(weights(), DEPTH) if name == "diffusers" else weights()
        entrant.network.load_state_dict(of)
        samples = entrant.call()
        assert samples is not None
        found[name] = samples
    return found


def test_all_contenders_draw_the_same_samples() -> None:
    samples = drawn("ddim", CONTENDERS)
    scale = samples["ours"].std()
    for name in CONTENDERS:
        torch.testing.assert_close(samples[name] / scale, samples["ours"] / scale, rtol=0, atol=1e-5)


def test_plain_samples_by_ddpm_are_ours_from_the_same_noise() -> None:
    ours = drawn("ddpm", ("ours",))["ours"]
    _, plain = both()
    draw = ChunkedNoise(work().recipe.seed, 0, len(ours), ours.shape[1:], CPU)
    diffusion = PlainDiffusion(alphas_bar(linear_betas(1000)), CPU).respaced(STEPS)

    def twice(x: Tensor) -> Tensor:
        return torch.cat([draw()] * 2)

    labels = torch.tensor(work().labels)
    samples = sample(diffusion, plain, draw(), labels, CLASSES, 1.5, "ddpm", twice)
    torch.testing.assert_close(samples / ours.std(), ours / ours.std(), rtol=0, atol=1e-5)


def test_contenders_have_equally_many_parameters_but_for_what_diffusers_repeats() -> None:
    number: dict[str, Any] = {name: measured("train", name, work(), repeats=1)["parameters"] for name in CONTENDERS}
    of_timesteps = FREQUENCIES * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH
    embedders = of_timesteps + (CLASSES + 1) * WIDTH
    assert number["plain"] == number["ours"]
    assert number["diffusers"] == number["ours"] + (DEPTH - 1) * embedders


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_step_trains(name: str) -> None:
    entrant: Entrant = contender(name).training(work())
    before = {key: p.detach().clone() for key, p in entrant.network.named_parameters() if p.requires_grad}
    for _ in range(3):  # what stands behind zero modulations moves after these
        entrant.call()
    for key, parameter in entrant.network.named_parameters():
        if parameter.requires_grad:
            assert parameter.isfinite().all()
            assert not torch.equal(parameter, before[key]), key


def test_a_measurement_has_every_step_and_a_peak() -> None:
    found = measured("sample", "ours", work(), repeats=3)
    assert len(found["seconds"]) == 3 and min(found["seconds"]) > 0
    assert found["peak_bytes"] > 50e6  # a process that imported torch


def test_a_profile_is_a_trace_and_its_top_operators(tmp_path) -> None:
    trace = tmp_path / "trace.json"
    operators = profiled("train", "ours", work(), 1, trace)["operators"]
    assert "aten::addmm" in operators
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert "aten::addmm" in names
