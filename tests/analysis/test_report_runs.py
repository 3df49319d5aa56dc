"""What a report says of runs: recipe, environment, hours planned and spent, failures, what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from report_html import Element, by_id, column, digits_html, parsed, section
from report_sweep import plan_of, write_sweep
from run_folders import collect, evaluation, read_histories, write_lines, write_run

from analysis.report import runs
from analysis.report.write import report, write_report
from analysis.results.run_history import differing_keys, hours, read_plan
from analysis.results.tables import Tables
from bench.files.run_files import read_records


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "runs")


def collected(sweep: Path) -> Tables:
    return collect(sweep, sweep.parent / "results")


def costs(sweep: Path, plan: Path) -> Element:
    """The section of hours."""
    tables = collected(sweep)
    return section("cost", runs.cost(tables, read_histories(sweep, tables), read_plan(plan, tables)))


def said_of_failures(sweep: Path) -> list[str]:
    """The lines of the section, from tables alone."""
    found = runs.failures(collected(sweep), [], [])
    return [*found["failed"], *found["missing"]]


def test_without_run_folders_the_page_says_what_it_cannot_know() -> None:
    page = parsed(digits_html())
    assert "As far as the tables say" in by_id(page, "recipe").text
    assert "recorded in the run folders only" in by_id(page, "failures").text
    assert "not known" in by_id(page, "cost").text
    assert "fid_infinity, sfid" in by_id(page, "failures").text


@pytest.mark.slow
def test_the_page_has_recipe_environment_and_failures_of_the_run_folders_and_is_the_same_each_time(sweep: Path) -> None:
    folder = next(sweep.glob("*s-4-s40"))
    failures = [
        {"time": "t1", "error": "out of memory: <b>1 & 2</b>", "attempt": "a"},
        {"time": "t2", "error": None},
        {"time": "t3", "error": "node died", "attempt": "b"},
    ]
    write_lines(folder / "failures.jsonl", failures)
    write_lines(folder / "scoring-failures.jsonl", [{"time": "t4", "error": "no samples", "attempt": "c"}])
    collected(sweep)
    pages = [
        write_report(sweep.parent / "results", sweep.parent / name, read_records(sweep), plan_of(sweep)).read_text(
            encoding="utf-8"
        )
        for name in ("one.html", "two.html")
    ]
    assert pages[0] == pages[1]  # the intervals are drawn, from a seed
    page = parsed(pages[0])
    (code,) = by_id(page, "recipe").all("pre")
    recipe = yaml.safe_load(code.text)
    assert recipe == {
        "model": {"block": "adaln-zero"},
        "data": {"name": "digits"},
        "train": {"steps": 2000, "batch_size": 64},
        "evaluation": {"num_samples": 1000},
    }
    differing = by_id(page, "table-recipes")
    assert [cell.text for cell in column(differing, "model.name")] == ["DiT-S/4", "DiT-B/4", "DiT-S/2"] * 2
    assert [cell.text for cell in column(differing, "seed")] == ["0"] * 3 + ["1"] * 3
    (starts,) = column(by_id(page, "table-sessions"), "number of starts")
    assert starts.attributes["data-value"] == "6"
    environment = by_id(page, "table-sessions").text
    assert all(fact in environment for fact in ("2.6", "3.11.7", "c0ffee", "fp32", "cpu"))
    assert "secret-node" not in page.text
    failed = [item.text for item in by_id(page, "failures").all("li")]
    assert failed[:4] == [
        "No run was given up.",
        "S/4 (s40), training, t1: out of memory: <b>1 & 2</b>",
        "S/4 (s40), training, t3: node died",
        "S/4 (s40), scoring, t4: no samples",
    ]
    assert "times the planned device-hours (6 of 6 runs" in by_id(page, "cost").text


def test_what_failed_and_what_is_missing(sweep: Path) -> None:
    failed, unfinished = next(sweep.glob("*s-4-s40")), next(sweep.glob("*s-2-s21"))
    for folder in (failed, unfinished):
        (folder / "finished.json").unlink()
    (failed / "error.json").write_text('{"error": "out of memory"}')
    write_lines(unfinished / "evals.jsonl", [evaluation("S/2", 500, 1)])
    (unfinished / "samples" / "500.npy").unlink()
    items = said_of_failures(sweep)
    assert "S/4, seed 0 (s40) was given up." in items
    assert "S/2, seed 1 (s21) has not finished" in items
    assert "S/2, seed 1 (s21) has no score at step 2,000" in items
    assert "1 of 6 runs have no samples in the tables" in items


def test_a_study_without_scores_has_a_report(tmp_path: Path) -> None:
    (write_run(tmp_path / "runs", "S/4") / "evals.jsonl").unlink()
    page = parsed(report(collected(tmp_path / "runs")))
    charts = [figure.attributes["id"] for figure in page.all("figure")]
    assert charts == ["chart-loss-steps", "chart-published-compute"]
    assert "There is no score yet." in by_id(page, "scores").text
    assert "No law was fitted: no score yet" in by_id(page, "laws").text
    assert any("there is none yet" in item.text for item in by_id(page, "failures").all("li"))


@pytest.mark.slow
def test_a_run_that_has_only_just_begun_is_no_obstacle(sweep: Path) -> None:
    for path in next(sweep.glob("*s-4-s40")).iterdir():
        if path.is_file() and path.name != "config.yaml":
            path.unlink()
    tables = collected(sweep)
    page = parsed(report(tables, read_histories(sweep, tables)))
    assert "S/4, seed 0 (s40) has not finished" in by_id(page, "failures").text


def test_hours_are_steps_over_speed_times_devices(sweep: Path) -> None:
    folder = next(sweep.glob("*s-4-s40"))
    write_lines(
        folder / "train.jsonl", [{"step": step, "loss": 1.0, "images_per_s": 64 / 36} for step in (100, 200, 300)]
    )
    session = {"time": "t", "device": "cpu", "precision": "fp32", "commit": "c"}
    # The third start went back behind the second: its four devices trained all from step 100 on.
    starts = [(0, 1), (200, 2), (100, 4)]
    rows = [session | {"resumed_from_step": step, "world_size": size} for step, size in starts]
    write_lines(folder / "sessions.jsonl", rows)
    rates = [evaluation("S/4", step, num_samples=3600) | {"sampling_images_per_s": 2.0} for step in (500, 1000)]
    write_lines(folder / "evals.jsonl", rates)
    tables = collected(sweep)
    spent = hours(tables, read_histories(sweep, tables)).set_index("run").loc["s40"]
    assert spent["training_hours"] == pytest.approx(3.0)
    assert spent["training_device_hours"] == pytest.approx(1 + 4 + 4)
    assert spent["sampling_hours"] == pytest.approx(1.0)
    alone = hours(tables, []).set_index("run")
    assert alone["training_device_hours"].isna().tolist() == [True] * 6


def test_the_plan_stands_beside_the_hours_spent(sweep: Path) -> None:
    section = costs(sweep, plan_of(sweep))
    spent = 2 * 2000 * 64 / 1234.5 / 3600
    assert f"Training took {spent / 0.01:.2f} times the planned device-hours (6 of 6 runs" in section.text
    cells = column(by_id(section, "table-hours"), "training device hours")
    assert [float(cell.attributes["data-value"]) for cell in cells] == pytest.approx([spent] * 6)


def test_a_plan_without_times_is_no_obstacle(sweep: Path) -> None:
    text = costs(sweep, plan_of(sweep, hours=None)).text
    assert "No run has both planned and spent device-hours." in text


def test_shared_and_differing_keys() -> None:
    shared, differing = differing_keys([{"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [1], "e": 0}])
    assert shared == {"a": {"b": 1}, "d": [1]}
    assert differing["a.c"].tolist() == [2, 3]
    assert differing["e"].isna().tolist() == [True, False]
    assert differing.columns.tolist() == ["a.c", "e"]
