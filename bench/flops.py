"""Exact multiply-accumulate counts with fvcore, by the convention of the DiT paper.

The paper's "Gflops" are GMACs: multiply-accumulates of one forward pass of one image, in units of 1e9, counted for
every linear map and attention product (QK^T and AV), plus one per output element of the blocks' LayerNorms (not of the
final layer's). With that rule all published rows agree to the last printed digit, save DiT-B/4: we count 5.566 and
the paper prints 5.56, which is our count truncated, where every other row is rounded. Two conventions differ from
fvcore's own: fused attention, which fvcore skips without a word, is counted, and LayerNorm counts 1 per element,
not 4 or 5.
"""

from __future__ import annotations

import csv
import logging
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import floor, prod
from pathlib import Path
from typing import Any

from bench.errors import InputError
from models.registry import Count, configure, family_of

PUBLISHED = Path(__file__).parents[1] / "results" / "published" / "dit_table4.csv"

# Forward and backward cost three forward passes (paper, Fig. 9).
TRAINING_FACTOR = 3

# Elementwise, lookup and shape operators, which the paper's numbers leave out. An operator neither here nor counted
# by a handle is an error, so that a new design cannot hide cost.
UNCOUNTED_OPERATORS = ("add", "mul", "div", "exp", "cos", "sin", "silu", "gelu", "embedding", "unflatten")


@dataclass(frozen=True)
class Cost:
    """Cost of one model. `gmacs` per image and forward pass; `by_module` maps module names to MACs."""

    name: str
    block: str
    image_size: int
    num_tokens: int
    num_parameters: int
    gmacs: float
    by_module: dict[str, int]
    published_gmacs: str | None

    @property
    def gflops(self) -> float:
        """True floating-point operations, 2 per multiply-accumulate, in 1e9."""
        return 2 * self.gmacs

    @property
    def agrees(self) -> bool | None:
        """Whether the count, rounded as printed, is the paper's figure; None where it prints none."""
        if self.published_gmacs is None:
            return None
        decimals = len(self.published_gmacs.partition(".")[2])
        return f"{self.gmacs:.{decimals}f}" == self.published_gmacs

    @property
    def is_stated_exception(self) -> bool:
        """DiT-B/4: the paper prints our 5.566 as 5.56, truncated, where it rounds every other row."""
        is_b4 = (self.name, self.published_gmacs) == ("DiT-B/4", "5.56")
        return is_b4 and not self.agrees and floor(100 * self.gmacs) == 556


def training_gmacs(gmacs: float, batch_size: int, steps: int) -> float:
    """Training compute in GMACs: gmacs x 3 x batch x steps (paper, Fig. 9)."""
    return gmacs * TRAINING_FACTOR * batch_size * steps


def cost_of(name: str, arch: Any) -> Count:
    """GMACs and parameters of a configuration: in closed form where its parts state one, else counted.

    The one way by which plans, queues and tables learn what a model costs. Without torch, if all parts state it.

    Raises:
        InputError: a part computes with an operator that nothing counts.
    """
    return family_of(name).count(arch) or _counted(name, arch)


def forward_gmacs(model: Any) -> float:
    """Multiply-accumulates of one forward pass of one image in 1e9, of a recipe's `model`."""
    return cost_of(model.name, model.architecture()).macs / 1e9


@cache
def _counted(name: str, arch: Any) -> Count:
    model, by_module = _count(name, arch)
    parameters = list(model.parameters())
    fixed = sum(p.numel() for p in parameters if not p.requires_grad)
    return Count(by_module[""], sum(p.numel() for p in parameters), fixed)


def _count(name: str, arch: Any) -> tuple[Any, dict[str, int]]:
    """The network, and its MACs by module: on the meta device, where nothing is allocated or initialised."""
    import torch

    operators = getattr(getattr(arch, "design", None), "operators", {})
    for device in ("meta", "cpu"):
        with torch.device(device):
            model = family_of(name).build(arch).eval()
        try:
            return model, count_macs(model, (1, *arch.input_shape), operators)
        except (TypeError, AssertionError):  # a convolution cannot be traced on the meta device
            if device == "cpu":
                raise
    raise AssertionError("one of the two returned")


def count(name: str, **options: Any) -> Cost:
    """Count a model operator by operator.

    Arguments as for `models.create_model`. The label dropout and the loss are not part of a forward pass.

    Raises:
        ValueError: see `models.create_model`.
        InputError: the network uses an operator that nothing counts.
    """
    arch = configure(name, **options)
    model, by_module = _count(name, arch)
    asked = {"block": "adaln-zero", "image_size": 256, **options}
    is_published = set(options) <= {"block", "image_size"}
    return Cost(
        name=name,
        block=arch.columns.get("block", ""),
        image_size=asked["image_size"],
        num_tokens=arch.num_tokens,
        num_parameters=sum(p.numel() for p in model.parameters()),
        gmacs=by_module[""] / 1e9,
        by_module=by_module,
        published_gmacs=published_gmacs(name, asked["block"], asked["image_size"]) if is_published else None,
    )


def count_macs(model: Any, shape: tuple[int, ...], operators: Mapping[str, Any] | None = None) -> dict[str, int]:
    """MACs of one forward pass of a network, by module name ("" is the whole), for x of `shape`.

    operators: further handles, as a block design states them.

    Raises:
        InputError: the network uses an operator that nothing counts.
    """
    import torch

    with warnings.catch_warnings():
        # fvcore traces with torch.jit, which announces its deprecation once a call.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        device = next((p.device for p in model.parameters()), torch.device("meta"))
        labels = torch.zeros(shape[0], dtype=torch.int64, device=device)
        inputs = (torch.zeros(shape, device=device), labels, labels)
        analysis = FlopCountAnalysis(model, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        analysis.set_op_handle("aten::layer_norm", _layer_norm_macs)
        for operator in UNCOUNTED_OPERATORS:
            analysis.set_op_handle(f"aten::{operator}", None)
        for operator, handle in (operators or {}).items():
            analysis.set_op_handle(operator, handle)
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        by_module = {module: int(macs) for module, macs in analysis.by_module().items()}
        uncounted = sorted(analysis.unsupported_ops())
        lines = _lines(FlopCountAnalysis(model, inputs), uncounted) if uncounted else {}
    if uncounted:
        names = ", ".join(f'"{operator}"{lines.get(operator, "")}' for operator in uncounted)
        raise InputError(
            f"{type(model).__name__}: nothing counts its operators {names}; accepted: `operators` of the block design "
            "with a handle for each, or None where it costs no multiply-accumulates"
        )
    return by_module


def _lines(analysis: Any, operators: Sequence[str]) -> dict[str, str]:
    """Operator -> " (my_block.py, line 21)", the line that calls it."""
    import torch

    lines: dict[str, str] = {}
    theirs = str(Path(torch.__file__).parent)

    def note(operator: str, outputs: list[Any]) -> Counter[str]:
        calls = re.findall(r"^(.+)\((\d+)\): ", outputs[0].node().sourceRange(), re.MULTILINE)  # innermost first
        file, line = next((call for call in calls if not call[0].startswith(theirs)), ("", ""))
        if file:
            lines.setdefault(operator, f" ({Path(file).name}, line {line})")
        return Counter()

    for operator in operators:
        analysis.set_op_handle(operator, lambda _, outputs, operator=operator: note(operator, outputs))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    return lines


def _sizes(value: Any) -> list[int]:
    return value.type().sizes()


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """QK^T and AV: 2 x batch x heads x T x S x head size."""
    query, key = _sizes(inputs[0]), _sizes(inputs[1])
    return Counter({"attention": 2 * prod(query) * key[-2]})


def _layer_norm_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """One per output element in the blocks, none in the final layer, as the printed values at 512 px imply."""
    in_final_layer = "final_layer" in outputs[0].node().scopeName()
    return Counter({"layer_norm": 0 if in_final_layer else prod(_sizes(outputs[0]))})


def published_gmacs(name: str, block: str, image_size: int) -> str | None:
    """The figure the paper prints (Table 4), as printed, or None."""
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["model"], row["block"], int(row["image_size"])) == (name, block, image_size):
                return row["gmacs"]
    return None
