"""Why a job's processes died: what a rank said itself, else what SLURM said of the first that went.

One rank's death ends all others, by SIGKILL: the status of the whole job says nothing of the first. So a rank leaves
its error in a file of its own, for `sweeps.slurm.after`; of one that could not, srun's line in the job's log tells.
"""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

from bench.files.atomic import write_json
from bench.files.jsonl import now

# The batch script prints it before srun: what srun said of earlier starts, in the same log, is above it.
MARK = re.compile(r"^attempt \d+(_\d+)?\.\d+$", re.MULTILINE)
SRUN = re.compile(r"^srun: error: (?P<host>\S+): tasks? (?P<rank>[\d,-]+): (?P<words>.+)$", re.MULTILINE)
STOPS = {signal.strsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
TAIL_BYTES = 1 << 18


def leave(folder: Path, attempt: str, rank: int, host: str, error: str, lost_a_peer: bool) -> None:
    """Record a rank's error in the folder of its job's submission. `lost_a_peer`: it only says that another is gone.

    Raises:
        RunError: it cannot be written.
    """
    content = {"time": now(), "rank": rank, "host": host, "error": error, "lost_a_peer": lost_a_peer}
    write_json(folder / "ranks" / f"{attempt}-{rank}.json", content)


def cause_of_death(folder: Path, job_id: str, attempt: str, status: int) -> tuple[str, dict[str, Any]]:
    """The reason in a sentence, and what is known beside it: rank, host, and the log of that rank.

    Args:
        folder: of the submission.
        status: of all the job's processes together, as a shell has it.
    """
    said = [json.loads(path.read_bytes()) for path in sorted((folder / "ranks").glob(f"{attempt}-*.json"))]
    said.sort(key=lambda row: (row["lost_a_peer"], row["time"]))
    if said and not said[0]["lost_a_peer"]:
        rank, host, words = said[0]["rank"], said[0]["host"], said[0]["error"]
    elif first := _first_to_go(folder, job_id):
        rank, host, words = first["rank"], first["host"], _plainly(first["words"])
    elif said:
        rank, host, words = said[0]["rank"], said[0]["host"], f"it lost another, which left no word: {said[0]['error']}"
    else:
        meaning = _meaning(status)
        return f"its processes died with exit status {status} ({meaning}) and left no reason but what is in the log", {}
    log = folder / "jobs" / f"{job_id}_{rank}_log.out"
    facts = {"rank": int(rank) if str(rank).isdigit() else rank, "host": host}
    if log.exists():
        facts["log"] = str(log.relative_to(folder.parents[1]))
    return f"rank {rank} on {host}: {words}", facts


def died_of_a_stop(folder: Path, job_id: str) -> bool:
    """Whether the first rank to die in the job's last start did of SLURM's request to stop: it could not listen yet."""
    first = _first_to_go(folder, job_id)
    return first is not None and first["words"] in STOPS


def _first_to_go(folder: Path, job_id: str) -> re.Match[str] | None:
    """What srun said of the first rank that died in the job's last start."""
    log = folder / "jobs" / f"{job_id}_0_log.out"
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    starts = [match.end() for match in MARK.finditer(text)]
    return SRUN.search(text, starts[-1] if starts else 0)


def _plainly(words: str) -> str:
    """SLURM's words for how a rank ended."""
    if words == "Killed":
        return "killed (SIGKILL): out of memory, most often"
    if words == "Out Of Memory":
        return "killed for taking more memory than the job has (mem_gb in the profile)"
    return f"{words}; it left no reason but what is in the log"


def _meaning(status: int) -> str:
    if status <= 128:
        return "an error before the run began, or SLURM's own"
    name = signal.Signals(status - 128).name if status - 128 in list(signal.Signals) else f"signal {status - 128}"
    return f"{name}: out of memory, most often" if name == "SIGKILL" else name
