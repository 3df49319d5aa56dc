"""`ditbench report`: where it writes, and what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from report_html import ROOT, parsed
from report_sweep import plan_of, write_sweep
from run_folders import collect
from typer.testing import CliRunner

from ditbench import app


@pytest.mark.slow  # of what is imported, test_architecture.py and test_light_imports.py tell it too
def test_a_report_needs_neither_torch_nor_the_code_that_made_the_runs() -> None:
    code = (
        "import sys, analysis.report.write, analysis.commands.table;"
        "print(sorted({'torch', 'models', 'bench', 'sweeps'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_command_writes_beside_the_tables_or_where_it_is_told(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "runs")
    for path in sweep.glob("*/evals.jsonl"):
        path.unlink()  # a page without scores is made fast
    collect(sweep, tmp_path / "results")
    arguments = ["report", str(tmp_path / "results")]
    done = CliRunner().invoke(app, [*arguments, "--runs", str(sweep), "--plan", str(plan_of(sweep))])
    assert done.stdout.strip() == str(tmp_path / "results" / "report.html")
    CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "page.html")])
    assert parsed((tmp_path / "page.html").read_text(encoding="utf-8")).all("h1")
