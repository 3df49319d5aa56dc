"""The harness finds what it is there to find: a careless writer fails it, a careful one does not."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import forked
import power_loss
import pytest
from counts import Counts, count
from disturb import Result, disturb, refer
from faults import FAULTS
from targets import Outcome, Target

from bench.files import jsonl
from bench.files.atomic import write_json

ROWS = [{"step": step} for step in range(6)]


class Careful(Target):
    """Adds rows one by one, going on where it was, then a file."""

    name = "careful"

    def prepare(self, home: Path, features: Path) -> None:
        (home / "work").mkdir(parents=True)

    def work(self, case: Path) -> None:
        path = case / "work" / "rows.jsonl"
        done = len(jsonl.read(path))
        for row in ROWS[done:]:
            jsonl.append(path, row)
        write_json(case / "work" / "done.json", ROWS)

    def outcome(self, case: Path) -> Outcome:
        rows, path = jsonl.read(case / "work" / "rows.jsonl"), case / "work" / "done.json"
        return {"rows": rows, "done.json": path.read_text() if path.exists() else ""}

    def inspect(self, case: Path, expected: Outcome) -> None:
        path = case / "work" / "done.json"
        assert not path.exists() or path.read_text() == expected["done.json"]


class Careless(Careful):
    """Believes a file to be whole because it is there, and writes it in place, without a sync."""

    name = "careless"

    def work(self, case: Path) -> None:
        path = case / "work" / "done.json"
        if path.exists():
            return
        with (case / "work" / "rows.jsonl").open("a") as file:
            for row in ROWS:
                file.write(json.dumps(row) + "\n")
                file.flush()
        with path.open("w") as file:
            for part in json.dumps(ROWS, indent=1).splitlines(keepends=True):
                file.write(part)
                file.flush()
            file.write("\n")


def results(target: Target, fault: str, home: Path, number: int = 12) -> list[Result]:
    reference = refer(target, home, home)
    return [disturb(target, fault, n, 0, home, reference) for n in range(number)]


@pytest.mark.slow
@pytest.mark.parametrize("fault", sorted({*FAULTS} - {"two processes"}))  # it takes no lock
def test_a_careful_writer_survives(fault: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for result in results(Careful(), fault, tmp_path):
        assert result.survived, result


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", "power loss", "full disk"])
def test_a_careless_one_does_not(fault: str, tmp_path: Path) -> None:
    found = results(Careless(), fault, tmp_path)
    assert not all(result.survived for result in found)
    assert any(result.rows_lost or result.rows_doubled or result.wrong or result.half_written for result in found)


@pytest.mark.parametrize(("synced", "kept"), [(True, True), (False, False)])
def test_what_was_not_synced_is_dropped(synced: bool, kept: bool, tmp_path: Path) -> None:
    root, shadow = tmp_path / "disk", tmp_path / "shadow"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "old").write_text("old")

    def work() -> None:
        power_loss.record(root, shadow)
        for name in ("old", "new"):
            with (root / "folder" / name).open("w") as file:
                file.write("new")
                file.flush()
                if synced:
                    os.fsync(file.fileno())
        if synced:
            os.fsync(os.open(root / "folder", os.O_RDONLY))

    assert forked.done(work, tmp_path / "log") == 0
    seed = next(seed for seed in range(10) if random.Random(seed).choice([0, 1]) == 0)  # nothing un-synced is kept
    power_loss.drop_unsynced(root, shadow, random.Random(seed), None)
    found = {path.name: path.read_text() for path in (root / "folder").iterdir()}
    assert found == ({"old": "new", "new": "new"} if kept else {"old": "old"})


def test_losses_are_counted() -> None:
    expected: Outcome = {"train": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}], "weights": "abc"}
    found: Outcome = {"train": [{"step": 2, "loss": 0.4}, {"step": 2, "loss": 0.3}], "weights": "abd", "more": "x"}
    assert count(expected, expected) == Counts(0, 0, 0, ())
    assert count(expected, found) == Counts(lost=1, doubled=1, wrong=3, where=("more", "train", "weights"))
    assert count(expected, {"weights": "abc"}) == Counts(lost=2, doubled=0, wrong=0, where=("train",))
