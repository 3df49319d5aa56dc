"""Sampling compute against the Fréchet distance: more steps or a larger model (DiT paper, Fig. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from analysis.drawing import marks, style
from analysis.drawing.frontier import SAID, frontier, models_and_frontier
from analysis.drawing.picture import NothingToDraw, Picture
from analysis.figures.baselines import draw_baselines
from analysis.figures.captions import in_short, keys, protocol
from analysis.figures.scores import Scores, axis_name, over_seeds
from analysis.figures.sources import Source, from_each
from analysis.figures.varied import varied
from analysis.results.sampled import sampling_gmacs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RULE = (
    "Sampling compute of one image = GMACs of one forward pass x {calls}, twice that with guidance, in billions of "
    "multiply-accumulates; FLOPs are twice as many; the decoder is not counted. " + SAID
)
CALL_A_STEP, CALLS = "sampling steps (one network call each)", "network calls"
NOT_PRINTED = (
    "the paper prints no number of its Fig. 10; needed: a results folder with scores at several sampling_steps"
)


def draw(sources: Sequence[Source], width: style.Width) -> Picture:
    """The picture sampling_compute.

    One panel for each source, and one line for each model over its numbers of sampling steps; means over seeds. Data
    columns: source, label, size, patch, sampling_steps, gmacs, num_seeds, fid, fid_min, fid_max, step, guidance_scale,
    num_samples, sampling_gmacs (of one image), all_samples_gmacs (of all num_samples), on_frontier (of its panel).

    Raises:
        NothingToDraw: no model was scored with several numbers of sampling steps.
        ResultsError: scores that are not finite.
    """
    found, left_out = from_each(sources, _scores)
    groups = [scores for of_source in found for scores in of_source]
    caption = "\n".join([_rule(groups), *(protocol(scores, ("sampling_steps",)) for scores in groups)])
    with style.look():
        columns = 1 if width == "one" else min(2, len(groups))
        figure = style.new_figure(width, 2.9 * -(-len(groups) // columns))
        for part, scores in zip(style.parts(figure, len(groups), columns), groups, strict=True):
            _panel(part.subplots(), scores)
            marks.shape_legend(part, _points(scores))
    data = pd.concat([_points(scores) for scores in groups])
    short = f"{SAID} {in_short(groups, ('sampling_steps',))}"
    return Picture("sampling_compute", figure, data, short, caption, keys(groups), left_out)


def _scores(source: Source) -> list[Scores]:
    if source.published:
        raise NothingToDraw(NOT_PRINTED)
    return varied(source, "sampling_steps", ignored=("network_calls",))


def _rule(groups: Sequence[Scores]) -> str:
    """How compute is counted; guidance in an interval of times, or by another network, in words of its own."""
    rows = [row for scores in groups for row in scores.evals.to_dict("records")]
    call_a_step = all(row["network_calls"] == row["sampling_steps"] for row in rows)
    rule = RULE.format(calls=CALL_A_STEP if call_a_step else CALLS)
    partly = any(pd.notna(row[name]) for row in rows for name in ("guidance_interval", "guide"))
    return rule.replace("twice that with guidance", "and all forward passes of guidance") if partly else rule


def _points(scores: Scores) -> pd.DataFrame:
    points = over_seeds(scores.evals, ["sampling_steps"])
    points.insert(0, "source", scores.source.called)
    first, evals = scores.evals.iloc[0], scores.evals.assign(sampling_gmacs=sampling_gmacs(scores.evals))
    one_image = over_seeds(evals, ["sampling_steps"], "sampling_gmacs")["sampling_gmacs_min"]  # all seeds' are the same
    same = {name: first[name] for name in ("step", "guidance_scale", "num_samples")}
    points = points.assign(**same, sampling_gmacs=one_image, all_samples_gmacs=one_image * int(first["num_samples"]))
    return points.assign(on_frontier=frontier(one_image.tolist(), points["fid"].tolist()))


def _panel(axes: Axes, scores: Scores) -> None:
    points = _points(scores)
    unit, size_of_unit = marks.compute_unit(points["sampling_gmacs"].tolist())
    models_and_frontier(axes, points.assign(x=points["sampling_gmacs"] / size_of_unit), "x", 0)
    draw_baselines(axes, [scores])
    axes.set_title(f"{scores.title}, {style.steps_text(int(scores.evals['step'].iloc[0]))} training steps")
    axes.set_xlabel(f"Sampling compute of one image ({unit})")
    axes.set_ylabel(axis_name([scores]))
    style.log_ticks(axes.xaxis)
    style.log_ticks(axes.yaxis)
