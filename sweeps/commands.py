"""`ditbench sweep`: plan, submit, watch, stop. Modules are loaded inside the commands: help is instant."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.terminal import WholeSentences, console
from bench.device import Device, Precision
from bench.errors import InputError, RunError
from bench.files.names import visible
from sweeps.environment import cleaned
from sweeps.options import Evaluate, RunsOption, SweepArgument
from sweeps.watch.commands import app as watch_app

if TYPE_CHECKING:
    from rich.console import Console

    from sweeps.cluster import ClusterProfile
    from sweeps.expand import Sweep
    from sweeps.planning.plan import Plan
    from sweeps.slurm.planned import Planned
    from sweeps.watch.status import RunStatus

app = typer.Typer(
    help="Many runs: plan a study, submit it to a cluster, watch it.",
    no_args_is_help=True,
    cls=WholeSentences,
    rich_markup_mode=None,
)
app.add_typer(watch_app)


ClusterOption = Annotated[
    str, typer.Option(help="A cluster profile: a shipped one's name (see `sweep list`), or its path.")
]
DeviceOption = Annotated[Device | None, typer.Option(help="Where tensors live; default: the profile's.")]
PrecisionOption = Annotated[
    Precision | None, typer.Option(help="tf32 on CUDA only, bf16 by autocast; default: the profile's.")
]
CompileOption = Annotated[
    bool | None, typer.Option("--compile/--no-compile", help="Compile each block; default: as the profile says.")
]
CheckpointOption = Annotated[
    bool | None,
    typer.Option(
        "--checkpoint-activations/--no-checkpoint-activations",
        help="Compute activations again instead of keeping them; default: as the profile says.",
    ),
]
ShardOption = Annotated[
    bool | None,
    typer.Option("--shard/--no-shard", help="Divide weights among a run's ranks; default: as the profile says."),
]
EvaluateOption = Annotated[
    Evaluate | None,
    typer.Option(help="Score in the training job, after it, or as checkpoints appear; default: the profile's."),
]
MfuOption = Annotated[
    float | None,
    typer.Option(help="Share of the peak to plan with, 0 to 1; default: as runs reached it, else the profile's."),
]
BudgetOption = Annotated[float | None, typer.Option(min=0, help="Refuse a plan of more GPU-hours; default: no limit.")]
TrackerOption = Annotated[
    list[str] | None, typer.Option(help="tensorboard or wandb, beside the metric files; default: neither.")
]


@app.command("list")
def list_shipped() -> None:
    """The sweeps and cluster profiles that come with ditbench, by name: what each is, and what it costs."""
    from sweeps import shipped
    from sweeps.listing import cluster_lines, sweep_lines

    print("Sweeps, as in `ditbench sweep plan digits`:\n")
    for line in sweep_lines():
        print(line)
    print("\nCluster profiles, as in `--cluster slurm-example`:\n")
    for line in cluster_lines():
        print(line)
    print(f"\nTheir files, to be copied: {shipped.STUDIES}, {shipped.CLUSTERS}")


@app.command()
def plan(
    sweep: SweepArgument,
    cluster: ClusterOption = "local",
    runs: RunsOption = Path("runs"),
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile_blocks: CompileOption = None,
    checkpoint_activations: CheckpointOption = None,
    shard: ShardOption = None,
    evaluate: EvaluateOption = None,
    mfu: MfuOption = None,
    budget: BudgetOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Write out the arithmetic.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """What a sweep will cost: GPU-hours, wall time and storage of what is left of it. Nothing is submitted."""
    from sweeps.expand import load_sweep
    from sweeps.planning import report as plan_report
    from sweeps.planning.plan import check_budget, check_time_known

    modes = {"compile_blocks": compile_blocks, "checkpoint_activations": checkpoint_activations, "shard": shard}
    profile = _profile(cluster, {"device": device, "precision": precision, "evaluate": evaluate, **modes})
    made = _plan(load_sweep(sweep), profile, runs, mfu)
    check_time_known(made, profile)
    if json:
        from json import dumps

        print(dumps(plan_report.as_json(made), indent=1))
    else:
        plan_report.print_plan(made)
        if explain:
            print()
            plan_report.print_explanation(made)
    if budget is not None:
        check_budget(made, budget)


@app.command()
def submit(
    sweep: SweepArgument,
    cluster: ClusterOption = "local",
    runs: RunsOption = Path("runs"),
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile_blocks: CompileOption = None,
    checkpoint_activations: CheckpointOption = None,
    shard: ShardOption = None,
    evaluate: EvaluateOption = None,
    mfu: MfuOption = None,
    budget: BudgetOption = None,
    tracker: TrackerOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and the sbatch scripts only.")] = False,
) -> None:
    """Run what is left of a sweep: finished, queued and running runs are left alone, failed ones are tried again.

    On this machine (`--cluster local`) it shows the progress and returns at the end; on SLURM, once jobs are queued.
    """
    from bench.trackers import check_installed
    from sweeps.expand import load_sweep

    modes = {"compile_blocks": compile_blocks, "checkpoint_activations": checkpoint_activations, "shard": shard}
    profile = _profile(cluster, {"device": device, "precision": precision, "evaluate": evaluate, **modes})
    loaded = load_sweep(sweep)
    trackers = tuple(tracker or ())
    check_installed(trackers)
    made = _plan(loaded, profile, runs, mfu)
    if budget is not None:
        from sweeps.planning.plan import check_budget

        check_budget(made, budget)
    if profile.executor == "slurm":
        _submit_to_slurm(loaded, sweep, profile, runs, made, trackers, dry_run)
        return
    if dry_run:
        from sweeps.planning.report import print_plan

        print_plan(made)
        return
    statuses = run_here(loaded, runs, profile, console(), trackers)
    folder = statuses[0].folder.parent
    typer.echo(f"{len(statuses)} runs finished: {folder}; next: {shlex.join(['ditbench', 'collect', str(folder)])}")


def run_here(
    sweep: Sweep, runs: Path, profile: ClusterProfile, shown: Console, trackers: tuple[str, ...] = ()
) -> list[RunStatus]:
    """Run a sweep on this machine, show its progress, and end with an error if a run failed."""
    from bench.ready import check_ready
    from sweeps.local import submit as submit_locally
    from sweeps.watch.progress import progress

    for recipe in sweep.recipes:
        check_ready(recipe, offline=True)
    if (profile.device, profile.precision) != ("cpu", "fp32"):
        from bench.parallel import prepare_device

        prepare_device(profile.device, profile.precision)  # refuse here what every job would fail with
    with progress(sweep.recipes, shown) as on_poll:
        statuses = submit_locally(
            sweep, runs, profile.device, profile.precision, on_poll, trackers, profile.modes
        )  # fmt: skip
    failed = [status for status in statuses if status.state == "failed"]
    if failed:
        reasons = "; ".join(f"{status.label}: {status.error}" for status in failed)
        raise RunError(f"{len(failed)} of {len(statuses)} runs failed, the others are finished: {reasons}")
    return statuses


@cleaned()  # submitit hands on to sbatch what it finds
def _submit_to_slurm(
    sweep: Sweep,
    path: str,
    profile: ClusterProfile,
    runs: Path,
    made: Plan,
    trackers: tuple[str, ...],
    dry_run: bool,
) -> None:
    import shutil

    from sweeps.cluster import cluster_name
    from sweeps.planning.plan import check_time_limits
    from sweeps.slurm import client, launch, submissions
    from sweeps.slurm.batch_script import check_folder
    from sweeps.slurm.ending import ending_jobs, settled_jobs
    from sweeps.slurm.planned import todo

    check_folder(runs / sweep.name)
    check_time_limits(made, profile)
    if dry_run:
        from sweeps.planning.report import print_plan

        print_plan(made)
        if shutil.which("squeue"):
            jobs = client.queued_jobs(submissions.submitters(submissions.read_all(runs / sweep.name)))
        else:
            jobs = {}
            print("\nNo squeue here: runs that are already queued or running cannot be recognised.")
        what = todo(sweep, runs, jobs)
        for array, script in launch.sbatch_scripts(sweep, runs, what, profile, client.largest_array()):
            print(f"\n# ---- {array.kind}: {len(array.group.tasks)} tasks, {_labels(array.group.tasks)}\n{script}")
        return
    client.require("sbatch")
    study = runs / sweep.name
    with launch.submitting(study):
        jobs = settled_jobs(study, submissions.read_all(study))
        submissions.adopt(study, jobs.values())
        what = todo(sweep, runs, jobs)
        left_alone = f"{what.finished} finished, {what.queued} queued or running"
        arrays = {array.name: array for record in submissions.read_all(study) for array in record.arrays}
        for job in jobs.values():
            if job.name in arrays and job.is_held:
                typer.echo(
                    f"{job.id} is held ({job.reason or job.state}): scontrol release {job.id}, or cancel its run"
                )
        if what.is_nothing:
            ending = ", ".join(job.id for job in ending_jobs(arrays, jobs))
            again = f"; {ending} is still ending: submit again when it is gone" if ending else ""
            typer.echo(f"nothing to submit: of {len(sweep.recipes)} runs {left_alone}{again}")
            return
        done = launch.submit(sweep, runs, what, profile, cluster_name(profile.where), trackers)
    for array in done.submission.arrays:
        tasks = f"an array of {len(array.tasks)}" if len(array.tasks) > 1 else "one job"
        typer.echo(f"{array.job_id}: {array.kind}, {tasks}, for {sum(map(len, array.tasks))} runs")
    if not done.left:
        also = sum(len(task.runs) for task in what.to_score_after)
        scoring = f"{len(what.to_score)} to score{f', {also} to score after their training' if also else ''}"
        typer.echo(f"{len(what.to_train)} runs to train, {scoring}; left alone: {left_alone}")
    command = ["ditbench", "sweep", "status", path, *([] if runs == Path("runs") else ["--runs", str(runs)])]
    typer.echo(f"watch them: {shlex.join([*command, '--watch'])}")
    if done.left:
        raise RunError(
            f"SLURM takes no more jobs now ({done.said}): not submitted are {_numbers(done.left)}; the same command "
            "submits them when jobs have ended"
        )


def _numbers(left: Sequence[Planned]) -> str:
    """How many runs of each kind were not submitted."""
    by_kind: dict[str, int] = {}
    for array in left:
        by_kind[array.kind] = by_kind.get(array.kind, 0) + sum(map(len, array.group.tasks))
    return " and ".join(f"the {kind} of {number} runs" for kind, number in by_kind.items())


def _labels(tasks: list[list[Any]]) -> str:
    return visible(", ".join(" + ".join(recipe.label for recipe in task) for task in tasks))


def _plan(sweep: Sweep, profile: ClusterProfile, runs: Path, mfu: float | None) -> Plan:
    from sweeps.cluster import cluster_name
    from sweeps.expand import run_folders
    from sweeps.planning.plan import plan as make_plan

    return make_plan(sweep, profile, cluster_name(profile.where), run_folders(sweep, runs), mfu, runs_folder=runs)


def _profile(cluster: str, instead: dict[str, Any]) -> ClusterProfile:
    """The profile with what the command line says instead of its keys, where that is not None."""
    from sweeps.cluster import load_cluster

    profile = load_cluster(cluster, {key: choice for key, choice in instead.items() if choice is not None})
    if instead["evaluate"] is not None and profile.executor == "local":
        raise InputError(f"--evaluate {instead['evaluate']}: only on SLURM; on this machine a run's own job scores it")
    return profile
