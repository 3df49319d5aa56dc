"""Network calls, guidance intervals and guides in tables, figures and comparisons; and tables from before them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from drawn_figures import sampling_study
from pandas.testing import assert_frame_equal
from run_folders import collect, evaluation, fid_of, gmacs_of, write_lines, write_run

from analysis import figures
from analysis.compare.one_key import of_one_key
from analysis.errors import ResultsError
from analysis.figures.captions import protocol
from analysis.figures.scores import Scores
from analysis.figures.sources import Source, measured
from analysis.paper import tables as paper_tables
from analysis.results.run_folders import KEY_ADDED_LATER
from analysis.results.tables import Tables, comparable, load
from analysis.results.verify import verify_results

ADDED = (*KEY_ADDED_LATER, "sampling_gmacs")


def old(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As earlier versions wrote them."""
    return [{name: value for name, value in row.items() if name not in ADDED} for row in rows]


def runs(folder: Path, rows: list[dict[str, Any]], label: str = "S/4") -> Path:
    write_lines(write_run(folder, label) / "evals.jsonl", rows)
    return folder


def test_scores_of_earlier_versions_are_the_same_as_new_ones(tmp_path: Path) -> None:
    rows = [evaluation("S/4", step) for step in (500, 1000)]
    new = collect(runs(tmp_path / "new", rows), tmp_path / "new-results").evals
    before = collect(runs(tmp_path / "old", old(rows)), tmp_path / "old-results").evals
    assert_frame_equal(new, before)
    assert before["network_calls"].tolist() == [250, 250]
    assert str(before["network_calls"].dtype) == "Int64"
    comparable(pd.concat([new, before]))


def test_one_run_may_have_both(tmp_path: Path) -> None:
    rows = [*old([evaluation("S/4", 500)]), evaluation("S/4", 1000)]
    comparable(collect(runs(tmp_path / "runs", rows), tmp_path / "results").evals)


def test_tables_from_before_load_as_today_s(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    write_lines(folder / "other-evals.jsonl", [evaluation("S/4", 500, guidance_scale=1.5, guidance_channels=3)])
    today = collect(tmp_path / "runs", tmp_path / "results")
    for name in ("evals.parquet", "evals.csv", "other_evals.csv", "correlations.csv"):
        path = tmp_path / "results" / name
        read, write = (
            (pd.read_parquet, pd.DataFrame.to_parquet) if path.suffix == ".parquet" else (pd.read_csv, _write_csv)
        )
        write(read(path).drop(columns=[*ADDED], errors="ignore"), path)
    loaded = load(tmp_path / "results")
    assert_frame_equal(loaded.evals, today.evals)
    assert_frame_equal(loaded.other_evals, today.other_evals)
    assert [problems for _, problems in verify_results(tmp_path / "results") if problems] == []


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False)


def test_new_tables_agree_with_themselves(tmp_path: Path) -> None:
    rows = [evaluation("S/4", 500, **GUIDED), evaluation("S/4", 1000, **GUIDED)]
    collect(runs(tmp_path / "runs", rows), tmp_path / "results")
    found = load(tmp_path / "results").evals
    assert found["guidance_interval"].tolist() == ["200 to 800"] * 2
    assert found["sampling_gmacs"].tolist() == [12.5] * 2
    problems = [problem for _, found in verify_results(tmp_path / "results") for problem in found]
    assert not [problem for problem in problems if "evals" in problem and "finished" not in problem]


GUIDED: dict[str, Any] = {
    "sampling_steps": 125,
    "network_calls": 249,
    "guidance_scale": 1.5,
    "guidance_channels": 3,
    "guidance_interval": "200 to 800",
    "guide": "step 500",
    "sampling_gmacs": 12.5,
}


@pytest.mark.parametrize("damaged", [{"network_calls": "many"}, {"guidance_interval": 5}, {"guide": True}])
def test_what_is_no_such_value_is_named(tmp_path: Path, damaged: dict[str, Any]) -> None:
    (name,) = damaged
    with pytest.raises(ResultsError, match=rf"evals\.jsonl: a value of '{name}' is not of type"):
        collect(runs(tmp_path / "runs", [evaluation("S/4", 500, **damaged)]), tmp_path / "results")


def source_of(tmp_path: Path, rows: list[dict[str, Any]]) -> Source:
    return measured(collect(runs(tmp_path / "runs", rows), tmp_path / "results"))


def test_conditions_say_calls_interval_and_guide_where_they_are_not_the_usual(tmp_path: Path) -> None:
    source = source_of(tmp_path, [evaluation("S/4", 500, **GUIDED)])
    for text in (protocol(Scores(source, source.tables.evals)), paper_tables.protocol(source.tables)):
        assert "125 steps (249 network calls)" in text
        assert "guidance 1.5 on 3 channels at times 200 to 800 by step 500" in text


def test_conditions_of_earlier_scores_are_said_as_before(tmp_path: Path) -> None:
    source = source_of(tmp_path, old([evaluation("S/4", 500, guidance_scale=1.5, guidance_channels=3)]))
    for text in (protocol(Scores(source, source.tables.evals)), paper_tables.protocol(source.tables)):
        assert "250 steps, guidance 1.5 on 3 channels, denoised" in text


def test_sampling_compute_is_as_a_row_says_else_calls_by_compute(tmp_path: Path) -> None:
    """A second-order sampler of one's own, with what its rows say; the DDPM ones are of an earlier version."""
    source = sampling_study(tmp_path)
    heun = [
        evaluation(
            "S/4", 2000, seed, sampler="mine:HEUN", sampling_steps=steps, network_calls=2 * steps - 1,
            sampling_gmacs=gmacs_of("S/4") * (2 * steps - 1),
        )
        for seed in (0, 1)
        for steps in (10, 20)
    ]  # fmt: skip
    for seed in (0, 1):
        (folder,) = (tmp_path / "runs").glob(f"*-s4{seed}")
        write_lines(folder / "other-evals.jsonl", [row for row in heun if row["fid"] == fid_of("S/4", 2000, seed)])
    source = measured(collect(tmp_path / "runs", tmp_path / "results"), "results")
    figures.draw("sampling-compute", [source], tmp_path / "figures")
    data = pd.read_csv(tmp_path / "figures" / "sampling_compute.csv")
    of_heun = data.loc[data["sampling_steps"].isin([10, 20]) & (data["label"] == "S/4")]
    calls = dict(zip(of_heun["sampling_steps"], of_heun["sampling_gmacs"] / of_heun["gmacs"], strict=True))
    assert calls == pytest.approx({10: 19, 20: 39}, rel=1e-12)


def test_compare_names_the_options_that_make_scores_comparable(tmp_path: Path) -> None:
    other_guides = {"by-run": "0123456789 step 300", "by-file": "small.safetensors-01234567"}
    plain = collect(runs(tmp_path / "plain", [evaluation("S/4", 500)]), tmp_path / "plain-results")

    def said(**wanted: Any) -> str:
        first = collect(runs(tmp_path / "wanted", [evaluation("S/4", 500, **wanted)]), tmp_path / "wanted-results")
        shutil.rmtree(tmp_path / "wanted")
        with pytest.raises(ResultsError) as refusal:
            of_one_key({"wanted": first, "plain": plain})
        return str(refusal.value)

    text = said(**GUIDED)
    assert "--guidance-interval 200 800" in text and " --guide-step 500" in text
    assert "network_calls:" not in text  # the steps differ
    text = said(guidance_scale=2.0, guide=other_guides["by-run"])
    assert "--guide runs/*/*-0123456789 --guide-step 300" in text
    assert "--guide small.safetensors" in said(guidance_scale=2.0, guide=other_guides["by-file"])


def test_scores_with_another_way_of_guidance_are_not_put_side_by_side(tmp_path: Path) -> None:
    rows = [evaluation("S/4", 500, **GUIDED)]
    tables: Tables = collect(runs(tmp_path / "runs", rows), tmp_path / "results")
    for name, value in (("guidance_interval", "100 to 800"), ("guide", None), ("network_calls", 250)):
        changed = replace(tables, evals=pd.concat([tables.evals, tables.evals.assign(**{name: value})]))
        with pytest.raises(ResultsError, match=f"differ in {name}"):
            comparable(changed.evals)
