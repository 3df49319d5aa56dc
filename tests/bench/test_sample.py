"""Sampling: sample i is the same whatever is drawn with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from recipes import tiny
from torch import Tensor

from bench.data.decoders import Pixels
from bench.recipe import Recipe
from bench.run import build_model
from bench.sample import CHUNK, ChunkedNoise, Sampling, sample

CPU = torch.device("cpu")


def random_model(recipe: Recipe) -> Any:
    """A model whose output depends on everything; a new one predicts zero."""
    model = build_model(recipe, CPU).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
    return model


def draw(recipe: Recipe, start: int, stop: int) -> Tensor:
    return sample(random_model(recipe), Sampling.of(recipe), Pixels(), start, stop, CPU, "fp32")


def assert_close_images(one: Tensor, other: Tensor) -> None:
    """Equal but for the order of float sums, which may move a pixel across a rounding edge."""
    difference = (one.int() - other.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 0.01


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize("labels", ["balanced", "uniform"])
def test_samples_do_not_depend_on_the_batch_split(sampler: str, labels: str) -> None:
    recipe = tiny(evaluation={"sampler": sampler, "labels": labels, "num_samples": 120})
    together = draw(recipe, 0, 120)
    assert together.shape == (120, 1, 8, 8)
    assert together.dtype == torch.uint8
    for size in (7, CHUNK, 64):
        parts = [draw(recipe, start, min(start + size, 120)) for start in range(0, 120, size)]
        assert_close_images(together, torch.cat(parts))
    assert_close_images(together[33:81], draw(recipe, 33, 81))


def test_sampling_is_deterministic_bit_for_bit() -> None:
    recipe = tiny()
    assert torch.equal(draw(recipe, 0, 60), draw(recipe, 0, 60))


def test_batches_cover_all_samples_in_order() -> None:
    recipe = tiny(evaluation={"batch_size": 25})
    ranges = list(Sampling.of(recipe).batches())
    assert ranges == [(0, 25), (25, 50), (50, 60)]
    assert_close_images(torch.cat([draw(recipe, start, stop) for start, stop in ranges]), draw(recipe, 0, 60))


def test_balanced_labels_are_index_modulo_classes() -> None:
    """With noise and network fixed, only the label tells one class's sample from another's."""
    recipe = tiny()
    model = random_model(recipe)
    with torch.no_grad():  # the network ignores its image: samples then differ by label and noise alone
        model.y_embedder.embedding_table.weight[3] = model.y_embedder.embedding_table.weight[4]
    before = sample(model, Sampling.of(recipe), Pixels(), 0, 50, CPU, "fp32")
    with torch.no_grad():
        model.y_embedder.embedding_table.weight[7].add_(5.0)
    after = sample(model, Sampling.of(recipe), Pixels(), 0, 50, CPU, "fp32")
    changed = [i for i in range(50) if not torch.equal(before[i], after[i])]
    assert changed == [7, 17, 27, 37, 47]


@pytest.mark.parametrize("seeds", [(0, 1)])
def test_seed_and_index_decide_the_noise(seeds: tuple[int, int]) -> None:
    one, other = (ChunkedNoise(seed, 0, 100, (1, 2, 2), CPU) for seed in seeds)
    first, second = one(), one()
    assert not torch.equal(first, second)
    assert not torch.equal(first, other())
    assert len({tuple(row.flatten().tolist()) for row in first}) == 100
    tail = ChunkedNoise(seeds[0], 60, 130, (1, 2, 2), CPU)
    assert torch.equal(first[60:], tail()[:40])
    assert torch.equal(second[60:], tail()[:40])


def test_noise_is_standard_normal() -> None:
    noise = ChunkedNoise(0, 0, 1000, (1, 8, 8), CPU)()
    count = noise.numel()
    assert abs(noise.mean()) < 4 / count**0.5
    assert abs(noise.var() - 1) < 4 * (2 / count) ** 0.5
    chunks = noise.reshape(20, -1)
    correlation = torch.corrcoef(chunks) - torch.eye(20)
    assert correlation.abs().max() < 5 / chunks.shape[1] ** 0.5


@pytest.mark.parametrize("evaluation", [{"guidance_scale": 3.0, "guidance_channels": 1}, {"sampling_steps": 5}])
def test_settings_reach_the_samples(evaluation: dict[str, Any]) -> None:
    assert not torch.equal(draw(tiny(), 0, 20), draw(tiny(evaluation=evaluation), 0, 20))
