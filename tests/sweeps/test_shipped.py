"""What ships is found by name from anywhere, and `ditbench sweep list` says what it is and costs."""

from __future__ import annotations

import csv
import json
from datetime import datetime
from pathlib import Path

import pytest
from command_line import ditbench

from bench.errors import InputError
from sweeps import shipped
from sweeps.cluster import cluster_name, find_cluster, load_cluster
from sweeps.expand import load_sweep
from sweeps.shipped import CLUSTERS, STUDIES

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "slurm-example",
        "SLURM-example",
        "slurm-example.yaml",
        "clusters/slurm-example.yaml",
        "sweeps/clusters/slurm-example.yaml",
    ],
)
def test_a_shipped_profile_is_found_by_name_unless_the_user_has_such_a_file(name: str) -> None:
    assert find_cluster(name) == CLUSTERS / "slurm-example.yaml"
    mine = Path(name)
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("executor: local\nmax_parallel: 3\n")
    assert load_cluster(name).max_parallel == 3


@pytest.mark.parametrize("name", ["", ".", "none", "none.yaml", "elsewhere/local.yaml", "a" * 5000, "a\0b"])
def test_a_profile_that_nothing_has_is_refused_with_the_names(name: str) -> None:
    with pytest.raises(InputError) as caught:
        find_cluster(name)
    message = str(caught.value)
    assert message.startswith(f"--cluster {name}: no such profile; accepted: ")
    assert all(path.stem in message for path in CLUSTERS.glob("*.yaml"))


def test_a_profile_has_one_name_however_it_is_given() -> None:
    given = ("mine", "mine.yaml", "some/where/mine.yml", "./mine.yaml", "/a/mine.yaml")
    assert {cluster_name(name) for name in given} == {"mine"}
    assert cluster_name("v1.2.yaml") == "v1.2"


def test_every_command_takes_names() -> None:
    for arguments in (["plan", "digits", "--cluster", "slurm-example"], ["status", "digits"], ["cancel", "digits"]):
        done = ditbench("sweep", *arguments)
        assert (done.status, done.err) == (0, ""), arguments
        assert "digits" in done.out or "S/4" in done.out
    assert "S/4: waiting" in ditbench("sweep", "why", "digits", "S/4").out
    assert "it is waiting" in ditbench("sweep", "logs", "digits", "S/4").err
    Path("mine.yaml").write_text("extends: digits\nname: mine\nproduct: {seed: [1, 2]}\n")
    plans = [
        json.loads(ditbench("sweep", "plan", name, "--json").out) for name in ("mine.yaml", "./mine.yaml", "digits")
    ]
    assert [len(made["runs"]) for made in plans] == [24, 24, 12]


def test_collect_takes_a_sweep_for_its_folder_of_runs() -> None:
    said = ditbench("collect", "digits", "--runs", "somewhere").err
    assert said.startswith("ditbench: somewhere/digits: no run folder there")
    Path("digits").mkdir()
    assert ditbench("collect", "digits").err.startswith("ditbench: digits: no run folder there")


def test_the_list_has_all_that_ships_with_its_costs() -> None:
    lines = ditbench("sweep", "list").out.splitlines()
    rows = {line.split()[0]: line for line in lines if line and not line.startswith(" ")}
    for path in (*STUDIES.glob("*.yaml"), *CLUSTERS.glob("*.yaml")):
        below = lines[lines.index(rows[path.stem]) + 1]
        assert below == f"    {path.read_text().splitlines()[0].removeprefix('# ')}"
        assert below.endswith(".")
    for name in ("scaling", "blocks", "xl2-long", "xl2-512", "sit"):
        committed = json.loads((ROOT / "results" / "plans" / f"{name}.json").read_text())
        assert f"{len(committed['runs'])} run" in rows[name]
        assert f"{committed['gpu_hours']:,.0f} GPU-hours, planned on {committed['cluster']}" in rows[name]
    assert "12 runs" in rows["digits"] and "6 minutes of CPU time, measured" in rows["digits"]


def test_measured_minutes_are_those_of_the_committed_results() -> None:
    """Of a run's recipe, whatever the sweep: from its first start to its end, on one thread."""
    minutes = shipped.measured_minutes()
    # Trained beside other work: their hours are not their processor time.
    shared = {"digits-longer", "try", "first", "first-seeds", "first-held-out", "digits-quick", "knobs", "ema"}
    shared |= {"ema-direct", "unet", "text", "pixels", "pixels-rates"}
    shared |= {"digits-ladder", "digits-ladder-8x", "mup", "mup-starts"}
    of_digits = {
        path.stem for path in STUDIES.glob("*.yaml") if load_sweep(path).recipes[0].data.name.startswith("digits")
    }
    assert set(minutes) == of_digits - shared
    for name, (told, results) in minutes.items():
        with (ROOT / "results" / results / "runs.csv").open(newline="") as file:
            rows = {row["run"]: row for row in csv.DictReader(file)}
        took = 0.0
        for recipe in load_sweep(name).recipes:
            row = rows[recipe.id]
            assert (row["starts"], row["device"]) == ("1", "cpu x86_64")
            took += (datetime.fromisoformat(row["finished"]) - datetime.fromisoformat(row["started"])).total_seconds()
        assert told == pytest.approx(took / 60, abs=0.005), name
