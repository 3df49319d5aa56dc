"""A study to which several people submit: the jobs of all of them are seen, and none is submitted a second time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from fake_slurm import PROFILE, FakeSlurm, FakeStudy, SweepCommands

from sweeps.slurm import submissions
from sweeps.slurm.submissions import submitters

ANN = 4711


@pytest.fixture
def ann_s(fake: FakeStudy, slurm: FakeSlurm) -> FakeStudy:
    """Ann submitted two runs, one of which is at work; before that somebody did, with a version that wrote no name."""
    fake.submitted(fake.array("training", "11", "S/4", name="old"))
    path = submissions.submission_folder(fake.folder, 1) / "record.json"
    content = json.loads(path.read_text())
    del content["uid"]
    path.write_text(json.dumps(content))
    record = fake.submitted(fake.array("training", "22", "S/4", "S/2"), number=2)
    submissions.write(fake.folder, record.model_copy(update={"uid": ANN}))
    fake.started("S/4", "22_0")
    squeue(slurm, "22_0|RUNNING|training|n1|None", "22_1|PENDING|training||Priority")
    return fake


def squeue(slurm: FakeSlurm, *jobs: str) -> None:
    """Ann's jobs: who asks for their own sees none."""
    words = f'case "$*" in *--user=*{ANN}*) ;; *) exit 0 ;; esac'
    slurm.says("squeue", *jobs, first=words)


def test_a_record_says_whose_jobs_are_looked_for(ann_s: FakeStudy) -> None:
    records = submissions.read_all(ann_s.folder)
    assert [record.uid for record in records] == [None, ANN]
    assert submitters(records) == {ANN}


def test_the_jobs_of_all_who_submitted_are_seen(sweep: SweepCommands, slurm: FakeSlurm, ann_s: FakeStudy) -> None:
    states = {row["label"]: row["state"] for row in json.loads(sweep("status", "--json"))}
    assert states == {"S/4": "running", "S/2": "queued", "B/4": "waiting", "B/2": "waiting"}
    (asked,) = slurm.calls()
    assert f"--user={','.join(sorted([str(os.getuid()), str(ANN)], key=int))} " in asked
    assert "Priority" in sweep("why", "S/2")


def test_none_of_them_is_submitted_again(sweep: SweepCommands, ann_s: FakeStudy, tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(yaml.safe_dump(PROFILE))
    said = sweep("submit", "--cluster", str(profile), "--dry-run", "--mfu", "0.3")
    (training,) = (line for line in said.splitlines() if line.startswith("# ---- training"))
    assert "B/4" in training
    assert "B/2" in training
    assert "S/" not in training


def test_what_slurm_says_to_who_cancels_them_is_said(sweep: SweepCommands, slurm: FakeSlurm, ann_s: FakeStudy) -> None:
    slurm.says("scancel", status=1, error="scancel: error: Kill job error on job id 22: Access/permission denied")
    assert "Kill job error on job id 22: Access/permission denied" in sweep("cancel", status=1)
