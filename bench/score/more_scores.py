"""The `scores` of a recipe, written out: how kept steps are scored beside `evaluation`.

scores:
- {sampler: name, sampling_steps: 50}       keys of `evaluation`, in place of its own
- {guidance_scale: 1.5, kept_steps: last}   of the last kept step alone; or a list of kept steps; default: all
- product:                                  every combination of these, each with the entry's other keys
    sampler: [name, my_file:Name]
    sampling_steps: [10, 25]

A sampler other than `evaluation`'s begins with its own default options.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bench.schema import describe

if TYPE_CHECKING:
    from bench.recipe.evaluation import EvaluationConfig

KEPT_STEPS, PRODUCT, LAST = "kept_steps", "product", "last"
# A step more is a score more: beyond, it is a mistake.
MOST = 1000


def written_out(
    given: Any, evaluation: EvaluationConfig, kept: list[int], fitted: Callable[..., EvaluationConfig]
) -> tuple[dict[str, Any], ...]:
    """One mapping for each score: the keys in which it differs from `evaluation`, and `kept_steps` if not all.

    Args:
        kept: the kept steps.
        fitted: an evaluation of `steps` as the recipe records it, or a ValueError, `key: what is wrong`.

    Raises:
        ValueError: `[2].key: what is wrong`, where [2] is the place in the list; or what is wrong with the list.
    """
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"expected a list of mappings, got {given!r}")
    found, result = {evaluation.id: "evaluation"}, []
    for place, said, settings in _entries(given, [*type(evaluation).model_fields]):
        steps = _steps(settings.pop(KEPT_STEPS, None), kept, place)
        try:
            score = fitted(_changed(evaluation, settings), steps=steps_of(steps, kept))
        except ValidationError as error:
            raise ValueError(f"{place}.{describe(error, type(evaluation))}{said}") from None
        except ValueError as error:
            raise ValueError(f"{place}.{error}{said}") from None
        if score.id in found:
            raise ValueError(
                f"{place}: has the key of {found[score.id]}{said}; accepted: scores that differ in more than metrics "
                "and batch sizes"
            )
        found[score.id] = f"scores{place}{said}"
        names = [name for name in type(evaluation).model_fields if getattr(score, name) != getattr(evaluation, name)]
        result.append({name: getattr(score, name) for name in names} | steps)
    return tuple(result)


def steps_of(score: dict[str, Any], kept: list[int]) -> Collection[int]:
    """The kept steps that an entry of `written_out` is for."""
    steps = score.get(KEPT_STEPS, kept)
    return kept[-1:] if steps == LAST else steps


def _changed(evaluation: EvaluationConfig, settings: dict[str, Any]) -> EvaluationConfig:
    content = evaluation.model_dump() | settings
    if content["sampler"] != evaluation.sampler and "sampler_options" not in settings:
        content["sampler_options"] = {}  # those of the other sampler
    return type(evaluation).model_validate(content)


def _entries(given: Any, keys: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each score's place in the list, which one of its place's product it is, and its settings."""
    accepted = ", ".join([*keys, KEPT_STEPS, PRODUCT])
    number = 0
    for index, entry in enumerate(given):
        place = f"[{index}]"
        if not isinstance(entry, dict) or not entry:
            raise ValueError(f"{place}: expected a mapping with keys of evaluation, got {entry!r}")
        for key in entry:
            if key not in (*keys, KEPT_STEPS, PRODUCT):
                raise ValueError(f"{place}.{key}: unknown key; accepted: {accepted}")
        settings = dict(entry)
        axes = settings.pop(PRODUCT, {})
        if not isinstance(axes, dict) or (PRODUCT in entry and not axes):
            raise ValueError(f"{place}.{PRODUCT}: expected a mapping of keys to lists, got {axes!r}")
        for key, values in axes.items():
            if key not in keys:
                raise ValueError(f"{place}.{PRODUCT}.{key}: unknown key; accepted: {', '.join(keys)}")
            if key in settings:
                raise ValueError(f"{place}.{PRODUCT}.{key}: given beside {PRODUCT}, too; accepted: one of them")
            if not isinstance(values, list) or not values:
                raise ValueError(f"{place}.{PRODUCT}.{key}: expected a list of values, got {values!r}")
        number += prod(map(len, axes.values()))
        if number > MOST:
            raise ValueError(f"{number} scores of a step; accepted: at most {MOST}")
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            said = f" (of its product: {', '.join(f'{k} {v}' for k, v in chosen.items())})" if chosen else ""
            yield place, said, settings | chosen


def _steps(given: Any, kept: list[int], place: str) -> dict[str, Any]:
    """`kept_steps` in one of its spellings: left out where it is all of them, `last`, or a list in order."""
    if given is None:
        return {}
    if given == LAST:
        steps = kept[-1:]
    elif isinstance(given, (list, tuple)) and given:
        steps = list(given)
    else:
        raise ValueError(f"{place}.{KEPT_STEPS}: {given!r}; accepted: {LAST}, or a list of kept steps")
    for step in steps:
        if type(step) is not int or step not in kept:
            raise ValueError(f"{place}.{KEPT_STEPS}: {step!r} is not kept; accepted: {', '.join(map(str, kept))}")
    steps = sorted(set(steps))
    if steps == kept:
        return {}
    return {KEPT_STEPS: LAST if steps == kept[-1:] else steps}
