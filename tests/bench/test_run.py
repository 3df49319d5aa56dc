"""One run end to end: what it leaves in its folder, and that nothing is lost when it is killed or repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from recipes import tiny
from runs import StudyFolder, Undisturbed, finished, last_step, results, start

from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import RunLocked, is_finished, is_locked, locked, read_config, write_config
from bench.parallel import Execution
from bench.run import run


def test_a_run_leaves_what_the_readme_says(study: StudyFolder) -> None:
    recipe = tiny()
    folder = finished(recipe, study("a"))
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}
    assert names == {
        "config.yaml",
        "model.json",
        "sessions.jsonl",
        "train.jsonl",
        "evals.jsonl",
        "finished.json",
        "log.txt",
        "checkpoints/ema-00000006.safetensors",
        "checkpoints/ema-00000012.safetensors",
        "checkpoints/state-00000008.safetensors",
        "checkpoints/state-00000012.safetensors",
        "samples/step-00000006.npy",
        "samples/step-00000006.npy.json",
        "samples/step-00000012.npy",
        "samples/step-00000012.npy.json",
    }
    assert is_finished(folder)
    assert read_config(folder) == recipe
    samples = np.load(folder / "samples" / "step-00000012.npy", allow_pickle=False)
    assert samples.dtype == np.uint8
    assert samples.shape == (60, 1, 8, 8)
    provenance = json.loads((folder / "samples" / "step-00000012.npy.json").read_text())
    assert provenance["run"] == recipe.id
    assert (provenance["step"], provenance["weights"], provenance["sampler"]) == (12, "ema", "ddpm")
    rows = jsonl.read(folder / "evals.jsonl")
    assert [row["step"] for row in rows] == [6, 12]
    for row in rows:
        assert row["reference"].startswith("digits-1797-")
        assert row["extractor"].startswith("digits-cnn-")
        assert row["guidance_channels"] is None
        assert 0 < row["fid"] < 10_000
    train = jsonl.read(folder / "train.jsonl")
    assert [row["step"] for row in train] == [2, 4, 6, 8, 10, 12]
    model = json.loads((folder / "model.json").read_text())
    assert train[-1]["gmacs_spent"] == pytest.approx(model["gmacs"] * 3 * 32 * 12)


def test_a_finished_run_is_left_alone(study: StudyFolder) -> None:
    home = study("a")
    folder = finished(tiny(), home)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run(folder, home)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_result(study: StudyFolder, undisturbed: Undisturbed) -> None:
    """kill -9 at several moments, each time started again by the same command."""
    recipe = tiny(train={"steps": 120, "checkpoint_steps": [40, 80], "save_every": 20, "log_every": 10})
    home = study("killed")
    folder = start(recipe, home)
    code = "import sys, torch; torch.set_num_threads(1); from pathlib import Path; from bench.run import run; "
    code += "run(Path(sys.argv[1]), Path(sys.argv[2]))"
    for progress in (20, 60):
        process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(home)])
        while process.poll() is None and last_step(folder) < progress:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
        assert not is_finished(folder)
    run(folder, home)
    assert results(folder) == undisturbed(recipe)
    assert len(jsonl.read(folder / "sessions.jsonl")) == 3


def test_an_unscored_checkpoint_is_scored_without_training(study: StudyFolder) -> None:
    home = study("a")
    folder = finished(tiny(), home)
    expected = results(folder)
    (folder / "finished.json").unlink()
    rows = (folder / "evals.jsonl").read_text().splitlines(keepends=True)
    (folder / "evals.jsonl").write_text(rows[0] + rows[1][:20])  # torn by a crash
    run(folder, home)
    assert results(folder) == expected
    assert jsonl.read(folder / "sessions.jsonl")[-1]["resumed_from_step"] == 12


def test_lost_weights_are_trained_again(study: StudyFolder) -> None:
    home = study("a")
    folder = finished(tiny(), home)
    expected = results(folder)
    (folder / "finished.json").unlink()
    (folder / "evals.jsonl").unlink()
    weights = folder / "checkpoints" / "ema-00000006.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    run(folder, home)
    assert results(folder) == expected
    assert "not whole weights" in (folder / "log.txt").read_text()


def test_another_recipe_is_refused(study: StudyFolder) -> None:
    folder = finished(tiny(), study("a"))
    with pytest.raises(InputError, match=r"seed is 0 there, 1 here") as error:
        write_config(tiny(seed=1), folder)
    assert str(folder) in str(error.value)
    write_config(tiny(label="renamed", train={"log_every": 3}), folder)  # the same result: accepted


def test_a_damaged_config_is_named(study: StudyFolder) -> None:
    home = study("a")
    folder = start(tiny(), home)
    (folder / "config.yaml").write_text("recipe: 3\n")
    with pytest.raises(InputError, match=r"config\.yaml"):
        run(folder, home)


def test_a_run_is_worked_on_once(study: StudyFolder) -> None:
    home = study("a")
    folder = start(tiny(), home)
    assert not is_locked(folder / ".lock")
    with locked(folder):
        assert is_locked(folder / ".lock")
        with pytest.raises(RunLocked):
            run(folder, home)
    assert not is_locked(folder / ".lock")
    run(folder, home)
    assert is_finished(folder)


@pytest.mark.skipif(
    os.geteuid() == 0 and not Path("/proc/self").exists(), reason="needs a folder that root cannot write"
)
def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(InputError, match=r"/proc/self/run.*cannot be written"):
        write_config(tiny(), Path("/proc/self/run"))


def test_missing_hardware_is_named(study: StudyFolder) -> None:
    import torch

    home = study("a")
    folder = start(tiny(), home)
    with pytest.raises(InputError, match=r"tf32.*accepted on cpu: fp32, bf16"):
        run(folder, home, Execution("cpu", "tf32", max_failures=3))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"no CUDA device here; accepted: cpu"):
            run(folder, home, Execution("cuda"))
