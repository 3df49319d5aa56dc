"""Patches of clips in tables, figures and comparisons: of 1x2x2 and 2x2x2 the side is the same, the model is not."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from run_folders import collect, evaluation, write_lines, write_run

from analysis.compare.collected import collected_designs
from analysis.errors import ResultsError
from analysis.figures import curves, isoflop, loss, residuals
from analysis.figures.sources import measured
from analysis.laws.observed import collected_observations
from analysis.laws.patches import laws_by_patch
from analysis.report.looks import Looks
from analysis.results.model_names import model_names
from analysis.results.tables import Tables, coarsest_first, load, patches

# Patch -> GMACs of a small model; sizes are S, B, L and XL, each twice as much.
GMACS = {(1, 2): 8e-6, (2, 2): 3e-6, (2, 4): 1e-6}
TEXTS = ["2x4x4", "2x2x2", "1x2x2"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of three patches in four sizes; the first two patches have one side."""
    sweep, out = tmp_path_factory.mktemp("runs") / "clips", tmp_path_factory.mktemp("results") / "clips"
    for rank, size in enumerate(("S", "B", "L", "XL")):
        for number, ((frames, side), gmacs) in enumerate(GMACS.items()):
            # The folders are made under labels of images, four of which are free for each size.
            folder = write_run(sweep, f"{size}/{(4, 2, 1)[number]}")
            model = json.loads((folder / "model.json").read_text())
            model |= {"patch_size": side, "patch_frames": frames, "gmacs": gmacs * 2**rank, "family": "VideoDiT"}
            model |= {"name": "VideoDiT", "size": size}
            (folder / "model.json").write_text(json.dumps(model))
            config = (folder / "config.yaml").read_text().replace(f"label: {size}/", f"label: {frames} of {size}/")
            (folder / "config.yaml").write_text(config.replace("DiT-", "VideoDiT-"))
            rows = [
                evaluation(f"{size}/1", step, fid=80 - 4 * rank - 9 * number + 900 / step, fid_percent=1.0)
                for step in (500, 1000, 1500, 2000)
            ]
            write_lines(folder / "evals.jsonl", rows)
    collect(sweep, out)
    return out


@pytest.fixture(scope="module")
def tables(results: Path) -> Tables:
    return load(results)


def test_tables_have_both_columns(tables: Tables) -> None:
    for table in (tables.runs, tables.train, tables.evals):
        assert set(zip(table["patch"], table["patch_frames"], strict=True)) == {(2, 1), (2, 2), (4, 2)}
    assert set(patches(tables.runs)) == set(TEXTS) and coarsest_first(patches(tables.runs)) == TEXTS
    assert coarsest_first([2, 8, 4, 2, 0]) == [8, 4, 2, 0]


def test_a_table_of_before_has_none_and_images_keep_their_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "S/4")
    collect(tmp_path / "runs", tmp_path / "out")
    for name in ("runs", "train", "evals"):
        path = tmp_path / "out" / f"{name}.parquet"
        pd.read_parquet(path).drop(columns="patch_frames").to_parquet(path)
    before = load(tmp_path / "out")
    assert before.runs["patch_frames"].isna().tolist() == [True] and list(patches(before.runs)) == [4]
    assert list(measured(before).tables.evals["patch"].unique()) == [4]


def test_pairs_of_neighbours_have_one_whole_patch(results: Path) -> None:
    (row,) = pd.read_csv(results / "correlations.csv").query("step == 2000").to_dict("records")
    # Of each size three patches, of each patch four sizes; a pair is of two next to each other in compute.
    assert (row["patch_pairs"], row["size_pairs"]) == (8, 9)
    assert (row["patch_pairs_right"], row["size_pairs_right"]) == (0, 9)


def test_figures_have_a_panel_or_a_line_for_each(results: Path, tables: Tables) -> None:
    source = measured(tables, "clips")
    assert set(source.tables.evals["patch"]) == set(TEXTS)
    drawn = {module: module.draw([source], "two") for module in (curves, loss, residuals, isoflop)}
    for picture in drawn.values():
        assert set(picture.data["patch"]) == set(TEXTS)
    titles = [axes.get_title() for axes in drawn[loss].figure.axes]
    assert [title.rpartition(" ")[2] for title in titles if "patch" in title] == TEXTS


def test_a_law_for_each(tables: Tables) -> None:
    rows = collected_observations(tables)
    assert list(laws_by_patch(rows).fits) == TEXTS
    one = collected_observations(tables, patch="1x2x2")
    assert set(one.patches) == {"1x2x2"} and len(one) == 4
    with pytest.raises(ResultsError, match="patch 2: no such rows; accepted: 1x2x2, 2x2x2, 2x4x4"):
        collected_observations(tables, patch=2)


def test_designs_by_patch(tables: Tables) -> None:
    with pytest.raises(ResultsError, match=r"3 designs \(1x2x2, 2x2x2, 2x4x4\)"):
        collected_designs({"clips": tables}, "patch")
    found = collected_designs({"clips": tables}, "patch", between=("1x2x2", "2x2x2"))
    assert {name: len(rows) for name, rows in found.items()} == {"1x2x2": 4, "2x2x2": 4}


def test_names_and_looks_in_the_report(tables: Tables) -> None:
    runs = pd.concat([tables.runs, tables.runs.assign(label="another label", seed=1)], ignore_index=True)
    assert set(model_names(runs)["label"]) == {f"{size}/{patch}" for size in ("S", "B", "L", "XL") for patch in TEXTS}
    looks = Looks(measured(tables).tables.evals)
    assert list(looks.legend()["patch"]) == TEXTS
