"""`ditbench demo` on runs that are already there: its figures, its page, its few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from baseline_files import FID, write_baselines
from report_html import by_id, parsed
from run_folders import write_run
from typer.testing import CliRunner

import ditbench
from analysis.errors import ResultsError

LABELS = ("S/4", "S/2", "S/1", "B/4", "B/2", "B/1")  # those of --quick


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs; instead of training, the demo finds its six models trained."""

    def trained(sweep: Any, folder: Path, *_: Any) -> None:
        for label in LABELS:
            write_run(folder / sweep.name, label)

    def scored(recipes: Any, folder: Path, out: Path, **_: Any) -> None:
        write_baselines(out)  # beside the made-up scores

    monkeypatch.setattr(ditbench, "run_here", trained)
    monkeypatch.setattr(ditbench, "make_baselines", scored)
    return tmp_path / "runs"


def quick(runs: Path) -> Any:
    return CliRunner().invoke(
        ditbench.app, ["demo", "--quick", "--runs", str(runs), "--out", str(runs.parent / "results")]
    )


@pytest.mark.slow
def test_the_demo_ends_with_its_page(runs: Path) -> None:
    done = quick(runs)
    assert done.exit_code == 0, done.output
    page = runs.parent / "results" / "report.html"
    assert done.stdout.splitlines()[-1] == f"Everything on one page, for a browser: {page}"
    assert len(done.stdout.splitlines()) < 39
    content = parsed(page.read_text(encoding="utf-8"))
    for fid in FID.values():  # in the printed table, the page's, and the figures
        assert f" {fid:g} " in done.stdout
        assert f"{fid:.2f}" in by_id(content, "table-summary").text
        assert f"{fid:.4g}" in (page.parent / "fid_vs_steps.txt").read_text()
    assert yaml.safe_load(by_id(content, "recipe").all("pre")[0].text)["train"] == {"steps": 2000, "batch_size": 64}
    assert "No attempt failed." in by_id(content, "failures").text
    assert by_id(content, "table-sessions").all("tr")
    assert len(by_id(content, "chart-fid-compute").all("title")) == 6
    (headline,) = [text for text in content.all("p") if text.attributes.get("class") == "headline"]
    assert "over 6 models" in headline.text


@pytest.mark.slow  # two seconds
def test_a_page_that_cannot_be_made_costs_no_figure(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = ditbench.run_here

    def damaged(sweep: Any, folder: Path, *rest: Any) -> None:
        trained(sweep, folder, *rest)
        next((folder / sweep.name).iterdir()).joinpath("failures.jsonl").write_text("[1]\n")  # only the page reads it

    monkeypatch.setattr(ditbench, "run_here", damaged)
    done = quick(runs)
    assert isinstance(done.exception, ResultsError)
    assert "failures.jsonl" in str(done.exception)
    figure = runs.parent / "results" / "gflops_vs_fid.png"
    assert figure.is_file()
    assert str(figure) in done.stdout
    assert not (runs.parent / "results" / "report.html").exists()
