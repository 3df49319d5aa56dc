"""At which learning rate to train a network of some width, from runs of widths at several rates, with its doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.advice.transfer import LEVEL, MIN_RATES, OfWidth, Transfer, interval, transfers
from analysis.drawing.picture import NothingToDraw
from analysis.errors import ResultsError
from analysis.laws.intervals import Interval, check_level
from analysis.results.tables import Tables

REACH = 4  # times the widest that was run, or a fourth of the narrowest: farther, no line has been seen to hold
HEADINGS = ["design", "rate", "interval", "by", "drift", "transferred costs"]


@dataclass(frozen=True)
class Rate:
    """The learning rate of one design at a width.

    Attributes:
        transfer: what is known of the design.
        width: asked for.
        rate: with its interval; NaN ends of one seed.
        drift: exponent of the width that the best rate follows.
        beyond: width / the widest that was run, or / the narrowest; 1 between the two.
        measured: the runs of this width, if there are any: then the rate is theirs, else it is on the line through all.
        doubt: what else makes it uncertain, a sentence each.
    """

    transfer: Transfer
    width: int
    rate: Interval
    drift: Interval
    beyond: float
    measured: OfWidth | None
    doubt: tuple[str, ...]

    @property
    def within_reach(self) -> bool:
        """Whether the width is at most `REACH` times outside of those that were run."""
        return 1 / REACH <= self.beyond <= REACH

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not known is null."""
        return {
            "design": self.transfer.design,
            "width": self.width,
            "learning_rate": _known(self.rate),
            "drift": _known(self.drift),
            "widths": [one.width for one in self.transfer.widths],
            "beyond": self.beyond,
            "within_reach": self.within_reach,
            "measured": self.measured is not None,
            "transferred": self.transfer.transferred,
            "doubt": list(self.doubt),
        }


def advise_rates(tables: Tables, width: int, level: float = LEVEL, seed: int = 0) -> list[Rate]:
    """The learning rate of every design of a study of widths and rates, the most certain first.

    Raises:
        ResultsError: the runs are no such study (`transfers`), or a width that is not positive.
    """
    check_level(level)
    if width < 1:
        raise ResultsError(f"width {width}; accepted: a positive hidden size")
    try:
        found = transfers(tables, seed)
    except NothingToDraw as error:
        raise ResultsError(
            f"no advice on a learning rate: {error}, such as those of `ditbench sweep plan mup`"
        ) from None
    rates = [_rate(design, width, level) for design in found]
    return sorted(rates, key=lambda rate: (not rate.within_reach, _width_of(rate)))


def _rate(design: Transfer, width: int, level: float) -> Rate:
    widths = [one.width for one in design.widths]
    measured = next((one for one in design.widths if one.width == width), None)
    estimate, draws = (measured.optimum, measured.draws) if measured else design.predicted(width)
    logs = interval(estimate, draws, level)
    estimate, low, high = (float(np.exp(each)) for each in (logs.estimate, logs.low, logs.high))
    rate = Interval(estimate, low, high, level)
    beyond = width / max(widths) if width > max(widths) else width / min(widths) if width < min(widths) else 1.0
    doubt = []
    used = [measured] if measured else design.widths
    if not len(draws):
        doubt.append("one seed: there is no interval")
    ends = [str(one.width) for one in used if one.at_end]
    if ends:
        doubt.append(f"at width {', '.join(ends)} the lowest loss is at an end of the rates: the best may lie beyond")
    if beyond != 1:
        doubt.append(f"the width is {beyond:.3g} times that of any run: the line of {len(widths)} widths is extended")
    return Rate(design, width, rate, interval(design.drift, design.drift_draws, level), beyond, measured, tuple(doubt))


def headline(rates: Sequence[Rate]) -> list[str]:
    """The answer, a line for each design within reach."""
    near = [rate for rate in rates if rate.within_reach]
    if not near:
        widths = sorted({one.width for rate in rates for one in rate.transfer.widths})
        return [
            f"No advice for width {rates[0].width}: these results are of widths {widths[0]} to {widths[-1]}, and it is "
            f"more than {REACH} times outside of them."
        ]
    return [
        f"Train {rate.transfer.design} of width {rate.width} at {rate.rate.estimate:.2g}{_interval_said(rate.rate)}."
        for rate in near
    ]


def table(rates: Sequence[Rate]) -> list[list[str]]:
    """Rows of text under `HEADINGS`."""
    rows = []
    for rate in rates:
        over = [one for one in rate.transfer.widths if np.isfinite(one.excess)]
        worst = max(over, key=lambda one: one.excess)
        rows.append(
            [
                rate.transfer.design,
                f"{rate.rate.estimate:.2g}",
                "none" if np.isnan(rate.rate.low) else f"{rate.rate.low:.2g} to {rate.rate.high:.2g}",
                "its own runs" if rate.measured else f"line of {len(rate.transfer.widths)} widths",
                f"width^{rate.drift.estimate:.2f}",
                f"{100 * worst.excess:.1f} % at width {worst.width}",
            ]
        )
    return rows


def notes(rates: Sequence[Rate]) -> list[str]:
    """What makes each rate uncertain, a line each, and what the columns mean."""
    said = [f"{rate.transfer.design}: {'; '.join(rate.doubt)}." for rate in rates if rate.doubt]
    return [
        *said,
        "drift: the power of the width that the best rate follows. transferred costs: how much higher the loss is at "
        "the best rate of the narrowest width than at a width's own, where that is most.",
    ]


def said_of_rates(tables: Tables) -> str:
    """What runs say of the rate beside an advice on a budget: which they had, and that no other was tried."""
    known = sorted(set(tables.runs["learning_rate"].dropna().astype(float)))
    if not known:
        return "Learning rate: these results do not say at which they were trained."
    if len(known) == 1:
        return (
            f"Learning rate: {known[0]:g}, that of all runs. No other was tried, so these results cannot say if it "
            f"is the best, nor at which width; runs of two widths at {MIN_RATES} rates each can (--width)."
        )
    return (
        f"Learning rate: the runs have {', '.join(f'{rate:g}' for rate in known)}; --width says which of them is best."
    )


def _interval_said(rate: Interval) -> str:
    return "" if np.isnan(rate.low) else f" ({rate.level:.0%}: {rate.low:.2g} to {rate.high:.2g})"


def _width_of(rate: Rate) -> float:
    """Of the interval, in logarithms."""
    return float("inf") if np.isnan(rate.rate.low) else float(np.log(rate.rate.high / rate.rate.low))


def _known(value: Interval) -> dict[str, float | None]:
    return {name: None if np.isnan(number) else number for name, number in value.to_dict().items()}
