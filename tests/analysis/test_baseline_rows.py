"""baselines.csv of a results folder: read, refused where it is broken, and told in the table of the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from baseline_files import ROWS, write_baselines
from command_line import ditbench
from run_folders import LABELS, collect, write_run

from analysis.errors import ResultsError
from analysis.paper.table_formats import FORMATS
from analysis.paper.tables import summary
from analysis.results.baselines import KEY, NAMES, beside, read_baselines
from analysis.results.tables import load


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of three models, two seeds, with baselines."""
    folder = tmp_path_factory.mktemp("study")
    for label in LABELS[:3]:
        for seed in (0, 1):
            write_run(folder / "runs", label, seed)
    write_baselines(folder / "results")
    collect(folder / "runs", folder / "results")
    return folder / "results"


def test_what_was_written_is_read_with_the_other_tables(study: Path) -> None:
    tables = load(study)
    assert tables.baselines["baseline"].tolist() == [row["baseline"] for row in ROWS]
    assert tables.baselines["fid"].tolist() == [row["fid"] for row in ROWS]
    assert tables.baselines["images"].tolist() == [row["images"] for row in ROWS]
    assert len(beside(tables.baselines, tables.evals)) == len(ROWS)


def test_collecting_again_keeps_them(study: Path) -> None:
    before = (study / "baselines.csv").read_bytes()
    again = collect(study.parent / "runs", study)
    assert len(again.baselines) == len(ROWS)
    assert (study / "baselines.csv").read_bytes() == before


def test_a_folder_without_them_has_none(tmp_path: Path) -> None:
    assert read_baselines(tmp_path / "baselines.csv").empty


@pytest.mark.parametrize(
    "other", [{"num_samples": 400}, {"labels": "uniform"}, {"reference": "digits-other"}, {"extractor": "digits-cnn"}]
)
def test_none_stands_beside_scores_of_another_key(study: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    write_baselines(tmp_path, **other)
    assert set(other) <= set(KEY)
    assert beside(read_baselines(tmp_path / "baselines.csv"), load(study).evals).empty


BROKEN = {
    "no column": (lambda rows: rows.drop(columns="fid"), "fid"),
    "no key": (lambda rows: rows.drop(columns="extractor"), "extractor"),
    "no score": (lambda rows: rows.assign(fid=[None, 1.0, 1.0, 1.0]), "row 1: 'fid' is missing"),
    "not finite": (lambda rows: rows.assign(fid_max=float("inf")), "row 1: 'fid_max' is inf"),
    "below zero": (lambda rows: rows.assign(fid=[1.0, 1.0, -1.0, 1.0]), "row 3: 'fid' is -1"),
    "text": (lambda rows: rows.assign(fid="good"), "fid"),
    "text elsewhere": (lambda rows: rows.assign(kid="good"), "'kid'"),
    "no name": (lambda rows: rows.assign(baseline=[None, "a", "b", "c"]), "row 1: 'baseline' is missing"),
    "half a sample": (lambda rows: rows.assign(num_samples=2.5), "num_samples"),
    "no draw": (lambda rows: rows.assign(draws=0), "'draws' is 0"),
    "twice": (lambda rows: pd.concat([rows, rows]), "row 5: gaussian is there twice"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_is_refused_with_the_place(tmp_path: Path, fault: str) -> None:
    change, said = BROKEN[fault]
    path = write_baselines(tmp_path)
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(ResultsError) as refused:
        read_baselines(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"baseline;fid\n1;2\n", b'baseline,fid\n"open,2\n'])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "baselines.csv").write_bytes(content)
    with pytest.raises(ResultsError, match=r"baselines\.csv"):
        read_baselines(tmp_path / "baselines.csv")


def test_a_metric_that_some_rows_lack_is_no_fault(tmp_path: Path) -> None:
    path = write_baselines(tmp_path)
    pd.read_csv(path).assign(sfid=[1.0, None, None, 2.0]).to_csv(path, index=False)
    assert read_baselines(path)["sfid"].tolist()[::3] == [1.0, 2.0]


def test_the_table_of_models_ends_with_them(study: Path) -> None:
    tables = load(study)
    table = summary(tables)
    models = len(table.data) - len(ROWS)
    assert models == 3
    below = table.data.iloc[models:]
    assert below["label"].tolist() == [NAMES[row["baseline"]] for row in ROWS]
    assert below["fid"].tolist() == [row["fid"] for row in ROWS]
    assert below[["params", "num_seeds", "step", "loss"]].isna().to_numpy().all()
    assert table.data["params"].dtype == "Int64"  # a model's number of parameters is no 1769472.0
    cells = table.rows()[-1]
    fid = next(cell for cell, column in zip(cells, table.columns, strict=True) if column.name == "fid")
    assert (fid.text, fid.range) == ("4.10", "3.90 to 4.30")
    for name, form in FORMATS.items():
        assert "real images" in form(table), name
        assert "4.1" in form(table), name


def test_the_table_is_as_it_was_without_them(study: Path, tmp_path: Path) -> None:
    collected = collect(study.parent / "runs", tmp_path / "without")
    write_baselines(tmp_path / "other", num_samples=400)
    other = collect(study.parent / "runs", tmp_path / "other")
    for name, form in FORMATS.items():
        assert form(summary(collected)) == form(summary(other)), name
        assert "real images" not in form(summary(collected)), name


def test_a_folder_with_them_verifies_and_one_with_a_broken_file_does_not(study: Path, tmp_path: Path) -> None:
    good = ditbench("verify", study)
    assert good.status == 0, good.out + good.err
    collect(study.parent / "runs", tmp_path / "broken")
    path = write_baselines(tmp_path / "broken")
    path.write_text(path.read_text().replace("fid", "fad", 1))
    bad = ditbench("verify", tmp_path / "broken")
    assert bad.status == 1
    assert "baselines.csv" in bad.out
    refused = ditbench("table", "summary", tmp_path / "broken")
    assert refused.status == 2
    assert len(refused.err.splitlines()) == 1
