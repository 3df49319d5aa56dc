"""The figure of averages: what a made study's points are, in what they differ in kind, and what it refuses."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from drawn_figures import collected, seen, study
from run_folders import evaluation, fid_of, write_lines, write_run

from analysis import figures
from analysis.errors import ResultsError
from analysis.figures import NothingToDraw
from analysis.figures.sources import Source, published_source
from analysis.results.verify import verify_results

STEPS, SEEDS, DECAY = (500, 2000), (0, 1), 0.99
# Weights -> of how many snapshots, and the factor of their distance.
AVERAGES = {
    "ema std=0.05": (None, 0.9),
    "ema std=0.075": (16, 0.7),
    "ema std=0.1": (None, 0.8),
    "raw": (None, 1.5),
    "ema decay=0.9": (None, 1.2),
}


def write_averages(folder: Path, label: str = "S/4", averages: dict[str, Any] = AVERAGES) -> None:
    for seed in SEEDS:
        run = write_run(folder / "runs", label, seed)
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["recipe"]["train"]["ema_decay"] = DECAY
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        rows = [
            evaluation(label, step, seed, weights=weights, fid=fid_of(label, step, seed) * factor)
            | ({"post_hoc": snapshots} if snapshots else {})
            for step in STEPS
            for weights, (snapshots, factor) in averages.items()
        ]
        write_lines(run / "scores.jsonl", [{"score": f"{k:08x}", **row} for k, row in enumerate(rows)])


@pytest.fixture(scope="module")
def averages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averages")
    write_averages(folder)
    return folder


@pytest.fixture(scope="module")
def source(averages: Path) -> Source:
    return collected(averages)


def drawn(source: Source, out: Path) -> tuple[Any, pd.DataFrame]:
    with seen() as figure:
        figures.draw("averages", [source], out)
    return figure[0], pd.read_csv(out / "averages.csv")


def std_of(decay: float, step: int) -> float:
    """Of the steps of an exponential average, the initial weights' being 0, by the sums themselves."""
    shares = [decay**step, *((1 - decay) * decay ** (step - k) for k in range(1, step + 1))]
    mean = sum(k * share for k, share in enumerate(shares))
    return sqrt(sum((k - mean) ** 2 * share for k, share in enumerate(shares))) / step


def test_points_are_means_over_seeds_at_every_step_and_width(source: Source, tmp_path: Path) -> None:
    _, data = drawn(source, tmp_path)
    assert data["step"].value_counts().to_dict() == dict.fromkeys(STEPS, len(AVERAGES) + 1)
    rows = data.set_index(["step", "weights"])
    for step in STEPS:
        scores = [fid_of("S/4", step, seed) for seed in SEEDS]
        for weights, (snapshots, factor) in (AVERAGES | {"ema": (None, 1.0)}).items():
            row = rows.loc[step, weights]
            assert row[["fid", "fid_min", "fid_max"]].tolist() == pytest.approx(
                [factor * np.mean(scores), factor * min(scores), factor * max(scores)], rel=1e-12
            )
            assert row["num_seeds"] == 2
            assert (row["post_hoc"] == snapshots) if snapshots else pd.isna(row["post_hoc"])
    widths = {"ema std=0.05": 0.05, "ema std=0.075": 0.075, "ema std=0.1": 0.1, "raw": 0.0}
    assert {weights: rows.loc[(2000, weights), "width"] for weights in widths} == widths
    for step in STEPS:
        for weights, decay in (("ema", DECAY), ("ema decay=0.9", 0.9)):
            assert rows.loc[(step, weights), "width"] == pytest.approx(std_of(decay, step), rel=1e-9)
    long = sqrt(0.9) / 0.1 / 2000  # of a geometric series without an end
    assert rows.loc[(2000, "ema decay=0.9"), "width"] == pytest.approx(long, rel=1e-6)


def test_kinds_have_marks_of_their_own_and_the_best_of_a_step_is_ringed(source: Source, tmp_path: Path) -> None:
    figure, data = drawn(source, tmp_path)
    (axes,) = figure.axes
    marks = {
        (round(x, 9), round(y, 9)): (line.get_marker(), line.get_markerfacecolor())
        for line in axes.lines
        for x, y in [(float(line.get_xdata()[0]), float(line.get_ydata()[0]))]
        if len(line.get_xdata()) == 1 and line.get_markersize() < 9
    }
    for row in data.to_dict("records"):
        marker, face = marks[round(row["width"], 9), round(row["fid"], 9)]
        kind = {"raw": "x", "ema": "^", "ema decay=0.9": "^"}.get(row["weights"], "o")
        assert marker == kind
        if kind == "o":
            assert (face == "white") == bool(pd.isna(row["post_hoc"]))
    rings = [line for line in axes.lines if line.get_markersize() == 9]
    best = data.loc[data["weights"] == "ema std=0.075"]
    places = [(float(ring.get_xdata()[0]), float(ring.get_ydata()[0])) for ring in rings]
    assert np.allclose(places, best[["width", "fid"]], rtol=1e-12)
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]  # through the power functions alone
    assert [list(line.get_xdata()) for line in lines] == [[0.05, 0.075, 0.1]] * 2
    (legend,) = [legend for part in figure.subfigs for legend in part.legends]
    assert [text.get_text() for text in legend.texts] == ["500 steps", "2K steps"]


def test_its_data_are_those_of_the_tables(averages: Path, source: Source) -> None:
    home = averages / "results"
    drawn(source, home)
    checks = [(what, problems) for what, problems in verify_results(home) if "averages.csv" in what]
    assert [what for what, _ in checks if f"{2 * len(AVERAGES) + 2} plotted values" in what]
    assert [problem for _, problems in checks for problem in problems] == []


def test_two_models_have_a_panel_each(tmp_path: Path) -> None:
    for label in ("S/4", "B/2"):
        write_averages(tmp_path, label)
    figure, data = drawn(collected(tmp_path), tmp_path / "out")
    assert len(figure.axes) == 2
    assert data["label"].value_counts().to_dict() == dict.fromkeys(["S/4", "B/2"], 2 * len(AVERAGES) + 2)


@pytest.mark.parametrize("averages", [{}, {"a name of tomorrow's": (None, 0.5)}])
def test_without_two_widths_there_is_nothing_to_draw(tmp_path: Path, averages: dict[str, Any]) -> None:
    write_averages(tmp_path, averages=averages)
    with pytest.raises(NothingToDraw, match="needed: two"):
        figures.draw("averages", [collected(tmp_path)], tmp_path / "out")


def test_the_papers_tables_have_none() -> None:
    with pytest.raises(NothingToDraw, match="needed: a results folder"):
        figures.picture("averages", [published_source()])


def test_more_steps_than_can_be_told_apart_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs", "S/4", 0)
    steps = range(100, 900, 100)
    write_lines(run / "evals.jsonl", [evaluation("S/4", step, weights="raw") for step in steps])
    write_lines(
        run / "scores.jsonl",
        [{"score": "0" * 8, **evaluation("S/4", step, weights="ema std=0.1")} for step in steps],
    )
    with pytest.raises(NothingToDraw, match="more than 7 in one panel"):
        figures.picture("averages", [collected(tmp_path)])


def test_a_score_that_is_not_finite_is_named(tmp_path: Path) -> None:
    source = study(tmp_path, ["S/4"])
    evals = source.tables.evals.assign(fid=np.inf)
    source.tables.evals["fid"] = evals["fid"]
    with pytest.raises(ResultsError, match="fid of S/4"):
        figures.picture("averages", [source])
