"""`ditbench ladder`, `ditbench judge`, and the sweep that `ditbench advise --write` makes: from a ladder to a verdict.

Beside ditbench.py, because it needs all packages.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands.options import FormatOption, JsonOption, print_answer, print_columns, print_lines, print_result
from analysis.errors import ResultsError
from bench.errors import InputError, RunError
from sweeps.options import RunsOption, SweepArgument

if TYPE_CHECKING:
    from analysis.advice.verdict import Verdict
    from analysis.results.tables import Tables
    from sweeps.expand import Sweep


def ladder(
    spec: Annotated[
        Path, typer.Argument(help="A ladder's YAML file, or the name of a shipped one.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="A new file for the sweep, SWEEP.yaml; default: only the plan is printed.")
    ] = None,
    cluster: Annotated[str, typer.Option(help="The profile that it is priced for, by name or path.")] = "local",
    runs: RunsOption = Path("runs"),
) -> None:
    """Lay out models x budgets of compute, or models x multiples of tokens, as a sweep; print its steps and its price.

    Nothing is submitted.
    """
    from bench.commands.text_table import print_table
    from bench.files.atomic import write_bytes
    from sweeps.cluster import cluster_name, load_cluster
    from sweeps.expand import run_folders
    from sweeps.ladder import build, find_ladder
    from sweeps.planning.plan import check_time_known, plan
    from sweeps.planning.report import print_plan
    from sweeps.rungs import check_new

    path = find_ladder(spec)
    profile = load_cluster(cluster)
    if out is not None and out.resolve() == path.resolve():
        raise InputError(f"--out {out}: is the ladder's own file; accepted: a new file's name")
    built = build(path)
    text = built.content.text(built.comment)
    if out is not None:
        check_new(out, text)
    sweep = built.content.sweep
    made = plan(sweep, profile, cluster_name(profile.where), run_folders(sweep, runs), runs_folder=runs)
    check_time_known(made, profile)
    if out is not None:
        write_bytes(out, text.encode())
    rows = [
        [
            step.rung.model.label,
            step.asked,
            f"{step.rung.steps:,}",
            f"{step.images:,}",
            f"{step.epochs:,.3g}",
            f"{step.pf_days:.4g}",
        ]
        for step in built.steps
    ]
    print_table(["model", "budget", "steps", "images", "epochs", "PF-days"], rows, [True, True, *[False] * 4])
    seeds = len(sweep.recipes) // len(built.steps)
    total = seeds * sum(step.pf_days for step in built.steps)
    typer.echo(f"\n{len(rows)} rungs x {seeds} seed{'s' * (seeds > 1)}: {total:.3g} PF-days of training.\n")
    print_plan(made)
    if out is not None:
        command = shlex.join(["ditbench", "sweep", "submit", str(out), "--cluster", cluster])
        typer.echo(f"\nWritten: {out}; next: {command}")


def write_longer(
    path: Path, of: str, sweep: str, run: str, steps: int, seeds: list[int], comment: str
) -> dict[str, int]:
    """As `analysis.commands.advise.write_sweep` says.

    Raises:
        InputError: no such sweep, or `run` is none of its runs.
    """
    from bench.files.atomic import write_bytes
    from sweeps.expand import find_study, load_sweep
    from sweeps.rungs import Rung, model_of, sweep_of

    try:
        found = find_study(sweep or f"{of}.yaml", Path() if sweep else path.parent)
    except InputError:
        if sweep:
            raise
        raise InputError(
            f"--write {path}: the results are of the sweep {of}, of which no {of}.yaml is beside it, and none ships; "
            "needed: --sweep, its file"
        ) from None
    known = load_sweep(found)
    recipe = next((each for each in known.recipes if each.id == run), None)
    if recipe is None:
        raise InputError(
            f"{found}: has no run {run}, which the results are of; needed: --sweep, the sweep that they were collected "
            "from"
        )
    made = sweep_of(path.stem, known.base, [Rung(model_of(known, recipe), steps)], seeds, path)
    write_bytes(path, made.text(comment).encode())
    return {each.id: each.seed for each in made.sweep.recipes}


def judge(
    sweep: SweepArgument,
    runs: RunsOption = Path("runs"),
    results: Annotated[
        Path | None,
        typer.Option(help="Where the tables of its runs go, and are read from without runs; default: results/<sweep>."),
    ] = None,
    format: FormatOption = "table",
    out: JsonOption = None,
) -> None:
    """Hit or miss: what came of a sweep that `ditbench advise --write` made, of each seed and of their mean.

    Status 1 where there is no verdict: the prediction, its tables or its runs were changed after, or the scores are of
    another key.
    """
    from analysis.advice.prediction import SUFFIX, read_prediction, remade
    from analysis.advice.verdict import HEADINGS
    from analysis.advice.verdict import judge as judged
    from sweeps.expand import find_study, load_sweep

    path = find_study(sweep)
    prediction, is_whole = read_prediction(path.with_suffix(SUFFIX))
    loaded = load_sweep(path)
    tables = _tables(loaded, runs, results)
    problems, checked, unknown = [], [], []
    if is_whole:
        checked.append("its file says what was written")
    else:
        problems.append(f"{path.with_suffix(SUFFIX)} was changed after it was written")
    try:
        changed = remade(prediction)
        problems += changed
        checked += (
            [] if changed else [f"made again of {prediction.data}, whose tables are the same, so is the prediction"]
        )
    except ResultsError as error:
        unknown.append(f"whether its tables say so: {error}")
    ids = {recipe.id: recipe.seed for recipe in loaded.recipes}
    if ids == dict(prediction.runs):
        checked.append("its runs are the sweep's")
    else:
        problems.append(f"{path} was changed after: its runs are not those of the prediction")
    verdict = judged(prediction, tables, problems, checked, unknown)
    print_result(verdict.to_dict(), format, out, lambda: _print_verdict(verdict, HEADINGS))
    if verdict.problems:
        raise RunError(f"no verdict: {'; '.join(verdict.problems)}")


def _tables(sweep: Sweep, runs: Path, results: Path | None) -> Tables:
    """Collected from the sweep's runs or, without these, those that were."""
    from analysis.results import tables
    from bench.files.run_files import read_records

    folder, out = runs / sweep.name, results or Path("results") / sweep.name
    if any(folder.glob("*/config.yaml")):
        return tables.collect(read_records(folder), out)
    if not (out / "runs.parquet").is_file():
        raise InputError(
            f"{folder}: no run of {sweep.name} there, and no results in {out}; `ditbench sweep submit` starts them"
        )
    return tables.load(out)


def _print_verdict(verdict: Verdict, headings: list[str]) -> None:
    print_answer(verdict.headline())
    print_columns(headings, verdict.table())
    typer.echo()
    law = verdict.prediction.law
    print_lines(
        [
            f"The law: {verdict.prediction.law_name}; its own interval, without the scatter of runs, is {law}.",
            *(f"Checked: {line}." for line in verdict.checked),
            *(f"Not checked: {line}." for line in verdict.unknown),
            *(f"Wrong: {line}." for line in verdict.problems),
        ]
    )
