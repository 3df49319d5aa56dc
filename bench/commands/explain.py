"""Which way of counting gives a number that somebody printed: `ditbench flops MODEL --explain NUMBER`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from decimal import Decimal
from itertools import chain, combinations
from typing import Any, Literal

from bench.commands import flops as tables
from bench.commands.variants import Variant
from bench.counting.conventions import (
    ACTIVATIONS,
    ARITHMETIC,
    CONVENTIONS,
    FINAL,
    FVCORE,
    KINDS,
    LINEAR_ONLY,
    MATMUL,
    MULTIPLIED,
    PAPER,
    WEIGHTED,
    Convention,
    Tally,
    norm_kinds,
)
from bench.errors import InputError
from bench.flops import counted
from models.registry import caption_shape_of

# Tokens of a caption: CLIP's; T5's in PixArt-alpha, Open-Sora 1.1, and PixArt-Sigma.
TEXT_TOKENS = (77, 120, 200, 300)
# Parts that somebody may have left out (`bench.commands.flops.PARTS`).
LEFT_OUT = ("embedders", "conditioning", "cross-attention", "final layer")
MOST_DEPARTURES = 2
MOST_ANSWERS = 8
MOST_TIMES = 5  # of a part that is missing or counted too often
CLOSE = 0.05

# Part of a network -> the kinds of operators that it is.
_NORMS = norm_kinds()
OPERATIONS: dict[str, tuple[str, ...]] = {
    "linear maps": WEIGHTED[:2],
    "convolutions": WEIGHTED[2:],
    "products of fused attention": ("attention",),
    "products that are written out": MULTIPLIED,
    "elements of norms": tuple(kind for kind in _NORMS if not kind.endswith(FINAL)),
    "elements of the final layer's norm": tuple(kind for kind in _NORMS if kind.endswith(FINAL)),
    "elements of softmax": ("softmax",),
    "elements of activations": ACTIVATIONS,
    "elements of sums, products and the like": ARITHMETIC,
}


@dataclass(frozen=True)
class Printed:
    """A number as it was printed, in 1e9."""

    text: str

    def __post_init__(self) -> None:
        is_number = re.fullmatch(r"\d{1,9}(\.\d{1,9})?", self.text, re.ASCII)
        if not is_number or not float(self.text):
            raise InputError(
                f"--explain {self.text}: accepted: a number above 0 as it is printed, in 1e9 and without a unit, such "
                "as 28.8 or 118.64"
            )

    @property
    def value(self) -> int:
        return int(Decimal(self.text).scaleb(9))

    @property
    def digit(self) -> int:
        """What the last digit counts."""
        return int(Decimal(1).scaleb(9 - len(self.text.partition(".")[2])))

    def reading(self, count: int) -> Literal["rounded", "cut"] | None:
        """How a count comes to be printed so; None: it does not."""
        if 2 * abs(count - self.value) <= self.digit:
            return "rounded"
        return "cut" if self.value <= count < self.value + self.digit else None


@dataclass(frozen=True)
class Answer:
    """A count, and how it differs from a convention's."""

    convention: Convention
    departures: tuple[str, ...]
    count: int

    @property
    def explained_by(self) -> str:
        return ", ".join([self.convention.name, *self.departures])


@dataclass(frozen=True)
class Change:
    """What somebody may have counted otherwise: at most one of a sort at a time."""

    sort: str
    text: str
    difference: int


def explain(variant: Variant, printed: Printed) -> list[dict[str, Any]]:
    """Rows: what gives the number with the fewest departures from a convention, or else what comes closest to it.

    Raises:
        InputError: the network cannot be counted operator by operator.
    """
    kinds = variant.tally()[""]
    every = list(_distinct(_answers(variant, (), variant.tally())))
    if not any(printed.reading(answer.count) and not answer.departures for answer in every):
        every = list(_distinct(chain(every, _with_other_captions(variant))))
    found = [answer for answer in every if printed.reading(answer.count)]
    if found:
        fewest = min(len(answer.departures) for answer in found)
        found = [answer for answer in found if len(answer.departures) == fewest]
        found.sort(key=lambda answer: printed.reading(answer.count) == "cut")
    else:
        found = _closest(variant, printed)
    return [
        {
            "model": variant.name,
            "printed": printed.text,
            "explained_by": answer.explained_by,
            "count": tables.rounded(answer.count / 1e9),
            "as_printed": printed.reading(answer.count) or "no",
            "difference": round((answer.count - printed.value) / 1e9, 9),
            "about": "" if printed.reading(answer.count) else _about(answer.count - printed.value, kinds),
        }
        for answer in found[:MOST_ANSWERS]
    ]


def print_explained(variants: Sequence[Variant], printed: Printed, format: str) -> None:
    """As `table`, `csv` or `json`.

    Raises:
        InputError: there is not one model; errors as `explain`.
    """
    if len(variants) != 1:
        raise InputError(f"--explain {printed.text}: a number printed of one model; {len(variants)} are named")
    (variant,) = variants
    rows = explain(variant, printed)
    if format != "table":
        tables.print_data(rows, format)
        return
    shown = ("explained_by", "count", "as_printed", "difference", "about")
    tables.print_columns([{key: row[key] for key in shown if any(each[key] for each in rows)} for row in rows])
    if rows[0]["as_printed"] == "no":
        print(f"\nNo way of counting that is known here gives {printed.text} for {variant.name}; these come closest.")
        print("What the network computes, each part once, in 1e9:\n")
        tables.print_columns(operation_rows(variant))
    print()
    for name in dict.fromkeys(row["explained_by"].partition(",")[0] for row in rows):
        print(f"{name}: {CONVENTIONS[name].text}.")


def operation_rows(variant: Variant) -> list[dict[str, Any]]:
    """What the network computes, each part once, in 1e9."""
    return [{"part": part, "amount": amount / 1e9} for part, amount in _operations(variant.tally()[""]).items()]


def _closest(variant: Variant, printed: Printed) -> list[Answer]:
    """Every convention, once, twice or four times, whichever is closest."""
    kinds = variant.tally()[""]

    def off(answer: Answer) -> int:
        return abs(answer.count - printed.value)

    closest = [
        min((Answer(convention, why, times * base) for times, why in _times(convention).items()), key=off)
        for convention, base in _counts(variant, kinds)
    ]
    return sorted(closest, key=off)


def _counts(variant: Variant, kinds: Mapping[str, int]) -> Iterator[tuple[Convention, int]]:
    """By every convention that is defined for it."""
    for convention in CONVENTIONS.values():
        with suppress(InputError):
            yield convention, convention.of(kinds, variant.name)


def _distinct(answers: Iterable[Answer]) -> Iterator[Answer]:
    """One answer for a count: that with the fewest departures, of the first convention."""
    best: dict[int, Answer] = {}
    for answer in answers:
        known = best.get(answer.count)
        if known is None or len(answer.departures) < len(known.departures):
            best[answer.count] = answer
    yield from best.values()


def _with_other_captions(variant: Variant) -> Iterator[Answer]:
    """Of a network that is told captions, with such of other lengths."""
    shape = caption_shape_of(variant.arch)
    if shape is None or not is_dataclass(variant.arch) or not hasattr(variant.arch, "caption_tokens"):
        return
    for tokens in TEXT_TOKENS:
        if tokens != shape[0]:
            arch = replace(variant.arch, caption_tokens=tokens)  # pyright: ignore[reportArgumentType]
            with suppress(InputError):  # a network of one's own may take no such captions
                yield from _answers(variant, (f"{tokens} text tokens",), counted(variant.name, arch).tally)


def _answers(variant: Variant, told: tuple[str, ...], tally: Tally) -> Iterator[Answer]:
    """`told`: in what the network differs already."""
    for convention, base in _counts(variant, tally[""]):
        changes = _changes(convention, tally)
        for number in range(MOST_DEPARTURES + 1):
            for chosen in combinations(changes, number):
                if len({change.sort for change in chosen}) < number:
                    continue
                texts = (*told, *(change.text for change in chosen))
                count = base + sum(change.difference for change in chosen)
                for times, why in _times(convention).items():
                    if len(texts) + len(why) <= MOST_DEPARTURES and count > 0:
                        yield Answer(convention, (*texts, *why), times * count)


def _changes(convention: Convention, tally: Tally) -> list[Change]:
    if convention.in_flops:
        return []
    amounts = _operations(tally[""])
    attention, softmax = amounts.get("products of fused attention", 0), amounts.get("elements of softmax", 0)
    norms = sum(amount for part, amount in amounts.items() if part.endswith(("norms", "norm")))
    changes = [
        Change("softmax", f"softmax counted {_times_an_element(times)}", times * softmax) for times in (1, 5)
    ] + [Change("activations", "activations counted once an element", amounts.get("elements of activations", 0))]
    if convention in (LINEAR_ONLY, MATMUL):
        changes += [
            Change("norms", f"all norms counted {_times_an_element(times)}", times * norms) for times in (1, 2, 4, 5)
        ]
    if convention is FVCORE:
        changes.append(Change("attention", "fused attention counted too", attention))
    if convention in (PAPER, MATMUL):
        changes.append(Change("attention", "fused attention left out", -attention))
    parts = tables.parts_of(convention.by_module(tally))
    changes += [Change("part", f"without the {part}", -parts.get(part, 0)) for part in LEFT_OUT]
    return [change for change in changes if change.difference]


def _times_an_element(times: int) -> str:
    return f"{'once' if times == 1 else 'twice' if times == 2 else f'{times} times'} an element"


def _times(convention: Convention) -> dict[int, tuple[str, ...]]:
    """Factor -> why."""
    guided = "a batch of 2 for guidance"
    if convention.in_flops:
        return {1: (), 2: (guided,)}
    flops = "2 FLOPs a multiply-accumulate"
    return {1: (), 2: (f"{flops} (or {guided})",), 4: (flops, guided)}


def _operations(kinds: Mapping[str, int]) -> dict[str, int]:
    """Part -> how much of it the network computes; operators of its own go by their names."""
    found: Counter[str] = Counter()
    for part, its_kinds in OPERATIONS.items():
        found[part] += sum(kinds.get(kind, 0) for kind in its_kinds)
    for kind, amount in kinds.items():
        if kind not in KINDS:
            found[kind] += amount
    return {part: amount for part, amount in found.items() if amount}


def _about(difference: int, kinds: Mapping[str, int]) -> str:
    """What a difference is close to: a few times a part of what the network computes."""
    fits = [
        (abs(times * amount - abs(difference)), times, part)
        for part, amount in _operations(kinds).items()
        for times in range(1, MOST_TIMES + 1)
    ]
    if not fits:
        return ""
    off, times, part = min(fits)
    if off > CLOSE * abs(difference):
        return ""
    return f"{'over' if difference > 0 else 'missing'}: {f'{times} x ' if times > 1 else ''}{part}"
