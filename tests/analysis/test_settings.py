"""Settings of the training as designs: compared, drawn apart, and never averaged as if they were seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from run_folders import collect, fid_of, write_lines, write_run
from typer.testing import CliRunner

from analysis.commands.compare import compare
from analysis.errors import ResultsError
from analysis.figures import picture
from analysis.figures.scores import over_seeds, scaling_scores
from analysis.figures.sources import from_each, measured, open_sources
from analysis.laws.observed import collected_observations
from analysis.paper.tables import summary
from analysis.report.runs import failures
from analysis.results.run_folders import KNOB_DEFAULTS, KNOB_TYPES, SETTINGS
from analysis.results.tables import load
from bench.recipe.training import TrainConfig

APP = typer.Typer()
APP.command()(compare)


def write_setting(sweep: Path, label: str, seed: int, factor: float, name: str = "", **train: Any) -> None:
    """A run with `factor` times the FID, trained with these settings."""
    folder = write_run(sweep, label, seed)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    said = "-".join(f"{key}{value}" for key, value in train.items())
    config["id"] += said
    config["label"] = name or config["label"]
    config["recipe"]["train"] |= train
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [json.loads(line) for line in (folder / "evals.jsonl").read_text().splitlines()]
    write_lines(folder / "evals.jsonl", [line | {"fid": factor * line["fid"]} for line in lines])
    folder.rename(folder.with_name(f"{folder.name}-{said}"))


def said(*arguments: object) -> Any:
    done = CliRunner().invoke(APP, [str(each) for each in (*arguments, "--format", "json")])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def mean(factor: float, *labels: str) -> Any:
    return pytest.approx(factor * np.mean([fid_of(label, 2000, seed) for label in labels for seed in (0, 1)]))


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, two seeds, three learning rates; the labels say nothing of them."""
    home = tmp_path_factory.mktemp("rates")
    for label in ("S/4", "B/2"):
        for seed in (0, 1):
            for factor, rate in ((2.0, 1e-5), (1.0, 1e-3), (1.5, 2e-3)):
                write_setting(home / "runs", label, seed, factor, learning_rate=rate)
    collect(home / "runs", home / "results")
    return home / "results"


def test_all_values_of_a_setting_in_a_table(rates: Path) -> None:
    found = said(rates, "--by", "learning_rate")["designs"]
    assert [(row["model"], row["design"], row["seeds"]) for row in found] == [
        (model, f"learning_rate {rate}", 2) for model in ("B/2", "S/4") for rate in ("0.001", "0.002", "1e-05")
    ]
    for row, factor in zip(found, [1.0, 1.5, 2.0] * 2, strict=True):
        assert row["mean"] == mean(factor, row["model"])


@pytest.mark.parametrize("between", ["1e-3,2e-3", "0.001, 0.002", "2e-3,learning_rate 0.001"])
def test_two_values_of_a_setting_however_they_are_written(rates: Path, between: str) -> None:
    found = said(rates, "--by", "learning_rate", "--between", between)
    assert (found["better"], found["worse"]) == ("learning_rate 0.001", "learning_rate 0.002")
    assert found["means"] == [mean(1.0, "S/4", "B/2"), mean(1.5, "S/4", "B/2")]
    assert (found["seeds"], found["paired"]) == ([2, 2], True)


def test_a_value_that_no_run_has_is_refused(rates: Path) -> None:
    with pytest.raises(ResultsError, match=r"no design 3e-3; accepted: two of learning_rate 0\.001, "):
        said(rates, "--by", "learning_rate", "--between", "1e-3,3e-3")


@pytest.mark.parametrize(
    ("name", "values", "called"),
    [
        ("batch_size", (64, 128), ("64", "128")),
        ("clip_grad_norm", (None, 1.0), ("none", "1")),
        ("warmup_steps", (0, 100), ("0", "100")),
        ("schedule", ("constant", "cosine"), ("constant", "cosine")),
        ("decay_matrices_only", (False, True), ("false", "true")),
        ("non_finite", ("stop", "skip"), ("stop", "skip")),
        ("ema_decay", (0.9, 0.99), ("0.9", "0.99")),
    ],
)
def test_every_setting_can_be_compared_by(
    tmp_path: Path, name: str, values: tuple[Any, Any], called: tuple[str, str]
) -> None:
    for seed in (0, 1):
        for factor, value in zip((1.0, 1.5), values, strict=True):
            write_setting(tmp_path / "runs", "S/4", seed, factor, **{name: value})
    collect(tmp_path / "runs", tmp_path / "results")
    found = said(tmp_path / "results", "--by", name, "--between", ",".join(called))
    assert (found["better"], found["worse"]) == tuple(f"{name} {each}" for each in called)
    assert found["means"] == [mean(1.0, "S/4"), mean(1.5, "S/4")]
    assert len(load(tmp_path / "results").runs[name].drop_duplicates()) == 2


def test_a_grid_of_settings_is_compared_by_both(tmp_path: Path) -> None:
    factors = {(1e-3, 32): 1.0, (1e-3, 64): 1.2, (2e-3, 32): 1.4, (2e-3, 64): 1.1}
    for (rate, batch), factor in factors.items():
        for seed in (0, 1):
            write_setting(tmp_path / "runs", "S/4", seed, factor, learning_rate=rate, batch_size=batch)
    collect(tmp_path / "runs", tmp_path / "results")
    found = said(tmp_path / "results", "--by", "learning_rate,batch_size")["designs"]
    assert {row["design"]: (row["mean"], row["seeds"]) for row in found} == {
        f"learning_rate {rate:g}, batch_size {batch}": (mean(factor, "S/4"), 2)
        for (rate, batch), factor in factors.items()
    }
    pair = said(tmp_path / "results", "--by", "batch_size,learning_rate", "--between", "32,1e-3,64,2e-3")
    assert pair["better"] == "batch_size 32, learning_rate 0.001"
    assert pair["means"] == [mean(1.0, "S/4"), mean(1.1, "S/4")]
    alone = said(tmp_path / "results", "--by", "learning_rate")  # at each batch size, whatever that is
    assert alone["better"] == "learning_rate 0.001"
    assert alone["means"] == [mean((1.0 + 1.2) / 2, "S/4"), mean((1.4 + 1.1) / 2, "S/4")]
    assert alone["models"] == ["S/4 (batch_size 32)", "S/4 (batch_size 64)"]
    with pytest.raises(ResultsError, match="--between 32,64: accepted: two designs, A,A,B,B"):
        said(tmp_path / "results", "--by", "batch_size,learning_rate", "--between", "32,64")
    with pytest.raises(ResultsError, match=r"1 design .*\(--by batch_size,learning_rate\)"):
        said(tmp_path / "results")


def test_runs_of_other_settings_are_no_further_seeds(tmp_path: Path) -> None:
    """Seeds 0 and 1 at one rate and 2 and 3 at another: no run is there twice, and still they are not four seeds."""
    for seed in range(4):
        write_setting(tmp_path / "runs", "S/4", seed, 1.0, learning_rate=1e-3 if seed < 2 else 2e-3)
    tables = collect(tmp_path / "runs", tmp_path / "results")
    with pytest.raises(ResultsError, match=r"differ in learning_rate \(0\.001, 0\.002\).*--by learning_rate"):
        collected_observations(tables)
    with pytest.raises(ResultsError, match=r"S/4: its runs differ in learning_rate"):
        summary(tables)
    found, left_out = from_each([measured(tables)], scaling_scores)
    assert not left_out
    assert {one.source.design for one in found} == {f"adaln-zero, learning_rate {rate}" for rate in ("0.001", "0.002")}
    for one in found:
        points = over_seeds(one.evals.loc[one.evals["step"] == 2000])
        assert points["num_seeds"].tolist() == [2]


def test_a_study_whose_models_have_a_rate_each_is_one_study(tmp_path: Path) -> None:
    for label, rate in (("S/4", 1e-3), ("B/4", 5e-4), ("L/4", 2e-4)):
        for seed in (0, 1):
            write_setting(tmp_path / "runs", label, seed, 1.0, learning_rate=rate)
    tables = collect(tmp_path / "runs", tmp_path / "results")
    found, _ = from_each([measured(tables)], scaling_scores)
    assert [one.source.design for one in found] == [""]
    assert len(collected_observations(tables)) == 6


def test_figures_draw_each_value_for_itself(rates: Path) -> None:
    drawn = picture("compute", open_sources([str(rates)]), "one")
    assert set(drawn.data["source"]) == {
        f"results, adaln-zero, learning_rate {rate}" for rate in ("0.001", "0.002", "1e-05")
    }


def test_runs_of_earlier_versions_were_trained_as_the_defaults_say(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "S/4")
    runs = collect(tmp_path / "runs", tmp_path / "results").runs
    for name, default in KNOB_DEFAULTS.items():
        value = runs[name].iloc[0]
        assert (value is None or value != value) if default is None else value == default
    digits = load(Path(__file__).parents[2] / "results" / "digits").runs
    assert set(digits["schedule"]) == {"constant"}


def test_the_settings_are_those_of_recipes() -> None:
    """All of a recipe's `train` but its length, its pace, and betas, of which there are two."""
    others = {"steps", "betas", "checkpoint_steps", "log_every", "save_every", "allow_accumulation"}
    assert set(SETTINGS) >= set(KNOB_TYPES) and set(SETTINGS) <= TrainConfig.model_fields.keys() - others
    assert TrainConfig().model_dump(include=set(KNOB_TYPES)) == KNOB_DEFAULTS


def test_steps_that_were_left_out_are_columns_and_in_the_report(tmp_path: Path) -> None:
    for seed, also in ((0, {"skipped": 3}), (1, {"skipped": 0}), (2, {"roll_backs": 1})):
        path = write_run(tmp_path / "runs", "S/4", seed) / "train.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0] |= {"loss": None} if seed == 0 else {}  # all of its steps
        write_lines(path, [row | also for row in rows])
    tables = collect(tmp_path / "runs", tmp_path / "results")
    most: Any = load(tmp_path / "results").train.groupby("seed")["skipped"].max()
    assert most.tolist()[:2] == [3, 0]
    told = failures(tables, [], [])["failed"]
    assert [line for line in told if "not finite" in line] == [
        "S/4, seed 0 (s40): 3 steps were left out, where the loss or its gradient was not finite.",
        "S/4, seed 2 (s42): it was rolled back once, where the loss or its gradient was not finite.",
    ]
