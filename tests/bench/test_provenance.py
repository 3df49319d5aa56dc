"""What lies beside samples is believed if the suite wrote it for exactly these pixels, and ignored otherwise."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import tiny

from bench.data.decoders import Pixels
from bench.data.images import open_images, write_npz, write_pngs
from bench.parallel import SINGLE
from bench.provenance import MADE_FROM, made_from_path, read_made_from, write_made_from
from bench.run import build_model
from bench.sample import Sampling, make_samples
from bench.score.evaluate import sampling_key
from bench.stopping import StopRequest

CPU = torch.device("cpu")
RECIPE = tiny(evaluation={"num_samples": 10, "kid_subset_size": 5, "batch_size": 4})
SAID = {"run": RECIPE.id, "step": 6, **sampling_key(RECIPE.evaluation, RECIPE.diffusion, "pixels"), "commit": None}


def make(path: Path, replace_unknown: bool = False) -> float | None:
    arguments = (Sampling.of(RECIPE), SAID, lambda: build_model(RECIPE, CPU), Pixels(), CPU, "fp32", SINGLE)
    return make_samples(path, *arguments, StopRequest(), replace_unknown)


def believed(path: Path) -> dict[str, Any]:
    return read_made_from(path, open_images(path).content_hash())


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    make(tmp_path / "a.v2.npy")
    return tmp_path / "a.v2.npy"


def test_what_the_suite_wrote_for_these_pixels_is_believed(samples: Path) -> None:
    assert believed(samples) == SAID
    assert set(SAID) <= set(MADE_FROM)
    assert [path.name for path in sorted(samples.parent.iterdir())] == ["a.v2.npy", "a.v2.npy.json"]


def test_it_is_of_the_pixels_in_whatever_container(samples: Path) -> None:
    images = open_images(samples)
    write_npz(images, samples.with_name("b.npz"))
    write_pngs(images, samples.with_name("c.v1"))
    for name in ("b.npz", "c.v1"):
        other = samples.with_name(name)
        assert believed(other) == {}, "a name alone says nothing"
        made_from_path(other).write_bytes(made_from_path(samples).read_bytes())
        assert believed(other) == SAID


@pytest.mark.parametrize(
    "changes", [{"fid": 1.25}, {"samples": "x"}, {"sampler": ["ddpm"]}, {"content_hash": "0" * 64}]
)
def test_anything_else_beside_samples_is_ignored_with_a_line(
    samples: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = made_from_path(samples)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with caplog.at_level(logging.WARNING):
        assert believed(samples) == {}
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}: ignored, ")


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b"[" * 100_000, b'{"run": "0123456789", "step": 6}'])
def test_a_document_that_is_none_of_ours(samples: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    made_from_path(samples).write_bytes(content)
    assert believed(samples) == {}
    assert len(caplog.records) == 1


def test_one_changed_pixel_makes_them_other_samples(samples: Path) -> None:
    pixels = np.load(samples)
    pixels[7, 0, 3, 3] ^= 1
    np.save(samples, pixels)
    assert believed(samples) == {}


def test_documents_of_neighbours_and_of_earlier_versions_are_ignored(
    samples: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Earlier versions replaced the ending, and wrote no hash."""
    earlier, neighbour = samples.with_name("a.v2.json"), samples.with_name("a.json")
    made_from_path(samples).rename(earlier)
    neighbour.write_bytes(earlier.read_bytes())
    assert believed(samples) == {}
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{earlier}: ignored, ")


@pytest.mark.parametrize("damage", ["another pixel", "cut short", "no document"])
def test_a_run_makes_its_own_samples_again_where_nothing_tells_what_they_are(samples: Path, damage: str) -> None:
    whole, document = samples.read_bytes(), made_from_path(samples).read_bytes()
    if damage == "another pixel":
        samples.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "cut short":
        samples.write_bytes(whole[:-1])
    else:
        made_from_path(samples).unlink()
    assert make(samples, replace_unknown=True) is not None
    assert (samples.read_bytes(), made_from_path(samples).read_bytes()) == (whole, document)
    assert make(samples, replace_unknown=True) is None


def test_a_kill_between_the_document_and_the_samples_loses_nothing(samples: Path, tmp_path: Path) -> None:
    expected = samples.read_bytes()
    other = tmp_path / "other.npy"
    write_made_from(other, SAID, "0" * 64)  # written before the samples, which never came
    make(other)
    assert other.read_bytes() == expected
    assert believed(other) == SAID
