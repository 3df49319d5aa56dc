"""What is disturbed: the suite's commands on tiny models of digits, a second each, and what they leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import forked
import yaml
from forking_executor import ForkingExecutor
from job_queue import make_commands, queued
from photos import make_images
from recipes import tiny
from runs import SPEEDS
from sweep_files import FOUR, SIZE_AND_PATCH, write_sweep

from bench.files import jsonl

Rows = list[dict[str, Any]]
# What a command left: rows by file, and all other files' hashes.
Outcome = dict[str, Rows | str]

PROFILE = {
    "executor": "slurm",
    "time_limit": "01:00:00",
    "gpu": {"name": "a device", "peak_tflops": {"fp32": 0.001}},
    "mfu": {"training": 0.2, "sampling": 0.2, "source": "assumed"},
    "training": [{}],
    "evaluation": [{}],
}


class Target:
    """One command, in the folder of a case.

    `prepare(home)` makes what every case starts from, `work(case)` is the command, in a child; `outcome(case)` is what
    must be the same after a fault; `inspect(case, expected)` raises AssertionError where something half-written counts
    as whole.
    """

    name: str
    elsewhere: str | None = None  # a folder that stands for another machine
    cost: int = 1  # how much longer than others' its cases take: it gets so many fewer

    def prepare(self, home: Path, features: Path) -> None:
        raise NotImplementedError

    def work(self, case: Path) -> None:
        raise NotImplementedError

    def outcome(self, case: Path) -> Outcome:
        raise NotImplementedError

    def inspect(self, case: Path, expected: Outcome) -> None:
        raise NotImplementedError


def targets() -> list[Target]:
    return [Trainer(), Scorer(), Sampler(), Collector(), Encoder(), LocalLauncher(), SlurmLauncher()]


def command(*arguments: object, **environment: str) -> None:
    """`ditbench`, in this process."""
    from ditbench import main

    with patch.object(sys, "argv", ["ditbench", *map(str, arguments)]), patch.dict(os.environ, environment):
        main()


# --- runs


class Trainer(Target):
    """A training job: configuration, training, kept weights."""

    name = "trainer"

    def prepare(self, home: Path, features: Path) -> None:
        shutil.copytree(features, home / "study" / "features")

    def work(self, case: Path) -> None:
        from bench.parallel import Execution
        from bench.run import train

        train(_begun(case), Execution())

    def outcome(self, case: Path) -> Outcome:
        return outcome_of_runs(case / "study")

    def inspect(self, case: Path, expected: Outcome) -> None:
        inspect_runs(case / "study", expected)


class Scorer(Trainer):
    """A scoring job of a trained run: samples of every kept step, and their scores."""

    name = "scorer"

    def prepare(self, home: Path, features: Path) -> None:
        super().prepare(home, features)
        assert forked.done(lambda: super(Scorer, self).work(home), home / "log") == 0

    def work(self, case: Path) -> None:
        from bench.parallel import Execution
        from bench.run import score

        score(_begun(case), case / "study", Execution())


def _begun(case: Path) -> Path:
    """The run's folder, as every submission makes it ready."""
    from bench.files.run_folder import clear_error, write_config

    recipe = tiny(evaluation={"batch_size": 16})
    folder = case / "study" / recipe.folder_name
    write_config(recipe, folder)
    clear_error(folder)
    return folder


def outcome_of_runs(study: Path) -> Outcome:
    """Rows without speeds, and the hashes of weights, states and samples, of every run."""
    found: Outcome = {}
    for folder in sorted(path.parent for path in study.glob("*/config.yaml")):
        for name in ("train.jsonl", "evals.jsonl"):
            rows = jsonl.read(folder / name)
            found[f"{folder.name}/{name}"] = [{k: v for k, v in row.items() if k not in SPEEDS} for row in rows]
        for part in ("checkpoints", "samples"):
            found |= {f"{folder.name}/{part}/{name}": value for name, value in hashes(folder / part).items()}
        # A kill between a state and the removal of the one before it leaves that, which nothing reads any more.
        for older in sorted(name for name in found if name.startswith(f"{folder.name}/checkpoints/state-"))[:-1]:
            del found[older]
    return found


def hashes(folder: Path) -> dict[str, str]:
    """Of all files in a folder that are not hidden."""
    files = (path for path in sorted(folder.glob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.name: hashlib.sha256(_content(path)).hexdigest() for path in files}


def _content(path: Path) -> bytes:
    """A file's; how samples were made without the commit, which git tells only the folder's owner.

    A shard's record without the times of the images, of which each case has a copy of its own.
    """
    content = path.read_bytes()
    if path.suffix == ".json" and b'"stamps"' in content:
        record = json.loads(content)
        record["sources"].pop("stamps")
        return json.dumps(record).encode()
    if path.suffix == ".json" and b'"commit"' in content:
        return json.dumps({k: v for k, v in json.loads(content).items() if k != "commit"}).encode()
    return content


def inspect_runs(study: Path, expected: Outcome) -> None:
    """Whatever a reader takes for whole is: rows are those of an undisturbed run, files can be read to their end."""
    import numpy as np

    from bench.files.checkpoint import load_tensors

    for folder in sorted(path for path in study.glob("*-*") if path.is_dir()):
        for name in ("train.jsonl", "evals.jsonl"):
            rows = {row["step"]: row for row in expected.get(f"{folder.name}/{name}", []) if isinstance(row, dict)}
            for line in jsonl.whole_lines(folder / name):
                row = {k: v for k, v in json.loads(line).items() if k not in SPEEDS}
                assert rows.get(row["step"]) == row, f"{folder.name}/{name}: step {row['step']}"
        for path in folder.rglob("[!.]*.safetensors"):
            load_tensors(path)
        for path in (folder / "samples").glob("[!.]*.npy"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert digest == expected.get(f"{folder.name}/samples/{path.name}"), path
        for path in folder.rglob("[!.]*.json"):
            json.loads(path.read_text())
        if (folder / "finished.json").exists():
            left = {path.name for path in (folder / "checkpoints").glob("ema-*")}
            assert len(left) == sum(f"{folder.name}/checkpoints/ema-" in name for name in expected), left
            assert np.all([np.load(path).size for path in (folder / "samples").glob("[!.]*.npy")])


# --- other commands


class Sampler(Target):
    """`ditbench sample` of a run's weights."""

    name = "sampler"

    def prepare(self, home: Path, features: Path) -> None:
        trainer = Trainer()
        trainer.prepare(home, features)
        assert forked.done(lambda: trainer.work(home), home / "log") == 0

    def work(self, case: Path) -> None:
        (run,) = (path.parent for path in (case / "study").glob("*/config.yaml"))
        command(
            "sample", run, "--out", case / "samples" / "samples.npy", "--num-samples", 100, "--sampling-steps", 5,
            "--batch-size", 10, "--clip-denoised",
        )  # fmt: skip

    def outcome(self, case: Path) -> Outcome:
        return {**hashes(case / "samples")}

    def inspect(self, case: Path, expected: Outcome) -> None:
        for name, digest in hashes(case / "samples").items():
            assert digest == expected[name], name


class Collector(Target):
    """`ditbench collect` into a folder that holds the tables of three of its four runs."""

    name = "collector"
    runs = 4

    def prepare(self, home: Path, features: Path) -> None:
        shutil.copytree(features, home / "study" / "features")
        for seed in range(self.runs):
            assert forked.done(lambda seed=seed: _finished(home / "study", seed), home / "log") == 0
            if seed == self.runs - 2:
                assert forked.done(lambda: self.work(home), home / "log") == 0

    def work(self, case: Path) -> None:
        command("collect", case / "study", "--out", case / "tables")

    def outcome(self, case: Path) -> Outcome:
        return {**hashes(case / "tables")}

    def inspect(self, case: Path, expected: Outcome) -> None:
        """The tables are the old, the new, or refused by who reads them."""
        from analysis.errors import ResultsError
        from analysis.results.tables import load

        try:
            loaded: Any = load(case / "tables")
        except ResultsError:
            return
        numbers = {len(loaded.runs), loaded.train["run"].nunique(), loaded.evals["run"].nunique(), len(loaded.samples)}
        assert numbers in ({self.runs - 1}, {self.runs}), f"tables of {sorted(numbers)} runs read as one set"


def _finished(study: Path, seed: int) -> None:
    from bench.files.run_folder import write_config
    from bench.run import run

    recipe = tiny(seed=seed)
    write_config(recipe, study / recipe.folder_name)
    run(study / recipe.folder_name, study)


class Encoder(Target):
    """`ditbench encode` of 14 photographs, in 7 shards."""

    name = "encoder"

    def prepare(self, home: Path, features: Path) -> None:
        from test_vae import save_vae  # pyright: ignore[reportMissingImports] - of tests/bench

        make_images(home / "photos")
        assert forked.done(lambda: save_vae(home / "tiny-vae"), home / "log") == 0

    def work(self, case: Path) -> None:
        command(
            "encode", case / "photos", "--vae", case / "tiny-vae", "--out", case / "latents", "--image-size", 32,
            "--shard-size", 2, "--batch-size", 2, "--workers", 0,
        )  # fmt: skip

    def outcome(self, case: Path) -> Outcome:
        return {**hashes(case / "latents")}

    def inspect(self, case: Path, expected: Outcome) -> None:
        """An index says that all is there, a shard's record that the shard is."""
        found = hashes(case / "latents")
        records = [name for name in found if name.startswith("shard-") and name.endswith(".json")]
        said = list(expected) if "index.json" in found else [*records, *(n.replace(".json", ".npy") for n in records)]
        for name in said:
            assert found.get(name) == expected[name], name


# --- launchers


class LocalLauncher(Target):
    """`ditbench sweep submit --cluster local`: four runs in jobs of this machine."""

    name = "launcher (local)"
    cost = 4

    def prepare(self, home: Path, features: Path) -> None:
        shutil.copytree(features, home / "runs" / "tiny" / "features")
        write_sweep(home, "tiny", FOUR, label=SIZE_AND_PATCH)

    def work(self, case: Path) -> None:
        with patch("submitit.LocalExecutor", ForkingExecutor):
            command("sweep", "submit", case / "tiny.yaml", "--cluster", "local", "--runs", case / "runs")

    def outcome(self, case: Path) -> Outcome:
        return outcome_of_runs(case / "runs" / "tiny")

    def inspect(self, case: Path, expected: Outcome) -> None:
        inspect_runs(case / "runs" / "tiny", expected)


class SlurmLauncher(Target):
    """`ditbench sweep submit` to a SLURM that queues: the rows are the jobs, and every run has one of each kind."""

    name = "launcher (SLURM)"
    elsewhere = "slurm"

    def prepare(self, home: Path, features: Path) -> None:
        make_commands(home / "slurm")
        write_sweep(home, "tiny", FOUR, label=SIZE_AND_PATCH)
        (home / "cluster.yaml").write_text(yaml.safe_dump(PROFILE))

    def work(self, case: Path) -> None:
        command(
            "sweep", "submit", case / "tiny.yaml", "--cluster", case / "cluster.yaml", "--runs", case / "runs",
            PATH=str(case / "slurm"),
        )  # fmt: skip

    def outcome(self, case: Path) -> Outcome:
        tasks = _tasks(case / "runs" / "tiny")
        known = {run for (_, _), runs in tasks.items() for _, run in runs}
        jobs = [run for job in queued(case / "slurm") for run in tasks.get(job, [("unknown", job[0])])]
        rows = [{"step": f"{kind} {run}"} for kind, run in sorted(jobs)]
        return {"jobs": [*rows], "runs": " ".join(sorted(known))}

    def inspect(self, case: Path, expected: Outcome) -> None:
        for path in (case / "runs" / "tiny").rglob("[!.]*.json"):
            json.loads(path.read_text())
        for path in (case / "runs" / "tiny").rglob("config.yaml"):
            assert yaml.safe_load(path.read_text())["id"] == path.parent.name.rpartition("-")[2]


def _tasks(study: Path) -> dict[tuple[str, int], list[tuple[str, str]]]:
    """(an array's name, task) -> (kind, run folder's name) of what it does, by all records of submissions."""
    found: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for path in study.glob("submissions/*/record.json"):
        for array in json.loads(path.read_text())["arrays"]:
            indices = array.get("indices") or range(len(array["tasks"]))
            for index, names in zip(indices, array["tasks"], strict=True):
                found[array["name"], index] = [(array["kind"], name) for name in names]
    return found
