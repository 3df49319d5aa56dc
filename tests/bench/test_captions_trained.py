"""Captions instead of labels: what of a digit is said, and how it reaches training, guidance and samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import batches_of
from captions_family import FAMILY, Config, Network, captioned
from recipes import tiny
from torch import Tensor, nn
from trainings import assert_same, last_state, trained, trainer_of

from bench.data import data_part
from bench.data.captions.arrays import CaptionArrays
from bench.data.captions.digits import embedded, measured, texts
from bench.data.decoders import Pixels
from bench.flops import cost_of, counted
from bench.parallel import Ranks
from bench.sample import Sampling, sample
from bench.samplers.guidance import guided
from models import conditions
from models.conditions import Captions
from models.parts import NoOptions

CPU = torch.device("cpu")
N = 6
ALL_CHANNELS = {"evaluation.guidance_channels": None}


def random_captions(n: int = N, seed: int = 0) -> Captions:
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (n, 1), generator=random)
    mask = torch.arange(6) < lengths
    return Captions(torch.randn(n, 6, 32, generator=random), mask, torch.zeros(n, dtype=torch.bool))


@pytest.fixture
def network(seeded: None) -> Network:
    config: Config = FAMILY.resolve({}, FAMILY.options())
    return Network(config).eval()


# --- digits


def test_digits_of_captions_are_the_digits_and_scored_as_these() -> None:
    captions, digits = data_part("digits-captions"), data_part("digits")
    both = [part.reference(name, NoOptions()).id for part, name in ((captions, "digits-captions"), (digits, "digits"))]
    assert both[0] == both[1]
    every = torch.arange(1797)
    random = torch.Generator()
    batches = [
        part.load(name, NoOptions(), CPU).batch(every, slice(None), random)
        for part, name in ((captions, "digits-captions"), (digits, "digits"))
    ]
    assert torch.equal(batches[0][0], batches[1][0])
    said = batches[0][1]
    assert isinstance(said, Captions)
    assert said.embeddings.shape == (1797, 6, 32)
    assert said.embeddings.dtype == torch.float32
    assert not said.dropped.any()
    assert said.mask.sum(1).tolist() == [len(text.split()) for text in texts()]


def test_what_is_said_of_a_digit_is_measured() -> None:
    part = data_part("digits")
    pixels, labels = part.checked_images("digits", NoOptions())
    said, ink = texts(), pixels.sum(axis=(1, 2, 3))
    assert said[1] == "a one"
    assert said[8].startswith("an eight")
    for label, name in ((0, "zero"), (7, "seven")):
        its = {
            word: np.array([f" {name}" in text and (word in text.split(", ")) for text in said])
            for word in ("bold", "thin")
        }
        of_class = labels == label
        assert {sum(chosen) for chosen in its.values()} == {of_class.sum() // 4}
        assert ink[its["bold"]].min() >= ink[of_class & ~its["bold"]].max()
        assert ink[its["thin"]].max() <= ink[of_class & ~its["thin"]].min()


def test_facts_of_lines() -> None:
    """By hand: of lines of 4 equal pixels."""
    lines = np.zeros((3, 1, 8, 8), np.uint8)
    for k in range(4):
        lines[0, 0, k + 2, 5] = lines[1, 0, 5, k + 2] = lines[2, 0, k + 2, 5 - k] = 10
    lines[1, 0, 2, 5] = 10  # what is on one row alone has no slant that could be measured
    facts = measured(lines)
    assert facts["ink"].tolist() == [40, 50, 40]
    assert facts["width"][0] == 0
    assert facts["width"][2] == pytest.approx(np.sqrt(1.25))  # of places 0, 1, 2, 3
    assert facts["slant"][0] == 0
    assert facts["slant"][2] == pytest.approx(1)  # a pixel to the right for each row further up


def test_a_word_s_embedding_is_of_itself_and_its_place() -> None:
    (one, other), mask = embedded(["a seven, bold", "a two, bold, wide"])
    assert mask.tolist() == [[True] * 3 + [False] * 3, [True] * 4 + [False] * 2]
    assert np.array_equal(one[[0, 2]], other[[0, 2]])
    assert not np.array_equal(one[1], other[1])
    assert not one[3:].any()
    words = embedded([f"{word}" for text in texts() for word in text.replace(",", "").split()])[0][:, 0]
    assert len(np.unique(words, axis=0)) == 18  # articles, numbers and facts
    with pytest.raises(ValueError, match="7 words; accepted: up to 6"):
        embedded(["a b c d e f g"])


# --- the seam


def test_padding_changes_nothing_bit_for_bit(network: Network) -> None:
    captions = random_captions()
    other = torch.where(captions.mask.unsqueeze(2), captions.embeddings, 1e3)
    x, t = torch.randn(N, 1, 8, 8), torch.arange(N) * 100
    assert torch.equal(network(x, t, captions), network(x, t, captions._replace(embeddings=other)))
    assert not torch.equal(network(x, t, captions), network(x, t, captions._replace(mask=~captions.mask)))


def test_guidance_is_by_the_null_caption_and_that_is_what_is_dropped(network: Network) -> None:
    captions = random_captions()
    x, t = torch.randn(N, 1, 8, 8), torch.arange(N) * 100
    every = torch.ones(N, dtype=torch.bool)
    dropped, nothing = network(x, t, conditions.drop(captions, every, 0)), network(x, t, random_captions(seed=1))
    stood_in = Captions(network.null.expand(N, -1, -1), torch.ones(N, 6, dtype=torch.bool), ~every)
    assert torch.equal(dropped, network(x, t, conditions.without(random_captions(seed=1), 0)))
    assert torch.allclose(dropped, network(x, t, stood_in), atol=1e-6)
    assert not torch.allclose(dropped, nothing)
    said = network(x, t, captions)
    found = guided(network, captions, 0, 1, 2.5, None)(x, t, 0.0)
    assert torch.allclose(found[:, :1], dropped[:, :1] + 2.5 * (said - dropped)[:, :1], atol=1e-6)
    assert torch.allclose(found[:, 1:], said[:, 1:], atol=1e-6)
    assert torch.equal(guided(network, captions, 0, 1, 1.0, None)(x, t, 0.0), said)
    assert torch.equal(guided(network, captions, 0, 1, 2.5, None, (500, 900))(x, t, 0.0), said)


def test_what_is_drawn_for_captions_is_what_is_drawn_for_labels() -> None:
    captions, labels = captioned(), tiny()
    for step in (0, 7):
        one = batches_of(captions, captions.data.load(CPU))(step)
        other = batches_of(labels, labels.data.load(CPU))(step)
        assert isinstance(one[1], Captions)
        assert torch.equal(one[0], other[0])
        assert_same(one[2], other[2])
        assert torch.equal(one[1].dropped, torch.as_tensor(other[1]) == 10)


def test_shares_of_ranks_are_the_batch_bit_for_bit() -> None:
    recipe = captioned()
    data = recipe.data.load(CPU)
    whole = batches_of(recipe, data)(3)[1]
    shares = [batches_of(recipe, data, Ranks(rank, 4, rank))(3)[1] for rank in range(4)]
    for one, other in zip(whole, conditions.joined(shares), strict=True):
        assert torch.equal(one, other)


def test_micro_batches_train_alike_and_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    recipe = captioned()
    straight = trained(recipe, tmp_path / "straight", 1)
    assert not torch.equal(straight["model.null"], straight["ema.null"])  # it learns, and is averaged
    folder = tmp_path / "stopped"
    folder.mkdir()
    trainer_of(recipe, folder).train_until(4)
    again = trainer_of(recipe, folder)
    again.resume(recipe.train.steps)
    assert again.step == 4
    again.train_until(recipe.train.steps)
    assert_same(straight, last_state(recipe, folder))
    in_pieces = trained(recipe, tmp_path / "pieces", 4)
    for name, value in straight.items():
        assert torch.allclose(value, in_pieces[name], rtol=1e-3, atol=1e-4), name


# --- samples


class Remembers(nn.Module):
    """Predicts nothing, and keeps what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[Captions] = []

    def forward(self, x: Tensor, t: Tensor, condition: Captions) -> Tensor:
        self.said.append(condition)
        return torch.zeros(len(x), 2, *x.shape[2:])


def few(number: int) -> CaptionArrays:
    captions = random_captions(number)
    return CaptionArrays("few", captions.embeddings.numpy(), captions.mask.numpy(), (6, 32), "few")


def told(sampling: Sampling, start: int, stop: int) -> Captions:
    """What samples start .. stop - 1 were made of, at every step."""
    model = Remembers()
    sample(model, sampling, Pixels(), start, stop, CPU, "fp32")
    for each in model.said:
        for one, other in zip(each, model.said[0], strict=True):
            assert torch.equal(one, other)
    return model.said[0]


def test_balanced_samples_take_captions_in_turn() -> None:
    bank = few(7)
    said = told(replace(Sampling.of(captioned()), captions=bank), 10, 40)
    expected = bank.take(torch.arange(10, 40) % 7, CPU)
    for one, other in zip(said, expected, strict=True):
        assert torch.equal(one, other)


def test_captions_of_random_samples_are_a_function_of_seed_and_index() -> None:
    sampling = Sampling.of(captioned({"evaluation.labels": "uniform"}))
    together = told(sampling, 0, 70)
    parts = conditions.joined([told(sampling, 0, 33), told(sampling, 33, 70)])
    for one, other in zip(together, parts, strict=True):
        assert torch.equal(one, other)
    assert len(together.embeddings.unique(dim=0)) > 30
    another = told(replace(sampling, seed=1), 0, 70)
    assert not torch.equal(together.embeddings, another.embeddings)


@pytest.mark.parametrize("labels", ["balanced", "uniform"])
def test_samples_do_not_depend_on_the_batch(network: Network, labels: str) -> None:
    recipe = captioned({"evaluation.labels": labels, "evaluation.guidance_scale": 3.0, **ALL_CHANNELS})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)

    def drawn(start: int, stop: int) -> Tensor:
        return sample(network, Sampling.of(recipe), Pixels(), start, stop, CPU, "fp32")

    together, parts = drawn(0, 60), torch.cat([drawn(0, 7), drawn(7, 53), drawn(53, 60)])
    difference = (together.int() - parts.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 0.01


def test_a_network_of_captions_is_counted() -> None:
    """By hand: of linear maps 6 x 32 -> 32 of tokens, 2 -> 32 of time, 64 -> 32 of pixels and back to two channels."""
    recipe = captioned()
    arch = recipe.model.architecture()
    cost = cost_of(recipe.model.name, arch)
    assert cost.macs == 6 * 32 * 32 + 2 * 32 + 64 * 32 + 32 * 128
    assert cost.parameters == (32 * 32 + 32) + (2 * 32 + 32) + (64 * 32 + 32) + (32 * 128 + 128) + 6 * 32
    by_module = counted(recipe.model.name, arch).by_module
    assert {name: by_module[name] for name in ("", "said", "last")} == {"": cost.macs, "said": 6144, "last": 4096}
