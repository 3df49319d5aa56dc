"""What results/digits-advice says of predictions and measurements is what its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_readme import README, rows_after

from analysis.results.tables import load

RESULTS = Path(__file__).parents[2] / "results"
FOLDER = RESULTS / "digits-advice"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
TRIED_IN = {
    "2e-8": "digits-advice",
    "1e-7": "digits-advice",
    "5e-9": "digits-advice-confirm",
    "1.2e-8": "digits-advice-again",
    "2e-9": "digits-advice-again",
}


def tried(path: Path, budget: str) -> list[dict[str, Any]]:
    """The predicted choices that were trained, with their scores."""
    evals: Any = load(RESULTS / TRIED_IN[budget]).evals
    found = []
    for choice in json.loads(path.read_text(encoding="utf-8"))["choices"]:
        its = evals[(evals["label"] == choice["model"]) & (evals["step"] == choice["steps"])]
        if len(its):
            found.append(choice | {"scores": its.sort_values("seed")["fid"].tolist()})
    return found


def inside(choice: dict[str, Any]) -> int:
    run = choice["prediction"]["new_run"]
    return sum(run["low"] <= score <= run["high"] for score in choice["scores"])


@pytest.mark.parametrize("budget", ["5e-9", "1.2e-8", "2e-9"])
def test_the_page_says_what_was_predicted_and_measured(budget: str) -> None:
    expected = []
    for choice in tried(FOLDER / f"predicted-{budget}.json", budget):
        run = choice["prediction"]["new_run"]
        expected.append(
            [
                budget,
                f"{choice['model']}, {choice['steps']:,}" + ("" if choice["within_reach"] else ", out of reach"),
                f"{choice['beyond']:.2f}",
                f"{run['estimate']:.1f}",
                f"{run['low']:.1f} to {run['high']:.1f}",
                ", ".join(f"{score:.1f}" for score in choice["scores"]),
                f"{inside(choice)} of {len(choice['scores'])}",
            ]
        )
    assert len(expected) >= 3
    assert [row for row in rows_after("budget", PAGE) if row[0] == budget] == expected


def test_the_page_says_how_wrong_each_law_was() -> None:
    expected = []
    for law in ("sum", "product", "curves"):
        choices = [
            choice
            for budget in ("2e-8", "1e-7")
            for choice in tried(FOLDER / f"afterwards-{law}-{budget}.json", budget)
            if choice["beyond"] > 1 and choice["within_reach"]
        ]
        assert len(choices) == 5
        ratios = [choice["prediction"]["new_run"]["estimate"] / np.mean(choice["scores"]) for choice in choices]
        within = f"{sum(map(inside, choices))} of {sum(len(choice['scores']) for choice in choices)}"
        expected.append([law, f"{min(ratios):.2f} to {max(ratios):.2f}", within])
    assert rows_after("law", PAGE) == expected


def test_the_readme_says_how_the_advice_did() -> None:
    choices = [
        choice
        for budget in ("1.2e-8", "2e-9")
        for choice in tried(FOLDER / f"predicted-{budget}.json", budget)
        if choice["within_reach"]
    ]
    runs = sum(len(choice["scores"]) for choice in choices)
    flowing = " ".join(README.split())
    assert f"{sum(map(inside, choices))} of {runs} runs inside their 90 % intervals" in flowing
    assert f"held {sum(map(inside, choices))} of {runs} runs" in " ".join(PAGE.split())


def test_no_model_within_reach_was_much_better_than_the_one_advised() -> None:
    for budget in ("1.2e-8", "2e-9"):
        advised = json.loads((FOLDER / f"predicted-{budget}.json").read_text(encoding="utf-8"))["advice"]
        means = {c["model"]: np.mean(c["scores"]) for c in tried(FOLDER / f"predicted-{budget}.json", budget)}
        assert means[advised] <= 1.01 * min(means.values())
    assert "no model within reach scored more than 1 % better than the one advised" in " ".join(README.split())


def test_the_study_trained_where_the_trials_were_gives_the_same_advice() -> None:
    within, runs = 0, 0
    for budget in ("5e-9", "1.2e-8", "2e-9"):
        first, again = (
            json.loads((FOLDER / f"{name}-{budget}.json").read_text(encoding="utf-8"))
            for name in ("predicted", "again")
        )
        assert first["advice"] == again["advice"]
        if budget != "5e-9":
            choices = [choice for choice in tried(FOLDER / f"again-{budget}.json", budget) if choice["within_reach"]]
            within, runs = within + sum(map(inside, choices)), runs + sum(len(choice["scores"]) for choice in choices)
    assert f"again {within} of {runs} runs are inside" in " ".join(PAGE.split())


def test_the_two_feature_networks_differ_as_said() -> None:
    flowing = " ".join(PAGE.split())
    for name in ("digits-again", "digits"):
        evals: Any = load(RESULTS / name).evals
        first = evals.iloc[0]
        assert f"{100 * first['extractor_accuracy']:.1f} %" in flowing
        assert f"{100 * first['fid'] / first['fid_percent']:.1f}" in flowing


def test_one_feature_network_scored_predictions_and_trials() -> None:
    folders = {RESULTS / name for name in TRIED_IN.values()} | {RESULTS / "digits-again"}
    evals: Any = pd.concat([load(folder).evals for folder in folders])
    assert evals["extractor"].nunique() == 1
    assert evals["reference"].nunique() == 1
