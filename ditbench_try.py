"""`ditbench try`: a part of one's own beside the built-in one, from its file to a verdict.

Beside ditbench.py, because it needs all packages.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.commands.terminal import console
from bench.errors import RunError
from sweeps.commands import run_here
from sweeps.options import RunsOption

if TYPE_CHECKING:
    from analysis.compare.designs import DesignComparison
    from analysis.results.tables import Tables
    from sweeps.own.part import OwnPart
    from sweeps.own.study import OwnStudy


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
    from sweeps.own.part import keep_part
    from sweeps.own.rehearsal import explained
    from sweeps.own.study import check_compute, own_study

    own = keep_part(part, name, kind, runs / "try" / "parts")
    study = explained(own, lambda: own_study(own, seeds))
    typer.echo(f"{own.shown} is a{'n' if own.kind == 'objective' else ''} {own.called}; first steps of each size:")
    is_left = _rehearse(study, own, runs)
    check_compute(study, own)
    if is_left:
        _run(study, own, runs)
    out = out or Path("results") / "try" / own.folder.name
    _report(study, own, runs, out)
    chosen = [*(["--name", name] if name else []), *(["--as", kind] if kind else [])]
    elsewhere = ["--runs", str(runs)] if runs != Path("runs") else []
    commands = {
        "all on one page": ["report", str(out)],
        "scores over training": ["figure", "blocks", str(out)],
        "a narrower interval": ["try", part, *chosen, "--seeds", str(2 * seeds), *elsewhere],
        "the runs": ["sweep", "status", _from_here(study.path), *elsewhere],
    }
    if own.kind == "family":  # whose models are no others' in another design
        commands["scores over training"][1] = "fid-vs-steps"
    typer.echo("\nNext:")
    for what, command in commands.items():
        typer.echo(f"  {shlex.join(['ditbench', *command])}  ({what})")


def _from_here(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _rehearse(study: OwnStudy, own: OwnPart, runs: Path) -> bool:
    """Take the first steps of every size; print what it costs beside the built-in, and how long all will take.

    Returns:
        Whether a run is left to be trained.
    """
    from bench.commands.text_table import print_table
    from bench.files.run_folder import is_complete
    from sweeps.expand import run_folders
    from sweeps.groups import local_slots
    from sweeps.own.rehearsal import counted, rehearse
    from sweeps.own.study import BUILT_IN

    rows: list[list[str]] = []
    step_s: dict[str, float] = {}
    for pair in study.sizes:
        macs: list[int] = []
        for recipe, name in zip(pair, (BUILT_IN[own.kind], own.shown), strict=True):
            step_s[recipe.label] = rehearse(recipe, own)
            cost = counted(recipe, own)
            macs.append(cost.macs)
            ratio = f"{macs[1] / macs[0]:.2f}x" if len(macs) == 2 else ""
            size = study.sweep.axes[recipe.id]["size"]
            ms = f"{1000 * step_s[recipe.label]:.0f}"
            rows.append([size, name, f"{cost.parameters:,}", f"{1e-6 * cost.macs:.4g}", ratio, ms])
    print_table(["size", own.called, "parameters", "MMACs", "ratio", "ms/step"], rows, [True, True, *[False] * 4])
    folders = run_folders(study.sweep, runs)
    left = [recipe for recipe in study.sweep.recipes if not is_complete(recipe, folders[recipe.id])]
    total, cores = len(study.sweep.recipes), local_slots("cpu")
    if not left:
        typer.echo(f"\nAll {total} runs are finished.")
        return False
    minutes = sum(step_s[recipe.label] * recipe.train.steps for recipe in left) / min(cores, len(left)) / 60
    there = (
        f"{total - len(left)} of {total} runs are there; {len(left)} to train" if len(left) < total else f"{total} runs"
    )
    typer.echo(
        f"\n{there}: about {1.2 * minutes + 0.5:.0f} minutes on {cores} cores. Interrupted, the same command "
        "continues.\n"
    )
    return True


def _run(study: OwnStudy, own: OwnPart, runs: Path) -> None:
    """Train and score what is left.

    Raises:
        RunError: runs failed; whose, and why, was said.
    """
    from sweeps.cluster import ClusterProfile
    from sweeps.expand import run_folders
    from sweeps.own.study import BUILT_IN
    from sweeps.watch.status import run_status

    try:
        run_here(study.sweep, runs, ClusterProfile(executor="local", device="cpu", precision="fp32"), console())
    except RunError:
        folders = run_folders(study.sweep, runs)
        failed = {}
        for name, recipes in ((BUILT_IN[own.kind], study.built_in), (own.shown, study.own)):
            status = [run_status(recipe, folders[recipe.id]) for recipe in recipes]
            reasons = [
                f"{recipe.label}, seed {recipe.seed}: {one.error}"
                for recipe, one in zip(recipes, status, strict=True)
                if one.state == "failed"
            ]
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
    from analysis import figures
    from analysis.compare.collected import collected_designs
    from analysis.compare.designs import compare_designs
    from analysis.figures.sources import measured
    from analysis.results import tables
    from bench.files.atomic import write_json
    from bench.files.run_files import read_records
    from sweeps.expand import run_folders
    from sweeps.own.study import BUILT_IN

    folders = set(run_folders(study.sweep, runs).values())
    collected = tables.collect([each for each in read_records(runs / study.sweep.name) if each.folder in folders], out)
    of_whom = {BUILT_IN[own.kind]: study.built_in, own.shown: study.own}
    parts = {name: _of_runs(collected, [recipe.id for recipe in recipes]) for name, recipes in of_whom.items()}
    comparison = compare_designs(collected_designs(parts, "source"))
    write_json(out / "comparison.json", comparison.to_dict())
    typer.echo("")
    for line in verdict(comparison, own.shown):
        typer.echo(line)
    files = figures.draw("designs", [measured(collected, study.sweep.name)], out).files
    typer.echo(f"\nFigure: {files[0]}\nTables: {out}")


def verdict(comparison: DesignComparison, own: str) -> list[str]:
    """Two lines: the compute that the design `own` needs for the same score; the scores at equal compute."""
    from analysis.figures.designs import times

    is_better = comparison.better == own
    other = comparison.worse if is_better else comparison.better
    gap = comparison.difference
    sign = -1 if is_better else 1
    ends = sorted((sign * gap.low, sign * gap.high))
    seeds = min(comparison.seeds)
    one_seed = ", so the intervals leave out how seeds differ" if seeds == 1 else ""
    second = (
        f"At equal compute its distance minus the other's is {sign * gap.estimate:.3g} ({gap.level:.0%}: {ends[0]:.3g} "
        f"to {ends[1]:.3g}); {comparison.models[0]} sizes, {seeds} seed{'s' * (seeds > 1)}{one_seed}."
    )
    multiplier = comparison.multiplier
    if multiplier is None:
        low, high = comparison.exponent.low, comparison.exponent.high
        why = f"the distance does not surely fall with compute (alpha {low:.2g} to {high:.2g})"
        return [f"{own} and {other} are not distinguishable in compute: {why}.", second]
    found = [multiplier.estimate, multiplier.low, multiplier.high]
    factor, low, high = [1 / found[0], 1 / found[2], 1 / found[1]] if is_better else found
    interval = f"{multiplier.level:.0%}: {times(low)} to {times(high)}"
    needs = f"{times(factor)}x the compute of {other} for the same distance ({interval})"
    if comparison.distinguishable:
        return [f"{own} needs {needs}.", second]
    return [f"{own} and {other} are not distinguishable: it needs {needs}, which may be 1x.", second]


def _of_runs(collected: Tables, ids: list[str]) -> Tables:
    from dataclasses import replace

    chosen = {
        name: table.loc[table["run"].isin(ids)]
        for name, table in (("runs", collected.runs), ("train", collected.train), ("evals", collected.evals))
    }
    return replace(collected, **chosen)
