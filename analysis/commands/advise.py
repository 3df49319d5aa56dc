"""`ditbench advise`: which model, for how many steps, a training budget is best spent on."""

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
    VerboseOption,
    one_of,
    print_answer,
    print_columns,
    print_lines,
    print_result,
)
from analysis.errors import ResultsError
from analysis.laws.choices import Method
from analysis.results.named import results_folder

if TYPE_CHECKING:
    from analysis.advice.advise import Advice
    from analysis.advice.budget import Budget
    from analysis.laws.observations import Observations

PUBLISHED_BATCH_SIZE = 256  # DiT paper, section 4


def training_speed(cluster: str) -> tuple[float, str]:
    """True FLOPs a second that one device of `cluster` trains with, and in words where that is from.

    The top floor puts its reader of cluster profiles here: analysis imports none of it.
    """
    raise ResultsError(f"--cluster {cluster}: profiles are read by the command `ditbench advise`")


def advise(
    budget: Annotated[
        str,
        typer.Option(
            help="PF-days of training (8.64e19 true FLOPs each, of the network itself), such as 2e-8; or GPU-hours of "
            "a --cluster, such as 500h."
        ),
    ],
    data: DataArgument = None,
    source: OldDataOption = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="The profile, by name or path, in whose GPU-hours the budget is given or told as well."),
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
    verbose: VerboseOption = False,
    format: FormatOption = "table",
    out: JsonOption = None,
) -> None:
    """Advise on a training budget: which size, patch and steps, the expected score, and how far that is a guess."""
    from analysis.advice.advise import advise as advice_of
    from analysis.advice.budget import parse_budget
    from analysis.advice.laws import LAWS
    from analysis.advice.report import headline, sentence
    from analysis.laws.observed import collected_observations, published_observations
    from analysis.results.tables import load

    folder = results_folder(one_of(data, source))
    asked = parse_budget(budget, cluster, training_speed)
    if folder is None:
        rows, batch_size = published_observations(metric, all_steps=True), PUBLISHED_BATCH_SIZE
        default, name = "residual", "DiT paper, Table 4"
    else:
        tables = load(folder)
        rows = collected_observations(tables, metric, all_steps=True)
        batch_size, default, name = int(tables.runs["batch_size"].iloc[0]), "bootstrap", str(folder)
    laws = LAWS if law == "tested" else (law,)
    advice = advice_of(rows, asked.pf_days, batch_size, laws, intervals or default, level=level, seed=seed)
    said = {"source": name} | advice.to_dict() | {"cluster": cluster, "gpu_hours": asked.gpu_hours}
    said |= {"headline": headline(advice), "sentences": sentence(advice).splitlines()}
    print_result(said, format, out, lambda: _print(name, rows, asked, advice, verbose))


def _print(name: str, rows: Observations, asked: Budget, advice: Advice, verbose: bool) -> None:
    from analysis.advice.report import findings, headline, notes, table

    print_answer(headline(advice))
    print_lines([f"{name}: {rows.metric}, {len(rows)} scores of {len(set(rows.models))} models.", f"Budget: {asked}."])
    typer.echo()
    headings, *shown = table(advice, verbose)
    if shown:
        print_columns(headings, shown)
        typer.echo()
    print_lines(notes(advice))
    if not verbose:
        print_lines(["--verbose has the law, its test, what was left out, and what compute means."])
        return
    print_lines(findings(advice))
    print_lines([f"Left out: {'; '.join((*rows.left_out, *advice.left_out)) or 'none'}."])
