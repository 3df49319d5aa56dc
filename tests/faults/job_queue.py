"""A SLURM that queues jobs and never starts one: sbatch, squeue and scancel on files, for launchers that are killed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sacct", "srun")
# Python without its site packages, which starts in some 15 ms.
SCRIPT = (
    f"#!{Path(sys.executable).resolve()} -ISs\n"
    + '''
import fcntl, os, re, sys

jobs = os.path.join(os.path.dirname(os.path.abspath(__file__)), "jobs")
command = os.path.basename(__file__)


def known():
    """Id -> (name, indices of an array or None)."""
    found = {}
    for name in os.listdir(jobs):
        if name.isdigit():
            with open(os.path.join(jobs, name)) as file:
                lines = file.read().split("\\n")
            found[name] = (lines[0], [int(index) for index in lines[1].split()] if lines[1] else None)
    return found


def indices(text):
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


if command == "sbatch":
    script = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    text = open(script[0]).read() if script else sys.stdin.read()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)[= ](.*)$", text, re.M))
    name = options["job-name"].strip("'\\"")
    array = " ".join(map(str, indices(options["array"]))) if "array" in options else ""
    with open(os.path.join(jobs, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        number = str(max([int(n) for n in os.listdir(jobs) if n.isdigit()], default=100) + 1)
        with open(os.path.join(jobs, "." + number), "w") as file:
            file.write(name + "\\n" + array + "\\n")
        os.rename(os.path.join(jobs, "." + number), os.path.join(jobs, number))
    print("Submitted batch job " + number)
elif command == "squeue":
    form = next((a.partition("=")[2] for a in sys.argv if a.startswith("--format=")), "%i|%T|%j|%N|%r")
    names = [a.partition("=")[2].split(",") for a in sys.argv if a.startswith("--name=")]
    for number, (name, array) in sorted(known().items()):
        if names and name not in names[0]:
            continue
        for job in [number] if array is None else [number + "_" + str(index) for index in array]:
            facts = {"i": job, "T": "PENDING", "j": name, "N": "", "r": "Priority", "u": "root", "U": str(os.getuid())}
            facts.update(F=number, K=job.partition("_")[2] or "N/A")
            print(re.sub(r"%[.]?[0-9]*([a-zA-Z])", lambda match: facts.get(match[1], ""), form))
elif command == "scancel":
    for argument in sys.argv[1:]:
        for number, (name, _) in known().items():
            if argument.partition("_")[0] == number or argument in ("--name=" + name, "--jobname=" + name):
                os.unlink(os.path.join(jobs, number))
elif command == "scontrol" and "config" in sys.argv:
    print("MaxArraySize            = 1001")
'''
)


def make_commands(folder: Path) -> None:
    """Commands in `folder`, for the PATH, and their empty queue."""
    (folder / "jobs").mkdir(parents=True)
    for name in COMMANDS:
        (folder / name).write_text(SCRIPT)
        (folder / name).chmod(0o755)
    for name in ("git", "sh", "env"):  # all else that is on this PATH
        if found := shutil.which(name):
            (folder / name).symlink_to(found)


def queued(folder: Path) -> list[tuple[str, int]]:
    """Every job that is queued: its array's name, and which task it is."""
    jobs = []
    for path in (folder / "jobs").glob("[0-9]*"):
        name, array = path.read_text().split("\n")[:2]
        jobs += [(name, int(index)) for index in array.split() or ["0"]]
    return jobs
