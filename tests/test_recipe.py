"""Recipes: what is accepted, what is refused and how, and what the id stands for."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from recipes import TINY

import sweeps
from bench.data import DATASETS
from bench.errors import InputError
from bench.recipe import Recipe, load_recipe, load_yaml, parse_recipe
from bench.run_folder import read_config, write_config
from models import BLOCKS, list_models
from sweeps.expand import load_sweep


def content(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The tiny recipe's mapping with dotted keys set."""
    result = copy.deepcopy(TINY)
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        section = result
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = value
    return result


def recipe(changes: dict[str, Any] | None = None) -> Recipe:
    return parse_recipe(content(changes), "recipe.yaml")


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
def dotted_keys(schema: type[BaseModel], prefix: str = "") -> set[str]:
    keys: set[str] = set()
    for name, field in schema.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys |= dotted_keys(inner, f"{prefix}{name}.")
        else:
            keys.add(f"{prefix}{name}")
    return keys


CHANGES: dict[str, Any] = {
    "model.block": "in-context",
    "model.in_channels": 3,
    "model.num_classes": 7,
    "model.learn_sigma": False,
    "model.depth": 2,
    "model.hidden_size": 32,
    "model.num_heads": 4,
    "model.patch_size": 2,
    "model.input_size": 16,
    "model.mlp_ratio": 2.0,
    "model.frequency_embedding_size": 32,
    "model.label_init_std": 0.5,
    "model.timestep_init_std": 0.5,
    "data.name": "twin",
    "diffusion.timesteps": 500,
    "train.steps": 13,
    "train.batch_size": 16,
    "train.learning_rate": 2e-3,
    "train.betas": [0.9, 0.95],
    "train.weight_decay": 0.01,
    "train.ema_decay": 0.99,
    "train.label_dropout": 0.2,
    "train.checkpoint_steps": [6, 7],
    "evaluation.sampler": "ddim",
    "evaluation.sampling_steps": 5,
    "evaluation.clip_denoised": False,
    "evaluation.guidance_scale": 0.5,
    "evaluation.guidance_channels": 1,
    "evaluation.num_samples": 70,
    "evaluation.labels": "uniform",
    "evaluation.extractor": "inception-v3-compat",
    "evaluation.kid_subset_size": 30,
    "seed": 1,
}
# The model's name and image size decide nothing where the tiny recipe gives all sizes itself.
WITHOUT_EFFECT = {
    "label": "other",
    "model.name": "DiT-S/4",
    "model.image_size": 512,
    "train.log_every": 3,
    "train.save_every": 5,
    "evaluation.batch_size": 7,
}

# What a model of other channels, classes or sides needs of its data: ids must differ for the model's key alone.
FITTING_FACTS: dict[str, dict[str, Any]] = {
    "model.in_channels": {"shape": (3, 8, 8)},
    "model.num_classes": {"num_classes": 7},
    "model.input_size": {"shape": (1, 16, 16)},
}
# Guidance over three channels, the default, needs a model of three.
NEEDED_BESIDE = {"evaluation.guidance_scale": {"evaluation.guidance_channels": None}}


def test_every_key_is_known_to_bear_on_the_result_or_not() -> None:
    assert CHANGES.keys() | WITHOUT_EFFECT.keys() == dotted_keys(Recipe)


@pytest.mark.parametrize("key", CHANGES)
def test_id_depends_on_every_key_that_decides_the_result(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = DATASETS["digits"]
    monkeypatch.setitem(DATASETS, "twin", facts)
    beside = NEEDED_BESIDE.get(key, {})
    before = recipe(beside).id
    monkeypatch.setitem(DATASETS, "digits", dataclasses.replace(facts, **FITTING_FACTS.get(key, {})))
    assert recipe({**beside, key: CHANGES[key]}).id != before


@pytest.mark.parametrize("key", WITHOUT_EFFECT)
def test_id_does_not_depend_on_the_label_or_on_what_only_sets_the_pace(key: str) -> None:
    changed = recipe({key: WITHOUT_EFFECT[key]})
    assert changed != recipe()
    assert changed.id == recipe().id


# A model without preset sizes, and nothing else that could be left out.
SMALLEST: dict[str, Any] = {
    "model": {
        "name": "DiT",
        "depth": 3,
        "hidden_size": 24,
        "num_heads": 2,
        "patch_size": 4,
        "input_size": 8,
        "in_channels": 1,
        "num_classes": 10,
    },
    "data": {"name": "digits"},
}
# The paper's training (Sec. 4) and sampling. Changed, old ids would name other runs: the id leaves defaults out.
DEFAULTS: dict[str, Any] = {
    "label": "",
    "model": {
        "block": "adaln-zero",
        "image_size": 256,
        "learn_sigma": True,
        "mlp_ratio": None,
        "frequency_embedding_size": None,
        "label_init_std": None,
        "timestep_init_std": None,
    },
    "diffusion": {"timesteps": 1000},
    "train": {
        "steps": 400_000,
        "batch_size": 256,
        "learning_rate": 1e-4,
        "betas": [0.9, 0.999],
        "weight_decay": 0.0,
        "ema_decay": 0.9999,
        "label_dropout": 0.1,
        "checkpoint_steps": [],
        "log_every": 100,
        "save_every": 5000,
    },
    "evaluation": {
        "sampler": "ddpm",
        "sampling_steps": 250,
        "clip_denoised": False,
        "guidance_scale": 1.0,
        "guidance_channels": 3,
        "num_samples": 50_000,
        "labels": "balanced",
        "extractor": "inception-v3-compat",
        "kid_subset_size": 1000,
        "batch_size": 64,
    },
    "seed": 0,
}


def test_defaults_are_what_ids_take_them_to_be() -> None:
    assert parse_recipe(SMALLEST, "x").model_dump(mode="json") == {
        **SMALLEST,
        **DEFAULTS,
        "model": {**SMALLEST["model"], **DEFAULTS["model"]},
    }


def test_ids_do_not_change_from_one_version_to_the_next() -> None:
    digits = load_sweep(Path(sweeps.__file__).parent / "digits.yaml")
    assert (digits.recipes[0].label, digits.recipes[0].id) == ("S/4", "5db43ce56d")
    assert digits.recipes[0].folder_name == "S-4-5db43ce56d"
    assert parse_recipe(SMALLEST, "x").id == "c5e05c184e"


def test_a_network_has_one_id_however_it_is_named() -> None:
    named = recipe({"model.name": "DiT-S/4", "model.depth": None, "model.hidden_size": None, "model.num_heads": None})
    spelled = recipe({"model.depth": 12, "model.hidden_size": 384, "model.num_heads": 6, "model.mlp_ratio": 4.0})
    assert named.id == spelled.id != recipe().id


def test_a_default_that_is_spelled_out_leaves_the_id_alone() -> None:
    whole = parse_recipe(SMALLEST, "x").model_dump()
    for section in ("diffusion", "train", "evaluation"):
        for key, value in whole[section].items():
            assert parse_recipe({**SMALLEST, section: {key: value}}, "x").id == parse_recipe(SMALLEST, "x").id
    assert parse_recipe(whole, "x").id == parse_recipe(SMALLEST, "x").id


def test_id_does_not_depend_on_the_order_of_keys_or_on_how_a_number_is_written() -> None:
    backwards = {key: TINY[key] for key in reversed(TINY)}
    backwards["train"] = {key: TINY["train"][key] for key in reversed(TINY["train"])}
    assert parse_recipe(backwards, "x").id == recipe().id
    assert recipe({"train.weight_decay": 0, "evaluation.guidance_scale": 1}).id == recipe().id


@pytest.mark.parametrize(
    ("label", "start"),
    [("S/4", "S-4-"), ("", "DiT-"), ("../etc/passwd", "..-etc-passwd-"), ("größer 2", "gr-er-2-"), ("/", "-")],
)
def test_folder_name_is_one_safe_path_part_that_ends_in_the_id(label: str, start: str) -> None:
    labelled = recipe({"label": label})
    assert labelled.folder_name == start + labelled.id


@settings(deadline=None)
@given(
    depth=st.integers(1, 40),
    heads=st.integers(1, 6),
    learning_rate=st.floats(1e-8, 10),
    weight_decay=st.floats(0, 1),
    checkpoints=st.lists(st.integers(1, 50), max_size=4),
    label=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=10),
    seed=st.integers(0, 2**32),
    channels=st.sampled_from([None, 1]),
)
def test_a_recipe_survives_yaml(
    tmp_path_factory: pytest.TempPathFactory,
    depth: int,
    heads: int,
    learning_rate: float,
    weight_decay: float,
    checkpoints: list[int],
    label: str,
    seed: int,
    channels: int | None,
) -> None:
    first = recipe(
        {
            "label": label,
            "model.depth": depth,
            "model.num_heads": heads,
            "model.hidden_size": 8 * heads,
            "train.steps": 50,
            "train.learning_rate": learning_rate,
            "train.weight_decay": weight_decay,
            "train.checkpoint_steps": checkpoints,
            "evaluation.guidance_channels": channels,
            "seed": seed,
        }
    )
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(first.model_dump(mode="json")), encoding="utf-8")
    again = load_recipe(path)
    assert again == first
    assert again.id == first.id
    write_config(first, path.parent / "run")
    assert read_config(path.parent / "run") == first


def test_a_run_folder_refuses_another_recipe_and_names_what_differs(tmp_path: Path) -> None:
    write_config(recipe(), tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()
    write_config(recipe({"label": "renamed"}), tmp_path)
    with pytest.raises(InputError) as caught:
        write_config(recipe({"seed": 4, "model.depth": 2}), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds a run of another recipe (model.depth is 1 there, 2 here; seed is 0 there, 4 here); "
        "give another folder"
    )
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_run_folder_with_a_foreign_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("optimizer: adam\n")
    with pytest.raises(InputError, match=r"config\.yaml: not a run's configuration \(keys id, label, recipe\)"):
        read_config(tmp_path)


def test_recipes_are_frozen_at_every_level() -> None:
    frozen = recipe()
    for section, key in ((frozen, "seed"), (frozen.model, "depth"), (frozen.train, "steps")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, 2)
    assert isinstance(frozen.train.checkpoint_steps, tuple)


def test_kept_steps_are_the_listed_ones_and_the_last_once_and_in_order() -> None:
    assert recipe({"train.checkpoint_steps": [9, 3, 3]}).train.kept_steps() == [3, 9, 12]
    assert recipe({"train.checkpoint_steps": [12]}).train.kept_steps() == [12]


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        ("trian", "label, model, data, diffusion, train, evaluation, seed"),
        ("model.heads", "name, block, image_size, "),
        ("data.folder", "name"),
        ("diffusion.schedule", "timesteps"),
        ("train.lr", "steps, batch_size, learning_rate, betas, weight_decay, "),
        ("evaluation.metrics", "sampler, sampling_steps, clip_denoised, "),
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
        ("diffusion.timesteps", 1, "greater than or equal to "),
        ("evaluation.clip_denoised", 1, "boolean"),
        ("evaluation.sampler", "euler", "'ddpm' or 'ddim'"),
        ("evaluation.labels", "sorted", "'balanced' or 'uniform'"),
        ("evaluation.extractor", "vgg", "'inception-v3-compat' or 'digits-cnn'"),
        ("evaluation.guidance_scale", -1.0, "greater than or equal to 0"),
        ("evaluation.sampling_steps", 1, "greater than or equal to 2"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 1.0, "integer"),
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
        ("model", "DiT-S/4", ["model", "mapping", "name, block, image_size", "'DiT-S/4'"]),
        ("data", "digits", ["data", "mapping", "name", "'digits'"]),
        ("train", None, ["train", "mapping", "steps, batch_size", "None"]),
        ("evaluation", [], ["evaluation", "mapping", "sampler, sampling_steps", "[]"]),
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
        ({"data.name": "mnist"}, ["data", "unknown dataset 'mnist'", "digits"]),
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
    expected = "a recipe is a mapping with the keys label, model, data, diffusion, train, evaluation, seed"
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
        ("1E5", 1e5),
        ("1.5e+3", 1500.0),
        ("-1e-4", -1e-4),
        ("+2E3", 2000.0),
        ("1.e3", 1000.0),
        ("1.0e-4", 1e-4),
        ("0.1", 0.1),
    ],
)
def test_numbers_with_exponents_are_numbers(written: str, value: float, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"key: {written}\n")
    read = load_yaml(path)["key"]
    assert type(read) is float
    assert read == value


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
