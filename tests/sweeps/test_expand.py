"""Sweeps: which recipes a YAML file stands for, in which order, and what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import TINY

from bench.errors import InputError
from bench.files.run_folder import read_config, read_content, write_config
from bench.recipe import Recipe
from sweeps.expand import find_study, load_sweep
from sweeps.shipped import STUDIES

BASE = {key: value for key, value in TINY.items() if key != "label"}


def write(path: Path, content: dict[str, Any], base: dict[str, Any] | None = None) -> Path:
    """A sweep's file with the tiny recipe as its base."""
    path.write_text(yaml.safe_dump({"name": "study", "base": base or BASE, **content}, sort_keys=False))
    return path


def expand(folder: Path, content: dict[str, Any]) -> list[Recipe]:
    return load_sweep(write(folder / "study.yaml", content)).recipes


def refusal(path: Path) -> str:
    """The message with which a file is refused, without the file's name."""
    with pytest.raises(InputError) as caught:
        load_sweep(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") or message.startswith(f"{path} (run ")
    assert "\n" not in message
    return message.removeprefix(f"{path}").removeprefix(": ").lstrip()


# Width, depth and heads of the digits study: the paper's widths / 16 and depths / 4, L and XL near to it.
DIGITS_SIZES = {"S": (24, 3, 2), "B": (48, 3, 3), "L": (64, 6, 4), "XL": (72, 7, 4)}


def test_digits_is_the_papers_twelve_models_in_miniature() -> None:
    sweep = load_sweep("digits")
    assert sweep.name == "digits"
    shapes = [
        (recipe.label, arch.hidden_size, arch.depth, arch.num_heads, arch.patch_size, arch.num_tokens)
        for recipe in sweep.recipes
        for arch in [recipe.model.architecture()]
    ]
    assert shapes == [
        (f"{size}/{patch}", *widths, patch, (8 // patch) ** 2)
        for size, widths in DIGITS_SIZES.items()
        for patch in (4, 2, 1)
    ]
    rest = {
        json.dumps(
            recipe.model_dump(exclude={"label": True, "model": {"depth", "hidden_size", "num_heads", "patch_size"}})
        )
        for recipe in sweep.recipes
    }
    assert len(rest) == 1


def test_digits_trains_and_scores_as_its_description_says() -> None:
    for recipe in load_sweep("digits").recipes:
        assert recipe.data.name == "digits"
        assert recipe.model.architecture().input_shape == recipe.data.facts.shape == (1, 8, 8)
        assert recipe.train.kept_steps() == [150, 300, 450, 600]
        assert recipe.evaluation.extractor == "digits-cnn"
        assert recipe.seed == 0


@pytest.mark.parametrize("name", ["digits", "first"])
def test_three_seeds_are_three_times_the_study(name: str) -> None:
    digits, seeds = (load_sweep(study) for study in (name, f"{name}-seeds"))
    assert seeds.name == f"{name}-seeds"
    assert len(seeds.recipes) == len({recipe.id for recipe in seeds.recipes}) == 36
    for seed in (0, 1, 2):
        of_seed = [recipe for recipe in seeds.recipes if recipe.seed == seed]
        assert [recipe.model_copy(update={"seed": 0}) for recipe in of_seed] == digits.recipes
    assert {recipe.id for recipe in digits.recipes} < {recipe.id for recipe in seeds.recipes}


def test_quick_is_the_six_smaller_models_of_the_first_study() -> None:
    digits, quick = (load_sweep(name) for name in ("first", "digits-quick"))
    assert quick.name == "digits-quick"
    assert quick.recipes == digits.recipes[:6]
    assert [recipe.id for recipe in quick.recipes] == [recipe.id for recipe in digits.recipes[:6]]


def test_every_shipped_sweep_expands_under_its_own_name() -> None:
    for path in STUDIES.glob("*.yaml"):
        sweep = load_sweep(path)
        assert sweep.name == path.stem
        assert sweep.recipes
        assert len({recipe.folder_name for recipe in sweep.recipes}) == len(sweep.recipes)


@pytest.mark.parametrize("name", ["digits", "digits.yaml", "sweeps/digits.yaml", "../sweeps/digits.yaml"])
def test_a_shipped_study_is_found_by_name_unless_the_user_has_such_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "digits").mkdir(parents=True)  # a folder is no sweep
    monkeypatch.chdir(tmp_path / "here")
    assert find_study(name) == STUDIES / "digits.yaml"
    mine = tmp_path / "here" / name
    mine.parent.mkdir(exist_ok=True)
    if not mine.is_dir():
        mine.write_text(yaml.safe_dump({"name": "mine", "base": BASE}))
        assert load_sweep(name).name == load_sweep(Path(name)).name == "mine"


@pytest.mark.parametrize("name", ["digit", "none.yaml", "elsewhere/digits.yaml", "digits.yml", "sweeps", "", ".", ".."])
def test_a_study_that_nothing_has_is_refused_with_the_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        load_sweep(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{Path(name)}: no such file; accepted: ")
    assert message.endswith(", ".join(sorted(path.stem for path in STUDIES.glob("*.yaml"))))


def test_a_base_alone_is_one_run_and_keeps_its_own_label(tmp_path: Path) -> None:
    assert [recipe.label for recipe in expand(tmp_path, {})] == [""]
    (labelled,) = load_sweep(write(tmp_path / "s.yaml", {"label": "{seed}", "product": {"seed": [5]}}, TINY)).recipes
    assert (labelled.label, labelled.seed) == ("S/4", 5)


def test_product_is_every_combination_with_the_last_axis_fastest(tmp_path: Path) -> None:
    product = {
        "size": {"S": {"model.depth": 1}, "L": {"model.depth": 2, "model.hidden_size": 32}},
        "model.patch_size": [4, 2],
        "seed": [7, 8],
    }
    recipes = expand(tmp_path, {"product": product, "label": "{size}-{patch_size}-{seed}"})
    assert [recipe.label for recipe in recipes] == [
        "S-4-7", "S-4-8", "S-2-7", "S-2-8", "L-4-7", "L-4-8", "L-2-7", "L-2-8",
    ]  # fmt: skip
    settings = [(r.model.depth, r.model.hidden_size, r.model.patch_size, r.seed) for r in recipes]
    assert settings == [(*size, patch, seed) for size in ((1, 16), (2, 32)) for patch in (4, 2) for seed in (7, 8)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_product_has_as_many_runs_as_the_lengths_multiplied(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    keys = ("seed", "model.depth", "train.weight_decay", "train.steps")
    axes = {key: [6 + value for value in range(n)] for key, n in zip(keys, lengths, strict=False)}
    recipes = expand(tmp_path_factory.mktemp("sweep"), {"product": axes})
    combinations = list(itertools.product(*axes.values()))
    assert [recipe.label for recipe in recipes] == [" ".join(map(str, values)) for values in combinations]
    for recipe, values in zip(recipes, combinations, strict=True):
        set_values = (recipe.seed, recipe.model.depth, recipe.train.weight_decay, recipe.train.steps)
        assert set_values[: len(values)] == values
    assert len({recipe.id for recipe in recipes}) == len(combinations)


def test_paired_lists_are_walked_together_as_one_more_axis(tmp_path: Path) -> None:
    paired = {"model.depth": [1, 2], "train.learning_rate": [0.1, 0.2]}
    recipes = expand(tmp_path, {"paired": paired})
    assert [(r.model.depth, r.train.learning_rate, r.label) for r in recipes] == [(1, 0.1, "1 0.1"), (2, 0.2, "2 0.2")]
    recipes = expand(tmp_path, {"paired": paired, "product": {"seed": [0, 1]}, "label": "{seed}:{learning_rate}"})
    assert [recipe.label for recipe in recipes] == ["0:0.1", "0:0.2", "1:0.1", "1:0.2"]
    assert [(recipe.seed, recipe.model.depth) for recipe in recipes] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_runs_are_taken_as_listed(tmp_path: Path) -> None:
    runs = [{"model.depth": 3, "seed": 1}, {"label": "plain"}, {"seed": 9}]
    recipes = expand(tmp_path, {"runs": runs})
    assert [(r.model.depth, r.seed, r.label) for r in recipes] == [(3, 1, "3 1"), (1, 0, "plain"), (1, 9, "9")]


def test_a_dotted_key_changes_nothing_beside_it(tmp_path: Path) -> None:
    (plain,) = expand(tmp_path, {})
    (deep,) = expand(tmp_path, {"runs": [{"model.depth": 2, "label": ""}]})
    assert deep == plain.model_copy(update={"model": plain.model.model_copy(update={"depth": 2})})
    (added,) = expand(tmp_path, {"runs": [{"diffusion.timesteps": 77, "label": ""}]})
    assert added.diffusion.timesteps == 77
    assert added.model_copy(update={"diffusion": plain.diffusion}) == plain


def test_extends_merges_the_base_and_replaces_an_axis_whole(tmp_path: Path) -> None:
    axes = {"size": {"S": {"model.depth": 1}, "B": {"model.depth": 2}}, "seed": [0, 1]}
    write(tmp_path / "parent.yaml", {"label": "{size}.{seed}", "product": axes})
    (tmp_path / "sub").mkdir()
    child = tmp_path / "sub" / "child.yaml"
    child.write_text(
        yaml.safe_dump(
            {
                "extends": "../parent.yaml",
                "name": "child",
                "base": {"train": {"steps": 20}, "diffusion": {"timesteps": 90}},
                "product": {"size": {"L": {"model.depth": 3}}, "train.weight_decay": [0.5]},
            }
        )
    )
    sweep = load_sweep(child)
    assert sweep.name == "child"
    assert [recipe.label for recipe in sweep.recipes] == ["L.0", "L.1"]
    for recipe in sweep.recipes:
        assert (recipe.model.depth, recipe.diffusion.timesteps, recipe.train.weight_decay) == (3, 90, 0.5)
        assert recipe.train == Recipe(**TINY).train.model_copy(update={"steps": 20, "weight_decay": 0.5})
    parent = load_sweep(tmp_path / "parent.yaml")
    assert (parent.name, [recipe.label for recipe in parent.recipes]) == ("study", ["S.0", "S.1", "B.0", "B.1"])


@pytest.mark.parametrize("parent", ["digits", "digits.yaml", "../sweeps/digits.yaml"])
def test_extends_takes_a_shipped_study_unless_such_a_file_is_beside(
    parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # what is in the current folder is not asked for
    write(tmp_path / "elsewhere" / "digits.yaml", {"product": {"seed": [8]}})
    child = tmp_path / "here" / "child.yaml"
    child.write_text(f"extends: {parent}\nname: child\nproduct: {{seed: [7]}}\n")
    shipped = load_sweep(STUDIES / "digits.yaml").recipes
    assert load_sweep("../here/child.yaml").recipes == [r.model_copy(update={"seed": 7}) for r in shipped]
    beside = tmp_path / "here" / parent
    beside.parent.mkdir(exist_ok=True)
    write(beside, {"product": {"model.depth": [1, 2]}})
    assert [(r.model.depth, r.seed) for r in load_sweep(child).recipes] == [(1, 7), (2, 7)]


def test_extends_drops_an_axis_that_is_null(tmp_path: Path) -> None:
    write(tmp_path / "parent.yaml", {"product": {"model.depth": [1, 2], "seed": [0, 1]}})
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nname: child\nproduct: {model.depth: null}\n")
    assert [recipe.seed for recipe in load_sweep(child).recipes] == [0, 1]


def test_extends_reaches_over_two_files(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", {"product": {"seed": [1, 2]}})
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nname: b\nbase: {train: {steps: 30}}\n")
    (tmp_path / "c.yaml").write_text("extends: b.yaml\nbase: {train: {weight_decay: 0.1}}\n")
    sweep = load_sweep(tmp_path / "c.yaml")
    assert sweep.name == "b"
    settings = [(recipe.seed, recipe.train.steps, recipe.train.weight_decay) for recipe in sweep.recipes]
    assert settings == [(1, 30, 0.1), (2, 30, 0.1)]


def test_extends_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    (tmp_path / "self.yaml").write_text("extends: self.yaml\n")
    with pytest.raises(InputError, match=r"b\.yaml: extends: a\.yaml extends this file in turn"):
        load_sweep(tmp_path / "a.yaml")
    assert refusal(tmp_path / "self.yaml") == "extends: self.yaml extends this file in turn"


def test_extends_of_a_missing_file_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: none.yaml\nname: a\n")
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        load_sweep(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "content",
    [
        {"product": {"seed": [3, 3]}, "label": "seed {seed}"},
        {"paired": {"seed": [3, 3]}, "label": "seed {seed}"},
        {"runs": [{"seed": 3, "label": "seed 3"}, {"seed": 3, "train.log_every": 1, "label": "seed 3"}]},
    ],
)
def test_the_same_recipe_twice_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "s.yaml", content))
    assert message.startswith("seed 3 and seed 3 are the same recipe (")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"sweep": 1}, ["sweep: unknown key", "extends, name, label, base, product, paired, runs"]),
        ({"product": [1]}, ["product: expected a mapping", "[1]"]),
        ({"product": {"seed": 3}}, ["product.seed: expected a list of values, or named choices"]),
        ({"product": {"seed": []}}, ["product.seed: expected a list of values, or named choices"]),
        ({"product": {"size": {"S": 3}}}, ["product.size: expected a list of values, or named choices"]),
        ({"paired": 3}, ["paired: expected a mapping", "3"]),
        ({"paired": {}}, ["paired: expected lists of one length"]),
        ({"paired": {"seed": [], "model.depth": []}}, ["paired: expected lists of one length"]),
        ({"paired": {"seed": [1], "model.depth": 2}}, ["paired: expected lists of one length", "'seed': 1"]),
        (
            {"paired": {"seed": [1, 2], "model.depth": [1, 2, 3]}},
            ["paired: expected lists of one length", "'seed': 2", "'model.depth': 3"],
        ),
        ({"paired": {3: [1]}}, ["3: unknown key"]),
        ({"runs": 3}, ["runs: expected", "3"]),
        ({"runs": None}, ["runs: expected", "None"]),
        ({"runs": []}, ["runs: expected", "[]"]),
        ({"runs": {"seed": 1}}, ["runs: expected", "{'seed': 1}"]),
        ({"runs": [3]}, ["runs: expected mappings of dotted keys, got 3"]),
        ({"runs": [{3: 1}]}, ["3: unknown key"]),
        ({"runs": [{"seed": 1}], "product": {"seed": [1]}}, ["runs: give either runs, or product and paired"]),
        ({"runs": [{"seed": 1}], "paired": {"seed": [1]}}, ["runs: give either runs, or product and paired"]),
        ({"product": {"seed.first": [1]}}, ["seed", "{'first': 1}"]),
        ({"product": {"train.steps.all": [1]}}, ["train.steps.all: steps is a value, not a section"]),
        ({"name": None}, ["name: "]),
        ({"name": ""}, ["name: "]),
        ({"name": "../other"}, ["name: ", "../other"]),
        ({"name": "x" * 300}, ["name: 300 characters; accepted: at most 100"]),
        ({"name": [1]}, ["name: ", "[1]"]),
        ({"base": None}, ["base: expected a mapping, got None"]),
    ],
)
def test_a_sweep_of_the_wrong_form_is_refused(content: dict[str, Any], named: list[str], tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "s.yaml", content))
    for fragment in named:
        assert fragment in message


@pytest.mark.parametrize("key", ["train.steps", "train.batch_size", "evaluation.num_samples"])
def test_numbers_that_no_time_can_be_computed_from_are_refused(key: str, tmp_path: Path) -> None:
    assert key in refusal(write(tmp_path / "s.yaml", {"product": {key: [10**400]}}))


@pytest.mark.parametrize("key", ["name", "base"])
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {"name": "s", "base": BASE}.items() if k != key}))
    assert refusal(path) == f"{key}: missing"


@pytest.mark.parametrize("text", ["", "- a\n", "digits\n"])
def test_a_file_without_a_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    assert refusal(path).startswith("a sweep is a mapping with the keys extends, name, label, ")


@pytest.mark.parametrize(
    "template", ["{width}", "{}", "{0}", "{seed", "seed}", "{seed.real}", "{seed[a]}", "{seed[9]}", "{seed:d}"]
)
def test_a_label_that_cannot_be_filled_in_is_refused_with_what_can(template: str, tmp_path: Path) -> None:
    axes = {"seed": [1], "model.patch_size": [4]}
    message = refusal(write(tmp_path / "s.yaml", {"label": template, "product": axes}))
    assert message == f"label: {template!r}: accepted: {{seed}}, {{patch_size}}"


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ({"model.patch_size": [4, 3]}, ["(run 3): ", "patch_size: 3"]),
        ({"train.setps": [1]}, ["(run 1): ", "train.setps: unknown key; accepted: steps, "]),
        ({"sizes": {"S": {"model.deep": 3}}}, ["(run S): ", "model.deep: unknown key; accepted: name, "]),
        ({"patch": [4]}, ["(run 4): ", "patch: unknown key; accepted: label, model, "]),
    ],
)
def test_a_wrong_recipe_is_named_by_its_run(axes: dict[str, Any], named: list[str], tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "s.yaml", {"product": axes}))
    for fragment in named:
        assert fragment in message


def test_a_sweep_knows_its_choices_for_each_run(tmp_path: Path) -> None:
    sizes = {"small": {"model.depth": 2}, "large": {"model.depth": 4}}
    sweep = load_sweep(write(tmp_path / "a.yaml", {"label": "mine", "product": {"size": sizes, "seed": [5, 6]}}))
    assert [sweep.axes[recipe.id] for recipe in sweep.recipes] == [
        {"size": size, "seed": seed} for size in ("small", "large") for seed in ("5", "6")
    ]
    write_config(sweep.recipes[0], tmp_path / "run", sweep.axes[sweep.recipes[0].id])
    assert read_content(tmp_path / "run")["axes"] == {"size": "small", "seed": "5"}
    assert read_config(tmp_path / "run") == sweep.recipes[0]
