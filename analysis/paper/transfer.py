"""The best learning rate of every width as a table, and what the narrowest width's costs the others."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.advice.transfer import LEVEL, Transfer, interval, transfers
from analysis.paper.table_formats import Column, Table, count, fixed, significant
from analysis.results.tables import Tables

CONVENTIONS = (
    "Best rate: where a parabola through the lowest mean loss of the rates that were run and its neighbours (log loss "
    "over log rate) is lowest. Tuned: the best of the rates that were run; transferred: the one that is best for the "
    "narrowest width. Loss: mean over the last tenth of the steps, over seeds. Ranges: {level:.0%} intervals; log loss "
    "is a rate's part, a seed's part and a residual, and residuals are drawn with replacement."
)


def transfer(tables: Tables) -> Table:
    """One row for each design and width, narrowest first.

    Data columns: design, width, num_seeds, optimum (rate) with optimum_min and optimum_max (its interval), at_end (the
    lowest loss is at an end of the rates), tuned_rate, tuned_loss, transferred_rate, transferred_loss, excess_percent
    with its interval, and of the design drift (the best rate goes with width^drift), drift_min, drift_max.

    Raises:
        NothingToDraw: see `transfers`.
    """
    found = transfers(tables)
    data = pd.DataFrame([row for design in found for row in _rows(design)])
    several = len(found) > 1
    said = "; ".join(f"{design.design} {design.power}" for design in found)
    ends = data.loc[data["at_end"]]
    beyond = "".join(
        f" Of {row['design']}, width {row['width']} the lowest loss is at an end of the rates: the best may be beyond."
        for row in ends.to_dict("records")
    )
    return Table(
        "transfer",
        "The best learning rate of every width, and what that of the narrowest costs the others",
        f"{CONVENTIONS.format(level=LEVEL)} The best rate follows: {said}.{beyond}",
        (
            *((Column("design", "Design"),) if several else ()),
            Column("width", "Width", count),
            Column("num_seeds", "Seeds", count),
            Column("optimum", "Best rate", significant(2)),
            Column("tuned_rate", "Tuned rate", significant(2)),
            Column("tuned_loss", "Loss there ↓", fixed(4)),
            Column("transferred_rate", "Transferred rate", significant(2)),
            Column("transferred_loss", "Loss there ↓", fixed(4)),
            Column("excess_percent", "Above (%)", fixed(1)),
        ),
        data,
    )


def _rows(design: Transfer) -> list[dict[str, object]]:
    drift = interval(design.drift, design.drift_draws)
    rows = []
    for one in design.widths:
        best, over = interval(one.optimum, one.draws), interval(one.excess, one.excess_draws)
        rate, loss = one.tuned
        rows.append(
            {
                "design": design.design,
                "width": one.width,
                "num_seeds": one.losses.shape[1],
                "optimum": np.exp(best.estimate),
                "optimum_min": np.exp(best.low),
                "optimum_max": np.exp(best.high),
                "at_end": one.at_end,
                "tuned_rate": rate,
                "tuned_loss": loss,
                "transferred_rate": design.transferred,
                "transferred_loss": loss * (1 + one.excess),
                "excess_percent": 100 * one.excess,
                "excess_percent_min": 100 * over.low,
                "excess_percent_max": 100 * over.high,
                "drift": drift.estimate,
                "drift_min": drift.low,
                "drift_max": drift.high,
            }
        )
    return rows
