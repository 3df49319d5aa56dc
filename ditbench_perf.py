"""`ditbench perf`: what things cost on this machine, as ratios of medians measured in one run.

Beside ditbench.py, because it measures all packages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import DeviceOption, PrecisionOption
from bench.commands.terminal import WholeSentences

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

ModelOption = Annotated[list[str] | None, typer.Option("--model", help="A DiT of the paper; may be repeated.")]
BatchSizeOption = Annotated[
    list[int] | None, typer.Option("--batch-size", min=1, help="Images at a time, one for each --model.")
]
ContendersOption = Annotated[str, typer.Option(help="Any of them, with commas.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="How often each contender is measured, in turns.")]
AgainstOption = Annotated[
    Path | None, typer.Option(help="An earlier JSON file: say what has become better or worse since.")
]
ProfileOption = Annotated[
    bool, typer.Option("--profile", help="Measure nothing: a Chrome trace of ours, and its top operators.")
]


@app.command("train")
def perf_train(
    model: ModelOption = None,
    batch_size: BatchSizeOption = None,
    contenders: ContendersOption = "ours,plain,diffusers",
    rounds: RoundsOption = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps that are timed in a round.")] = 2,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    out: Annotated[Path, typer.Option(help="Folder for train.json, and for traces.")] = Path("results/perf"),
    against: AgainstOption = None,
    profile: ProfileOption = False,
) -> None:
    """Images/s of training, beside a plain loop in the manner of DiT's official code and beside diffusers."""
    from bench.perf import settings
    from bench.perf.race import Conditions

    recipes = settings.training_recipes(settings.given_settings(model or [], batch_size or []) or settings.TRAIN)
    conditions = Conditions("train", _named(contenders), device, precision, rounds, steps)
    _race(recipes, conditions, out, against, profile)


@app.command("sample")
def perf_sample(
    model: ModelOption = None,
    batch_size: BatchSizeOption = None,
    contenders: ContendersOption = "ours,plain,diffusers",
    rounds: RoundsOption = 3,
    sampler: Annotated[
        str | None, typer.Option(help="Default: that of exported pipelines; of the other, see --contenders ours,plain.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Steps of the sampler.")] = 5,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    out: Annotated[Path, typer.Option(help="Folder for sample.json, and for traces.")] = Path("results/perf"),
    against: AgainstOption = None,
    profile: ProfileOption = False,
) -> None:
    """Images/s of guided sampling of latents, beside the same two; equal samples on CPUs, from the same noise."""
    from bench.errors import InputError
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
    sweep: Annotated[Path, typer.Argument(help="A sweep's YAML file, or a shipped study.")] = Path("digits"),
    rounds: Annotated[int, typer.Option(min=1, help="How often each way is measured, in turns.")] = 9,
    steps: Annotated[int, typer.Option(min=1, help="Training steps at a time.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for ranks.csv.")] = Path("results/perf"),
) -> None:
    """A training step by two processes against one, on CPUs: what the sum of gradients costs, and what is left."""
    from bench.perf.ranks import as_row, ranks_cost
    from sweeps.expand import load_sweep

    rows = [as_row(ranks_cost(recipe, rounds, steps)) for recipe in load_sweep(sweep).recipes]
    _report(rows, out / "ranks.csv")


@app.command("status")
def perf_status(
    runs: Annotated[int, typer.Option(min=1, help="Runs of the sweep that is looked at.")] = 1000,
    rows: Annotated[int, typer.Option(min=1, help="Lines of each run's train.jsonl.")] = 100_000,
    repeats: Annotated[int, typer.Option(min=1, help="How often `ditbench sweep status` is timed.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for status.csv.")] = Path("results/perf"),
) -> None:
    """How long `ditbench sweep status` takes for many runs with long metric files."""
    from sweeps.perf import status_cost

    _report([status_cost(runs, rows, repeats)], out / "status.csv")


@app.command("frechet")
def perf_frechet(
    dim: Annotated[int, typer.Option(min=2, help="Size of a feature; Inception's is 2048.")] = 2048,
    num_samples: Annotated[int, typer.Option(min=2, help="Features that each covariance is made of.")] = 10_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often ours is timed.")] = 5,
    torch_fidelity_rounds: Annotated[int, typer.Option(min=1, help="How often torch-fidelity's is.")] = 5,
    sqrtm_rounds: Annotated[int, typer.Option(min=1, help="How often the matrix root is.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for frechet.csv.")] = Path("results/perf"),
) -> None:
    """The Fréchet distance against torch-fidelity's and against scipy's matrix root."""
    from bench.perf.frechet import frechet_cost
    from bench.perf.ranks import as_row

    cost = frechet_cost(dim, num_samples, rounds, torch_fidelity_rounds, sqrtm_rounds)
    _report([as_row(cost)], out / "frechet.csv")


@app.command("latents")
def perf_latents(
    latents: Annotated[int, typer.Option(min=256, help="Size of the set; 32 KiB each.")] = 16_384,
    batch_size: Annotated[int, typer.Option(min=1, help="Latents a batch.")] = 256,
    rounds: Annotated[int, typer.Option(min=1, help="How often the set is read, each way in turn.")] = 7,
    out: Annotated[Path, typer.Option(help="Folder for latents.csv.")] = Path("results/perf"),
) -> None:
    """Reading latents of 32x32x4 from the page cache: latents/s, against a plain copy of the same bytes."""
    from bench.perf.latents import latents_cost
    from bench.perf.ranks import as_row

    _report([as_row(latents_cost(latents, batch_size, rounds))], out / "latents.csv")


@app.command("vae")
def perf_vae(
    vae: Annotated[
        Path | None, typer.Option(help="An AutoencoderKL's folder; default: Stable Diffusion's, random weights.")
    ] = None,
    image_size: Annotated[int, typer.Option(min=8, help="Pixels a side.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 3,
    device: DeviceOption = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for vae.csv.")] = Path("results/perf"),
) -> None:
    """Which share of the time to encode, and to decode, is the autoencoder's."""
    from bench.parallel import prepare_device
    from bench.perf.ranks import as_row
    from bench.perf.vae import vae_cost

    where = prepare_device(device, "fp32")
    _report([as_row(vae_cost(vae, image_size, batch_size, rounds, where))], out / "vae.csv")


@app.command("collect")
def perf_collect(
    runs: Annotated[int, typer.Option(min=1, help="Run folders that are collected.")] = 1000,
    rows: Annotated[int, typer.Option(min=1, help="Lines of each run's train.jsonl.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="How often `ditbench collect` is timed.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for collect.csv.")] = Path("results/perf"),
) -> None:
    """How long `ditbench collect` takes for many runs."""
    from bench.perf.ranks import as_row
    from bench.perf.results import collect_cost
    from sweeps.expand import load_sweep

    models = load_sweep("digits").recipes
    _report([as_row(collect_cost(models, runs, rows, rounds))], out / "collect.csv")


@app.command("figures")
def perf_figures(
    rounds: Annotated[int, typer.Option(min=1, help="How often `ditbench figure all` is timed.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for figures.csv.")] = Path("results/perf"),
) -> None:
    """How long `ditbench figure all --source published` takes."""
    from bench.perf.ranks import as_row
    from bench.perf.results import figures_cost

    _report([as_row(figures_cost(rounds))], out / "figures.csv")


@app.command("imports")
def perf_imports(
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    out: Annotated[Path, typer.Option(help="Folder for imports.csv.")] = Path("results/perf"),
) -> None:
    """How long importing all of `analysis` takes, against the libraries alone that it needs."""
    from pkgutil import walk_packages

    import analysis
    from bench.perf.ranks import as_row
    from bench.perf.results import imports_cost

    modules = [module.name for module in walk_packages(analysis.__path__, "analysis.")]
    users = [name for name in modules if not name.startswith("analysis.notebooks")]  # need packages for development
    _report([as_row(imports_cost(users, rounds))], out / "imports.csv")


@app.command("fits")
def perf_fits(
    rows: Annotated[int, typer.Option(min=10, help="Simulated runs.")] = 240,
    replicates: Annotated[int, typer.Option(min=1, help="Bootstrap refits.")] = 4000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each objective is timed.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for fits.csv.")] = Path("results/perf"),
) -> None:
    """Bootstrap refits of L(N, D), by least squares of logs and by the log-Huber loss."""
    from analysis.perf import fits_cost
    from bench.perf.ranks import as_row

    costs = [fits_cost(objective, "bootstrap", rows, replicates, rounds) for objective in ("logs", "log-huber")]
    _report([as_row(cost) for cost in costs], out / "fits.csv")


def _named(contenders: str) -> tuple[str, ...]:
    """Contenders, of words with commas."""
    from bench.errors import InputError
    from bench.perf.contenders import CONTENDERS

    names = tuple(name.strip() for name in contenders.split(","))
    if len({*names}) < len(names) or not {*names} <= {*CONTENDERS}:
        raise InputError(f"--contenders {contenders}: accepted: any of {','.join(CONTENDERS)}, each once")
    return names


def _race(
    recipes: Sequence[Recipe], conditions: Conditions, out: Path, against: Path | None, only_profile: bool
) -> None:
    """Measure, print and write as JSON; or print a profile and write its traces."""
    from bench.files.atomic import write_json
    from bench.perf import race, verdict

    if only_profile:
        for trace, operators in race.profile(recipes, conditions, out).items():
            typer.echo(f"{operators}\n{trace}")
        return
    before = None if against is None else verdict.read_race(against)  # before it is written over
    document = race.race(recipes, conditions, lambda line: typer.echo(line, err=True))
    path = out / f"{conditions.kind}.json"
    write_json(path, document)
    _print(race.table(document))
    typer.echo(race.rates_in_words(document))
    if before is not None:
        typer.echo(f"\nAgainst {against}: our time over theirs, and its change")
        _print([found.in_words() for found in verdict.verdicts(document, before)])
    typer.echo(path)


def _print(rows: list[dict[str, str]]) -> None:
    from bench.commands.text_table import print_table

    print_table(list(rows[0]), [list(row.values()) for row in rows], [index == 0 for index in range(len(rows[0]))])


def _report(rows: list[dict[str, str]], path: Path) -> None:
    """Print a table and write it as csv."""
    import csv

    _print(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    typer.echo(path)
