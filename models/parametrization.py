"""How the start and the learning rate of a network's weights follow its width: as in its paper (sp), or muP.

muP is the maximal update parametrization (Yang et al. 2022, Tensor Programs V, arXiv 2203.03466, Table 8, for Adam), of
diffusion transformers as in arXiv 2505.15270: networks of all widths learn best at about one learning rate. Width D
grows by more heads of one size. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

if TYPE_CHECKING:
    from torch import Tensor, nn

Network = TypeVar("Network", bound="nn.Module")
Parametrization = Literal["sp", "mup"]
Kind = Literal["input", "table", "vector", "modulation", "hidden", "output", "fixed"]


class Rule(NamedTuple):
    """What muP has of a kind of weight.

    Attributes:
        start: its standard deviation, (fan_in, base width) -> std; None: as the family has it.
        rate: the learning rate is that of the recipe times (base width / D) to this power.
        factor: what the weight is multiplied with is first multiplied by (base width / D) to this power.
        of: the weights, in words.
    """

    start: Callable[[int, int], float] | None
    rate: int
    factor: int
    of: str


# A weight that the family starts at zero (gates and shifts of adaLN-Zero, branches that begin closed) stays at zero,
# whatever its kind. Biases and scales start as the family has them.
RULES: dict[Kind, Rule] = {
    # kind             start                             rate factor
    "input": Rule(lambda fan_in, base: fan_in**-0.5, 0, 0, "from a number of features that no width changes to D: "
                  "patches, the sines and cosines of the timestep, a text encoder's features"),
    "table": Rule(lambda fan_in, base: 1.0, 0, 0, "rows of D that are looked up: labels"),
    "vector": Rule(None, 0, 0, "of D alone: biases, scales of norms, positions that are added to tokens"),
    "modulation": Rule(lambda fan_in, base: base**-0.5, 0, 0, "the tables of adaLN-single, whose own start, "
                       "N(0, 1/D), falls with the width: as at the base width"),
    "hidden": Rule(lambda fan_in, base: fan_in**-0.5, 1, 0, "D to D, or to or from a multiple of D: attention, MLPs, "
                   "maps of the condition to shifts, scales and gates, the timestep's second map, skips"),
    "output": Rule(lambda fan_in, base: 0.0, 0, 1, "from D to a number of features that no width changes: the final "
                   "layer's map to pixels"),
    "fixed": Rule(None, 0, 0, "no dimension grows: the final bias, norms of a head, a convolution over pixels"),
}  # fmt: skip

# Options that say how weights start, which muP says.
STARTS = ("label_init_std", "timestep_init_std", "init_std")


def check_parametrization(config: Any) -> None:
    """Refuse a base width without muP, muP without one or with one that no heads of this size make, or stated starts.

    Raises:
        ValueError: `key: what is wrong`.
    """
    name, base = config.parametrization, config.base_width
    if name not in get_args(Parametrization):
        raise ValueError(f"parametrization: {name!r}; accepted: {', '.join(get_args(Parametrization))}")
    if name == "sp":
        if base is not None:
            raise ValueError(f"base_width: {base}, but parametrization is sp; accepted with mup")
        return
    if base is None:
        raise ValueError("base_width: missing; parametrization mup needs the width at which rates are the recipe's")
    head_size = config.hidden_size // config.num_heads
    if base % head_size:
        raise ValueError(
            f"base_width: {base} is not a multiple of the size of a head, {head_size}: heads make the width"
        )
    for key in STARTS:
        default = getattr(type(config), key, None)
        if getattr(config, key, None) != default:
            value = getattr(config, key)
            raise ValueError(f"{key}: {value}, but parametrization mup says how weights start; accepted: {default}")


def said_of(config: Any) -> list[str]:
    """What tables say of it, in words: nothing of sp."""
    return [] if config.parametrization == "sp" else ["parametrization=mup", f"base_width={config.base_width}"]


def parametrized(network: Network, build: Callable[[Any], nn.Module]) -> Network:
    """A network of `network.arch`, freshly initialised, as its `parametrization` has it; `build`: makes another.

    Under muP its weights start anew, it has `rate_multipliers` for the optimiser, its output weights get inputs that
    are scaled down, and logits of attention are q k / d of heads of size d, not q k / sqrt(d).

    Raises:
        ValueError: a weight whose kind cannot be told (`kinds_of`).
    """
    import torch

    config: Any = network.arch
    if config.parametrization == "sp":
        return network
    base, shrink = config.base_width, config.base_width / config.hidden_size
    kinds = kinds_of(network, build)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in kinds:
                _start(parameter, kinds[name], base)
    rates = {name: shrink ** RULES[kind].rate for name, kind in kinds.items()}
    network.rate_multipliers = {name: rate for name, rate in rates.items() if rate != 1}  # pyright: ignore
    for name, kind in kinds.items():
        if RULES[kind].factor:
            module = network.get_submodule(name.rpartition(".")[0])
            module.register_forward_pre_hook(partial(_with_scaled_input, shrink ** RULES[kind].factor))
    module: Any
    for module in network.modules():
        heads = getattr(module, "num_heads", None)
        # One of one's own without this keeps its scale: as heads of one size make the width, all widths have the same.
        if heads and hasattr(module, "q_norm"):
            module.q_norm.register_forward_hook(partial(_scaled, (config.hidden_size / config.num_heads) ** -0.5))
    return network


def kinds_of(network: nn.Module, build: Callable[[Any], nn.Module]) -> dict[str, Kind]:
    """The kind of every trainable parameter: by which of its dimensions differ in a network of twice the heads.

    A module says itself what that does not show: `kinds`, names of its own parameters -> kind.

    Raises:
        ValueError: a parameter that is no `weight`, and grows otherwise than in its last dimension alone.
    """
    import torch

    config: Any = network.arch
    twice = {"hidden_size": 2 * config.hidden_size, "num_heads": 2 * config.num_heads}
    with torch.device("meta"):
        wider = build(replace(config, **twice, parametrization="sp", base_width=None))
    shapes = {name: parameter.shape for name, parameter in wider.named_parameters()}
    return {
        name: _kind(module, own, name, [a != b for a, b in zip(parameter.shape, shapes[name], strict=True)])
        for module, own, name, parameter in _trainable(network)
    }


def _trainable(network: nn.Module) -> Iterator[tuple[nn.Module, str, str, Tensor]]:
    """(module, the parameter's name in it, its name in the network, itself)."""
    for path, module in network.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                yield module, own, f"{path}.{own}".removeprefix("."), parameter


def _kind(module: nn.Module, own: str, name: str, grows: list[bool]) -> Kind:
    from torch import nn

    stated: Any = getattr(module, "kinds", {})
    if own in stated:
        return stated[own]
    if not any(grows):
        return "fixed"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "table"
    if len(grows) > 1 and own.endswith("weight"):  # (out, in, ...), as linear maps and convolutions have it
        return "hidden" if grows[0] and grows[1] else "input" if grows[0] else "output"
    if grows[-1] and sum(grows) == 1:
        return "vector"
    raise ValueError(
        f"parametrization: mup, but {name} of {type(module).__name__} is of no kind that its shape shows; needed: "
        f"kinds = {{{own!r}: ...}} in its class, one of {', '.join(RULES)}"
    )


def _start(parameter: Tensor, kind: Kind, base: int) -> None:
    start = RULES[kind].start
    if start is None or (not parameter.is_meta and not parameter.any()):
        return
    fan_in = parameter[0].numel()
    parameter.normal_(std=start(fan_in, base))


def _with_scaled_input(factor: float, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (factor * inputs[0], *inputs[1:])


def _scaled(factor: float, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return factor * output
