"""A cluster that takes jobs and lets them wait: sbatch and squeue obey variables as SLURM's do, and write down all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

# A real squeue shows nothing of a user that it does not know, complains, and succeeds; these variables leave jobs out.
SQUEUE = """#!/bin/sh
set | /bin/grep -q '^SQUEUE_' && exit 0
case "$*" in
  *--user={uid}[\\ ,]*|*--name=*) [ -f {folder}/queue ] && /bin/cat {folder}/queue; exit 0 ;;
  *) echo 'squeue: error: Invalid user' >&2 ;;
esac
"""
SBATCH = """#!/bin/sh
number=$(( $(/bin/cat {folder}/number 2>/dev/null || echo 700) + 1 ))
echo $number > {folder}/number
for script; do :; done
/bin/cp "$script" {folder}/$number.sh
/usr/bin/env -0 > {folder}/$number.env
name=$(/bin/sed -n 's/^#SBATCH --job-name=//p' "$script")
if /bin/grep -q '^#SBATCH --array' "$script"; then
  for index in 0 1 2 3; do echo "${{number}}_$index|PENDING|$name||None" >> {folder}/queue; done
else
  echo "$number|PENDING|$name||None" >> {folder}/queue
fi
echo "Submitted batch job $number"
"""


@dataclass(frozen=True)
class Submitted:
    script: str
    environment: dict[str, str]


class FakeCluster:
    """Its commands come before others on `path`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.says("squeue", SQUEUE.format(folder=folder, uid=os.getuid()))
        self.says("sbatch", SBATCH.format(folder=folder))
        self.says("scontrol", "#!/bin/sh\necho 'MaxArraySize            = 1001'\n")
        self.says("sacct", "#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2; exit 1\n")
        for command in ("srun", "scancel"):
            self.says(command, "#!/bin/sh\n")

    @property
    def path(self) -> str:
        return f"{self.folder}:{os.environ['PATH']}"

    def says(self, command: str, script: str) -> None:
        (self.folder / command).write_text(script)
        (self.folder / command).chmod(0o755)

    def submitted(self) -> list[Submitted]:
        """What sbatch was given, in order."""
        return [
            Submitted(script.read_text(), _variables(script.with_suffix(".env")))
            for script in sorted(self.folder.glob("*.sh"))
        ]


def _variables(path: Path) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in path.read_text().split("\0") if entry)
    return {name: value for name, _, value in pairs}
