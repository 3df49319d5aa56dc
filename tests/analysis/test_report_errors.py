"""Bad input of a report: one line that says what was wrong, where, and what is accepted; and no page."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_sweep import plan_of, write_sweep
from run_folders import collect, evaluation, read_histories, write_lines, write_run

from analysis.report.write import write_report
from analysis.results.run_history import read_plan
from analysis.results.tables import ResultsError
from bench.errors import InputError


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "runs")


def test_mixed_evaluation_keys_are_refused(sweep: Path) -> None:
    write_lines(next(sweep.glob("*s-4-s40")) / "evals.jsonl", [evaluation("S/4", 500, guidance_scale=1.5)])
    collect(sweep, sweep.parent / "results")
    with pytest.raises(ResultsError, match="differ in guidance_scale"):
        write_report(sweep.parent / "results", sweep.parent / "report.html")
    assert not (sweep.parent / "report.html").exists()


def test_run_folders_of_another_sweep_are_refused(sweep: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "others", "XL/1")
    tables = collect(sweep, sweep.parent / "results")
    with pytest.raises(ResultsError, match=r"others: the tables lack the run xl10; accepted: the folder that"):
        read_histories(tmp_path / "others", tables)
    with pytest.raises(InputError, match=r"nowhere: no run folder there"):
        read_histories(tmp_path / "nowhere", tables)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{oops", "not a plan .* accepted: what `ditbench sweep plan --json` prints"),
        ("[]", "not a plan"),
        ('{"runs": [{"id": "s40"}]}', "not a plan .*steps_left"),
        ('{"runs": []}', "plans none of these runs"),
    ],
)
def test_what_is_no_plan_is_refused(sweep: Path, content: str, message: str) -> None:
    path = sweep.parent / "plan.json"
    path.write_text(content)
    with pytest.raises(ResultsError, match=message):
        read_plan(path, collect(sweep, sweep.parent / "results"))


def test_a_plan_of_what_was_left_later_is_refused(sweep: Path) -> None:
    with pytest.raises(ResultsError, match=r"had 500 of 2000 steps left; accepted: a plan made before the first start"):
        read_plan(plan_of(sweep, steps_left=500), collect(sweep, sweep.parent / "results"))
