"""What `ditbench flops` counts: models by name and by recipe. Every field of a family's options is one of the command.

Networks of one's own that belong to no family are in `own_network.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from bench.commands.terminal import accepted
from bench.counting.conventions import PAPER, Convention, Tally
from bench.errors import InputError
from bench.flops import cost_of, counted
from bench.recipe import Recipe
from bench.schema import check_options, parse_yaml
from models.registry import Count, Family, configure, family_of, listed_name

# Options as they were typed, by field; None: without a value.
Given = Mapping[str, str | None]


@dataclass(frozen=True)
class Variant:
    """One row: a network, and of runs, how they train it. Equal are those that cost the same for the same reason.

    Attributes:
        name: as it is listed, or a dotted path.
        cost: of one image.
        tally: what each module computes ("" is the whole); counts where that has not been done.
        arch: its configuration (`models.registry.Config`); None of a network without a family.
        image_size: pixels a side, where an autoencoder makes latents of them.
        is_listed: whether its name, block design and image size say all of it.
        called: how a network without a family was called, such as "forward(x, t)".
        label, runs, recipe: of the runs that train it alike: the first one's, and how many they are.
    """

    name: str
    cost: Count
    tally: Callable[[], Tally] = field(compare=False)
    arch: Any = None
    image_size: int | None = None
    is_listed: bool = False
    called: str | None = None
    label: str | None = field(default=None, compare=False)
    runs: int = 1
    batch_size: int | None = None
    steps: int | None = None
    recipe: Recipe | None = field(default=None, compare=False)

    @property
    def gmacs(self) -> float:
        return self.cost.macs / 1e9

    def modules(self, convention: Convention) -> dict[str, int]:
        """Module name -> count; errors as `Convention.of`."""
        return convention.by_module(self.tally(), self.name)

    def count(self, convention: Convention) -> int:
        """By a convention; the paper's is known without counting. Errors as `Convention.of`."""
        return self.cost.macs if convention is PAPER else convention.of(self.tally()[""], self.name)

    @property
    def block(self) -> str:
        return self.arch.columns.get("block", "") if self.arch else ""

    @property
    def tokens(self) -> int | None:
        return self.arch.num_tokens if self.arch else None


def read_words(words: Iterable[str]) -> tuple[list[str], dict[str, str | None]]:
    """Names, and options `--FIELD VALUE` or `--FIELD=VALUE`, of a command line's other words."""
    names: list[str] = []
    given: dict[str, str | None] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            names.append(word)
            continue
        option, equals, value = word.partition("=")
        if not equals:
            value = left.pop(0) if left and not left[0].startswith("--") else None
        given[option[2:].replace("-", "_") if option.startswith("--") else option] = value
    return names, given


def of_model(name: str, given: Given) -> Variant:
    """A model by name, a family by name or dotted path, with options.

    Raises:
        InputError: in one line: an unknown name or option, a value of another type, or values that do not fit together.
    """
    try:
        name = listed_name(name)
    except ValueError as error:
        raise InputError(str(error)) from None
    return _of_family(name, None, given)


def of_recipe(recipe: Recipe, given: Given) -> Variant:
    """A recipe's model, with options laid over it; errors as `of_model`."""
    variant = _of_family(recipe.model.name, recipe.model.options, given)
    return replace(
        variant,
        label=recipe.label or recipe.model.name,
        batch_size=recipe.train.batch_size,
        steps=recipe.train.steps,
        recipe=recipe,
    )


def together(variants: Sequence[Variant]) -> list[Variant]:
    """Runs that train the same network for as long, such as with other seeds, as one row."""
    alike: dict[Variant, list[Variant]] = {}
    for variant in variants:
        alike.setdefault(variant, []).append(variant)
    return [replace(runs[0], label=_labels(runs), runs=len(runs)) for runs in alike.values()]


def _labels(runs: Sequence[Variant]) -> str:
    labels = list(dict.fromkeys(str(run.label) for run in runs))
    others = len(labels) - 1
    return f"{labels[0]} and {others} other{'s' if others > 1 else ''}" if others else labels[0]


def _of_family(name: str, said: Any, given: Given) -> Variant:
    """`said`: what a recipe says beside the name."""
    family = family_of(name)
    options = _options(name, family, said, given)
    try:
        arch = configure(name, options, **{key: getattr(options, key) for key in given})
    except InputError:
        raise
    except Exception as error:  # a family of one's own may fail otherwise than by a ValueError
        problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        needed = f"; options: {_flags(family)}" if said is None and name not in family.presets else ""
        raise InputError(f"{problem if name in problem else f'{name}: {problem}'}{needed}") from None
    differ = {f.name for f in fields(options) if getattr(options, f.name) != f.default}
    pixels = getattr(options, "image_size", None) or family.presets.get(name, {}).get("image_size")
    return Variant(
        name,
        cost_of(name, arch),
        lambda: counted(name, arch).tally,
        arch,
        pixels if getattr(options, "input_size", None) is None else None,
        is_listed=differ <= {"block", "image_size"},
    )


def _options(name: str, family: Family, said: Any, given: Given) -> Any:
    """The family's options: what was said, and over it what was typed."""
    hints = get_type_hints(family.options)
    check_known(given, [f.name for f in fields(family.options)], f"{family.name} has no such field")
    typed = {key: typed_value(key, text, hints[key]) for key, text in given.items()}
    try:
        return check_options(family.options, {**(asdict(said) if said else {}), **typed})
    except ValueError as error:
        key, colon, problem = str(error).partition(":")
        raise InputError(f"{name}: {flag(key)}{colon}{problem}") from None


def _flags(family: Family) -> str:
    return ", ".join(flag(f.name) for f in fields(family.options))


def check_known(given: Given, known: Sequence[str], otherwise: str) -> None:
    """Refuse an option that is neither the command's nor one of those accepted here."""
    unknown = next((flag(key) for key in given if key not in known), None)
    if unknown is not None:
        names = [*map(flag, known), "those of `ditbench flops --help`"]
        raise InputError(f"{unknown}: no such option, and {otherwise}; {accepted(unknown, names)}")


def typed_value(key: str, text: str | None, hint: Any = None) -> Any:
    """What was typed, as a recipe's YAML would have it."""
    if text is None:
        raise InputError(f"{flag(key)}: a value is missing")
    if _takes_text(hint):
        return text
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{flag(key)}: {text!r}: {error}") from None


def _takes_text(hint: Any) -> bool:
    inner = get_args(hint) if get_origin(hint) in (Union, UnionType, Literal, Annotated) else ()
    return hint is str or isinstance(hint, str) or any(map(_takes_text, inner))


def flag(key: str) -> str:
    """A field as an option: `--hidden-size`."""
    return key if key.startswith("-") else f"--{key.replace('_', '-')}"
