"""`ditbench search`: the best of several averages and guidances of a run, found on few samples and scored in full."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bench.commands.options import DeviceOption, OfflineOption, PrecisionOption
from bench.errors import InputError
from bench.stopping import StopRequest

INTERVAL = "--guidance-interval"


class TakesIntervals(TyperCommand):
    """Takes `--guidance-interval LOW HIGH` several times: typer has options of two values, and lists of one each."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        for text in args:
            if joined[-2:-1] == [INTERVAL] and " " not in joined[-1]:
                joined[-1] += f" {text}"
            else:
                joined.append(text)
        return super().parse_args(ctx, joined)


def search(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    ema: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AVERAGE",
            help="Weights to try: raw, decay=0.999 or std=0.1; default: the run's. Several times, as those below.",
        ),
    ] = None,
    guidance_scale: Annotated[
        list[float] | None, typer.Option(metavar="SCALE", help="Scales to try, 1: no guidance; default: the run's.")
    ] = None,
    guidance_channels: Annotated[
        list[int] | None,
        typer.Option(
            metavar="CHANNELS", help="Numbers of guided channels to try; default: the run's, or all if it has fewer."
        ),
    ] = None,
    guidance_interval: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LOW HIGH", help="Guide only at these of the process's times; default: when the run does."
        ),
    ] = None,
    num_samples: Annotated[
        int | None,  # fewer have no Inception Score, which is a mean over ten parts
        typer.Option(min=10, help="Of each combination; default: 1000, or the run's if those are fewer."),
    ] = None,
    step: Annotated[int | None, typer.Option(min=1, help="Which kept step; default: the last.")] = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    offline: OfflineOption = False,
) -> None:
    """Score every combination of averages and guidance on few samples, and the best one in full, as best of so many.

    Rows go to the run's scores.jsonl. Interrupted, the same command continues. Under torchrun its processes share the
    work.
    """
    import signal

    stop = StopRequest().on(signal.SIGUSR2, signal.SIGTERM)
    axes: dict[str, list[Any]] = {
        "ema": [*(ema or [])],
        "guidance_scale": [*(guidance_scale or [])],
        "guidance_channels": [*(guidance_channels or [])],
        "guidance_interval": [_interval(text) for text in guidance_interval or []],
    }
    from bench.parallel import Execution, joined, prepare_device
    from bench.recipe.evaluation import by_flag
    from bench.score.search import few_scores, other_combinations, read_run
    from bench.score.search import search as search_run

    recipe, step = read_run(run, step)
    try:
        few = few_scores(recipe, step, axes, num_samples)
    except ValueError as error:
        raise InputError(by_flag(str(error))) from None
    with joined(device) as ranks:
        torch_device = prepare_device(device, precision, ranks.local_rank)
        how = Execution(device, precision, ranks, stop, offline=offline)
        rows, full = search_run(recipe, run, few, torch_device, how, lambda line: typer.echo(line, err=True))
        if ranks.is_first:
            _print(rows, full)
            if others := other_combinations(run, rows):
                typer.echo(
                    f"{others} other combinations of this step were searched before and do not count in it: give their "
                    "values too if they led to these."
                )


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split())
    except ValueError:
        raise InputError(f"{INTERVAL} {text}: accepted: two times, LOW HIGH") from None
    return low, high


def _print(rows: list[dict[str, Any]], full: dict[str, Any]) -> None:
    """What was varied, and the scores, the best first."""
    from bench.commands.text_table import print_table

    headings = {
        "weights": "weights",
        "guidance_scale": "guidance",
        "guidance_channels": "channels",
        "guidance_interval": "times",
    }
    varied = [key for key in headings if len({row[key] for row in rows} - {None}) > 1]
    lines = [
        [*(_cell(row[key]) for key in varied), f"{row['fid']:.4g}", "chosen" if place == 0 else ""]
        for place, row in enumerate(rows)
    ]
    print_table(
        [*(headings[key] for key in varied), "Fréchet", ""], lines, [*(key == "weights" for key in varied), False, True]
    )
    typer.echo(
        f"\nStep {full['step']:,}: Fréchet distance {full['fid']:.4g} of {full['num_samples']:,} other samples, "
        f"best of {full['best_of']} with {rows[0]['num_samples']:,} samples each."
    )


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
