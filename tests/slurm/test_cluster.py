"""The cluster does what the other tests of this folder take for granted."""

from __future__ import annotations

from pathlib import Path

from slurm_cluster import Cluster


def end_state(cluster: Cluster, job: str) -> str:
    """What accounting says, once the job is over."""

    def state() -> str | None:
        words = cluster.sacct("--jobs", job, "--allocations", "--noheader", "--parsable2", "--format=state").split()
        return words[0] if words and words[0] not in ("PENDING", "RUNNING", "REQUEUED") else None

    return cluster.wait_until(state, 20, f"job {job} has ended")


def restarts(cluster: Cluster, job: str) -> int:
    fields = dict(field.split("=", 1) for field in cluster.scontrol("show", "job", job).split() if "=" in field)
    return int(fields["Restarts"])


def test_a_job_sees_its_gpus_and_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = cluster.sbatch("--gres=gpu:2", f"--output={out}", "--wrap=echo $CUDA_VISIBLE_DEVICES; srun scontrol ping")
    assert end_state(cluster, job) == "COMPLETED"
    gpus, controller = out.read_text().splitlines()
    assert len(gpus.split(",")) == 2
    assert controller.endswith("is UP")


def test_a_preempted_job_gets_its_signal(cluster: Cluster, tmp_path: Path) -> None:
    started, signalled = tmp_path / "started", tmp_path / "signalled"
    step = tmp_path / "step.sh"
    step.write_text(f"""
trap 'touch {signalled}; scontrol requeue $SLURM_JOB_ID; exit' USR2
touch {started}
while :; do sleep 0.1; done
""")
    everything = ("--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=32")
    low = cluster.sbatch("--partition=low", "--signal=USR2@60", *everything, f"--wrap=srun --ntasks=1 bash {step}")
    cluster.wait_until(started.exists, 10, "the job of `low` has started")
    main = cluster.sbatch(*everything, "--wrap=true")
    cluster.wait_until(signalled.exists, 10, "the job of `low` has its signal")
    assert end_state(cluster, main) == "COMPLETED"
    assert restarts(cluster, low) == 1


def test_a_job_of_a_dead_node_is_requeued(cluster: Cluster, tmp_path: Path) -> None:
    started = tmp_path / "started"
    job = cluster.sbatch(f"--wrap=touch {started}; sleep 100")
    cluster.wait_until(started.exists, 10, "the job has started")
    cluster.kill_node(cluster.squeue("--noheader", "--jobs", job, "--format=%N").strip())
    cluster.wait_until(lambda: restarts(cluster, job), 20, "the job is requeued")
