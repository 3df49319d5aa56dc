"""Sweeps on a real SLURM: to the end, through everything that goes wrong, with the results of an undisturbed run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from runs import last_step
from slurm_cluster import Cluster
from studies import (
    all_finished,
    ditbench,
    job_ids,
    results,
    starts,
    submit,
    train_rows,
    undisturbed,
    write_profile,
)
from sweep_files import folders, write_sweep

from bench.files import jsonl
from bench.files.checkpoint import load_tensors
from bench.files.run_folder import write_config
from sweeps.expand import load_sweep

ROOT = Path(__file__).parents[2]


def test_an_array_of_12_runs_to_its_scores(cluster: Cluster, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "twelve", {"seed": list(range(6)), "model.patch_size": [4, 8]})
    profile = write_profile(tmp_path, training=[{"gpus_per_node": 1, "mem_gb": 2, "runs_per_job": 2}])
    said = submit(path, profile, tmp_path)
    # Two calls of sbatch: an array of training jobs, an array of scoring jobs that wait for them task by task.
    assert said.count("an array of 6, for 12 runs") == 2
    assert "nothing to submit: of 12 runs 0 finished, 12 queued or running" in submit(path, profile, tmp_path)
    cluster.wait_until(lambda: all_finished(path, tmp_path), 240, "12 runs are scored")
    reference = undisturbed(path, tmp_path / "reference")
    assert {label: results(folder) for label, folder in folders(path, tmp_path).items()} == reference
    assert all(len(starts(folder)) == 1 for folder in folders(path, tmp_path).values())
    assert "nothing to submit: of 12 runs 12 finished" in submit(path, profile, tmp_path)


def test_disturbed_runs_end_like_undisturbed_ones(cluster: Cluster, tmp_path: Path) -> None:
    """Every run of an array meets something else, most of them in the middle of training."""
    fates = ["requeued", "preempted", "node-lost", "cancelled", "killed", "timed-out"]
    fate = {name: {"seed": seed, "train.steps": 3000} for seed, name in enumerate(fates)}
    path = write_sweep(tmp_path, "disturbed", {"fate": fate}, {"save_every": 1000, "log_every": 50})
    reference = undisturbed(path, tmp_path / "reference")
    # Written out at every step, which changes no result, they are slow enough to be disturbed.
    write_sweep(tmp_path, "disturbed", {"fate": fate}, {"save_every": 1, "log_every": 1})
    each = {"gpus_per_node": 1, "mem_gb": 2}
    profile = write_profile(
        tmp_path,
        signal_before_end_s=40,
        training=[
            {**each, "models": ["timed-out"], "time_limit": "00:02:00"},
            {**each, "models": ["node-lost"], "mem_gb": 3},
            each,
        ],
    )
    submit(path, profile, tmp_path)
    study, runs = tmp_path / "disturbed", folders(path, tmp_path)
    ids = {label: job_ids(study)[folder.name] for label, folder in runs.items()}

    def node(label: str) -> str:
        return cluster.squeue("--noheader", f"--job={ids[label]}", "--format=%N").strip()

    waiting = [fate for fate in fates if fate != "timed-out"]
    while waiting:
        label = cluster.wait_until(lambda: next((x for x in waiting if working(runs[x])), None), 120, "all train")
        freeze(cluster, runs[label])
        waiting.remove(label)
    for _ in range(2):  # SLURM wakes a halted process with its notice that the limit is near
        freeze(cluster, runs["timed-out"])
        begun = len(starts(runs["timed-out"]))
        cluster.wait_until(
            lambda begun=begun: len(starts(runs["timed-out"])) > begun, 180, "it goes on after the limit"
        )
    cluster.scontrol("requeue", ids["requeued"])
    subprocess.run(["scancel", ids["cancelled"]], check=True)
    # The job's process, not its batch script: as if the system had run out of memory.
    os.kill(starts(runs["killed"])[-1]["pid"], signal.SIGKILL)
    # A job of a better partition needs the node, and all others on it go as well.
    before = len(starts(runs["preempted"]))
    cluster.sbatch("-p", "main", "-w", node("preempted"), "--exclusive", "--wrap", "sleep 5")
    cluster.wait_until(lambda: len(starts(runs["preempted"])) > before, 120, "it goes on after preemption")
    # The whole machine of one run, with whatever else is on it.
    freeze(cluster, runs["node-lost"])
    lost = node("node-lost")
    cluster.kill_node(lost)
    cluster.wait_until(lambda: node("node-lost") not in ("", lost), 60, "the run goes on elsewhere")
    cluster.start_node(lost)
    cluster.wait_until(lambda: not cluster.squeue("--noheader", f"--job={ids['cancelled']}"), 60, "it is cancelled")
    assert "1 runs to train" in submit(path, profile, tmp_path)
    cluster.wait_until(lambda: all_finished(path, tmp_path), 420, "all runs are scored")
    for label, folder in runs.items():
        assert results(folder) == reference[label], label
        assert [row["step"] for row in train_rows(folder)] == list(range(1, len(train_rows(folder)) + 1)), label
        assert len(starts(folder)) >= 2, label
    assert len(starts(runs["timed-out"])) >= 3
    assert "SIGKILL" in jsonl.read(runs["killed"] / "failures.jsonl")[0]["error"]
    # A signal saves the very step it comes at: nothing is trained twice.
    stopped = [line for line in (runs["timed-out"] / "log.txt").read_text().splitlines() if "saved at step" in line]
    assert len(stopped) >= 2


def working(folder: Path) -> int | None:
    """The process of a run that is in the middle of training, if it is."""
    begun = starts(folder)
    is_alive = bool(begun) and Path(f"/proc/{begun[-1]['pid']}").exists()
    return begun[-1]["pid"] if is_alive and last_step(folder) > begun[-1]["resumed_from_step"] + 20 else None


def freeze(cluster: Cluster, folder: Path) -> int:
    """Halt a run in the middle of training, so that it is there however fast the machine is; returns its process."""
    pid = cluster.wait_until(lambda: working(folder), 120, f"{folder.name} is training")
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_two_nodes_with_two_ranks_each_train_like_one_process(cluster: Cluster, tmp_path: Path) -> None:
    """Equal up to the order of sums: the tolerance is what other orders of the same sums do to a single process."""
    path = write_sweep(tmp_path, "ranks", {"seed": [0]}, {"steps": 40, "checkpoint_steps": [20]})
    reference = next(iter(_final_weights(path, tmp_path / "reference", micro_batches=1).values()))
    reordered = [
        next(iter(_final_weights(path, tmp_path / f"split-{pieces}", micro_batches=pieces).values()))
        for pieces in (2, 4, 8)
    ]
    spread = max(_distance(other, reference) for other in reordered)
    assert 0 < spread < 1e-4

    profile = write_profile(tmp_path, training=[{"nodes": 2, "gpus_per_node": 2, "mem_gb": 4}])
    submit(path, profile, tmp_path)
    cluster.wait_until(lambda: all_finished(path, tmp_path), 120, "four ranks are done")
    folder = next(iter(folders(path, tmp_path).values()))
    (start,) = starts(folder)
    assert (start["world_size"], start["node"]) == (4, "n[1-2]")
    assert _distance(_weights(folder), reference) <= 4 * spread
    # Sampling is split over ranks without any sum: the same weights give the same bytes.
    assert len(jsonl.read(folder / "evals.jsonl")) == 2


def _final_weights(path: Path, study: Path, micro_batches: int) -> dict[str, Any]:
    """Label -> last weights, trained here with batches split into so many pieces."""
    from bench.parallel import Execution
    from bench.run import train

    result = {}
    for recipe in load_sweep(path).recipes:
        folder = study / recipe.folder_name
        write_config(recipe, folder)
        (folder / "micro_batches.json").write_text(json.dumps({"micro_batches": micro_batches}))
        train(folder, Execution())
        result[recipe.label] = _weights(folder)
    return result


def _weights(folder: Path) -> dict[str, Any]:
    return load_tensors(max((folder / "checkpoints").glob("ema-*")))[0]


def _distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of any weight."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_ranks_stop_together_and_go_on(cluster: Cluster, tmp_path: Path) -> None:
    """A requeued run of several ranks equals one that was not stopped, bit for bit: the same ranks, the same sums."""
    first = write_sweep(tmp_path, "calm", {"seed": [0]}, {"steps": 1500, "checkpoint_steps": [], "log_every": 10})
    second = write_sweep(tmp_path, "stopped", {"seed": [0]}, {"steps": 1500, "checkpoint_steps": [], "log_every": 10})
    profile = write_profile(tmp_path, training=[{"nodes": 2, "gpus_per_node": 1, "mem_gb": 4}])
    for path in (first, second):
        submit(path, profile, tmp_path)
    calm, stopped = (next(iter(folders(path, tmp_path).values())) for path in (first, second))
    cluster.wait_until(lambda: last_step(stopped) > 100, 120, "two ranks are training")
    (job,) = job_ids(tmp_path / "stopped").values()
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    cluster.wait_until(lambda: all_finished(first, tmp_path) and all_finished(second, tmp_path), 180, "both are done")
    assert [start["world_size"] for start in starts(stopped)] == [2, 2]
    assert starts(stopped)[1]["resumed_from_step"] > 100
    assert results(stopped) == results(calm)
    assert train_rows(stopped) == train_rows(calm)


def test_a_run_that_always_fails_is_tried_three_times_and_sinks_nothing(cluster: Cluster, tmp_path: Path) -> None:
    rates = {"good": {"train.learning_rate": 1e-3}, "bad": {"train.learning_rate": 1e18}}
    path = write_sweep(tmp_path, "failing", {"rate": rates})
    # One job for both: the bad run must not keep the good one from being scored.
    each = {"gpus_per_node": 1, "mem_gb": 2, "runs_per_job": 2}
    profile = write_profile(tmp_path, training=[each], evaluation=[each])
    submit(path, profile, tmp_path)
    runs = folders(path, tmp_path)
    cluster.wait_until(lambda: (runs["good"] / "finished.json").exists(), 180, "the good run is scored")
    failures = jsonl.read(runs["bad"] / "failures.jsonl")
    assert len(failures) == 3
    assert len({row["attempt"] for row in failures}) == 3
    assert "not finite at step" in json.loads((runs["bad"] / "error.json").read_text())["error"]
    assert len(starts(runs["good"])) == 1
    assert "not finite at step" in ditbench("why", path, "bad", "--runs", tmp_path).stdout
    assert "1 runs to train, 0 to score; left alone: 1 finished" in submit(path, profile, tmp_path)


def test_scoring_begins_while_training_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    train = {"steps": 1500, "checkpoint_steps": [20, 40], "save_every": 1, "log_every": 1}
    path = write_sweep(tmp_path, "early", {"seed": [0]}, train)
    submit(path, write_profile(tmp_path), tmp_path, "--evaluate", "as-ready")
    (folder,) = folders(path, tmp_path).values()
    cluster.wait_until(lambda: last_step(folder) > 40, 120, "the first checkpoints are there")
    pid = freeze(cluster, folder)
    cluster.wait_until(lambda: jsonl.read(folder / "evals.jsonl"), 120, "the first checkpoint is scored")
    assert last_step(folder) < 1500
    os.kill(pid, signal.SIGCONT)
    assert "1 queued or running" in submit(path, write_profile(tmp_path), tmp_path)
    cluster.wait_until(lambda: all_finished(path, tmp_path), 180, "all are scored")
    assert [row["step"] for row in jsonl.read(folder / "evals.jsonl")] == [20, 40, 1500]
    assert len(starts(folder)) == 1
    reference = undisturbed(path, tmp_path / "reference")
    assert results(folder) == next(iter(reference.values()))


def test_a_failed_evaluation_is_repeated_without_training(cluster: Cluster, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "unscored", {"seed": [0]})
    (tmp_path / "unscored").mkdir()
    (tmp_path / "unscored" / "features").write_text("in the way")
    submit(path, write_profile(tmp_path, max_failures=2), tmp_path)
    (folder,) = folders(path, tmp_path).values()
    cluster.wait_until(lambda: (folder / "scoring-error.json").exists(), 120, "scoring is given up")
    cluster.wait_until(lambda: not cluster.squeue("--noheader").strip(), 60, "its job has left the queue")
    assert len(jsonl.read(folder / "scoring-failures.jsonl")) == 2
    assert not (folder / "error.json").exists()
    (tmp_path / "unscored" / "features").unlink()
    assert "0 runs to train, 1 to score" in submit(path, write_profile(tmp_path), tmp_path)
    cluster.wait_until(lambda: all_finished(path, tmp_path), 60, "it is scored")
    assert len(starts(folder)) == 1


def test_training_jobs_can_score(cluster: Cluster, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "inline", {"seed": [0, 1]})
    each = {"nodes": 1, "gpus_per_node": 2, "mem_gb": 2, "runs_per_job": 2}
    profile = write_profile(tmp_path, evaluate="inline", training=[each], evaluation=None)
    assert submit(path, profile, tmp_path).count("one job, for 2 runs") == 1
    cluster.wait_until(lambda: all_finished(path, tmp_path), 120, "both are scored by their training job")


def test_queued_jobs_run_the_code_that_was_submitted(cluster: Cluster, tmp_path: Path) -> None:
    """The checkout breaks while a job waits."""
    checkout = tmp_path / "checkout"
    for name in ("models", "bench", "sweeps", "analysis", "results/published"):
        shutil.copytree(ROOT / name, checkout / name)
    shutil.copy(ROOT / "ditbench.py", checkout)
    path = write_sweep(tmp_path, "frozen", {"seed": [0]})
    profile = write_profile(tmp_path, training=[{"gpus_per_node": 1, "mem_gb": 2}])
    cluster.scontrol("update", "partitionname=low", "state=down")
    try:
        code = "from ditbench import main; main()"
        arguments = ["sweep", "submit", path, "--cluster", profile, "--runs", tmp_path]
        command = [sys.executable, "-c", code, *map(str, arguments)]
        subprocess.run(command, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True)
        for file in checkout.rglob("*.py"):
            file.write_text("raise RuntimeError('changed after submission')\n")
    finally:
        cluster.scontrol("update", "partitionname=low", "state=up")
    cluster.wait_until(lambda: all_finished(path, tmp_path), 120, "it ran from its copy")


def test_what_slurm_refuses_is_said_in_its_words(cluster: Cluster, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "refused", {"seed": [0]})
    for changes, said in (
        ({"partition": "nosuch"}, "invalid partition specified: nosuch"),
        ({"constraint": "nosuch"}, "Invalid feature specification"),
        ({"training": [{"gpus_per_node": 16}]}, "Requested node configuration is not available"),
        ({"evaluation": [{"gpus_per_node": 1, "partition": "nosuch"}]}, "SLURM refused the scoring array"),
    ):
        done = ditbench(
            "submit", path, "--cluster", write_profile(tmp_path, **changes), "--runs", tmp_path, check=False
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
    assert not cluster.squeue("--noheader").strip()  # the training array went too
    done = ditbench("submit", path, "--cluster", "slurm-test", "--runs", tmp_path, check=False, PATH="/nowhere")
    assert (done.returncode, "sbatch: not found on the PATH" in done.stderr) == (2, True)


def test_without_accounting_status_says_so_and_works(cluster: Cluster, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "unaccounted", {"seed": [0]}, {"steps": 50_000, "save_every": 1, "log_every": 1})
    submit(path, write_profile(tmp_path), tmp_path)
    (folder,) = folders(path, tmp_path).values()
    cluster.wait_until(lambda: last_step(folder) > 10, 120, "it is training")
    without = tmp_path / "bin"
    without.mkdir()
    for command in ("squeue", "scontrol"):
        (without / command).symlink_to(str(shutil.which(command)))
    status = ditbench("status", path, "--runs", tmp_path, "--json")
    assert [row["state"] for row in json.loads(status.stdout)] == ["running"]
    bare = ditbench("status", path, "--runs", tmp_path, PATH=str(without))
    assert "running" in bare.stdout
    assert "sacct" in bare.stdout + bare.stderr
    said = ditbench("cancel", path, "--runs", tmp_path)
    assert folder.name in said.stdout or "cancel" in said.stdout
    cluster.wait_until(lambda: not cluster.squeue("--noheader").strip(), 60, "it is cancelled")
    assert [r["state"] for r in json.loads(ditbench("status", path, "--runs", tmp_path, "--json").stdout)] == [
        "stopped"
    ]


def test_the_cluster_cancels_instead_of_requeueing(cluster: Cluster, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, "cancelled", {"seed": [0]}, {"steps": 2500, "save_every": 1, "log_every": 1})
    profile = write_profile(tmp_path, partition="cancel", requeue=False)
    submit(path, profile, tmp_path)
    (folder,) = folders(path, tmp_path).values()
    cluster.wait_until(lambda: last_step(folder) > 20, 120, "it is training")
    node = cluster.squeue("--noheader", "--format=%N", "--states=RUNNING").strip()
    cluster.sbatch("-p", "main", "-w", node, "--exclusive", "--wrap", "true")
    cluster.wait_until(lambda: not cluster.squeue("--noheader").strip(), 90, "it is gone")
    assert not (folder / "finished.json").exists()
    submit(path, profile, tmp_path)
    cluster.wait_until(lambda: all_finished(path, tmp_path), 300, "the same command continued it")
    assert [start["resumed_from_step"] > 20 for start in starts(folder)] == [False, True]
    assert results(folder) == next(iter(undisturbed(path, tmp_path / "reference").values()))
