"""`ditbench fit`: a scaling law of published or collected scores, with intervals and a held-out test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.commands.options import (
    FormatOption,
    JsonOption,
    LevelOption,
    MetricOption,
    SeedOption,
    Source,
    StepOption,
    print_columns,
    print_result,
)
from analysis.errors import ResultsError
from analysis.laws.choices import Intervals, Objective
from analysis.laws.compute import Convention
from analysis.results.visible import visible

if TYPE_CHECKING:
    from analysis.laws.report import FitReport


FormChoice = Literal[
    "all", "power", "power-floor", "tokens", "tokens-floor", "by-patch", "chinchilla", "product", "sum"
]
OF_TRAINING = ("chinchilla", "product", "sum")
"""Forms with a term for what was seen in training: they need every scored step."""


def fit(
    results: Annotated[Path | None, typer.Argument(help="A folder that `ditbench collect` made.")] = None,
    source: Annotated[
        Source | None, typer.Option(help="Instead of a folder: the 12 models of the paper's Table 4.")
    ] = None,
    form: Annotated[
        FormChoice,
        typer.Option(
            help="The law; all: each of one step that the data allow, compared. The last three take all steps."
        ),
    ] = "all",
    objective: Annotated[Objective, typer.Option(help="What is minimised.")] = "logs",
    metric: MetricOption = "fid",
    step: StepOption = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Keep one patch size; chinchilla needs it.")] = None,
    compute: Annotated[Convention, typer.Option(help="How C is counted.")] = "forward",
    held_out: Annotated[Literal["largest"] | None, typer.Option(help="Also fit without it, and predict it.")] = None,
    intervals: Annotated[Intervals, typer.Option(help="How they are made.")] = "bootstrap",
    level: LevelOption = 0.9,
    seed: SeedOption = 0,
    format: FormatOption = "table",
    out: JsonOption = None,
) -> None:
    """Fit a scaling law: score against compute, tokens, or parameters and data; with intervals."""
    from analysis.laws.observed import collected_observations, published_observations
    from analysis.laws.report import COMPARED_FORMS, fit_report

    if (results is None) == (source is None):
        raise ResultsError("ditbench fit: accepted: either a folder of results or --source published")
    needs_steps = form in OF_TRAINING
    if results is None:
        if step not in (None, 400_000) or patch is not None:
            raise ResultsError("--source published: Table 4 is fitted at step 400,000, with all patch sizes")
        rows = published_observations(metric, compute, needs_steps)
        name = "DiT paper, Table 4" if needs_steps else "DiT paper, Table 4, 400K steps"
    else:
        from analysis.results.tables import load

        rows = collected_observations(load(results), metric, step, compute, needs_steps, patch)
        name = f"{results}, {rows.names[0].rpartition(' step ')[2]} steps" if not needs_steps else f"{results}"
    if form == "chinchilla" and len(set(rows.patches)) > 1:
        raise ResultsError("--form chinchilla has no term for tokens; needed: one patch size, --patch N")
    forms = {"all": COMPARED_FORMS, "by-patch": ("power",)}.get(form, (form,))
    report = fit_report(
        rows,
        name,
        forms,
        objective,
        intervals,
        level,
        seed,
        held_out is not None,
        by_patch=form in ("all", "by-patch"),
    )
    print_result(report.to_dict(), format, out, lambda: _print(report))


def _print(report: FitReport) -> None:
    from analysis.laws.report import TABLE_HEADINGS
    from analysis.laws.solver import OBJECTIVES

    first = report.comparison.fits[0]
    typer.echo(f"{report.source}: {report.rows.metric}, {len(report.rows)} rows; loss: {OBJECTIVES[first.objective]}")
    typer.echo(f"C: {report.rows.compute.definition}")
    typer.echo(f"left out: {visible('; '.join(report.rows.left_out)) or 'none'}\n")
    print_columns(TABLE_HEADINGS, report.table())
    typer.echo(f"\n{report.sentence()}")
