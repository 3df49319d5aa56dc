"""The laws of published families: exponents of 3 or 4 models, what they say of the largest, and what is never mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import ditbench
from family_study import family_tables

from analysis import figures
from analysis.errors import ResultsError
from analysis.families.laws import FamilyLaw, family_law, family_laws
from analysis.figures.sources import measured, published_source
from analysis.results.published import FAMILIES_400K, FAMILIES_GUIDED, SECOND_HAND, published_families


def law_of(laboratory: str, family: str, table: str = FAMILIES_400K, patch: int | None = 2) -> FamilyLaw:
    (found,) = (
        law
        for law in family_laws(published_families(table))
        if (law.largest["laboratory"], law.largest["family"]) == (laboratory, family)
        and (pd.isna(law.largest["patch"]) or law.largest["patch"] == patch)
    )
    return found


@pytest.mark.parametrize(
    ("laboratory", "family", "exponent", "models"),
    [
        ("DiT", "DiT", 0.427, 4),
        ("U-DiT", "DiT", 0.416, 4),
        ("REPA", "SiT", 0.410, 3),
        ("U-DiT", "U-DiT", 0.431, 3),
        ("REPA", "SiT+REPA", 0.699, 3),
    ],
)
def test_exponents_without_guidance_after_400k_steps(laboratory: str, family: str, exponent: float, models: int):
    law = law_of(laboratory, family)
    assert -law.exponent.estimate == pytest.approx(exponent, abs=6e-4)
    assert law.law.num_points == len(law.rows) == models
    assert law.exponent.holds(law.exponent.estimate) and law.exponent.high < 0


def test_the_largest_model_from_three_others_has_the_interval_of_one_more():
    law = law_of("DiT", "DiT")
    rest = law.rows.iloc[:-1]
    slope, intercept = np.polyfit(np.log(rest["gmacs"]), np.log(rest["fid"]), 1)
    assert law.predicted.estimate == pytest.approx(np.exp(intercept + slope * np.log(118.64)))
    # As `ditbench fit` finds it by the profile likelihood (results/fits/README.md).
    assert (law.predicted.low, law.predicted.high) == pytest.approx((9.58, 44.26), abs=0.01)
    assert law.relative_error == pytest.approx(0.0574, abs=5e-4)
    missed = law_of("JiT", "JiT", FAMILIES_GUIDED, 16)
    assert missed.largest["model"] == "JiT-G/16" and not missed.predicted.holds(missed.largest["fid"])


def test_a_line_through_two_models_has_no_interval():
    law = law_of("U-DiT", "U-DiT")
    (small, middle), largest = law.rows.iloc[:2].to_dict("records"), law.largest
    slope = np.log(middle["fid"] / small["fid"]) / np.log(middle["gmacs"] / small["gmacs"])
    assert law.predicted.estimate == pytest.approx(middle["fid"] * (largest["gmacs"] / middle["gmacs"]) ** slope)
    assert (law.predicted.low, law.predicted.high) == (0, np.inf)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("labels", "balanced"),
        ("labels", None),
        ("guidance", "classifier-free"),
        ("image_size", 512),
        ("train_steps_k", 7000),
        ("laboratory", "Ours"),
        ("patch", 4),
    ],
)
def test_what_was_not_scored_alike_is_in_no_one_law(column: str, value: object):
    rows = law_of("DiT", "DiT").rows.copy()
    rows.loc[2, column] = value
    with pytest.raises(ResultsError) as caught:
        family_law(rows)
    said = str(caught.value)
    assert "\n" not in said and f"'{column}'" in said and "row 3" in said and "DiT-L/2" in said
    assert [law for law in family_laws(rows) if len(law.rows) == 4] == []


def test_too_few_models_or_one_twice_are_refused():
    rows = law_of("DiT", "DiT").rows
    with pytest.raises(ResultsError, match="needed: at least 3"):
        family_law(rows.iloc[:2])
    with pytest.raises(ResultsError, match="'model' is DiT-L/2 in two rows"):
        family_law(pd.concat([rows, rows.iloc[[2]]]))


def test_second_hand_rows_are_in_a_law_only_if_asked_for():
    rows = law_of("DiT", "DiT").rows.copy()
    rows.loc[3, "checked"] = SECOND_HAND
    (without,), (with_it,) = family_laws(rows), family_laws(rows, second_hand=True)
    assert without.rows["model"].tolist() == ["DiT-S/2", "DiT-B/2", "DiT-L/2"]
    assert with_it.rows["model"].tolist()[-1] == "DiT-XL/2"
    for name in (FAMILIES_400K, FAMILIES_GUIDED):
        for law in family_laws(published_families(name)):
            assert SECOND_HAND not in set(law.rows["checked"])


def test_papers_families_stand_below_ones_own_in_panels_of_what_was_scored_alike(tmp_path: Path):
    own = measured(family_tables(tmp_path), "own")
    picture = figures.picture("families", [own, published_source()])
    data = picture.data
    assert isinstance(data, pd.DataFrame)
    assert set(data.loc[data["source"].eq("own"), "family"]) > {"DiT"}
    printed = data.loc[data["panel"].notna()]
    panels = printed.groupby("panel", sort=False)
    assert len(panels) == 4
    for _, panel in panels:
        assert panel["labels"].fillna("").nunique() == 1
        assert panel["guidance"].eq("none").nunique() == 1
        assert set(panel["image_size"]) == {256}
    assert printed.loc[printed["checked"].eq(SECOND_HAND), "law"].isna().all()
    crosses = [line for axes in picture.figure.axes for line in axes.lines if line.get_marker() == "x"]
    assert len(crosses) == (printed["checked"] == SECOND_HAND).sum()
    predicted = printed.loc[printed["predicted"].notna(), "label"]
    assert set(predicted) == {"DiT-XL/2", "SiT-XL/2", "SiT-XL/2+REPA", "U-DiT-L", "JiT-G/16"}
    assert all(f"), {models} models; " in picture.caption for models in (3, 4))


def test_the_table_of_families_is_of_the_papers(tmp_path: Path):
    out = tmp_path / "families.csv"
    done = ditbench("table", "families", "--format", "csv", "--out", out)
    assert done.status == 0, done.err
    table = pd.read_csv(out)
    rows = table.set_index(["laboratory", "family", "image_size", "patch"])
    assert rows.loc[("DiT", "DiT", 256, 2.0), "exponent"] == pytest.approx(-0.427, abs=6e-4)
    assert rows.loc[("JiT", "JiT", 512, 32.0), "inside"] == "no"
    assert table.loc[table["fitted_to"] == 2, "inside"].isna().all()
    assert table["degrees_of_freedom"].tolist() == (table["num_models"] - 2).tolist()
    done = ditbench("table", "families", "results/digits")
    assert (done.status, done.out) == (2, "") and len(done.err.splitlines()) == 1
