"""Model families: what a recipe's `model.name` may be, and how a name becomes a network. Imports no torch.

A name is a preset ("DiT-XL/2"), a family ("DiT", sizes given), or the dotted path of a family of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from models.parts import Seam, said

if TYPE_CHECKING:
    from models.transformer import DiT


class Count(NamedTuple):
    """Cost of a network: multiply-accumulates of one forward pass of one image, parameters, and how many are fixed."""

    macs: int
    parameters: int
    fixed_parameters: int = 0


class Config(Protocol):
    """What every family's frozen, hashable configuration says.

    `input_shape`: (C, *spatial) of x; `out_channels`: of the prediction; label `num_classes` is the null label;
    `num_tokens`: what attention sees of an image; `depth`: blocks one after the other; `columns`: for the tables.
    A network that is told captions instead of labels has `caption_shape` too (see `caption_shape_of`).
    """

    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def out_channels(self) -> int: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def columns(self) -> Mapping[str, Any]: ...


CONFIG = ("input_shape", "out_channels", "num_classes", "num_tokens", "depth", "columns")


def caption_shape_of(config: Any) -> tuple[int, int] | None:
    """(S, D): tokens, and channels of each, of the captions that a network is told; None: it is told labels."""
    shape = getattr(config, "caption_shape", None)
    return None if shape is None else tuple(shape)


@dataclass(frozen=True)
class Family:
    """A kind of network.

    Attributes:
        name: for people and tables.
        presets: name -> values for `resolve`, such as "DiT-XL/2".
        options: a frozen dataclass: the keys of a recipe's `model` beside its name, with defaults.
        resolve: (preset or {}, options) -> a `Config`; raises ValueError("key: what is wrong").
        build: Config -> a module, `forward(x (N, C, *spatial), t (N,), condition) -> (N, C_out, *spatial)`; the
            condition is labels (N,), or of a `caption_shape` `models.conditions.Captions`.
            A network that takes random numbers in training says how many an image needs, `training_draws`, and gets
            them, uniform in 0 .. 1, before every forward pass: `use_draws((N, training_draws))`.
            One whose parameters learn at rates of their own says by what the recipe's is multiplied for which of them:
            `rate_multipliers`, name -> factor (see `models.parametrization`).
        count: Config -> its cost in closed form, or None, where it is to be counted operator by operator.
        has_blocks: whether the network's `blocks` is an nn.ModuleList whose modules are called once each, in order:
            they can be compiled, checkpointed and sharded one by one.
    """

    name: str
    presets: Mapping[str, Mapping[str, Any]]
    options: type
    resolve: Callable[[Any, Any], Any]
    build: Callable[[Any], Any]
    count: Callable[[Any], Count | None] = lambda config: None
    has_blocks: bool = False


FAMILIES = Seam(
    noun="model",
    key="model.name",
    builtin={
        "DiT": "models.dit:FAMILY",
        "UNet": "models.unet.config:FAMILY",
        "PixArt": "models.pixart.config:FAMILY",
        "JiT": "models.jit:FAMILY",
        "U-ViT": "models.uvit:FAMILY",
        "VideoDiT": "models.video.dit:FAMILY",
        "UNet3D": "models.video.unet:FAMILY",
    },
    contract=tuple(field.name for field in fields(Family)),
)


def family_of(name: str) -> Family:
    """The family of a preset's name, a family's name, or a dotted path, which may name a preset: `my_file:NET/small`.

    Case does not matter, but in a dotted path's module and attribute.

    Raises:
        ValueError: there is none, with the accepted names.
    """
    return _find(name).family


def listed_name(name: str) -> str:
    """A name as it is listed: `DiT-XL/2` for `dit-xl/2`; errors as `family_of`."""
    return _find(name).name


def configure(name: str, options: Any = None, **given: Any) -> Any:
    """The configuration of a name.

    Args:
        options: what a recipe says beside it, an instance of the family's `options`.
        **given: the same as keywords; beside `options`, what overrides them and the preset too.

    Raises:
        ValueError: an unknown name, preset or option, or values that do not fit together.
    """
    _, family, preset = _find(name)
    accepted = [field.name for field in fields(family.options)]
    unknown = sorted(set(given) - set(accepted))
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)} of {family.name}; accepted: {', '.join(accepted)}")
    if options is None:
        return _resolved(name, family, dict(preset), family.options(**given))
    # A family may let its preset win over options, whose defaults it cannot tell from what was said.
    return _resolved(name, family, {k: v for k, v in preset.items() if k not in given}, replace(options, **given))


def _resolved(name: str, family: Family, preset: dict[str, Any], options: Any) -> Any:
    try:
        config = family.resolve(preset, options)
    except ValueError:
        raise
    except Exception as error:  # whatever a user's family does
        raise ValueError(f"{name}: its resolve fails ({said(error)})") from None
    lacking = [attribute for attribute in CONFIG if not hasattr(config, attribute)]
    if lacking:
        raise ValueError(f"{name}: its configuration lacks {', '.join(lacking)}; needed: {', '.join(CONFIG)}")
    if not isinstance(config.columns, Mapping):
        raise ValueError(f"{name}: columns of its configuration are {config.columns!r}; needed: a mapping, a property")
    return config


class _Found(NamedTuple):
    """A name as it is listed, its family, and the values of its preset (none of a family's own name)."""

    name: str
    family: Family
    preset: Mapping[str, Any]


def _find(name: str) -> _Found:
    for builtin in FAMILIES.builtin:
        family = FAMILIES.find(builtin)
        if listed := _listed(name, (builtin, *family.presets)):
            return _Found(listed, family, family.presets.get(listed, {}))
    if ":" in name:
        path, slash, short = name.partition("/")
        family = FAMILIES.find(path)
        if not slash:
            return _Found(path, family, {})
        if listed := _listed(short, family.presets):
            return _Found(f"{path}/{listed}", family, family.presets[listed])
        raise ValueError(f"unknown preset {short!r} of {family.name}; accepted: {', '.join(family.presets)}")
    families = " or ".join(FAMILIES.builtin)
    raise ValueError(
        f"unknown model {name!r}; accepted: {', '.join(list_models())}, or {families} with its sizes given, or the "
        "path of your own family, such as my_module:FAMILY"
    )


def _listed(name: str, names: Collection[str]) -> str | None:
    """The one of `names` that is meant: the same, else the first that differs in case only."""
    if name in names:
        return name
    folded = name.casefold()
    return next((listed for listed in names if listed.casefold() == folded), None)


def list_models() -> list[str]:
    """All presets of the suite's own families; the paper's 12 configurations are DiT-S/8 to DiT-XL/2."""
    return [name for family in FAMILIES.builtin for name in FAMILIES.find(family).presets]


def create_model(name: str, **options: Any) -> DiT:
    """Build a network with freshly initialised weights.

    Args:
        name: one of `list_models()`, a family's name with its sizes as options, or the dotted path of a family.
        **options: of the family; for DiT see `models.dit.DiTOptions`.

    Raises:
        ValueError: unknown name or option, or sizes that do not fit together.
    """
    return family_of(name).build(configure(name, **options))
