"""Contenders in one process, in turns: in each round every one does everything once, in an order that moves on by one.

The first round is dropped: it warms up memory, the page cache and compiled modules.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from bench.perf.document import Products, as_document

T = TypeVar("T")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Measure:
    """One thing that is done by all contenders.

    Attributes:
        what: is done, of which size: measures of the same name are compared.
        turn: seconds of each contender, given the number of the round.
        items, unit: of what a call does so many, 0 where only the time matters.
        targets: of contenders, as rows have them (`bench.perf.document`).
        facts: of contenders, what else their rows say.
    """

    what: str
    turn: Callable[[int], Mapping[str, float]]
    items: int = 0
    unit: str = ""
    targets: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def timed(ways: Mapping[str, Callable[[], object]]) -> Callable[[int], dict[str, float]]:
    """`Measure.turn` of functions, one a contender."""

    def turn(number: int) -> dict[str, float]:
        seconds = {}
        for name in rotated([*ways], number):
            started = time.perf_counter()
            ways[name]()
            seconds[name] = time.perf_counter() - started
        return {name: seconds[name] for name in ways}

    return turn


def measured(
    kind: str,
    measures: Sequence[Measure],
    rounds: int,
    told: Callable[[str], object],
    device: torch.device = CPU,
) -> dict[str, Any]:
    """The document of so many rounds; before each, the machine's matrix products are measured. `told` hears of all."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    products = Products(device)
    for number in range(rounds + 1):
        if number:
            products.measure()
        for place, measure in enumerate(measures):
            seconds = measure.turn(number + place)
            if not number:
                told(f"warm-up: {measure.what}")
                rows |= {(measure.what, name): row(measure, name) for name in seconds}
                continue
            for name, value in seconds.items():
                rows[measure.what, name]["seconds"].append([value])
            took = ", ".join(f"{name} {value:.4g} s" for name, value in seconds.items())
            told(f"round {number} of {rounds}: {measure.what}: {took}")
    return as_document(kind, [*rows.values()], products)


def row(measure: Measure, contender: str) -> dict[str, Any]:
    """A contender's, with no seconds yet."""
    found = {"what": measure.what, "contender": contender, "items": measure.items, "unit": measure.unit}
    if contender in measure.targets:
        found["target"] = measure.targets[contender]
    return {**found, **measure.facts.get(contender, {}), "seconds": []}


def rotated(names: Sequence[T], by: int) -> list[T]:
    """In the same order from another one on."""
    by %= len(names)
    return [*names[by:], *names[:by]]
