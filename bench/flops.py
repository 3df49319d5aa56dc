"""Exact multiply-accumulate counts with fvcore, by the convention of the DiT paper.

The paper's "Gflops" are GMACs: multiply-accumulates of one forward pass of one image, in units of 1e9, counted for
every linear map and attention product (QK^T and AV), plus one per output element of the blocks' LayerNorms (not of the
final layer's). With that rule all published rows agree to the last printed digit, save DiT-B/4: we count 5.566 and
the paper prints 5.56, which is our count truncated, where every other row is rounded. Two conventions differ from
fvcore's own: fused attention, which fvcore skips without a word, is counted, and LayerNorm counts 1 per element,
not 4 or 5. So do RMSNorm, GroupNorm, and the norms of queries and keys, none of which the paper's networks have; to
rotate these by their positions is elementwise, and counts nothing. The U-Nets of the paper's Table 6 come to what it
prints by the same rule (docs/systems.md).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from bench import shapes
from bench.errors import InputError
from models.parts import said
from models.registry import Count, caption_shape_of, configure, family_of

# Forward and backward cost three forward passes (paper, Fig. 9).
TRAINING_FACTOR = 3

# Elementwise, lookup and shape operators, and attention's softmax, which the paper's numbers leave out; in place
# (`add_`) or not. An operator neither here nor counted by a handle is an error, so that a new design cannot hide cost.
UNCOUNTED_OPERATORS = (
    *("add", "sub", "rsub", "mul", "div", "neg", "pow", "sqrt", "rsqrt", "exp", "log", "cos", "sin", "where"),
    *("sigmoid", "tanh", "silu", "gelu", "elu", "leaky_relu", "softplus", "softmax"),
    *("embedding", "unflatten", "clone", "expand_as", "view_as", "repeat", "flip", "movedim", "mT", "pad"),
    *("pixel_shuffle", "pixel_unshuffle", "max_pool2d"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
)

# What a network is called with beside x: (N,) zeros of a dtype, or captions of (S, D).
Beside = tuple[str | tuple[int, int], ...]
TIMESTEPS_AND_LABELS: Beside = ("int64", "int64")


@dataclass(frozen=True)
class Cost:
    """One model, counted operator by operator. `gmacs` per image and forward pass; `by_module`: module -> MACs."""

    name: str
    num_tokens: int
    num_parameters: int
    gmacs: float
    by_module: Mapping[str, int]

    @property
    def gflops(self) -> float:
        """True floating-point operations, 2 per multiply-accumulate, in 1e9."""
        return 2 * self.gmacs


@dataclass(frozen=True)
class Counted:
    """A network that was counted: its cost, where it is spent ("" is the whole), what it was called with beside x."""

    cost: Count
    by_module: Mapping[str, int]
    others: Beside


def training_gmacs(gmacs: float, batch_size: int, steps: int) -> float:
    """Training compute in GMACs: gmacs x 3 x batch x steps (paper, Fig. 9)."""
    return gmacs * TRAINING_FACTOR * batch_size * steps


def cost_of(name: str, arch: Any) -> Count:
    """MACs and parameters of a configuration: in closed form where its parts state one, else counted.

    The one way by which plans, queues and tables learn what a model costs. Without torch, if all parts state it.

    Raises:
        InputError: a part computes with an operator that nothing counts, or fails.
    """
    return family_of(name).count(arch) or counted(name, arch).cost


def forward_gmacs(model: Any) -> float:
    """Multiply-accumulates of one forward pass of one image in 1e9, of a recipe's `model`."""
    return cost_of(model.name, model.architecture()).macs / 1e9


def count(name: str, **options: Any) -> Cost:
    """Count a model operator by operator.

    Arguments as for `models.create_model`. The label dropout and the loss are not part of a forward pass.

    Raises:
        ValueError: see `models.create_model`.
        InputError: see `cost_of`.
    """
    arch = configure(name, **options)
    found = counted(name, arch)
    return Cost(name, arch.num_tokens, found.cost.parameters, found.cost.macs / 1e9, found.by_module)


@cache
def counted(name: str, arch: Any) -> Counted:
    """A configuration's network, counted operator by operator; errors as `cost_of`."""
    operators = getattr(getattr(arch, "design", None), "operators", {})

    captions = caption_shape_of(arch)

    def calls(network: Any) -> list[Beside]:
        return [TIMESTEPS_AND_LABELS if captions is None else ("int64", captions)]

    def build() -> Any:
        network = family_of(name).build(arch)
        if shapes.is_own(name, arch):
            shapes.watch(network, arch)
        return network

    return count_network(name, build, arch.input_shape, calls, operators)


def count_network(
    what: str,
    build: Callable[[], Any],
    shape: tuple[int, ...],
    calls: Callable[[Any], Sequence[Beside]],
    operators: Mapping[str, Any] | None = None,
) -> Counted:
    """Count what `build` makes: on the meta device, where nothing is allocated or initialised, if that can be.

    Args:
        what: names it in messages.
        shape: (C, *spatial) of x.
        calls: of the network, with what it may be called beside x: the first that works is.
        operators: as for `count_macs`.

    Raises:
        InputError: it cannot be built, fails with all of the calls, or uses an operator that nothing counts.
    """
    import torch

    problems = {}
    for device in ("meta", "cpu"):  # what looks at numbers raises on the meta device
        try:
            with torch.device(device):
                network = build().eval()
        except InputError:
            raise
        except Exception as error:  # whatever a user's code does
            problems[device] = f"it cannot be built ({said(error)})"
            continue
        for others in calls(network):
            try:
                by_module = count_macs(network, (1, *shape), operators, others)
            except InputError as error:
                raise InputError(f"{what}: {error}") from None
            except Exception as error:
                problems.setdefault(device, f"its forward pass fails ({said(error)})")
            else:
                parameters = list(network.parameters())
                fixed = sum(p.numel() for p in parameters if not p.requires_grad)
                return Counted(Count(by_module[""], sum(p.numel() for p in parameters), fixed), by_module, others)
    raise InputError(f"{what}: {problems['cpu']}, for x of shape {(1, *shape)}")


def count_macs(
    model: Any,
    shape: tuple[int, ...],
    operators: Mapping[str, Any] | None = None,
    others: Beside = TIMESTEPS_AND_LABELS,
) -> dict[str, int]:
    """MACs of one forward pass of a network, by module name ("" is the whole), for x of `shape`.

    Args:
        operators: further handles, as a block design states them; the network may state some as well.
        others: what it is called with beside x.

    Raises:
        InputError: the network uses an operator that nothing counts.
    """
    import torch

    with warnings.catch_warnings(), _convolutions_by_shape():
        # fvcore traces with torch.jit, which announces its deprecation once a call.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        from models.conditions import OfTensors

        device = next((p.device for p in model.parameters()), torch.device("meta"))
        beside = (tensor for each in others for tensor in _zeros(each, shape[0], device))
        inputs = (torch.zeros(shape, device=device), *beside)
        traced = OfTensors(model) if any(isinstance(each, tuple) for each in others) else model
        analysis = FlopCountAnalysis(traced, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        for norm in ("layer_norm", "rms_norm", "group_norm"):
            analysis.set_op_handle(f"aten::{norm}", _norm_macs)
        for operator in UNCOUNTED_OPERATORS:
            analysis.set_op_handle(f"aten::{operator}", _no_macs, f"aten::{operator}_", _no_macs)
        stated = getattr(model, "operators", None)
        for operator, handle in {**(stated if isinstance(stated, Mapping) else {}), **(operators or {})}.items():
            analysis.set_op_handle(operator, handle or _no_macs)  # to None fvcore prefers a handle of its own
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        by_module = {name: int(macs) for name, macs in analysis.by_module().items()}
        if traced is not model:
            by_module = {name.removeprefix("network").removeprefix("."): macs for name, macs in by_module.items()}
        uncounted = sorted(analysis.unsupported_ops())
        lines = _lines(FlopCountAnalysis(traced, inputs), uncounted) if uncounted else {}
    if uncounted:
        names = ", ".join(f'"{operator}"{lines.get(operator, "")}' for operator in uncounted)
        raise InputError(
            f"nothing counts the operators {names} of {type(model).__name__}; accepted: `operators` of the network or "
            "of its block design, with a handle for each, or None where it costs no multiply-accumulates"
        )
    return by_module


def _zeros(beside: str | tuple[int, int], n: int, device: Any) -> list[Any]:
    """(N,) zeros of a dtype, or the tensors of captions, each of S tokens."""
    import torch

    if isinstance(beside, str):
        return [torch.zeros(n, dtype=getattr(torch, beside), device=device)]
    tokens, features = beside
    mask, dropped = torch.ones(n, tokens, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    return [torch.zeros(n, tokens, features, device=device), mask.to(device), dropped.to(device)]


def _lines(analysis: Any, operators: Sequence[str]) -> dict[str, str]:
    """Operator -> " (my_block.py, line 21)", the line that calls it."""
    import torch

    lines: dict[str, str] = {}
    passed = (str(Path(torch.__file__).parent), __file__)  # `_convolutions_by_shape` stands in between

    def note(operator: str, outputs: list[Any]) -> Counter[str]:
        calls = re.findall(r"^(.+)\((\d+)\): ", outputs[0].node().sourceRange(), re.MULTILINE)  # innermost first
        file, line = next((call for call in calls if not call[0].startswith(passed)), ("", ""))
        if file:
            lines.setdefault(operator, f" ({Path(file).name}, line {line})")
        return Counter()

    for operator in operators:
        analysis.set_op_handle(operator, lambda _, outputs, operator=operator: note(operator, outputs))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    return lines


def _convolutions_by_shape() -> Any:
    """A context in which convolutions, transposed ones too, can be traced on the meta device.

    There torch works out the shape of their output in Python, from sizes that are tensors while it traces, and raises.
    Called as `torch._convolution`, the operator that a trace records and fvcore counts, they know plain numbers.
    """
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    def plain(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
              groups: int = 1) -> Any:  # fmt: skip
        sizes, dilations = weight.shape[2:], _each_axis(dilation, weight)
        if padding == "valid":
            padding = 0
        elif padding == "same":  # what is odd goes to the end
            both = [int(d) * (int(k) - 1) for k, d in zip(sizes, dilations, strict=True)]
            input = functional.pad(input, [side for n in reversed(both) for side in (n // 2, n - n // 2)])
            padding = 0
        return called(input, weight, bias, stride, padding, dilations, False, 0, groups)

    def transposed(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
                   output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Any:  # fmt: skip
        return called(input, weight, bias, stride, padding, dilation, True, output_padding, groups)

    def called(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, is_transposed: bool,
               output_padding: Any, groups: int) -> Any:  # fmt: skip
        is_one = x.dim() < weight.dim()  # without a batch
        stride, padding, dilation, more = (_each_axis(n, weight) for n in (stride, padding, dilation, output_padding))
        backend = (False, False, True, True)  # how cuDNN is to be used: of no matter to the shape
        out = torch._convolution(  # pyright: ignore[reportPrivateImportUsage]
            x[None] if is_one else x, weight, bias, stride, padding, dilation, is_transposed, more, groups, *backend
        )
        return out[0] if is_one else out

    instead: dict[Any, Callable[..., Any]] = {getattr(functional, f"conv{n}d"): plain for n in (1, 2, 3)}
    instead |= {getattr(functional, f"conv_transpose{n}d"): transposed for n in (1, 2, 3)}

    class ByShape(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called_instead: Any = instead.get(func, func)
            return called_instead(*args, **(kwargs or {}))

    return ByShape()


def _each_axis(value: Any, weight: Any) -> Sequence[int]:
    """A convolution's stride, padding or dilation, one number an axis."""
    axes = weight.dim() - 2
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _sizes(value: Any) -> list[int]:
    return value.type().sizes()


def _no_macs(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """QK^T and AV: 2 x batch x heads x T x S x head size."""
    query, key = _sizes(inputs[0]), _sizes(inputs[1])
    return Counter({"attention": 2 * prod(query) * key[-2]})


def _norm_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """One per output element in the blocks, none in the final layer, as the printed values at 512 px imply."""
    in_final_layer = "final_layer" in outputs[0].node().scopeName()
    return Counter({"norm": 0 if in_final_layer else prod(_sizes(outputs[0]))})
