"""Labels that are markup, escapes and several lines are shown as they are by whatever looks at a sweep."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from command_line import ditbench
from rich.console import Console
from sweep_files import FOUR, write_sweep

from bench.files.names import visible
from sweeps.expand import load_sweep
from sweeps.watch.progress import progress, watch
from sweeps.watch.study import Study

LABEL = "[/x] [bold]{size}\x1b[31m:smile:\n#SBATCH --wrap {patch_size}"
SHOWN = [f"[/x] [bold]{size}\\x1b[31m:smile:\\n#SBATCH --wrap {patch}" for size in "SB" for patch in (4, 2)]
SLURM = {
    "executor": "slurm",
    "gpu": {"name": "a core", "peak_tflops": {"fp32": 0.05}},
    "mfu": {"training": 0.2, "sampling": 0.2, "source": "a guess"},
    "time_limit": "1-00",
    "evaluate": "inline",
    "training": [{}],
}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path, "tiny", FOUR, label=LABEL)


def test_a_line_a_run_in_plan_and_status(sweep: Path, tmp_path: Path) -> None:
    for command in ("plan", "status"):
        done = ditbench("sweep", command, sweep, "--runs", tmp_path / "runs")
        assert done.status == 0, done.err
        lines = done.out.splitlines()
        assert [label for label in SHOWN if sum(line.startswith(label) for line in lines) != 1] == []
        assert "\x1b" not in done.out


def test_the_arithmetic_and_the_reasons(sweep: Path, tmp_path: Path) -> None:
    explained = ditbench("sweep", "plan", sweep, "--runs", tmp_path / "runs", "--explain").out
    assert [label for label in SHOWN if f"\n{label} (new)\n" not in explained] == []
    run = load_sweep(sweep).recipes[0]
    why = ditbench("sweep", "why", sweep, run.id, "--runs", tmp_path / "runs").out
    assert why.startswith(f"{SHOWN[0]}: waiting")


def test_no_label_is_a_line_of_a_script(sweep: Path, tmp_path: Path) -> None:
    profile = tmp_path / "slurm.yaml"
    profile.write_text(yaml.safe_dump(SLURM))
    done = ditbench("sweep", "submit", sweep, "--cluster", profile, "--runs", tmp_path / "runs", "--dry-run", PATH="")
    assert done.status == 0, done.err
    assert "\n#SBATCH --wrap" not in done.out
    assert all(label in done.out for label in SHOWN)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_live_tables_and_lines(sweep: Path, tmp_path: Path, is_terminal: bool) -> None:
    loaded = load_sweep(sweep)
    look = Study(loaded, tmp_path / "runs").look()
    out = io.StringIO()
    shown = Console(file=out, force_terminal=is_terminal, width=200, height=50, color_system=None)
    with progress(loaded.recipes, shown) as show:
        show(look.runs)
    with watch(loaded.recipes, shown) as show:
        show(look.runs, ["a [/note]\x1b[2J :smile:"])
    text = out.getvalue()
    assert visible("a [/note]\x1b[2J :smile:") in text
    assert not is_terminal or [label for label in SHOWN if label not in text] == []
