"""What of the caller's environment reaches jobs, and the commands of SLURM: no options, and nobody's identity.

SLURM's commands take options from variables (SBATCH_PARTITION, SQUEUE_STATES), and a job inherits what sbatch saw. Who
submits may sit in a job themselves, of SLURM or of torchrun: the new job must not take the ranks, ports, devices or
array index of that one for its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Numerical libraries read these when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# Where the controller is, and a token that some clusters want: they choose nothing.
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")

# Options of SLURM's commands, and what SLURM, MPI, torchrun and submitit tell the processes of a job.
PREFIXES = (
    "SLURM_", "SLURMD_", "_SLURM_", "SPANK_", "SBATCH_", "SALLOC_", "SRUN_", "SQUEUE_", "SACCT_", "SCANCEL_",
    "SCONTROL_", "SUBMITIT_", "PMI_", "PMIX_", "OMPI_COMM_WORLD_", "MPI_LOCAL", "MV2_COMM_WORLD_", "TORCHELASTIC_",
)  # fmt: skip
NAMES = {
    "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK",
    "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE", "NODE_RANK",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK",
    "_TEST_CLUSTER_",  # submitit would take it for the name of the executor
}  # fmt: skip


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that jobs and SLURM's commands may see."""
    return {
        name: value
        for name, value in environment.items()
        if name in KEPT or not (name in NAMES or name.startswith(PREFIXES))
    }


@contextmanager
def cleaned() -> Iterator[None]:
    """Within, or in a function that it decorates, this process has no others: submitit hands on what it finds."""
    before = dict(os.environ)
    _become(clean(before))
    try:
        yield
    finally:
        _become(before)


def _become(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
