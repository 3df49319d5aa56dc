"""`ditbench evaluate` and `ditbench sample`: anyone's samples, any weights, and what bad input is told."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ditbench
from full_path import make_vae
from recipes import tiny
from runs import finished

from bench.data.digits import DIGITS
from bench.data.images import ArrayImages, open_images, write_npz, write_pngs
from bench.errors import InputError
from bench.files import jsonl
from bench.parallel import SINGLE
from bench.score.evaluate import named_reference
from bench.score.evaluate_samples import add_to_run, evaluate_samples
from bench.stopping import StopRequest
from bench.weights import load_weights_of
from ditbench import main
from models.files.assets import MissingAsset

CPU = torch.device("cpu")
REAL = DIGITS.reference("digits", DIGITS.options()).images
assert REAL is not None
PIXELS = REAL.pixels(0, 1797)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "digits.npy"
    np.save(path, PIXELS)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 digits with noise, as if someone had made them."""
    path = tmp_path_factory.mktemp("samples") / "somebodys.npy"
    noise = np.random.default_rng(0).normal(0, 30, PIXELS[::9].shape)
    np.save(path, (PIXELS[::9] + noise).clip(0, 255).round().astype(np.uint8))
    return path


@pytest.fixture
def score(features: Path, real: Path) -> Callable[..., dict[str, Any]]:
    def score(path: Path, reference: Path | str = real, num_samples: int | None = None) -> dict[str, Any]:
        how = (named_reference(str(reference), offline=True), "digits-cnn", num_samples, 20, features)
        return evaluate_samples(path, *how, CPU, SINGLE, StopRequest(), offline=True)  # pyright: ignore[reportArgumentType]

    return score


def test_the_same_images_score_the_same_in_every_container(
    score: Callable[..., dict[str, Any]], samples: Path, features: Path, tmp_path: Path
) -> None:
    expected = score(samples)
    assert expected["num_samples"] == 200
    assert expected["reference"].startswith("digits-1797-")
    assert expected["fid"] > 0
    images = open_images(samples)
    write_npz(images, tmp_path / "somebodys.npz")
    write_pngs(images, tmp_path / "somebodys")
    for path in (tmp_path / "somebodys.npz", tmp_path / "somebodys"):
        row = score(path)
        assert row.pop("samples") == str(path)
        assert row == {key: value for key, value in expected.items() if key != "samples"}
    name = f"{expected['samples_id']}-200-{expected['extractor']}-{expected['reference']}.json"
    written = json.loads((features / name).read_text())
    assert {key: written[key] for key in row} == row


def test_a_data_set_of_images_is_a_reference_by_its_name(
    score: Callable[..., dict[str, Any]], samples: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    by_name, by_file = score(samples, "digits"), score(samples)
    assert by_name.pop("reference").startswith("digits-1797-")
    assert {key: by_file[key] for key in ("fid", "kid", "precision")} == {
        key: by_name[key] for key in ("fid", "kid", "precision")
    }
    for name in ("image-folder", "latents"):
        with pytest.raises((InputError, MissingAsset)):
            score(samples, name)


def test_what_lies_beside_samples_fills_no_metric(
    score: Callable[..., dict[str, Any]], samples: Path, tmp_path: Path
) -> None:
    path = tmp_path / "somebodys.npy"
    path.write_bytes(samples.read_bytes())
    expected = score(path)
    said = {"sfid": 1.0, "kid": 0.0, "run": "0123456789", "step": 6, "content_hash": open_images(path).content_hash()}
    for name in ("somebodys.json", "somebodys.npy.json"):
        (tmp_path / name).write_text(json.dumps(said))
        assert score(path) == expected
    (tmp_path / "somebodys.npy.json").write_text(json.dumps({k: v for k, v in said.items() if "id" not in k}))
    assert score(path) == {"run": "0123456789", "step": 6, **expected}


def test_a_folder_is_scored_by_the_rule_of_folders_and_what_is_passed_over_is_said(
    samples: Path, real: Path, features: Path, tmp_path: Path
) -> None:
    """Samples in linked folders are all scored, and no file of a system with them."""
    folder, elsewhere = tmp_path / os.fsdecode(b"sampl\xe9s"), tmp_path / "elsewhere"
    pixels = np.load(samples)
    for place, part in ((folder / "a", pixels[:40]), (elsewhere, pixels[40:])):
        write_pngs(ArrayImages(part), place)
    (folder / "b").symlink_to(elsewhere)
    (folder / "b" / "loop").symlink_to(folder)
    for junk in ("._000000.png", "Thumbs.db"):
        (folder / "a" / junk).write_bytes(b"junk")
    how = ("--extractor", "digits-cnn", "--kid-subset-size", 20, "--work", features, "--format", "json")
    ended = ditbench("evaluate", folder, "--reference", real, *how)
    assert (ended.status, ended.err.count("\n")) == (0, 1)
    assert "200 images; passed over: " in ended.err
    row = json.loads(ended.out)
    assert row["num_samples"] == 200
    assert row["samples_id"] == ArrayImages(pixels).content_hash()[:10]
    assert row["samples"] == f"{tmp_path}/sampl\\xe9s"


def test_the_first_samples_are_what_is_scored(
    score: Callable[..., dict[str, Any]], samples: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "fewer.npy", np.load(samples)[:150])
    fewer, first = score(tmp_path / "fewer.npy"), score(samples, num_samples=150)
    assert first["num_samples"] == 150
    assert first["samples_id"] != fewer["samples_id"]
    assert {key: first[key] for key in ("fid", "kid", "recall")} == {
        key: fewer[key] for key in ("fid", "kid", "recall")
    }


def test_samples_and_references_that_do_not_fit_are_refused(
    score: Callable[..., dict[str, Any]], samples: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "large.npy", np.zeros((30, 1, 16, 16), np.uint8))
    np.save(tmp_path / "float.npy", np.zeros((30, 1, 8, 8), np.float32))
    np.save(tmp_path / "one.npy", PIXELS[:1])
    np.save(tmp_path / "few.npy", PIXELS[:19])
    np.savez(tmp_path / "other.npz", mu=np.zeros(3), sigma=np.eye(3))
    refused = [
        ((samples, real, 19), r"somebodys\.npy: 19 samples, fewer than a subset of KID has \(20\)"),
        ((samples, real, 201), r"somebodys\.npy: has 200 samples, fewer than the 201 asked for"),
        (
            (tmp_path / "large.npy",),
            r"large\.npy: images are \(1, 16, 16\), .* digits are \(1, 8, 8\)",
        ),
        ((tmp_path / "float.npy",), r"float\.npy: float32 .*; accepted: uint8"),
        ((tmp_path / "one.npy",), r"one\.npy: has one sample"),
        ((tmp_path / "none.npy",), r"none\.npy: no such file"),
        ((samples, tmp_path / "few.npy"), r"kid_subset_size: 20 is more than the 19 images of few"),
        ((samples, tmp_path / "other.npz"), r"other\.npz: mu.*2048"),
    ]
    for arguments, message in refused:
        with pytest.raises(InputError, match=message):
            score(*arguments)
    with pytest.raises(MissingAsset, match="adm-imagenet-256"):
        score(samples, "adm-imagenet-256")


def test_too_few_samples_for_a_score_are_refused_in_one_line(samples: Path, real: Path, features: Path) -> None:
    """Ten splits of three samples: some are empty."""
    with pytest.raises(InputError, match=r"somebodys\.npy: 3 samples cannot be scored \(inception_score: not finite"):
        how = (named_reference(str(real), offline=True), "digits-cnn", 3, 2, features)
        evaluate_samples(samples, *how, CPU, SINGLE, StopRequest(), offline=True)


@pytest.fixture
def _handlers() -> Iterator[None]:
    """Signals mean afterwards what they meant before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
def test_a_run_s_weights_are_sampled_otherwise_and_the_score_goes_to_its_folder(
    study: Callable[[str], Path],
    real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = finished(tiny(), study("a"))
    out = tmp_path / "guided.npy"

    def ditbench(*arguments: object, status: int = 0) -> str:
        """What the command prints: on stderr where it is to be refused."""
        monkeypatch.setattr(sys, "argv", ["ditbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code == status, printed
        return printed.err if status else printed.out

    make_vae(tmp_path / "vae", small=True)
    guided = ("--guidance-scale", 3000, "--guidance-channels", 1, "--sampling-steps", 4, "--num-samples", 60)
    command = ("sample", folder, "--step", 6, "--out", out, "--clip-denoised", *guided)
    assert "60 samples made" in ditbench(*command)
    assert "60 samples were there" in ditbench(*command)
    score = ("evaluate", out, "--reference", real, "--extractor", "digits-cnn", "--kid-subset-size", 20)
    score = (*score, "--work", folder.parent / "features", "--run", folder)
    assert ditbench(*score) == ditbench(*score)  # the row is added once
    assert "inception_score" in ditbench(*score)
    (row,) = jsonl.read(folder / "other-evals.jsonl")
    assert (row["step"], row["guidance_scale"], row["decoder"], row["run"]) == (6, 3000, "pixels", tiny().id)
    own = jsonl.read(folder / "evals.jsonl")[0]
    assert own["step"] == 6
    assert own["fid"] != row["fid"]
    by_default = ("evaluate", out, "--work", folder.parent / "features", "--run", folder, "--format", "json")
    same = json.loads(ditbench(*by_default))  # reference, features and subsets are the run's
    assert [same[key] for key in ("reference", "extractor", "kid_subset_size")] == [
        own[key] for key in ("reference", "extractor", "kid_subset_size")
    ]
    assert same["fid"] == row["fid"]
    assert own["reference"] != row["reference"]  # the same images in a file have another id

    from analysis.results import tables
    from bench.files.run_files import read_records

    collected = tables.collect(read_records(folder.parent), tmp_path / "results")
    assert len(collected.evals) == 2
    assert collected.other_evals["guidance_scale"].tolist() == [3000.0, 3000.0]
    again = tables.load(tmp_path / "results").other_evals
    assert again["fid"].tolist() == collected.other_evals["fid"].tolist() == [row["fid"]] * 2

    unguided = ("sample", folder, "--step", 6, "--out", tmp_path / "own.npy", "--clip-denoised")
    ditbench(*unguided, "--sampling-steps", 4, "--num-samples", 60)
    samples = np.load(folder / "samples/step-00000006.npy")
    assert np.array_equal(np.load(tmp_path / "own.npy"), samples), "the same settings are the same samples"

    for arguments, message in (
        ((*command, "--seed", 1), "guided.npy: holds other samples (seed is 0 there, 1 here)"),
        (("sample", folder, "--step", 7, "--out", tmp_path / "x.npy"), "--step 7:"),
        (("sample", folder, "--out", tmp_path / "x.npz"), "accepted: a .npy file"),
        (("sample", folder, "--out", tmp_path / "x.npy", "--guidance-scale", "inf"), "--guidance-scale"),
        (("sample", folder, "--out", tmp_path / "x.npy", "--decoder", tmp_path / "vae"), "is for other latents"),
        (
            ("sample", folder, "--out", tmp_path / "x.npy", "--sampling-steps", 1001),
            "--sampling-steps: 1001",
        ),
        (("sample", folder, "--out", tmp_path / "x.npy", "--guidance-scale", 2), "--guidance-channels: 3 is more than"),
        (("evaluate", out, "--reference", real, "--format", "yaml"), "--format yaml: accepted: table, json"),
        (("evaluate", out), "--reference: missing; accepted: a reference, or --run RUN for that run's own"),
    ):
        lines = ditbench(*arguments, status=2).strip().splitlines()
        assert message in lines[-1]


def test_a_row_of_other_weights_is_not_added_to_a_run(study: Callable[[str], Path]) -> None:
    folder = finished(tiny(train={"checkpoint_steps": []}), study("a"))
    for row in ({}, {"run": "0123456789", "step": 6}, {"run": tiny().id}):
        with pytest.raises(InputError, match=r"--run .*: is run"):
            add_to_run(row, folder)
    assert not (folder / "other-evals.jsonl").exists()


def test_weights_that_are_not_there_are_refused(
    study: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingAsset, match="ditbench prepare DiT-XL/2-256"):
        load_weights_of("DiT-XL/2-256", None, offline=True)
    with pytest.raises(InputError, match="--step: DiT-XL/2-256 is not a run's folder"):
        load_weights_of("DiT-XL/2-256", 5, offline=True)
    folder = finished(tiny(train={"checkpoint_steps": []}), study("a"))
    (weights,) = (folder / "checkpoints").glob("ema-*")
    weights.write_bytes(weights.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"ema-00000012\.safetensors: damaged"):
        load_weights_of(str(folder), None, offline=True)
    weights.unlink()
    with pytest.raises(InputError, match=r"has no weights yet; its recipe keeps steps \[12\]"):
        load_weights_of(str(folder), None, offline=True)


def test_images_in_memory_and_on_disk_are_the_same_reference(real: Path) -> None:
    assert ArrayImages(PIXELS).content_hash() == open_images(real).content_hash()
