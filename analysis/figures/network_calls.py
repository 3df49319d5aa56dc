"""Network calls against the Fréchet distance, sampler by sampler: how many each needs for what a model has learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.captions import fewer_seeds, in_short, keys, protocol
from analysis.figures.scores import Scores, axis_name, over_seeds
from analysis.figures.sources import Source, from_each
from analysis.figures.varied import varied

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

CALLS = "network_calls"
VARIED = ("sampler", "sampling_steps", CALLS)
RULE = (
    "A line is a sampler with its options; a step of it may call the network more than once. Means over seeds; bands "
    "from the lowest to the highest."
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture network_calls.

    One panel for each source, model and objective, all with the same scales, and one line for each sampler; means over
    seeds. Data columns: source, label, size, patch, block, sampler, sampling_steps, network_calls, gmacs, num_seeds,
    fid, fid_min, fid_max, step, guidance_scale, num_samples.

    Raises:
        NothingToDraw: no source has scores at several numbers of network calls, or all are of one sampler.
        ResultsError: scores that are not finite.
    """
    found, left_out = from_each(sources, _panels, by_design=False)
    panels = [panel for of_source in found for panel in of_source]
    titles = [_title(scores, several=len(found) > 1) for scores in panels]
    points = [_points(scores) for scores in panels]
    data = pd.concat(points)
    samplers = list(dict.fromkeys(data["sampler"]))
    looks = {sampler: marks.series_mark(index) for index, sampler in enumerate(samplers)}
    columns = min(2 if width == "one" else 3, len(panels))
    free = len(panels) % columns > 0 and len(panels) > columns  # a cell for the legend
    with style.look():
        legend = 0.0 if free else marks.legend_height(samplers, 3.2, style.WIDTHS[width])
        figure = style.new_figure(width, 1.9 * -(-len(panels) // columns) + 0.2 + legend)
        part = figure.subfigures()
        axes = style.panels(part, len(panels) + free, columns, share=True)
        lines: dict[str, Line2D] = {}
        for panel, title, rows in zip(axes, titles, points, strict=False):
            lines |= _panel(panel, title, rows, looks)
        for place, panel in enumerate(axes[: len(panels)]):  # when all points are there: the scales are shared
            _scales(panel, min(data["fid_min"]) > 0)
            if not place % columns:
                panel.set_ylabel(axis_name(panels))
            if place >= len(panels) - columns:
                panel.set_xlabel("Network calls")
                panel.tick_params(labelbottom=True)
        handles = [lines[sampler] for sampler in samplers]
        marks.line_legend(part, handles, samplers, cell=axes[-1] if free else None)
    said = [
        " ".join([f"{title}: {protocol(scores, VARIED)}", *fewer_seeds(scores, ("sampler", CALLS))])
        for title, scores in zip(titles, panels, strict=True)
    ]
    return Picture(
        "network_calls", figure, data, in_short(panels, VARIED), "\n".join([RULE, *said]), keys(panels), left_out
    )


def _panels(source: Source) -> list[Scores]:
    """Scores that differ in their sampler and its steps only, of one model by one objective each."""
    groups = varied(source, CALLS, ignored=VARIED)
    samplers = sorted({sampler for group in groups for sampler in group.evals["sampler"]})
    if len(samplers) < 2:
        raise NothingToDraw(f"all scores are of one sampler ({samplers[0]}); needed: those of two")
    panels = []
    for group in groups:
        network: Any = group.evals.groupby("network")["gmacs"]  # a learned variance takes a little more
        models: Any = group.evals.assign(network_gmacs=network.transform("min")).groupby(["network_gmacs", "label"])
        panels += [Scores(group.source, rows) for _, rows in models]
    return panels


def _title(scores: Scores, several: bool) -> str:
    """The model, by its label, which says the objective where there are several; with its source if it has company."""
    label, source = scores.evals["label"].iloc[0], scores.source
    return ", ".join(filter(None, [source.name if several else "", label, source.design]))


def _points(scores: Scores) -> pd.DataFrame:
    evals = scores.evals
    points = over_seeds(evals, VARIED)
    points.insert(0, "source", scores.source.name)
    points.insert(4, "block", evals["block"].iloc[0])
    order = {sampler: place for place, sampler in enumerate(dict.fromkeys(evals["sampler"]))}
    points = points.sort_values(["sampler", CALLS], key=lambda column: column.map(order).fillna(column))
    return points.assign(**{name: evals[name].iloc[0] for name in ("step", "guidance_scale", "num_samples")})


def _panel(axes: Axes, title: str, points: pd.DataFrame, looks: Mapping[str, dict[str, Any]]) -> dict[str, Line2D]:
    lines = {
        str(sampler): marks.curve(axes, line, CALLS, "fid", looks[str(sampler)])
        for sampler, line in points.groupby("sampler", sort=False)
    }
    axes.set_title(title)
    return lines


def _scales(axes: Axes, log: bool) -> None:
    axes.set_xscale("log")
    style.log_ticks(axes.xaxis)
    if log:
        axes.set_yscale("log")
        style.log_ticks(axes.yaxis)
