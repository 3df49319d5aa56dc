"""Samples as a file: the same whatever the number of processes, continued after a kill, never mixed with others."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import on_ranks
from recipes import tiny
from runs import finished
from torch import Tensor, nn

from bench.data.decoders import Pixels
from bench.data.digits import DIGITS
from bench.data.images import open_images
from bench.errors import InputError, RunError
from bench.parallel import SINGLE, Ranks
from bench.provenance import made_from_path, read_made_from
from bench.run import build_model
from bench.sample import Sampling, features_folder, forget_samples, make_samples
from bench.score.extractors import load_extractor
from bench.score.features import extract
from bench.stopping import StopRequest
from models.transformer import DiT

CPU = torch.device("cpu")
RECIPE = tiny(evaluation={"batch_size": 25, "num_samples": 110})
MADE_FROM = {"weights": "untrained", "seed": 0}
DITBENCH = Path(sys.executable).parent / "ditbench"


def untrained() -> nn.Module:
    return build_model(RECIPE, CPU)


def make(ranks: Ranks, path: Path, made_from: dict[str, object]) -> float | None:
    sampling, stop = Sampling.of(RECIPE), StopRequest()
    return make_samples(path, sampling, made_from, untrained, Pixels(), CPU, "fp32", ranks, stop)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("alone") / "samples.npy"
    speed = make(SINGLE, path, MADE_FROM)
    assert speed is not None and speed > 0
    array = np.load(path)
    assert (array.shape, array.dtype) == ((110, 1, 8, 8), np.uint8)
    assert [entry.name for entry in sorted(path.parent.iterdir())] == ["samples.npy", "samples.npy.json"]
    return path.read_bytes()


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_ranks_makes_the_same_file(alone: bytes, world_size: int, tmp_path: Path) -> None:
    speeds = on_ranks(world_size, make, tmp_path / "samples.npy", MADE_FROM)
    assert all(isinstance(speed, float) for speed in speeds), speeds
    assert (tmp_path / "samples.npy").read_bytes() == alone


def limited(
    monkeypatch: pytest.MonkeyPatch, images: int, message: str = "CUDA out of memory. Tried\nmore"
) -> list[int]:
    """Let memory hold so many images at once; the sizes that networks are asked for, as they are asked."""
    asked: list[int] = []
    forward = DiT.forward

    def checked(model: DiT, x: Tensor, *arguments: Any) -> Tensor:
        asked.append(len(x))
        if len(x) > images:
            raise torch.OutOfMemoryError(message) if "CUDA" in message else RuntimeError(message)
        return forward(model, x, *arguments)

    monkeypatch.setattr(DiT, "forward", checked)
    return asked


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried\nmore", "can't allocate memory: you tried"])
def test_batches_that_do_not_fit_into_memory_are_made_in_parts(
    alone: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    path = tmp_path / "samples.npy"
    asked = limited(monkeypatch, 7, message)
    make(SINGLE, path, MADE_FROM)
    sizes = [size for before, size in zip([0, *asked], asked, strict=False) if size != before]
    assert sizes[:3] == [25, 12, 6], "halves of what did not fit"
    assert max(asked[2:]) == 6, "what does not fit is not tried again"
    whole = np.load(io.BytesIO(alone)).astype(int)
    assert np.abs(np.load(path) - whole).max() <= 1
    assert (np.load(path) != whole).mean() < 0.01


def test_no_memory_for_a_single_sample_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 0)
    with pytest.raises(RunError, match="out of memory with a single sample"):
        make(SINGLE, tmp_path / "samples.npy", MADE_FROM)
    assert not (tmp_path / "samples.npy").exists()


def test_other_faults_of_a_network_are_not_taken_for_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = limited(monkeypatch, 7, "sizes do not match")
    with pytest.raises(RuntimeError, match="sizes do not match"):
        make(SINGLE, tmp_path / "samples.npy", MADE_FROM)
    assert asked == [25]


def test_samples_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "samples.npy"
    make(SINGLE, path, MADE_FROM)
    before = path.stat().st_mtime_ns
    assert make(SINGLE, path, {**MADE_FROM, "commit": "another"}) is None
    assert path.stat().st_mtime_ns == before
    (features_folder(path, "digits-cnn-0123") / "chunk").mkdir(parents=True)
    other = features_folder(tmp_path / "samples.npy2", "digits-cnn-0123")
    other.mkdir()
    forget_samples(path)
    assert list(tmp_path.iterdir()) == [other], "features of older weights would score newer samples"


def test_other_samples_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "samples.npy"
    make(SINGLE, path, MADE_FROM)
    with pytest.raises(InputError, match=r"samples\.npy: holds other samples \(seed is 0 there, 1 here\)"):
        make(SINGLE, path, {**MADE_FROM, "seed": 1})
    assert read_made_from(path, open_images(path).content_hash()) == MADE_FROM
    samples = path.read_bytes()
    for beside in (None, '{"seed": ', "[]", json.dumps(MADE_FROM)):
        made_from_path(path).unlink(missing_ok=True)
        if beside is not None:
            made_from_path(path).write_text(beside)
        with pytest.raises(InputError, match="samples of unknown origin are there"):
            make(SINGLE, path, MADE_FROM)
    assert path.read_bytes() == samples


def test_unfinished_batches_of_other_samples_are_refused(tmp_path: Path) -> None:
    path, stop = tmp_path / "samples.npy", StopRequest()
    stop.signal = signal.SIGUSR2
    with pytest.raises(Exception, match="stopped on request"):
        make_samples(path, Sampling.of(RECIPE), MADE_FROM, untrained, Pixels(), CPU, "fp32", SINGLE, stop)
    with pytest.raises(InputError, match="seed is 0 there, 1 here"):
        make(SINGLE, path, {**MADE_FROM, "seed": 1})


def _extracted(ranks: Ranks, folder: Path, weights: Path) -> list[object]:
    images = DIGITS.reference("digits", DIGITS.options()).images
    assert images is not None
    network = load_extractor("digits-cnn", weights, offline=True)
    features = extract(images, network.network, folder, CPU, ranks, StopRequest())
    gaussian = features.gaussian("64")
    return [features.all("64").numpy().tobytes(), gaussian.mean.tobytes(), gaussian.covariance.tobytes()]


def test_any_number_of_ranks_extracts_the_same_features_and_statistics(features: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    expected = _extracted(SINGLE, tmp_path / "1", features)
    for world_size in (2, 3):
        for found in on_ranks(world_size, _extracted, tmp_path / str(world_size), features):
            assert found == expected


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_continues(study: Callable[[str], Path], tmp_path: Path) -> None:
    """`ditbench sample`, then `ditbench evaluate`, each killed once its first piece is on disk."""
    run = finished(tiny(train={"checkpoint_steps": []}, evaluation={"num_samples": 20}), study("a"))
    real = tmp_path / "digits.npy"
    reference = DIGITS.reference("digits", DIGITS.options()).images
    assert reference is not None
    np.save(real, reference.pixels(0, 1797))

    def sample(out: Path) -> list[str]:
        settings = ["--num-samples", "4000", "--sampling-steps", "8", "--batch-size", "50", "--clip-denoised"]
        return [str(DITBENCH), "sample", str(run), "--out", str(out), *settings]

    def evaluate(samples: Path, work: Path) -> list[str]:
        settings = ["--extractor", "digits-cnn", "--kid-subset-size", "50", "--work", str(work), "--format", "json"]
        return [str(DITBENCH), "evaluate", str(samples), "--reference", str(real), *settings]

    whole, parts = tmp_path / "whole.npy", tmp_path / "parts.npy"
    subprocess.run(sample(whole), check=True, capture_output=True)
    _kill_after_first(sample(parts), tmp_path / ".parts.npy", "*.npy")
    made = {path.name: path.stat().st_ino for path in (tmp_path / ".parts.npy").glob("*.npy")}
    assert 0 < len(made) < 80
    subprocess.run(sample(parts), check=True, capture_output=True)
    assert parts.read_bytes() == whole.read_bytes()

    scored = subprocess.run(evaluate(whole, tmp_path / "once"), check=True, capture_output=True, text=True).stdout
    _kill_after_first(evaluate(parts, tmp_path / "twice"), tmp_path / "twice", "**/features-*.safetensors")
    again = subprocess.run(evaluate(parts, tmp_path / "twice"), check=True, capture_output=True, text=True).stdout
    assert again.replace("parts.npy", "whole.npy") == scored


def _kill_after_first(command: list[str], folder: Path, pattern: str) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
