"""`ditbench sweep status`, `logs`, `why`: looking at a sweep without changing anything; and `cancel`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.terminal import console
from bench.errors import InputError, RunError
from bench.files.names import visible
from sweeps.options import RunsOption, SweepArgument

if TYPE_CHECKING:
    from sweeps.expand import Sweep
    from sweeps.watch.study import Study

# How often a watched table is redrawn.
LOOK_SECONDS = 2.0

app = typer.Typer()

# Of each run, where all are shown.
NEWEST_LINES = 5
POLL_SECONDS = 0.5

RunArgument = Annotated[str, typer.Argument(help="A run: its label, its recipe's id, or its folder's name.")]


@app.command()
def status(
    sweep: SweepArgument,
    runs: RunsOption = Path("runs"),
    watch: Annotated[bool, typer.Option("--watch", help="Redraw it until nothing is left to wait for.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON: a list of runs.")] = False,
) -> None:
    """Where every run is: state, step, loss, newest score, speed, time left, restarts, node. Changes nothing."""
    from sweeps.expand import load_sweep
    from sweeps.watch.study import Study

    if watch and json:
        raise InputError("--json is one look, --watch many: accepted: one of them")
    loaded = load_sweep(sweep)
    if watch:
        from sweeps.watch.pace import SHORTEST_SECONDS

        _watch(loaded, Study(loaded, runs, SHORTEST_SECONDS))
        return
    look = Study(loaded, runs).look()
    if json:
        from json import dumps

        from sweeps.watch.status_table import as_json

        for note in look.notes:
            print(note, file=sys.stderr)
        print(dumps(as_json(look.runs), indent=1))
        return
    from sweeps.watch.status_table import print_runs

    print_runs(look.runs, look.notes)


def _watch(sweep: Sweep, study: Study) -> None:
    from sweeps.watch.progress import watch
    from sweeps.watch.status_table import counts

    shown = console()
    try:
        with watch(sweep.recipes, shown) as show:
            while True:
                look = study.look()
                show(look.runs, look.notes)
                if not look.is_live:
                    break
                time.sleep(LOOK_SECONDS)
        if not shown.is_terminal:
            print(counts(look.runs))
    except KeyboardInterrupt:
        return


@app.command()
def logs(
    sweep: SweepArgument,
    run: Annotated[
        str | None, typer.Argument(help="A run: its label, its recipe's id, or its folder's name; default: all.")
    ] = None,
    runs: RunsOption = Path("runs"),
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Continue while jobs go on.")] = False,
) -> None:
    """What a run has said, line by line; without RUN the newest lines of all runs, each with its run before it."""
    from sweeps.expand import load_sweep
    from sweeps.watch.pace import SHORTEST_SECONDS
    from sweeps.watch.study import Study

    study = Study(load_sweep(sweep), runs, SHORTEST_SECONDS if follow else 0)
    try:
        if run is None:
            _logs_of_all(study, follow)
        else:
            _logs_of(study, run, follow)
    except KeyboardInterrupt:
        return


def _logs_of(study: Study, name: str, follow: bool) -> None:
    from sweeps.slurm.submissions import submitters
    from sweeps.watch.logs import JobGoesOn, RunLines, newest_log
    from sweeps.watch.named_runs import find_run
    from sweeps.watch.pace import LONGEST_SECONDS, SHORTEST_SECONDS

    look = study.look()
    chosen = find_run(look.files, name)
    lines, log = RunLines(look, chosen), newest_log(look, chosen)
    if log is None:
        raise RunError(f"{chosen.recipe.label}: no log yet: it is {look.status_of(chosen).shown_state}")
    for path in lines.paths:
        print(path, file=sys.stderr, flush=True)
    if follow and log.slurm_job:
        every = f"every {SHORTEST_SECONDS:.0f} to {LONGEST_SECONDS:.0f} s, the longer nothing changes"
        print(f"SLURM is asked whether job {log.slurm_job} goes on {every}", file=sys.stderr, flush=True)
    goes_on = JobGoesOn(log, chosen.folder, submitters(look.records))
    while True:
        is_last = not follow or not goes_on()  # asked first: what its job wrote until its end is there then
        for line in lines.new(to_end=is_last):
            print(line.text)
        sys.stdout.flush()
        if is_last:
            return
        time.sleep(POLL_SECONDS)


def _logs_of_all(study: Study, follow: bool) -> None:
    from sweeps.watch.logs import END_BYTES, RunLines
    from sweeps.watch.named_runs import short_names
    from sweeps.watch.status_table import counts

    look = study.look()
    names = short_names(look.files)
    width = max(map(len, names.values()))
    lines = {folder: RunLines(look, run, END_BYTES) for folder, run in look.files.items()}
    newest = {folder: log.new(to_end=not follow)[-NEWEST_LINES:] for folder, log in lines.items()}
    if not any(newest.values()) and not follow:
        raise RunError(f"{look.study}: no run has a log yet: {counts(look.runs)}")
    while True:
        together = [(line.time, folder, line.text) for folder, added in newest.items() for line in added]
        for _, folder, text in sorted(together, key=lambda one: one[0]):
            print(f"{names[folder]:{width}} | {text}")
        sys.stdout.flush()
        if not follow or not look.is_live:
            return
        time.sleep(LOOK_SECONDS)
        look = study.look()
        for folder, run in look.files.items():
            if not lines[folder].paths:  # its job may have begun
                lines[folder] = RunLines(look, run)
        newest = {folder: log.new() for folder, log in lines.items()}


@app.command()
def why(sweep: SweepArgument, run: RunArgument, runs: RunsOption = Path("runs")) -> None:
    """Why a run is in its state: SLURM's reason, the last error with the log around it, and what to do."""
    from sweeps.expand import load_sweep
    from sweeps.watch.named_runs import find_run
    from sweeps.watch.study import Study
    from sweeps.watch.why import explain

    look = Study(load_sweep(sweep), runs).look()
    for line in explain(look, find_run(look.files, run)):
        print(line)


@app.command()
def cancel(
    sweep: SweepArgument,
    named: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs, as `logs` takes them; default: all.")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """End queued and running jobs. What is done stays; the same submission continues it."""
    from sweeps.expand import load_sweep
    from sweeps.slurm import submissions
    from sweeps.watch.cancel import stop_here

    loaded = load_sweep(sweep)
    study = runs / loaded.name
    is_on_slurm = bool(submissions.read_all(study))
    if named and not is_on_slurm:
        raise InputError(
            f"{', '.join(named)}: jobs of this machine take runs from one queue and cannot be cancelled one by one; "
            "accepted: no run, to stop all of them"
        )
    if is_on_slurm:
        _cancel_on_slurm(loaded, runs, named)
    stopped = 0 if named else stop_here(study)
    if stopped or not is_on_slurm:
        typer.echo(f"stopped {stopped} jobs of this machine" if stopped else f"nothing is at work on {study} here")


def _cancel_on_slurm(sweep: Sweep, runs: Path, named: list[str] | None) -> None:
    from sweeps.slurm import submissions
    from sweeps.slurm.launch import submitting
    from sweeps.watch.cancel import cancel_on_slurm
    from sweeps.watch.named_runs import find_run
    from sweeps.watch.study import read_study

    files = read_study(sweep, runs)
    names = [find_run(files, name).folder.name for name in named] if named else None
    study = runs / sweep.name
    with submitting(study):  # a submission that is under way would be cancelled in part
        done = cancel_on_slurm(study, submissions.read_all(study), files, names)
    cancelled = done.jobs
    for name, jobs in cancelled.items():
        label = visible(files[name].recipe.label) if name in files else name
        typer.echo(f"{label}: cancelled {', '.join(f'{kind} {job.id} ({job.state})' for kind, job in jobs)}")
    for name in names or ():
        if name not in cancelled:
            typer.echo(f"{visible(files[name].recipe.label)}: no job of it is queued or running")
    if done.ending:
        ids = ", ".join(job.id for job in done.ending)
        typer.echo(f"{ids}: SLURM is still ending it; it does not come back, and `submit` need not wait for it")
    if not names and not cancelled:
        typer.echo(f"no job of {sweep.name} is queued or running on SLURM")
