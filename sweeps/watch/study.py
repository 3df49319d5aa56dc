"""A look at all runs of a study: their files, its submissions' records, and one question to SLURM.

A study that was submitted to SLURM asks SLURM; one without such a record was run on this machine, where locks tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.files.run_files import RunFiles, read_ends
from sweeps import local
from sweeps.cluster import ClusterProfile
from sweeps.expand import Sweep, run_folders
from sweeps.slurm import submissions
from sweeps.slurm.submissions import Kind, Submission
from sweeps.watch.jobs import Answer, RunJob, ask, jobs_of_runs
from sweeps.watch.pace import Pace
from sweeps.watch.status import LIVE, RunStatus, status_here, status_on_slurm


@dataclass(frozen=True)
class Look:
    """What was seen: `runs` in the sweep's order; by their folders' names `files` and, on SLURM, `jobs`.

    `is_live`: something is queued, at work, or unknown. `notes`: what a reader must know of the states.
    """

    study: Path
    records: Sequence[Submission]
    runs: list[RunStatus]
    files: Mapping[str, RunFiles]
    jobs: Mapping[str, Mapping[Kind, RunJob]]
    is_live: bool
    notes: tuple[str, ...]

    def status_of(self, run: RunFiles) -> RunStatus:
        return next(status for status in self.runs if status.folder == run.folder)


def read_study(sweep: Sweep, runs: Path) -> dict[str, RunFiles]:
    """The files of all runs of a sweep, by their folders' names, in the sweep's order."""
    folders = run_folders(sweep, runs).values()
    return {folder.name: read_ends(recipe, folder) for recipe, folder in zip(sweep.recipes, folders, strict=True)}


class Study:
    """A sweep under a folder of runs, to be looked at again and again.

    SLURM is asked every `ask_every_s` at most, and less often while it has nothing new to say.
    """

    def __init__(self, sweep: Sweep, runs: Path, ask_every_s: float = 0) -> None:
        self._sweep, self._runs, self._pace = sweep, runs, Pace(ask_every_s)
        self._answer: Answer | None = None

    def look(self) -> Look:
        """Read everything anew.

        Raises:
            InputError: a submission's record is damaged.
        """
        study = self._runs / self._sweep.name
        records = submissions.read_all(study)
        files = read_study(self._sweep, self._runs)
        if not records:
            is_live = bool(local.live_slots(study))
            runs = [status_here(run, waits=is_live) for run in files.values()]
            is_live = is_live or any(run.state in LIVE for run in runs)
            notes = () if study.is_dir() else (f"{study}: no such folder; --runs is where `sweep submit` had it",)
            return Look(study, records, runs, files, {}, is_live, notes)
        answer = self._asked(records, files)
        jobs = jobs_of_runs(records, files, answer)
        # What a job that has ended did may be newer than what was read before SLURM was asked.
        ended = [files[name] for name, kinds in jobs.items() if any(job.phase == "ended" for job in kinds.values())]
        files |= {run.folder.name: read_ends(run.recipe, run.folder) for run in ended}
        jobs = jobs_of_runs(records, files, answer) if ended else jobs
        peaks = {record.cluster: record.profile for record in records}  # the newest of each
        runs = [status_on_slurm(run, jobs.get(name, {}), _peak_tflops(run, peaks)) for name, run in files.items()]
        return Look(study, records, runs, files, jobs, any(run.state in LIVE for run in runs), answer.notes)

    def _asked(self, records: Sequence[Submission], files: Mapping[str, RunFiles]) -> Answer:
        if self._answer is None or self._pace.is_due:
            self._answer = ask(records, files)
            self._pace.answered(self._answer)
        if not self._pace.is_slower:
            return self._answer
        note = f"nothing has changed for a while: SLURM is asked every {self._pace.interval_s:.0f} s"
        return replace(self._answer, notes=(*self._answer.notes, note))


def _peak_tflops(run: RunFiles, profiles: Mapping[str, ClusterProfile]) -> float | None:
    """The peak of the device that the run was trained on last, at its precision, as the cluster's profile has it."""
    start = run.newest["training"]
    profile = profiles.get(start.get("cluster", ""))
    return profile.peak_tflops(start.get("precision")) if profile else None
