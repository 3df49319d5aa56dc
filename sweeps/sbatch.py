"""The free `sbatch:` section of a cluster profile: any option of sbatch but those that the suite gives itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator


def _checked_type(value: Any) -> Any:
    if not isinstance(value, (str, int)):
        raise ValueError(f"{value!r}; accepted: text, a whole number, true or false")
    return value


Value = Annotated[str | int | bool, BeforeValidator(_checked_type)]

_RANKS = "use nodes, gpus_per_node and tasks_per_node of training and evaluation"
_LOGS = "`sweep logs` and `sweep why` look for logs where the suite has SLURM put them"
_ANSWER = "the suite reads what sbatch answers and goes on from there"

# Option -> why it is not accepted, or the profile's own key for it.
TAKEN = {
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node", "tasks-per-node", "ntasks-per-gpu"), _RANKS),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "tres-per-task"), _RANKS),
    **dict.fromkeys(("output", "error", "open-mode"), _LOGS),
    **dict.fromkeys(("parsable", "quiet", "verbose", "wait", "test-only", "help", "usage", "version"), _ANSWER),
    **{name: f"use the key {name}" for name in ("partition", "account", "qos", "constraint", "exclude")},
    **dict.fromkeys(("requeue", "no-requeue"), "use the key requeue"),
    **dict.fromkeys(("mail-user", "mail-type"), "use the key mail"),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "use cpus_per_task of training and evaluation"),
    "time": "use the key time_limit",
    "mem": "use mem_gb of training and evaluation",
    "signal": "use the key signal_before_end_s",
    "array": "runs are the tasks of arrays; use max_parallel for how many run at once",
    **dict.fromkeys(("dependency", "kill-on-invalid-dep"), "scoring waits for training by it; use the key evaluate"),
    "job-name": "jobs are recognised by the name that the suite gives them",
    **dict.fromkeys(("chdir", "workdir"), "jobs run in their copy of the code; use `cd` in setup for what setup does"),
    **dict.fromkeys(("clusters", "cluster-constraint"), "submit where that cluster's commands are"),
    **dict.fromkeys(("uid", "gid"), "jobs of others are not seen; submit as that user"),
    "wrap": "the suite writes the script; use the key setup",
}  # fmt: skip


def options_of(section: Mapping[str, Value]) -> dict[str, Value]:
    """Options by their names in sbatch; those that are false are left out, those that are true take no value."""
    return {name.replace("_", "-"): value for name, value in section.items() if value is not False}


def check_section(section: Mapping[str, Value]) -> None:
    """Refuse what cannot be in the section.

    Raises:
        ValueError: `sbatch.NAME: why, and what to use instead`.
    """
    for given, value in section.items():
        name = given.replace("_", "-")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]+", name):
            raise ValueError(f"sbatch.{given}: accepted: the long name of an option, without dashes before it")
        # sbatch takes any beginning of an option's name for the option.
        taken = name if name in TAKEN else next((option for option in TAKEN if option.startswith(name)), None)
        if taken:
            short = "" if taken == name else f"stands for {taken}: "
            raise ValueError(f"sbatch.{given}: not accepted: {short}{TAKEN[taken]}")
        if name == "gres" and "gpu" in str(value):
            raise ValueError(f"sbatch.{given}: {value}: not accepted for GPUs: {_RANKS}")
        if name == "export" and isinstance(value, bool):
            raise ValueError(f"sbatch.{given}: {value}; accepted: 'NONE', 'ALL' or names of variables")
        check_text(f"sbatch.{given}", str(value))


def check_text(key: str, value: str) -> None:
    """Refuse a value that sbatch would not read as it is written; errors as `check_section`."""
    if not value or "\\" in value or not value.isprintable():
        raise ValueError(f"{key}: {value!r}; accepted: text of one line, not empty and without backslashes")
