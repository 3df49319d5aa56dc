"""`ditbench advise`: which model, for how many steps, a training budget is best spent on."""

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
    print_columns,
    print_result,
)
from analysis.errors import ResultsError
from analysis.laws.choices import Method
from analysis.results.visible import visible

if TYPE_CHECKING:
    from analysis.advice.advise import Advice
    from analysis.laws.observations import Observations

PUBLISHED_BATCH_SIZE = 256  # DiT paper, section 4


def advise(
    budget: Annotated[float, typer.Option(help="PF-days of training: 8.64e19 true FLOPs each, of the network itself.")],
    results: Annotated[Path | None, typer.Argument(help="A folder that `ditbench collect` made.")] = None,
    source: Annotated[
        Source | None, typer.Option(help="Instead of a folder: the paper's Table 4, with XL/2 at three steps.")
    ] = None,
    law: Annotated[
        Literal["tested", "curves", "product", "sum"],
        typer.Option(help="tested: the one that predicts later scores best from earlier ones."),
    ] = "tested",
    metric: MetricOption = "fid",
    intervals: Annotated[
        Method | None,
        typer.Option(
            help="Of joint laws; default: bootstrap, and residual for the paper: one model has several steps."
        ),
    ] = None,
    level: LevelOption = 0.9,
    seed: SeedOption = 0,
    format: FormatOption = "table",
    out: JsonOption = None,
) -> None:
    """Advise on a training budget: which size, patch and steps, the expected score, and how far that is a guess."""
    from analysis.advice.advise import advise as advice_of
    from analysis.advice.laws import LAWS
    from analysis.advice.report import sentence
    from analysis.laws.observed import collected_observations, published_observations
    from analysis.results.tables import load

    if (results is None) == (source is None):
        raise ResultsError("ditbench advise: accepted: either a folder of results or --source published")
    if results is None:
        rows, batch_size = published_observations(metric, all_steps=True), PUBLISHED_BATCH_SIZE
        default, name = "residual", "DiT paper, Table 4"
    else:
        tables = load(results)
        rows = collected_observations(tables, metric, all_steps=True)
        batch_size, default, name = int(tables.runs["batch_size"].iloc[0]), "bootstrap", str(results)
    laws = LAWS if law == "tested" else (law,)
    advice = advice_of(rows, budget, batch_size, laws, intervals or default, level=level, seed=seed)
    said = {"source": name} | advice.to_dict() | {"sentences": sentence(advice).splitlines()}
    print_result(said, format, out, lambda: _print(name, rows, advice))


def _print(name: str, rows: Observations, advice: Advice) -> None:
    from analysis.advice.report import HEADINGS, sentence, table

    typer.echo(f"{name}: {rows.metric}, {len(rows)} rows of {len(set(rows.models))} models")
    typer.echo(f"left out: {visible('; '.join((*rows.left_out, *advice.left_out))) or 'none'}\n")
    print_columns(HEADINGS, table(advice))
    typer.echo(f"\n{sentence(advice)}")
