"""Bad recipes and bad YAML: refused in one line that names the file, the key, and what is accepted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from recipes import LATENTS, TINY, content, dotted_keys, recipe

from bench.errors import InputError
from bench.recipe import Recipe, load_recipe, parse_recipe
from bench.schema import dump_yaml, load_yaml
from models import BLOCKS, list_models


def refusal(changes: dict[str, Any]) -> str:
    """The message with which a change is refused, without the file's name."""
    return message_of(content(changes))


def message_of(whole: Any) -> str:
    with pytest.raises(InputError) as caught:
        parse_recipe(whole, "folder/recipe.yaml")
    where, _, message = str(caught.value).partition(": ")
    assert where == "folder/recipe.yaml"
    assert "\n" not in message
    for foreign in ("pydantic", "Value error", "ModelConfig", "TrainConfig", "DataConfig", "tuple"):
        assert foreign not in message
    return message


# What a recipe says beyond the four sections that hold keys of their own: every key, by dotted name.


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        ("trian", "label, model, data, diffusion, train, evaluation, seed, scores"),
        ("model.heads", "name, block, image_size, "),
        ("diffusion.shedule", "objective, timesteps, prediction, variance, schedule"),
        ("train.lr", "steps, batch_size, learning_rate, betas, weight_decay, "),
        ("evaluation.scores", "sampler, sampler_options, sampling_steps, clip_denoised, "),
    ],
)
def test_unknown_key_is_named_with_the_accepted_ones(key: str, accepted: str) -> None:
    message = refusal({key: 1})
    assert message.startswith(f"{key}: unknown key; accepted: {accepted}")
    section = key.rpartition(".")[0]
    names = {name.removeprefix(f"{section}.").split(".")[0] for name in dotted_keys(Recipe) if name.startswith(section)}
    assert set(message.partition("accepted: ")[2].split(", ")) == names


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.steps", "400", "integer"),
        ("train.steps", True, "integer"),
        ("train.steps", 400.0, "integer"),
        ("train.steps", None, "integer"),
        ("train.steps", [400], "integer"),
        ("train.steps", 0, "greater than 0"),
        ("train.batch_size", -1, "greater than 0"),
        ("train.learning_rate", "fast", "number"),
        ("train.learning_rate", True, "number"),
        ("train.learning_rate", 0.0, "greater than 0"),
        ("train.learning_rate", float("nan"), ""),
        ("train.learning_rate", float("inf"), "finite"),
        ("train.weight_decay", -0.1, "greater than or equal to 0"),
        ("train.ema_decay", 1.0, "less than 1"),
        ("train.label_dropout", 1.5, "less than or equal to 1"),
        ("train.checkpoint_steps", 100, "list"),
        ("model.depth", 1.5, "integer"),
        ("model.learn_sigma", "yes", "boolean"),
        ("model.name", 3, "string"),
        ("model.label_init_std", float("inf"), "finite"),
        ("diffusion.timesteps", "1000", "integer"),
        ("diffusion.prediction", "score", "'noise', 'x0' or 'velocity'"),
        ("diffusion.variance", "small", "'learned', 'fixed-large' or 'fixed-small'"),
        ("evaluation.clip_denoised", 1, "boolean"),
        ("evaluation.labels", "sorted", "'balanced' or 'uniform'"),
        ("evaluation.guidance_scale", -1.0, "greater than or equal to 0"),
        ("evaluation.sampling_steps", 1, "greater than or equal to 2"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 1.0, "integer"),
        ("seed", None, "integer"),
        ("seed", 2**63, "less than"),
        ("train.steps", 2**64, "less than"),
        ("train.steps", "4e5", "integer"),
        ("train.learning_rate", "auto", "number"),
        ("train.learning_rate", None, "number"),
        ("model.block", None, "string"),
        ("model.depth", "auto", "integer"),
        ("data.name", None, "string"),
        ("diffusion.timesteps", 1000.0, "integer"),
        ("evaluation.num_samples", 2.5, "integer"),
        ("label", None, "string"),
    ],
)
def test_wrong_value_is_refused_with_key_value_and_what_is_accepted(key: str, value: Any, expected: str) -> None:
    message = refusal({key: value})
    assert message.startswith(f"{key}: ")
    assert expected in message
    assert message.endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("train.betas", [0.9, 2.0], ["train.betas.1", "less than 1", "2.0"]),
        ("train.betas", [-1, 0.9], ["train.betas.0", "greater than or equal to 0", "-1"]),
        ("train.betas", [0.9], ["train.betas.1", "missing"]),
        ("train.checkpoint_steps", [3, 0], ["train.checkpoint_steps.1", "greater than 0", "got 0"]),
        ("train.checkpoint_steps", ["last"], ["train.checkpoint_steps.0", "integer", "'last'"]),
        ("model", "DiT-S/4", ["model", "mapping", "name", "'DiT-S/4'"]),
        ("data", "digits", ["data", "mapping", "name", "'digits'"]),
        ("train", None, ["train", "mapping", "steps, batch_size", "None"]),
        ("evaluation", [], ["evaluation", "mapping", "sampler, sampler_options", "[]"]),
    ],
)
def test_wrong_list_or_section_is_refused(key: str, value: Any, named: list[str]) -> None:
    message = refusal({key: value})
    for fragment in named:
        assert fragment in message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model.name": "DiT-M/4"}, ["model", "unknown model 'DiT-M/4'", *list_models()]),
        ({"model.block": "adaln-one"}, ["model", "unknown block 'adaln-one'", *BLOCKS]),
        ({"data.name": "mnist"}, ["data.name", "unknown dataset 'mnist'", "digits", "length, num_classes, image_size"]),
        ({"data.vae": "owner/vae"}, ["data.vae: unknown key; accepted: name"]),
        ({"evaluation.decoder": "owner/vae"}, ["evaluation.decoder: digits brings its own"]),
        ({"evaluation.reference": "adm-imagenet-256"}, ["evaluation.reference: digits brings its own"]),
        ({"diffusion.objective": "ddpm"}, ["diffusion.objective: unknown objective 'ddpm'", "iddpm", "my_module:Name"]),
        ({"diffusion.timesteps": 20}, ["diffusion.timesteps: 20", "at least 21"]),
        ({"diffusion.variance": "fixed-small"}, ["diffusion.variance: fixed-small", "model.learn_sigma"]),
        (
            {"diffusion.variance": "learned", "model.learn_sigma": False},
            ["diffusion.variance: learned", "model.learn_sigma"],
        ),
        (
            {"evaluation.sampler": "eular"},
            ["evaluation.sampler: unknown sampler 'eular'", "ddpm, ddim, euler", "my_module:Name"],
        ),
        (
            {"evaluation.extractor": "vgg"},
            ["evaluation.extractor: unknown extractor 'vgg'", "inception-v3-compat, dinov2-vitl14, digits-cnn"],
        ),
        ({"evaluation.sampler_options": {"eta": 0.5}}, ["evaluation.sampler_options.eta: unknown key; accepted: none"]),
        (
            {"evaluation.sampler": "ddim", "evaluation.sampler_options": {"sigma": 1}},
            ["evaluation.sampler_options.sigma: unknown key; accepted: eta"],
        ),
        *(
            (
                {"evaluation.sampler": "ddim", "evaluation.sampler_options": {"eta": eta}},
                [f"evaluation.sampler_options.eta: {problem}"],
            )
            for eta, problem in (
                (1.5, "1.5; accepted: 0 to 1"),
                (-0.1, "-0.1; accepted: 0 to 1"),
                ("1", "Input should"),
            )
        ),
        ({**LATENTS, "data.vae": None}, ["data.vae", "missing"]),
        ({**LATENTS, "data.length": None}, ["data.name", "'photos'", "with length"]),
        ({**LATENTS, "data.name": "../photos"}, ["data.name", "'../photos'", "folder name"]),
        ({**LATENTS, "data.image_size": 60}, ["data.image_size", "60", "multiple of 8"]),
        ({**LATENTS, "data.image_size": 128}, ["model", "input_size", "(4, 8, 8)", "photos", "(4, 16, 16)"]),
        ({**LATENTS, "evaluation.decoder": None}, ["evaluation.decoder", "missing; latents need one"]),
        ({**LATENTS, "evaluation.reference": None}, ["evaluation.reference", "missing; latents need one"]),
        ({"model.patch_size": 3}, ["model", "patch_size: 3", "8"]),
        ({"model.num_heads": 3}, ["model", "num_heads: 3", "hidden_size 16"]),
        ({"model.hidden_size": 18}, ["model", "hidden_size: 18", "multiple of 4"]),
        ({"model.in_channels": 4}, ["model", "in_channels", "(4, 8, 8)", "digits", "(1, 8, 8)"]),
        ({"model.input_size": 16}, ["model", "input_size", "(1, 16, 16)", "digits", "(1, 8, 8)"]),
        ({"model.num_classes": 1000}, ["model.num_classes", "1000", "digits", "10"]),
        ({"model.depth": None}, ["model", "depth"]),
        ({"train.batch_size": 1798}, ["train.batch_size", "1798", "digits", "1797"]),
        ({"train.checkpoint_steps": [6, 13]}, ["train", "checkpoint_steps", "13", "steps (12)"]),
        ({"evaluation.sampling_steps": 1001}, ["evaluation.sampling_steps", "1001", "diffusion.timesteps", "1000"]),
        ({"evaluation.kid_subset_size": 61}, ["evaluation.kid_subset_size", "61", "num_samples", "60"]),
        (
            {"evaluation.num_samples": 5000, "evaluation.kid_subset_size": 1798},
            ["evaluation.kid_subset_size", "1798", "reference images", "1797"],
        ),
        ({"evaluation.guidance_scale": 4.0}, ["evaluation.guidance_channels", "3", "model's 1", "null is all"]),
    ],
)
def test_values_that_do_not_fit_together_are_refused(changes: dict[str, Any], named: list[str]) -> None:
    message = refusal(changes)
    for fragment in named:
        assert fragment in message


@pytest.mark.parametrize(
    "changes",
    [
        {"train.batch_size": 1797},
        {"train.checkpoint_steps": [12]},
        {"evaluation.sampling_steps": 1000},
        {"evaluation.kid_subset_size": 60},
        {"evaluation.guidance_scale": 4.0, "evaluation.guidance_channels": 1},
        {"evaluation.guidance_scale": 4.0, "evaluation.guidance_channels": None},
        {"train.label_dropout": 1},
        {"train.betas": [0, 0.5]},
    ],
)
def test_the_last_value_within_bounds_is_accepted(changes: dict[str, Any]) -> None:
    assert recipe(changes).id != recipe().id


@pytest.mark.parametrize("section", ["model", "data"])
def test_missing_section_is_named(section: str) -> None:
    assert message_of({key: value for key, value in TINY.items() if key != section}) == f"{section}: missing"


def test_missing_key_is_named() -> None:
    assert message_of({**TINY, "data": {}}) == "data.name: missing"


def test_several_mistakes_are_counted() -> None:
    message = refusal({"train.steps": 0, "train.lr": 1, "seed": "a"})
    assert message.startswith("train.steps: ")
    assert message.endswith("(and 2 more)")


@pytest.mark.parametrize("whole", [None, [], "DiT-S/4", 3])
def test_not_a_mapping(whole: Any) -> None:
    expected = "a recipe is a mapping with the keys label, model, data, diffusion, train, evaluation, seed, scores"
    assert message_of(whole) == expected


def load_refusal(path: Path) -> str:
    """The message with which a file is refused, without the file's name."""
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a recipe is a mapping with the keys "),
        ("# nothing yet\n", "a recipe is a mapping with the keys "),
        ("- model\n- data\n", "a recipe is a mapping with the keys "),
        ("model: {name: DiT}\ntrain: [1, 2\n", "line 3: "),
        ("model: a\n\ttrain: 1\n", "line 2: "),
        ("model: {name: a}\nseed: 1\nseed: 2\n", "line 3: key 'seed' is given twice"),
        ("model:\n  depth: 1\n  name: a\n  depth: 1\n", "line 4: key 'depth' is given twice"),
        ("model: *other\n", "line 1: "),
        ("seed: 1\nmodel: !!python/object/apply:os.getcwd []\n", "line 2: "),
        ("seed: 1\n? [1, 2]\n: 3\n", "line 2: "),
        ("seed: 1\n? {a: 1}\n: 3\n", "line 2: "),
        ("seed: !!int x\n", "not YAML"),
        ("label: 2024-13-45\n", "not YAML"),
        ("label: a\x00b\n", "not YAML"),
        ("label: a\n---\nlabel: b\n", "line 2: "),
        ("[" * 2000, "not YAML"),
    ],
)
def test_text_that_is_no_recipe_is_refused_with_the_line(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert load_refusal(path).startswith(expected)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert load_refusal(tmp_path / "none.yaml") == "no such file"
    assert load_refusal(tmp_path).startswith("cannot be read (")
    latin = tmp_path / "latin1.yaml"
    latin.write_bytes("label: größer\n".encode("latin-1"))
    assert load_refusal(latin).startswith("cannot be read (")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("2e-3", 2e-3),
        ("1E5", 100_000),
        ("4e5", 400_000),
        ("1.5e+3", 1500),
        ("-1e-4", -1e-4),
        ("+2E3", 2000),
        ("1.e3", 1000),
        ("1e300", 1e300),
        ("1.0e-4", 1e-4),
        ("400.0", 400.0),
        ("0400", 400),
        ("-007", -7),
        ("0x10", 16),
        ("0.1", 0.1),
    ],
)
def test_numbers_are_those_of_yaml_1_2(written: str, value: float, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"key: {written}\n")
    read = load_yaml(path)["key"]
    assert type(read) is type(value)
    assert read == value


def test_steps_can_be_written_with_an_exponent(tmp_path: Path) -> None:
    written = dump_yaml(content({}))
    path = tmp_path / "recipe.yaml"
    recipes = []
    for steps in ("2e3", "2000"):
        path.write_text(re.sub(r"(?m)^(\s+)steps: .*", rf"\g<1>steps: {steps}", written))
        recipes.append(load_recipe(path))
    assert recipes[0].train.steps == 2000
    assert recipes[0].id == recipes[1].id


@pytest.mark.parametrize(
    "value", ["4e5", "0400", "007", 1e16, 1e22, 400.0, 1e-7, -0.0, "1_000", "12:30", "NO", "", 2**70]
)
def test_what_is_dumped_is_loaded_as_the_same(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(dump_yaml({"key": value}))
    read = load_yaml(path)["key"]
    assert (type(read), repr(read)) == (type(value), repr(value))


@pytest.mark.parametrize("written", ["1e-4x", "e5", "1e", "'1e-4'", "1e-4.5"])
def test_other_text_with_an_e_stays_text(written: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"key: {written}\n")
    assert load_yaml(path)["key"] == written.strip("'")


def test_integers_stay_integers(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("steps: 400\n")
    assert type(load_yaml(path)["steps"]) is int


def test_anchors_and_merge_keys_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &small {depth: 1, heads: 2}\nb: {<<: *small, heads: 4}\n")
    assert load_yaml(path)["b"] == {"depth": 1, "heads": 4}
