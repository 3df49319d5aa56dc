"""`ditbench try`: from a file to a verdict; again with an edited file; a part that diverges; a way to say it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import ditbench
from own_parts import BLOCK, small_study
from runs import StudyFolder

from analysis.compare.designs import DesignComparison
from analysis.laws.intervals import Interval
from analysis.results.tables import load
from bench.files import jsonl
from ditbench_try import verdict

SUM = "        return x + mean\n"
# After the rehearsal.
DIVERGES = "        self.calls += self.training\n        return x + mean * (1e300 if self.calls > 6 else 1)\n"


def starts() -> dict[str, int]:
    """Run folder -> how often it was started."""
    return {path.parent.name: len(jsonl.read(path)) for path in Path("runs/try").glob("*/sessions.jsonl")}


def verdict_of(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith("my-block:MEAN")]


@pytest.mark.slow
def test_from_a_file_to_a_verdict(study: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study("runs/try")
    small_study(tmp_path, monkeypatch)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "elsewhere" / "my-block.py"
    file.parent.mkdir()
    file.write_text(BLOCK)
    arguments = ("try", file.relative_to(tmp_path), "--seeds", 1)

    first = ditbench(*arguments)
    assert (first.status, first.err) == (0, "")
    assert "my-block:MEAN" in first.out
    assert set(starts().values()) == {1}
    assert len(starts()) == 6
    (results,) = Path("results/try").iterdir()
    assert (results / "designs.png").is_file()
    assert len(load(results).runs) == 6
    comparison = json.loads((results / "comparison.json").read_text())
    assert {comparison["better"], comparison["worse"]} == {"adaln-zero", "my-block:MEAN"}

    before = starts()
    again = ditbench(*arguments)
    assert (again.status, starts()) == (0, before)
    assert verdict_of(again.out) == verdict_of(first.out) != []

    file.write_text(BLOCK.replace(SUM, "        return x + 2 * mean\n"))
    edited = ditbench(*arguments)
    assert edited.status == 0
    assert len(starts()) == 9
    assert {name: number for name, number in starts().items() if name in before} == before
    assert len(list(Path("results/try").iterdir())) == 2

    file.write_text(BLOCK.replace(SUM, DIVERGES))
    diverged = ditbench(*arguments)
    assert (diverged.status, diverged.err.count("\n")) == (1, 1)
    assert "3 of the 3 runs of my-block:MEAN failed" in diverged.out
    assert diverged.out.count("not finite") >= 3
    assert len(list(Path("results/try").iterdir())) == 2


def compared(multiplier: Interval | None, better: str) -> DesignComparison:
    other = Interval(0.2, 0.1, 0.3, 0.9)
    worse = {"mine": "adaln-zero", "adaln-zero": "mine"}[better]
    difference = Interval(5.0, 2.0, 8.0, 0.9)
    return DesignComparison(
        better, worse, "fid", (9, 9), (3, 3), (3, 3), True, other, other, difference, 1.0, multiplier, 0, 0.0, (),
        (0.5, 2.0),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("better", "multiplier", "factor", "difference", "distinguishable"),
    [
        ("mine", Interval(1.25, 1.1, 1.5, 0.9), "0.8x", "-5 (90%: -8 to -2)", True),
        ("adaln-zero", Interval(2.0, 1.5, 3.0, 0.9), "2x", "5 (90%: 2 to 8)", True),
        ("mine", Interval(1.25, 0.8, 1.5, 0.9), "0.8x", "-5 (90%: -8 to -2)", False),
        ("mine", None, "alpha 0.1 to 0.3", "-5", False),
    ],
)
def test_the_verdict_is_of_ones_own_part(
    better: str, multiplier: Interval | None, factor: str, difference: str, distinguishable: bool
) -> None:
    first, second = verdict(compared(multiplier, better), "mine")
    assert factor in first
    assert first.startswith("mine")
    assert difference in second
    assert ("not distinguishable" in first) is not distinguishable


def test_the_interval_of_the_inverse_is_in_order() -> None:
    first, _ = verdict(compared(Interval(1.25, 1.0, 2.0, 0.9), "mine"), "mine")
    assert "0.5 to 1)" in first
