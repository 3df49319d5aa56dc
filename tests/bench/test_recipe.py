"""Recipes: what is accepted, what survives a file, and what the id stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from captions_family import MODEL
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from recipes import LATENTS, TINY, dotted_keys, recipe

import sweeps
from bench.data.digits import DIGITS
from bench.errors import InputError
from bench.files.run_folder import read_config, write_config
from bench.objectives.iddpm import IDDPM
from bench.recipe import Recipe, load_recipe, parse_recipe
from bench.schema import dump_yaml
from bench.score.evaluate import sampling_key
from sweeps.expand import load_sweep

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
    "model.qk_norm": True,
    "model.norm": "rms",
    "model.mlp": "swiglu",
    "model.positions": "rotary",
    "model.patch_bottleneck": 3,
    "model.class_tokens": 2,
    "model.class_tokens_start": 1,
    "data.name": "test_recipe:COPY",
    "diffusion.timesteps": 500,
    "diffusion.objective": "test_recipe:OBJECTIVE",
    "diffusion.prediction": "velocity",
    "diffusion.variance": "learned",
    "diffusion.schedule": "cosine",
    "diffusion.weighting": "min-snr",
    "diffusion.min_snr_gamma": 1.0,
    "diffusion.p2_gamma": 0.5,
    "train.steps": 13,
    "train.batch_size": 16,
    "train.learning_rate": 2e-3,
    "train.betas": [0.9, 0.95],
    "train.weight_decay": 0.01,
    "train.ema_decay": 0.99,
    "train.label_dropout": 0.2,
    "train.checkpoint_steps": [6, 7],
    "train.ema_decays": [0.5],
    "train.ema_stds": [0.1],
    "train.ema_snapshot_every": 3,
    "train.clip_grad_norm": 1.0,
    "train.warmup_steps": 2,
    "train.schedule": "cosine",
    "train.final_learning_rate": 0.1,
    "train.cooldown_steps": 3,
    "train.decay_matrices_only": True,
    "train.non_finite": "skip",
    "model.window_size": 1,
    "model.global_every": 2,
    "model.use_rel_pos": True,
    "model.drop_path": 0.1,
    "model.position_base": 3,
    "evaluation.sampler": "ddim",
    "evaluation.sampler_options": {"eta": 0.5},
    "evaluation.sampling_steps": 5,
    "evaluation.clip_denoised": False,
    "evaluation.guidance_scale": 0.5,
    "evaluation.guidance_channels": 1,
    "evaluation.guidance_interval": [0, 500],
    "evaluation.guide": "runs/smaller",
    "evaluation.guide_step": 6,
    "evaluation.num_samples": 70,
    "evaluation.labels": "uniform",
    "evaluation.extractor": "inception-v3-compat",
    "evaluation.metrics": ["kid"],
    "evaluation.kid_subset_size": 30,
    "evaluation.ema": "raw",
    "seed": 1,
}
LATENT_CHANGES: dict[str, Any] = {
    "data.vae": "owner/other",
    "data.length": 65,
    "data.num_classes": 7,
    "data.image_size": 128,
    "data.normalize": True,
    "evaluation.decoder": "owner/other",
    "evaluation.reference": "others",
}
# Which need each other.
MUP_CHANGES: dict[str, Any] = {"model.parametrization": "mup", "model.base_width": 8}
# The same of latents with captions, and a model that is told them.
CAPTIONS: dict[str, Any] = {
    "data.text_encoder": "owner/t5",
    "data.caption_tokens": 5,
    "data.caption_channels": 8,
}
CAPTION_CHANGES: dict[str, Any] = {
    "data.text_encoder": "owner/other",
    "data.caption_tokens": 7,
    "data.caption_channels": 16,
}
# Of a model that is told captions (4, 8), which its data have to have.
TOLD_CHANGES = {"model.caption_tokens": (5, 8), "model.caption_channels": (4, 9)}
# The model's name and image size decide nothing where the tiny recipe gives all sizes itself.
WITHOUT_EFFECT = {
    "label": "other",
    "model.name": "DiT-S/4",
    "model.image_size": 512,
    "train.log_every": 3,
    "train.save_every": 5,
    "train.allow_accumulation": True,
    "evaluation.batch_size": 7,
    "evaluation.decode_batch_size": 7,
    "scores": [{"sampling_steps": 3}],
}

# What a model of other channels, classes or sides needs of its data: ids must differ for the model's key alone.
FITTING_FACTS: dict[str, dict[str, Any]] = {
    "model.in_channels": {"shape": (3, 8, 8)},
    "model.num_classes": {"num_classes": 7},
    "model.input_size": {"shape": (1, 16, 16)},
}
# Guidance over three channels, the default, needs a model of three.
NEEDED_BESIDE = {
    "model.window_size": {"model.block": "pixart"},
    "model.global_every": {"model.block": "pixart", "model.depth": 2, "model.window_size": 1},
    "model.use_rel_pos": {"model.block": "pixart", "model.window_size": 1},
    "model.drop_path": {"model.block": "pixart"},
    "model.class_tokens_start": {"model.depth": 2, "model.class_tokens": 2},
    "evaluation.guidance_scale": {"evaluation.guidance_channels": None},
    "evaluation.sampler_options": {"evaluation.sampler": "ddim"},
    "diffusion.min_snr_gamma": {"diffusion.weighting": "min-snr"},
    "diffusion.p2_gamma": {"diffusion.weighting": "p2"},
    "train.ema_snapshot_every": {"train.ema_stds": [0.05, 0.1]},
    "evaluation.ema": {"train.ema_decays": [0]},
    "train.final_learning_rate": {"train.schedule": "cosine"},
    "train.cooldown_steps": {"train.schedule": "cooldown", "train.cooldown_steps": 2},
    "train.decay_matrices_only": {"train.weight_decay": 0.1},
}
# Parts of one's own, equal to shipped ones but for their names.
COPY, OBJECTIVE = DIGITS, IDDPM


def test_every_key_is_known_to_bear_on_the_result_or_not() -> None:
    changes = CHANGES.keys() | LATENT_CHANGES.keys() | CAPTION_CHANGES.keys() | TOLD_CHANGES.keys()
    changes |= MUP_CHANGES.keys()
    known = changes | WITHOUT_EFFECT.keys()
    assert known == dotted_keys(Recipe)


@pytest.mark.parametrize("key", CHANGES)
def test_id_depends_on_every_key_that_decides_the_result(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = NEEDED_BESIDE.get(key, {})
    before = recipe(beside).id
    facts = DIGITS.facts("digits", DIGITS.options())._replace(**FITTING_FACTS.get(key, {}))
    monkeypatch.setattr(type(DIGITS), "facts", lambda self, name, options: facts)
    assert recipe({**beside, key: CHANGES[key]}).id != before


@pytest.mark.parametrize("key", LATENT_CHANGES)
def test_id_depends_on_every_key_of_latents(key: str) -> None:
    fitting = {"data.num_classes": {"model.num_classes": 7}, "data.image_size": {"model.input_size": 16}}
    beside = fitting.get(key, {})
    changed = recipe({**LATENTS, **beside, key: LATENT_CHANGES[key]})
    assert changed.id != recipe(LATENTS).id
    if beside:  # what the model had to follow is not all that the id sees
        content = changed.model_dump(mode="json")
        assert content["data"] != recipe(LATENTS).model_dump(mode="json")["data"]


@pytest.mark.parametrize("key", CAPTION_CHANGES)
def test_id_depends_on_every_key_of_captions(key: str) -> None:
    def captioned(changes: dict[str, Any]) -> Recipe:
        data = {name: value for name, value in LATENTS.items() if not name.startswith("model.")} | CAPTIONS | changes
        sizes = {"tokens": data["data.caption_tokens"], "features": data["data.caption_channels"]}
        return recipe({"model": {"name": MODEL, "channels": 4, **sizes}, **data})

    before, changed = captioned({}), captioned({key: CAPTION_CHANGES[key]})
    assert changed.id != before.id
    assert changed.data.non_default() != before.data.non_default()  # not by the model alone, which had to follow


@pytest.mark.parametrize("shape", TOLD_CHANGES.values())
def test_id_depends_on_what_captions_a_model_is_told(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def told(tokens: int, channels: int) -> str:
        facts = DIGITS.facts("digits", DIGITS.options())._replace(caption_shape=(tokens, channels))
        with monkeypatch.context() as patched:
            patched.setattr(type(DIGITS), "facts", lambda self, name, options: facts)
            return recipe({"model.caption_tokens": tokens, "model.caption_channels": channels}).id

    assert told(*shape) != told(4, 8) != recipe().id


def test_id_depends_on_the_parametrization_and_its_base_width() -> None:
    ids = {recipe(changes).id for changes in ({}, MUP_CHANGES, {**MUP_CHANGES, "model.base_width": 16})}
    assert len(ids) == 3
    assert recipe({"model.parametrization": "sp"}).id == recipe().id


def test_latents_of_imagenet_need_only_their_autoencoder() -> None:
    model = {"model": {"name": "DiT-XL/2", "image_size": 512}, "evaluation": {**DECODED, "num_samples": 1000}}
    loaded = parse_recipe({**model, "data": {"name": "imagenet-512-latents", "vae": "owner/vae"}}, "x")
    assert (loaded.data.facts.length, loaded.data.facts.shape) == (1_281_167, (4, 64, 64))
    for key in ("length", "num_classes", "image_size"):  # another set under the same name would be compared with it
        with pytest.raises(InputError, match=rf"data\.{key}: imagenet-512-latents is known; .* another name"):
            parse_recipe({**model, "data": {"name": "imagenet-512-latents", "vae": "owner/vae", key: 512}}, "x")


DECODED = {"decoder": "owner/decoder", "reference": "adm-imagenet-512"}


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
        "qk_norm": None,
        "norm": None,
        "mlp": None,
        "positions": None,
        "patch_bottleneck": None,
        "class_tokens": None,
        "class_tokens_start": None,
        "caption_tokens": None,
        "caption_channels": None,
        "window_size": None,
        "global_every": None,
        "use_rel_pos": None,
        "drop_path": None,
        "position_base": None,
        "parametrization": None,
        "base_width": None,
    },
    "data": {},
    "diffusion": {
        "objective": "iddpm",
        "timesteps": 1000,
        "prediction": "noise",
        "variance": None,
        "schedule": "linear",
        "weighting": "none",
        "min_snr_gamma": 5.0,
        "p2_gamma": 1.0,
    },
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
        "allow_accumulation": False,
        "ema_decays": [],
        "ema_stds": [],
        "ema_snapshot_every": None,
        "clip_grad_norm": None,
        "warmup_steps": 0,
        "schedule": "constant",
        "final_learning_rate": 0.0,
        "cooldown_steps": 0,
        "decay_matrices_only": False,
        "non_finite": "stop",
    },
    "evaluation": {
        "sampler": "ddpm",
        "sampler_options": {},
        "sampling_steps": 250,
        "clip_denoised": False,
        "guidance_scale": 1.0,
        "guidance_channels": 3,
        "num_samples": 50_000,
        "labels": "balanced",
        "decoder": None,
        "reference": None,
        "extractor": "inception-v3-compat",
        "metrics": None,
        "kid_subset_size": 1000,
        "batch_size": 64,
        "decode_batch_size": 16,
        "ema": None,
        "guidance_interval": None,
        "guide": None,
        "guide_step": None,
    },
    "seed": 0,
    "scores": [],
}


def test_defaults_are_what_ids_take_them_to_be() -> None:
    assert parse_recipe(SMALLEST, "x").model_dump(mode="json") == {
        **SMALLEST,
        **DEFAULTS,
        "model": {**SMALLEST["model"], **DEFAULTS["model"]},
        "data": {**SMALLEST["data"], **DEFAULTS["data"]},
    }


def test_ids_do_not_change_from_one_version_to_the_next() -> None:
    digits = load_sweep(Path(sweeps.__file__).parent / "studies" / "digits.yaml")
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
    [
        ("S/4", "S-4-"), ("", "DiT-"), ("../etc/passwd", "..-etc-passwd-"), ("größer 2", "gr-er-2-"), ("/", "-"),
        ("x" * 300, "x" * 200 + "-"),
    ],
)  # fmt: skip
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
    path.write_text(dump_yaml(first.model_dump(mode="json")), encoding="utf-8")
    again = load_recipe(path)
    assert again == first
    assert again.id == first.id
    write_config(first, path.parent / "run")
    assert read_config(path.parent / "run") == first


def test_sampler_options_are_part_of_the_scores_key_and_their_defaults_are_not() -> None:
    ddim = recipe({"evaluation.sampler": "ddim"})
    for eta, text in ((0.5, "ddim eta=0.5"), (1, "ddim eta=1.0"), (1.0, "ddim eta=1.0"), (0, "ddim"), (0.0, "ddim")):
        given = recipe({"evaluation.sampler": "ddim", "evaluation.sampler_options": {"eta": eta}})
        assert sampling_key(given.evaluation, given.diffusion, "pixels")["sampler"] == text
        assert (given.id == ddim.id) == (eta == 0)


def test_run_folders_whose_data_have_the_keys_of_latents_can_be_read(tmp_path: Path) -> None:
    """Written for every data set, before each had options of its own."""
    write_config(recipe(), tmp_path)
    path = tmp_path / "config.yaml"
    old = yaml.safe_load(path.read_text())
    old["recipe"]["data"] |= {"vae": None, "length": None, "num_classes": None, "image_size": None}
    path.write_text(yaml.safe_dump(old))
    assert read_config(tmp_path) == recipe()
    old["recipe"]["data"]["vae"] = "owner/vae"
    path.write_text(yaml.safe_dump(old))
    with pytest.raises(InputError, match=r"config\.yaml: data\.vae: unknown key"):
        read_config(tmp_path)


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
