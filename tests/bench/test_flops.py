"""Multiply-accumulate counts against the paper's figures and against a formula written out here."""

from __future__ import annotations

import csv
from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from analysis.printed_gmacs import TABLE, agreement, printed_gmacs
from bench.errors import InputError
from bench.flops import Cost, count, count_macs, training_gmacs
from models import BLOCKS, create_model
from models.dit import DiTConfig
from models.registry import configure


@cache
def counted(name: str, block: str = "adaln-zero", image_size: int = 256) -> Cost:
    return count(name, block=block, image_size=image_size)


@cache
def small(block: str) -> Cost:
    return count("DiT", block=block, **SMALL)


SMALL: dict[str, Any] = {"depth": 2, "hidden_size": 48, "num_heads": 3, "patch_size": 2, "input_size": 8}


def published_figures() -> list[tuple[str, str, int, str]]:
    """(model, block, image size, gmacs as printed), each once."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [(r["model"], r["block"], int(r["image_size"]), r["gmacs"]) for r in csv.DictReader(file) if r["gmacs"]]
    return list(dict.fromkeys(rows))


def expected_macs(arch: DiTConfig) -> int:
    """The rule by hand: linear maps, attention products, one per element of the blocks' LayerNorms."""
    d, hidden, image_tokens = arch.hidden_size, int(arch.hidden_size * arch.mlp_ratio), arch.num_tokens
    pixels = arch.patch_size**2 * arch.in_channels
    tokens = image_tokens + (2 if arch.block == "in-context" else 0)
    embedders = image_tokens * pixels * d + arch.frequency_embedding_size * d + d * d
    self_attention = tokens * 4 * d * d + 2 * tokens * tokens * d
    block = self_attention + tokens * 2 * d * hidden + 2 * tokens * d
    block += {
        "adaln-zero": 6 * d * d,
        "adaln": 4 * d * d,
        "adaln-single": 0,
        "pixart": 0,  # told labels
        # Queries and output on the image tokens, keys and values on two tokens, two products over two keys.
        "cross-attention": image_tokens * 2 * d * d + 2 * 2 * d * d + 2 * image_tokens * 2 * d,
        "in-context": 0,
    }[arch.block]
    shared = 6 * d * d if arch.block in ("adaln-single", "pixart") else 0
    final = image_tokens * d * pixels * (2 if arch.learn_sigma else 1)
    if arch.block in ("adaln-zero", "adaln"):
        final += 2 * d * d
    return embedders + shared + arch.depth * block + final


# Against the paper


@pytest.mark.parametrize(("name", "block", "image_size", "printed"), published_figures())
def test_published_figures(name: str, block: str, image_size: int, printed: str) -> None:
    """To the last printed digit; DiT-B/4 alone is truncated."""
    cost = counted(name, block, image_size)
    decimals = len(printed.split(".")[1])
    assert printed_gmacs(name, block, image_size) == printed
    if name == "DiT-B/4":
        assert (round(cost.gmacs, 3), printed, agreement(cost.gmacs, name, printed)) == (5.566, "5.56", "truncated")
    else:
        assert round(cost.gmacs, decimals) == float(printed)
        assert agreement(cost.gmacs, name, printed) == "yes"


@pytest.mark.parametrize(("name", "gmacs"), [("DiT-S/2", 6.058), ("DiT-L/2", 80.710), ("DiT-XL/2", 118.638)])
def test_third_decimal(name: str, gmacs: float) -> None:
    assert round(counted(name).gmacs, 3) == gmacs


def test_flops_are_twice_the_macs() -> None:
    cost = counted("DiT-XL/2")
    assert cost.gflops == pytest.approx(237.27587328, rel=1e-12)
    assert (cost.num_tokens, cost.num_parameters) == (256, 675_129_632)


@pytest.mark.parametrize(
    ("model", "printed", "gmacs", "agrees"),
    [
        *(("DiT-XL/2", "118.64", gmacs, "yes") for gmacs in (118.6351, 118.6449)),
        *(("DiT-XL/2", "118.64", gmacs, "no") for gmacs in (118.6349, 118.6451, 119.0)),
        ("DiT-XL/2", "524.60", 524.606, "no"),  # printed to two decimals
        ("DiT-B/4", "5.56", 5.561, "yes"),
        *(("DiT-B/4", "5.56", gmacs, "no") for gmacs in (5.459, 5.571, 7.0)),
        ("DiT-L/4", "5.56", 5.566, "no"),  # the exception is one model's
        ("DiT-S/2", None, 6.058, "not published"),
    ],
)
def test_a_count_agrees_to_the_last_digit_or_not(model: str, printed: str | None, gmacs: float, agrees: str) -> None:
    assert agreement(gmacs, model, printed) == agrees


def test_what_the_paper_does_not_print() -> None:
    assert round(counted("DiT-XL/2", "adaln-single").gmacs, 2) == 118.42
    for row in (("DiT-XL/2", "adaln-single", 256), ("DiT-S/2", "adaln-zero", 512), ("DiT-S/2", "adaln", 256)):
        assert printed_gmacs(*row) is None
    assert printed_gmacs("DiT-L/4", "adaln-zero", 256) == "19.70"


def test_training_compute_of_the_paper() -> None:
    """XL/2, 400K steps of 256: Gflops x 3 x 256 x 400,000."""
    assert training_gmacs(118.64, 256, 400_000) == pytest.approx(3.6446208e10, rel=1e-12)
    exact = 118_637_936_640 * 3 * 256 * 400_000
    assert training_gmacs(counted("DiT-XL/2").gmacs, 256, 400_000) == pytest.approx(exact / 1e9, rel=1e-12)


# Against the formula


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("image_size", [256, pytest.param(512, marks=pytest.mark.slow)])
def test_full_size_designs_equal_the_formula(block: str, image_size: int) -> None:
    arch = configure("DiT-XL/2", block=block, image_size=image_size)
    assert counted("DiT-XL/2", block, image_size).by_module[""] == expected_macs(arch)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    block=st.sampled_from(BLOCKS),
    depth=st.integers(1, 3),
    heads=st.integers(1, 3),
    head_size=st.sampled_from([4, 8, 20]),
    patch=st.sampled_from([1, 2, 4]),
    grid=st.integers(1, 5),
    channels=st.integers(1, 5),
    mlp_ratio=st.sampled_from([0.5, 1.3, 4.0]),
    frequencies=st.sampled_from([2, 64]),
    learn_sigma=st.booleans(),
)
def test_small_sizes_equal_the_formula(
    block: str, depth: int, heads: int, head_size: int, patch: int, grid: int, channels: int,
    mlp_ratio: float, frequencies: int, learn_sigma: bool,
) -> None:  # fmt: skip
    sizes: dict[str, Any] = {
        "depth": depth, "hidden_size": heads * head_size, "num_heads": heads, "patch_size": patch,
        "input_size": grid * patch, "mlp_ratio": mlp_ratio, "frequency_embedding_size": frequencies,
        "learn_sigma": learn_sigma,
    }  # fmt: skip
    cost = count("DiT", block=block, in_channels=channels, **sizes)
    assert cost.by_module[""] == expected_macs(configure("DiT", block=block, in_channels=channels, **sizes))
    assert cost.gmacs == cost.by_module[""] / 1e9


@pytest.mark.parametrize("block", BLOCKS)
def test_a_batch_costs_its_images(block: str) -> None:
    with torch.device("meta"):
        model = create_model("DiT", block=block, **SMALL).eval()
    three = count_macs(model, (3, 4, 8, 8))
    assert three == {module: 3 * macs for module, macs in small(block).by_module.items()}


@pytest.mark.parametrize("block", BLOCKS)
def test_modules_add_up(block: str) -> None:
    """A module costs its children plus what it does itself: attention products, and the patches' linear map."""
    macs, d, tokens = small(block).by_module, 48, 16
    seen = tokens + 2 if block == "in-context" else tokens
    own = {"x_embedder": tokens * 16 * d}
    for i in range(2):
        own[f"blocks.{i}.attn"] = 2 * seen * seen * d
        own[f"blocks.{i}.cross_attn"] = 2 * tokens * 2 * d
    for module, total in macs.items():
        depth = module.count(".") + 1 if module else 0
        prefix = f"{module}." if module else ""
        children = [m for m in macs if m and m.startswith(prefix) and m.count(".") == depth]
        if children:
            assert total == sum(macs[m] for m in children) + own.get(module, 0), module
    assert macs["blocks.0.norm1"] == seen * d
    assert macs["final_layer.norm_final"] == 0


# What is not known is not silently free


class Wrapped(nn.Module):
    """A DiT with one more operator on its way out."""

    def __init__(self, operator: Any) -> None:
        super().__init__()
        with torch.device("meta"):
            self.model = create_model("DiT", **SMALL)
        self.operator = operator

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.operator(self.model(x, t, y))


class HiddenMatmul(torch.autograd.Function):
    """A matrix product that a trace sees as one opaque call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x @ x


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (lambda x: x.cumsum(1), "aten::cumsum"),
        (lambda x: torch.fft.fft(x).real, "aten::fft_fft"),
        (lambda x: x.logcumsumexp(1), "aten::logcumsumexp"),
        (lambda x: torch.baddbmm(x[0], x[0], x[0]), "aten::baddbmm"),
        (HiddenMatmul.apply, "HiddenMatmul"),
    ],
)
def test_an_operator_that_nothing_counts_is_an_error_that_names_it(operator: Any, name: str) -> None:
    with pytest.raises(InputError, match=name):
        count_macs(Wrapped(operator), (1, 4, 8, 8))


def test_a_matrix_product_added_to_the_model_is_counted() -> None:
    plain = count_macs(Wrapped(lambda x: x), (1, 4, 8, 8))
    more = count_macs(Wrapped(lambda x: x @ x), (1, 4, 8, 8))
    assert plain[""] == small("adaln-zero").by_module[""]
    assert more[""] - plain[""] == 8 * 8**3  # 8 channels of 8 x 8 matrices


@pytest.mark.parametrize(("keys", "size"), [(5, 8), (7, 4)])
def test_fused_attention_counts_both_products(keys: int, size: int) -> None:
    """softmax(Q K^T) V with other lengths of queries and keys: 2 x heads x T x S x head size."""

    class Attention(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            kv = x[:, :, :keys]
            return nn.functional.scaled_dot_product_attention(x, kv, kv)

    assert count_macs(Attention(), (2, 3, 9, size)) == {"": 2 * (2 * 3 * 9 * keys * size)}


def test_counting_leaves_the_default_device_alone() -> None:
    small("adaln")
    assert torch.zeros(1).device.type == "cpu"


def test_attention_written_out_costs_what_fused_attention_does() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return (x @ x.mT / x.shape[-1] ** 0.5).softmax(-1) @ x

    assert count_macs(Attention(), (2, 3, 9, 4)) == {"": 2 * (2 * 3 * 9 * 9 * 4)}


def test_a_network_may_state_what_its_operators_cost() -> None:
    class Sums(nn.Module):
        operators: ClassVar[Any] = {"aten::cumsum": lambda inputs, outputs: 7, "aten::mean": None}

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return x.cumsum(1).mean(1)

    assert count_macs(Sums(), (1, 3, 4, 4)) == {"": 7}
