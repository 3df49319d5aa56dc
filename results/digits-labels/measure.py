"""Score weights of the digits study with balanced and with random labels, and say how far the two are apart.

    python results/digits-labels/measure.py runs/digits

Writes scores.csv and summary.csv beside itself. Interrupted, the same command makes what is missing.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

HERE = Path(__file__).parent
# Numbers of samples that are scored; the first 250 of 1000 are the 250 samples of the same seed.
MODELS = {"S-4": (250, 1000), "B-2": (250, 1000), "XL-1": (250,)}
LABELS = ("balanced", "uniform")
SEEDS = range(10)
METRICS = ("fid", "fid_percent", "kid", "inception_score", "precision", "recall")
KEY = ["model", "run", "step", "num_samples", "sampling_seed", "labels"]


def measure(study: Path, out: Path) -> pd.DataFrame:
    """All scores, one row each, of the last kept step of each model; `out` holds those made so far."""
    scores = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=KEY)
    made = {tuple(row) for row in scores[["model", "sampling_seed", "labels"]].itertuples(index=False)}
    for model in MODELS:
        (folder,) = study.glob(f"{model}-*")
        for seed in SEEDS:
            for labels in LABELS:
                if (model, seed, labels) not in made:
                    rows = pd.DataFrame(_scores(model, folder, seed, labels))
                    scores = rows if scores.empty else pd.concat([scores, rows], ignore_index=True)
                    scores.to_csv(out, index=False)
                    print(model, seed, labels, rows["fid"].round(3).tolist(), flush=True)
    return scores


def _scores(model: str, folder: Path, seed: int, labels: str) -> list[dict[str, Any]]:
    """As `ditbench sample` and `ditbench evaluate --run` make them, in one process."""
    import torch

    from bench.data.decoders import load_decoder
    from bench.data.images import ArrayImages
    from bench.files.run_folder import read_config
    from bench.sample import Sampling, sample
    from bench.score.evaluate import reference_of
    from bench.score.extractors import load_extractor
    from bench.score.fidelity import Scorer
    from bench.weights import load_weights_of

    device, recipe = torch.device("cpu"), read_config(folder)
    weights = load_weights_of(str(folder), None, offline=True)
    evaluation = recipe.evaluation.model_copy(update={"labels": labels, "num_samples": max(MODELS[model])})
    sampling = replace(Sampling.of(recipe), evaluation=evaluation, seed=seed)
    decoder = load_decoder(evaluation, device, offline=True)
    batches = [sample(weights.model, sampling, decoder, *batch, device, "fp32") for batch in sampling.batches()]
    images, features = torch.cat(batches).numpy(), folder.parent / "features"
    extractor = load_extractor(evaluation.extractor, features, offline=True)
    scorer = Scorer(reference_of(recipe, offline=True), extractor, evaluation.kid_subset_size, features, device)
    rows = []
    for count in MODELS[model]:
        with tempfile.TemporaryDirectory() as work:
            scores = scorer.score(ArrayImages(images[:count]), Path(work))
        key = dict(zip(KEY, (model, recipe.id, weights.identity["step"], count, seed, labels), strict=True))
        of_both = {name: scorer.key[name] for name in ("reference", "extractor")}
        rows.append({**key, **{name: scores[name] for name in METRICS}, **of_both})
    return rows


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per model, number of samples and metric: both means and the shift, random minus balanced.

    Columns: model, num_samples, metric, seeds, balanced, balanced_sd, uniform, uniform_sd, shift, and its 95 %
    interval shift_low, shift_high (Student's t over the seeds' differences). Seeds scored in one way only are left out.
    """
    rows = []
    for (model, count), group in scores.groupby(["model", "num_samples"], sort=False):
        for metric in METRICS:
            both: Any = group.pivot(index="sampling_seed", columns="labels", values=metric).dropna()
            shifts = (both["uniform"] - both["balanced"]).to_numpy()
            half = stats.t.ppf(0.975, len(shifts) - 1) * np.std(shifts, ddof=1) / np.sqrt(len(shifts))
            row = {"model": model, "num_samples": count, "metric": metric, "seeds": len(shifts)}
            for labels in LABELS:
                row |= {labels: both[labels].mean(), f"{labels}_sd": both[labels].std(ddof=1)}
            mean = shifts.mean()
            rows.append(row | {"shift": mean, "shift_low": mean - half, "shift_high": mean + half})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    measured = summary(measure(Path(sys.argv[1]), HERE / "scores.csv"))
    measured.to_csv(HERE / "summary.csv", index=False, float_format="%.6g")
    print(measured[measured["metric"] == "fid"].to_string(index=False))
