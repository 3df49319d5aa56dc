"""What a network computes, counted operator by operator with fvcore, on shapes alone.

How much of which kind of operator each module computes: what that costs is for a convention to say (`conventions`).
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from bench.counting.conventions import (
    ACTIVATIONS,
    ARITHMETIC,
    COPIES,
    KINDS,
    NORMS,
    POOLS,
    Tally,
    norm_kind,
)
from bench.errors import InputError

# What a network is called with beside x: (N,) zeros of a dtype, or captions of (S, D).
Beside = tuple[str | tuple[int, int], ...]
TIMESTEPS_AND_LABELS: Beside = ("int64", "int64")

# Operators that look up, choose or move numbers, in place (`flip_`) or not: no convention counts them. An operator
# neither here, nor of a kind, nor counted by a handle is an error, so that a new design cannot hide cost.
FREE_OPERATORS = (
    *("where", "embedding", "unflatten", "clone", "expand_as", "view_as", "repeat", "flip", "movedim", "mT", "pad"),
    *("pixel_shuffle", "pixel_unshuffle", "max_pool2d"),
)


def tally_of(
    model: Any,
    shape: tuple[int, ...],
    operators: Mapping[str, Any] | None = None,
    others: Beside = TIMESTEPS_AND_LABELS,
) -> Tally:
    """What each module of a network computes in one forward pass, for x of `shape`.

    Args:
        operators: further handles, as a block design states them; the network may state some as well. A handle gives
            multiply-accumulates, or a Counter of them by kind of operator (`conventions.KINDS`).
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
        for operator, handle in _HANDLES.items():
            analysis.set_op_handle(f"aten::{operator}", handle, f"aten::{operator}_", handle)
        stated = getattr(model, "operators", None)
        for operator, handle in {**(stated if isinstance(stated, Mapping) else {}), **(operators or {})}.items():
            # To None fvcore prefers a handle of its own.
            analysis.set_op_handle(operator, _free if handle is None else _stated(operator, handle))
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        tally = {
            name: {kind: int(amount) for kind, amount in kinds.items()}
            for name, kinds in analysis.by_module_and_operator().items()
        }
        if traced is not model:
            tally = {name.removeprefix("network").removeprefix("."): kinds for name, kinds in tally.items()}
        uncounted = sorted(analysis.unsupported_ops())
        lines = _lines(FlopCountAnalysis(traced, inputs), uncounted) if uncounted else {}
    if uncounted:
        names = ", ".join(f'"{operator}"{lines.get(operator, "")}' for operator in uncounted)
        raise InputError(
            f"nothing counts the operators {names} of {type(model).__name__}; accepted: `operators` of the network or "
            "of its block design, with a handle for each, or None where it costs no multiply-accumulates"
        )
    return tally


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


def _is_tensor(value: Any) -> bool:
    return value.isCompleteTensor()


def _elements(value: Any) -> int:
    """Of a tensor; 0 of a plain number."""
    return prod(_sizes(value)) if _is_tensor(value) else 0


def _free(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


def _stated(operator: str, handle: Any) -> Any:
    """A handle whose number has no kind but the operator's own full name, such as "aten::cumsum"."""

    def counted(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        amounts = handle(inputs, outputs)
        if not isinstance(amounts, Mapping):
            return Counter({operator: amounts})
        found: Counter[str] = Counter()
        for kind, amount in amounts.items():
            found[kind if kind in KINDS else operator] += amount
        return found

    return counted


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """softmax(QK^T / sqrt(head size) + mask) V of N x heads x T queries and S keys, as if it were written out."""
    query, key, value = map(_sizes, inputs[:3])
    logits = prod(query[:-1]) * key[-2]
    masked = logits if _is_tensor(inputs[3]) else 0
    return Counter(
        {"attention": logits * (query[-1] + value[-1]), "softmax": logits, "mul": logits, "add": masked}
    )  # fmt: skip


def _norm(norm: str) -> Any:
    def counted(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        in_final_layer = "final_layer" in outputs[0].node().scopeName()
        return Counter({norm_kind(norm, _is_tensor(inputs[2]), in_final_layer): _elements(outputs[0])})

    return counted


def _of_output(kind: str) -> Any:
    return lambda inputs, outputs: Counter({kind: _elements(outputs[0])})


def _of_input(kind: str) -> Any:
    return lambda inputs, outputs: Counter({kind: _elements(inputs[0])})


# Operator of torch -> what it computes, beside fvcore's own handles of products.
_HANDLES: dict[str, Any] = {
    "scaled_dot_product_attention": _attention,
    **{norm: _norm(norm) for norm in NORMS},
    **{kind: _of_output(kind) for kind in ("softmax", *ACTIVATIONS, *ARITHMETIC, *COPIES)},
    **{kind: _of_input(kind) for kind in POOLS},
    **dict.fromkeys(FREE_OPERATORS, _free),
}
