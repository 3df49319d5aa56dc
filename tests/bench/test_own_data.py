"""A data set of one's own, in a file outside the repository: trained and scored against its own images, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from recipes import content

from bench.data import DatasetFacts
from bench.data.pixels import from_uint8
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import write_config
from bench.ready import check_ready
from bench.recipe import Recipe, load_recipe
from bench.run import run
from bench.score.evaluate import reference_of

STRIPES = '''
from dataclasses import dataclass

import numpy as np

from bench.data import DatasetFacts, PixelDataset


@dataclass(frozen=True)
class StripesOptions:
    length: int = 40


class Stripes(PixelDataset):
    """Vertical stripes and horizontal ones."""

    options = StripesOptions

    def facts(self, name, options):
        return DatasetFacts(options.length, (3, 32, 32), (3, 32, 32), num_classes=2)

    def images(self, name, options):
        random = np.random.default_rng(0)
        stripes = np.arange(32) // random.integers(1, 5, (options.length, 3, 1, 1)) % 2 * 200
        labels = np.arange(options.length) % 2
        images = np.broadcast_to(stripes, (options.length, 3, 32, 32)).astype(np.uint8)
        images[labels == 1] = images[labels == 1].swapaxes(2, 3)
        return images, labels
'''
# What the images of a subclass are instead, and why they are refused.
WRONG = {
    "fewer": (
        "images[1:], labels[1:]",
        r"its images are uint8 \(39, 3, 32, 32\), by its facts uint8 \(40, 3, 32, 32\)",
    ),
    "smaller": ("images[:, :, ::2, ::2], labels", r"uint8 \(40, 3, 16, 16\)"),
    "scaled": ("images / 127.5 - 1, labels", r"its images are float64"),
    "unlabelled": ("images, labels[1:]", r"its labels are int64 \(39,\)"),
    "halves": ("images, labels / 2", r"its labels are float64"),
    "counted from one": ("images, labels + 1", r"its labels are 1 to 2; accepted: 0 to 1"),
    "lost": ("open('/nowhere/at/all')", r"its images cannot be read \(.*No such file"),
}


def write_recipe(folder: Path, module: str, changes: dict[str, Any] | None = None) -> Path:
    path = folder / "recipe.yaml"
    (folder / "my_stripes.py").write_text(module)
    base: dict[str, Any] = {
        "model.in_channels": 3,
        "model.input_size": 32,
        "model.patch_size": 8,
        "model.num_classes": 2,
        "data": {"name": "my_stripes:Stripes"},
        "train.steps": 2,
        "train.batch_size": 8,
        "train.checkpoint_steps": [],
        "evaluation.num_samples": 20,
        "evaluation.kid_subset_size": 10,
        "evaluation.extractor": "coloured_squares:RANDOM_FILTERS",
    }
    path.write_text(yaml.safe_dump(content({**base, **(changes or {})})))
    return path


def own(folder: Path, module: str = STRIPES, changes: dict[str, Any] | None = None) -> Recipe:
    return load_recipe(write_recipe(folder, module, changes))


def start(recipe: Recipe, study: Path) -> Path:
    folder = study / recipe.folder_name
    write_config(recipe, folder)
    return folder


def test_facts_and_images_are_all_that_it_takes(tmp_path: Path) -> None:
    recipe = own(tmp_path)
    assert recipe.data.facts == DatasetFacts(40, (3, 32, 32), (3, 32, 32), 2)
    check_ready(recipe, offline=True)
    dataset, reference = recipe.data.load(torch.device("cpu")), reference_of(recipe, offline=True)
    x, labels = dataset.batch(torch.arange(40), slice(None), torch.Generator())
    assert reference.images is not None
    assert torch.equal(x, from_uint8(reference.images.batch(0, 40)))
    assert labels.tolist() == [0, 1] * 20
    assert reference.id.startswith("Stripes-40-")
    assert own(tmp_path, changes={"data": {"name": "my_stripes:Stripes", "length": 40}}).id == recipe.id
    assert own(tmp_path, changes={"data": {"name": "my_stripes:Stripes", "length": 36}}).id != recipe.id


def test_it_is_scored_against_its_own_images(tmp_path: Path) -> None:
    recipe = own(tmp_path)
    folder = start(recipe, tmp_path / "study")
    run(folder, tmp_path / "study")
    (score,) = jsonl.read(folder / "evals.jsonl")
    assert score["reference"] == reference_of(recipe, offline=True).id
    assert np.load(folder / "samples" / "step-00000002.npy").shape == (20, 3, 32, 32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation.extractor": "digits-cnn"}, r"evaluation\.extractor: digits-cnn takes images \(1, 8, 8\)"),
        ({"evaluation.reference": "adm-imagenet-256"}, r"evaluation\.reference: my_stripes:Stripes brings its own"),
        ({"model.in_channels": 1}, r"\(1, 32, 32\).*\(3, 32, 32\)"),
        ({"model.num_classes": 10}, r"model\.num_classes: 10, but my_stripes:Stripes has 2"),
        ({"data": {"name": "my_stripes:Stripes", "width": 3}}, r"data\.width: unknown key; accepted: name, length"),
        ({"data": {"name": "my_stripes:np"}}, r"data\.name: 'my_stripes:np' is no data set"),
    ],
)
def test_it_is_never_scored_against_another_s_images(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        own(tmp_path, changes=changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", WRONG)
def test_images_that_are_not_as_its_facts_say_are_refused(tmp_path: Path, what: str) -> None:
    returned, message = WRONG[what]
    wrong = STRIPES.replace("return images, labels", f"return {returned}")
    recipe = own(tmp_path, wrong)
    for ask in (lambda: check_ready(recipe, offline=True), lambda: recipe.data.load(torch.device("cpu"))):
        with pytest.raises(InputError, match=rf"^data\.name: my_stripes:Stripes: .*{message}"):
            ask()


DIGITS_REFERENCE = """
    def reference(self, name, options):
        from bench.data.digits import DIGITS

        return DIGITS.reference("digits", DIGITS.options())
"""


def test_a_reference_of_another_image_size_is_refused_before_training(tmp_path: Path) -> None:
    recipe = own(tmp_path, STRIPES + DIGITS_REFERENCE)
    message = r"^digits: its images are \(1, 8, 8\), samples of my_stripes:Stripes are \(3, 32, 32\)"
    with pytest.raises(InputError, match=message):
        check_ready(recipe, offline=True)
    folder = start(recipe, tmp_path / "study")
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path / "study")
    assert not (folder / "train.jsonl").exists()
    assert not list((folder / "checkpoints").glob("*"))
    assert "digits: its images are" in json.loads((folder / "error.json").read_text())["error"]
