"""Names, sizes and errors of the model registry; nothing here builds a network."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import TINY

from bench.recipe import parse_recipe
from models import BLOCKS, list_models
from models.dit import DiTOptions
from models.registry import Family, configure, listed_name

ROOT = Path(__file__).parents[2]

# Table 1 of the paper: layers N, hidden size d, heads.
TABLE_1 = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}

CUSTOM: dict[str, Any] = {"depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 2}


def test_the_twelve_names_smallest_first() -> None:
    assert [name for name in list_models() if name.startswith("DiT-")] == [
        "DiT-S/8", "DiT-S/4", "DiT-S/2", "DiT-B/8", "DiT-B/4", "DiT-B/2",
        "DiT-L/8", "DiT-L/4", "DiT-L/2", "DiT-XL/8", "DiT-XL/4", "DiT-XL/2",
    ]  # fmt: skip


def test_the_five_designs() -> None:
    assert set(BLOCKS) == {"adaln-zero", "adaln", "adaln-single", "cross-attention", "in-context"}


@pytest.mark.parametrize("size", TABLE_1)
@pytest.mark.parametrize("patch", [8, 4, 2])
def test_names_resolve_to_table_1(size: str, patch: int) -> None:
    arch = configure(f"DiT-{size}/{patch}")
    assert (arch.depth, arch.hidden_size, arch.num_heads) == TABLE_1[size]
    assert (arch.patch_size, arch.input_size, arch.num_tokens) == (patch, 32, {8: 16, 4: 64, 2: 256}[patch])
    assert (arch.block, arch.in_channels, arch.num_classes, arch.learn_sigma) == ("adaln-zero", 4, 1000, True)
    assert (arch.mlp_ratio, arch.frequency_embedding_size) == (4.0, 256)
    assert (arch.label_init_std, arch.timestep_init_std) == (0.02, 0.02)


def test_512_pixels_are_1024_tokens() -> None:
    arch = configure("DiT-XL/2", image_size=512)
    assert (arch.input_size, arch.num_tokens) == (64, 1024)


def test_overrides_replace_a_presets_sizes() -> None:
    arch = configure(
        "DiT-S/8", block="adaln", image_size=128, in_channels=3, num_classes=10, learn_sigma=False,
        patch_size=4, depth=3, label_init_std=0.5,
    )  # fmt: skip
    assert (arch.depth, arch.hidden_size, arch.num_heads, arch.patch_size) == (3, 384, 6, 4)
    assert (arch.block, arch.input_size, arch.in_channels, arch.num_classes) == ("adaln", 16, 3, 10)
    assert (arch.learn_sigma, arch.label_init_std) == (False, 0.5)


def test_input_size_makes_image_size_irrelevant() -> None:
    assert configure("DiT-S/2", image_size=30, input_size=28).num_tokens == 14**2


def test_custom_sizes() -> None:
    arch = configure("DiT", image_size=64, mlp_ratio=2.5, frequency_embedding_size=64, **CUSTOM)
    assert {key: getattr(arch, key) for key in CUSTOM} == CUSTOM
    assert (arch.input_size, arch.num_tokens, arch.mlp_ratio, arch.frequency_embedding_size) == (8, 16, 2.5, 64)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("DiT-M/2", {}, ["'DiT-M/2'", *list_models()]),
        ("DiT-XL/3", {}, ["'DiT-XL/3'", *list_models()]),
        ("dit-s2", {}, ["'dit-s2'", "DiT-S/2"]),
        ("DiT-S/2", {"block": "adaLN"}, ["'adaLN'", *BLOCKS]),
        ("DiT-S/2", {"width": 5, "dept": 1}, ["dept", "width", "depth", "hidden_size", "num_heads", "patch_size",
                                              "input_size", "mlp_ratio", "frequency_embedding_size",
                                              "label_init_std", "timestep_init_std"]),
        ("DiT-S/2", {"patch_size": 3}, ["patch_size", "3", "32"]),
        ("DiT-S/8", {"input_size": 28}, ["patch_size", "8", "28"]),
        ("DiT-S/2", {"num_heads": 5}, ["num_heads", "5", "384"]),
        ("DiT-S/2", {"image_size": 250}, ["image_size", "250", "8"]),
        ("DiT-S/2", {"hidden_size": 390}, ["hidden_size", "390", "4"]),
        ("DiT-S/2", {"frequency_embedding_size": 255}, ["frequency_embedding_size", "255"]),
        ("DiT", {}, ["'DiT'", "depth", "hidden_size", "num_heads", "patch_size"]),
        ("DiT", {"depth": 1, "num_heads": 2}, ["hidden_size", "patch_size"]),
        ("DiT-S/2", {"depth": 0}, ["depth", "0", "positive"]),
        ("DiT-S/2", {"num_heads": -2}, ["num_heads", "-2", "positive"]),
        ("DiT-S/2", {"patch_size": 0}, ["patch_size", "0", "positive"]),
        ("DiT-S/2", {"image_size": 0}, ["input_size", "0", "positive"]),
        ("DiT-S/2", {"in_channels": 0}, ["in_channels", "0", "positive"]),
        ("DiT-S/2", {"num_classes": -1}, ["num_classes", "-1", "positive"]),
        ("DiT-S/2", {"mlp_ratio": -4.0}, ["mlp_ratio", "-4.0", "positive"]),
        ("DiT-S/2", {"timestep_init_std": -0.1}, ["timestep_init_std", "-0.1", "positive"]),
        ("DiT-S/2", {"label_init_std": 0.0}, ["label_init_std", "0.0", "positive"]),
    ],
)  # fmt: skip
def test_errors_name_what_was_given_and_what_is_accepted(name: str, options: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        configure(name, **options)
    message = str(caught.value)
    assert [word for word in named if word not in message] == []


def test_a_custom_model_missing_some_sizes_is_not_told_about_those_it_gave() -> None:
    with pytest.raises(ValueError, match=r"give hidden_size, patch_size$"):
        configure("DiT", depth=1, num_heads=2)


@pytest.mark.parametrize("name", [*list_models(), "DiT"])
def test_case_does_not_matter(name: str) -> None:
    sizes = CUSTOM if name == "DiT" else {}
    for typed in (name.lower(), name.upper(), name.swapcase()):
        assert listed_name(typed) == name
        assert configure(typed, **sizes) == configure(name, **sizes)


def test_case_does_not_matter_in_a_recipe_either_nor_for_its_id() -> None:
    content = {**TINY, "model": {**TINY["model"], "name": "dit"}}
    recipe, listed = parse_recipe(content, "typed"), parse_recipe(TINY, "listed")
    assert (recipe, recipe.id, recipe.model.name) == (listed, listed.id, "DiT")


@dataclass(frozen=True)
class Width:
    width: int = 1


OWN = Family(
    name="own",
    presets={"small": {"width": 2}, "SMALL": {"width": 3}, "large": {"width": 4}},
    options=Width,
    resolve=lambda preset, options: Width(**{**vars(options), **preset}),  # where both say it, the preset wins
    build=lambda config: config,
)


def test_presets_of_ones_own_family_in_any_case_but_each_as_it_is_written_first() -> None:
    widths = {short: configure(f"test_registry:OWN/{short}").width for short in ("small", "SMALL", "Small", "LARGE")}
    assert widths == {"small": 2, "SMALL": 3, "Small": 2, "LARGE": 4}
    assert listed_name("test_registry:OWN/Large") == "test_registry:OWN/large"
    with pytest.raises(ValueError, match="'tiny' of own; accepted: small, SMALL, large"):
        listed_name("test_registry:OWN/tiny")


def test_what_overrides_overrides_a_preset_that_wins_over_options() -> None:
    """A network that was built before is built the same; what is typed beside it counts."""
    assert configure("test_registry:OWN/small", width=7).width == 2
    assert configure("test_registry:OWN/small", Width(7)).width == 2
    assert configure("test_registry:OWN/small", Width(7), width=5).width == 5
    assert configure("DiT-S/2", DiTOptions(depth=3), depth=5).depth == 5
    assert configure("DiT-S/2", DiTOptions(depth=3), num_heads=3).depth == 3


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    hidden_size=st.integers(-4, 64),
    num_heads=st.integers(-1, 9),
    patch_size=st.integers(-1, 9),
    input_size=st.integers(-2, 32),
    frequency_embedding_size=st.integers(-1, 9),
)
def test_sizes_are_accepted_exactly_when_they_fit(**sizes: Any) -> None:
    """The five sizes that constrain each other, against the rules written out."""
    dim, patch = sizes["hidden_size"], sizes["patch_size"]
    fits = (
        min(sizes.values()) > 0
        and sizes["input_size"] % patch == 0
        and dim % sizes["num_heads"] == 0
        and dim % 4 == 0
        and sizes["frequency_embedding_size"] % 2 == 0
    )
    if fits:
        arch = configure("DiT", depth=1, **sizes)
        assert arch.num_tokens * patch**2 == sizes["input_size"] ** 2
    else:
        with pytest.raises(ValueError, match="|".join(sizes)):
            configure("DiT", depth=1, **sizes)


def test_names_and_sizes_do_not_need_torch() -> None:
    """Cheap commands must not wait for torch's import."""
    code = (
        "import sys, models, models.registry as r; models.list_models(); r.configure('DiT-XL/2');"
        "print([m for m in ('torch', 'timm', 'diffusers', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
