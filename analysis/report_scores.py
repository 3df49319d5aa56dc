"""A report's scores: of each model, published beside measured, and of every run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis import report_page
from analysis.errors import ResultsError
from analysis.export_tables import GMACS, protocol, published, summary
from analysis.published_scores import compared, near_misses
from analysis.report_tables import plain_table, table_or_reason
from analysis.runs import EVALUATION_KEY_TYPES
from analysis.table_formats import Column, Table
from analysis.tables import Tables

LEVEL = 0.9
# What the rows of `export_tables.published` differ in.
ONE_ROW = ["label", "block", "data", "step", "metric", "published", *EVALUATION_KEY_TYPES, "source"]


def scores(tables: Tables) -> str:
    """The scores as HTML."""
    if tables.evals.empty and tables.other_evals.empty:
        return report_page.paragraph("There is no score yet.")
    body = "" if tables.evals.empty else table_or_reason(summary, tables)
    body += _published(tables)
    if not tables.evals.empty:
        conventions = f"{GMACS} {protocol(tables)}"
        every = plain_table("evals", "Every score", conventions, _readable(tables.evals))
        body += report_page.folded("Every score of every run", report_page.table(every))
    if not tables.other_evals.empty:
        caption = "Scores of samples that were made with other settings than the recipe's"
        shown = plain_table("other-evals", caption, f"Not to be compared with the others. {GMACS}", tables.other_evals)
        body += report_page.table(shown)
    return body


def published_with_intervals(tables: Tables) -> Table:
    """`export_tables.published` with an interval of the difference where a model has several seeds.

    Further data columns: difference_90_low and difference_90_high, Student's t interval of the seeds' mean difference
    from the published score; the published score is taken as exact.

    Raises:
        ResultsError: no score has a published one; the message says in what the nearest differs.
    """
    from scipy.stats import t as student

    table = published(tables)
    groups: Any = compared(tables).groupby(ONE_ROW, sort=False, dropna=False)["difference"]
    spread = groups.agg(std="std", seeds="size").reset_index()
    data = table.data.merge(spread, on=ONE_ROW, how="left", validate="one_to_one")
    several = data["seeds"].where(data["seeds"] > 1)
    half = student.ppf((1 + LEVEL) / 2, several - 1) * data["std"] / np.sqrt(several)
    data = data.assign(difference_90_low=data["difference"] - half, difference_90_high=data["difference"] + half)
    data["interval"] = [
        None if np.isnan(low) else f"{low:+,.2f} to {high:+,.2f}".replace("-", "−")
        for low, high in zip(data["difference_90_low"], data["difference_90_high"], strict=True)
    ]
    after = [column.name for column in table.columns].index("difference") + 1
    interval = Column("interval", "Its 90 % interval", is_number=False)
    columns = (*table.columns[:after], interval, *table.columns[after:])
    note = (
        f"{table.conventions} Interval: Student's t of the mean over the seeds, where there are several; it says "
        "nothing of the published score's own scatter."
    )
    return replace(table, columns=columns, conventions=note, data=data.drop(columns=["std", "seeds"]))


def _published(tables: Tables) -> str:
    body = report_page.heading("Published and measured")
    try:
        body += report_page.table(published_with_intervals(tables))
    except ResultsError as error:
        body += report_page.paragraph(f"Not set beside published scores: {error}.")
    missed = near_misses(tables)
    if not missed.empty:
        columns = ["label", "seed", "step", "condition", "ours", "published", "source"]
        caption = "Scores of published models that are not compared, and the conditions in which they differ"
        shown = plain_table("near-misses", caption, "Of the nearest published row.", missed.loc[:, columns])
        body += report_page.folded("What was not compared, and why", report_page.table(shown))
    return body


def _readable(evals: pd.DataFrame) -> pd.DataFrame:
    """The scores without their key, which is one for all, and without paths."""
    return evals.drop(columns=[*EVALUATION_KEY_TYPES, "samples", "size", "patch"])
