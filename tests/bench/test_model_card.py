"""The model card: its facts in words, and its scores in the metadata that the hub reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile_names import NAMES
from huggingface_hub import ModelCard
from latent_runs import evaluation, recipe_of
from markdown_it import MarkdownIt

from bench.commands.terminal import visible
from bench.export.model_card import model_card
from bench.flops import count
from bench.recipe import parse_recipe

RECIPE = recipe_of(Path("some-vae"))


def card_of(scores: list[dict[str, Any]], commit: str | None = "c0ffee") -> Any:
    return ModelCard(model_card(RECIPE, 20, "some-vae@01234567", scores, commit))


def test_facts() -> None:
    text = card_of([]).text
    cost = count(**RECIPE.model.arguments())
    rows = dict(line.strip("| ").split(" | ") for line in text.splitlines() if line.strip("| ").count(" | ") == 1)
    assert rows["parameters"] == f"{cost.num_parameters:,}"
    assert rows["compute of one forward pass of one image"].startswith(f"{cost.gmacs:.3f} GMACs")
    assert rows["latents"] == "4 x 8 x 8, labels 0 to 2"
    assert rows["autoencoder in this folder"] == "some-vae@01234567"
    assert rows["run (a hash of its recipe)"] == RECIPE.id
    assert rows["ditbench commit"] == "c0ffee"
    assert "EMA weights of step 20" in text


def test_the_recipe_can_be_run_again() -> None:
    block = card_of([]).text.partition("```yaml\n")[2].partition("```")[0]
    assert parse_recipe(yaml.safe_load(block), "card") == RECIPE


def test_scores_for_the_hub_carry_their_whole_key() -> None:
    rows = [evaluation(20), evaluation(20) | {"guidance_scale": 4.0, "fid": 7.0, "kid": None}]
    rows[0] |= {"samples": "samples/step-00000020.npy", "sampling_images_per_s": 3.5}
    data = card_of(rows).data
    assert data.model_name == RECIPE.folder_name
    found = [(r.metric_type, r.metric_value, r.dataset_name, r.metric_args) for r in data.eval_results]
    key = {k: v for k, v in evaluation(20).items() if k not in ("fid", "kid", "inception_score")}
    assert sorted(found, key=str) == sorted(
        [
            ("fid", 32.5, "shapes-5000-01234567", key),
            ("kid", 0.25, "shapes-5000-01234567", key),
            ("fid", 7.0, "shapes-5000-01234567", key | {"guidance_scale": 4.0}),
        ],
        key=str,
    )


def test_scores_for_people() -> None:
    text = card_of([evaluation(20)]).text
    assert "| Fréchet distance (FID with Inception features) | 32.5 |" in text
    assert "sampler ddpm, sampling_steps 250, guidance_channels none, reference shapes-5000-01234567" in text
    assert "Inception Score" not in text  # it was not computed


def test_without_scores_or_a_commit() -> None:
    card = card_of([], commit=None)
    assert "None were computed for this step" in card.text
    assert "| ditbench commit | unknown |" in card.text
    assert card.data.eval_results is None


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_any_kind_is_text_and_ends_nothing(name: str) -> None:
    recipe = RECIPE.model_copy(update={"label": name})
    row = evaluation(20) | {"reference": name}
    text = model_card(recipe, 20, name, [row], None)
    assert "\x1b" not in text
    card: Any = ModelCard(text)
    assert card.data.eval_results[0].dataset_name == name
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(card.text)
    texts = ["".join(part.content for part in token.children or []) for token in tokens if token.type == "inline"]
    assert texts[0] == f"{visible(name)} on {recipe.data.name}".strip()
    assert visible(name).strip() in texts  # of the autoencoder
    assert any(f"reference {visible(name)}, " in text for text in texts)
    *_, block = (token.content for token in tokens if token.type == "fence")
    assert parse_recipe(yaml.safe_load(block), "card") == recipe
