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
from analysis.laws.held_out import usual_intervals
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


def answer(output):
    """The lines above the rule, and those below."""
    lines = output.splitlines()
    rule = next(index for index, line in enumerate(lines) if set(line) == {"\N{BOX DRAWINGS LIGHT HORIZONTAL}"})
    return lines[:rule], lines[rule + 1 :]


@pytest.mark.slow
def test_published_report_has_prediction_interval_and_truth(tmp_path):
    arguments = ("published", "--held-out", "largest")
    printed = run(*arguments, "--format", "json", "--out", tmp_path / "published.json")
    assert (tmp_path / "published.json").read_text() == printed
    assert run("--source", "published", *arguments[1:], "--format", "json") == printed  # as earlier versions had it
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


def test_the_answer_is_in_three_lines_and_below_them_stand_the_numbers_of_the_readme():
    output = run("published", "--held-out", "largest")
    headline, rest = answer(output)
    assert len(headline) <= 3 and max(map(len, headline)) <= 100
    law = published_law()
    for number in (*law["alpha"], 25.69, "+32.0%", 19.47, 20.56, "32.10"):
        assert str(number) in "\n".join(headline[:2])
    # README, "What a law predicts": predicted, the law's interval, a new run's.
    rows = [line.split("  ") for line in rest]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells_of("252 C^-0.272 T^-0.192", cells) == ["25.69 (+32.0%)", "20.56 to 32.10, missed", "17.15 to 38.50"]
    assert cells_of("137.8 C^-0.365", cells) == ["26.48 (+36.0%)", "19.68 to 35.62, missed", "15.43 to 45.42"]
    assert cells_of("a law for each patch size", cells) == ["20.59 (+5.7%)", "11.75 to 36.08", "9.58 to 44.26"]
    lines = [line for line in output.splitlines() if len(line) > 20]
    assert len(lines) == len(set(lines)), "a line twice"


def published_law():
    """The interval of alpha of the best law, as the committed fit has it."""
    found = json.loads((DIGITS.parent / "fits" / "published.json").read_text())["fits"][0]
    alpha = found["intervals"]["parameters"]["alpha"]
    return {"alpha": (f"{alpha['low']:.3g}", f"{alpha['high']:.3g}")}


def cells_of(law, rows):
    return next(row[-3:] for row in rows if row and row[0] == law)


def test_intervals_are_profile_for_one_score_a_model_and_bootstrap_for_several():
    one = json.loads(run("published", "--form", "power", "--format", "json"))
    assert one["fits"][0]["intervals"]["method"] == "profile"
    assert len(one["held_out"]) == 1  # the best law is tested unasked
    several = json.loads(run(DIGITS, "--form", "power", "--format", "json"))
    assert several["fits"][0]["intervals"]["method"] == "bootstrap"
    rows = published_observations()
    assert usual_intervals(rows, "log-huber") == "bootstrap"


def test_laws_by_patch_alone_are_each_given_with_its_interval():
    found = json.loads(run("published", "--form", "by-patch", "--format", "json"))
    assert {patch: round(alpha["estimate"], 3) for patch, alpha in found["alphas"].items()} == {
        "8": 0.108, "4": 0.288, "2": 0.427
    }  # fmt: skip
    assert all(alpha["low"] < alpha["estimate"] < alpha["high"] for alpha in found["alphas"].values())
    assert found["held_out"][-1]["models_fitted"] == ["B/2", "L/2", "S/2"]
    assert "25.69" not in run("published", "--form", "by-patch")


def test_verbose_says_what_was_fitted_and_left_out():
    output = " ".join(run("published", "--verbose").split())
    assert "alpha 0.3648 [0.2859, 0.4436]" in output
    assert "alpha = 0.108 at patch 8, 0.288 at patch 4, 0.427 at patch 2" in output
    assert "DiT-XL/2 in-context" in output and "DiT-XL/2 in-context" not in run("published")


def test_digits_have_three_seeds_of_each_model(digits):
    rows = collected_observations(digits)
    assert len(rows) == 36
    assert rows.names[0] == "S/4 seed 0 step 600"
    last = digits.evals[digits.evals["step"] == 600]
    assert rows.score.tolist() == last["fid"].tolist()
    assert rows.variables["compute"].tolist() == last["gmacs"].tolist()
    assert set(rows.variables["tokens"]) == {4, 16, 64}
    assert set(rows.variables["images"]) == {19200}
    found = json.loads(run(DIGITS, "--intervals", "profile", "--form", "tokens", "--format", "json"))
    assert found["held_out"][0]["models"][0]["truth_inside_new_run"]


def test_parameters_and_data_need_one_patch_size(digits):
    rows = collected_observations(digits, all_steps=True, patch=1)
    assert len(rows) == 48
    assert set(rows.variables["images"]) == {4800, 9600, 14400, 19200}
    output = run(DIGITS, "--form", "chinchilla", "--patch", 1, "--intervals", "profile")
    assert " N^-" in output.splitlines()[0] and " D^-" in output.splitlines()[0]
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
        ((), "DATA: missing; accepted: one of published"),
        ((DIGITS, "--source", "published"), "DATA: .*digits and published; accepted: one of"),
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


@pytest.mark.slow  # of what is imported, test_architecture.py and test_light_imports.py tell it too
def test_fitting_needs_neither_torch_nor_matplotlib():
    code = (
        "import sys, analysis.commands.fit; early = {'numpy', 'scipy', 'pandas'} & set(sys.modules);"
        "import analysis.laws.report, analysis.laws.observed, analysis.laws.chinchilla, analysis.perf;"
        "print(sorted(early | {'torch', 'models', 'bench', 'sweeps', 'matplotlib'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
