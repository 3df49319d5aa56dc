"""`ditbench fit`: a scaling law of published or collected scores, with intervals and a held-out test."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.errors import ResultsError

if TYPE_CHECKING:
    from analysis.laws.report import FitReport


class Source(StrEnum):
    PUBLISHED = "published"


class FormChoice(StrEnum):
    ALL = "all"
    POWER = "power"
    POWER_FLOOR = "power-floor"
    TOKENS = "tokens"
    TOKENS_FLOOR = "tokens-floor"
    BY_PATCH = "by-patch"
    CHINCHILLA = "chinchilla"
    PRODUCT = "product"
    SUM = "sum"


OF_TRAINING = (FormChoice.CHINCHILLA, FormChoice.PRODUCT, FormChoice.SUM)
"""Forms with a term for what was seen in training: they need every scored step."""


class ObjectiveChoice(StrEnum):
    LOGS = "logs"
    VALUES = "values"
    LOG_HUBER = "log-huber"


class HeldOutChoice(StrEnum):
    LARGEST = "largest"


class IntervalsChoice(StrEnum):
    BOOTSTRAP = "bootstrap"
    RESIDUAL = "residual"
    PROFILE = "profile"


class ComputeChoice(StrEnum):
    FORWARD = "forward"
    TRAINING = "training"
    TRAINING_FLOPS = "training-flops"
    SIX_ND = "6nd"


class ReportFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


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
    ] = FormChoice.ALL,
    objective: Annotated[ObjectiveChoice, typer.Option(help="What is minimised.")] = ObjectiveChoice.LOGS,
    metric: Annotated[str, typer.Option(help="fid, fid_percent, fid_infinity, sfid, kid or loss.")] = "fid",
    step: Annotated[int | None, typer.Option(min=1, help="Default: the last that most runs share.")] = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Keep one patch size; chinchilla needs it.")] = None,
    compute: Annotated[ComputeChoice, typer.Option(help="How C is counted.")] = ComputeChoice.FORWARD,
    held_out: Annotated[HeldOutChoice | None, typer.Option(help="Also fit without it, and predict it.")] = None,
    intervals: Annotated[IntervalsChoice, typer.Option(help="How they are made.")] = IntervalsChoice.BOOTSTRAP,
    level: Annotated[float, typer.Option(help="Confidence level.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    format: Annotated[ReportFormat, typer.Option(help="How to print.")] = ReportFormat.TABLE,
    out: Annotated[Path | None, typer.Option(help="A file for it as JSON, whatever is printed.")] = None,
) -> None:
    """Fit a scaling law: score against compute, tokens, or parameters and data; with intervals."""
    import json

    from analysis.laws.observed import collected_observations, published_observations
    from analysis.laws.report import COMPARED_FORMS, fit_report
    from analysis.results.files import write_whole

    if (results is None) == (source is None):
        raise ResultsError("ditbench fit: accepted: either a folder of results or --source published")
    needs_steps = form in OF_TRAINING
    if results is None:
        if step not in (None, 400_000) or patch is not None:
            raise ResultsError("--source published: Table 4 is fitted at step 400,000, with all patch sizes")
        rows = published_observations(metric, compute.value, needs_steps)
        name = "DiT paper, Table 4" if needs_steps else "DiT paper, Table 4, 400K steps"
    else:
        from analysis.results.tables import load

        rows = collected_observations(load(results), metric, step, compute.value, needs_steps, patch)
        name = f"{results}, {rows.names[0].partition(' step ')[2]} steps" if not needs_steps else f"{results}"
    if form == FormChoice.CHINCHILLA and len({model.rpartition("/")[2] for model in rows.models}) > 1:
        raise ResultsError("--form chinchilla has no term for tokens; needed: one patch size, --patch N")
    forms = {FormChoice.ALL: COMPARED_FORMS, FormChoice.BY_PATCH: ("power",)}.get(form, (form.value,))
    report = fit_report(
        rows,
        name,
        forms,
        objective.value,
        intervals.value,
        level,
        seed,
        held_out is not None,
        by_patch=form in (FormChoice.ALL, FormChoice.BY_PATCH),
    )
    content = json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"
    if out is not None:
        write_whole(out, content.encode())
    if format == ReportFormat.JSON:
        typer.echo(content, nl=False)
    else:
        _print(report)


def _print(report: FitReport) -> None:
    from analysis.laws.report import TABLE_HEADINGS
    from analysis.laws.solver import OBJECTIVES

    first = report.comparison.fits[0]
    typer.echo(f"{report.source}: {report.rows.metric}, {len(report.rows)} rows; loss: {OBJECTIVES[first.objective]}")
    typer.echo(f"C: {report.rows.compute.definition}")
    typer.echo(f"left out: {'; '.join(report.rows.left_out) or 'none'}\n")
    lines = [TABLE_HEADINGS, *report.table()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    typer.echo(f"\n{report.sentence()}")
