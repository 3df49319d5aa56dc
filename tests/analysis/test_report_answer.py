"""A page begins with what its study has found, and with what that is worth."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_figures import block_study
from report_html import DIGITS, by_id, digits_html, parsed
from run_folders import LABELS, collect, gmacs_of, write_run

from analysis.laws.held_out import leave_largest_out
from analysis.laws.observed import collected_observations
from analysis.laws.report import fit_report
from analysis.report.answer import Answer, answer, held_out_in_words
from analysis.report.laws import fitted
from analysis.report.study import Study
from analysis.results.tables import load


def rescored(folder: Path, labels: list[str], fid: dict[str, float], seeds: tuple[int, ...] = (0,)) -> Study:
    """Models with these Fréchet distances, at their only step."""
    for seed in seeds:
        for label in labels:
            run = write_run(folder / "runs", label, seed, steps=(2000,))
            (row,) = (json.loads(line) for line in (run / "evals.jsonl").read_text().splitlines())
            (run / "evals.jsonl").write_text(json.dumps(row | {"fid": fid[label] * (1 + 0.01 * seed)}) + "\n")
    return Study.of(collect(folder / "runs", folder / "results"))


def power(labels: list[str], exponent: float = -0.3) -> dict[str, float]:
    """Scores near a power law."""
    scatter = np.random.default_rng(1).normal(scale=0.02, size=len(labels))
    return {label: 5 * gmacs_of(label) ** exponent * float(np.exp(e)) for label, e in zip(labels, scatter, strict=True)}


def found(study: Study) -> Answer:
    """By the power law alone: the other forms take their time."""
    rows = collected_observations(study.tables)
    return answer(study, fit_report(rows, "made up", ("power",), held_out=True))


@pytest.mark.slow
def test_the_headline_is_the_power_law_with_its_interval() -> None:
    page = parsed(digits_html())
    (headline,) = [p.text for p in page.all("p") if p.attributes.get("class") == "headline"]
    evals: Any = load(DIGITS).evals.query("step == 600")
    slope, _ = np.polyfit(np.log(evals["gmacs"]), np.log(evals["fid"]), 1)
    said = re.search(r"∝ C−([\d.]+) \(90 %: −([\d.]+) to −([\d.]+)\) over 12 models", headline.replace("\xa0", " "))
    assert said, headline
    estimate, high, low = map(float, said.groups())
    assert estimate == pytest.approx(-slope, abs=0.005)
    assert low < estimate < high
    facts = by_id(page, "answer").all("dd")
    assert facts[0].text == f"× {10**slope:.2f}"
    best = evals.groupby("label")["fid"].mean().min()
    assert facts[-1].text == f"{best:#.4g}"


def test_a_score_that_compute_does_not_order_is_not_said_to_follow_it(tmp_path: Path) -> None:
    labels = LABELS[:9]
    said = found(rescored(tmp_path, labels, power(labels, exponent=-0.001)))
    assert "follows compute" not in said.headline
    assert "hardly" in said.headline


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "inside the law's own"), (1.8, "outside a new run's")])
def test_a_prediction_is_judged_in_words(tmp_path: Path, factor: float, verdict: str) -> None:
    scores = power(LABELS)
    scores["XL/1"] *= factor
    said = found(rescored(tmp_path, LABELS, scores))
    assert verdict in said.notes[0]
    assert ("do not extend it" in said.notes[0]) == (factor > 1)
    error = int(re.search(r"the prediction is (\d+)\s% too (high|low)", said.notes[0])[1])  # pyright: ignore
    assert error == pytest.approx(100 * abs(1 - 1 / factor), abs=8)
    assert "XL/1" in said.facts[1].label
    assert said.facts[1].value.startswith("−") or factor == 1


def test_a_law_that_comes_closer_is_named() -> None:
    """Had the largest model scored what the law of its patch size says of it, which the law of all does not allow."""
    study = Study.of(load(DIGITS))
    report = fit_report(collected_observations(study.tables), "digits", ("power",), method="profile", held_out=True)
    truth = report.held_out[-1].predictions[0].law.estimate
    assert not report.held_out[0].predictions[0].law.holds(truth)
    tests = tuple(replace(test, truth=(truth,), runs=((truth,),)) for test in report.held_out)
    (note, *_) = answer(study, replace(report, held_out=tests)).notes
    assert re.search(r"Closer comes the law of its patch size alone, 0\s% too (high|low)\.", note)


def test_a_prediction_between_the_two_intervals_is_neither_good_nor_bad() -> None:
    test = leave_largest_out(collected_observations(load(DIGITS)), "power")
    prediction = test.predictions[0]
    between = 0.5 * (prediction.law.low + prediction.new_run.low)
    words = held_out_in_words(replace(test, truth=(between,), runs=((between,),)))
    assert "outside the law's own" in words
    assert "inside a new run's" in words


@pytest.mark.slow
def test_few_models_have_a_law_whose_interval_is_doubted(tmp_path: Path) -> None:
    labels = ["S/4", "S/2", "B/4", "B/2", "B/1", "S/1"]
    study = rescored(tmp_path, labels, power(labels))
    said = answer(study, fitted(study))
    assert "over 6 models" in said.headline
    assert any("one training seed" in note for note in said.notes)


def test_one_and_two_models_are_told_by_their_best(tmp_path: Path) -> None:
    one = rescored(tmp_path / "one", ["B/2"], {"B/2": 30.0})
    assert answer(one, None).headline == "B/2 reaches Fréchet distance 30.00, at step 2,000."
    two = rescored(tmp_path / "two", ["B/2", "S/4"], {"B/2": 30.0, "S/4": 50.0}, seeds=(0, 1))
    assert answer(two, None).headline == (
        "B/2 is the best of 2 models: Fréchet distance 30.15 (30.00 to 30.30, 2 seeds), at step 2,000."
    )


def test_designs_are_compared(tmp_path: Path) -> None:
    said = answer(Study.of(block_study(tmp_path).tables), None)
    assert said.headline.startswith("Lowest mean Fréchet distance at step 2,000: adaln-zero for XL/1 (")


def test_without_scores_the_page_says_how_far_the_runs_are(tmp_path: Path) -> None:
    (write_run(tmp_path / "runs", "S/4") / "evals.jsonl").unlink()
    said = answer(Study.of(collect(tmp_path / "runs", tmp_path / "results")), None)
    assert said == Answer("There is no score yet: 1 of 1 run finished.", [], [])
