"""A report's scores: of each model, published beside measured, and of every run."""

from __future__ import annotations

import pandas as pd

from analysis.errors import ResultsError
from analysis.report import page
from analysis.report.tables import plain_table, table_or_reason
from analysis.results.export_tables import GMACS, protocol, published, summary
from analysis.results.published import near_misses
from analysis.results.run_folders import EVALUATION_KEY_TYPES
from analysis.results.tables import Tables


def scores(tables: Tables) -> str:
    """The scores as HTML."""
    if tables.evals.empty and tables.other_evals.empty:
        return page.paragraph("There is no score yet.")
    body = "" if tables.evals.empty else table_or_reason(summary, tables)
    body += _published(tables)
    if not tables.evals.empty:
        conventions = f"{GMACS} {protocol(tables)}"
        every = plain_table("evals", "Every score", conventions, _readable(tables.evals))
        body += page.folded("Every score of every run", page.table(every))
    if not tables.other_evals.empty:
        caption = "Scores of samples that were made with other settings than the recipe's"
        shown = plain_table("other-evals", caption, f"Not to be compared with the others. {GMACS}", tables.other_evals)
        body += page.table(shown)
    return body


def _published(tables: Tables) -> str:
    body = page.heading("Published and measured")
    try:
        body += page.table(published(tables))
    except ResultsError as error:
        body += page.paragraph(f"Not set beside published scores: {error}.")
    missed = near_misses(tables)
    if not missed.empty:
        columns = ["label", "seed", "step", "condition", "ours", "published", "source"]
        caption = "Scores of published models that are not compared, and the conditions in which they differ"
        shown = plain_table("near-misses", caption, "Of the nearest published row.", missed.loc[:, columns])
        body += page.folded("What was not compared, and why", page.table(shown))
    return body


def _readable(evals: pd.DataFrame) -> pd.DataFrame:
    """The scores without their key, which is one for all, and without paths."""
    return evals.drop(columns=[*EVALUATION_KEY_TYPES, "samples", "size", "patch"])
