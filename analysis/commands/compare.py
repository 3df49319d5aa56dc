"""`ditbench compare`: two designs at equal compute, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.commands.options import FormatOption, LevelOption, MetricOption, SeedOption, Source, StepOption
from analysis.errors import ResultsError
from analysis.results.visible import visible


def compare(
    results: Annotated[list[Path] | None, typer.Argument(help="Folders that `ditbench collect` made.")] = None,
    by: Annotated[str, typer.Option(help="The column of runs that tells designs apart, or source: folders.")] = "block",
    source: Annotated[Source | None, typer.Option(help="Instead of folders: says what the paper lacks.")] = None,
    between: Annotated[str | None, typer.Option(help="A,B: two designs; else a table of all blocks.")] = None,
    metric: MetricOption = "fid",
    step: StepOption = None,
    level: LevelOption = 0.9,
    seed: SeedOption = 0,
    format: FormatOption = "table",
) -> None:
    """Compare two designs at equal compute: difference of the scores, and the compute that the better one saves.

    With fewer than three models of each: at equal steps, over seeds. Of more than two block designs: a table of all.
    """
    import json

    from analysis.compare.collected import collected_designs, refuse_published
    from analysis.compare.compared import compared
    from analysis.results.tables import load

    if bool(results) == (source is not None):
        raise ResultsError("ditbench compare: accepted: either folders of results or --source published")
    if not results:
        refuse_published()
        return
    if len({path.resolve() for path in results}) < len(results):
        raise ResultsError("the same folder twice; needed: different ones")
    pair = tuple(between.split(",")) if between is not None else None
    if pair is not None and len(pair) != 2:
        raise ResultsError(f"--between {between}: accepted: two designs, A,B")
    tables = {str(path): load(path) for path in results}
    comparison = compared(collected_designs(tables, by, metric, step, pair), level, seed)
    if format == "json":
        typer.echo(json.dumps(comparison.to_dict(), indent=1, allow_nan=False))
        return
    lines = [[visible(cell) for cell in line] for line in comparison.table()]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{name.ljust(width)}  {value}")
    typer.echo(f"\n{comparison.convention}.\n\n{comparison.sentence()}")
