import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from scipy.optimize import minimize_scalar
from training_studies import BATCH, MODELS, PRODUCT, STEPS, SUM, budget_of, curves_study, study, truth
from typer.testing import CliRunner

from analysis.advice.advise import advise, best_gmacs
from analysis.advice.budget import parse_budget, pf_days, training_flops
from analysis.advice.report import headline, sentence, table
from analysis.commands import advise as advise_command
from analysis.errors import ResultsError
from analysis.laws.choices import REACH
from analysis.laws.fit import fit
from analysis.laws.observations import observations
from analysis.laws.observed import collected_observations, published_observations
from analysis.results.tables import load

pytestmark = pytest.mark.slow

DIGITS = Path(__file__).parents[2] / "results" / "digits"


def test_a_pf_day_is_ten_to_the_15_flops_a_second_for_a_day():
    """DiT-XL/2 for 7M steps of batch 256: 118.64 GMACs x 2 x 3 x 1.792e9 images."""
    rows = published_observations(all_steps=True)
    longest = rows.names.index("XL/2 step 7000000")
    assert training_flops(rows)[longest] == pytest.approx(118.64e9 * 2 * 3 * 256 * 7e6)
    assert pf_days(float(training_flops(rows)[longest])) == pytest.approx(14.764, abs=5e-4)


@pytest.mark.parametrize("budget", [0.02, 0.1, 0.4])
@pytest.mark.parametrize(("form", "parameters"), [("sum", SUM), ("product", PRODUCT)])
def test_of_a_noiseless_law_the_advice_is_the_best_there_is(form, parameters, budget):
    advice = advise(study(form, parameters), budget, BATCH, (form,))
    assert advice.law.name == form
    reached = {
        model: steps
        for model, (gmacs, _) in MODELS.items()
        if STEPS[0] / REACH <= (steps := int(budget * 8.64e19 / (gmacs * 6e9 * BATCH))) <= REACH * STEPS[-1]
    }
    assert len(reached) > 1
    expected = {model: truth(model, steps, form, parameters) for model, steps in reached.items()}
    assert advice.best is not None
    assert advice.best.model == min(expected, key=lambda model: expected[model])
    assert {choice.model: choice.steps for choice in advice.choices if choice.within_reach} == reached
    for choice in advice.choices:
        assert choice.prediction.law.estimate == pytest.approx(truth(choice.model, choice.steps, form, parameters))
    assert sum(choice.best_in for choice in advice.choices) == pytest.approx(1)
    assert advice.likely == (advice.best,)


def test_the_law_s_best_size_is_where_it_is_lowest():
    law = fit(study(), "sum")
    for tokens, flops in ((16.0, 1e17), (256.0, 3e19)):

        def score(log_gmacs, tokens=tokens, flops=flops):
            gmacs = np.exp(log_gmacs)
            return float(law(compute=gmacs, tokens=tokens, images=flops / (6e9 * gmacs))[0])

        lowest: Any = minimize_scalar(score, bounds=(-10, 10), method="bounded", options={"xatol": 1e-10})
        assert best_gmacs(law, flops, tokens) == pytest.approx(np.exp(lowest.x), rel=1e-5)


def test_a_budget_that_a_run_took_gives_its_steps_and_its_score():
    rows = study(noise=0.05, seeds=3)
    advice = advise(rows, budget_of("B/4", 200_000), BATCH)
    (choice,) = [each for each in advice.choices if each.model == "B/4"]
    its = [row for row, name in enumerate(rows.names) if name.startswith("B/4 ") and name.endswith(" 200000")]
    assert (choice.steps, choice.beyond, len(its)) == (200_000, 1, 3)
    assert choice.measured == pytest.approx(np.exp(np.mean(np.log(rows.score[its]))))


def test_it_says_how_far_it_extrapolates():
    rows = study()
    inside = advise(rows, budget_of("L/4", 200_000), BATCH, ("product",))
    beyond = advise(rows, budget_of("L/2", 800_000), BATCH, ("product",))
    assert inside.beyond == pytest.approx(0.125)  # L/2 at 400K steps took 4 x 2
    assert beyond.beyond == pytest.approx(2)
    choices = {choice.model: choice for choice in beyond.choices}
    assert choices["L/2"].beyond == pytest.approx(2)
    assert choices["L/4"].beyond == pytest.approx(8)
    assert [choice.within_reach for choice in beyond.choices] == [True] + [False] * 8
    assert choices["L/2"].measured is None
    assert "L/2 would train 2 times as long" in headline(beyond)[2]
    assert [row[0] for row in table(beyond)] == ["L/2"]
    short = {choice.model: choice for choice in advise(rows, budget_of("L/2", 25_000), BATCH, ("product",)).choices}[
        "L/2"
    ]
    assert short.beyond == pytest.approx(0.5)


def test_without_a_model_in_reach_there_is_no_advice():
    rows = study()
    for budget in (budget_of("L/2", 400_000) * 4.01, budget_of("S/8", 50_000) / 4.01):
        advice = advise(rows, budget, BATCH, ("product",))
        assert advice.best is None
        assert advice.likely == ()
        assert advice.to_dict()["advice"] is None
        assert "No advice" in headline(advice)[0]
        assert table(advice) == []
        assert {row[-1] for row in table(advice, verbose=True)} == {"out of reach"}
        low, high = advice.to_dict()["reach_pf_days"]
        assert (low, high) == pytest.approx((budget_of("S/8", 50_000) / 4, budget_of("L/2", 400_000) * 4))
    assert advise(rows, high, BATCH, ("product",)).best is not None
    assert advise(rows, low, BATCH, ("product",)).best is not None


def test_models_that_noise_does_not_tell_apart_are_all_named():
    advice = advise(study(noise=0.3, seeds=2), 0.02, BATCH)
    assert len(advice.likely) > 1
    assert sum(choice.best_in for choice in advice.likely) >= 0.9
    assert sum(choice.best_in for choice in advice.likely[:-1]) < 0.9
    assert "Not distinguishable which" in sentence(advice)


def test_the_law_that_predicts_the_later_scores_best_is_taken():
    joint = advise(study("sum", SUM, noise=0.02), 0.1, BATCH)
    assert joint.law.name == "sum"
    assert [test.law.name for test in joint.tests] == ["curves", "product", "sum"]
    slopes = dict(zip(MODELS, np.linspace(0.2, 1.0, len(MODELS)).tolist(), strict=True))
    own = advise(curves_study(slopes, noise=0.002), 0.1, BATCH)
    assert own.law.name == "curves"
    assert "it predicts the study's later scores best from the earlier ones" in own.why
    assert "Were there models" not in sentence(own)
    for choice in own.choices:
        images = choice.steps / 50_000
        assert choice.prediction.law.estimate == pytest.approx(100 * images ** -slopes[choice.model], rel=0.1)


def test_beyond_its_scores_a_run_is_as_uncertain_as_the_law_was_wrong():
    """A law that is exact up to half of the training, and then 20 % too high or too low: so may it be again."""
    slopes = dict.fromkeys(MODELS, 0.5)
    rows = curves_study(slopes)
    later = rows.variables["images"] > BATCH * 200_000
    signs = np.where(np.array([model.startswith("B") for model in rows.models]), 1.2, 1 / 1.2)
    wrong = replace(rows, score=rows.score * np.where(later, signs, 1))
    advice = advise(wrong, budget_of("L/2", 800_000), BATCH, ("curves",))
    assert advice.tested is not None
    assert sorted(set(np.round(advice.tested.ratios[later], 6))) == [0.833333, 1.2]
    (twice,) = [choice for choice in advice.choices if choice.model == "L/2"]
    own, run = twice.prediction.law, twice.prediction.new_run
    assert twice.beyond == pytest.approx(2)
    assert run.low <= own.low / 1.1
    assert run.high >= own.high * 1.1
    inside = {c.model: c for c in advise(wrong, budget_of("L/2", 300_000), BATCH, ("curves",)).choices}["L/2"]
    assert inside.beyond == 1
    assert inside.prediction.new_run.high < 1.1 * inside.prediction.law.high


def test_where_laws_cannot_be_tested_the_aicc_chooses():
    rows = published_observations(all_steps=True)
    advice = advise(rows, 5, 256, method="residual")
    assert advice.tests == ()
    assert "none could be tested on later scores" in advice.why
    assert advice.law.joint is not None
    assert advice.law.joint.aicc == min(fit(rows, form).aicc for form in ("product", "sum"))
    assert len([line for line in advice.left_out if "is not tested" in line]) == 2


def test_what_is_out_of_reach_is_named_and_no_score_of_it_is_expected():
    """Small models are expected to win in the long run, which nobody has seen."""
    slopes = dict.fromkeys(MODELS, 0.1) | {"S/8": 1.0}
    advice = advise(curves_study(slopes, noise=0.01), budget_of("L/2", 400_000), BATCH)
    said = sentence(advice)
    # As many steps as are within reach, four times 400,000, to the last one.
    assert said.startswith("Train L/4 for 1,600,000 steps of batch 256: fid 7")
    out = {
        choice.model: f"{choice.prediction.law.estimate:.4g}" for choice in advice.choices if not choice.within_reach
    }
    assert out["S/8"].startswith("0.07")
    assert all(model in said and estimate not in said for model, estimate in out.items())
    assert not set(out) & {row[0] for row in table(advice)}
    marked = {row[0]: row[4] for row in table(advice, verbose=True)}
    assert {model: marked[model] for model in out} == {model: f"({estimate})" for model, estimate in out.items()}


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (0, "budget 0; accepted: a positive number of PF-days"),
        (-1, "budget -1; accepted"),
        (np.nan, "budget nan; accepted"),
        (np.inf, "budget inf; accepted"),
        (1e-12, "budget 1e-12 PF-days: not one step of S/8, which takes 7.11e-09"),
    ],
)
def test_bad_budgets_are_refused(budget, message):
    with pytest.raises(ResultsError, match=message):
        advise(study(), budget, BATCH)


def test_rows_of_one_step_tell_nothing_of_training():
    with pytest.raises(ResultsError, match=r"images is 1\.024e\+08 in every row; needed: at least 2 different values"):
        advise(study(steps=(400_000,)), 1, BATCH)
    no_curve = r"curves: no model has a curve; S/8 has no curve: .* there is 1 row; needed: at least 3"
    with pytest.raises(ResultsError, match=no_curve):
        advise(study(steps=(400_000,)), 1, BATCH)


def test_compute_of_another_convention_is_refused():
    rows = study()
    given = observations(rows.score, **rows.variables)
    with pytest.raises(ResultsError, match="compute as-given: needed: forward"):
        advise(given, 1, BATCH)


def test_models_that_the_budget_does_not_pay_for_are_named():
    step_of_l2 = budget_of("L/2", 1)
    advice = advise(study(), 0.9 * step_of_l2, BATCH)
    assert "L/2: the budget does not pay for one step" in advice.left_out
    assert "L/2" not in [choice.model for choice in advice.choices]


def run(*arguments):
    app = typer.Typer()
    app.command()(advise_command.advise)
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_papers_models_for_five_pf_days(tmp_path):
    """Of the 12, only XL/2 was trained for long; the others would leave their scored steps far behind."""
    arguments = ("published", "--budget", 5)
    printed = run(*arguments, "--format", "json", "--out", tmp_path / "advice.json").output
    assert (tmp_path / "advice.json").read_text() == printed
    old = ("--source", "published", "--budget", "5 PF-days", "--format", "json")  # as earlier versions had it
    assert run(*old).output == printed  # same seed, same numbers
    found = json.loads(printed)
    assert (found["advice"], found["choices"][0]["steps"], found["batch_size"]) == ("XL/2", 2_370_616, 256)
    assert (found["law"]["law"], found["law"]["fit"]["num_rows"]) == ("product", 14)
    # Between the paper's 10.67 at 2,352K steps and 9.62 at 7,000K.
    assert 9.62 < found["choices"][0]["measured"] < 10.67
    assert [choice["within_reach"] for choice in found["choices"]] == [True] + [False] * 11
    assert "It does not extrapolate" in run(*arguments).output


def test_the_digits_study_is_advised_on_in_three_lines():
    lines = run(DIGITS, "--budget", 2e-8).output.splitlines()
    assert set(lines[3]) == {"\N{BOX DRAWINGS LIGHT HORIZONTAL}"}
    assert max(map(len, lines[:3])) <= 100
    assert "B/1 for 1,370 steps of batch 32: fid 16.90 expected" in lines[0]
    assert "99%" in lines[1] and "2.28 times" in lines[2]
    assert all("8.954" not in line and "4,628" not in line for line in lines)  # S/1, out of reach
    verbose = run(DIGITS, "--budget", 2e-8, "--verbose").output
    assert "(8.954)" in verbose and verbose.count("Tested") == 1
    joint = run(DIGITS, "--budget", 2e-8, "--law", "sum", "--verbose").output
    assert "E is 0, at its bound" in " ".join(joint.split())
    assert "Were there models of every size with 64 tokens" in joint


def test_gpu_hours_are_those_of_the_profile():
    """slurm-example: 156 TFLOP/s at TF32, of which 11.8 % are expected."""
    from bench.errors import InputError
    from ditbench import app

    def ended(*arguments):
        return CliRunner().invoke(app, ["advise", "published", *map(str, arguments), "--format", "json"])

    found = json.loads(ended("--budget", "500h", "--cluster", "slurm-example").output)
    assert found["budget_flops"] == pytest.approx(500 * 3600 * 156e12 * 0.118)
    assert (found["cluster"], found["gpu_hours"]) == ("slurm-example", pytest.approx(500))
    same = json.loads(ended("--budget", found["budget_pf_days"], "--cluster", "slurm-example").output)
    assert same["gpu_hours"] == pytest.approx(500)
    refused = ended("--budget", "500h", "--cluster", "local").exception
    assert isinstance(refused, InputError) and "gpu: missing" in str(refused)


@pytest.mark.parametrize(
    ("text", "pf_days", "hours"),
    [
        ("2e-8", 2e-8, None),
        ("2e-8 PF-days", 2e-8, None),
        ("1 pf-day", 1, None),
        ("500h", None, 500),
        ("500 h", None, 500),
        ("100 gpu-hours", None, 100),
        ("100 GPU hours", None, 100),
        ("1.5GPU-h", None, 1.5),
    ],
)
def test_budgets_have_a_unit(text, pf_days, hours):
    budget = parse_budget(text, "c" if hours else None, lambda cluster: (1e15, ""))
    assert budget.pf_days == pytest.approx(pf_days or hours / 24)
    assert budget.gpu_hours == (pytest.approx(hours) if hours else None)


@pytest.mark.parametrize(
    "text", ["", "h", "0", "-1", "-5h", "nan", "inf", "1e999h", "many", "5 days", "1,000h", "5 hh"]
)
@pytest.mark.parametrize("cluster", [None, "c"])
def test_what_is_no_budget_is_refused_in_one_line(text, cluster):
    with pytest.raises(ResultsError, match=r"--budget .*accepted: a positive number of PF-days") as refusal:
        parse_budget(text, cluster, lambda cluster: (1e15, ""))
    assert "\n" not in str(refusal.value)


def test_hours_need_a_cluster():
    with pytest.raises(ResultsError, match=r"--budget 500h: hours of which GPU\? needed: --cluster"):
        run("published", "--budget", "500h")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", 1), "DATA: missing; accepted: one of published"),
        ((DIGITS, "--source", "published", "--budget", 1), "DATA: .*digits and published; accepted: one of"),
        ((DIGITS, "--budget", 0), "--budget 0: accepted"),
        ((DIGITS, "--budget", 1e-8, "--metric", "sfid"), "sfid: computed for no row"),
        ((DIGITS, "--budget", 1e-8, "--level", 1), "level 1; accepted: between 0 and 1"),
    ],
)
def test_bad_requests_are_refused(arguments, message):
    with pytest.raises(ResultsError, match=message):
        run(*arguments)


def test_a_budget_is_needed():
    with pytest.raises(ResultsError, match="--budget"):
        run(DIGITS)


def test_published_rows_of_all_steps_are_those_of_the_paper():
    rows = published_observations(all_steps=True)
    assert dict(zip(rows.names, rows.score.tolist(), strict=True))["XL/2 step 2352000"] == 10.67
    assert len(rows) == 14
    assert not any("another step" in line for line in rows.left_out)
    digits = collected_observations(load(DIGITS), all_steps=True)
    assert len(digits) == 144
