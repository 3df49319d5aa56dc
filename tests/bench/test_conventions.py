"""What conventions make of networks of every family, against fvcore as it comes, torch's own counter and arithmetic."""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

import pytest
import torch
from command_line import ditbench
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.commands.flops import parts_of
from bench.counting.conventions import CONVENTIONS, KINDS
from bench.counting.trace import tally_of
from bench.errors import InputError
from bench.flops import Counted, cost_of, counted
from ditbench_flops import flops
from models import BLOCKS, create_model
from models.conditions import Captions, OfTensors
from models.registry import caption_shape_of, configure

DIT: dict[str, Any] = {
    "depth": 2, "hidden_size": 24, "num_heads": 3, "patch_size": 2, "input_size": 8, "num_classes": 3,
}  # fmt: skip
CAPTIONS: dict[str, Any] = {"caption_tokens": 5, "caption_channels": 7}
UNET: dict[str, Any] = {
    "input_size": 8, "in_channels": 2, "num_classes": 3, "channels": 8, "res_blocks": 1, "attention": [4], "groups": 2,
}  # fmt: skip
CLIPS: dict[str, Any] = {**DIT, "patch_frames": 2, "frames": 4, "in_channels": 3}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    **{block: ("DiT", {**DIT, "block": block}) for block in BLOCKS},
    "captions in the sequence": ("DiT", {**DIT, **CAPTIONS, "block": "in-context"}),
    "other layers": ("DiT", {**DIT, "qk_norm": True, "norm": "rms", "mlp": "swiglu", "positions": "both"}),
    "scaled norms of queries": ("DiT", {**DIT, "qk_norm": True}),
    "captions and windows": ("PixArt", {**DIT, **CAPTIONS, "window_size": 2, "use_rel_pos": True}),
    "JiT": ("JiT", {**DIT, "class_tokens": 2, "class_tokens_start": 1, "patch_bottleneck": 6}),
    "U-ViT": ("U-ViT", {**DIT, "depth": 3, "in_channels": 4}),
    "ADM": ("UNet", {**UNET, "design": "adm", "multipliers": [1, 2], "head_size": 4}),
    "LDM": ("UNet", {**UNET, "design": "ldm", "multipliers": [1, 2], "num_heads": 2, "label_size": 6}),
    "clips": ("VideoDiT", {**CLIPS, "attention": "sequential"}),
    "clips of captions": ("VideoDiT", {**CLIPS, **CAPTIONS, "block": "adaln-single", "conditioning": "captions",
                                       "num_classes": 1}),
    "U-Net of clips": ("UNet3D", {"channels": 8, "levels": 2, "layers": 1, "frames": 3, "input_size": 8,
                                  "in_channels": 2, "num_classes": 3, "attention_size": 4, "head_size": 4,
                                  "groups": 2}),
}  # fmt: skip
EVERY = pytest.mark.parametrize("network", NETWORKS)


@cache
def found(network: str) -> Counted:
    name, options = NETWORKS[network]
    return counted(name, configure(name, **options))


def built(network: str) -> tuple[nn.Module, tuple[Any, ...]]:
    """With numbers, and what to call it with."""
    name, options = NETWORKS[network]
    arch = configure(name, **options)
    captions = caption_shape_of(arch)
    told: tuple[Tensor, ...] = (torch.zeros(1, dtype=torch.long),)
    if captions is not None:
        told = (torch.zeros(1, *captions), torch.ones(1, captions[0], dtype=torch.bool), torch.zeros(1) > 0)
    return create_model(name, **options).eval(), (torch.zeros(1, *arch.input_shape), torch.zeros(1).long(), *told)


def by(convention: str, network: str) -> int:
    return CONVENTIONS[convention].of(found(network).tally[""])


# Against other counters


@EVERY
def test_paper_is_what_plans_take_a_network_to_cost(network: str) -> None:
    name, options = NETWORKS[network]
    assert by("paper", network) == cost_of(name, configure(name, **options)).macs == found(network).by_module[""]


@EVERY
def test_fvcore_is_what_fvcore_prints_of_every_module(network: str) -> None:
    model, inputs = built(network)
    traced = OfTensors(model) if len(inputs) > 3 else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        printed = FlopCountAnalysis(traced, inputs).by_module()
    ours = CONVENTIONS["fvcore"].by_module(found(network).tally)
    assert {name.removeprefix("network").removeprefix("."): count for name, count in printed.items()} == ours
    assert ours[""] == by("fvcore", network) > 0


@EVERY
def test_matmul_and_linear_only_are_half_of_what_torch_counts(network: str) -> None:
    model, (x, t, *told) = built(network)
    condition = Captions(*told) if len(told) > 1 else told[0]
    # Attention written out: fused on a CPU it would count as nothing.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(x, t, condition)
    by_operator = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    assert counter.get_total_flops() == 2 * by("matmul", network)
    assert counter.get_total_flops() - by_operator.get("aten.bmm", 0) == 2 * by("linear-only", network)


@pytest.mark.parametrize("convention", CONVENTIONS)
@EVERY
def test_modules_and_parts_add_up(network: str, convention: str) -> None:
    by_module = CONVENTIONS[convention].by_module(found(network).tally)
    assert sum(parts_of(by_module).values()) == by_module[""] == by(convention, network)
    assert min(parts_of(by_module).values()) > 0


# True FLOPs


def test_true_flops_of_a_block_by_hand() -> None:
    """adaLN-Zero with D channels, T tokens, H heads: what one block more costs."""
    d, tokens, heads = 24, 16, 3
    deeper = counted("DiT", configure("DiT", **{**DIT, "depth": 3}))
    block = CONVENTIONS["true-flops"].of(deeper.tally[""]) - by("true-flops", "adaln-zero")
    maps = tokens * 12 * d * d + 6 * d * d + 2 * tokens * tokens * d
    modulated = 2 * (2 * tokens * d + d)  # x (1 + scale) + shift
    gated = 2 * 2 * tokens * d  # x + gate y
    scaled = heads * tokens * tokens  # QK^T / sqrt(head size)
    norms, activations = 2 * 5 * tokens * d, tokens * 4 * d + d
    assert block == 2 * maps + modulated + gated + scaled + 5 * scaled + norms + activations


@pytest.mark.parametrize("masked", [False, True])
def test_attention_written_out_is_as_many_flops_as_fused(masked: bool) -> None:
    class Fused(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            key = x[:, :, :4]
            mask = key.new_zeros(5, 4) if masked else None
            return nn.functional.scaled_dot_product_attention(x, key, key, attn_mask=mask)

    class Written(nn.Module):
        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            key = x[:, :, :4]
            logits = x @ key.mT * 3**-0.5
            return (logits + 1.0 if masked else logits).softmax(-1) @ key

    fused, written = (tally_of(network, (2, 3, 5, 6))[""] for network in (Fused(), Written()))
    products, logits = 2 * 2 * 3 * 5 * 4 * 6, 2 * 3 * 5 * 4
    for convention, count in {"true-flops": 2 * products + (6 + masked) * logits, "matmul": products}.items():
        assert CONVENTIONS[convention].of(fused) == CONVENTIONS[convention].of(written) == count
    assert (CONVENTIONS["fvcore"].of(fused), CONVENTIONS["fvcore"].of(written)) == (0, products)


@pytest.mark.parametrize(
    ("norm", "each"),
    [
        (nn.LayerNorm(8), 7), (nn.LayerNorm(8, elementwise_affine=False), 5), (nn.RMSNorm(8), 4),
        (nn.RMSNorm(8, elementwise_affine=False), 3), (nn.GroupNorm(1, 3), 7), (nn.GroupNorm(3, 3, affine=False), 5),
        (nn.ReLU(), 1), (nn.Softmax(-1), 5),
    ],
)  # fmt: skip
def test_true_flops_of_an_element(norm: nn.Module, each: int) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return self.norm(x)

    assert CONVENTIONS["true-flops"].of(tally_of(One(), (2, 3, 5, 8))[""]) == each * 2 * 3 * 5 * 8


# Operators of one's own


class Own(nn.Module):
    """States what two operators cost, one of them without a kind."""

    operators: ClassVar[Any] = {"aten::cumsum": lambda inputs, outputs: 7, "aten::cumprod": None}

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return x.cumsum(1).cumprod(1)


class Kind(Own):
    operators: ClassVar[Any] = {**Own.operators, "aten::cumsum": lambda inputs, outputs: Counter(linear=7)}


def test_a_convention_that_cannot_tell_what_an_operator_is_says_so() -> None:
    tally = tally_of(Own(), (1, 3, 4, 4))
    assert [CONVENTIONS[name].by_module(tally) for name in ("paper", "true-flops")] == [{"": 7}, {"": 14}]
    for name in set(CONVENTIONS) - {"paper", "true-flops"}:
        with pytest.raises(InputError, match=r"own.*aten::cumsum.*paper, true-flops"):
            CONVENTIONS[name].of(tally[""], "own")


def test_a_handle_may_say_what_its_operator_is() -> None:
    kinds = tally_of(Kind(), (1, 3, 4, 4))[""]
    counts = {name: convention.of(kinds) for name, convention in CONVENTIONS.items()}
    assert counts == {"paper": 7, "linear-only": 7, "fvcore": 7, "matmul": 7, "true-flops": 14}


def test_the_command_refuses_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "summing.py").write_text(
        "from torch import nn\n"
        "class Sums(nn.Module):\n"
        "    operators = {'aten::cumsum': lambda inputs, outputs: 7}\n"
        "    def forward(self, x):\n"
        "        return x.cumsum(1)\n"
    )
    words = ("flops", "summing:Sums", "--input-shape", "3,4,4")
    ended = ditbench(*words, "--convention", "linear-only")
    (line,) = ended.err.splitlines()
    assert (ended.status, ended.out) == (2, "")
    assert all(word in line for word in ("summing:Sums", "linear-only", "aten::cumsum", "paper, true-flops"))
    (row,) = json.loads(ditbench(*words, "--convention", "true-flops", "--format", "json").out)
    assert row["gflops"] == 14e-9
    (row,) = json.loads(ditbench(*words, "--explain", "0.000000014", "--format", "json").out)
    assert row["explained_by"] == "true-flops"


# The command


def tiny(*words: object) -> list[dict[str, Any]]:
    options = [word for key, value in DIT.items() for word in (f"--{key.replace('_', '-')}", value)]
    ended = ditbench("flops", "DiT", *options, *words, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    return json.loads(ended.out)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_rows_have_the_count_of_the_convention(convention: str) -> None:
    (row,) = tiny("--convention", convention)
    assert row["gflops" if convention == "true-flops" else "gmacs"] == by(convention, "adaln-zero") / 1e9
    assert ("gmacs" in row, "agrees" in row) == (convention != "true-flops", convention == "paper")


def test_the_papers_convention_is_what_is_printed_without_one() -> None:
    assert tiny("--convention", "paper") == tiny()


@pytest.mark.parametrize(("convention", "unit"), [("fvcore", "macs"), ("true-flops", "flops")])
def test_by_module(convention: str, unit: str) -> None:
    rows = {row["module"].replace("(all)", ""): row[unit] for row in tiny("--convention", convention, "--by-module")}
    assert rows == CONVENTIONS[convention].by_module(found("adaln-zero").tally)
    words = ("flops", "DiT-S/8", "--by-module", "--convention", convention)
    assert "norm1" in ditbench(*words).out


@pytest.mark.parametrize(
    "others",
    [("--steps", "5", "--batch-size", "3"), ("--cluster", "slurm-example"), ("--by-module", "--out", "shares.png")],
)
def test_what_is_by_the_papers_convention_is_refused_with_another(others: tuple[str, ...]) -> None:
    ended = ditbench("flops", "DiT-S/8", "--convention", "matmul", *others)
    (line,) = ended.err.splitlines()
    assert (ended.status, ended.out) == (2, "")
    assert line.startswith("ditbench: --convention matmul: ")
    assert any(option in line for option in others)


def test_the_command_offers_every_convention() -> None:
    hint, *_ = get_args(get_type_hints(flops, include_extras=True)["convention"])
    assert list(get_args(hint)) == list(CONVENTIONS)
    for convention in CONVENTIONS.values():
        assert set(convention.weights) <= set(KINDS)
