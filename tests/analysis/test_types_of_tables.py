"""What is written comes back as it was, whatever it looks like; what is no such table is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from run_folders import collect, evaluation, write_lines, write_run

from analysis.errors import ResultsError
from analysis.results import published as published_module
from analysis.results.csv_text import csv_text, read_csv
from analysis.results.files import write_csv
from analysis.results.parquet import parquet_bytes, read_parquet
from analysis.results.published import published
from analysis.results.tables import load

LOOKS = ("1e5", "007", "NA", "nan", "None", "null", "", " 1", "-inf", "True", "1_000", "0x10", "1,5", 'a "b", c')
LOOKS += ("a\r\nb", "\r", "\n", '"', "\ufeffx", ";", "\t", "é", "🙂", "\\N", "#", "2024-01-01", "１２")
text = st.text(st.characters(exclude_categories=("Cs",))) | st.sampled_from(LOOKS)
TYPES = {"name": "str", "count": "Int64", "value": "float64", "yes": "boolean"}
rows = st.lists(
    st.tuples(
        st.none() | text,
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=True, allow_infinity=True),
        st.none() | st.booleans(),
    ),
    max_size=8,
)
anything = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def typed_frame(cells: list[Any]) -> pd.DataFrame:
    columns = list(zip(*cells, strict=True)) or [()] * len(TYPES)
    return pd.DataFrame(
        {name: pd.array(list(each), dtype=kind) for (name, kind), each in zip(TYPES.items(), columns, strict=True)}
    ).astype(TYPES)


@anything
@given(rows)
@example([(look, None, 0.1, None) for look in LOOKS])
def test_a_table_comes_back_from_csv_and_parquet_as_it_was_written(tmp_path: Path, cells: list[Any]) -> None:
    table = typed_frame(cells)
    assert_frame_equal(read_csv(write_csv(tmp_path / "x.csv", table), TYPES, TYPES), table)
    (tmp_path / "x.parquet").write_bytes(parquet_bytes(table, "one"))
    again, collection = read_parquet(tmp_path / "x.parquet", TYPES, {})
    assert_frame_equal(again, table)
    assert collection == "one"


@anything
@given(st.lists(text, min_size=1, max_size=8), st.dictionaries(text, st.floats(allow_nan=False), max_size=3))
def test_columns_that_nothing_declares_come_back(tmp_path: Path, texts: list[str], others: dict[str, float]) -> None:
    table = pd.DataFrame({"texts": pd.array(texts, dtype="str")}).assign(
        **{f"x{name}": value for name, value in others.items()}
    )
    assert_frame_equal(read_csv(write_csv(tmp_path / "x.csv", table)), table)


@pytest.mark.parametrize("look", LOOKS)
def test_names_in_run_folders_come_back_as_they_are(tmp_path: Path, look: str) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"label": look or "S/4", "id": look or "s40"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_lines(folder / "evals.jsonl", [evaluation("S/4", 2000, decoder=look, note=look, mine=3)])
    write_lines(folder / "other-evals.jsonl", [evaluation("S/4", 2000, labels=look, note=look, mine=3)])
    collected = collect(tmp_path / "runs", tmp_path / "results")
    loaded = load(tmp_path / "results")
    for name in ("runs", "train", "evals", "other_evals"):
        assert_frame_equal(getattr(loaded, name), getattr(collected, name))
    assert loaded.runs["label"].tolist() == [look or "S/4"]
    assert loaded.evals[["decoder", "note", "mine"]].to_numpy().tolist() == [[look, look, 3]]
    assert loaded.other_evals[["labels", "note", "mine"]].to_numpy().tolist() == [[look, look, 3]]
    runs = read_csv(tmp_path / "results" / "runs.csv", dict.fromkeys(("run", "label"), "str"))
    assert runs[["run", "label"]].to_numpy().tolist() == [[look or "s40", look or "S/4"]]


GOOD = "model,fid,source\nDiT,1.5,paper\nUNet,2,paper\n"


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(published_module, "PUBLISHED", tmp_path)
    return tmp_path / "own.csv"


@pytest.mark.parametrize(
    "written", [GOOD.encode(), GOOD.encode("utf-8-sig"), GOOD.replace("\n", "\r\n").encode(), f"{GOOD}\n".encode()]
)
def test_a_table_of_another_program_is_read(paper: Path, written: bytes) -> None:
    paper.write_bytes(written)
    table = published("own")
    assert table.columns.tolist() == ["model", "fid", "source"]
    assert table["fid"].tolist() == [1.5, 2.0]


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (GOOD.replace(",", ";").replace(".", ","), ["';'"]),
        (GOOD.replace(",", "\t"), [r"'\t'"]),
        (GOOD.replace("1.5", '"1,5"'), ["line 2", "'fid'", "'1,5'"]),
        (GOOD.replace("1.5", "1,5"), ["line 2 has 4 cells"]),
        (GOOD.replace("2,", "two,"), ["line 3", "'fid'", "'two'"]),
        (GOOD.replace("source", "from"), ["no column source"]),
        (GOOD.replace("model,", "fid,"), ["two columns are called fid"]),
        (GOOD.replace("DiT", '"DiT'), ["line 2"]),
        (GOOD.replace("DiT", 'D"iT'), ["line 2"]),
        ("", ["no column"]),
    ],
)
def test_a_table_of_another_form_is_named(paper: Path, written: str, named: list[str]) -> None:
    paper.write_text(written)
    with pytest.raises(ResultsError) as caught:
        published("own")
    for part in (str(paper), "accepted", *named):
        assert part in str(caught.value)


def test_a_table_in_another_encoding_is_named(paper: Path) -> None:
    for encoding in ("utf-16", "latin-1"):
        paper.write_bytes(GOOD.replace("DiT", "größer").encode(encoding))
        with pytest.raises(ResultsError, match="not UTF-8 text"):
            published("own")


def test_other_scores_saved_by_a_spreadsheet_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    write_lines(folder / "other-evals.jsonl", [evaluation("S/4", 500, guidance_scale=1.5)])
    collected = collect(tmp_path / "runs", tmp_path / "results").other_evals
    path = tmp_path / "results" / "other_evals.csv"
    written = path.read_text()
    path.write_text(f"\ufeff{written}".replace("True", "TRUE").replace("\n", "\r\n"))
    assert_frame_equal(load(tmp_path / "results").other_evals, collected)
    path.write_text(written.replace(",", ";"))
    with pytest.raises(ResultsError, match=r"other_evals\.csv: its cells are separated by ';'"):
        load(tmp_path / "results")
    path.write_text(written.replace("0.7,", "high,"))
    with pytest.raises(ResultsError, match=r"other_evals\.csv: a value of 'precision' .*line 2 is 'high'"):
        load(tmp_path / "results")


def test_the_table_command_prints_csv_that_reads_back(tmp_path: Path) -> None:
    table = pd.DataFrame({"run": ["12345", "1e5"], "fid": [0.1, np.nan]})
    (tmp_path / "x.csv").write_text(csv_text(table))
    assert read_csv(tmp_path / "x.csv")["run"].tolist() == ["12345", "1e5"]


def edit(path: Path, change: Any) -> None:
    change(pd.read_parquet(path)).to_parquet(path)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for label in ("S/4", "B/2"):
        write_run(tmp_path / "runs", label)
    collect(tmp_path / "runs", tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize("name", ["runs", "train", "evals"])
def test_edited_columns_that_say_the_same_are_read(results: Path, name: str) -> None:
    before = getattr(load(results), name)
    categories = {column: "category" for column in before.columns if before[column].notna().all()}
    edit(results / f"{name}.parquet", lambda table: table.astype(categories))
    assert_frame_equal(getattr(load(results), name), before)
    whole = [column for column in before.columns if before[column].dtype == "Int64"]
    edit(results / f"{name}.parquet", lambda table: table.astype(dict.fromkeys(whole, "float64")).set_index("run"))
    assert_frame_equal(getattr(load(results), name), before)


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("evals", lambda table: table.drop(columns="fid"), ["no column fid"]),
        ("runs", lambda table: table.drop(columns=["seed", "steps"]), ["no column seed, steps"]),
        ("evals", lambda table: table.assign(fid="12,5"), ["'fid'", "row 1", "'12,5'"]),
        ("evals", lambda table: table.assign(step=[0.5, *table["step"][1:]]), ["'step'", "row 1", "0.5"]),
        ("evals", lambda table: table.assign(sampler=[None, *table["sampler"][1:]]), ["row 1", "'sampler'"]),
        ("evals", lambda table: table.assign(run="other"), ["row 1", "run other"]),
        ("evals", lambda table: table.assign(mine=[[1]] * len(table)), ["'mine'", "row 1"]),
        ("runs", lambda table: table.assign(seed=None), ["row 1", "'seed'"]),
        ("runs", lambda table: table.assign(label=range(len(table))), ["row 1", "'label'"]),
        ("runs", lambda table: table.assign(gmacs=[1.0, -1.0]), ["row 2", "'gmacs'", "-1.0"]),
        ("runs", lambda table: table.iloc[[0, 0]], ["row 2", "twice"]),
        ("runs", lambda table: table.iloc[:0], ["no row"]),
    ],
)
def test_what_an_edited_table_cannot_be_is_named(results: Path, name: str, change: Any, named: list[str]) -> None:
    edit(results / f"{name}.parquet", change)
    with pytest.raises(ResultsError) as caught:
        load(results)
    for part in (f"{name}.parquet", *named):
        assert part in str(caught.value)


def test_a_block_that_is_not_known_is_no_block(results: Path) -> None:
    edit(results / "runs.parquet", lambda table: table.assign(block=None))
    tables = load(results)
    assert set(tables.runs["block"]) == set(tables.evals["block"]) == {""}


def damaged(content: bytes, how: str) -> bytes:
    return {
        "cut": content[:-30],
        "flipped": content[:200] + bytes([content[200] ^ 255]) + content[201:],
        "text": b"npz",
    }[how]


@pytest.mark.parametrize("how", ["cut", "flipped", "text"])
def test_damaged_samples_are_named(results: Path, how: str) -> None:
    path = results / "samples.npz"
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(ResultsError, match=r"samples\.npz: not a whole \.npz file"):
        load(results)


def test_samples_of_another_form_are_named(results: Path) -> None:
    np.savez(results / "samples.npz", s40=np.zeros(3))
    with pytest.raises(ResultsError, match=r"samples\.npz: samples of s40: shape \(3,\) of float64"):
        load(results)


def test_a_description_of_metrics_that_is_none_is_named(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs", "S/4") / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": {"mine": {"title": "Mine"}}}))
    with pytest.raises(ResultsError, match=r"model\.json: 'metrics' is .*lower_is_better"):
        collect(tmp_path / "runs", tmp_path / "results")
