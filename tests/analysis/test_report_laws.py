"""A report's laws are what `ditbench fit` finds, or the reason why it finds none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from drawn_figures import block_study, study
from report_html import DIGITS, Element, by_id, column, digits_html, parsed, section
from run_folders import collect, write_run

from analysis.errors import ResultsError
from analysis.report.laws import fitted, laws
from analysis.report.study import Study
from analysis.results.tables import Tables, load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page() -> Element:
    return parsed(digits_html())


def numbers(table: Element, heading: str) -> list[float]:
    return [float(cell.attributes["data-value"]) for cell in column(table, heading)]


def of(tables: Tables) -> Element:
    """The section of these tables."""
    study = Study.of(tables)
    try:
        content = laws(study, fitted(study), "")
    except ResultsError as error:
        content = laws(study, None, f"No law was fitted: {error}.")
    return section("laws", content | {"charts": []})


def test_correlations_are_those_of_the_table(page: Element) -> None:
    table = by_id(page, "table-correlations")
    assert len(table.all("tbody")[0].all("tr")) == 12
    assert numbers(table, "r")[3] == pytest.approx(-0.950, abs=5e-4)
    assert numbers(table, "Exponent")[3] == pytest.approx(-0.222, abs=5e-4)


def test_every_form_is_there_and_the_power_law_is_least_squares_of_the_logs(page: Element) -> None:
    table = by_id(page, "table-laws")
    names = [cell.text for cell in column(table, "Form")]
    assert sorted(names) == ["power", "power-floor", "tokens", "tokens-floor"]
    evals = load(DIGITS).evals.query("step == 600")
    slope, intercept = np.polyfit(np.log(evals["gmacs"]), np.log(evals["fid"]), 1)
    parameters = column(table, "Parameters, 90 % intervals")[names.index("power")].text.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    number = r"[\d.]+"
    interval = rf"\({number} to {number}\)"
    assert re.fullmatch(rf"A = {np.exp(intercept):.4g} {interval}, α = {-slope:.4g} {interval}", parameters), parameters
    left = np.log(evals["fid"]) - slope * np.log(evals["gmacs"]) - intercept
    assert numbers(table, "Loss ↓")[names.index("power")] == pytest.approx(np.sum(left**2))
    assert numbers(table, "AICc ↓") == sorted(numbers(table, "AICc ↓"))
    status = column(table, "Status")[names.index("power-floor")].text
    assert status == "E is 0, at its bound: the rows show no floor"


def test_the_law_of_each_patch_size_is_its_own(page: Element) -> None:
    table = by_id(page, "table-laws-by-patch")
    assert [cell.text for cell in column(table, "Patch size")] == ["4", "2", "1"]
    evals = load(DIGITS).evals.query("step == 600")
    for patch, alpha, factor in zip((4, 2, 1), numbers(table, "α"), numbers(table, "A"), strict=True):
        rows = evals[evals["patch"] == patch]
        slope, intercept = np.polyfit(np.log(rows["gmacs"]), np.log(rows["fid"]), 1)
        assert (alpha, factor) == pytest.approx((-slope, np.exp(intercept)))


def test_the_largest_model_is_predicted_by_the_law_of_the_others(page: Element) -> None:
    table = by_id(page, "table-held-out")
    evals = load(DIGITS).evals.query("step == 600")
    largest, others = evals.query("label == 'XL/1'"), evals.query("label != 'XL/1'")
    slope, intercept = np.polyfit(np.log(others["gmacs"]), np.log(others["fid"]), 1)
    predicted = np.exp(intercept) * largest["gmacs"].iloc[0] ** slope
    truth = float(np.mean(largest["fid"]))
    assert {cell.text for cell in column(table, "Held out")} == {"XL/1"}
    assert numbers(table, "True") == pytest.approx([truth] * 3)
    row = [cell.text for cell in column(table, "Law")].index("y = A C−α")
    assert column(table, "Fitted to")[row].text == "11 models"
    assert numbers(table, "Predicted")[row] == pytest.approx(predicted)
    assert numbers(table, "Error, %")[row] == pytest.approx(100 * (predicted / truth - 1))
    assert column(table, "Fitted to")[-1].text == "3 models: B/1, L/1, S/1"
    low, high = map(float, column(table, "Law's interval")[row].text.split(" to "))
    inside = low <= truth <= high
    assert column(table, "The truth is")[row].text.startswith("inside the law's" if inside else "outside the law's")


def test_the_conventions_say_how_the_intervals_were_made(page: Element) -> None:
    text = by_id(page, "laws").text
    assert "2,000 replicates (seed 0;" in text
    assert "Loss: sum of squared residuals of log(score)" in text
    assert "C: 10^9 multiply-accumulates" in text


def test_two_models_have_no_law_and_the_section_says_why(tmp_path: Path) -> None:
    body = of(study(tmp_path, ("S/4", "B/4")).tables)
    assert "No law was fitted: 2 models with a score at one step; needed: at least 3." in body.text
    assert not body.all("table")


def test_three_models_have_a_law_and_no_held_out_prediction(tmp_path: Path) -> None:
    body = of(study(tmp_path, ("S/4", "S/2", "B/4")).tables)
    assert [cell.text for cell in column(by_id(body, "table-laws"), "Form")] == ["power"]
    assert "table-held-out" not in [table.attributes["id"] for table in body.all("table")]
    assert any(item.text.startswith("Not done: held out, power: ") for item in body.all("li"))


def test_several_designs_have_no_common_law(tmp_path: Path) -> None:
    body = of(block_study(tmp_path).tables)
    assert (
        "No law was fitted: the runs differ in block (adaln, adaln-zero, in-context); a law needs one value"
        in body.text
    )


@pytest.mark.parametrize("value", ["NaN", "-3.0"])
def test_a_score_that_no_law_can_have_is_named(tmp_path: Path, value: str) -> None:
    for label in ("S/4", "S/2", "B/4", "B/2"):
        folder = write_run(tmp_path / "runs", label)
    lines = (folder / "evals.jsonl").read_text()
    (folder / "evals.jsonl").write_text(re.sub(r'"fid": [\d.]+', f'"fid": {value}', lines))
    body = of(collect(tmp_path / "runs", tmp_path / "results"))
    assert re.search(r"No law was fitted: B/2 seed 0 step 2000: fid is (nan|-3); a law needs finite", body.text)
