"""`ditbench fit`: a scaling law of published or collected scores, with intervals and a held-out test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.commands.options import (
    DataArgument,
    FormatOption,
    JsonOption,
    LevelOption,
    MetricOption,
    OldDataOption,
    SeedOption,
    StepOption,
    VerboseOption,
    one_of,
    print_answer,
    print_columns,
    print_lines,
    print_result,
)
from analysis.errors import ResultsError
from analysis.laws.choices import Intervals, Objective
from analysis.laws.compute import Convention
from analysis.results.named import results_folder

if TYPE_CHECKING:
    from analysis.laws.report import FitReport


FormChoice = Literal[
    "all", "power", "power-floor", "tokens", "tokens-floor", "by-patch", "chinchilla", "product", "sum"
]
OF_TRAINING = ("chinchilla", "product", "sum")
"""Forms with a term for what was seen in training: they need every scored step."""


def fit(
    data: DataArgument = None,
    source: OldDataOption = None,
    form: Annotated[
        FormChoice,
        typer.Option(
            help="The law; all: each of one step that the data allow, compared. The last three take all steps."
        ),
    ] = "all",
    objective: Annotated[Objective, typer.Option(help="What is minimised.")] = "logs",
    metric: MetricOption = "fid",
    step: StepOption = None,
    patch: Annotated[
        str | None, typer.Option(help="Keep one patch size, 2 or, of clips, 1x2x2; chinchilla needs it.")
    ] = None,
    compute: Annotated[Convention, typer.Option(help="How C is counted.")] = "forward",
    held_out: Annotated[
        Literal["largest"] | None,
        typer.Option(
            help="Predict the largest model from the others by every law and by that of its patch size; default: by "
            "the best law alone."
        ),
    ] = None,
    intervals: Annotated[
        Intervals | None,
        typer.Option(
            help="How they are made; default: profile where each model has one score, bootstrap where it has several.",
        ),
    ] = None,
    level: LevelOption = 0.9,
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
    format: FormatOption = "table",
    out: JsonOption = None,
) -> None:
    """Fit a scaling law, and predict the largest model from the others: the answer in three lines, then the laws."""
    from analysis.laws.observed import collected_observations, published_observations
    from analysis.laws.report import COMPARED_FORMS, fit_report

    folder = results_folder(one_of(data, source))
    needs_steps = form in OF_TRAINING
    if folder is None:
        if step not in (None, 400_000) or patch is not None:
            raise ResultsError("published: Table 4 is fitted at step 400,000, with all patch sizes")
        rows = published_observations(metric, compute, needs_steps)
        name = "DiT paper, Table 4" if needs_steps else "DiT paper, Table 4, 400K steps"
    else:
        from analysis.results.tables import load

        rows = collected_observations(load(folder), metric, step, compute, needs_steps, patch)
        name = f"{folder}, {rows.names[0].rpartition(' step ')[2]} steps" if not needs_steps else f"{folder}"
    if form == "chinchilla" and len(set(rows.patches)) > 1:
        raise ResultsError("--form chinchilla has no term for tokens; needed: one patch size, --patch N")
    forms = COMPARED_FORMS if form == "all" else (form,)
    report = fit_report(
        rows,
        name,
        forms,
        objective,
        intervals,
        level,
        seed,
        held_out is not None,
        by_patch=form == "all",
    )
    print_result(report.to_dict(), format, out, lambda: _print(report, verbose))


def _print(report: FitReport, verbose: bool) -> None:
    from analysis.laws.report import PREDICTION_HEADINGS, TABLE_HEADINGS
    from analysis.laws.solver import OBJECTIVES

    rows, fits = report.rows, report.comparison.fits
    used = {name for law in fits for name in law.form.variables}
    letters = {
        "compute": f"C: {rows.compute.definition}",
        "tokens": "T: image tokens",
        "params": "N: parameters",
        "images": "D: images seen in training",
    }
    print_answer(report.headline())
    print_lines([f"{report.source}: {rows.metric}, {len(rows)} scores of {len(set(rows.models))} models."])
    print_lines(["; ".join(said for name, said in letters.items() if name in used) + "."])
    typer.echo()
    print_columns(PREDICTION_HEADINGS, report.predictions())
    typer.echo()
    if not verbose:
        left_out = f", and the {len(rows.left_out)} scores that were left out" if rows.left_out else ""
        print_lines([report.how(), f"--verbose has all parameters with their intervals, each fit's checks{left_out}."])
        return
    print_columns(TABLE_HEADINGS, report.table())
    typer.echo()
    print_lines([*report.findings(), f"Loss: {OBJECTIVES[fits[0].objective]}."])
    print_lines([f"Left out: {'; '.join(rows.left_out) or 'none'}."])
