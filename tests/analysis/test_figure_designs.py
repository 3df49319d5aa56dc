"""The figure of two designs at equal compute: its lines are the comparison's law, its names are the designs'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_figures import block_study, study

from analysis import figures
from analysis.compare.collected import collected_designs
from analysis.compare.designs import compare_designs
from analysis.figures import NothingToDraw
from analysis.figures.sources import Source, measured
from analysis.results.model_names import designs

MODELS = ("S/2", "B/2", "L/2")


@pytest.fixture(scope="module")
def two(tmp_path_factory: Any) -> Source:
    return block_study(tmp_path_factory.mktemp("two"), MODELS, ("adaln", "adaln-zero"))


def test_the_lines_are_the_comparisons_law(two: Source) -> None:
    points = figures.picture("designs", [two]).data
    assert isinstance(points, pd.DataFrame)
    found = compare_designs(collected_designs({"all": two.tables}, "block"))
    at = points.drop_duplicates(["design", "model"]).set_index(["design", "model"])
    alpha = found.exponent.estimate
    levels = {name: np.log(rows["line"]) + alpha * np.log(rows["gmacs"]) for name, rows in at.groupby("design")}
    assert all(np.ptp(level) < 1e-9 for level in levels.values())
    gap = np.mean(levels[found.worse]) - np.mean(levels[found.better])
    assert np.exp(gap) == pytest.approx(found.ratio.estimate, rel=1e-6)  # of the scores, at equal compute
    for _, seeds in points.groupby(["design", "model"]):
        assert len(seeds) == 2
        assert seeds["mean"].tolist() == pytest.approx([float(np.prod(seeds["fid"])) ** 0.5] * 2)


def test_of_a_part_that_was_tried_no_hash_is_in_the_picture(two: Source) -> None:
    def tried(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(block=table["block"].replace("adaln", "my_block_3f2a91c0:MEAN"))

    tables = replace(two.tables, runs=tried(two.tables.runs), evals=tried(two.tables.evals))
    picture = figures.picture("designs", [measured(tables)])
    assert set(picture.data["design"]) == {"adaln-zero", "my_block:MEAN"}  # pyright: ignore
    assert "3f2a91c0" not in picture.caption + picture.short


def test_two_contents_of_one_file_keep_what_tells_them_apart() -> None:
    runs = pd.DataFrame({"block": ["a_3f2a91c0:X", "a_5b995ff5:X", "adaln"], "objective": "iddpm"})
    assert designs(runs) == ["a_3f2a91c0:X", "a_5b995ff5:X", "adaln"]
    assert designs(runs.iloc[1:]) == ["a:X", "adaln"]


def test_what_is_needed_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match="1 block design; needed: two"):
        figures.picture("designs", [study(tmp_path / "one")])
    for labels, said in ((("S/2", "B/2"), "three|at least 3"), (("S/2",), "at least 3")):
        source = block_study(tmp_path / labels[-1].replace("/", "-"), labels, ("adaln", "adaln-zero"))
        with pytest.raises(NothingToDraw, match=f"needed: .*({said})"):
            figures.picture("designs", [source])
