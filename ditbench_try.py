"""`ditbench try`: a part of one's own beside the built-in one, from its file to a verdict.

Beside ditbench.py, because it needs all packages.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.commands.terminal import console
from bench.errors import RunError
from sweeps.commands import run_here
from sweeps.options import RunsOption

if TYPE_CHECKING:
    from analysis.results.tables import Tables
    from sweeps.own_part import OwnPart
    from sweeps.own_study import OwnStudy
    from sweeps.watch.status import RunStatus


def try_part(
    part: Annotated[str, typer.Argument(help="The part's file, such as my_block.py; or my_module:Name.")],
    name: Annotated[str | None, typer.Option(help="Which part, where the file has several.")] = None,
    kind: Annotated[
        Literal["block", "family", "objective"] | None,
        typer.Option("--as", help="What it is; default: what its contract says."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each size; more narrow the interval.")] = 3,
    runs: RunsOption = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Tables and figure; default: results/try/, in a folder for this part.")
    ] = None,
) -> None:
    """Your own block design, model family or objective beside the built-in: trained on digits, compared, in minutes.

    Three sizes, three seeds. Interrupted, it continues when the same command runs again; what it trained of the
    built-in serves the next part too.
    """
    from sweeps.own_part import keep_part
    from sweeps.own_study import check_compute, own_study
    from sweeps.rehearsal import explained

    own = keep_part(part, name, kind, runs / "try" / "parts")
    study = explained(own, lambda: own_study(own, seeds))
    typer.echo(f"{own.shown} is a{'n' if own.kind == 'objective' else ''} {own.called}; first steps of each size:")
    _rehearse(study, own, runs)
    check_compute(study, own)
    _run(study, own, runs)
    _report(study, own, runs, out or Path("results") / "try" / own.folder.name)


def _rehearse(study: OwnStudy, own: OwnPart, runs: Path) -> None:
    """Take the first steps of every size; print what it costs beside the built-in, and how long all will take."""
    from bench.commands.text_table import print_table
    from bench.files.run_folder import is_finished
    from bench.flops import cost_of
    from sweeps.expand import run_folders
    from sweeps.groups import local_slots
    from sweeps.own_study import BUILT_IN
    from sweeps.rehearsal import explained, rehearse

    rows: list[list[str]] = []
    step_s: dict[str, float] = {}
    for pair in study.sizes:
        macs: list[int] = []
        for recipe, name in zip(pair, (BUILT_IN[own.kind], own.shown), strict=True):
            step_s[recipe.label] = rehearse(recipe, own)
            cost = explained(own, lambda model=recipe.model: cost_of(model.name, model.architecture()))
            macs.append(cost.macs)
            ratio = f"{macs[1] / macs[0]:.2f}x" if len(macs) == 2 else ""
            size = study.sweep.axes[recipe.id]["size"]
            ms = f"{1000 * step_s[recipe.label]:.0f}"
            rows.append([size, name, f"{cost.parameters:,}", f"{1e-6 * cost.macs:.4g}", ratio, ms])
    print_table(["size", own.called, "parameters", "MMACs", "", "ms/step"], rows, [True, True, *[False] * 4])
    folders = run_folders(study.sweep, runs)
    left = [recipe for recipe in study.sweep.recipes if not is_finished(folders[recipe.id])]
    total, cores = len(study.sweep.recipes), local_slots("cpu")
    if not left:
        typer.echo(f"\nAll {total} runs are finished.")
        return
    minutes = sum(step_s[recipe.label] * recipe.train.steps for recipe in left) / min(cores, len(left)) / 60
    there = f"{total - len(left)} of {total} runs are there; {len(left)} to train" if len(left) < total else f"{total} runs"
    typer.echo(
        f"\n{there}: about {1.2 * minutes + 0.5:.0f} minutes on {cores} cores. Interrupted, the same command continues.\n"
    )


def _run(study: OwnStudy, own: OwnPart, runs: Path) -> None:
    """Train and score what is left.

    Raises:
        RunError: runs failed; whose, and why, was said.
    """
    from sweeps.cluster import ClusterProfile
    from sweeps.expand import run_folders
    from sweeps.own_study import BUILT_IN
    from sweeps.watch.status import run_status

    try:
        run_here(study.sweep, runs, ClusterProfile(executor="local", device="cpu", precision="fp32"), console())
    except RunError:
        folders = run_folders(study.sweep, runs)
        failed = {}
        for name, recipes in ((BUILT_IN[own.kind], study.built_in), (own.shown, study.own)):
            status = [run_status(recipe, folders[recipe.id]) for recipe in recipes]
            reasons = [f"{recipe.label}, seed {recipe.seed}: {one.error}" for recipe, one in zip(recipes, status, strict=True) if one.state == "failed"]
            if reasons:
                failed[name] = f"{len(reasons)} of the {len(recipes)} runs of {name} failed"
                typer.echo(f"\n{failed[name]}, so there is no comparison:")
                for reason in reasons:
                    typer.echo(f"  {own.in_words(reason)}")
        if not failed:
            raise
        raise RunError(f"{'; '.join(failed.values())}; the same command tries them again") from None


def _report(study: OwnStudy, own: OwnPart, runs: Path, out: Path) -> None:
    """Tables and figure of the runs, and what they say."""
    from analysis.compare.collected import collected_designs
    from analysis.compare.compared import compared
    from analysis.results import tables
    from bench.files.atomic import write_json
    from bench.files.run_files import read_records
    from sweeps.expand import run_folders
    from sweeps.own_study import BUILT_IN

    folders = set(run_folders(study.sweep, runs).values())
    collected = tables.collect([each for each in read_records(runs / study.sweep.name) if each.folder in folders], out)
    ids = {BUILT_IN[own.kind]: {recipe.id for recipe in study.built_in}, own.shown: {recipe.id for recipe in study.own}}
    designs = {name: _of_runs(collected, chosen) for name, chosen in ids.items()}
    comparison = compared(collected_designs(designs, "source"))
    write_json(out / "comparison.json", comparison.to_dict())
    typer.echo(f"\n{comparison.sentence()}\n")


def _of_runs(collected: Tables, ids: set[str]) -> Tables:
    from dataclasses import replace

    chosen = {
        name: table.loc[table["run"].isin(ids)]
        for name, table in (("runs", collected.runs), ("train", collected.train), ("evals", collected.evals))
    }
    return replace(collected, **chosen)
