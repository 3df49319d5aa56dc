"""`ditbench compare`: two designs at equal compute, or two models at equal steps, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.commands.options import (
    FormatOption,
    LevelOption,
    MetricOption,
    OldDataOption,
    SeedOption,
    SeveralDataArgument,
    StepOption,
    VerboseOption,
    named_data,
    print_answer,
    print_lines,
)
from analysis.errors import ResultsError, about
from analysis.results.named import ACCEPTED, PUBLISHED, results_folder
from analysis.results.visible import visible

if TYPE_CHECKING:
    import pandas as pd

    from analysis.compare.beside_published import BesidePublished
    from analysis.laws.observations import Observations

Pair = tuple[str, str]


def compare(
    data: SeveralDataArgument = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="What tells designs apart, or several of it with commas between. Of runs: family, block, objective, "
            "data, size, patch, or a setting: batch_size, learning_rate, weight_decay, ema_decay, label_dropout, "
            "clip_grad_norm, warmup_steps, schedule, final_learning_rate, cooldown_steps, decay_matrices_only, "
            "non_finite. Of scores of the same runs: weights, sampler, sampling_steps, network_calls, clip_denoised, "
            "guidance_scale, guidance_channels, guidance_interval, guide, decoder, num_samples, labels, reference, "
            "extractor, kid_subset_size, best_of. Or label (models; runs of one label, where those of a model differ "
            "in more than their seed), or source (folders). Default: family, block, or objective, where there are "
            "several, else source, and label where --between names models.",
        ),
    ] = None,
    source: OldDataOption = None,
    between: Annotated[
        str | None,
        typer.Option(
            help="A,B: two designs, such as the families DiT,U-ViT, two values of a setting such as 1e-3,2e-3, or two "
            "models such as B/2,L/4; else a table of all families, blocks or values."
        ),
    ] = None,
    metric: MetricOption = "fid",
    step: StepOption = None,
    level: LevelOption = 0.9,
    seed: SeedOption = 0,
    verbose: VerboseOption = False,
    format: FormatOption = "table",
) -> None:
    """Compare two designs at equal compute: better, worse or not distinguishable, and the factor of compute between.

    A folder and the word published: its scores beside the papers', and whether laboratories differ by as much.

    With fewer than three models of each, and of two models: at equal steps, over seeds. Of more than two block designs,
    or values of a setting of the training: a table of all. What else differs between the runs of a model is paired.
    """
    import json

    from analysis.compare.compared import compared

    names = named_data(data, source)
    if not names:
        raise ResultsError(f"DATA: missing; accepted: {ACCEPTED}")
    if PUBLISHED in names and len(names) > 1:
        if by is not None or between is not None:
            raise ResultsError(f"{PUBLISHED} beside results: no --by and no --between; needed: one folder alone")
        comparison = _beside_published(names, metric, step, level)
    else:
        comparison = compared(_designs(names, by, metric, step, _pair(between, by)), level, seed)
    if format == "json":
        typer.echo(json.dumps(comparison.to_dict(), indent=1, allow_nan=False))
        return
    print_answer(comparison.headline())
    lines = comparison.table()
    if not verbose:
        count = len(comparison.left_out)
        lines[-1:] = [[lines[-1][0], f"{count}, which --verbose names"]] if count else []
    lines = [[visible(cell) for cell in line] for line in lines]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        typer.echo(f"{name.ljust(width)}  {value}")
    if verbose:
        typer.echo()
        print_lines([f"{comparison.convention}."])


def _designs(
    names: list[str], by: str | None, metric: str, step: int | None, between: Pair | None
) -> dict[str, Observations]:
    from analysis.compare.collected import collected_designs, published_designs
    from analysis.compare.one_key import by_setting, is_setting
    from analysis.results.tables import load

    folders = {str(Path(name)): results_folder(name) for name in names}
    if None in folders.values():
        if by not in (None, "block", "label") or step not in (None, 400_000):
            raise ResultsError(f"{PUBLISHED}: has block designs of XL/2, and models, at step 400,000")
        return published_designs(metric, between)
    found = {name: folder for name, folder in folders.items() if folder is not None}
    if len({folder.resolve() for folder in found.values()}) < len(names):
        raise ResultsError("the same folder twice; needed: different ones")
    results = {name: load(folder) for name, folder in found.items()}
    if by is not None and is_setting(by):
        results, by, between = by_setting(results, by, between), "source", None
    return collected_designs(results, by, metric, step, between)


def _beside_published(names: list[str], metric: str, step: int | None, level: float) -> BesidePublished:
    from analysis.compare.beside_published import (
        BesidePublished,
        at_published_steps,
        known_spread,
        not_beside,
        with_spread,
    )
    from analysis.paper.tables import published
    from analysis.results.published import METRICS, near_misses
    from analysis.results.tables import load

    others = [name for name in names if name != PUBLISHED]
    if len(others) != 1:
        raise ResultsError(f"{PUBLISHED} is compared by itself, or with one folder; given: {', '.join(names)}")
    folder = results_folder(others[0])
    assert folder is not None  # which published alone has not
    if metric not in METRICS:
        raise ResultsError(f"--metric {metric}: not published; accepted: {', '.join(METRICS)}")
    tables = load(folder)
    with about(folder):
        scores = published(tables).data
    of_metric = scores.loc[scores["metric"] == metric]
    if of_metric.empty:
        raise ResultsError(f"--metric {metric}: no such score has a published one; accepted: {_all(scores, 'metric')}")
    rows = of_metric if step is None else of_metric.loc[of_metric["step"] == step]
    if rows.empty:
        raise ResultsError(f"--step {step}: no score with a published one; accepted: {_all(of_metric, 'step')}")
    left_out = tuple(not_beside(at_published_steps(near_misses(tables))))
    return BesidePublished(with_spread(rows.reset_index(drop=True), "measured", level), known_spread(level), left_out)


def _all(rows: pd.DataFrame, column: str) -> str:
    return ", ".join(map(str, sorted(set(rows[column]))))


def _pair(between: str | None, by: str | None) -> Pair | None:
    """Two designs, of as many values each as `by` names columns."""
    if between is None:
        return None
    columns = 1 if by is None else 1 + by.count(",")
    values = [part.strip() for part in between.split(",")]
    if len(values) != 2 * columns or not all(values):
        raise ResultsError(f"--between {between}: accepted: two designs, {','.join(['A'] * columns + ['B'] * columns)}")
    return ", ".join(values[:columns]), ", ".join(values[columns:])
