"""SiT's study ready to submit: what its 250 network calls cost, by the ODE and by the SDE, and a dry run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import ditbench

# Multiply-accumulates (1e9) of a forward pass, as the DiT paper's Table 4 has them.
GMACS = {"SiT-S/2": 6.06, "SiT-B/2": 23.01, "SiT-L/2": 80.71, "SiT-XL/2": 118.64}
CALLS = 250


def test_a_heun_step_costs_two_network_calls(tmp_path: Path) -> None:
    """8 scores by the SDE of 250 steps and one by the ODE of 125 Heun steps, of 50,000 samples each."""
    plan = ("sweep", "plan", "sit", "--cluster", "slurm-example", "--runs", tmp_path)
    made = json.loads(ditbench(*plan, "--json").out)
    assert [run["label"] for run in made["runs"]] == list(GMACS)
    for run in made["runs"]:
        pflop = 9 * 50_000 * CALLS * 2 * GMACS[run["label"]] / 1e6
        assert run["scoring_pflop"] == pytest.approx(pflop, rel=2e-3)
        speed = run["peak_tflops"] * run["sampling_mfu"] / 1e3
        assert run["scoring_gpu_hours"] == pytest.approx(pflop / speed / 3600, rel=2e-3)
        assert run["training_pflop"] == pytest.approx(400_000 * 256 * 3 * 2 * GMACS[run["label"]] / 1e6, rel=2e-3)
    explained = ditbench(*plan, "--explain").out
    assert explained.count("2,965.95 PFLOP") == 1, "the ODE's score of XL/2"
    assert explained.count("23,727.6 PFLOP") == 1, "the SDE's eight"


def test_a_dry_run_shows_its_jobs_and_submits_none(tmp_path: Path) -> None:
    done = ditbench("sweep", "submit", "sit", "--cluster", "slurm-example", "--runs", tmp_path, "--dry-run", PATH="")
    assert done.status == 0, done.err
    assert all(label in done.out for label in GMACS)
    assert done.out.count("#SBATCH --array") == 4
    assert not any(tmp_path.iterdir())
