"""`ditbench advise`: which model, for how many steps, a training budget is best spent on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.errors import ResultsError

if TYPE_CHECKING:
    from analysis.advice.advise import Advice
    from analysis.laws.observations import Observations

PUBLISHED_BATCH_SIZE = 256  # DiT paper, section 4


class Source(StrEnum):
    PUBLISHED = "published"


class LawChoice(StrEnum):
    TESTED = "tested"
    CURVES = "curves"
    PRODUCT = "product"
    SUM = "sum"


class IntervalsChoice(StrEnum):
    BOOTSTRAP = "bootstrap"
    RESIDUAL = "residual"


class ReportFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


def advise(
    budget: Annotated[float, typer.Option(help="PF-days of training: 8.64e19 true FLOPs each, of the network itself.")],
    results: Annotated[Path | None, typer.Argument(help="A folder that `ditbench collect` made.")] = None,
    source: Annotated[
        Source | None, typer.Option(help="Instead of a folder: the paper's Table 4, with XL/2 at three steps.")
    ] = None,
    law: Annotated[
        LawChoice, typer.Option(help="tested: the one that predicts later scores best from earlier ones.")
    ] = LawChoice.TESTED,
    metric: Annotated[str, typer.Option(help="fid, fid_percent, fid_infinity, sfid, kid or loss.")] = "fid",
    intervals: Annotated[
        IntervalsChoice | None,
        typer.Option(
            help="Of joint laws; default: bootstrap, and residual for the paper: one model has several steps."
        ),
    ] = None,
    level: Annotated[float, typer.Option(help="Confidence level.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    format: Annotated[ReportFormat, typer.Option(help="How to print.")] = ReportFormat.TABLE,
    out: Annotated[Path | None, typer.Option(help="A file for it as JSON, whatever is printed.")] = None,
) -> None:
    """Advise on a training budget: which size, patch and steps, the expected score, and how far that is a guess."""
    import json

    from analysis.advice.advise import advise as advice_of
    from analysis.advice.laws import LAWS
    from analysis.advice.report import sentence
    from analysis.laws.observed import collected_observations, published_observations
    from analysis.results.files import write_whole
    from analysis.results.tables import load

    if (results is None) == (source is None):
        raise ResultsError("ditbench advise: accepted: either a folder of results or --source published")
    if results is None:
        rows, batch_size = published_observations(metric, all_steps=True), PUBLISHED_BATCH_SIZE
        method, name = IntervalsChoice.RESIDUAL, "DiT paper, Table 4"
    else:
        tables = load(results)
        rows = collected_observations(tables, metric, all_steps=True)
        batch_size, method, name = int(tables.runs["batch_size"].iloc[0]), IntervalsChoice.BOOTSTRAP, str(results)
    laws = LAWS if law == LawChoice.TESTED else (law.value,)
    advice = advice_of(rows, budget, batch_size, laws, (intervals or method).value, level=level, seed=seed)
    said = {"source": name} | advice.to_dict() | {"sentences": sentence(advice).splitlines()}
    content = json.dumps(said, indent=1, allow_nan=False) + "\n"
    if out is not None:
        write_whole(out, content.encode())
    if format == ReportFormat.JSON:
        typer.echo(content, nl=False)
    else:
        _print(name, rows, advice)


def _print(name: str, rows: Observations, advice: Advice) -> None:
    from analysis.advice.report import HEADINGS, sentence, table

    typer.echo(f"{name}: {rows.metric}, {len(rows)} rows of {len(set(rows.models))} models")
    typer.echo(f"left out: {'; '.join((*rows.left_out, *advice.left_out)) or 'none'}\n")
    lines = [HEADINGS, *table(advice)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    typer.echo(f"\n{sentence(advice)}")
