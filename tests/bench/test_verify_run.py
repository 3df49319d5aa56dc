"""`ditbench verify RUN`: nothing is found in what a run left, and whatever is changed afterwards is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import ditbench
from recipes import tiny
from runs import finished, start

from bench.errors import RunError
from bench.files import jsonl
from bench.files.verify_run import verify_run
from bench.parallel import Execution
from bench.run import train


@pytest.fixture(scope="module")
def made(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("verified") / "study"
    shutil.copytree(features, study / "features")
    return finished(tiny(), study)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A finished run of its own, to be changed."""
    shutil.copytree(made.parent, tmp_path / "study")
    return tmp_path / "study" / made.name


def mismatches(folder: Path) -> list[str]:
    return [problem for _, problems in verify_run(folder) for problem in problems]


def change_rows(path: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    rows = change(jsonl.read(path))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_as_it_was_left(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()}
    checks = dict(verify_run(run))
    assert not any(checks.values())
    again = [what for what in checks if "again from its samples" in what]
    assert len(again) == 2  # scores
    assert {path: path.read_bytes() for path in run.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["state-00000008", "state-00000012", "ema-00000006", "ema-00000012"])
@pytest.mark.parametrize("where", [0.1, 0.99])
def test_a_flipped_byte_of_a_checkpoint(name: str, where: float, run: Path) -> None:
    path = run / "checkpoints" / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    (found,) = mismatches(run)
    assert str(path) in found


def test_weights_under_the_name_of_another_step(run: Path) -> None:
    checkpoints = run / "checkpoints"
    shutil.copy(checkpoints / "ema-00000006.safetensors", checkpoints / "ema-00000012.safetensors")
    (found,) = mismatches(run)
    assert found.endswith("ema-00000012.safetensors: says that it is of step 6")


def test_weights_that_are_gone(run: Path) -> None:
    (run / "checkpoints" / "ema-00000006.safetensors").unlink()
    assert len(mismatches(run)) == 2  # kept, and scored


@pytest.mark.parametrize("name", ["train.jsonl", "evals.jsonl"])
@pytest.mark.parametrize("which", [0, -1])
def test_a_row_that_is_deleted_or_doubled(name: str, which: int, run: Path) -> None:
    rows = jsonl.read(run / name)
    step = rows[which]["step"]
    change_rows(run / name, lambda rows: [row for row in rows if row["step"] != step])
    assert mismatches(run) == [f"{run / name}: no row of step {step}"]
    change_rows(run / name, lambda _: [*rows, rows[which]])
    assert mismatches(run) == [f"{run / name}: step {step} is there 2 times"]
    change_rows(run / name, lambda _: rows[::-1])
    assert mismatches(run) == [f"{run / name}: the steps are not in order"]
    change_rows(run / name, lambda _: [{**rows[which], "step": 5}, *rows])
    assert f"{run / name}: step 5 is none of the recipe's" in mismatches(run)


def test_a_line_that_is_torn(run: Path) -> None:
    path = run / "train.jsonl"
    path.write_text(path.read_text() + '{"step": 1')
    assert mismatches(run) == [f"{path}: the last line is cut short, and the run is finished"]
    path.write_text(path.read_text() + "\n")
    assert mismatches(run) == [f"{path}: 1 lines are not JSON objects"]


@pytest.mark.parametrize("metric", ["fid", "kid", "inception_score", "precision"])
def test_an_edited_score(metric: str, run: Path) -> None:
    change_rows(run / "evals.jsonl", lambda rows: [rows[0], {**rows[1], metric: rows[1][metric] * 1.01 + 0.001}])
    (found,) = mismatches(run)
    assert f"step 12: {metric} is" in found


def test_edited_samples(run: Path) -> None:
    path = run / "samples" / "step-00000006.npy"
    images = np.load(path)
    np.save(path, 255 - images)
    assert any("step 6: fid is" in problem for problem in mismatches(run))
    np.save(path, images[:-1])
    assert any(f"{path}: uint8 of shape (59, 1, 8, 8)" in problem for problem in mismatches(run))


@pytest.mark.parametrize(("key", "value"), [("sampling_steps", 5), ("num_samples", 50), ("guidance_scale", 1.5)])
def test_a_score_with_another_key(key: str, value: float, run: Path) -> None:
    change_rows(run / "evals.jsonl", lambda rows: [{**rows[0], key: value}, rows[1]])
    assert any(f"step 6: {key} is {value!r}" in problem for problem in mismatches(run))


def test_a_recipe_that_is_another(run: Path) -> None:
    path = run / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["recipe"]["train"]["learning_rate"] = 0.002
    path.write_text(yaml.safe_dump(content))
    found = mismatches(run)
    assert any(str(path) in problem and content["id"] in problem for problem in found)
    assert any("the folder's name ends in" in problem for problem in found)


def test_edited_compute(run: Path) -> None:
    change_rows(run / "train.jsonl", lambda rows: [{**rows[0], "gmacs_spent": 1.0}, *rows[1:]])
    (found,) = mismatches(run)
    assert "step 2: gmacs_spent is 1.0" in found


def test_a_run_that_was_interrupted_is_as_it_should_be(made: Path, tmp_path: Path) -> None:
    """Not finished, not scored, its last line torn: that is no mismatch."""
    folder = start(tiny(), tmp_path)

    def interrupt(row: dict) -> None:
        if row["step"] == 10:
            raise RunError("enough")

    with pytest.raises(RunError, match="enough"):
        train(folder, Execution(on_log=interrupt))
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')
    assert mismatches(folder) == []


def test_the_command(run: Path) -> None:
    whole = ditbench("verify", run, run.parent)
    assert (whole.status, whole.err) == (0, "")
    assert whole.out.endswith("no mismatch\n")
    change_rows(run / "train.jsonl", lambda rows: rows[1:])
    changed = ditbench("verify", run)
    assert (changed.status, changed.err) == (1, "ditbench: 1 mismatches, listed above\n")
    assert f"  {run / 'train.jsonl'}: no row of step 2\n" in changed.out
    for path in (run / "nowhere", run / "checkpoints", run / "config.yaml"):
        wrong = ditbench("verify", path)
        assert (wrong.status, wrong.err.count("\n")) == (2, 1)
        assert str(path) in wrong.err
