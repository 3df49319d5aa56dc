"""The published tables of many families: what they hold, what the reader refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.errors import ResultsError
from analysis.results import published as published_module
from analysis.results.published import FAMILIES_400K, FAMILIES_GUIDED, SECOND_HAND, published, published_families

HEADER = (
    "laboratory,model,family,image_size,patch,gmacs,params_m,train_steps_k,batch_size,guidance,cfg_scale,labels,fid,"
    "source,checked\n"
)
ROW = "Ours,M-S,M,256,,6.06,,,,none,,uniform,68.4,a paper,at the source\n"
CONDITIONS = "table,laboratory,family,sampler,source\nfamilies_400k,Ours,M,ddpm,a paper\n"


def test_rows_that_stand_in_other_published_tables_agree_with_them():
    rows = published_families(FAMILIES_400K)
    paper = rows.loc[rows["laboratory"] == "DiT"].rename(columns={"fid": "fid50k"})
    columns = ["model", "image_size", "gmacs", "params_m", "train_steps_k", "batch_size", "fid50k"]
    table = published("dit_table4").query("block == 'adaln-zero'")
    known: Any = table[columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(paper[columns].reset_index(drop=True), known)
    sit = rows.loc[rows["family"] == "SiT", ["model", "gmacs", "train_steps_k", "fid"]]
    known: Any = published("sit_repa_table3").rename(columns={"fid50k": "fid"})[sit.columns]
    pd.testing.assert_frame_equal(sit.reset_index(drop=True), known)
    guided = published_families(FAMILIES_GUIDED).set_index(["laboratory", "model", "image_size"])
    for size, name in ((256, "dit_table2_256"), (512, "dit_table3_512")):
        best = published(name).query("model == 'DiT-XL/2-G' and cfg_scale == 1.5").iloc[0]
        assert guided.loc[("DiT", "DiT-XL/2", size), "fid"] == best["fid"]


def test_every_row_says_its_source_and_second_hand_rows_have_no_conditions():
    for name in (FAMILIES_400K, FAMILIES_GUIDED):
        rows = published_families(name)
        assert rows["source"].str.contains("arXiv:|facebookresearch|fast-DiT").all()
        assert rows.loc[rows["checked"] == SECOND_HAND, ["sampler", "decoder", "num_samples"]].isna().all(axis=None)
        assert not rows.duplicated(["laboratory", "model", "image_size", "train_steps_k", "fid"]).any()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(published_module, "PUBLISHED", tmp_path)
    (tmp_path / "families_conditions.csv").write_text(CONDITIONS)
    return tmp_path


def test_conditions_stand_beside_the_rows_they_hold_for(folder: Path):
    (folder / "families_400k.csv").write_text(HEADER + ROW + ROW.replace("Ours", "Theirs").replace("at the", "second"))
    with pytest.raises(ResultsError, match="'checked' is second source"):
        published_families(FAMILIES_400K)
    second = ROW.replace("Ours", "Theirs").replace("at the source", "second hand")
    (folder / "families_400k.csv").write_text(HEADER + ROW + second)
    assert published_families(FAMILIES_400K)["sampler"].fillna("").tolist() == ["ddpm", ""]


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (ROW.replace("68.4", "nan"), ["line 3", "'fid' is nan"]),
        (ROW.replace("68.4", "-Inf"), ["line 3", "'fid' is -Inf"]),
        (ROW.replace("68.4", ""), ["line 3", "no fid"]),
        (ROW.replace("6.06", "six"), ["line 3", "'gmacs'", "'six'"]),
        (ROW.replace("a paper", ""), ["line 3", "no source"]),
        (ROW.replace("6.06", "0"), ["row 2", "'gmacs' is 0"]),
        (ROW.replace("6.06,,,", "6.06,,0,"), ["row 2", "'train_steps_k' is 0"]),
        (ROW.replace("68.4", "-1"), ["row 2", "'fid' is -1"]),
        (ROW.replace("none", "some"), ["row 2", "'guidance' is some", "classifier-free"]),
        (ROW.replace("uniform", "even"), ["row 2", "'labels' is even", "balanced"]),
        (ROW.replace("Ours", "Nobody"), ["row 2", "'laboratory' is Nobody", "families_conditions"]),
    ],
)
def test_a_row_that_cannot_be_compared_is_named_with_its_column(folder: Path, written: str, named: list[str]):
    (folder / "families_400k.csv").write_text(HEADER + ROW + written)
    with pytest.raises(ResultsError) as caught:
        published_families(FAMILIES_400K)
    assert "\n" not in str(caught.value)
    for part in (*named, "families_400k.csv", "accepted"):
        assert part in str(caught.value)
