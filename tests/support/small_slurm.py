"""A SLURM in one file: it takes jobs, lists them and cancels them, and can be told to misbehave. Nothing is run."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol")

# What every command runs, named after itself. Faults, one a call: "lost" does the work, complains of a time-out and
# fails; "hangs" does it, "stuck" does not, and neither ends; "fails" does it and fails without a word; any other text
# is what the command says when it refuses.
PROGRAM = """
import fcntl, json, os, re, sys, time
from pathlib import Path

folder, command, arguments = Path(sys.argv[0]).parent, Path(sys.argv[0]).name, sys.argv[1:]
lock = open(folder / "lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX)
state = json.loads((folder / "state.json").read_text())
state["calls"].append([command, *arguments])
pending = state["faults"].setdefault(command, [])
fault = pending.pop(0) if pending else "none"
ENDED = ("CANCELLED", "COMPLETED", "FAILED")


def save():
    (folder / "state.json").write_text(json.dumps(state))


def refuse(words):
    save()
    print(f"{command}: error: {words}", file=sys.stderr)
    sys.exit(1)


def sbatch():
    script = Path(arguments[-1]).read_text()
    option = lambda name: (re.findall(rf"^#SBATCH --{name}=(.*)$", script, re.M) or [""])[-1].strip("'")
    array, live = option("array"), [job for job in state["jobs"] if job["state"] not in ENDED]
    indices = []
    for part in filter(None, array.partition("%")[0].split(",")):
        first, _, last = part.partition("-")
        indices += range(int(first), int(last or first) + 1)
    if array and max(indices) >= state["MaxArraySize"]:
        refuse("Batch job submission failed: Invalid job array specification")
    if len(live) + max(1, len(indices)) > state["max_submit"]:
        refuse("AssocMaxSubmitJobLimit\\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
               "policy (job submit limit, user's size and/or time limits)")
    number = state["next"]
    state["next"] += 1
    for index in indices or [None]:
        job = {"id": str(number) if index is None else f"{number}_{index}", "state": "PENDING", "reason": "None"}
        job |= {"name": option("job-name"), "dependency": option("dependency"), "at_once": array.partition("%")[2]}
        state["jobs"].append(job)
    return f"Submitted batch job {number}"


def squeue():
    name = next((a.partition("=")[2] for a in arguments if a.startswith("--name=")), None)
    jobs = [job for job in state["jobs"] if "--states=all" in arguments or job["state"] not in ENDED]
    lines = [f"{j['id']}|{j['state']}|{j['name']}||{j['reason']}" for j in jobs if name in (None, j["name"])]
    for job in state["jobs"]:
        if job.get("then"):  # one state more at every look
            job["state"] = job["then"].pop(0)
    return "\\n".join(lines)


def scancel():
    for job in state["jobs"]:
        if {job["id"], job["id"].partition("_")[0]} & set(arguments) and job["state"] not in ENDED:
            after = job.pop("if_cancelled", [["CANCELLED"]])
            job["state"], *job["then"] = after[0]
            if after[1:]:
                job["if_cancelled"] = after[1:]
    return ""


def scontrol():
    return f"MaxArraySize            = {state['MaxArraySize']}" if arguments[:2] == ["show", "config"] else ""


if fault == "stuck":
    save()
    lock.close()
    time.sleep(1000)
if fault not in ("none", "lost", "hangs", "fails"):
    refuse(fault)
said = globals()[command]()
save()
lock.close()
if fault == "hangs":
    time.sleep(1000)
if fault == "lost":
    refuse("Batch job submission failed: Socket timed out on send/recv operation")
if fault == "fails":
    sys.exit(1)
if said:
    print(said)
"""


class SmallSlurm:
    """Its commands, in a folder to be put on the PATH. Every job waits until a test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for command in COMMANDS:
            path = folder / command
            path.write_text(f"#!{sys.executable} -IS\n{PROGRAM}")
            path.chmod(0o755)
        start = {"jobs": [], "calls": [], "faults": {}, "next": 70, "MaxArraySize": 1001, "max_submit": 10_000}
        (folder / "state.json").write_text(json.dumps(start))

    @contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = json.loads((self.folder / "state.json").read_text())
            yield state
            (self.folder / "state.json").write_text(json.dumps(state))

    def set(self, **limits: int) -> None:
        """`MaxArraySize`, or `max_submit`: tasks in the queue at most."""
        with self._state() as state:
            state |= limits

    def misbehave(self, command: str, *faults: str) -> None:
        """What the next calls of a command do; see `PROGRAM`."""
        with self._state() as state:
            state["faults"][command] = list(faults)

    def change(self, job_id: str, **values: Any) -> None:
        """Change a job, or all of an array.

        `state`; `reason`; `then`: [state, ...], what the next looks find; `if_cancelled`: [[state, ...], ...], what
        each scancel makes of it, and the looks after that.
        """
        with self._state() as state:
            for job in state["jobs"]:
                if job_id in (job["id"], job["id"].partition("_")[0]):
                    job |= values

    def jobs(self, state: str | None = None) -> list[dict[str, Any]]:
        """Jobs in the queue, those of a state."""
        with self._state() as content:
            live = [job for job in content["jobs"] if job["state"] not in ("CANCELLED", "COMPLETED", "FAILED")]
        return [job for job in live if state in (None, job["state"])]

    def calls(self, command: str) -> list[list[str]]:
        with self._state() as state:
            return [call[1:] for call in state["calls"] if call[0] == command]
