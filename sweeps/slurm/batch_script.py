"""What sbatch is given: the options of a profile and the suite's own, and the lines around the job's processes."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path
from typing import Any

from bench.errors import InputError
from sweeps.cluster import ClusterProfile, Resources
from sweeps.environment import THREAD_VARIABLES
from sweeps.slurm.job import STOP_SIGNAL
from sweeps.slurm.planned import Planned

# In the names of logs, SLURM replaces %j and the like, and stops that at a backslash; a colon divides PYTHONPATH.
NOT_IN_PATHS = "%\\:"


def check_folder(study: Path) -> None:
    """Refuse a study's folder whose path SLURM, or a search path, would take for another.

    Raises:
        InputError: with the characters that do that.
    """
    path = str(study.resolve())
    special = sorted({c for c in path if c in NOT_IN_PATHS or not c.isprintable()})
    if special:
        raise InputError(
            f"{path!r}: SLURM's logs and Python's search path cannot be there because of "
            f"{' '.join(map(repr, special))}; give another folder with --runs"
        )


def sbatch_parameters(
    profile: ClusterProfile, resources: Resources, array: Planned, folder: Path, dependency: str | None
) -> dict[str, Any]:
    """Options of sbatch and lines of the batch script, as submitit names them. `folder`: of the submission."""
    code, python = shlex.quote(str(folder / "code")), shlex.quote(sys.executable)
    stop_signal = STOP_SIGNAL.name.removeprefix("SIG")
    request_as = profile.gpu.request_as if profile.gpu else None
    gpus = resources.gpus_per_node
    additional: dict[str, Any] = {
        "requeue" if profile.requeue else "no-requeue": True,
        # Not submitit's, which a variable of the caller's may have changed.
        "signal": f"{stop_signal}@{profile.signal_before_end_s}",
    }
    if dependency:
        # Else a job whose dependency can never be satisfied stays in the queue for ever.
        additional |= {"dependency": dependency, "kill-on-invalid-dep": "yes"}
    parameters = {
        "job_name": array.name,
        "partition": resources.partition or profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": profile.exclude,
        "time": profile.time_limit_minutes(resources),
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "gpus_per_node": (f"{request_as}:{gpus}" if request_as else gpus) if gpus else None,
        "cpus_per_task": resources.cpus_per_task,
        # Rounded up: to sbatch, 0 is all memory of the node.
        "mem": f"{math.ceil(resources.mem_gb * 1024)}M" if resources.mem_gb else None,
        "array_parallelism": array.group.max_parallel,
        "mail_user": profile.mail.user if profile.mail else None,
        "mail_type": ",".join(profile.mail.events) if profile.mail else None,
        "stderr_to_stdout": True,
        "wckey": None,
        "srun_args": [
            # What the lines of the script set, also where the script itself was given nothing (`export: NONE`).
            "--export=ALL",
            # Else ranks wait for ever for one that died.
            *(["--kill-on-bad-exit=1"] if resources.ranks > 1 else []),
        ],
        "additional_parameters": {**additional, **profile.sbatch_options},
        "setup": [
            # As in `sweeps.slurm.after`, which looks below it for what srun said.
            'echo "attempt ${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}'
            '${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}.${SLURM_RESTART_COUNT:-0}"',
            *profile.setup,
            f"cd {code}",
            f'export PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}"',  # modules of a cluster may need theirs
            f"export SUBMITIT_PREEMPT_SIGNAL={stop_signal}",
            " ".join(["export", *(f'{name}="${{SLURM_CPUS_PER_TASK:-1}}"' for name in THREAD_VARIABLES)]),
            'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun does not take it over since 22.05',
        ],
        "teardown": [
            "status=$?",
            'if [ "$status" -ne 0 ]; then',
            f"  {python} -m sweeps.slurm.after {shlex.quote(str(folder))} {array.name} "
            '"${SLURM_ARRAY_TASK_ID:-0}" "$status" "$SECONDS"',
            "  status=$?",
            "fi",
            'exit "$status"',
        ],
    }
    return {key: value for key, value in parameters.items() if value is not None or key == "wckey"}


def sbatch_script(profile: ClusterProfile, array: Planned, folder: Path, dependency: str | None) -> str:
    """What sbatch is given for an array of the submission in `folder`."""
    from submitit.slurm.slurm import _make_sbatch_string

    jobs = folder / "jobs"
    parameters = sbatch_parameters(profile, array.group.resources, array, folder, dependency)
    # submitit looks for a job's task under its id, which nobody knows yet.
    link = (
        f'ln -sf {shlex.quote(array.name)}-"${{SLURM_ARRAY_TASK_ID:-0}}".pkl {shlex.quote(str(jobs))}/'
        '"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}_submitted.pkl"'
    )
    parameters["setup"] = [link, *parameters["setup"]]
    if (size := len(array.group.tasks)) > 1:
        parameters["map_count"] = size
        if array.indices:
            at_once = f"{','.join(map(str, array.indices))}%{min(size, array.group.max_parallel)}"
            parameters["additional_parameters"] = {**parameters["additional_parameters"], "array": at_once}
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(jobs))}"
    return _make_sbatch_string(command=command, folder=jobs, **parameters)
