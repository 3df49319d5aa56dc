"""Block designs of the DiT by name (paper Sec. 3.2; adaLN-single: PixArt, arXiv 2310.00426 Sec. 2.3), and their cost.

A design of one's own is a `BlockDesign` in any file, named in a recipe as `my_file:DESIGN`. One that does not state its
cost is counted operator by operator (`bench.flops`). Importing this module imports no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from models.parts import Seam

Norm = Literal["layer", "rms"]
Mlp = Literal["gelu", "swiglu"]


@dataclass(frozen=True)
class Windows:
    """Square windows of `size` patches a side in a grid of `grid`; within them, relative positions or none."""

    grid: int
    size: int
    use_rel_pos: bool = False


@dataclass(frozen=True)
class Layers:
    """What the layers of blocks and final layer are, where a model option says otherwise than the paper.

    Attributes:
        norm: "layer" (LayerNorm), or "rms": RMSNorm, with a scale of its own in every design, as LightningDiT and JiT
            have it.
        mlp: "gelu", or "swiglu" of two thirds of the hidden width, rounded down.
        qk_norm: whether every attention normalises queries and keys, head by head, with a `norm` that has a scale.
        captions: whether there are captions, of a design that takes them as tokens.
        windows: within which the block's patches attend to each other; None: to all.
        drop_path: the share of images for which training leaves out a branch of the block (`models.layers.DropPath`).
    """

    norm: Norm = "layer"
    mlp: Mlp = "gelu"
    qk_norm: bool = False

    captions: bool = False
    windows: Windows | None = None
    drop_path: float = 0.0


PAPER_LAYERS = Layers()


@dataclass(frozen=True)
class DesignCost:
    """What a design adds to attention, MLP and two norms a block; D is the hidden size.

    Attributes:
        in_block, shared, in_final: maps D -> D of the condition: in every block, once for all, in the final layer.
        block_table, final_table: vectors of D that a block and the final layer learn beside them.
        condition_tokens: tokens of the condition, appended to the image's or attended to; one of them is the label's,
            and as many as a caption has are in its place, of a design that takes captions as tokens.
        cross_attention: whether every block attends to them; "captions": if they are a caption's.
        affine_norms: whether the LayerNorms, the final layer's too, have scale and shift.
    """

    in_block: int = 0
    shared: int = 0
    in_final: int = 0
    block_table: int = 0
    final_table: int = 0
    condition_tokens: int = 0
    cross_attention: bool | Literal["captions"] = False
    affine_norms: bool = False


@dataclass(frozen=True)
class BlockDesign:
    """Three modules; x (N, T, D) are tokens, t and y (N, D) the embedded timestep and label.

    Attributes:
        condition: `condition(dim)`, (t, y) -> (what every block receives, what the final layer receives).
        block: `block(dim, num_heads, mlp_ratio)`, (x, condition) -> x.
        final_layer: `final_layer(dim, out_features)`, (x, condition) -> (N, T, out_features).
        condition_as_tokens: whether the condition, (N, S, D), joins the image tokens.
        cost: in closed form; None: counted.
        operators: handles for operators that nothing counts yet, as `fvcore.nn.FlopCountAnalysis.set_op_handle`
            takes them, such as {"aten::my_op": count}; None for one that costs no multiply-accumulates. A count may be
            a Counter by kind, such as Counter(linear=...), which other conventions need (docs/gflops.md).
        takes: which of the options "norm", "mlp", "qk_norm", "positions", "window_size" and "drop_path" of a model its
            modules can follow. Where one of them but "positions" is given, block and final layer get `Layers` as a
            last argument; with rotary positions, `block.forward` gets the rotation, (T, 2 D / num_heads), as a third.
        captions: what y is where a model is told captions instead of labels: "pooled", the mean of their embedded
            tokens, (N, D); "tokens", these tokens and their mask (`models.pixart.captions.CaptionTokens`), and then
            block and final layer get `Layers` too; None: the design takes no captions.

    A module is a class, or the dotted path of one. Its `initialize(std)`, if it has one, is called after all linear
    maps were initialised with Xavier; `std` is that of the timestep MLP.
    """

    condition: Any
    block: Any
    final_layer: Any
    condition_as_tokens: bool = False
    cost: DesignCost | None = None
    operators: Mapping[str, Any] = field(default_factory=dict)
    takes: tuple[str, ...] = ()
    captions: Literal["pooled", "tokens"] | None = "pooled"

    def modules(self) -> tuple[Any, Any, Any]:
        """The classes of condition, block and final layer; imports torch."""
        condition, block, final_layer = map(_loaded, (self.condition, self.block, self.final_layer))
        return condition, block, final_layer


def _loaded(module: Any) -> Any:
    if not isinstance(module, str):
        return module
    path, _, name = module.partition(":")
    return getattr(importlib.import_module(path), name)


def _of_blocks(condition: str, block: str, final_layer: str, cost: DesignCost, **more: Any) -> BlockDesign:
    condition, block, final_layer = (f"models.blocks:{name}" for name in (condition, block, final_layer))
    return BlockDesign(condition, block, final_layer, cost=cost, takes=("norm", "mlp", "qk_norm", "positions"), **more)


ADALN_ZERO = _of_blocks("SumCondition", "AdaLNZeroBlock", "AdaLNFinalLayer", DesignCost(in_block=6, in_final=2))
ADALN = _of_blocks("SumCondition", "AdaLNBlock", "AdaLNFinalLayer", DesignCost(in_block=4, in_final=2))
ADALN_SINGLE = _of_blocks(
    "SharedModulation",
    "AdaLNSingleBlock",
    "AdaLNSingleFinalLayer",
    DesignCost(shared=6, block_table=6, final_table=2),
)
CROSS_ATTENTION = _of_blocks(
    "SequenceCondition",
    "CrossAttentionBlock",
    "FinalLayer",
    DesignCost(condition_tokens=2, cross_attention=True, affine_norms=True),
    captions="tokens",
)
IN_CONTEXT = _of_blocks(
    "SequenceCondition",
    "InContextBlock",
    "FinalLayer",
    DesignCost(condition_tokens=2, affine_norms=True),
    condition_as_tokens=True,
    captions="tokens",
)
PIXART = replace(
    ADALN_SINGLE,
    condition="models.pixart.block:PixArtCondition",
    block="models.pixart.block:PixArtBlock",
    cost=DesignCost(shared=6, block_table=6, final_table=2, condition_tokens=1, cross_attention="captions"),
    takes=(*ADALN_SINGLE.takes, "window_size", "drop_path"),
    captions="tokens",
)

DESIGNS = Seam(
    noun="block",
    key="model.block",
    builtin={
        "adaln-zero": "models.designs:ADALN_ZERO",
        "adaln": "models.designs:ADALN",
        "adaln-single": "models.designs:ADALN_SINGLE",
        "cross-attention": "models.designs:CROSS_ATTENTION",
        "in-context": "models.designs:IN_CONTEXT",
        "pixart": "models.designs:PIXART",
    },
    contract=(*(field.name for field in fields(BlockDesign)), "modules"),
)
