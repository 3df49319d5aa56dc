"""The figure of scores against network calls: a panel for each model and objective, a line for each sampler."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_figures import OBJECTIVES, SAMPLERS, sampler_study, sampling_study, seen
from matplotlib.legend import Legend
from run_folders import fid_of

from analysis import figures
from analysis.figures import NothingToDraw
from analysis.figures.sources import Source
from analysis.results.sampled import sampler_text

STEPS = (5, 25, 50)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return sampler_study(tmp_path_factory.mktemp("samplers"))


def drawn(source: Source, folder: Path) -> tuple[Any, Any]:
    """The figure and the table beside it."""
    with seen() as pictures:
        figures.draw("network-calls", [source], folder)
    return pictures[0], pd.read_csv(folder / "network_calls.csv")


def test_a_point_is_the_mean_over_seeds_at_a_samplers_network_calls(study: Source, tmp_path: Path) -> None:
    figure, data = drawn(study, tmp_path)
    rows = data.set_index(["label", "sampler", "network_calls"])
    assert rows.index.is_unique
    expected = {
        (f"{label} {name}", sampler, each * steps): (
            [worse * fid_of(label, 2000, seed) * factor * (1 + 20 / (each * steps)) for seed in (0, 1)],
            steps,
            objective,
        )
        for (objective, worse), name in zip(OBJECTIVES.items(), ("iddpm", "x0"), strict=True)
        for label in ("S/4", "B/2")
        for sampler, each, factor in SAMPLERS
        for steps in STEPS
    }
    own = {(f"{label} {name}", "ddpm", 25) for label in ("S/4", "B/2") for name in ("iddpm", "x0")}
    assert set(rows.index) == {*expected, *own}
    for point, (scores, steps, objective) in expected.items():
        row = rows.loc[point]
        assert row["fid"] == pytest.approx(np.mean(scores), rel=1e-12)
        assert (row["fid_min"], row["fid_max"]) == pytest.approx((min(scores), max(scores)), rel=1e-12)
        assert (row["num_seeds"], row["sampling_steps"], row["block"]) == (2, steps, f"adaln-zero, {objective}")
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert [*panels] == ["S/4 iddpm", "S/4 x0", "B/2 iddpm", "B/2 x0"]  # by compute
    for label, axes in panels.items():
        for line, (sampler, points) in zip(axes.lines, data[data["label"] == label].groupby("sampler"), strict=True):
            assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == (
                points["network_calls"].tolist(), points["fid"].tolist()
            ), sampler  # fmt: skip
    assert len({tuple(axes.get_ylim()) for axes in panels.values()}) == 1
    (legend,) = figure.findobj(Legend)
    assert [text.get_text() for text in legend.get_texts()] == ["ddpm", "euler", "heun shift=3.0"]


def test_the_caption_says_objective_samples_and_reference_of_each_panel(study: Source) -> None:
    picture = figures.picture("network-calls", [study])
    lines = picture.caption.splitlines()
    for panel, objective in (("S/4 iddpm", "iddpm"), ("B/2 x0", "flow prediction=x0")):
        (line,) = [line for line in lines if line.startswith(f"{panel}: ")]
        assert f"block adaln-zero, {objective}, 2,000 training steps" in line
        assert "guidance 1" in line and "1,000 samples with balanced labels" in line and "reference digits" in line
        assert " sampler, " not in line and "25 steps" not in line  # they are what varies


def test_a_seed_that_lacks_a_score_is_named(study: Source) -> None:
    others = study.tables.other_evals
    lost = others.query("run == 's41' and sampler == 'euler' and network_calls == 50")
    assert len(lost) == 1
    fewer = replace(study, tables=replace(study.tables, other_evals=others.drop(index=lost.index)))
    picture = figures.picture("network-calls", [fewer])
    assert "S/4 iddpm at sampler euler, network_calls 50 (1 of 2)" in picture.caption


def test_scores_of_one_sampler_or_at_one_number_of_calls_are_no_such_figure(study: Source, tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match=r"one sampler .ddpm.; needed: those of two"):
        figures.picture("network-calls", [sampling_study(tmp_path)])
    at_25 = study.tables.other_evals.query("network_calls == 25")
    one = replace(study, tables=replace(study.tables, other_evals=at_25))
    with pytest.raises(NothingToDraw, match="several values of network_calls; needed: two scores"):
        figures.picture("network-calls", [one])


def test_scores_with_guidance_are_panels_of_their_own(study: Source) -> None:
    others = study.tables.other_evals
    guided = others.assign(guidance_scale=1.5, fid=others["fid"] / 2)
    both = replace(study, tables=replace(study.tables, other_evals=pd.concat([others, guided], ignore_index=True)))
    data: Any = figures.picture("network-calls", [both]).data
    scales = data.groupby("guidance_scale")["fid"].mean()
    assert set(scales.index) == {1.0, 1.5}
    plain = data.loc[(data["guidance_scale"] == 1) & (data["sampler"] != "ddpm"), "fid"]
    assert data.loc[data["guidance_scale"] == 1.5, "fid"].tolist() == pytest.approx((plain / 2).tolist())


@pytest.mark.parametrize(
    ("sampler", "said"),
    [("ddpm", "DDPM"), ("heun shift=3.0", "Heun shift=3.0"), ("my_file:Mine eta=0.5", "Mine eta=0.5")],
)
def test_options_are_said_as_they_are_given(sampler: str, said: str) -> None:
    assert sampler_text(sampler) == said
