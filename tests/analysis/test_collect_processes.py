"""Many runs are read by several processes: the tables are those that one makes."""

import os
import sys

import pytest
from run_folders import LABELS, collect, write_run

from analysis.results import tables
from analysis.results.run_folders import ResultsError, read_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have one process do all")


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "digits"


@pytest.fixture
def three_processes(sweep, monkeypatch):
    """A sweep that is read by three processes, few as its runs are."""
    for label in LABELS:
        write_run(sweep, label)
    monkeypatch.setattr(tables, "LEAST_RUNS_A_PROCESS", 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})


def read_and_leave_the_process(record):
    (record.folder.parent / f"read-by-{os.getpid()}").touch()
    return read_run(record)


@pytest.mark.usefixtures("three_processes")
def test_several_processes_collect_what_one_does(sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "read_run", read_and_leave_the_process)
    collect(sweep, tmp_path / "three")
    readers = {path.name for path in sweep.glob("read-by-*")}
    assert readers
    assert f"read-by-{os.getpid()}" not in readers
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    collect(sweep, tmp_path / "one")
    three, one = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("three", "one"))
    assert three == one
    assert {path.name for path in sweep.glob("read-by-*")} == {*readers, f"read-by-{os.getpid()}"}


@pytest.mark.usefixtures("three_processes")
def test_what_another_process_finds_damaged_is_named(sweep, tmp_path):
    folder = sorted(path.parent for path in sweep.glob("*/config.yaml"))[7]
    (folder / "train.jsonl").write_text("{\n")
    with pytest.raises(ResultsError, match=rf"{folder.name}/train\.jsonl, line 1: not JSON"):
        collect(sweep, tmp_path / "out")
    assert not (tmp_path / "out").exists()
