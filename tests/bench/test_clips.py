"""Clips, (N, C, T, H, W), wherever images are: data, training, samples, files, scores; and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import parts_of_clips
import pytest
import torch
import yaml
from command_line import ditbench

from analysis.results.tables import load, own_metrics
from bench.data import data_part
from bench.data.clips import moving_digits
from bench.data.decoders import Pixels
from bench.data.digits import DIGITS
from bench.data.images import ArrayImages, open_images, write_npz
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import write_config
from bench.recipe import load_recipe, parse_recipe
from bench.run import build_model, run
from bench.sample import Sampling, sample
from bench.score.extractors import load_extractor
from bench.score.fidelity import Scorer
from bench.score.reference import Reference
from models.parts import NoOptions

CPU = torch.device("cpu")
OF_CLIPS = ("frame_fid", "temporal_consistency")


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    return data_part("moving-digits").images("moving-digits", NoOptions())[0]


def shuffled(clips: np.ndarray) -> np.ndarray:
    """Every clip's frames in another order."""
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(clips.shape[2]), (len(clips), 1)), axis=1)
    return np.take_along_axis(clips, orders[:, None, :, None, None], axis=2)


def half_of(clips: np.ndarray) -> np.ndarray:
    return clips[np.random.default_rng(1).permutation(len(clips))[: len(clips) // 2]]


def test_every_frame_is_a_digit_that_moves_and_bounces(real: np.ndarray) -> None:
    digits, classes = DIGITS.images("digits", NoOptions())
    labels = data_part("moving-digits").images("moving-digits", NoOptions())[1]
    assert real.shape == (4000, 1, 8, 12, 12) and np.bincount(labels).tolist() == [400] * 10
    for clip, label, motion in zip(real, labels, moving_digits.motions(), strict=True):
        place, velocity = list(motion.start), list(motion.velocity)
        assert classes[motion.image] == label and {abs(v) for v in velocity} <= {1, 2}
        for frame in clip[0]:
            y, x = place
            assert np.array_equal(frame[y : y + 8, x : x + 8], digits[motion.image, 0])
            assert frame.sum(dtype=int) == digits[motion.image].sum(dtype=int)  # and nothing elsewhere
            for axis in (0, 1):
                place[axis] += velocity[axis]
                if not 0 <= place[axis] <= 4:
                    place[axis] = -place[axis] if place[axis] < 0 else 8 - place[axis]
                    velocity[axis] *= -1


def test_other_clips_than_those_of_all_studies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    moving_digits.compose.cache_clear()
    before = moving_digits.motions()
    monkeypatch.setattr(moving_digits, "motions", lambda: (before[10], *before[1:]))  # of the same class
    with pytest.raises(InputError, match="moving-digits"):
        moving_digits.compose()


def test_scores_tell_the_order_of_frames_and_those_of_frames_do_not(real: np.ndarray, tmp_path: Path) -> None:
    parts_of_clips.write(tmp_path)
    load_recipe(tmp_path / "clips.yaml")
    extractor = load_extractor("clip_parts:SQUARES", tmp_path, offline=True)
    reference = Reference("real", "real-4000-0", ArrayImages(real), {})
    scorer = Scorer(reference, extractor, 100, tmp_path / "features", CPU, metrics=OF_CLIPS)
    same = scorer.score(ArrayImages(real), tmp_path / "same")
    mixed = scorer.score(ArrayImages(shuffled(real)), tmp_path / "mixed")
    half = scorer.score(ArrayImages(half_of(real)), tmp_path / "half")
    assert same["fid"] < 1e-9 and same["frame_fid"] < 1e-9
    assert mixed["fid"] > 20 * half["fid"] > 0
    assert mixed["frame_fid"] < 1e-9 < half["frame_fid"]
    squares = real.reshape(4000, 8, 3, 4, 3, 4).astype(np.float64).mean(axis=(3, 5)).reshape(4000, 8, 9)
    length = np.linalg.norm(squares, axis=2)
    cosines = (squares[:, 1:] * squares[:, :-1]).sum(2) / (length[:, 1:] * length[:, :-1])
    assert same["temporal_consistency"] == pytest.approx(cosines.mean(), rel=1e-6)
    assert same["temporal_consistency_real"] == same["temporal_consistency"] == mixed["temporal_consistency_real"]
    assert mixed["temporal_consistency"] < same["temporal_consistency"] - 0.02
    still = scorer.score(ArrayImages(np.repeat(real[:, :, :1], 8, axis=2)), tmp_path / "still")
    assert still["temporal_consistency"] == pytest.approx(1)


def test_statistics_of_frames_stand_for_their_clips(real: np.ndarray, tmp_path: Path) -> None:
    """`ditbench reference` of clips, then a score against it, equals the score against the clips."""
    parts_of_clips.write(tmp_path)
    np.save(tmp_path / "real.npy", real[:600])
    np.save(tmp_path / "made.npy", shuffled(real[600:700]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        by = ("--extractor", "clip_parts:SQUARES")
        assert ditbench("reference", "real.npy", *by, "--out", "real.npz").status == 0
        rows = {}
        for name in ("real.npz", "real.npy"):
            done = ditbench(
                "evaluate", "made.npy", "--reference", name, *by, "--kid-subset-size", 50, "--work", name[5:]
            )
            assert done.status == 0, done.err
            (written,) = Path(name[5:]).glob("*.json")
            rows[name] = json.loads(written.read_text())
    for name in ("fid", "frame_fid"):
        assert rows["real.npz"][name] == pytest.approx(rows["real.npy"][name], rel=1e-6)
    assert "temporal_consistency" in rows["real.npy"] and "temporal_consistency" not in rows["real.npz"]


def test_files_of_clips_keep_them_bit_for_bit(real: np.ndarray, tmp_path: Path) -> None:
    clips = real[:7]
    np.save(tmp_path / "clips.npy", clips)
    write_npz(open_images(tmp_path / "clips.npy"), tmp_path / "clips.npz")
    with np.load(tmp_path / "clips.npz") as archive:
        assert archive["arr_0"].shape == (7, 8, 12, 12, 1)
    read = [open_images(tmp_path / name) for name in ("clips.npy", "clips.npz")]
    assert all(np.array_equal(one.pixels(0, 7), clips) for one in read)
    assert read[0].content_hash() == read[1].content_hash()
    refused = ditbench("export-samples", tmp_path / "clips.npy", f"{tmp_path}/frames/")
    assert refused.status == 2 and len(refused.err.splitlines()) == 1
    assert not (tmp_path / "frames").exists()


def test_a_sample_of_a_clip_does_not_depend_on_its_batch(tmp_path: Path) -> None:
    read = load_recipe(parts_of_clips.write(tmp_path))
    sampling, model = Sampling.of(read), build_model(read, CPU).eval()

    def samples(start: int, stop: int) -> torch.Tensor:
        return sample(model, sampling, Pixels(), start, stop, CPU, "fp32")

    whole = samples(0, 60)
    assert whole.shape == (60, 1, 8, 12, 12) and whole.dtype == torch.uint8
    assert torch.equal(whole, torch.cat([samples(0, 1), samples(1, 47), samples(47, 60)]))


def test_a_run_of_clips_from_training_to_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: np.ndarray
) -> None:
    monkeypatch.chdir(tmp_path)
    read = load_recipe(parts_of_clips.write(tmp_path))
    study = tmp_path / "runs" / "clips"
    folder = study / read.folder_name
    write_config(read, folder)
    run(folder, study)
    rows = jsonl.read(folder / "evals.jsonl")
    assert [row["step"] for row in rows] == [2, 4]
    for row in rows:
        assert row["reference"].startswith("moving-digits-4000-") and row["decoder"] == "pixels"
        assert {"fid", "frame_fid", "temporal_consistency", "temporal_consistency_real", "kid"} < row.keys()
        assert np.load(folder / row["samples"]).shape == (60, 1, 8, 12, 12)
    samples = folder / rows[-1]["samples"]
    done = ditbench("evaluate", samples, "--run", folder, "--format", "json")
    assert done.status == 0, done.err
    again = json.loads(done.out)
    compared = ("fid", "frame_fid", "temporal_consistency", "run", "step")
    assert [again[key] for key in compared] == [{**rows[-1], "run": read.id}[key] for key in compared]

    assert ditbench("collect", study, "--out", "results").status == 0
    found = load(tmp_path / "results")
    assert np.array_equal(found.samples[read.id], np.load(samples)[:10])
    assert np.array_equal(found.real["moving-digits"][0], real[:10])
    assert found.earlier_samples[read.id][2].shape == (10, 1, 8, 12, 12)
    assert found.evals["frame_fid"].tolist() == [row["frame_fid"] for row in rows]
    assert own_metrics(found.runs) == {
        "frame_fid": "Fréchet distance of frames ↓",
        "temporal_consistency": "Temporal consistency ↑",
    }
    done = ditbench("verify", study)
    assert done.status == 0, done.out


REFUSED: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "a network of images": (
        {"model": {"name": "DiT-S/2", "input_size": 12, "in_channels": 1, "num_classes": 10}},
        "model: DiT-S/2",
    ),
    "features of images": ({"evaluation": {"extractor": "digits-cnn"}}, "evaluation.extractor: digits-cnn"),
    "features of images of any size": (
        {"evaluation": {"extractor": "inception-v3-compat"}},
        "evaluation.extractor: inception-v3-compat",
    ),
    "fewer frames than the features are of": (
        {"data": {"name": "short:SHORT"}, "model": {"frames": 4}},
        "evaluation.extractor:",
    ),
    "a network of more frames": ({"model": {"frames": 9}}, "model: clip_parts:FAMILY"),
    "a clip shorter than the temporal patch": (
        {
            "model": {
                **{"name": "VideoDiT", "depth": 1, "hidden_size": 16, "num_heads": 2, "num_classes": 10},
                **{"frames": 8, "input_size": 12, "in_channels": 1, "patch_frames": 9, "patch_size": 4},
            }
        },
        "model.frames: 8",
    ),
    "a picture of no two sides": ({"data": {"name": "short:FLAT"}}, "data.name: samples of short:FLAT"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_clips_is_refused_when_the_recipe_is_read(case: str, tmp_path: Path) -> None:
    changes, begins = REFUSED[case]
    path = parts_of_clips.write(tmp_path)
    (tmp_path / "short.py").write_text(
        "from bench.data import DatasetFacts, PixelDataset\n\n\n"
        "class Short(PixelDataset):\n"
        "    def facts(self, name, options):\n"
        "        shape = (1, 12) if name.endswith('FLAT') else (1, 4, 12, 12)\n"
        "        return DatasetFacts(100, shape, shape, num_classes=10)\n\n\n"
        "SHORT = FLAT = Short()\n"
    )
    content = parts_of_clips.recipe()
    for section, keys in changes.items():
        content[section] = keys if "name" in keys and section == "model" else {**content[section], **keys}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: {begins}") and "\n" not in str(caught.value)


def test_metrics_and_features_of_clips_are_refused_for_images() -> None:
    content = {
        "model": {"name": "DiT-S/4", "input_size": 8, "in_channels": 1, "num_classes": 10},
        "data": {"name": "digits"},
        "evaluation": {"extractor": "digits-cnn", "num_samples": 60, "kid_subset_size": 20},
    }
    assert parse_recipe(content, "mine").evaluation.extractor == "digits-cnn"
    for key, value in (("metrics", ["frame_fid"]), ("extractor", "moving-digits-cnn")):
        changed = {**content, "evaluation": {**content["evaluation"], key: value}}
        with pytest.raises(InputError, match=f"^mine: evaluation.{key}: "):
            parse_recipe(changed, "mine")


def test_samples_of_another_kind_than_the_features_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: np.ndarray
) -> None:
    monkeypatch.chdir(tmp_path)
    parts_of_clips.write(tmp_path)
    np.save("clips.npy", real[:40])
    np.save("images.npy", real[:40, :, 0])
    np.save("short.npy", real[:40, :, :4])
    small = ("--kid-subset-size", 10)
    for samples, reference, extractor in (
        ("clips.npy", "clips.npy", "digits-cnn"),
        ("images.npy", "images.npy", "clip_parts:SQUARES"),
        ("short.npy", "short.npy", "clip_parts:SQUARES"),
        ("images.npy", "clips.npy", "clip_parts:SQUARES"),
        ("clips.npy", "digits", "clip_parts:SQUARES"),
    ):
        done = ditbench("evaluate", samples, "--reference", reference, "--extractor", extractor, *small)
        assert done.status == 2 and len(done.err.splitlines()) == 1, (samples, reference, done.err)
    done = ditbench("reference", "images.npy", "--extractor", "clip_parts:SQUARES", "--out", "out.npz")
    assert done.status == 2 and len(done.err.splitlines()) == 1, done.err


@pytest.mark.slow
def test_the_network_of_moving_digits_sees_class_place_and_speed(real: np.ndarray, tmp_path: Path) -> None:
    extractor = load_extractor("moving-digits-cnn", tmp_path, offline=True)
    assert extractor.test_accuracy is not None and extractor.test_accuracy > 0.9
    assert load_extractor("moving-digits-cnn", tmp_path, offline=True).id == extractor.id  # kept
    reference = data_part("moving-digits").reference("moving-digits", NoOptions())
    scorer = Scorer(reference, extractor, 100, tmp_path / "features", CPU, metrics=(*OF_CLIPS, "inception_score"))
    half = scorer.score(ArrayImages(half_of(real)), tmp_path / "half")
    mixed = scorer.score(ArrayImages(shuffled(real)), tmp_path / "mixed")
    assert mixed["fid"] > 10 * half["fid"] and mixed["frame_fid"] < 0.01
    assert half["temporal_consistency"] > mixed["temporal_consistency"] + 0.03
    assert half["inception_score"] > 7
