"""Families on one axis: which buys more per GMAC, by `ditbench compare` and the figure, of a known difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import ditbench
from drawn_figures import seen, study
from family_study import ALPHA, FAMILIES, family_tables
from run_folders import gmacs_of

from analysis import figures
from analysis.compare.collected import collected_designs
from analysis.compare.compared import compared
from analysis.compare.designs import DesignComparison
from analysis.errors import ResultsError
from analysis.figures import NothingToDraw
from analysis.figures.sources import measured
from analysis.results.tables import Tables, load

PREDICTIONS = ("flow time_scale=1000.0", "flow loss=velocity prediction=x0 time_scale=1000.0")


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exact")
    family_tables(folder)
    return folder / "results"


@pytest.fixture(scope="module")
def two_objectives(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("objectives")
    family_tables(folder, objective=PREDICTIONS[0], scatter=0.01)
    return family_tables(folder, objective=PREDICTIONS[1], scatter=0.01)


def law(tables: Tables, by: str | None = "family", between: tuple[str, str] | None = None) -> DesignComparison:
    found = compared(collected_designs({"results": tables}, by, between=between))
    assert isinstance(found, DesignComparison)
    return found


@pytest.mark.parametrize("by", [None, "family"])
@pytest.mark.parametrize("between", [("DiT", "U-ViT"), ("u-vit", "dit")])
def test_the_factor_of_compute_is_the_one_that_was_put_in(
    exact: Path, by: str | None, between: tuple[str, str]
) -> None:
    found = law(load(exact), by, between)
    assert (found.better, found.worse, found.paired, found.distinguishable) == ("U-ViT", "DiT", False, True)
    assert found.multiplier is not None
    assert (found.multiplier.estimate, found.multiplier.low, found.multiplier.high) == pytest.approx((2, 2, 2))
    assert found.exponent.estimate == pytest.approx(ALPHA)
    assert found.own_exponents == pytest.approx((ALPHA, ALPHA))
    shared = (1.3 * gmacs_of("S/2"), gmacs_of("L/2"))
    assert found.reached == pytest.approx(shared)
    assert any(f"{shared[0]:.3g} to {shared[1]:.3g}" in line for line in found.headline())
    assert not any("itself changes" in line for line in found.headline())


def test_equal_families_are_not_told_apart_whatever_their_costs(tmp_path: Path) -> None:
    found = law(family_tables(tmp_path, scatter=0.05, seeds=(0, 1, 2)), between=("DiT", "JiT"))
    assert not found.distinguishable
    assert found.multiplier is not None and found.multiplier.holds(1)


def test_laws_of_other_slopes_have_no_one_factor_and_that_is_said(tmp_path: Path) -> None:
    found = law(family_tables(tmp_path, alphas={"DiT": 0.1, "U-ViT": 0.4}), between=("DiT", "U-ViT"))
    assert found.own_exponents is not None and found.steeper is not None
    own = dict(zip((found.better, found.worse), found.own_exponents, strict=True))
    assert own == pytest.approx({"DiT": 0.1, "U-ViT": 0.4})
    assert abs(found.steeper.estimate) == pytest.approx(0.3) and not found.steeper.holds(0)
    (said,) = (line for line in found.headline() if "0.1 for DiT alone" in line or "0.1 for DiT" in line)
    assert "0.4 for U-ViT" in said
    assert json.loads(json.dumps(found.to_dict()))["steeper"]["estimate"] == found.steeper.estimate


def test_all_families_are_a_table_and_two_folders_are_one_study(tmp_path: Path, exact: Path) -> None:
    family_tables(tmp_path, families={"UNet": (0.9, 4.0)})
    done = ditbench("compare", exact, tmp_path / "results", "--format", "json")
    assert done.status == 0, done.err
    rows = json.loads(done.out)["designs"]
    assert {row["design"] for row in rows} == {*FAMILIES, "UNet"}
    assert len({row["model"] for row in rows}) == len(rows) == 12  # no two families' models go for one
    headline = json.loads(done.out)["headline"][0]
    best = {family: min(row["mean"] for row in rows if row["design"] == family) for family in (*FAMILIES, "UNet")}
    assert all(f"{mean:.4g} of {family} (by " in headline for family, mean in best.items())
    done = ditbench("compare", exact, tmp_path / "results", "--between", "UNet,DiT", "--format", "json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert (found["better"], found["paired"]) == ("UNet", False)
    assert found["multiplier"]["estimate"] == pytest.approx(4)


def test_a_familys_objectives_are_compared_one_by_one(two_objectives: Tables) -> None:
    with pytest.raises(ResultsError, match=r"differ in objective .*--by family,objective$"):
        law(two_objectives, between=("DiT", "U-ViT"))
    for objective in PREDICTIONS:
        found = law(two_objectives, "family,objective", (f"DiT, {objective}", f"U-ViT, {objective}"))
        assert found.multiplier is not None
        assert found.multiplier.estimate == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "family", "--between", "DiT,SiT"], "SiT"),
        (["--by", "families"], "families"),
        (["--between", "DiT,DiT"], "twice"),
        (["--by", "block"], "--by family,block"),
    ],
)
def test_what_is_no_family_is_refused_with_the_families(exact: Path, arguments: list[str], said: str) -> None:
    done = ditbench("compare", exact, *arguments)
    assert (done.status, done.out) == (2, "")
    assert said in done.err and len(done.err.splitlines()) == 1
    if "SiT" in said:
        assert all(family in done.err for family in FAMILIES)


def test_one_law_is_of_one_family(exact: Path) -> None:
    done = ditbench("fit", exact)
    assert done.status == 2 and "family (DiT, JiT, U-ViT)" in done.err


def test_families_that_share_no_compute_are_not_compared(tmp_path: Path) -> None:
    tables = family_tables(tmp_path, families={"DiT": (1.0, 1.0), "UNet": (1e4, 1.0)})
    with pytest.raises(ResultsError, match="no shared compute"):
        law(tables)


# The figure


def drawn(*tables: Tables) -> Any:
    sources = [measured(each, f"study{index}") for index, each in enumerate(tables)]
    return figures.picture("families", sources)


def of_models(axes: Any) -> list[Any]:
    """The lines that are markers of three models each."""
    return [line for line in axes.lines if line.get_marker() not in ("None", "_") and len(line.get_xdata()) == 3]


def legend_of(picture: Any) -> set[str]:
    return {text.get_text() for part in picture.figure.subfigs for each in part.legends for text in each.get_texts()}


def test_a_point_a_model_and_a_law_a_family(exact: Path) -> None:
    picture = drawn(load(exact))
    points: pd.DataFrame = picture.data
    assert set(points["family"]) == set(FAMILIES) and len(points) == 9
    assert len(set(points["label"])) == 9 and set(points["num_seeds"]) == {2}
    assert points["law"].to_numpy() == pytest.approx(points["fid"].to_numpy())
    (axes,) = picture.figure.axes
    marks = {(line.get_marker(), line.get_color()) for line in of_models(axes)}
    assert len(marks) == len({marker for marker, _ in marks}) == len({colour for _, colour in marks}) == len(FAMILIES)
    assert legend_of(picture) == set(FAMILIES)
    assert "No law" not in picture.caption
    assert all(key in picture.caption for key in ("1,000 samples", "ddpm", "guidance 1", "2,000 training steps"))


def test_a_law_only_where_the_data_carry_one(tmp_path: Path) -> None:
    family_tables(tmp_path, families={"DiT": (1.0, 1.0)})
    family_tables(tmp_path, families={"UNet": (1.0, 1.0)}, labels=("S/2", "B/2"))
    picture = drawn(family_tables(tmp_path, families={"U-ViT": (1.0, 1.0)}, alphas={"U-ViT": -0.1}))
    laws = {family: bool(rows["law"].notna().to_numpy().all()) for family, rows in picture.data.groupby("family")}
    assert laws == {"DiT": True, "UNet": False, "U-ViT": False}
    (said,) = (line for line in picture.caption.splitlines() if line.startswith("No law"))
    assert "UNet" in said and "U-ViT" in said and "DiT" not in said


def test_one_panel_an_objective_and_one_fill_a_study(two_objectives: Tables, exact: Path) -> None:
    picture = drawn(two_objectives)
    titles = [axes.get_title() for axes in picture.figure.axes]
    assert len(titles) == 2 and any("prediction=x0" in title for title in titles)
    assert set(picture.data["objective"]) == set(PREDICTIONS)
    both = drawn(load(exact), load(exact))
    (axes,) = both.figure.axes
    fills = {line.get_fillstyle() for line in of_models(axes)}
    assert len(fills) == 2
    assert set(both.data["source"]) == {"study0", "study1"}
    assert legend_of(both) == {*FAMILIES, "study0", "study1"}


def test_one_family_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(NothingToDraw, match="needed: two model families"):
        figures.picture("families", [study(tmp_path)])


def test_it_is_written_and_its_numbers_are_beside_it(exact: Path, tmp_path: Path) -> None:
    with seen() as figure:
        files = figures.draw("families", [measured(load(exact), "study")], tmp_path).files
    assert len(figure) == 1 and {path.suffix for path in files} == {".png", ".pdf", ".csv", ".txt", ".tex"}
    table = pd.read_csv(tmp_path / "families.csv")
    assert {"source", "objective", "family", "label", "gmacs", "fid", "fid_min", "fid_max", "law"} <= {*table.columns}
    assert np.all(table["fid_min"].to_numpy() <= table["fid"].to_numpy() + 1e-9)
