"""A study as one page: what was measured and how, its figures and tables, the recipe, the costs, what failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from analysis.errors import ResultsError
from analysis.report import runs
from analysis.report.answer import answer
from analysis.report.figures import pictures
from analysis.report.laws import fitted, laws
from analysis.report.page import Section, page
from analysis.report.samples import strips
from analysis.report.scores import beside_published, lead, protocol, scores
from analysis.report.study import Study
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
    study = Study.of(visible_names(tables))
    law, why_none = None, ""
    try:
        law = fitted(study)
    except ResultsError as error:
        why_none = f"No law was fitted: {error}."
    found = answer(study, law)
    shown, undrawn = pictures(study, law)
    sections = [
        Section("answer", "The answer", {"facts": found.facts, "notes": found.notes, "charts": shown.first}),
        Section("scores", "Models", scores(study)),
        Section("laws", "Scaling laws", laws(study, law, why_none) | {"charts": shown.of_laws}),
        Section("samples", "Samples", dict(zip(("strips", "said"), strips(study), strict=True))),
        Section("figures", "More pictures", {"charts": shown.more, "drawn": shown.drawn}),
        Section("published", "Published scores", beside_published(study)),
        Section("study", "Protocol", protocol(study.tables)),
        Section("recipe", "Recipe", runs.recipe(study.tables, histories)),
        Section("environment", "Runs and machines", runs.environment(study.tables, histories)),
        Section("cost", "Time", runs.cost(study.tables, histories, planned)),
        Section("failures", "Failures and gaps", runs.failures(study.tables, histories, undrawn)),
    ]
    title = f"{names(study.tables.runs['sweep'])}: a scaling study of Diffusion Transformers"
    return page(title, found.headline, lead(study.tables), sections)
