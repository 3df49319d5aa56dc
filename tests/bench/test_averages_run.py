"""Runs that keep several averages: scores and samples of each, kills between any two files, lost and copied files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ditbench
from recipes import tiny
from runs import StudyFolder, finished, results, start
from scaling_plans import local
from trainings import assert_same

from bench.errors import InputError, RunError
from bench.files import atomic, checkpoint, jsonl
from bench.files.run_folder import clear_error, is_finished, is_trained, weights_path
from bench.files.verify_run import verify_run
from bench.parallel import Execution
from bench.recipe import Recipe
from bench.recipe.parts import DiffusionConfig
from bench.run import run, score, train
from bench.weights import load_weights_of
from sweeps.expand import Sweep
from sweeps.planning.plan import plan

TRAIN = {"ema_decays": [0, 0.5], "ema_stds": [0.05, 0.1], "ema_snapshot_every": 4}
STD = "std=0.08"


def averaging(ema: str | None = STD, **changes: Any) -> Recipe:
    return tiny(train=TRAIN, evaluation={"ema": ema, "sampling_steps": 2}, **changes)


@pytest.fixture(scope="module")
def made(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("averages") / "study"
    shutil.copytree(features, study / "features")
    return finished(averaging(), study)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A finished run of its own, to be changed."""
    shutil.copytree(made.parent, tmp_path / "study")
    return tmp_path / "study" / made.name


def mismatches(folder: Path) -> list[str]:
    return [problem for _, problems in verify_run(folder) for problem in problems]


def test_a_score_says_which_weights_and_samples_how_they_were_made(folder: Path) -> None:
    rows = jsonl.read(folder / "evals.jsonl")
    assert [(row["step"], row["weights"]) for row in rows] == [(6, "ema std=0.08"), (12, "ema std=0.08")]
    said = [json.loads((folder / f"{row['samples']}.json").read_text()) for row in rows]
    assert [(one["weights"], one["post_hoc"]) for one in said] == [("ema std=0.08", 4), ("ema std=0.08", 8)]
    assert mismatches(folder) == []


@pytest.mark.parametrize("ema", ["raw", "std=0.05"])
def test_every_kept_average_is_scored_by_its_name(study: StudyFolder, made: Path, ema: str) -> None:
    """And sampled by `--ema` of any run that keeps it, to the same samples."""
    folder = finished(averaging(ema), study("kept"))
    name = ema if ema == "raw" else f"ema {ema}"
    assert {row["weights"] for row in jsonl.read(folder / "evals.jsonl")} == {name}
    assert "post_hoc" not in json.loads((folder / "samples" / "step-00000012.npy.json").read_text())
    assert mismatches(folder) == []
    out = folder / "again.npy"
    options = ("--num-samples", 60, "--sampling-steps", 2, "--clip-denoised", "--ema", ema)
    assert ditbench("sample", made, "--out", out, *options).err == ""
    assert np.array_equal(np.load(out), np.load(folder / "samples" / "step-00000012.npy"))
    assert json.loads(out.with_name("again.npy.json").read_text())["weights"] == name


def test_sampled_like_it_is_scored(folder: Path) -> None:
    for step in (6, 12):
        out = folder.parent / f"{step}.npy"
        options = ("--num-samples", 60, "--sampling-steps", 2, "--clip-denoised", "--ema", STD, "--step", step)
        assert ditbench("sample", folder, "--out", out, *options).status == 0
        assert np.array_equal(np.load(out), np.load(folder / "samples" / f"step-{step:08d}.npy"))
    work = folder.parent / "features"  # where the extractor is trained already
    ended = ditbench("evaluate", folder.parent / "12.npy", "--run", folder, "--format", "json", "--work", work)
    assert (ended.status, json.loads(ended.out)["weights"]) == (0, "ema std=0.08")
    (row,) = jsonl.read(folder / "other-evals.jsonl")
    assert row["fid"] == pytest.approx(jsonl.read(folder / "evals.jsonl")[1]["fid"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ema", "decay=0.7"], "--ema: decay=0.7 is not kept; accepted: decay=0.9, raw, decay=0.5, std=0.05"),
        (["--ema", "0.9"], "--ema: '0.9'; accepted: raw, decay=D"),
        (["--ema", "std=0.01"], "--ema: std=0.01: made of the 8 snapshots that are there at step 12"),
        (["--ema", STD, "--step", "5"], "has no ema std=0.08 weights of it; accepted: 4, 6, 8, 12"),
        (["--ema", "raw", "--step", "8"], "has no raw weights of it; accepted: 6, 12"),
    ],
)
def test_what_a_run_does_not_keep_is_refused(made: Path, tmp_path: Path, options: list[str], said: str) -> None:
    ended = ditbench("sample", made, "--out", tmp_path / "x.npy", "--num-samples", 4, *options)
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_a_snapshot_is_sampled_by_its_step_or_its_file_wherever_that_is(folder: Path) -> None:
    path = weights_path(folder / "checkpoints", 8, "ema std=0.1")
    kept, _ = checkpoint.load_tensors(path)
    by_step = load_weights_of(str(folder), 8, True, "std=0.1")
    for one in (by_step, load_weights_of(str(path), None, True), load_weights_of(str(path), 8, True)):
        assert one.identity == {"run": averaging().id, "step": 8, "weights": "ema std=0.1"}
        assert_same(one.model.state_dict(), kept)
    copy = load_weights_of(str(shutil.copy(path, folder.parent / "mine.safetensors")), None, True)
    assert copy.identity == by_step.identity
    with pytest.raises(InputError, match=r"--step 6: .* is of step 8"):
        load_weights_of(str(path), 6, True)


def test_a_plan_knows_their_storage(made: Path) -> None:
    (planned,) = plan(Sweep("x", [averaging()]), local(), "local", {averaging().id: made}).runs
    checkpoints = made / "checkpoints"
    states, kept = ([*checkpoints.glob(pattern)] for pattern in ("state-*", "[!s]*"))
    for files, size in ((states, planned.state_bytes), (kept, planned.ema_bytes)):
        assert sum(t.nbytes for path in files for t in checkpoint.load_tensors(path)[0].values()) == size


class Killed(BaseException):
    """As `kill -9` does, it ends a process between two files, and leaves the one that is being written aside."""


def kill_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, end before the file of this number is in its place."""
    left = [number]

    def replace(path: Path, write: Callable[[Path], object]) -> None:
        left[0] -= 1
        if left[0] < 0 and path.suffix == ".safetensors":
            path.parent.mkdir(exist_ok=True)
            write(path.with_name(f".{path.name}.1"))
            raise Killed
        real(path, write)

    real = atomic.replace
    monkeypatch.setattr(checkpoint, "replace", replace)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("checkpoints/*.safetensors")}


def test_killed_before_any_file_a_training_loses_none(tmp_path: Path) -> None:
    """Between a state and its snapshots, between two snapshots, before a state: all files are the same in the end."""
    few = {"steps": 4, "checkpoint_steps": [], "save_every": 3, "log_every": 4, "ema_snapshot_every": 2}
    recipe = tiny(train={**few, "ema_decays": [0], "ema_stds": [0.05, 0.1]})
    whole = start(recipe, tmp_path / "whole")
    train(whole, Execution())
    expected, number = written(whole), 0
    while True:
        folder = start(recipe, tmp_path / str(number))
        with pytest.MonkeyPatch.context() as patch:
            kill_at(number, patch)
            try:
                train(folder, Execution())
                break
            except Killed:
                pass
        assert not is_trained(recipe, folder)
        train(folder, Execution())
        assert written(folder) == expected, number
        number += 1
    assert number == len(expected) == 2 + 2 + 4  # the states of steps 3 and 4, the weights of 2 and of 4


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_training_does_not_go_on_beyond_a_snapshot_that_is_lost(folder: Path, damage: str) -> None:
    """Though its step is scored and no step of its own: what is scored later is made of it."""
    expected = results(folder)
    (folder / "finished.json").unlink()
    rows = (folder / "evals.jsonl").read_text().splitlines(keepends=True)
    (folder / "evals.jsonl").write_text(rows[0])
    lost = weights_path(folder / "checkpoints", 4, "ema std=0.05")
    if damage == "missing":
        lost.unlink()
    elif damage == "truncated":
        lost.write_bytes(lost.read_bytes()[:-8])
    else:
        shutil.copy(weights_path(folder / "checkpoints", 8, "ema std=0.05"), lost)
    run(folder, folder.parent)
    assert jsonl.read(folder / "sessions.jsonl")[-1]["resumed_from_step"] == 0
    assert results(folder) == expected


def test_a_damaged_snapshot_is_not_scored_but_made_again(folder: Path) -> None:
    expected = results(folder)
    for name in ("finished.json", "evals.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "samples")
    lost = weights_path(folder / "checkpoints", 8, "ema std=0.1")
    lost.write_bytes(lost.read_bytes()[:-8])
    with pytest.raises(RunError, match=r"the EMA std=0\.08 weights of step 12 cannot be read back"):
        score(folder, folder.parent, Execution())
    clear_error(folder)
    score(folder, folder.parent, Execution())  # what is there
    assert [row["step"] for row in jsonl.read(folder / "evals.jsonl")] == [6]
    assert not is_finished(folder)
    train(folder, Execution())
    score(folder, folder.parent, Execution())
    assert is_finished(folder)
    assert results(folder) == expected


def test_a_missing_or_damaged_snapshot_is_named(folder: Path) -> None:
    lost = weights_path(folder / "checkpoints", 4, "ema std=0.1")
    content = lost.read_bytes()
    lost.write_bytes(content[:-8])
    assert [str(lost)] == [problem.partition(": ")[0] for problem in mismatches(folder)]
    for step, name in ((6, "4"), (12, "4")):
        with pytest.raises(InputError, match=rf"ema-std=0\.1-0000000{name}\.safetensors: damaged"):
            load_weights_of(str(folder), step, True, STD)
    lost.unlink()
    with pytest.raises(InputError, match=r"has no ema std=0\.08 weights yet; .*missing: ema-std=0\.1-00000004\."):
        load_weights_of(str(folder), None, True, STD)
    assert len(mismatches(folder)) == 3  # the file, and both scores that are made of it
    assert load_weights_of(str(folder), None, True).identity["weights"] == "ema"  # which needs no snapshot


def test_files_under_other_names_are_noticed(folder: Path) -> None:
    """A decay's file in the place of another's, and a file of another run."""
    checkpoints = folder / "checkpoints"
    ours = weights_path(checkpoints, 12)
    shutil.copy(weights_path(checkpoints, 12, "ema decay=0.5"), ours)
    assert any("decay=0.5" in problem for problem in mismatches(folder))
    with pytest.raises(InputError, match=r"says that it is of weights 'ema decay=0\.5', not 'ema'"):
        load_weights_of(str(folder), None, True)
    other = start(averaging(seed=1), folder.parent)
    train(other, Execution())
    shutil.copy(weights_path(other / "checkpoints", 12), ours)
    with pytest.raises(InputError, match=f"says that it is of run '{other.name[-10:]}'"):
        load_weights_of(str(ours), None, True)
    assert any("is of run" in problem for problem in mismatches(folder))


# --- copies

VELOCITY = DiffusionConfig.model_validate({"prediction": "velocity", "timesteps": 500})


def copied(recipe: Recipe, home: Path, name: str = "ema") -> Path:
    """A file of a run's weights, out of its folder and under another name."""
    folder = start(recipe, home / "runs")
    train(folder, Execution())
    return Path(shutil.copy(weights_path(folder / "checkpoints", 12, name), home / "mine.safetensors"))


def test_a_copied_file_is_sampled_as_what_it_is(tmp_path: Path) -> None:
    """Its objective, its attention heads and its average are not to be seen in its tensors."""
    recipe = averaging().model_copy(update={"diffusion": VELOCITY})
    copy = load_weights_of(str(copied(recipe, tmp_path, "ema decay=0.5")), None, True)
    original = load_weights_of(str(tmp_path / "runs" / recipe.folder_name), None, True, "decay=0.5")
    assert copy.diffusion == recipe.diffusion
    assert copy.identity == original.identity == {"run": recipe.id, "step": 12, "weights": "ema decay=0.5"}
    assert (copy.shape, copy.num_classes, copy.decoder) == (original.shape, original.num_classes, original.decoder)
    x, t, y = torch.randn(2, 1, 8, 8), torch.tensor([3.0, 70.0]), torch.tensor([1, 10])
    with torch.inference_mode():
        assert torch.equal(copy.model(x, t, y), original.model(x, t, y))


def test_a_copied_file_is_refused_where_it_is_damaged_or_says_what_cannot_be(tmp_path: Path) -> None:
    path = copied(averaging(), tmp_path)
    with pytest.raises(InputError, match=r"--ema: .* is not a run's folder"):
        load_weights_of(str(path), None, True, "raw")
    with pytest.raises(InputError, match=r"--step: .* is not a run's folder"):
        load_weights_of(str(path), 6, True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"mine\.safetensors: the checksum does not match"):
        load_weights_of(str(path), None, True)
    path.write_bytes(whole)
    tensors, said = checkpoint.load_tensors(path)
    del said["sha256"]
    header = json.loads(said["recipe"])
    model, diffusion = header["model"], header["diffusion"]
    for changed, message in (
        ({"diffusion": {**diffusion, "prediction": "score"}}, r"prediction: .*'noise', 'x0' or 'velocity'"),
        ({"diffusion": {"objective": "none"}}, "unknown objective 'none'"),
        ({"diffusion": {"objective": "os:system"}}, r"os:system, code of one's own"),
        ({"model": {**model, "block": "os:system"}}, r"os:system, code of one's own"),
        ({"model": {**model, "depth": 10**8}}, "fewer parameters than the model that its header describes"),
        ({"model": {**model, "num_classes": 7}}, r"y_embedder\.embedding_table\.weight has shape \(11, 16\)"),
        ({"model": {**model, "depth": "two"}}, "depth: .*integer"),
        ({"model": 3}, "header is not that of a run's weights"),
    ):
        recipe = json.dumps({**header, **changed})
        checkpoint.save_tensors(path, tensors, {**said, "recipe": recipe})
        with pytest.raises(InputError, match=message) as error:
            load_weights_of(str(path), None, True)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)
