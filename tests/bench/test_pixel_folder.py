"""Folders of images in pixels: what a recipe must say of one, its examples and mirror images, and a whole run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured_squares import EACH, SIDE, make_squares
from PIL import Image
from recipes import content
from torch import Tensor

from bench.data import Dataset
from bench.data.image_folder import list_images, read_image
from bench.data.pixel_folder import IMAGE_FOLDER, ImageFolderOptions
from bench.data.pixels import from_uint8
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import read_config, write_config
from bench.parallel import Execution
from bench.ready import check_ready
from bench.recipe import Recipe, parse_recipe
from bench.run import run
from bench.score.evaluate import reference_of

NUMBER, CLASSES = 3 * EACH, 3
CPU = torch.device("cpu")
KNOWN = re.compile(r'has length: (\d+), num_classes: (\d+), content: "([0-9a-f]{8})"')


def mapping(folder: Path | str, **data: Any) -> dict[str, Any]:
    return content(
        {
            "model.in_channels": 3,
            "model.input_size": SIDE,
            "model.num_classes": CLASSES,
            "data": {"name": "image-folder", "folder": str(folder), "image_size": SIDE, **data},
            "train.steps": 4,
            "train.batch_size": 16,
            "train.checkpoint_steps": [],
            "train.log_every": 1,
            "train.save_every": 1,
            "evaluation.num_samples": 30,
            "evaluation.kid_subset_size": 10,
            "evaluation.extractor": "coloured_squares:RANDOM_FILTERS",
        }
    )


def refused(folder: Path | str, **data: Any) -> str:
    """The one line with which a recipe is refused when it is read."""
    with pytest.raises(InputError) as caught:
        parse_recipe(mapping(folder, **data), "recipe.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def known(folder: Path | str, **data: Any) -> dict[str, Any]:
    """What the refusal of a recipe that does not know its folder says that this holds."""
    found = KNOWN.search(refused(folder, **data))
    assert found
    return {"length": int(found[1]), "num_classes": int(found[2]), "content": found[3]}


def of(folder: Path | str, **data: Any) -> Recipe:
    return parse_recipe(mapping(folder, **{**known(folder), **data}), "recipe.yaml")


def batch(dataset: Dataset, share: slice = slice(None), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of all examples."""
    return dataset.batch(torch.arange(len(dataset)), share, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squares(tmp_path_factory.mktemp("images") / "squares")


@pytest.fixture
def copy(squares: Path, tmp_path: Path) -> Path:
    """A folder of the same images, to be damaged."""
    return Path(shutil.copytree(squares, tmp_path / "squares"))


def images_of(folder: Path) -> Tensor:
    images = list_images(folder)
    return torch.from_numpy(np.stack([read_image(folder / path, SIDE) for path in images.paths]))


def test_a_recipe_is_told_what_its_folder_holds(squares: Path) -> None:
    told = known(squares)
    assert (told["length"], told["num_classes"]) == (NUMBER, CLASSES)
    facts = of(squares).data.facts
    assert facts.shape == facts.image_shape == (3, SIDE, SIDE)
    assert (facts.length, facts.num_classes, facts.latents) == (NUMBER, CLASSES, False)
    for missing in told:
        assert known(squares, **{key: value for key, value in told.items() if key != missing}) == told


def test_content_is_that_of_pixels_and_labels(copy: Path, squares: Path) -> None:
    assert known(copy) == known(squares)
    (copy / "red" / "00.png").rename(copy / "red" / "00.PNG")  # another name, the same place in the list
    assert known(copy) == known(squares)
    (copy / "red" / "00.PNG").rename(copy / "green" / "99.png")  # the same pixels in the same order, another label
    assert known(copy)["content"] != known(squares)["content"]
    assert known(squares, image_size=8)["content"] != known(squares)["content"]


@pytest.mark.parametrize(("key", "value"), [("length", NUMBER - 1), ("num_classes", CLASSES), ("content", "00000000")])
def test_a_folder_of_something_else_is_refused_with_both_values(copy: Path, key: str, value: Any) -> None:
    told = known(copy)
    if key == "num_classes":
        (copy / "violet").mkdir()
        shutil.move(copy / "red" / "00.png", copy / "violet" / "00.png")
        recipe = parse_recipe(mapping(copy, **told), "recipe.yaml")
        actual: Any = CLASSES + 1
    else:
        recipe = parse_recipe(mapping(copy, **{**told, key: value}), "recipe.yaml")
        actual = told[key]
    for ask in (lambda: check_ready(recipe, offline=True), lambda: recipe.data.load(CPU)):
        with pytest.raises(InputError, match=rf"^data\.{key}: {value}, but .* has {actual}$"):
            ask()


def test_the_recipe_s_id_holds_the_content_and_not_the_place(copy: Path, squares: Path) -> None:
    recipe = of(squares)
    assert of(copy).id == recipe.id
    assert parse_recipe(mapping("elsewhere", **known(squares)), "recipe.yaml").id == recipe.id
    others = [of(squares, mirror=True), of(squares, content="0" * 8)]
    assert len({recipe.id, *(other.id for other in others)}) == 3


def test_plans_do_without_the_folder_and_runs_do_not(squares: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(mapping(tmp_path / "none", **known(squares)), "recipe.yaml")
    assert recipe.data.facts.length == NUMBER
    with pytest.raises(InputError, match=r"^data\.folder: no such folder: .*none"):
        check_ready(recipe, offline=True)
    assert "data.length: missing" in refused(tmp_path / "none")


def test_a_relative_folder_is_looked_for_here_and_under_the_data_root(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path / "data"))
    recipe = parse_recipe(mapping("some/squares", **known(squares)), "recipe.yaml")
    places = f"{tmp_path / 'some' / 'squares'} nor {tmp_path / 'data' / 'some' / 'squares'}"
    with pytest.raises(InputError, match=re.escape(places)):
        check_ready(recipe, offline=True)
    shutil.copytree(squares, tmp_path / "data" / "some" / "squares")
    check_ready(recipe, offline=True)
    (tmp_path / "some" / "squares" / "empty").mkdir(parents=True)  # the nearer one counts
    with pytest.raises(InputError, match="a class folder without images"):
        check_ready(recipe, offline=True)


def test_an_unreadable_image_is_refused_by_its_path(copy: Path) -> None:
    recipe = of(copy)
    damaged = copy / "green" / "03.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    for ask in (lambda: check_ready(recipe, offline=True), lambda: recipe.data.load(CPU)):
        with pytest.raises(InputError, match=re.escape(str(damaged))):
            ask()
    assert str(damaged) in refused(copy)


def test_a_changed_image_is_noticed_in_the_same_process(copy: Path) -> None:
    recipe = of(copy)
    check_ready(recipe, offline=True)
    pixels = np.asarray(Image.open(copy / "red" / "05.png")).copy()
    pixels[3, 3] += 1
    Image.fromarray(pixels).save(copy / "red" / "05.png")
    with pytest.raises(InputError, match=r"^data\.content: "):
        check_ready(recipe, offline=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"channels": 2}, "data.channels: 2; accepted: 3, or 1"),
        ({"image_size": 0}, "data.image_size: 0; accepted"),
        ({"length": 0}, "data.length: 0; accepted"),
        ({"mirror": "yes"}, "data.mirror: "),
        ({"crop": "none"}, "data.crop: unknown key"),
        ({"length": 1_000_000, "image_size": 64}, "12.3 GB in memory; accepted: up to 8 GB, or latents"),
    ],
)
def test_what_is_not_accepted_is_refused_when_the_recipe_is_read(
    squares: Path, data: dict[str, Any], message: str
) -> None:
    assert message in refused(squares, **{**known(squares), **data})


def test_a_model_of_another_size_is_refused_when_the_recipe_is_read(squares: Path) -> None:
    wrong = mapping(squares, **known(squares))
    wrong["model"]["input_size"] = 8
    with pytest.raises(InputError, match=r"\(3, 8, 8\).*\(3, 16, 16\)"):
        parse_recipe(wrong, "recipe.yaml")
    wrong = mapping(squares, **known(squares))
    wrong["evaluation"]["extractor"] = "digits-cnn"
    with pytest.raises(InputError, match=r"evaluation\.extractor: digits-cnn takes images \(1, 8, 8\)"):
        parse_recipe(wrong, "recipe.yaml")


def test_examples_are_the_files_pixels_in_the_model_s_range(squares: Path) -> None:
    x, labels = batch(of(squares).data.load(CPU))
    assert torch.equal(x, from_uint8(images_of(squares)))
    assert (x.dtype, x.min() >= -1, x.max()) == (torch.float32, True, 1)
    assert labels.tolist() == [0] * EACH + [1] * EACH + [2] * EACH


def test_other_sizes_are_cropped_as_latents_are(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for number, (height, width) in enumerate([(40, 70), (16, 16), (90, 33)]):
        path = tmp_path / "photos" / "one" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    told = known(tmp_path / "photos")
    part = mapping(tmp_path / "photos", **told)
    part["model"]["num_classes"], part["train"]["batch_size"], part["evaluation"]["kid_subset_size"] = 1, 2, 2
    x, _ = batch(parse_recipe(part, "recipe.yaml").data.load(CPU))
    assert torch.equal(x, from_uint8(images_of(tmp_path / "photos")))


def test_grey_images_have_one_channel_of_their_very_values(tmp_path: Path) -> None:
    levels = np.random.default_rng(2).integers(0, 256, (4, SIDE, SIDE), dtype=np.uint8)
    (tmp_path / "grey" / "one").mkdir(parents=True)
    for number, image in enumerate(levels):
        Image.fromarray(image).save(tmp_path / "grey" / "one" / f"{number}.png")
    part = mapping(tmp_path / "grey", channels=1, **known(tmp_path / "grey", channels=1))
    part["model"] |= {"num_classes": 1, "in_channels": 1}
    part["train"]["batch_size"], part["evaluation"]["kid_subset_size"] = 2, 2
    recipe = parse_recipe(part, "recipe.yaml")
    assert torch.equal(batch(recipe.data.load(CPU))[0], from_uint8(torch.from_numpy(levels[:, None])))
    assert reference_of(recipe, offline=True).images is not None


def test_without_mirroring_nothing_is_drawn(squares: Path) -> None:
    random = torch.Generator().manual_seed(1)
    before = random.get_state()
    of(squares).data.load(CPU).batch(torch.tensor([3, 4]), slice(None), random)
    assert torch.equal(random.get_state(), before)


def test_mirroring_flips_about_half_and_changes_nothing_else(squares: Path) -> None:
    plain, labels = batch(of(squares).data.load(CPU))
    mirrored = of(squares, mirror=True).data.load(CPU)
    seen = torch.zeros(NUMBER)
    for seed in range(20):
        x, same_labels = batch(mirrored, seed=seed)
        assert torch.equal(same_labels, labels)
        flipped = (x == plain.flip(3)).flatten(1).all(1)
        assert torch.equal(torch.where(flipped.view(-1, 1, 1, 1), plain.flip(3), plain), x)
        seen += flipped
    assert 0.4 < seen.mean() / 20 < 0.6
    assert 0 < seen.min() < seen.max() < 20, "every image is seen both ways"


def test_flips_do_not_depend_on_the_ranks(squares: Path) -> None:
    dataset = of(squares, mirror=True).data.load(CPU)
    indices = torch.tensor([5, 0, 59, 30, 5, 7, 41, 12])
    whole_random = torch.Generator().manual_seed(3)
    whole = dataset.batch(indices, slice(None), whole_random)[0]
    for size in (1, 2, 4):
        parts = []
        for start in range(0, len(indices), size):
            random = torch.Generator().manual_seed(3)
            parts.append(dataset.batch(indices, slice(start, start + size), random)[0])
            assert torch.equal(random.get_state(), whole_random.get_state()), "what is drawn next is the same too"
        assert torch.equal(torch.cat(parts), whole)


def test_samples_are_compared_with_the_images_as_they_are(squares: Path) -> None:
    plain, mirrored = (reference_of(of(squares, mirror=mirror), offline=True) for mirror in (False, True))
    assert plain.images is not None
    assert torch.equal(plain.images.batch(0, NUMBER), images_of(squares))
    assert plain.id == mirrored.id
    assert re.fullmatch(rf"squares-{NUMBER}-[0-9a-f]{{8}}", plain.id)


@pytest.mark.parametrize("hash_", ["1234e567", "12345678", "01234567", "0x123456", "1e234567"])
def test_a_content_that_looks_like_a_number_survives_in_the_run_s_folder(tmp_path: Path, hash_: str) -> None:
    data = {"length": NUMBER, "num_classes": CLASSES, "content": hash_}
    recipe = parse_recipe(mapping("not here", **data), "recipe.yaml")
    write_config(recipe, tmp_path / "run")
    assert read_config(tmp_path / "run") == recipe


def results(folder: Path) -> dict[str, Any]:
    """What a run measured, its samples and its weights; speeds left out."""
    speeds = ("images_per_s", "sampling_images_per_s")
    found: dict[str, Any] = {
        name: [{k: v for k, v in row.items() if k not in speeds} for row in jsonl.read(folder / name)]
        for name in ("train.jsonl", "evals.jsonl")
    }
    return found | {
        path.name: path.read_bytes()
        for pattern in ("checkpoints/ema-*.safetensors", "samples/*.npy")
        for path in folder.glob(pattern)
    }


def start(recipe: Recipe, study: Path) -> Path:
    folder = study / recipe.folder_name
    write_config(recipe, folder)
    return folder


class _Crash(Exception):
    pass


def crash_at(step: int) -> Callable[[dict[str, Any]], None]:
    def on_log(row: dict[str, Any]) -> None:
        if row["step"] == step:
            raise _Crash

    return on_log


def test_a_run_is_scored_against_its_own_images_and_resumes_bit_for_bit(squares: Path, tmp_path: Path) -> None:
    recipe = of(squares, mirror=True)
    whole = start(recipe, tmp_path / "whole")
    run(whole, tmp_path / "whole")
    (score,) = jsonl.read(whole / "evals.jsonl")
    assert score["reference"] == reference_of(recipe, offline=True).id
    assert score["fid"] > 0
    assert score["decoder"] == "pixels"
    assert np.load(whole / "samples" / "step-00000004.npy").shape == (30, 3, SIDE, SIDE)

    broken = start(recipe, tmp_path / "broken")
    with pytest.raises(_Crash):
        run(broken, tmp_path / "broken", Execution(max_failures=2, on_log=crash_at(3)))
    run(broken, tmp_path / "broken", Execution(max_failures=2))
    assert jsonl.read(broken / "sessions.jsonl")[-1]["resumed_from_step"] > 0
    assert results(broken) == results(whole)

    plain = start(of(squares), tmp_path / "plain")
    run(plain, tmp_path / "plain")
    assert results(plain)["train.jsonl"] != results(whole)["train.jsonl"]


def test_images_of_wanted_classes_are_the_first_ones_and_the_others_stay_unread(tmp_path: Path) -> None:
    folder = make_squares(tmp_path / "squares")
    options = ImageFolderOptions(str(folder), SIDE, length=NUMBER, num_classes=CLASSES, content="1a2b3c4d")
    pixels = IMAGE_FOLDER.of_classes("image-folder", options, [2, 0, 2])
    images = list_images(folder)
    wanted = [images.labels.index(2), images.labels.index(0), images.labels.index(2) + 1]
    assert np.array_equal(pixels, np.stack([read_image(folder / images.paths[place], SIDE) for place in wanted]))
    with pytest.raises(InputError, match="too few images of a class"):
        IMAGE_FOLDER.of_classes("image-folder", options, [1] * (EACH + 1))
