"""Which operators a convention counts, and how often: a table of weights for each, and nothing else. Imports no torch.

A trace (`bench.counting.trace`) says how much of each kind of operator a module computes: multiply-accumulates of
products, output elements of what works element by element. A convention's count is the sum of these, times its weights.
What networks are made of stands here once: a family needs nothing of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.errors import InputError

# Module -> kind of operator -> how much of it; "" is the whole network.
Tally = Mapping[str, Mapping[str, int]]

# Kinds in multiply-accumulates. "attention": QK^T and AV of fused attention; written out, they are "matmul" or "bmm".
WEIGHTED = ("linear", "addmm", "conv")
MULTIPLIED = ("matmul", "mm", "bmm", "einsum")
FUSED = ("attention",)
PRODUCTS = (*WEIGHTED, *MULTIPLIED, *FUSED)
# Kinds in elements.
NORMS = ("layer_norm", "rms_norm", "group_norm")
SCALED, FINAL = " with scale", " of the final layer"
ACTIVATIONS = ("relu", "silu", "gelu", "elu", "leaky_relu", "softplus", "sigmoid", "tanh")
ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "neg", "pow", "sqrt", "rsqrt", "exp", "log", "cos", "sin", "clamp")
POOLS = ("avg_pool1d", "avg_pool2d", "avg_pool3d")  # of what goes in
COPIES = ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
# Kinds whose amount is what fvcore says of them: operations.
AS_FVCORE = ("batch_norm", "instance_norm", "adaptive_avg_pool2d", "upsample_bilinear2d", "grid_sampler")


def norm_kind(norm: str, is_scaled: bool, is_final: bool) -> str:
    """Of a norm, with a scale of its own or without, of the final layer or not."""
    return norm + (SCALED if is_scaled else "") + (FINAL if is_final else "")


def norm_kinds(norms: Sequence[str] = NORMS) -> dict[str, tuple[str, bool, bool]]:
    """Kind -> norm, whether it has a scale, whether it is the final layer's."""
    every = [(norm, scaled, final) for norm in norms for scaled in (False, True) for final in (False, True)]
    return {norm_kind(*each): each for each in every}


KINDS = (*PRODUCTS, *norm_kinds(), "softmax", *ACTIVATIONS, *ARITHMETIC, *POOLS, *COPIES, *AS_FVCORE)


@dataclass(frozen=True)
class Convention:
    """One way to count.

    Attributes:
        text: what is counted, for people.
        weights: kind of operator -> how often it is counted; what is not here, not at all.
        stated: how often the multiply-accumulates are counted that a network or block design states of an operator of
            its own, without a kind; None: it cannot be said, and is refused.
        in_flops: whether the count is in floating-point operations, not in multiply-accumulates.
    """

    name: str
    text: str
    weights: Mapping[str, int]
    stated: int | None = None
    in_flops: bool = False

    def of(self, kinds: Mapping[str, int], what: str = "") -> int:
        """The count of what a module computes.

        Raises:
            InputError: an operator of it has no kind, and the convention none for such; `what` names the network.
        """
        return sum(self._weight(kind, what) * amount for kind, amount in kinds.items())

    def by_module(self, tally: Tally, what: str = "") -> dict[str, int]:
        """Module -> count; errors as `of`."""
        return {module: self.of(kinds, what) for module, kinds in tally.items()}

    def _weight(self, kind: str, what: str) -> int:
        if kind in KINDS:
            return self.weights.get(kind, 0)
        if self.stated is None:
            defined = ", ".join(other.name for other in CONVENTIONS.values() if other.stated is not None)
            raise InputError(
                f"{what or 'the network'}: convention {self.name} is not defined for its operator {kind}, of which it "
                f"states a number and no kind; accepted: {defined}, or a handle that returns a Counter of kinds, such "
                "as Counter(linear=...)"
            )
        return self.stated


def _each(kinds: Sequence[str], weight: int = 1) -> dict[str, int]:
    return dict.fromkeys(kinds, weight)


PAPER = Convention(
    "paper",
    "multiply-accumulates of linear maps, convolutions and attention products, and 1 for each element that a norm "
    "gives, but the final layer's: the DiT paper's Gflops",
    # What the paper's networks do not have is counted as fvcore does.
    _each(PRODUCTS) | {kind: 1 for kind, (_, _, final) in norm_kinds().items() if not final} | _each(AS_FVCORE),
    stated=1,
)
LINEAR_ONLY = Convention(
    "linear-only", "multiply-accumulates of linear maps and convolutions, and nothing else", _each(WEIGHTED)
)
MATMUL = Convention(
    "matmul", "multiply-accumulates of linear maps, convolutions and attention products, and nothing else",
    _each(PRODUCTS),
)  # fmt: skip
FVCORE = Convention(
    "fvcore",
    "what fvcore 0.1.5 prints as it comes: multiply-accumulates of linear maps, convolutions and products that are "
    "written out, fused attention skipped, and 4 for each element of a LayerNorm or GroupNorm, 5 where it has a scale",
    _each((*WEIGHTED, *MULTIPLIED, *AS_FVCORE, "upsample_nearest2d"))
    | {kind: 5 if scaled else 4 for kind, (_, scaled, _) in norm_kinds(("layer_norm", "group_norm")).items()},
)
# Mean, difference, square, its mean, division, and 2 for scale and shift; RMSNorm has no mean, difference or shift.
_OF_NORM = {"layer_norm": (5, 2), "group_norm": (5, 2), "rms_norm": (3, 1)}
TRUE_FLOPS = Convention(
    "true-flops",
    "floating-point operations: 2 for each multiply-accumulate, which includes biases; for each element 5 of a "
    "softmax, 5 of a LayerNorm or GroupNorm (7 with scale and shift), 3 of an RMSNorm (4 with scale), and 1 of an "
    "activation, a sum, a product and the like",
    _each(PRODUCTS, 2)
    | {kind: _OF_NORM[norm][0] + scaled * _OF_NORM[norm][1] for kind, (norm, scaled, _) in norm_kinds().items()}
    | {"softmax": 5}
    | _each((*ACTIVATIONS, *ARITHMETIC, *POOLS, *AS_FVCORE)),
    stated=2,
    in_flops=True,
)
CONVENTIONS = {each.name: each for each in (PAPER, LINEAR_ONLY, FVCORE, MATMUL, TRUE_FLOPS)}
