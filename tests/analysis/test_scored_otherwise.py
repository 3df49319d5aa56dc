"""One study whose runs were scored in several ways: compared one with another, drawn in panels, never mixed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from run_folders import LABELS, collect, evaluation, fid_of, write_lines, write_run

from analysis import figures
from analysis.compare.at_equal_steps import StepsComparison
from analysis.compare.collected import collected_designs
from analysis.compare.compared import compared
from analysis.compare.one_key import by_setting, is_setting
from analysis.errors import ResultsError
from analysis.figures.sources import measured
from analysis.figures.varied import varied
from analysis.results.tables import Tables, load
from analysis.results.verify import verify_results

MODELS = LABELS[:2]
# Whose Fréchet distance is the ddpm's times this.
FACTORS = {("ddim", 250): 0.5, ("ddim", 50): 0.6, ("ddpm", 50): 1.5}
GUIDED = {"guidance_scale": 1.5, "guidance_channels": 3}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    for label in MODELS:
        for seed in (0, 1):
            run = write_run(folder / "runs", label, seed)
            fid = fid_of(label, 2000, seed)
            rows = [
                evaluation(label, 2000, seed, sampler=sampler, sampling_steps=steps, fid=fid * factor)
                for (sampler, steps), factor in FACTORS.items()
            ]
            rows.append(evaluation(label, 2000, seed, **GUIDED, fid=fid * 0.7))
            write_lines(run / "scores.jsonl", [{"score": f"{index:08x}", **row} for index, row in enumerate(rows)])
    collect(folder / "runs", folder / "results")
    return folder / "results"


@pytest.fixture(scope="module")
def tables(results: Path) -> Tables:
    return load(results)


def difference(tables: Tables, by: str, between: tuple[str, str] | None = None) -> StepsComparison:
    found = compared(collected_designs(by_setting({"a": tables}, by, between), "source"))
    assert isinstance(found, StepsComparison)
    return found


def test_two_ways_of_scoring_are_compared_with_all_else_alike(tables: Tables) -> None:
    """With that of the recipe's evaluation where both have it: 250 steps."""
    mean = sum(fid_of(label, 2000, seed) for label in MODELS for seed in (0, 1)) / 4
    samplers = difference(tables, "sampler")
    assert (samplers.better, samplers.worse, samplers.paired) == ("ddim", "ddpm", True)
    assert samplers.means == pytest.approx((0.5 * mean, mean))
    guidance = difference(tables, "guidance_scale")
    assert (guidance.better, guidance.worse) == ("1.5", "1")
    assert guidance.means == pytest.approx((0.7 * mean, mean))
    both = difference(tables, "sampler,sampling_steps", ("ddim, 50", "ddpm, 50"))
    assert both.means == pytest.approx((0.6 * mean, 1.5 * mean))


@pytest.mark.parametrize(
    ("by", "between", "said"),
    [
        ("sampler", ("ddim", "heun"), r"--by sampler: there are scores of ddpm; ddim; choose two"),
        ("labels", None, r"--by labels: there are scores of balanced; needed: two"),
        ("sampler,sampling_steps", None, r"ddim, 50.*choose two"),
    ],
)
def test_what_cannot_be_told_apart_is_asked_for(
    tables: Tables, by: str, between: tuple[str, str] | None, said: str
) -> None:
    assert is_setting(by)
    with pytest.raises(ResultsError, match=said):
        by_setting({"a": tables}, by, between)


def test_several_ways_in_common_are_not_chosen_from_in_silence(tables: Tables) -> None:
    """Neither of two other samplers' scores is as the recipe's, and they share two numbers of steps."""
    others = tables.other_evals
    more = others.loc[others["sampler"] == "ddim"].assign(sampler="heun")
    with_heun = replace(
        tables,
        evals=tables.evals.assign(sampling_steps=1000),
        other_evals=pd.concat([others, more], ignore_index=True),
    )
    with pytest.raises(ResultsError, match=r"sampling_steps: 250, 50.*say more: --by sampler,sampling_steps"):
        by_setting({"a": with_heun}, "sampler", ("ddim", "heun"))


def test_groups_that_differ_in_more_than_what_is_drawn_say_so(tables: Tables) -> None:
    found = varied(measured(tables, "scored"), "sampling_steps", ignored=("network_calls",))
    assert [each.title for each in found] == ["Measured: scored, ddpm", "Measured: scored, ddim"]
    assert [each.source.called for each in found] == ["scored, ddpm", "scored, ddim"]
    assert [sorted(set(each.evals["sampling_steps"])) for each in found] == [[50, 250], [50, 250]]


def test_a_figure_of_guidance_is_what_the_tables_have(tables: Tables, results: Path, tmp_path: Path) -> None:
    """The channels follow from the scale: without guidance there are none."""
    home = tmp_path / "scored"
    shutil.copytree(results, home)
    figures.draw("guidance", [measured(tables, "scored")], home)
    checks = [(what, problems) for what, problems in verify_results(home) if "guidance.csv" in what]
    assert [what for what, _ in checks if "4 plotted values" in what]
    assert [problems for _, problems in checks if problems] == []
