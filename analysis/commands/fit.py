"""`ditbench fit`: a scaling law of published or collected scores, with intervals and a held-out test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from analysis.commands.options import (
    FormatOption,
    JsonOption,
    LevelOption,
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
from analysis.errors import ResultsError, about
from analysis.laws.choices import COLUMN_OPTIONS, Intervals, Objective
from analysis.laws.compute import Convention
from analysis.results.named import ACCEPTED, csv_file, results_folder

if TYPE_CHECKING:
    from analysis.laws.observations import Observations
    from analysis.laws.report import FitReport


FormChoice = Literal[
    "all", "power", "power-floor", "tokens", "tokens-floor", "by-patch", "chinchilla", "product", "sum"
]
OF_TRAINING = ("chinchilla", "product", "sum")
"""Forms with a term for what was seen in training: they need every scored step."""


def _column(what: str, *names: str) -> Any:
    """An option that names the column of a CSV that is `what`."""
    return typer.Option(*names, metavar="COLUMN", show_default=False, help=f"Of a CSV: the column of {what}.")


def fit(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", show_default=False, help=f"What to read: {ACCEPTED}; or a CSV, with --y."),
    ] = None,
    source: OldDataOption = None,
    form: Annotated[
        FormChoice,
        typer.Option(
            help="The law; all: each of one step that the data allow, compared. The last three take all steps."
        ),
    ] = "all",
    objective: Annotated[Objective, typer.Option(help="What is minimised.")] = "logs",
    metric: Annotated[
        str | None, typer.Option(help="fid, fid_percent, fid_infinity, sfid, kid or loss.", show_default="fid")
    ] = None,
    step: StepOption = None,
    patch: Annotated[
        str | None, typer.Option(help="Keep one patch size, 2 or, of clips, 1x2x2; chinchilla needs it.")
    ] = None,
    compute: Annotated[Convention | None, typer.Option(help="How C is counted.", show_default="forward")] = None,
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
    y: Annotated[str | None, _column("the score: lower is better")] = None,
    x: Annotated[str | None, _column("C in the laws, or any x of y(x)")] = None,
    params: Annotated[str | None, _column("N, parameters")] = None,
    data_column: Annotated[str | None, _column("D, what was seen in training", "--data")] = None,
    tokens: Annotated[str | None, _column("T, tokens an image")] = None,
    models: Annotated[
        str | None, _column("the model, whose rows are drawn, and left out, together; default: a row is one")
    ] = None,
    seeds: Annotated[str | None, _column("the training seed")] = None,
    patches: Annotated[str | None, _column("the patch size")] = None,
    without_highest: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Of a CSV: leave out so many rows of the highest y.")
    ] = None,
    verbose: VerboseOption = False,
    format: FormatOption = "table",
    out: JsonOption = None,
) -> None:
    """Fit a scaling law, and predict the largest model from the others: the answer in three lines, then the laws."""
    from analysis.laws.intervals import check_level
    from analysis.laws.report import COMPARED_FORMS, fit_report

    check_level(level)
    named = (y, x, params, data_column, tokens, models, seeds, patches)
    columns = {what: name for what, name in zip(COLUMN_OPTIONS, named, strict=True) if name is not None}
    path = csv_file(one_of(data, source), bool(columns))
    by_patch = form == "all"
    if path is not None:
        for option, value in (("--metric", metric), ("--step", step), ("--compute", compute)):
            if value is not None:
                raise ResultsError(f"{option} is of results; a CSV's columns are named: --y, --x and others")
        rows, forms = _of_csv(path, columns, form, without_highest, patch)
        name, by_patch = str(path), by_patch and bool(rows.patches) and "compute" in rows.variables
    else:
        if columns or without_highest is not None:
            option = COLUMN_OPTIONS[next(iter(columns))] if columns else "--without-highest"
            raise ResultsError(f"{option} is of a CSV, and {data or source} is none")
        rows, name = _of_results(one_of(data, source), form, metric or "fid", step, patch, compute or "forward")
        forms = COMPARED_FORMS if form == "all" else (form,)
    if "chinchilla" in forms and len(set(rows.patches)) > 1:
        raise ResultsError("--form chinchilla has no term for tokens; needed: one patch size, --patch N")
    with about(name):
        report = fit_report(rows, name, forms, objective, intervals, level, seed, held_out is not None, by_patch)
    print_result(report.to_dict(), format, out, lambda: _print(report, verbose))


def _of_csv(
    path: Path, columns: dict[str, str], form: FormChoice, without_highest: int | None, patch: str | None
) -> tuple[Observations, tuple[str, ...]]:
    """The rows, and the laws that their columns allow."""
    from analysis.laws.points import csv_observations, forms_of

    if patch is not None and "patches" not in columns:
        raise ResultsError("--patch N of a CSV needs --patches COLUMN")
    forms = forms_of(path, columns, form, [name for name in get_args(FormChoice) if name not in ("all", "by-patch")])
    return csv_observations(path, columns, without_highest or 0, patch), forms


def _of_results(
    data: str, form: FormChoice, metric: str, step: int | None, patch: str | None, compute: Convention
) -> tuple[Observations, str]:
    """The rows of the papers' tables or of a results folder, and what to call them."""
    from analysis.laws.observed import collected_observations, published_observations

    folder = results_folder(data)
    needs_steps = form in OF_TRAINING
    if folder is None:
        if step not in (None, 400_000) or patch is not None:
            raise ResultsError("published: Table 4 is fitted at step 400,000, with all patch sizes")
        rows = published_observations(metric, compute, needs_steps)
        return rows, "DiT paper, Table 4" if needs_steps else "DiT paper, Table 4, 400K steps"
    from analysis.results.tables import load

    with about(folder):
        rows = collected_observations(load(folder), metric, step, compute, needs_steps, patch)
    return rows, f"{folder}" if needs_steps else f"{folder}, {rows.names[0].rpartition(' step ')[2]} steps"


def _print(report: FitReport, verbose: bool) -> None:
    from analysis.laws.report import PARAMETER_HEADINGS, PREDICTION_HEADINGS, TABLE_HEADINGS
    from analysis.laws.solver import OBJECTIVES

    rows, fits = report.rows, report.comparison.fits
    used = {name for law in fits for name in law.form.variables}
    letters = {
        "compute": ("C", rows.compute.definition),
        "tokens": ("T", "image tokens"),
        "params": ("N", "parameters"),
        "images": ("D", "images seen in training"),
    }
    said = {name: f"column {column}" for name, column in rows.columns.items()}
    print_answer(report.headline())
    print_lines([f"{report.source}: {report.scores()}"])
    print_lines(
        ["; ".join(f"{c}: {said.get(name, what)}" for name, (c, what) in letters.items() if name in used) + "."]
    )
    if problems := fits[0].problems:
        print_lines([f"{fits[0].form.formula}: {'; '.join(problems)}."])
    typer.echo()
    print_columns([rows.counted if name == "models" else name for name in PREDICTION_HEADINGS], report.predictions())
    typer.echo()
    if not verbose:
        left_out = f", and the {len(rows.left_out)} scores that were left out" if rows.left_out else ""
        print_lines([report.how(), f"--verbose has all parameters with their intervals, each fit's checks{left_out}."])
        return
    print_columns(TABLE_HEADINGS, report.table())
    typer.echo()
    if parameters := report.parameters():
        print_columns(PARAMETER_HEADINGS, parameters)
        typer.echo()
    print_lines([*report.findings(), f"Loss: {OBJECTIVES[fits[0].objective]}; least: {fits[0].loss:.8g}."])
    print_lines([f"Left out: {'; '.join(rows.left_out) or 'none'}."])
