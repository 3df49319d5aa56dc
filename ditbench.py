"""The command line: the one file that knows all packages. They are loaded inside the commands: help is instant."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from analysis.commands import advise as advise_command
from analysis.commands import figure as figure_command
from analysis.commands.compare import compare
from analysis.commands.fit import fit
from analysis.commands.paper import paper
from analysis.commands.table import table
from analysis.errors import ResultsError, about
from bench.commands.assets import doctor, prepare
from bench.commands.encode import encode
from bench.commands.export import export
from bench.commands.images import export_samples
from bench.commands.options import (
    CheckpointOption,
    CompileOption,
    DeviceOption,
    OfflineOption,
    PrecisionOption,
    ShardOption,
)
from bench.commands.reference import reference
from bench.commands.samples import evaluate, sample
from bench.commands.search import TakesIntervals, search
from bench.commands.terminal import UsageError, WholeSentences, console, protected, usage_line
from bench.errors import InputError, RunError
from bench.files.names import visible
from bench.stopping import STOPPED, Stopped
from ditbench_baselines import baselines, make_baselines
from ditbench_coordinates import coordinates
from ditbench_flops import flops
from ditbench_ladders import judge, ladder, write_longer
from ditbench_perf import app as perf_app
from ditbench_try import try_part
from models.parts import Seam, forbid_own_parts, line_of, said
from sweeps.commands import RunsOption, TrackerOption, run_here
from sweeps.commands import app as sweep_app

if TYPE_CHECKING:
    from analysis.results.tables import Tables

app = typer.Typer(
    help="Scaling-law and ablation benchmarks for Diffusion Transformers.",
    no_args_is_help=True,
    cls=WholeSentences,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: loading rich would take half of its time
    add_completion=False,
    context_settings={"color": True},  # none is used, so that what looks like it belongs to a name, and stays
)
app.add_typer(sweep_app, name="sweep")
app.add_typer(perf_app, name="perf")
for command in (
    prepare,
    doctor,
    encode,
    sample,
    evaluate,
    reference,
    baselines,
    coordinates,
    export,
    export_samples,
    figure_command.figure,
    fit,
    compare,
    ladder,
    advise_command.advise,
    judge,
    table,
    paper,
):
    app.command()(command)
app.command(cls=TakesIntervals)(search)
app.command("try")(try_part)
# What is none of its options may be a field of a model's family.
app.command(context_settings={"ignore_unknown_options": True})(flops)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from bench.provenance import commit

        at = commit()  # of a checkout, or of a job's copy of one
        typer.echo(f"ditbench {version('ditbench')}{f' ({at})' if at else ''}")
        raise typer.Exit


@app.callback()
def before_all(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
    no_own_parts: Annotated[
        bool,
        typer.Option(
            "--no-own-parts",
            help="Import nothing that a recipe or an option names by module:Name: for strangers' recipes.",
        ),
    ] = False,
) -> None:
    if no_own_parts:
        forbid_own_parts()


def _own_figure(path: str) -> Any:
    try:
        return Seam("figure", "NAME", builtin={}, contract=("__call__",)).find(path)
    except ValueError as error:
        raise InputError(str(error)) from None


def _training_speed(cluster: str) -> tuple[float, str]:
    from sweeps.cluster import load_cluster
    from sweeps.planning.speeds import expected_training_speed

    speed = expected_training_speed(load_cluster(cluster))
    return 1e12 * speed.tflops, f"{speed.peak_tflops:g} TFLOP/s x {speed.mfu:.3g}: {speed.source}"


figure_command.find_own = _own_figure
advise_command.training_speed = _training_speed
advise_command.write_sweep = write_longer


@app.command("run")
def run_command(
    recipe: Annotated[Path, typer.Argument(help="A recipe's YAML file.")],
    folder: Annotated[Path | None, typer.Option(help="The run folder; default: runs/single/<label>-<id>.")] = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    compile_blocks: CompileOption = False,
    checkpoint_activations: CheckpointOption = False,
    shard: ShardOption = False,
    tracker: TrackerOption = None,
    offline: OfflineOption = False,
) -> None:
    """Train, sample and score one recipe. Interrupted, it continues when the same command runs again.

    Under torchrun its processes share the run. SIGUSR2 or SIGTERM: it saves its work and ends with status 85.
    """
    import signal

    from bench.files.run_folder import clear_error, write_config
    from bench.recipe import load_recipe
    from bench.stopping import StopRequest
    from bench.trackers import check_installed

    stop = StopRequest().on(signal.SIGUSR2, signal.SIGTERM)
    loaded = load_recipe(recipe)
    folder = folder or Path("runs/single") / loaded.folder_name
    check_installed(tracker or ())
    from bench.commands.progress import training_progress
    from bench.device import Modes, check_modes
    from bench.parallel import Execution, joined
    from bench.ready import check_ready
    from bench.run import run

    modes = Modes(compile_blocks, checkpoint_activations, shard)
    with joined(device) as ranks:

        def begin() -> None:
            check_modes(modes, loaded.model.name, ranks.world_size, str(recipe))
            check_ready(loaded, offline)
            write_config(loaded, folder)
            clear_error(folder)

        ranks.do_on_first(begin)
        shown = console()
        shown.quiet = not ranks.is_first
        with training_progress(shown, loaded.label or loaded.model.name, loaded.train.steps) as on_log:
            how = Execution(
                device,
                precision,
                ranks,
                stop,
                offline=offline,
                trackers=tuple(tracker or ()),
                on_log=on_log,
                modes=modes,
            )
            run(folder, folder.parent, how)
    shown.print(visible(str(folder)), soft_wrap=True)


@app.command()
def collect(
    folder: Annotated[
        Path,
        typer.Argument(help="A sweep's folder of runs, such as runs/digits, or the sweep as `ditbench sweep` has it."),
    ],
    out: Annotated[Path | None, typer.Option(help="Where the tables go; default: results/<sweep>.")] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Make tidy tables (csv and parquet) from run folders."""
    import gc

    from analysis.results import tables
    from bench.files.run_files import read_records

    folder = _folder_of_runs(folder, runs)
    out = out or Path("results") / folder.resolve().name
    gc.disable()  # it would look through millions of cells, again and again, for circles that there are not
    collected = tables.collect(read_records(folder), out)
    others = f" and {len(collected.other_evals)} with other settings" if len(collected.other_evals) else ""
    typer.echo(f"{len(collected.runs)} runs, {len(collected.evals)} scores{others}: {out}")
    _print_published(collected)


def _folder_of_runs(given: Path, runs: Path) -> Path:
    """A folder as it is given, or that of a sweep that is given by its file or its name."""
    from sweeps.expand import find_study, load_sweep

    if not given.is_dir():
        with contextlib.suppress(InputError):
            return runs / load_sweep(find_study(given)).name
    return given


@app.command()
def verify(
    paths: Annotated[list[Path], typer.Argument(help="Run folders, a sweep's folder of runs, folders of results.")],
) -> None:
    """Recompute what is cheap of runs and results, and name every mismatch. Status 1 where there is one."""
    mismatches = 0
    for path in paths:
        found = 0
        for what, problems in _checks(path):
            found += 1
            mismatches += len(problems)
            typer.echo(what if not problems else f"{what}: MISMATCH")
            for problem in problems:
                typer.echo(f"  {problem}")
        if not found:
            raise InputError(
                f"{path}: nothing to verify; accepted: a run folder, a folder of runs, a folder of results"
            )
    if mismatches:
        raise RunError(f"{mismatches} mismatches, listed above")
    typer.echo("no mismatch")


def _checks(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Of a run, of all runs in a folder, or of results and the results in their folders."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; accepted: a run folder, a folder of runs, a folder of results")
    runs = [path] if (path / "config.yaml").exists() else sorted(config.parent for config in path.glob("*/config.yaml"))
    if runs:
        from bench.files.verify_run import verify_run

        for run in runs:
            yield from verify_run(run)
        return
    from analysis.results.verify import verify_results

    yield from verify_results(path)
    for folder in sorted(inner for inner in path.iterdir() if inner.is_dir() and not inner.name.startswith((".", "_"))):
        yield from _checks(folder)


@app.command()
def report(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A folder that `ditbench collect` made, or its name in results/.")
    ],
    runs: Annotated[
        Path | None, typer.Option(help="The folder it was collected from: recipes, versions, hours, failures.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="What `ditbench sweep plan --json` printed before the first start.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file or folder to write to; default: report.html beside the tables.")
    ] = None,
) -> None:
    """A study as one HTML page to send: its answer, charts, tables, laws, protocol, recipe, hours, what failed."""
    from analysis.report.write import write_report
    from analysis.results.named import results_folder
    from bench.files.run_files import read_records

    results = results_folder(data)
    if results is None:
        raise ResultsError(f"{data}: a page is of runs; accepted: a folder that `ditbench collect` made")
    out = out or results
    records = read_records(runs) if runs else None
    with about(results):
        typer.echo(write_report(results, out / "report.html" if out.is_dir() else out, records, plan))


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Six models instead of twelve.")] = False,
    runs: RunsOption = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Tables and pictures; default: results/demo, or results/quick.")
    ] = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
) -> None:
    """The paper's scaling study in miniature, on real images, on this machine: train, score, draw, report."""
    import sweeps

    name = "digits-quick" if quick else "first"
    out = out or Path("results") / ("quick" if quick else "demo")
    path = Path(sweeps.__file__).parent / "studies" / f"{name}.yaml"
    typer.echo(
        "Training small Diffusion Transformers on scikit-learn's digits and scoring their samples.\n"
        "It can be interrupted: the same command continues.\n"
    )
    from sweeps.cluster import ClusterProfile
    from sweeps.expand import load_sweep

    profile = ClusterProfile(executor="local", device=device, precision=precision)
    sweep = load_sweep(path)
    run_here(sweep, runs, profile, console())
    make_baselines(sweep.recipes, runs / name, out, device=device)
    from analysis import figures
    from analysis.results import tables
    from bench.files.run_files import read_records

    collected = tables.collect(read_records(runs / name), out)
    _print_summary(collected)
    for picture in figures.draw_all(collected, out):
        typer.echo(picture)
    from analysis.report.write import write_report

    page = write_report(out, out / "report.html", read_records(runs / name))
    typer.echo(f"\nEverything on one page, for a browser: {page}")


def _print_published(tables: Tables) -> None:
    """Published scores beside ours, and why a score at a published step is not compared."""
    from analysis.compare import beside_published
    from analysis.results.published import near_misses
    from analysis.results.visible import visible_names
    from bench.commands.text_table import print_table

    rows = beside_published.published_table(tables)
    if rows:
        typer.echo("\nPublished and ours, under the same conditions:")
        text = [heading in beside_published.TEXT_HEADINGS for heading in beside_published.HEADINGS]
        print_table(list(beside_published.HEADINGS), rows, text)
        for line in beside_published.notes(rows):
            typer.echo(f"\n{line}")
    missed = near_misses(visible_names(tables))
    for row in beside_published.at_published_steps(missed).to_dict("records"):
        typer.echo(
            f"not compared: {row['label']} at step {row['step']} with {row['source']}: {row['condition']} is "
            f"{row['ours']}, published {row['published']}"
        )


def _print_summary(tables: Tables) -> None:
    """The scores at the last step, and how they follow compute."""
    from analysis.results.baselines import beside, name_of
    from analysis.results.tables import correlations, summary
    from bench.commands.text_table import print_table

    rows = [[_cell(column, row[column]) for column in SUMMARY_COLUMNS] for row in summary(tables).to_dict("records")]
    for row in beside(tables.baselines, tables.evals).to_dict("records"):
        row["label"] = name_of(row["baseline"])
        rows.append([_cell(column, row[column]) if column in row else "" for column in SUMMARY_COLUMNS])
    typer.echo("\nScores at the last step (EMA weights):")
    print_table(list(SUMMARY_COLUMNS.values()), rows, [column == "label" for column in SUMMARY_COLUMNS])
    last = correlations(tables.evals).groupby("seed").last()
    for seed, row in last.iterrows():
        typer.echo(
            f"\nseed {seed}: correlation of log10 GMACs with the Fréchet distance over {row['num_models']:.0f} models: "
            f"{row['r']:.3f}; more compute scores better in {row['patch_pairs_right']:.0f} of {row['patch_pairs']:.0f} "
            f"patch pairs and {row['size_pairs_right']:.0f} of {row['size_pairs']:.0f} size pairs\n"
        )


SUMMARY_COLUMNS = {
    "label": "model",
    "params": "parameters",
    "gmacs": "MMACs",
    "loss": "loss",
    "fid": "Fréchet",
    "fid_percent": "% of trace",
    "kid": "KID",
    "inception_score": "IS",
    "precision": "precision",
    "recall": "recall",
}


def _cell(column: str, value: object) -> str:
    if isinstance(value, float):
        return f"{1000 * value:.3f}" if column == "gmacs" else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@protected()
def main() -> None:
    """The console script: one line on stderr where it ends early, nothing where nobody reads on (`| head`).

    Status 2: bad input; 1: a run failed; 85: stopped by a signal, all saved; 130: interrupted by Ctrl-C.
    """
    os.environ.pop("SOURCE_DATE_EPOCH", None)  # what is no number ends the import of scipy; nothing here has a date
    try:
        _run()
    finally:
        _flush()


def _flush() -> None:
    """Write what is left to be written, of which Python would say at its end that it cannot be."""
    ended = sys.exc_info()[1]
    # One is None where it is closed from the start (`>&-`).
    for stream in [stream for stream in (sys.stdout, sys.stderr) if stream is not None]:
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            has_said = isinstance(ended, SystemExit) and ended.code
            if not isinstance(error, BrokenPipeError) and not has_said:
                _fail(f"{stream.name}: {error.strerror}", 2)


def _run() -> None:
    try:
        status = app(prog_name="ditbench", standalone_mode=False)
    except Stopped as stopped:
        _fail(f"{stopped}; the same command continues", STOPPED)
    except (InputError, RunError) as error:
        _fail(str(error), 1 if isinstance(error, RunError) else 2)
    except UsageError as error:
        line = usage_line(error)
        if line is not None:
            _fail(line, 2)
        error.show()
        sys.exit(2)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error), 2)
    except ResultsError as error:
        _fail(str(error), 2)
    except Exception as error:
        if not line_of(error):
            raise
        _fail(said(error), 2)  # of a part of the user's own
    # typer turns Ctrl-C into status 130 without a word.
    if status == 130:
        _fail("interrupted; what was saved stays, and the same command continues", 130)
    sys.exit(status or 0)


def _fail(message: str, status: int) -> NoReturn:
    with contextlib.suppress(OSError):  # nobody reads, or the disk is full; the status says enough
        line = " ".join(filter(None, map(str.strip, message.splitlines())))
        print(f"ditbench: {visible(line)}", file=sys.stderr)
    sys.exit(status)
