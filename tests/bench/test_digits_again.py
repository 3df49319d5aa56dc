"""What results/digits-again says of the study's repetition and of sampling compute is what its tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from test_readme import README, rows_after

from analysis.results.tables import Tables, correlations, load

RESULTS = Path(__file__).parents[2] / "results"
PAGE = (RESULTS / "digits-again" / "README.md").read_text(encoding="utf-8")
AGAIN, FIRST = load(RESULTS / "digits-again"), load(RESULTS / "digits")


def of_steps(tables: Tables) -> dict[int, list[float]]:
    found: Any = correlations(tables.evals).sort_values("seed").groupby("step")["r"]
    return {step: rows.tolist() for step, rows in found}


def test_the_correlations_are_the_measured_ones_and_those_of_the_first_time() -> None:
    again, first = of_steps(AGAIN), of_steps(FIRST)
    assert rows_after("step", PAGE) == [[str(step), *(f"{r:.3f}" for r in rs)] for step, rs in again.items()]
    largest = max(abs(a - b) for step in again for a, b in zip(again[step], first[step], strict=True))
    assert largest < 0.0025
    assert "is the same to 0.002" in " ".join(PAGE.split())
    assert "same to 0.002" in " ".join(README.split())


def test_the_distances_differ_as_said() -> None:
    both = AGAIN.evals.merge(FIRST.evals, on=["run", "step", "label"], suffixes=("", "_first"))
    assert len(both) == 144
    ratio: Any = 100 * (both["fid"] / both["fid_first"] - 1)
    largest = both["label"].isin(["L/1", "XL/1"])
    said = [f"{value:.1f}" for value in (ratio[~largest].min(), ratio[~largest].max())]
    assert f"come out {said[0]} to {said[1]} % higher" in " ".join(PAGE.split())
    assert f"{ratio[largest].min():.1f} to {ratio[largest].max():+.1f} %" in " ".join(PAGE.split())


def test_the_samplers_scores_are_the_measured_ones() -> None:
    own = AGAIN.evals.loc[(AGAIN.evals["seed"] == 0) & (AGAIN.evals["step"] == 600)]
    scores: Any = pd.concat([own, AGAIN.other_evals]).set_index(["label", "sampling_steps"])["fid"]
    models = AGAIN.runs.drop_duplicates("label").sort_values("gmacs", kind="stable")["label"]
    steps = (5, 10, 25, 50, 250)
    assert len(scores) == 12 * len(steps)
    rows = {row[0]: row[1:] for row in rows_after("model", PAGE)}
    assert rows == {model: [f"{scores[model, count]:.1f}" for count in steps] for model in models}
    pairs = [(f"{s}/{p}", f"{larger}/{p}") for p in (4, 2, 1) for s, larger in (("S", "B"), ("B", "L"), ("L", "XL"))]
    reached = [small for small, large in pairs if min(scores[small, count] for count in steps) <= scores[large, 25]]
    gmacs: Any = AGAIN.runs.drop_duplicates("label").set_index("label")["gmacs"]
    for small, large in pairs:
        cheap = [count for count in steps if count * gmacs[small] < 25 * gmacs[large]]
        assert min(scores[small, count] for count in cheap) > scores[large, 25]
    assert len(reached) == 6
    assert "six of nine models reach the next larger one" in " ".join(PAGE.split())


def test_it_took_as_long_as_said() -> None:
    started, finished = (pd.to_datetime(AGAIN.runs[name], utc=True) for name in ("started", "finished"))
    seconds = round((finished.max() - started.min()).total_seconds())
    assert f"({seconds // 60} min {seconds % 60} s on 2 cores)" in " ".join(PAGE.split())
