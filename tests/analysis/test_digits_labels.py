"""The shift from balanced to random labels: how its table is made, and that the committed one is of its scores."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

FOLDER = Path(__file__).parents[2] / "results" / "digits-labels"


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("digits_labels_measure", FOLDER / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shift_is_of_pairs_of_one_seed(measure: ModuleType) -> None:
    """t(0.975, 2) = 4.302653; the differences 1, 0.5 and 2 have the standard deviation 0.763763."""
    scores = {"balanced": [10.0, 12.0, 14.0, 99.0], "uniform": [11.0, 12.5, 16.0]}
    rows = [
        {"model": "S-4", "num_samples": 250, "sampling_seed": seed, "labels": labels}
        | dict.fromkeys(measure.METRICS, value)
        for labels, values in scores.items()
        for seed, value in enumerate(values)
    ]
    summary = measure.summary(pd.DataFrame(rows).sample(frac=1, random_state=0))
    assert summary["metric"].tolist() == list(measure.METRICS)
    row = summary.iloc[0]
    assert (row["model"], row["num_samples"], row["seeds"]) == ("S-4", 250, 3)
    assert (row["balanced"], row["balanced_sd"]) == (12.0, 2.0)
    assert row["shift"] == pytest.approx(3.5 / 3)
    half = 4.302653 * 0.763763 / 3**0.5
    assert row["shift_low"] == pytest.approx(3.5 / 3 - half, abs=1e-5)
    assert row["shift_high"] == pytest.approx(3.5 / 3 + half, abs=1e-5)


def test_the_committed_summary_is_of_the_committed_scores(measure: ModuleType) -> None:
    scores = pd.read_csv(FOLDER / "scores.csv")
    assert not scores.duplicated(measure.KEY).any()
    assert_frame_equal(measure.summary(scores), pd.read_csv(FOLDER / "summary.csv"), rtol=1e-5, atol=1e-9)
