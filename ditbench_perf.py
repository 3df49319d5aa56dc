"""`ditbench perf`: what things cost on this machine, in turns with what people use instead.

Beside ditbench.py, because it measures all packages.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.options import DeviceOption, PrecisionOption
from bench.commands.terminal import WholeSentences
from bench.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.perf.race import Conditions
    from bench.recipe import Recipe

app = typer.Typer(
    help="What things cost on this machine, as medians of one run.",
    no_args_is_help=True,
    cls=WholeSentences,
    rich_markup_mode=None,
)

RESULTS = Path("results/perf")
TRAINING_STEPS, SAMPLING_STEPS, RANKS_STEPS = 2, 5, 5
TEXT = ("measure", "what", "setting", "contender", "alternative", "against", "verdict")  # columns

ModelOption = Annotated[list[str] | None, typer.Option("--model", help="A DiT of the paper; may be repeated.")]
BatchSizeOption = Annotated[
    list[int] | None, typer.Option("--batch-size", min=1, help="Images at a time, one for each --model.")
]
ContendersOption = Annotated[str, typer.Option(help="Any of them, with commas.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="How often each contender is measured, in turns.")]
AgainstOption = Annotated[
    Path | None, typer.Option(help="An earlier JSON file: say what has become better or worse since.")
]
OutOption = Annotated[Path, typer.Option(help="Folder for the JSON file.")]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Measure nothing: a Chrome trace of ours, and its top operators.")
]


@app.command("train")
def perf_train(
    model: ModelOption = None,
    batch_size: BatchSizeOption = None,
    sweep: Annotated[
        str | None, typer.Option(help="A sweep's YAML file, or a shipped study: its models, instead of --model.")
    ] = None,
    contenders: ContendersOption = "ours,plain,diffusers",
    rounds: RoundsOption = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps that are timed in a round.")] = TRAINING_STEPS,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    out: Annotated[Path, typer.Option(help="Folder for train.json, and for traces.")] = RESULTS,
    against: AgainstOption = None,
    profile: ProfileOption = False,
) -> None:
    """Images/s of training, beside a plain loop in the manner of DiT's official code and beside diffusers."""
    from bench.perf import settings
    from bench.perf.race import Conditions

    names, given = _named(contenders), settings.given_settings(model or [], batch_size or [])
    if sweep is not None and given:
        raise InputError(f"--sweep {sweep}: with --model; accepted: one of the two")
    recipes = _of_sweep(sweep) if sweep is not None else settings.training_recipes(given or settings.TRAIN)
    settings.check_entered(recipes, names)
    _race(recipes, Conditions("train", names, device, precision, rounds, steps), out, against, profile)


@app.command("sample")
def perf_sample(
    model: ModelOption = None,
    batch_size: BatchSizeOption = None,
    contenders: ContendersOption = "ours,plain,diffusers",
    rounds: RoundsOption = 3,
    sampler: Annotated[
        str | None, typer.Option(help="Default: that of exported pipelines; of the other, see --contenders ours,plain.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Steps of the sampler.")] = SAMPLING_STEPS,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    out: Annotated[Path, typer.Option(help="Folder for sample.json, and for traces.")] = RESULTS,
    against: AgainstOption = None,
    profile: ProfileOption = False,
) -> None:
    """Images/s of guided sampling of latents, beside the same two; equal samples on CPUs, from the same noise."""
    from bench.perf import settings
    from bench.perf.contenders import SAMPLED_BY
    from bench.perf.race import Conditions

    chosen, names = sampler or next(iter(SAMPLED_BY)), _named(contenders)
    if chosen not in SAMPLED_BY:
        raise InputError(f"--sampler {chosen}: accepted: {', '.join(SAMPLED_BY)}")
    if not {*names} <= {*SAMPLED_BY[chosen]}:
        able = ",".join(SAMPLED_BY[chosen])
        raise InputError(f"--contenders {contenders}: accepted with --sampler {chosen}: any of {able}")
    given = settings.given_settings(model or [], batch_size or []) or settings.SAMPLE
    recipes = settings.sampling_recipes(given, chosen, steps)
    _race(recipes, Conditions("sample", names, device, precision, rounds, repeats=1), out, against, profile)


@app.command("ranks")
def perf_ranks(
    sweep: Annotated[str, typer.Argument(help="A sweep's YAML file, or a shipped study.")] = "digits",
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is measured, in turns.")] = 9,
    steps: Annotated[int, typer.Option(min=1, help="Training steps at a time.")] = RANKS_STEPS,
    out: OutOption = RESULTS,
    against: AgainstOption = None,
) -> None:
    """A training step by two processes beside one, on CPUs, and beside half of the work and the sum of gradients."""
    _report("ranks", partial(_ranks, sweep, rounds, steps), out, against)


@app.command("scores")
def perf_scores(
    rounds: RoundsOption = 5, device: DeviceOption = "cpu", out: OutOption = RESULTS, against: AgainstOption = None
) -> None:
    """The Fréchet distance beside torch-fidelity's and a matrix root; Inception's features beside torch-fidelity's."""
    _report("scores", partial(_scores, rounds, device), out, against)


@app.command("data")
def perf_data(
    rounds: RoundsOption = 5, device: DeviceOption = "cpu", out: OutOption = RESULTS, against: AgainstOption = None
) -> None:
    """Reading latents beside copying them; encoding and decoding beside the autoencoder alone."""
    _report("data", partial(_data, rounds, device), out, against)


@app.command("launch")
def perf_launch(rounds: RoundsOption = 5, out: OutOption = RESULTS, against: AgainstOption = None) -> None:
    """Status, plan and dry submission of a sweep of 1,000 runs."""
    _report("launch", partial(_launch, rounds), out, against)


@app.command("commands")
def perf_commands(rounds: RoundsOption = 5, out: OutOption = RESULTS, against: AgainstOption = None) -> None:
    """Help, counts, figures of the published tables, tables of 1,000 runs; importing what they need."""
    _report("commands", partial(_commands, rounds), out, against)


@app.command("fits")
def perf_fits(rounds: RoundsOption = 3, out: OutOption = RESULTS, against: AgainstOption = None) -> None:
    """Fits of L(N, D) and their bootstrap refits, by least squares of logs and by the log-Huber loss."""
    _report("fits", partial(_fits, rounds), out, against)


@app.command("all")
def perf_all(
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured, in turns.")] = 3,
    out: OutOption = RESULTS,
    against: Annotated[
        Path | None, typer.Option(help="A folder of earlier JSON files: say what has become better or worse since.")
    ] = None,
) -> None:
    """All of these on the CPU, and one table of it; tens of minutes, during which nothing else should run."""
    from bench.files.atomic import write_json
    from bench.perf.document import read_document, table
    from bench.perf.verdict import verdicts

    before = {kind: read_document(against / f"{kind}.json", kind) for kind in MEASURED} if against else {}
    documents = {}
    for kind, measure in MEASURED.items():
        typer.echo(kind, err=True)
        documents[kind] = measure(rounds)
        write_json(out / f"{kind}.json", documents[kind])
    _print(table(documents.values()))
    if before:
        typer.echo(f"\nAgainst {against}: our time over theirs, and its change")
        found = {kind: verdicts(document, before[kind]) for kind, document in documents.items()}
        _print([{"measure": kind, **verdict.in_words()} for kind, those in found.items() for verdict in those])
    typer.echo(out)


def _train(rounds: int) -> dict[str, Any]:
    from bench.perf import race, settings
    from bench.perf.contenders import CONTENDERS

    conditions = race.Conditions("train", CONTENDERS, "cpu", "fp32", rounds, TRAINING_STEPS)
    return race.race(settings.training_recipes(settings.TRAIN), conditions, _say)


def _sample(rounds: int) -> dict[str, Any]:
    from bench.perf import race, settings
    from bench.perf.contenders import CONTENDERS, SAMPLED_BY

    recipes = settings.sampling_recipes(settings.SAMPLE, next(iter(SAMPLED_BY)), SAMPLING_STEPS)
    return race.race(recipes, race.Conditions("sample", CONTENDERS, "cpu", "fp32", rounds, repeats=1), _say)


def _ranks(sweep: str, rounds: int, steps: int) -> dict[str, Any]:
    from bench.perf.ranks import ranks_measured
    from sweeps.expand import load_sweep

    return ranks_measured(load_sweep(sweep).recipes, rounds, steps, _say)


def _scores(rounds: int, device: str = "cpu") -> dict[str, Any]:
    from bench.parallel import prepare_device
    from bench.perf.frechet import frechet_distances
    from bench.perf.inception import inception_features
    from bench.perf.turns import measured

    where = prepare_device(device, "fp32")
    with TemporaryDirectory() as folder:
        measures = [frechet_distances(), inception_features(Path(folder), where)]
        return measured("scores", measures, rounds, _say, where)


def _data(rounds: int, device: str = "cpu") -> dict[str, Any]:
    from bench.parallel import prepare_device
    from bench.perf.latents import latents_read
    from bench.perf.turns import measured
    from bench.perf.vae import vae_measures

    where = prepare_device(device, "fp32")
    with TemporaryDirectory() as latents, TemporaryDirectory() as photos:
        measures = [latents_read(Path(latents)), *vae_measures(Path(photos), where)]
        return measured("data", measures, rounds, _say, where)


def _launch(rounds: int) -> dict[str, Any]:
    from bench.perf.turns import measured
    from sweeps.perf import launching

    with TemporaryDirectory() as folder:
        return measured("launch", launching(Path(folder)), rounds, _say)


def _commands(rounds: int) -> dict[str, Any]:
    from pkgutil import walk_packages

    import analysis
    from bench.perf.commands import commands, write_sweep
    from bench.perf.turns import measured
    from sweeps.expand import load_sweep

    modules = [module.name for module in walk_packages(analysis.__path__, "analysis.")]
    users = [name for name in modules if not name.startswith("analysis.notebooks")]  # need packages for development
    with TemporaryDirectory() as folder, TemporaryDirectory() as sweep:
        runs = write_sweep(Path(sweep), load_sweep("digits").recipes)
        return measured("commands", commands(Path(folder), Path(sweep), runs, users), rounds, _say)


def _fits(rounds: int) -> dict[str, Any]:
    from analysis.perf import fits
    from bench.perf.document import OURS
    from bench.perf.turns import Measure, measured, timed

    return measured("fits", [Measure(what, timed({OURS: fitted})) for what, fitted in fits().items()], rounds, _say)


MEASURED: dict[str, Callable[[int], dict[str, Any]]] = {
    "train": _train,
    "sample": _sample,
    "ranks": lambda rounds: _ranks("digits", rounds, RANKS_STEPS),
    "scores": _scores,
    "data": _data,
    "launch": _launch,
    "commands": _commands,
    "fits": _fits,
}


def _of_sweep(sweep: str) -> list[Recipe]:
    """One recipe for each label."""
    from sweeps.expand import load_sweep

    first: dict[str, Recipe] = {}
    for recipe in load_sweep(sweep).recipes:
        first.setdefault(recipe.label, recipe)
    return [*first.values()]


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _named(contenders: str) -> tuple[str, ...]:
    """Contenders, of words with commas."""
    from bench.perf.contenders import CONTENDERS, WITHOUT

    names, known = tuple(name.strip() for name in contenders.split(",")), (*CONTENDERS, *WITHOUT)
    if len({*names}) < len(names) or not {*names} <= {*known}:
        raise InputError(f"--contenders {contenders}: accepted: any of {','.join(known)}, each once")
    return names


def _race(
    recipes: Sequence[Recipe], conditions: Conditions, out: Path, against: Path | None, only_profile: bool
) -> None:
    """Measure, print and write as JSON; or print a profile and write its traces."""
    from bench.perf import race

    if only_profile:
        for trace, operators in race.profile(recipes, conditions, out).items():
            typer.echo(f"{operators}\n{trace}")
        return
    measure = partial(race.race, recipes, conditions, _say)
    _report(conditions.kind, measure, out, against, race.table)


def _report(
    kind: str,
    measure: Callable[[], dict[str, Any]],
    out: Path,
    against: Path | None,
    table: Callable[[dict[str, Any]], list[dict[str, str]]] | None = None,
) -> None:
    """Measure, print as a table, write as JSON, and judge against an earlier file."""
    from bench.files.atomic import write_json
    from bench.perf import document, verdict

    before = None if against is None else document.read_document(against, kind)  # before it is written over
    found = measure()
    path = out / f"{kind}.json"
    write_json(path, found)
    _print(document.table([found]) if table is None else table(found))
    typer.echo(document.rates_in_words(found))
    if before is not None:
        typer.echo(f"\nAgainst {against}: our time over theirs, and its change")
        _print([one.in_words() for one in verdict.verdicts(found, before)])
    typer.echo(path)


def _print(rows: list[dict[str, str]]) -> None:
    from bench.commands.text_table import print_table

    print_table(list(rows[0]), [list(row.values()) for row in rows], [name in TEXT for name in rows[0]])
