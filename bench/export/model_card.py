"""The README.md of an exported model: what it is, how it is used, its scores for people and for the hub."""

from __future__ import annotations

import re
from typing import Any

import yaml

from bench.files.names import visible
from bench.flops import count
from bench.recipe import Recipe
from bench.samplers.dit_pipeline import SAMPLER
from bench.score.metrics import describe_metrics
from models.diffusers_transformer import PIPELINE_NULL_LABEL

# Column of evals.jsonl -> how it is called; beside metrics of one's own, all other columns are the score's key.
METRICS = {
    "fid": "Fréchet distance (FID with Inception features)",
    "fid_percent": "Fréchet distance, % of the trace of the reference's covariance",
    "fid_infinity": "Fréchet distance extrapolated to infinitely many samples",
    "sfid": "sFID",
    "kid": "KID",
    "kid_std": "KID, standard deviation over subsets",
    "inception_score": "Inception Score",
    "inception_score_std": "Inception Score, standard deviation over splits",
    "precision": "precision",
    "recall": "recall",
}
NOT_OF_THE_KEY = ("samples", "sampling_images_per_s")

TEXT = """
# {title}

A class-conditional Diffusion Transformer (DiT, [Peebles & Xie 2022](https://arxiv.org/abs/2212.09748)), trained and
scored by ditbench and exported for diffusers. EMA weights of step {step}.

| | |
| --- | --- |
| parameters | {params:,} |
| compute of one forward pass of one image | {gmacs:.3f} GMACs (the paper's "Gflops"), {gflops:.3f} GFLOPs |
| latents | {channels} x {side} x {side}, labels 0 to {last_label} |
| autoencoder in this folder | {vae} |
| run (a hash of its recipe) | {run} |
| ditbench commit | {commit} |

## Use

```python
import torch
from diffusers import DiTPipeline

pipeline = DiTPipeline.from_pretrained("FOLDER", trust_remote_code=True)
generator = torch.manual_seed(0)
images = pipeline([0, 1], guidance_scale=4.0, num_inference_steps=50, generator=generator).images
```

`trust_remote_code` lets diffusers run the two Python files in this folder; without it, it refuses the folder, because
its own classes would compute something else: `transformer/` spaces the timestep frequencies as the official DiT code
does and maps the pipeline's null label {null} to this model's, `scheduler/` is ditbench's sampler {sampler}.

- `DiTPipeline` ignores the learned variance and draws no noise on the way; other samplers give other samples.
- `DiTPipeline` guides all latent channels (ditbench: `guidance_channels: null`); the DiT paper's code guides three.

Scores below whose key says otherwise are not those of samples drawn here.

## Scores

{scores}

## Recipe

{fence}yaml
{recipe}{fence}
"""


def model_card(recipe: Recipe, step: int, vae: str, scores: list[dict[str, Any]], commit: str | None) -> str:
    """The card of a run's weights at `step`: YAML metadata with the hub's model-index, then Markdown.

    Args:
        vae: the id of the autoencoder beside the weights.
        scores: rows of evals.jsonl for this step.
        commit: the suite's, when the run was trained.
    """
    arch = recipe.model.architecture()
    cost = count(**recipe.model.arguments())
    titles = _titles(recipe, scores)
    title = f"{recipe.label or recipe.model.name} on {recipe.data.name}"
    metadata: dict[str, Any] = {"library_name": "diffusers", "tags": ["dit", "ditbench", "class-conditional"]}
    if scores:
        results = [_result(row, titles, recipe.data.name) for row in scores]
        metadata["model-index"] = [{"name": recipe.folder_name, "results": results}]
    text_of_recipe = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    text = TEXT.format(
        title=_as_text(title),
        step=step,
        params=cost.num_parameters,
        gmacs=cost.gmacs,
        gflops=cost.gflops,
        channels=arch.in_channels,
        side=arch.input_size,
        last_label=arch.num_classes - 1,
        vae=_as_text(vae),
        run=recipe.id,
        commit=commit or "unknown",
        null=PIPELINE_NULL_LABEL,
        sampler=SAMPLER,
        scores="\n\n".join(_table(row, titles) for row in scores) or "None were computed for this step.",
        recipe=text_of_recipe,
        # Longer than any run of backticks in a name, so that none ends it.
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", text_of_recipe)), default=0)),
    )
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{text}"


def _titles(recipe: Recipe, scores: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> how it is called, of metrics: the suite's own, the recipe's own, and what these give beside."""
    described = describe_metrics(recipe.evaluation.metrics)
    own = {column: about["title"] for column, about in described.items() if column not in METRICS}
    beside = {name: name for row in scores for name in row if name.startswith(tuple(f"{column}_" for column in own))}
    return {**METRICS, **own, **beside}


def _key(row: dict[str, Any], titles: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in titles and name not in NOT_OF_THE_KEY}


def _metrics(row: dict[str, Any], titles: dict[str, str]) -> dict[str, float]:
    return {name: row[name] for name in titles if row.get(name) is not None}


def _result(row: dict[str, Any], titles: dict[str, str], data: str) -> dict[str, Any]:
    """A result in the hub's format: the reference is the data set, the score's whole key every metric's arguments."""
    return {
        "task": {"type": "image-generation", "name": "Class-conditional image generation"},
        "dataset": {"type": data, "name": str(row.get("reference", data))},
        "metrics": [
            {"type": name, "value": value, "name": titles[name], "args": _key(row, titles)}
            for name, value in _metrics(row, titles).items()
        ],
    }


def _table(row: dict[str, Any], titles: dict[str, str]) -> str:
    lines = [f"| {_as_text(titles[name])} | {value:.6g} |" for name, value in _metrics(row, titles).items()]
    key = ", ".join(f"{name} {'none' if value is None else value}" for name, value in _key(row, titles).items())
    return "\n".join(["| score | value |", "| --- | --- |", *lines, "", f"Key: {_as_text(key)}."])


def _as_text(name: str) -> str:
    """`name` on one line, with what Markdown, HTML and formulas would read as markup escaped."""
    return re.sub(r"[\\|*`<>\[\]&$~#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", visible(name))
