"""Objectives as designs: compared by what they are, by a part of that, or by the names that a study gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from drawn_figures import SAMPLERS, block_study, sampler_study, seen
from run_folders import collect, evaluation, fid_of, write_lines, write_run

from analysis import figures
from analysis.compare.collected import collected_designs
from analysis.compare.compared import compared
from analysis.compare.one_key import by_setting, is_setting
from analysis.errors import ResultsError
from analysis.figures.sources import Source
from analysis.results.tables import Tables, load

MEAN = float(np.mean([fid_of(label, 2000, seed) for label in ("S/4", "B/2") for seed in (0, 1)]))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("objectives")
    sampler_study(folder)
    return load(folder / "results")


def said(tables: Tables, by: str | None = None, between: tuple[str, str] | None = None) -> dict[str, Any]:
    results = {"all": tables}
    if by is not None and is_setting(by):
        results, by = by_setting(results, by, between), "source"
    return compared(collected_designs(results, by, between=between)).to_dict()


@pytest.mark.parametrize(
    ("by", "between"),
    [
        (None, None),
        ("objective", None),
        (None, ("iddpm", "flow prediction=x0")),
        ("objective", ("prediction=x0", "iddpm")),
        ("objective", ("flow", "iddpm")),
    ],
)
def test_two_objectives_are_two_designs_of_the_same_models(
    tables: Tables, by: str | None, between: tuple[str, str] | None
) -> None:
    found = said(tables, by, between)
    assert (found["better"], found["worse"]) == ("flow prediction=x0", "iddpm")
    assert found["means"] == pytest.approx([MEAN, 2 * MEAN])
    assert (found["seeds"], found["paired"], len(found["models"])) == ([2, 2], True, 2)


def test_a_run_that_has_not_started_is_of_no_design_yet(tables: Tables) -> None:
    waiting = tables.runs.tail(1).assign(run="waiting", family="", objective="", gmacs=np.nan)
    more = replace(tables, runs=pd.concat([tables.runs, waiting], ignore_index=True))
    assert said(more, "objective") == said(tables, "objective")


def test_one_model_by_two_objectives_goes_by_the_studys_names(tables: Tables) -> None:
    found = said(tables, None, ("S/4 x0", "S/4 iddpm"))
    mean = np.mean([fid_of("S/4", 2000, seed) for seed in (0, 1)])
    assert (found["better"], found["worse"]) == ("S/4 x0", "S/4 iddpm")
    assert found["means"] == pytest.approx([mean, 2 * mean])


def test_each_objective_by_a_sampler_of_its_own(tables: Tables) -> None:
    by, between = "objective,sampler,sampling_steps", ("iddpm, euler, 50", "flow prediction=x0, heun shift=3.0, 25")
    (one, each, factor), (two, twice, better) = SAMPLERS
    assert (one, two) == ("euler", "heun shift=3.0")
    found = said(tables, by, between)
    assert found == said(tables, by, ("iddpm, euler, 50", "prediction=x0, heun, 25"))
    assert (found["worse"], found["better"]) == between
    calls = {each * 50, twice * 25}
    assert calls == {50}
    assert found["means"] == pytest.approx([MEAN * better * (1 + 20 / 50), 2 * MEAN * factor * (1 + 20 / 50)])


@pytest.mark.parametrize(
    ("by", "between", "problem"),
    [
        ("objective", ("model", "iddpm"), "no design model; accepted: two of flow prediction=x0, iddpm"),
        ("objective", ("iddpm", "iddpm"), "iddpm twice"),
        ("colour,sampler", None, "no column colour; accepted: weights, sampler, "),
        ("sampler", ("euler", "heun shift=3.0"), r"of several: objective \(.*; say more: --by objective,sampler$"),
        (
            "sampler,sampling_steps",
            ("euler, 50", "heun shift=3.0, 25"),
            r"iddpm\); say more: --by objective,sampler,sampling_steps$",
        ),
    ],
)
def test_what_no_design_is_called_is_refused(
    tables: Tables, by: str, between: tuple[str, str] | None, problem: str
) -> None:
    with pytest.raises(ResultsError, match=problem):
        said(tables, by, between)


def test_words_that_two_designs_have_choose_neither(tmp_path: Path) -> None:
    designs = collected_of(tmp_path, {"flow path=gvp": 1.0, "flow path=gvp prediction=x0": 2.0, "edm": 3.0})
    assert said(designs, "objective", ("flow path=gvp", "edm"))["better"] == "flow path=gvp"  # the whole of one
    with pytest.raises(ResultsError, match="no design flow; accepted: two of edm, flow path=gvp, flow path"):
        said(designs, "objective", ("flow", "edm"))
    assert said(designs, "objective,sampling_steps", ("flow path=gvp, 250", "edm, 250"))["worse"] == "edm, 250"
    table = said(designs)["designs"]
    assert [row["design"] for row in table] == ["flow path=gvp", "flow path=gvp prediction=x0", "edm"]


def test_designs_that_differ_in_their_objective_are_not_compared_by_something_else(tmp_path: Path) -> None:
    tables = collected_of(tmp_path, {"iddpm": 1.0, "edm": 1.0}, blocks={"iddpm": "adaln", "edm": "adaln-zero"})
    with pytest.raises(ResultsError, match=r"differ in objective .*iddpm in adaln"):
        said(tables, "block")


def collected_of(folder: Path, objectives: dict[str, float], blocks: dict[str, str] | None = None) -> Tables:
    for number, (objective, factor) in enumerate(objectives.items()):
        for seed in (0, 1):
            run = write_run(folder / "runs", "S/4", seed)
            config = yaml.safe_load((run / "config.yaml").read_text())
            (run / "config.yaml").write_text(yaml.safe_dump(config | {"id": f"n{number}{seed}"}))
            model = yaml.safe_load((run / "model.json").read_text()) | {"objective": objective}
            block = {"block": blocks[objective]} if blocks else {}
            (run / "model.json").write_text(str(model | block).replace("'", '"'))
            fid = factor * fid_of("S/4", 2000, seed)
            write_lines(run / "evals.jsonl", [evaluation("S/4", 2000, seed, fid=fid)])
            run.rename(folder / "runs" / f"n{number}{seed}")
    return collect(folder / "runs", folder / "results")


def test_a_row_of_the_figure_is_called_as_the_study_calls_it(tmp_path: Path) -> None:
    """With each seed's score in the picture; a design without a name of its own is called by what it is."""
    source = sampler_study(tmp_path / "samplers")
    with seen() as pictures:
        figures.draw("blocks", [source], tmp_path)
    data = pd.read_csv(tmp_path / "blocks.csv")
    called = {"adaln-zero, iddpm": "iddpm", "adaln-zero, flow prediction=x0": "x0"}
    assert data["design"].tolist() == [called[block] for block in data["block"]]
    left = pictures[0].axes[0]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["iddpm", "x0"]
    ticks = {tuple(line.get_xdata()) for line in left.lines if line.get_marker() == "|"}
    label = data["label"].iloc[0]
    assert ticks == {tuple(factor * fid_of(label, 2000, seed) for seed in (0, 1)) for factor in (1.0, 2.0)}
    plain: Source = block_study(tmp_path / "blocks")
    drawn: Any = figures.picture("blocks", [plain]).data
    assert drawn["design"].tolist() == drawn["block"].tolist()
