"""What is said of the scores in a figure: by which convention they were made, in a line and in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.figures.scores import Scores, blocks_of, by_study, names, side_by_side, unhashed
from analysis.results.sampled import best_of_text, guidance_text, sampler_text, steps_text

MAX_SAID = 6  # runs that the small print names one by one

HASHED = ("reference", "extractor", "decoder")
MACS = (
    "GMACs (MMACs): billions (millions) of multiply-accumulates of one forward pass of one image; GMACs are the "
    "paper's 'Gflops', FLOPs are twice as many."
)
PAPER = (
    "Published: Peebles & Xie 2022 (arXiv:2212.09748), Table 4: ImageNet 256 x 256, adaln-zero, batch 256, FID-50K, "
    "{steps}, no guidance, EMA weights, ft-MSE decoder, random labels."
)


def in_short(scores: Sequence[Scores], varied: tuple[str, ...] = ()) -> str:
    """The conditions in a sentence: "Scores of 250 samples, drawn in 25 steps, without guidance."

    Said once where all sources agree, else of each; without what the figure has `varied`.
    """
    told: dict[str, dict[str, None]] = {}
    for one in scores:
        told.setdefault("published" if one.source.published else one.source.name, {})[_short(one, varied)] = None
    texts = {text for each in told.values() for text in each}
    if len(texts) == 1:
        return f"Scores of {texts.pop()}."
    return f"Scores of {'; '.join(f'{name}: {text}' for name, each in told.items() for text in each)}."


def _short(scores: Scores, varied: tuple[str, ...]) -> str:
    key: dict[str, Any] = scores.evals.iloc[0].to_dict()
    said = {
        "num_samples": f"{key['num_samples']:,} samples",
        "sampling_steps": f"drawn in {steps_text(key, sampler_text(key['sampler']))}",
        "guidance_scale": "without guidance"
        if key["guidance_scale"] == 1
        else f"with guidance {key['guidance_scale']:g}{guidance_text(key | {'guidance_channels': None})}",
        "best_of": best_of_text(key),
    }
    seeds: Any = scores.evals.groupby("label")["seed"].nunique()
    most, same = max(seeds), min(seeds) == max(seeds)
    over = [f"mean and range of {'' if same else 'up to '}{most} seeds"] if most > 1 else []
    return ", ".join([*(text for name, text in said.items() if text and name not in varied), *over])


def unnamed(models: Sequence[str]) -> str:
    """What is said of models whose names have no room in the picture."""
    return f" {len(models)} models are named in the data only, for want of room." if models else ""


def keys(scores: Sequence[Scores]) -> str:
    """The names with a hash in them that scores were made with, one line for each source; the papers' have none."""
    lines = []
    for study in by_study([one for one in scores if not one.source.published]):
        evals = pd.concat([one.evals for one in study])
        said = {name: sorted({str(value) for value in evals[name] if pd.notna(value)}) for name in HASHED}
        text = ", ".join(f"{name} {' and '.join(values)}" for name, values in said.items() if values)
        lines.append(f"{study[0].source.name}: {text}.")
    return "\n".join(lines)


def protocols(scores: Sequence[Scores], varied: tuple[str, ...] = ()) -> str:
    """Small print: a line for each source, with the whole key except what the figure varies.

    Designs of one study that were scored alike share a line.
    """
    lines: list[str] = []
    for panel in (panel for study in by_study(scores) for panel in side_by_side(study)):
        one = _together(panel)
        lines.append(paper(PAPER, one) if one.source.published else protocol(one, varied))
        lines += [] if one.source.published or varied else absent(one)
        lines += fewer_seeds(one, ("step", *varied))
    return "\n".join(lines)


def absent(scores: Scores) -> list[str]:
    """A line that names the runs of the source that have none of these scores."""
    runs = scores.source.tables.runs
    without = runs.loc[~runs["run"].isin(scores.evals["run"])]
    if without.empty:
        return []
    here = " at this step" if len(set(scores.evals["step"])) == 1 else ""
    named = _some([f"{row['label']} seed {row['seed']}" for row in without.to_dict("records")])
    return [f"{scores.source.called}: {len(without)} of {len(runs)} runs have no score{here}: {named}."]


def fewer_seeds(scores: Scores, by: Sequence[str]) -> list[str]:
    """A line that names the means over fewer seeds than their model has."""
    evals = scores.evals
    all_seeds: Any = evals.groupby("label")["seed"].nunique()
    found: Any = evals.groupby(["label", *by], dropna=False, as_index=False).agg(seeds=("seed", "nunique"))
    few = found.loc[found["seeds"] < found["label"].map(all_seeds)]
    said = [
        f"{row['label']} at {', '.join(f'{name} {row[name]}' for name in by)} "
        f"({row['seeds']} of {all_seeds[row['label']]})"
        for row in few.to_dict("records")
    ]
    return [f"{scores.source.called}: means of fewer seeds: {_some(said)}."] if said else []


def _some(texts: list[str]) -> str:
    """The first of `texts`, and how many more there are."""
    more = len(texts) - MAX_SAID
    return "; ".join(texts[:MAX_SAID]) + (f"; and {more} more" if more > 0 else "")


def _together(designs: Sequence[Scores]) -> Scores:
    """Scores of one study's designs as one."""
    if len(designs) == 1:
        return designs[0]
    source = designs[0].source
    runs = pd.concat([one.source.tables.runs for one in designs])
    whole = replace(source, design="", tables=replace(source.tables, runs=runs))
    return Scores(whole, pd.concat([one.evals for one in designs]))


def paper(text: str, scores: Scores) -> str:
    """A paper's conditions, with the `{steps}` of its table in results/published."""
    key: dict[str, Any] = scores.evals.iloc[0].to_dict()
    return text.format(steps=steps_text(key, sampler_text(key["sampler"])))


def protocol(scores: Scores, varied: tuple[str, ...] = ()) -> str:
    """The conditions of a measurement in one sentence: all of the evaluation's key, and the training."""
    runs, evals = scores.runs, scores.evals
    key: dict[str, Any] = evals.iloc[0].to_dict()
    decoder = f"decoder {unhashed(key['decoder'])}" if pd.notna(key["decoder"]) else ""
    evaluation = {
        "weights": f"{key['weights']} weights",
        "sampler": f"{key['sampler']} sampler",
        "sampling_steps": steps_text(key),
        "guidance_scale": f"guidance {key['guidance_scale']:g}{guidance_text(key)}",
        "clip_denoised": "denoised images clipped" if key["clip_denoised"] else "denoised images not clipped",
        "decoder": decoder,
        "num_samples": f"{key['num_samples']:,} samples with {key['labels']} labels",
        "reference": f"reference {unhashed(key['reference'])}",
        "extractor": f"extractor {unhashed(key['extractor'])}",
        "best_of": best_of_text(key),
    }
    if pd.notna(key["extractor_accuracy"]):
        evaluation["extractor"] += f" (accuracy {key['extractor_accuracy']:.3f})"
    first, last = min(evals["step"]), max(evals["step"])
    steps = f"{last:,}" if first == last else f"{first:,} to {last:,}"
    several = len(set(runs["seed"])) > 1
    seeds = f"seeds {names(runs, 'seed')} (mean and range)" if several else f"seed {names(runs, 'seed')}"
    return (
        f"{scores.title}, {blocks_of(runs)}{steps} training steps of batch {names(runs, 'batch_size')}, "
        f"{seeds}; {', '.join(text for name, text in evaluation.items() if text and name not in varied)}."
    )
