"""No value is skipped without a word: what a mean leaves out, since when a loss is none; and scores at the edge."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
import yaml
from command_line import ditbench
from run_folders import collect, write_lines, write_run

from analysis import figures
from analysis.compare.collected import collected_designs
from analysis.compare.compared import compared
from analysis.drawing.picture import NothingToDraw
from analysis.drawing.write import write_picture
from analysis.errors import ResultsError
from analysis.figures.sources import measured
from analysis.laws.observed import collected_observations
from analysis.paper import tables as export_tables
from analysis.paper.table_formats import csv, markdown
from analysis.report.figures import Pictures
from analysis.report.write import report
from analysis.results.tables import Tables, correlations, diverged, load, summary

LABELS = ("S/4", "S/2", "B/4", "B/2", "L/2", "XL/2")


def edit(folder: Path, name: str, change: Any) -> None:
    """Change each line of a run's .jsonl file; None takes it away."""
    lines = [change(json.loads(line)) for line in (folder / name).read_text().splitlines()]
    write_lines(folder / name, [line for line in lines if line is not None])


@pytest.fixture
def study(tmp_path: Path) -> dict[tuple[str, int], Path]:
    return {(label, seed): write_run(tmp_path / "runs", label, seed) for label in LABELS for seed in (0, 1)}


def collected(study: dict[tuple[str, int], Path]) -> Tables:
    sweep = study["S/4", 0].parent
    return collect(sweep, sweep.parent / "results")


def drawn_text(name: str, tables: Tables, out: Path) -> str:
    picture = figures.picture(name, [measured(tables, "digits")])
    return " ".join(write_picture(picture, out)[3].read_text().split())


def test_a_loss_that_is_nan_is_shown_as_nan_since_its_step(study: Any) -> None:
    edit(study["S/4", 1], "train.jsonl", lambda row: row | ({"loss": math.nan} if row["step"] > 1500 else {}))
    edit(study["B/2", 0], "train.jsonl", lambda row: row | ({"loss": math.nan} if row["step"] == 300 else {}))
    tables = collected(study)
    assert diverged(tables.train) == {"s41": 1600}
    of_runs = summary(tables).set_index(["label", "seed"])["loss"].to_dict()
    assert math.isnan(of_runs["S/4", 1])
    assert of_runs["S/4", 0] == 1.1 / 2000**0.25
    table = export_tables.summary(tables)
    (row,) = [row for row in markdown(table).splitlines() if row.startswith("| S/4 ")]
    assert "NaN since step 1,600" in row
    assert "loss of S/4 adaln-zero seed 1" in table.conventions
    data = table.data.set_index("label")
    assert data["loss"].isna().tolist() == [label == "S/4" for label in data.index]
    assert data["loss_nan_since"].dropna().to_dict() == {"S/4": 1600}
    assert ",1600" in csv(table)
    assert "loss of S/4, seed 1 (s41) is not a finite number since step 1,600" in " ".join(report_of(tables).split())


def report_of(tables: Tables) -> str:
    """Without its pictures and laws, which take long."""
    refused = ResultsError("not asked for")
    with (
        patch("analysis.report.write.pictures", return_value=(Pictures(), [])),
        patch("analysis.report.write.fitted", side_effect=refused),
    ):
        return report(tables)


def test_what_ended_before_the_score_is_the_loss_there(study: Any) -> None:
    """A loss that is NaN after the scored step does not reach back."""
    edit(study["S/4", 0], "train.jsonl", lambda row: row | ({"loss": math.nan} if row["step"] > 1500 else {}))
    for folder in study.values():
        edit(folder, "evals.jsonl", lambda row: row if row["step"] <= 1500 else None)
    table = export_tables.summary(collected(study))
    assert table.data["loss"].tolist() == [1.1 / 1500**0.25] * 6
    assert "loss_nan_since" not in table.data


def test_runs_that_a_table_leaves_out_are_named(study: Any) -> None:
    edit(study["S/4", 1], "evals.jsonl", lambda row: row if row["step"] < 2000 else None)
    (study["B/4", 0] / "evals.jsonl").unlink()
    (study["B/4", 1] / "evals.jsonl").unlink()
    edit(study["L/2", 1], "evals.jsonl", lambda row: row | {"kid": None})
    table = export_tables.summary(collected(study))
    data = table.data.set_index("label")
    assert data["num_seeds"].to_dict() == {"S/4": 1, "S/2": 2, "B/2": 2, "L/2": 2, "XL/2": 2}
    assert data["kid"].isna().tolist() == [label == "L/2" for label in data.index]
    for named in (
        "S/4 adaln-zero seed 1 (no score at step 2,000)",
        "B/4 adaln-zero seed 0 (no score)",
        "B/4 adaln-zero seed 1 (no score)",
        "kid of L/2 adaln-zero seed 1",
    ):
        assert named in table.conventions


def test_a_whole_study_says_nothing_of_the_kind(study: Any, tmp_path: Path) -> None:
    tables = collected(study)
    assert "Left out" not in export_tables.summary(tables).conventions
    assert "Left out" not in export_tables.correlations(tables).conventions
    assert "fewer seeds" not in drawn_text("bubbles", tables, tmp_path)


def test_scores_that_no_correlation_can_be_of_are_named(study: Any) -> None:
    edit(study["S/4", 0], "evals.jsonl", lambda row: row | {"fid": 0.0})
    edit(study["B/2", 1], "evals.jsonl", lambda row: row | ({"fid": math.nan} if row["step"] == 500 else {}))
    tables = collected(study)
    table = export_tables.correlations(tables)
    models = table.data.set_index(["seed", "step"])["num_models"]
    assert (models[0, 500], models[1, 500], models[1, 1000]) == (5, 5, 6)
    assert "S/4 adaln-zero seed 0 at step 2,000 (Fréchet distance: 0)" in table.conventions
    assert "B/2 adaln-zero seed 1 at step 500 (Fréchet distance: nan)" in table.conventions


@pytest.mark.parametrize("name", ["bubbles", "gflops-vs-fid"])
def test_a_figure_names_the_runs_that_it_leaves_out(study: Any, tmp_path: Path, name: str) -> None:
    edit(study["S/4", 1], "evals.jsonl", lambda row: row if row["step"] < 2000 else None)
    text = drawn_text(name, collected(study), tmp_path)
    assert "digits: 1 of 12 runs have no score at this step: S/4 seed 1." in text
    assert "digits" in text


def test_a_figure_over_training_names_the_means_of_fewer_seeds(study: Any, tmp_path: Path) -> None:
    edit(study["S/4", 1], "evals.jsonl", lambda row: row if row["step"] < 2000 else None)
    text = drawn_text("training-compute", collected(study), tmp_path)
    assert "means of fewer seeds: S/4 at step 2000 (1 of 2)" in text


def test_a_loss_that_is_not_finite_keeps_no_other_figure_from_being_drawn(study: Any, tmp_path: Path) -> None:
    edit(study["S/4", 1], "train.jsonl", lambda row: row | ({"loss": math.inf} if row["step"] > 1900 else {}))
    with pytest.raises(NothingToDraw, match=r"loss of S/4 \(run s41, step 2000\) is inf, the first of 1"):
        figures.draw("loss", [measured(collected(study))], tmp_path)


def test_losses_that_are_not_positive_are_drawn_on_a_plain_scale(study: Any, tmp_path: Path) -> None:
    edit(study["S/4", 1], "train.jsonl", lambda row: row | {"loss": row["loss"] - 0.5})
    figure = figures.picture("loss", [measured(collected(study))]).figure
    assert {axes.get_yscale() for axes in figure.subfigs[0].axes} == {"linear"}


@pytest.mark.parametrize("score", [0.0, -1.0])
@pytest.mark.parametrize("name", ["fitted-law", "residuals"])
def test_a_score_that_no_law_goes_through_is_named(study: Any, tmp_path: Path, name: str, score: float) -> None:
    for seed in (0, 1):
        edit(study["S/4", seed], "evals.jsonl", lambda row: row | {"fid": score})
    with pytest.raises(NothingToDraw, match=f"fid of S/4 is {score:g}; "):
        figures.draw(name, [measured(collected(study))], tmp_path)


def test_seeds_whose_mean_is_0_have_no_percentages(study: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        edit(study["S/4", seed], "evals.jsonl", lambda row: row | {"fid": 0})
    with pytest.raises(NothingToDraw, match="mean fid of S/4 is 0"):
        figures.draw("seeds", [measured(collected(study))], tmp_path)


def test_models_of_one_compute_are_drawn_without_a_line(study: Any, tmp_path: Path) -> None:
    for folder in study.values():
        path = folder / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"gmacs": 1.0}))
    tables = collected(study)
    assert correlations(tables.evals).empty
    drawn = figures.draw("gflops-vs-fid", [measured(tables)], tmp_path)
    (data,) = (path for path in drawn.files if path.suffix == ".csv")
    assert pd.read_csv(data)["line"].isna().to_numpy().all()
    with pytest.raises(NothingToDraw, match="same compute"):
        figures.draw("residuals", [measured(tables)], tmp_path)


@pytest.mark.slow
def test_every_figure_and_the_report_of_a_study_with_a_score_of_0(study: Any, tmp_path: Path) -> None:
    for seed in (0, 1):
        edit(study["S/4", seed], "evals.jsonl", lambda row: row | {"fid": 0, "kid": 0, "precision": 0})
    collected(study)
    results = tmp_path / "results"
    ended = ditbench("figure", "all", results)
    assert ended.status == 0
    assert "fitted-law, residuals: not drawn: results: fid of S/4 is 0; " in ended.err
    assert (results / "bubbles.png").is_file()
    assert (results / "training_loss.png").is_file()
    assert ditbench("report", results).status == 0
    assert "fid is 0" in (results / "report.html").read_text()
    refused = ditbench("fit", results)
    assert refused.status == 2
    assert "S/4 seed 0 step 2000: fid is 0" in refused.err


@pytest.mark.parametrize(
    "files", [("evals",), pytest.param(("train",), marks=pytest.mark.slow), ("evals", "train", "sessions")]
)
def test_a_report_of_empty_tables(study: Any, files: tuple[str, ...]) -> None:
    for folder in study.values():
        for name in files:
            (folder / f"{name}.jsonl").write_text("")
    collected(study)
    tables = load(study["S/4", 0].parents[1] / "results")
    assert "6 models" in report_of(tables)


def test_a_report_before_any_run_has_begun(study: Any) -> None:
    for folder in study.values():
        for path in [*folder.glob("*.jsonl"), folder / "model.json", folder / "finished.json"]:
            path.unlink()
    tables = collected(study)
    assert "0 of 12 runs" in report_of(tables)
    with pytest.raises(NothingToDraw, match="no run has a score yet"):
        figures.draw("bubbles", [measured(tables)], study["S/4", 0].parent)


def test_a_table_of_designs_names_what_it_leaves_out(study: Any) -> None:
    for number, folder in enumerate(study.values()):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["recipe"]["model"]["block"] = ("adaln", "adaln-zero", "in-context")[number % 3]
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    edit(study["S/4", 0], "evals.jsonl", lambda row: row if row["step"] < 2000 else None)
    comparison = compared(collected_designs({"digits": collected(study)}, "block"))
    said: Any = comparison.to_dict()
    assert [line for line in said["left_out"] if "S/4 seed 0" in line]
    assert comparison.table()[-1][0] == "left out"


def test_a_patch_size_that_is_not_there_is_named_beside_models_without_patches(study: Any) -> None:
    path = study["S/4", 0] / "model.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "patch_size"}))
    with pytest.raises(ResultsError, match="patch 7: no such rows; accepted: 2, 4, none"):
        collected_observations(collected(study), patch=7)
