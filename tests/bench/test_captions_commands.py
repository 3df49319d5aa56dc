"""Captions as a user meets them: recipes, data sets of one's own, `ditbench encode` and `ditbench sample`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from captioned_latents import WordEncoder
from captions_family import MODEL, captioned
from command_line import ditbench
from photos import PATHS, make_images
from recipes import content
from test_vae import save_vae

from bench.commands import encode as encode_command
from bench.commands.samples import captions_for
from bench.data import data_part
from bench.errors import InputError
from bench.files import jsonl
from bench.files.run_folder import write_config
from bench.ready import check_ready
from bench.recipe import load_recipe, parse_recipe
from bench.recipe.parts import DataConfig
from bench.run import run
from bench.weights import load_weights_of

CPU = torch.device("cpu")
OWN = '''
import numpy as np

from bench.data import DatasetFacts, PixelDataset


class Squares(PixelDataset):
    """Squares of a grey that their caption says: of 4 tokens with 3 features, the second a mask may leave out."""

    def facts(self, name, options):
        return DatasetFacts(40, (1, 8, 8), (1, 8, 8), num_classes=1, caption_shape=(4, 3))

    def images(self, name, options):
        grey = np.arange(40, dtype=np.uint8)
        return np.broadcast_to(grey[:, None, None, None], (40, 1, 8, 8)).copy(), np.zeros(40, np.int64)

    def captions(self, name, options):
        embeddings = np.zeros((40, 4, 3), np.float32)
        embeddings[:, 0] = np.arange(40)[:, None] / 40
        mask = np.arange(4) < 1 + np.arange(40)[:, None] % 2
        return embeddings, mask
'''
# What a subclass returns instead, and why it is refused.
WRONG = {
    "no masks": ("embeddings, None", r"its captions: no masks; needed: embeddings \(K, S, D\) and masks \(K, S\)"),
    "embeddings alone": ("embeddings", r"its captions: no embeddings and masks \("),
    "of other tokens": (
        "embeddings[:, :3], mask[:, :3]",
        r"has captions of 3 tokens with 3 features; needed: .* of 4 ",
    ),
    "of other features": (
        "embeddings[:, :, :2], mask",
        r"of 4 tokens with 2 features; needed: captions of 4 tokens with 3",
    ),
    "masks of less": ("embeddings, mask[:, :3]", r"masks are bool \(40, 3\); needed: bool \(40, 4\)"),
    "masks of numbers": ("embeddings, mask.astype(int)", r"masks are int64 \(40, 4\)"),
    "fewer": ("embeddings[1:], mask[1:]", r"39, of 40 images; needed: one an image"),
    "no token": ("embeddings, mask & (np.arange(40) != 7)[:, None]", r"caption 7 \(counted from 0\) has no token"),
    "infinite": (
        "embeddings / (np.arange(40) != 7)[:, None, None], mask",
        r"caption 7 \(counted from 0\) are not finite",
    ),
    "words": ("embeddings.astype(str), mask", r"embeddings are <U32 \(40, 4, 3\); needed: floats"),
    "lost": ("open('/nowhere/at/all')", r"its captions cannot be read \(.*No such file"),
}


# --- recipes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"data.name": "digits"},
            r"model: captions_family:FAMILY is told captions of 6 tokens with 32 features, but data.name digits has ",
        ),
        (
            {"model.features": 16},
            r"captions of 6 tokens with 16 features, but data.name digits-captions has captions of 6 tokens with 32 ",
        ),
        ({"model.tokens": 7}, r"captions of 7 tokens with 32 features, but"),
        (
            {"train.label_dropout": 0.0, "evaluation.guidance_scale": 2.0, "evaluation.guidance_channels": None},
            r"evaluation.guidance_scale: 2 needs a null label",
        ),
    ],
)
def test_a_model_and_data_that_do_not_fit_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        captioned(changes)
    assert "\n" not in str(caught.value)


def test_a_model_of_labels_is_not_told_captions() -> None:
    with pytest.raises(
        InputError, match=r"model: DiT is told labels, but data.name digits-captions has captions of 6 "
    ):
        parse_recipe(content({"data.name": "digits-captions"}), "recipe.yaml")


def own_recipe(folder: Path, returned: str | None = None) -> Path:
    text = OWN if returned is None else OWN.replace("return embeddings, mask", f"return {returned}")
    (folder / "my_squares.py").write_text(text)
    changes = {"data": {"name": "my_squares:Squares"}, "train.batch_size": 8, "evaluation.num_samples": 40}
    recipe = content({"model": {"name": MODEL, "tokens": 4, "features": 3}, **changes})
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_captions_of_a_data_set_of_one_s_own(tmp_path: Path) -> None:
    recipe = load_recipe(own_recipe(tmp_path))
    check_ready(recipe, offline=True)
    bank = recipe.data.caption_bank()
    assert bank is not None
    assert bank.id.startswith("Squares@")
    x, said = recipe.data.load(CPU).batch(torch.tensor([3, 39]), slice(None), torch.Generator())
    assert not isinstance(said, torch.Tensor)
    assert torch.allclose((x[:, 0, 0, 0] + 1) * 127.5 / 40, said.embeddings[:, 0, 0])
    assert said.mask.sum(1).tolist() == [2, 2]


@pytest.mark.parametrize("name", WRONG)
def test_captions_that_are_none_are_refused_before_training(tmp_path: Path, name: str) -> None:
    returned, problem = WRONG[name]
    recipe = load_recipe(own_recipe(tmp_path, returned))
    with pytest.raises(InputError, match=problem) as caught, np.errstate(divide="ignore", invalid="ignore"):
        check_ready(recipe, offline=True)
    assert "\n" not in str(caught.value)


def test_a_data_set_without_the_captions_of_its_facts_is_refused(tmp_path: Path) -> None:
    path = own_recipe(tmp_path)
    module = tmp_path / "my_squares.py"
    module.write_text(module.read_text().replace("def captions", "def others"))
    with pytest.raises(InputError, match=r"its captions: none, by its facts captions of 4 tokens with 3 features"):
        check_ready(load_recipe(path), offline=True)


# --- from training to scores


@pytest.fixture(scope="module")
def trained(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was guided by the null caption, and scored."""
    home = tmp_path_factory.mktemp("captions")
    shutil.copytree(features, home / "features")
    changes = {"evaluation.guidance_scale": 2.0, "evaluation.guidance_channels": None, "train.checkpoint_steps": []}
    write_config(captioned(changes), home / "run")
    run(home / "run", home)
    return home / "run"


ASKED = ("--sampling-steps", "4", "--num-samples", "60", "--clip-denoised", "--guidance-scale", "2")


def sampled(weights: Path, out: Path, *options: object) -> tuple[Any, dict[str, Any]]:
    ended = ditbench("sample", weights, "--out", out, *ASKED, "--guidance-channels", "1", *options)
    return ended, json.loads(out.with_name(f"{out.name}.json").read_text()) if out.exists() else {}


def test_text_guidance_runs_from_a_recipe_to_a_score_that_compares_with_labels(trained: Path, tmp_path: Path) -> None:
    (row,) = jsonl.read(trained / "evals.jsonl")
    assert row["fid"] > 0
    assert (row["labels"], row["guidance_scale"]) == ("balanced", 2.0)
    assert row["reference"] == data_part("digits").reference("digits", data_part("digits").options()).id
    assert "captions" not in row
    said = json.loads((trained / "samples" / "step-00000012.npy.json").read_text())
    bank = captioned().data.caption_bank()
    assert bank is not None
    assert said["captions"] == bank.id

    ended, again = sampled(trained, tmp_path / "again.npy")
    assert (ended.status, again["captions"], again["labels"]) == (0, bank.id, "balanced")
    own, same = np.load(trained / "samples" / "step-00000012.npy"), np.load(tmp_path / "again.npy")
    assert np.array_equal(own, same)


def npz(path: Path, **changes: Any) -> Path:
    arrays = {"embeddings": np.ones((3, 6, 32), np.float16), "mask": np.ones((3, 6), bool), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_samples_of_other_captions_are_told_apart(trained: Path, tmp_path: Path) -> None:
    ended, made = sampled(trained, tmp_path / "a.npy", "--captions", npz(tmp_path / "prompts.npz"))
    assert ended.status == 0
    assert made["captions"].startswith("prompts@")
    assert made["labels"] == f"balanced {made['captions']}"
    ended, _ = sampled(trained, tmp_path / "a.npy")
    assert ended.status == 2
    assert "holds other samples (labels is 'balanced prompts@" in ended.err


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mask": None}, "prompts.npz: no masks; needed: embeddings (K, S, D) and masks (K, S) of bool"),
        ({"embeddings": None}, "prompts.npz: no embeddings"),
        ({"mask": np.ones((3, 5), bool)}, "masks are bool (3, 5); needed: bool (3, 6)"),
        ({"embeddings": np.ones((3, 6, 16))}, "captions of 6 tokens with 16 features; needed: captions of 6 tokens"),
        ({"embeddings": np.ones((6, 32))}, "embeddings are float64 (6, 32); needed: floats (K, S, D)"),
        ({"mask": np.zeros((3, 6), bool)}, "caption 0 (counted from 0) has no token"),
        ({"embeddings": np.full((3, 6, 32), np.nan)}, "caption 0 (counted from 0) are not finite"),
    ],
)
def test_captions_that_do_not_fit_are_refused(
    trained: Path, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    ended, made = sampled(trained, tmp_path / "a.npy", "--captions", npz(tmp_path / "prompts.npz", **changes))
    assert (ended.status, made, ended.err.count("\n")) == (2, {}, 1)
    assert problem in ended.err


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: None, "no such file; accepted: a .npz with embeddings (K, S, D) of floats and mask (K, S)"),
        (lambda path: path.write_text("a dog"), "cannot be read"),
        (lambda path: np.save(path.open("wb"), np.ones(3)), "one array; accepted: a .npz"),
    ],
)
def test_a_file_that_has_no_captions_is_refused(
    trained: Path, tmp_path: Path, write: Callable[[Path], object], problem: str
) -> None:
    write(tmp_path / "prompts.npz")
    ended, made = sampled(trained, tmp_path / "a.npy", "--captions", tmp_path / "prompts.npz")
    assert (ended.status, made, ended.err.count("\n")) == (2, {}, 1)
    assert problem in ended.err


def test_weights_without_a_data_set_need_captions(trained: Path, tmp_path: Path) -> None:
    weights = load_weights_of(str(trained), None, offline=True)
    bare = replace(weights, data=None)
    with pytest.raises(InputError, match=r"--captions: missing; w is told captions of 6 tokens with 32 features; acc"):
        captions_for(bare, "w", None, "balanced")
    bank, said = captions_for(bare, "w", npz(tmp_path / "prompts.npz"), "uniform")
    assert bank is not None
    assert len(bank) == 3
    assert said == {"captions": bank.id, "labels": f"uniform {bank.id}"}


def test_a_guide_that_is_told_something_else_is_refused(trained: Path, tmp_path: Path) -> None:
    write_config(parse_recipe(content({"model.learn_sigma": True}), "recipe.yaml"), tmp_path / "labels")
    (tmp_path / "labels" / "checkpoints").mkdir()
    shutil.copy(trained / "checkpoints" / "ema-00000012.safetensors", tmp_path / "labels" / "checkpoints")
    ended, made = sampled(trained, tmp_path / "a.npy", "--guide", tmp_path / "labels")
    assert (ended.status, made) == (2, {})
    assert "is told labels of 10 classes, the guided model captions of 6 tokens with 32 features" in ended.err


# --- encode


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "photos")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae") / "tiny-vae")


def texts(folder: Path) -> Path:
    path = folder / "texts.jsonl"
    lines = [
        json.dumps({"image": image, "caption": f"{Path(image).parts[0]} of number{k}"}) for k, image in enumerate(PATHS)
    ]
    path.write_text("\n".join(lines))
    return path


def encoded(photos: Path, vae: Path, out: Path, *options: object) -> Any:
    small = ("--image-size", 32, "--shard-size", 4, "--workers", 0, "--offline")
    return ditbench("encode", photos, "--vae", vae, "--out", out, *small, *options)


def test_encode_writes_captions_and_prints_the_section_of_a_recipe(
    photos: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path))
    monkeypatch.setattr(encode_command, "_load_text_encoder", lambda *arguments: WordEncoder())
    out = tmp_path / "photos"
    plain = encoded(photos, vae, out)
    assert plain.status == 0
    assert "text_encoder" not in plain.out
    ended = encoded(photos, vae, out, "--captions", texts(tmp_path), "--text-encoder", "words")
    assert ended.status == 0, ended.err
    assert "captions: 4 shards made, 0 found whole" in ended.out
    section = yaml.safe_load(ended.out.splitlines()[-1])["data"]
    expected = {"text_encoder": "words", "caption_tokens": 5, "caption_features": 8}
    assert {key: section[key] for key in expected} == expected
    data = DataConfig.model_validate(section)
    assert data.facts.caption_shape == (5, 8)
    x, said = data.load(CPU).batch(torch.arange(14), slice(None), torch.Generator())
    assert x.shape == (14, 4, 4, 4)
    assert not isinstance(said, torch.Tensor)
    assert said.mask.sum(1).tolist() == [3] * 14


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--captions", "texts.jsonl"), "--captions texts.jsonl: --text-encoder is missing"),
        (("--text-encoder", "words"), "--text-encoder words: of which captions? --captions is missing"),
        (("--caption-tokens", 5), "--caption-tokens 5: of which captions? --captions is missing"),
        (("--captions", "none.jsonl", "--text-encoder", "words"), "none.jsonl: cannot be read"),
    ],
)
def test_half_of_it_is_refused_before_anything_is_encoded(
    photos: Path, vae: Path, tmp_path: Path, options: tuple[object, ...], problem: str
) -> None:
    ended = encoded(photos, vae, tmp_path / "out", *options)
    assert ended.status == 2
    assert problem in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("transformers") is not None, reason="is about a machine without transformers")
def test_without_transformers_the_extra_is_named(photos: Path, vae: Path, tmp_path: Path) -> None:
    ended = encoded(photos, vae, tmp_path / "out", "--captions", texts(tmp_path), "--text-encoder", "t5")
    assert ended.status == 2
    last = ended.err.splitlines()[-1]
    assert "transformers is not installed" in last
    assert '"ditbench[text]"' in last
    assert not (tmp_path / "out").exists()
