"""`ditbench verify RESULTS`: the committed results agree with themselves, and whatever is changed in them is found."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import ditbench

from analysis.results.verify import verify_results

RESULTS = Path(__file__).parents[2] / "results"
FOLDERS = sorted(path for path in RESULTS.iterdir() if path.is_dir())
Rows = list[list[str]]


def mismatches(folder: Path) -> list[str]:
    return [problem for _, problems in verify_results(folder) for problem in problems]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of a small collection, to be changed."""
    shutil.copytree(RESULTS / "digits-held-out", tmp_path / "digits-held-out")
    return tmp_path / "digits-held-out"


def change_csv(path: Path, change: Callable[[Rows], Rows]) -> None:
    text = io.StringIO()
    rows = list(csv.reader(path.read_text().splitlines()))
    csv.writer(text, lineterminator="\n").writerows([rows[0], *change(rows[1:])])
    path.write_text(text.getvalue())


def change_both(folder: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """As one does who edits a table with care."""
    table = change(pd.read_parquet(folder / f"{name}.parquet"))
    table.to_parquet(folder / f"{name}.parquet", index=False)
    table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_committed_results(folder: Path) -> None:
    checks = dict(verify_results(folder))
    assert checks
    assert not any(checks.values())


def test_the_command_on_all_that_is_small() -> None:
    ended = ditbench("verify", RESULTS / "digits-labels", RESULTS / "plans", RESULTS / "published")
    assert (ended.status, ended.err) == (0, "")


def test_a_file_that_is_no_table_may_have_a_table_s_name(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("{}\n")
    assert dict(verify_results(tmp_path)) == {f"{tmp_path / 'train.json'}: whole": []}


@pytest.mark.parametrize("name", ["runs", "train", "evals"])
def test_a_row_of_a_csv_that_is_deleted_doubled_or_edited(name: str, results: Path) -> None:
    path = results / f"{name}.csv"
    number = len(pd.read_csv(path))
    before = path.read_bytes()
    change_csv(path, lambda rows: rows[:-1])
    assert mismatches(results) == [f"{path}: {number - 1} rows; the parquet file has {number}"]
    path.write_bytes(before)
    change_csv(path, lambda rows: [*rows, rows[0]])
    assert mismatches(results) == [f"{path}: {number + 1} rows; the parquet file has {number}"]
    path.write_bytes(before)
    change_csv(path, lambda rows: [*rows[:-1], ["XL/9" if cell.startswith("XL/") else cell for cell in rows[-1]]])
    assert any(f"{path}: row {number}: label is 'XL/9'" in problem for problem in mismatches(results))


def test_a_score_edited_in_csv_and_parquet(results: Path) -> None:
    """What follows from it gives it away."""

    def edited(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[7, "fid"] = table.loc[7, "fid"] * 0.99
        return table

    change_both(results, "evals", edited)
    found = mismatches(results)
    assert any("correlations.csv: row" in problem for problem in found)
    assert any("fid_vs_steps.csv: line" in problem for problem in found)


def test_rows_deleted_or_doubled_in_csv_and_parquet(results: Path) -> None:
    run, step = pd.read_parquet(results / "train.parquet").loc[30, ["run", "step"]]
    change_both(results, "train", lambda table: table.drop(index=30).reset_index(drop=True))
    assert f"{results / 'train.parquet'}: run {run}: no row of step {step}" in mismatches(results)
    change_both(results, "train", lambda table: pd.concat([table, table.iloc[[3]]], ignore_index=True))
    assert any("is there twice" in problem for problem in mismatches(results))


def test_the_last_row_of_a_finished_run(results: Path) -> None:
    last = pd.read_parquet(results / "evals.parquet")["run"].iloc[-1]
    change_both(results, "evals", lambda table: table.iloc[:-1])
    assert any(f"run {last} is finished with 600 steps" in problem for problem in mismatches(results))


def test_a_run_that_is_gone(results: Path) -> None:
    gone = pd.read_parquet(results / "runs.parquet")["run"].iloc[0]
    change_both(results, "runs", lambda table: table.iloc[1:])
    assert any(gone in problem for problem in mismatches(results))


@pytest.mark.parametrize(("table", "column"), [("runs", "training_gmacs"), ("train", "gmacs_spent")])
def test_compute(table: str, column: str, results: Path) -> None:
    def edited(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[2, column] = frame.loc[2, column] * 2
        return frame

    change_both(results, table, edited)
    assert any(column in problem for problem in mismatches(results))


@pytest.mark.parametrize("name", ["gflops_vs_fid.png", "gflops_vs_fid.pdf", "samples.npz", "train.parquet"])
@pytest.mark.parametrize("left", [0, 0.5])
def test_a_file_that_is_cut_short(name: str, left: float, results: Path) -> None:
    content = (results / name).read_bytes()
    (results / name).write_bytes(content[: int(left * len(content))])
    assert any(name in problem for problem in mismatches(results))


def test_a_flipped_byte_of_samples(results: Path) -> None:
    content = bytearray((results / "samples.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (results / "samples.npz").write_bytes(content)
    assert any("samples.npz" in problem for problem in mismatches(results))


def test_a_plotted_value_that_is_edited(results: Path) -> None:
    path = results / "fid_vs_steps.csv"
    change_csv(path, lambda rows: [*rows[:4], [*rows[4][:-1], "1.5"], *rows[5:]])
    (found,) = mismatches(results)
    assert found.startswith(f"{path}: line 6: the highest fid of ")


def test_damaged_json_and_csv_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text('{"exponent": -0.5')
    (tmp_path / "speeds.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "arrays.npz").write_bytes(b"PK")
    np.savez(tmp_path / "objects.npz", of=np.array([{}], dtype=object))
    found = mismatches(tmp_path)
    assert [Path(problem.split(":")[0]).name for problem in found] == [
        "arrays.npz",
        "fit.json",
        "objects.npz",
        "speeds.csv",
    ]
