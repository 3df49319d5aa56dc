"""`ditbench baselines`: scores of images that no network made, in the table that figures take their level lines from.

Beside ditbench.py, because it scores by `bench`, finds sweeps, and writes for `analysis`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.options import DeviceOption, OfflineOption
from bench.commands.terminal import console
from bench.device import Device
from bench.errors import InputError
from sweeps.options import RunsOption

if TYPE_CHECKING:
    import pandas as pd

    from bench.recipe import Recipe
    from bench.stopping import StopRequest

DRAWS = 5
COLUMNS = {
    "fid": "Fréchet",
    "fid_percent": "% of trace",
    "kid": "KID",
    "inception_score": "IS",
    "precision": "precision",
    "recall": "recall",
}


def baselines(
    what: Annotated[
        str,
        typer.Argument(
            help="Whose scores they stand beside: a sweep (a file, or a shipped one's name), a recipe's file, a run "
            "folder, or a folder of runs."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The results folder that baselines.csv goes to; default: results/<sweep>.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, max=1000, help="How often each is drawn and scored.")] = DRAWS,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of what is drawn.")] = 0,
    runs: RunsOption = Path("runs"),
    device: DeviceOption = "cpu",
    offline: OfflineOption = False,
) -> None:
    """Score what needs no network, by a study's own evaluation: how good is good.

    Gaussians fitted to each class of the training images, one half of the real images against the other, and as many
    real images as a model makes samples. Figures of the results folder have them as level lines, tables as rows.
    """
    import signal

    from bench.stopping import StopRequest

    stop = StopRequest().on(signal.SIGUSR2, signal.SIGTERM)
    recipes, study = _study(what, runs)
    out = out or Path("results") / study.resolve().name
    made = make_baselines(recipes, study, out, draws, seed, device, offline, stop)
    print_baselines(made)
    typer.echo(out / "baselines.csv")


def make_baselines(
    recipes: Sequence[Recipe],
    study: Path,
    out: Path,
    draws: int = DRAWS,
    seed: int = 0,
    device: Device = "cpu",
    offline: bool = False,
    stop: StopRequest | None = None,
) -> pd.DataFrame:
    """Score the baselines of `recipes` and write baselines.csv into `out`; features are those of the folder `study`.

    Raises:
        InputError, MissingAsset, Stopped: as `bench.score.baselines`.
    """
    import pandas as pd

    from analysis.results.baselines import FILE, read_baselines
    from analysis.results.files import write_csv
    from bench.parallel import prepare_device
    from bench.score.baselines import conditions, score_baselines
    from bench.stopping import StopRequest

    under = conditions(recipes)
    on = prepare_device(device, "fp32")
    features = study / "features"
    for folder in (features, out):  # what cannot be written to is refused before anything is scored
        folder.mkdir(parents=True, exist_ok=True)
    stop = stop or StopRequest()
    with console(stderr=True).status("baselines") as status:
        rows = [
            row
            for each in under
            for row in score_baselines(each, features, draws, seed, on, offline, stop, status.update)
        ]
    return read_baselines(write_csv(out / FILE, pd.DataFrame(rows)))


def print_baselines(made: pd.DataFrame) -> None:
    """A table for each of the conditions of scores that they stand beside."""
    from analysis.results.baselines import KEY, name_of
    from bench.commands.text_table import print_table

    groups: Any = made.groupby([*KEY], sort=False)
    for _, rows in groups:
        first = rows.iloc[0]
        typer.echo(
            f"Beside scores of {first['num_samples']:,} samples with {first['labels']} labels against "
            f"{first['reference']}, features of {first['extractor']}; means of {first['draws']} draws:"
        )
        columns = {name: title for name, title in COLUMNS.items() if name in rows and rows[name].notna().any()}
        lines = [
            [
                name_of(row["baseline"]),
                f"{row['images']:,}",
                f"{row['against']:,}",
                *(f"{row[name]:.4g}" for name in columns),
                f"{row['fid_min']:.4g} to {row['fid_max']:.4g}",
            ]
            for row in rows.to_dict("records")
        ]
        headings = ["baseline", "images", "against", *columns.values(), "Fréchet of the draws"]
        print_table(headings, lines, [True, *[False] * (len(headings) - 1)])
        typer.echo()


def _study(what: str, runs: Path) -> tuple[list[Recipe], Path]:
    """Its recipes, and the folder of its runs.

    Raises:
        InputError: it is none.
    """
    from ditbench_flops import recipes_of
    from sweeps.expand import load_sweep

    recipes = recipes_of(what)
    if recipes is None:
        raise InputError(
            f"{what}: accepted: a sweep's or recipe's file, a shipped sweep (`ditbench sweep list`), a run folder, or "
            "a folder of runs"
        )
    path = Path(what)
    if path.name == "config.yaml":
        path = path.parent
    if path.is_dir():
        return recipes, path.resolve().parent if (path / "config.yaml").exists() else path
    with contextlib.suppress(InputError):
        return recipes, runs / load_sweep(what).name
    return recipes, runs / "single"
