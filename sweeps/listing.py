"""What ships: every sweep with its runs and its cost, and every cluster profile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.commands.quantities import figure, time_text
from sweeps import shipped
from sweeps.cluster import cluster_name, load_cluster
from sweeps.expand import Sweep, load_sweep, run_folders
from sweeps.planning.plan import plan

# The profile whose speed is published.
REFERENCE = "slurm-example"


def sweep_lines() -> Iterator[str]:
    """Two lines for each shipped sweep: name, number of runs and cost, then what it is."""
    for name in shipped.names(shipped.STUDIES):
        path = shipped.STUDIES / f"{name}.yaml"
        sweep = load_sweep(path)
        runs = f"{len(sweep.recipes)} run{'s' if len(sweep.recipes) > 1 else ''}"
        yield f"{name:22} {runs:>7}   {_cost(sweep)}"
        yield f"    {_about(path)}"


def cluster_lines() -> Iterator[str]:
    """Two lines for each shipped profile: name and what it runs on, then what it is."""
    for name in shipped.names(shipped.CLUSTERS):
        path = shipped.CLUSTERS / f"{name}.yaml"
        profile = load_cluster(str(path))
        device = profile.gpu.name if profile.gpu else profile.device
        yield f"{cluster_name(str(path)):22} {profile.executor:>7}   {device}, {profile.precision}"
        yield f"    {_about(path)}"


def _cost(sweep: Sweep) -> str:
    """As it was measured, else as it is planned on the reference profile from nothing on."""
    measured = shipped.measured_minutes().get(sweep.name)
    if measured:
        return f"{time_text(60 * measured[0])} of CPU time, measured (results/{measured[1]})"
    made = plan(sweep, load_cluster(REFERENCE), REFERENCE, run_folders(sweep, Path("/nonexistent")))
    assert made.gpu_hours is not None  # the profile says all that is needed
    return f"{figure(made.gpu_hours)} GPU-hours, planned on {REFERENCE}"


def _about(path: Path) -> str:
    """The line that the file begins with, a comment."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
