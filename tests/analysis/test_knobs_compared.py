"""A study of knobs at several learning rates: every pair is answered, at equal settings, and no failure is dropped."""

from __future__ import annotations

import json
from itertools import combinations, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from knob_study import ARMS, RATES, SEEDS, fid, write_knob_study
from run_folders import collect
from typer.testing import CliRunner

from analysis.commands.compare import compare
from analysis.errors import ResultsError
from analysis.results.run_folders import EVALUATION_KEY_TYPES, SETTINGS

APP = typer.Typer()
APP.command()(compare)
GIVEN_UP = frozenset({("plain", 0.1, 0), ("plain", 0.1, 1), ("plain", 0.1, 2), ("clip", 0.1, 1)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("whole")
    write_knob_study(home)
    return home / "results"


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain model has no score at the highest rate, and clipping lacks a seed there."""
    home = tmp_path_factory.mktemp("failed")
    write_knob_study(home, GIVEN_UP)
    return home / "results"


def said(*arguments: object) -> Any:
    done = CliRunner().invoke(APP, [str(each) for each in (*arguments, "--format", "json")])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


def mean(*cells: tuple[str, float], seeds: tuple[int, ...] = SEEDS) -> Any:
    return pytest.approx(np.mean([fid(arm, rate, seed) for arm, rate in cells for seed in seeds]))


def test_each_pair_of_arms_by_the_names_that_the_study_gives_them(whole: Path) -> None:
    for (one, other), rate in zip(combinations(ARMS, 2), cycle(RATES), strict=False):
        found = said(whole, "--between", f"{one} {rate:g},{other} {rate:g}")
        scores = {f"{arm} {rate:g}": mean((arm, rate)) for arm in (one, other)}
        assert found["means"] == [scores[found["better"]], scores[found["worse"]]]
        assert (found["seeds"], found["paired"], found["models"]) == ([3, 3], True, ["B/2"])


def test_all_labels_in_a_table(whole: Path) -> None:
    found = said(whole, "--by", "label")["designs"]
    assert {row["design"]: (row["mean"], row["seeds"]) for row in found} == {
        f"{arm} {rate:g}": (mean((arm, rate)), 3) for arm in ARMS for rate in RATES
    }


def test_two_rates_are_compared_arm_by_arm(whole: Path) -> None:
    found = said(whole, "--by", "learning_rate", "--between", "1e-3,1e-2")
    assert len(found["models"]) == len(ARMS)
    assert found["means"] == [mean(*((arm, rate) for arm in ARMS)) for rate in (1e-3, 1e-2)]
    table = said(whole, "--by", "learning_rate")["designs"]
    assert sorted(row["mean"] for row in table) == [
        pytest.approx(value) for value in sorted(np.mean([fid(a, r, s) for s in SEEDS]) for a in ARMS for r in RATES)
    ]


@pytest.mark.parametrize(
    ("by", "arms"),
    [("block", ("qk_norm", "plain")), ("clip_grad_norm", ("clip", "plain")), ("warmup_steps", ("warm-up", "plain"))],
)
def test_a_knob_is_compared_with_what_differs_in_nothing_else(whole: Path, by: str, arms: tuple[str, str]) -> None:
    """The arm with all knobs has no partner without one of them, and is left out."""
    found = said(whole, "--by", by)
    assert found["means"] == [mean(*((arm, rate) for rate in RATES)) for arm in arms]
    assert len(found["models"]) == len(RATES)
    assert len(found["left_out"]) == 9 * len(SEEDS)


def test_a_knob_at_one_rate(whole: Path) -> None:
    found = said(whole, "--by", "warmup_steps,learning_rate", "--between", "0,1e-2,100,1e-2")
    assert found["better"] == "warmup_steps 100, learning_rate 0.01"
    assert found["means"] == [mean(("warm-up", 1e-2)), mean(("plain", 1e-2))]


def test_runs_that_were_given_up_are_named_in_the_answer(failed: Path) -> None:
    found = said(failed, "--between", "clip 0.1,warm-up 0.1")
    assert found["given_up"] == ["clip 0.1: B/2 seed 1"]
    assert any("clip 0.1: B/2 seed 1" in line for line in found["headline"])
    assert (found["seeds"], found["paired"]) == ([3, 2], False)
    assert found["means"] == [mean(("warm-up", 0.1)), mean(("clip", 0.1), seeds=(0, 2))]
    assert said(failed, "--between", "clip 0.01,warm-up 0.01")["given_up"] == []


def test_a_design_without_a_score_stays_in_the_table(failed: Path) -> None:
    found = said(failed, "--by", "label")
    assert found["unscored"] == ["plain 0.1"]
    assert len(found["designs"]) == len(ARMS) * len(RATES) - 1
    assert len(found["given_up"]) == len(GIVEN_UP)
    printed = CliRunner().invoke(APP, [str(failed), "--by", "label"]).output
    assert any(line.startswith("plain 0.1 ") for line in printed.splitlines())


def test_what_has_no_score_is_compared_by_its_loss(failed: Path) -> None:
    with pytest.raises(ResultsError, match=r"plain 0\.1: no score, as all of its runs were given up \(3\).*loss"):
        said(failed, "--between", "plain 0.1,clip 0.1")
    found = said(failed, "--between", "plain 0.1,clip 0.1", "--metric", "loss")
    assert (found["better"], found["seeds"], found["given_up"]) == ("clip 0.1", [3, 3], [])


def test_a_run_without_a_finite_loss_is_none_of_a_mean(tmp_path: Path) -> None:
    """As with `non_finite: skip`, where all steps of a row were left out."""
    write_knob_study(tmp_path, GIVEN_UP)
    for name, until in (("plain-0.1-plain0.1s0", 0), ("clip-0.1-clip0.1s1", 1)):
        path = tmp_path / "runs" / "knobs" / name / "train.jsonl"
        lines = path.read_text().splitlines()
        empty = [json.dumps(json.loads(line) | {"loss": None}) for line in lines[until:]]
        path.write_text("\n".join([*lines[:until], *empty]) + "\n")
    collect(tmp_path / "runs" / "knobs", tmp_path / "results")
    found = said(tmp_path / "results", "--between", "plain 0.1,clip 0.1", "--metric", "loss")
    assert (found["better"], found["seeds"]) == ("clip 0.1", [2, 2])
    assert found["given_up"] == ["plain 0.1: B/2 seed 0", "clip 0.1: B/2 seed 1"]


def test_the_help_lists_what_designs_can_be_told_apart_by() -> None:
    words = (
        CliRunner().invoke(APP, ["--help"], env={"COLUMNS": "300"}).output.replace(",", " ").replace(".", " ").split()
    )
    assert {"block", "objective", "label", "source", *SETTINGS, *EVALUATION_KEY_TYPES} <= set(words)
