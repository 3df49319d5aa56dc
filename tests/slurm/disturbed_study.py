"""The digits study on the test cluster, disturbed in every way while it runs, against the undisturbed one.

    python tests/slurm/disturbed_study.py

Needs root and what `tests/slurm/cluster.sh install` installs. Submits the digits study with the profile slurm-test,
whose time limit is too short for the largest models, and meanwhile requeues, preempts, cancels and kills jobs and takes
the power from a node. At the end it compares every score, bit for bit, with seed 0 of results/digits, and writes what
happened to results/slurm/disturbed-digits.csv.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from slurm_cluster import SCRIPT, Cluster

sys.path.append(str(Path(__file__).parents[1] / "support"))  # studies.py uses the recipes of the tests
from runs import last_step
from studies import all_finished, job_ids, starts
from sweep_files import DITBENCH, folders

from bench.files import jsonl

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "sweeps" / "studies" / "digits.yaml"
OUT = ROOT / "results" / "slurm" / "disturbed-digits.csv"
SECONDS = 3600


def main() -> None:
    """Run the study, disturb it, compare and write."""
    up = subprocess.run([SCRIPT, "up"], capture_output=True, text=True, check=True)
    conf = up.stdout.strip().removeprefix("export SLURM_CONF=")
    os.environ["SLURM_CONF"] = conf
    cluster = Cluster(Path(conf))
    cluster.reset()
    runs = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    print(f"runs in {runs}", flush=True)
    submit(runs)
    by_label = folders(SWEEP, runs)
    disturbances = disturb(cluster, runs, by_label)
    cluster.wait_until(lambda: all_finished(SWEEP, runs), SECONDS, "all runs are scored")
    print(submit(runs), flush=True)
    rows = [outcome(label, folder, disturbances) for label, folder in by_label.items()]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(OUT.read_text(encoding="utf-8"))
    cluster.reset()
    subprocess.run([SCRIPT, "down"], check=True)


def submit(runs: Path) -> str:
    command = [DITBENCH, "sweep", "submit", SWEEP, "--cluster", "slurm-test", "--runs", runs]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def disturb(cluster: Cluster, runs: Path, by_label: dict[str, Path]) -> dict[str, list[str]]:
    """One disturbance after the other, each to a run that is training then; returns what was done to which run."""
    study, done = runs / "digits", {label: [] for label in by_label}

    def training(beyond: int = 25) -> dict[str, str]:
        """Label -> job id of the runs that are training, some steps after their last start."""
        ids = job_ids(study)
        running = cluster.squeue("--noheader", "--array", "--states=RUNNING", "--format=%i").split()
        result = {}
        for label, folder in by_label.items():
            job = ids.get(folder.name)
            if job in running and last_step(folder) < 600:
                begun = starts(folder)
                is_alive = bool(begun) and Path(f"/proc/{begun[-1]['pid']}").exists()  # not an earlier start
                if is_alive and last_step(folder) >= begun[-1]["resumed_from_step"] + beyond:
                    result[label] = str(job)
        return result

    def node_of(job: str) -> str:
        return cluster.squeue("--noheader", f"--job={job}", "--format=%N").strip()

    def each(what: str, action: Callable[[str, str], object]) -> None:
        label, job = next(iter(cluster.wait_until(training, SECONDS, "some run is training").items()))
        step = last_step(by_label[label])
        action(label, job)
        done[label].append(f"{what} after step {step}")
        print(f"{time.strftime('%X')} {label} ({job}): {done[label][-1]}", flush=True)

    def preempt(label: str, job: str) -> None:
        node = node_of(job)
        others = [other for other, its in training(0).items() if other != label and node_of(its) == node]
        cluster.sbatch("-p", "main", "-w", node, "--exclusive", "--wrap", "sleep 5")
        for other in others:
            done[other].append("preempted too")
        cluster.wait_until(lambda: node_of(job) != node, 90, "the job is preempted")

    def lose_power(label: str, job: str) -> None:
        node = node_of(job)
        for other, its in training(0).items():
            if other != label and node_of(its) == node:
                done[other].append("on the same node")
        cluster.kill_node(node)
        cluster.wait_until(lambda: node_of(job) not in ("", node), 300, "the run goes on elsewhere")
        cluster.start_node(node)

    each("requeued", lambda label, job: cluster.scontrol("requeue", job))
    each("preempted", preempt)
    each("node lost", lose_power)
    each("process killed", lambda label, job: os.kill(starts(by_label[label])[-1]["pid"], signal.SIGKILL))
    each("cancelled, submitted again", lambda label, job: cancel_and_submit(cluster, job, runs))
    return done


def cancel_and_submit(cluster: Cluster, job: str, runs: Path) -> None:
    subprocess.run(["scancel", job], check=True)
    cluster.wait_until(
        lambda: job not in cluster.squeue("--noheader", "--array", "--format=%i").split(), 90, "it ended"
    )
    submit(runs)


def outcome(label: str, folder: Path, disturbances: dict[str, list[str]]) -> dict[str, object]:
    """What a run went through, and how its scores compare with the committed ones."""
    committed = pd.read_csv(ROOT / "results" / "digits" / "evals.csv")
    committed = committed[(committed["label"] == label) & (committed["seed"] == 0)].set_index("step")
    scores = ("fid", "fid_percent", "kid", "kid_std", "inception_score", "precision", "recall")
    rows = jsonl.read(folder / "evals.jsonl")
    equal = sum(row[name] == committed.loc[row["step"], name] for row in rows for name in scores)
    log = (folder / "log.txt").read_text(encoding="utf-8")
    steps = [row["step"] for row in jsonl.read(folder / "train.jsonl")]
    return {
        "label": label,
        "starts": len(starts(folder)),
        "stops_on_signal": log.count("stopped on request"),
        "failed_attempts": len(jsonl.read(folder / "failures.jsonl")),
        "disturbances": "; ".join(disturbances[label]),
        "train_rows": len(steps),
        "rows_missing_or_twice": len(steps) - len(set(steps)) + len(set(range(25, 601, 25)) - set(steps)),
        "scores": len(rows) * len(scores),
        "scores_equal_bit_for_bit": equal,
    }


if __name__ == "__main__":
    main()
