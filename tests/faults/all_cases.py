"""All cases, some at a time, and their tables."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from dataclasses import asdict, fields
from pathlib import Path

import forked
from disturb import Result, refer, start_case
from faults import FAULTS
from targets import Target, targets


def run_all(home: Path, seed: int, kills: int, others: int, only: str, workers: int) -> list[Result]:
    """At least `kills` kills in all, and `others` cases of every other fault for each command; results in order."""
    _import_everything()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # for the user whose folders become read-only
    (home / "results").mkdir()
    features = home / "features"
    assert forked.done(lambda: _train_features(features), home / "log") == 0, home / "log"
    results: list[Result] = []
    for target in targets():
        kills_of_it = _share(kills, target)
        numbers = {fault: kills_of_it if fault == "kill" else -(-others // target.cost) for fault in FAULTS}
        wanted = [(f, n) for f in FAULTS for n in range(numbers[f]) if only in f"{target.name}/{f}/{n}"]
        if not wanted:
            continue
        folder = home / target.name.replace(" ", "-")
        reference = refer(target, folder, features)
        began = time.monotonic()
        running: dict[int, Path] = {}
        files = []
        for fault, number in wanted:
            if len(running) == workers:
                _wait_for_one(running)
            file = home / "results" / f"{len(results) + len(files)}.json"
            files.append(file)
            running[start_case(target, fault, number, seed, folder, reference, file)] = file
        while running:
            _wait_for_one(running)
        results += [Result(**json.loads(file.read_text())) for file in files]
        print(f"{target.name}: {len(files)} cases in {time.monotonic() - began:.0f} s", flush=True)
    return results


def _share(kills: int, target: Target) -> int:
    """A target's part of all kills, rounded up."""
    whole = sum(1 / each.cost for each in targets())
    return math.ceil(kills / target.cost / whole)


def _wait_for_one(running: dict[int, Path]) -> None:
    pid, status = os.wait()
    file = running.pop(pid)
    if status:
        raise RuntimeError(f"a case could not be carried out: {file.with_suffix('.error').read_text()}")


def _train_features(folder: Path) -> None:
    from bench.score.extractors import digits_cnn

    digits_cnn.trained(folder)


def _import_everything() -> None:
    """What the commands import when they need it: children then start in milliseconds."""
    import importlib

    for name in (
        # The standard library's, which a user without rights may be unable to read in root's own Python.
        "encodings.cp437", "encodings.utf_8_sig",
        "ditbench", "analysis.results.tables", "bench.data.encode", "bench.data.vae",
        "bench.export.pipeline", "bench.run", "bench.score.extractors.digits_cnn", "bench.trackers", "bench.weights",
        "PIL.Image", "pyarrow.parquet", "rich.progress", "scipy.linalg", "sklearn.datasets", "submitit", "sweeps.local",
        "sweeps.planning.report", "sweeps.slurm.launch", "sweeps.watch.progress", "test_vae",
    ):  # fmt: skip
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def write_tables(results: list[Result], out: Path) -> None:
    """cases.csv and faults.csv."""
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "cases.csv", [asdict(result) for result in results], [field.name for field in fields(Result)])
    rows = []
    for pair in dict.fromkeys((result.target, result.fault) for result in results):
        cases = [result for result in results if (result.target, result.fault) == pair]
        rows.append(
            {
                "target": pair[0],
                "fault": pair[1],
                "injected": sum(case.injected for case in cases),
                "survived": sum(case.injected and case.survived for case in cases),
                "rows_lost": sum(case.rows_lost for case in cases),
                "rows_doubled": sum(case.rows_doubled for case in cases),
                "wrong_results": sum(case.wrong for case in cases),
                "half_written_taken_for_whole": sum(case.half_written for case in cases),
            }
        )
    _write(out / "faults.csv", rows, list(rows[0]))


def _write(path: Path, rows: list[dict[str, object]], names: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
