import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from analysis.advice.budget import FLOPS_PER_GMAC_IMAGE
from analysis.commands.fit import FormChoice, fit
from analysis.errors import ResultsError
from analysis.laws.bootstrap import METHODS
from analysis.laws.choices import Method, Objective
from analysis.laws.compute import COMPUTE, Convention, training_gmacs
from analysis.laws.forms import FORMS
from analysis.laws.observed import collected_observations, published_observations
from analysis.laws.solver import OBJECTIVES
from analysis.results.tables import load

DIGITS = Path(__file__).parents[2] / "results" / "digits"


@pytest.fixture(scope="module")
def digits():
    return load(DIGITS)


def run(*arguments):
    app = typer.Typer()
    app.command()(fit)
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_published_report_has_prediction_interval_and_truth(tmp_path):
    arguments = ("--source", "published", "--held-out", "largest")
    printed = run(*arguments, "--format", "json", "--out", tmp_path / "published.json")
    assert (tmp_path / "published.json").read_text() == printed
    assert run(*arguments, "--format", "json") == printed  # same seed, same numbers
    report = json.loads(printed)
    assert [each["form"] for each in report["fits"]] == ["tokens", "power", "tokens-floor", "power-floor"]
    power = report["fits"][1]
    assert round(power["parameters"]["A"], 1) == 137.8
    assert power["compute"]["unit"] == "GMACs"
    assert power["intervals"]["parameters"]["alpha"]["low"] < 0.365 < power["intervals"]["parameters"]["alpha"]["high"]
    assert [each["models"][0]["truth"] for each in report["held_out"]] == [19.47] * 5
    assert report["held_out"][0]["num_rows_fitted"] == 11
    assert report["held_out"][-1]["models_fitted"] == ["B/2", "L/2", "S/2"]
    assert not report["held_out"][0]["models"][0]["truth_inside_law"]
    assert "chinchilla" not in printed
    assert report["fits"][0]["left_out"][0].startswith("DiT-XL/2 in-context")


def test_a_table_says_what_was_fitted():
    output = run("--source", "published", "--intervals", "profile")
    assert "FID-50K, 12 rows; loss: sum of squared residuals of log(score)" in output
    assert (
        "One law a patch size, y = A C^-alpha: alpha = 0.108 at patch 8, 0.288 at patch 4, 0.427 at patch 2" in output
    )
    assert "true FLOPs are 2x" in output


def test_digits_have_three_seeds_of_each_model(digits):
    rows = collected_observations(digits)
    assert len(rows) == 36
    assert rows.names[0] == "S/4 seed 0 step 600"
    last = digits.evals[digits.evals["step"] == 600]
    assert rows.score.tolist() == last["fid"].tolist()
    assert rows.variables["compute"].tolist() == last["gmacs"].tolist()
    assert set(rows.variables["tokens"]) == {4, 16, 64}
    assert set(rows.variables["images"]) == {19200}
    output = run(DIGITS, "--held-out", "largest", "--intervals", "profile")
    assert "3 of 3 runs are inside a new run's" in output


def test_parameters_and_data_need_one_patch_size(digits):
    rows = collected_observations(digits, all_steps=True, patch=1)
    assert len(rows) == 48
    assert set(rows.variables["images"]) == {4800, 9600, 14400, 19200}
    assert "y = E + A N^-alpha + B D^-beta" in run(
        DIGITS, "--form", "chinchilla", "--patch", 1, "--intervals", "profile"
    )
    with pytest.raises(ResultsError, match="no term for tokens; needed: one patch size, --patch N"):
        run(DIGITS, "--form", "chinchilla")
    with pytest.raises(ResultsError, match="patch 8: no such rows; accepted: 1, 2, 4"):
        collected_observations(digits, patch=8)


def test_conventions_of_compute_differ_by_what_they_say(digits):
    rows = {name: collected_observations(digits, compute=name).variables["compute"] for name in COMPUTE}
    assert rows["training"] == pytest.approx(rows["forward"] * 3 * 32 * 600)
    assert rows["training"] == pytest.approx(digits.runs["training_gmacs"].to_numpy())
    assert rows["training-flops"] == pytest.approx(2e9 * rows["training"])
    runs = digits.runs
    assert rows["6nd"] == pytest.approx((6 * runs["params"] * runs["tokens"] * 32 * 600).to_numpy(float))
    assert published_observations(compute="6nd").variables["compute"][0] == pytest.approx(6 * 33e6 * 16 * 256 * 4e5)
    with pytest.raises(ResultsError, match="compute flops: unknown; accepted: forward, training"):
        published_observations(compute="flops")


@pytest.mark.parametrize(("gmacs", "batch_size", "steps"), [(118.64, 256, 7_000_000), (0.0356, 32, 600)])
def test_training_compute_is_that_of_the_bench_which_analysis_cannot_import(gmacs, batch_size, steps):
    from bench import flops

    assert training_gmacs(gmacs, batch_size, steps) == flops.training_gmacs(gmacs, batch_size, steps)
    assert FLOPS_PER_GMAC_IMAGE == 2e9 * flops.TRAINING_FACTOR


def test_every_choice_of_the_command_line_exists():
    assert list(get_args(Convention)) == list(COMPUTE)
    assert set(get_args(Objective)) == set(OBJECTIVES)
    assert set(get_args(Method)) == set(METHODS)
    assert set(get_args(FormChoice)) - {"all", "by-patch"} <= set(FORMS)


def test_loss_is_a_mean_over_the_last_tenth_of_the_steps(digits):
    rows = collected_observations(digits, "loss")
    log = digits.train[digits.train["run"] == "5db43ce56d"]
    assert rows.score[0] == pytest.approx(log[(log["step"] > 540) & (log["step"] <= 600)]["loss"].mean())


def test_runs_without_a_score_are_named(digits):
    evals = digits.evals[~((digits.evals["run"] == "5db43ce56d") & (digits.evals["step"] == 600))]
    rows = collected_observations(replace(digits, evals=evals))
    assert len(rows) == 35
    assert rows.left_out == ("S/4 seed 0: no score at step 600",)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("fid", np.nan, "S/4 seed 0 step 600: fid is nan; a law needs finite, positive values"),
        ("num_samples", 100, "scores that differ in num_samples"),
        ("block", "adaln", "the runs differ in block .adaln, adaln-zero."),
        ("seed", 1, "S/4 seed 1 step 600 is there 2 times; needed: one run of each"),
    ],
)
def test_bad_scores_are_refused(digits, column, value, message):
    evals = digits.evals.copy()
    evals.loc[evals["run"] == "5db43ce56d", column] = value
    with pytest.raises(ResultsError, match=message):
        collected_observations(replace(digits, evals=evals))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "accepted: either a folder of results or --source published"),
        ((DIGITS, "--source", "published"), "accepted: either a folder of results or --source published"),
        ((DIGITS, "--metric", "precision"), "metric precision: no law of this kind; accepted: fid"),
        ((DIGITS, "--metric", "sfid"), "sfid: computed for no row"),
        (("--source", "published", "--metric", "loss"), "loss: not published for the 12 models; accepted: fid"),
        ((DIGITS, "--step", "601"), "step 601: no score there; accepted: 150, 300, 450, 600"),
        (("--source", "published", "--step", "7"), "Table 4 is fitted at step 400,000"),
        (("--source", "published", "--level", "90"), "level 90; accepted: between 0 and 1"),
        ((DIGITS, "--objective", "log-huber", "--intervals", "profile"), "profile intervals need a likelihood"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments, message):
    with pytest.raises(ResultsError, match=message):
        run(*arguments)


def test_fitting_needs_neither_torch_nor_matplotlib():
    code = (
        "import sys, analysis.commands.fit; early = {'numpy', 'scipy', 'pandas'} & set(sys.modules);"
        "import analysis.laws.report, analysis.laws.observed, analysis.laws.chinchilla, analysis.perf;"
        "print(sorted(early | {'torch', 'models', 'bench', 'sweeps', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
