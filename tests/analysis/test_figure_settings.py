"""The figure of scores over a setting of the training: its lines are the study's means, and its crosses what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_figures import study
from knob_study import ARMS, RATES, SEEDS, fid, write_knob_study
from matplotlib.text import Text

from analysis import figures
from analysis.drawing.frontier import frontier
from analysis.figures import NothingToDraw
from analysis.figures.sources import measured, published_source

NAMES = {
    "plain": "adaln-zero",
    "qk_norm": "adaln-zero qk_norm",
    "clip": "adaln-zero, clip_grad_norm 1",
    "warm-up": "adaln-zero, warmup_steps 100",
    "all": "adaln-zero qk_norm, clip_grad_norm 1, warmup_steps 100",
}


def drawn(home: Path, *failed: tuple[str, float, int]) -> Any:
    return figures.picture("settings", [measured(write_knob_study(home, frozenset(failed)), "knobs")])


def texts(picture: Any) -> list[str]:
    return [text.get_text() for text in picture.figure.findobj(Text)]


def test_a_line_for_each_arm_over_the_rate_alone(tmp_path: Path) -> None:
    """Warm-up and clipping have two values each, which are lines, not axes, beside three rates."""
    picture = drawn(tmp_path)
    data = picture.data.set_index(["design", "value"])
    assert set(picture.data["setting"]) == {"learning_rate"}
    assert len(data) == len(ARMS) * len(RATES)
    for arm, name in NAMES.items():
        for rate in RATES:
            scores = [fid(arm, rate, seed) for seed in SEEDS]
            row = data.loc[(name, rate)]
            found = row[["num_runs", "num_seeds", "fid", "fid_min", "fid_max"]].tolist()
            assert found == pytest.approx([3, 3, np.mean(scores), min(scores), max(scores)])
    assert "1 of 3" not in texts(picture)


def test_runs_without_a_score_are_crosses_and_named(tmp_path: Path) -> None:
    picture = drawn(tmp_path, ("clip", 0.1, 1), *(("plain", 0.1, seed) for seed in SEEDS))
    data = picture.data.set_index(["design", "value"])
    assert data.loc[("adaln-zero", 0.1), "num_seeds"] == 0
    assert data.loc[("adaln-zero, clip_grad_norm 1", 0.1), "num_seeds"] == 2
    assert set(data["num_losses"]) == {3}  # these made-up runs failed after their training
    assert np.isfinite(data["loss"]).all()
    assert {"3 of 3", "1 of 3"} <= set(texts(picture))
    assert "4 of 45 runs have no score" in picture.caption


def test_a_study_without_such_a_setting_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match="needed: two values, as of learning_rate"):
        figures.picture("settings", [study(tmp_path, ["S/4", "B/2"])])
    with pytest.raises(NothingToDraw, match="needed: a results folder"):
        figures.picture("settings", [published_source()])


def test_a_knob_that_changes_nothing_leaves_a_frontier() -> None:
    """Clipping that never acts gives the same score for the same compute, twice."""
    assert frontier([1.0, 1.0, 2.0, 2.0], [5.0, 5.0, 3.0, 4.0]) == [True, False, True, False]
    assert frontier([2.0, 1.0, 1.0], [5.0, 5.0, 6.0]) == [False, True, False]
