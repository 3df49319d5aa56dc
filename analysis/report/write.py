"""A study as one page: what was measured and how, its figures and tables, the recipe, the costs, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from analysis.report import runs
from analysis.report.figures import figures
from analysis.report.laws import laws
from analysis.report.page import Section, page
from analysis.report.scores import lead, scores, study
from analysis.report.tables import names
from analysis.results.files import write_whole
from analysis.results.run_history import RunHistory, RunRecord, read_histories, read_plan
from analysis.results.tables import Tables, comparable, load
from analysis.results.visible import visible_names


def write_report(results: Path, out: Path, runs: Iterable[RunRecord] | None = None, plan: Path | None = None) -> Path:
    """Write the page of the collected tables in `results` to the file `out`; returns `out`.

    Args:
        runs: the run folders that the tables were collected from, for recipes, versions, device-hours and failures.
        plan: what `ditbench sweep plan --json` printed before the first start, to set beside the hours spent.

    The same tables, run folders and plan give the same bytes: the page has no dates but those in the data, and what the
    laws' intervals draw is seeded.

    Raises:
        ResultsError: tables, runs or plan that are missing, damaged or of another sweep, or scores that are not
            `comparable`.
    """
    tables = load(results)
    comparable(tables.evals)
    histories = read_histories(runs, tables) if runs else []
    planned = read_plan(plan, tables) if plan else None
    return write_whole(out, report(tables, histories, planned).encode())


def report(tables: Tables, histories: Sequence[RunHistory] = (), planned: pd.DataFrame | None = None) -> str:
    """The page as HTML; `histories` and `planned` as `run_history` reads them. Errors as `write_report`."""
    comparable(tables.evals)
    tables = visible_names(tables)
    drawn, undrawn = figures(tables)
    sections = [
        Section("study", "The study", study(tables)),
        Section("figures", "Figures", {"drawn": drawn}),
        Section("scores", "Scores", scores(tables)),
        Section("laws", "How scores follow compute", laws(tables)),
        Section("recipe", "Recipe", runs.recipe(tables, histories)),
        Section("environment", "Runs and environment", runs.environment(tables, histories)),
        Section("cost", "Time, planned and spent", runs.cost(tables, histories, planned)),
        Section("failures", "What failed, and what is missing", runs.failures(tables, histories, undrawn)),
    ]
    title = f"{names(tables.runs['sweep'])}: a scaling study of Diffusion Transformers"
    return page(title, lead(tables), sections)
