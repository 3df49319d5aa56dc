"""What was trained, how its samples were scored, and the scores: of each model, beside published ones, of every run."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.report.tables import names, number, plain_table, table_or_reason
from analysis.results.export_tables import GMACS, protocol, published, summary
from analysis.results.published import near_misses
from analysis.results.run_folders import EVALUATION_KEY_TYPES
from analysis.results.table_formats import Table
from analysis.results.tables import Tables


def lead(tables: Tables) -> str:
    """The paragraph under the title."""
    runs = tables.runs
    models = runs.drop_duplicates(["label", "block"])
    finished = runs["state"].tolist().count("finished")
    return (
        f"{_counted(len(models), 'model')} on {names(runs['data'])}, "
        f"{_counted(len(set(runs['seed'])), 'training seed')}, {max(runs['steps']):,} steps: "
        f"{finished} of {_counted(len(runs), 'run')} finished, {_counted(len(tables.evals), 'score')}."
    )


def study(tables: Tables) -> dict[str, Any]:
    """Data, models, training, and the evaluation key that all scores share."""
    runs, evals = tables.runs, tables.evals
    known = runs["gmacs"].dropna()
    compute = f"{number(known.min())} to {number(known.max())} GMACs" if len(known) else "not known yet"
    protocol = []
    if not evals.empty:
        key = evals.iloc[0]
        protocol = [(name, "none" if pd.isna(key[name]) else str(key[name])) for name in EVALUATION_KEY_TYPES]
        if pd.notna(accuracy := key["extractor_accuracy"]):
            protocol.append(("accuracy of the extractor", f"{accuracy:.4f}"))
    return {
        "about": [
            ("Data", names(runs["data"])),
            ("Models", names(runs["label"])),
            ("Block designs", names(runs["block"])),
            ("Compute of a forward pass", compute),
            ("Training", f"{names(runs['steps'])} steps of batch {names(runs['batch_size'])}"),
            ("Training seeds", names(runs["seed"])),
        ],
        "conventions": f"{GMACS} Training compute is GMACs × 3 × batch × steps (DiT paper, Fig. 9); of all runs' "
        f"recipes together: {_sum(runs['training_gmacs'])}.",
        "protocol": protocol,
        "steps": f"Scored at the steps {names(evals['step'])}. Scores that differ in one of these are never compared.",
    }


def _sum(gmacs: Any) -> str:
    """The sum of what is known, and of how many runs that is."""
    known = gmacs.dropna()
    of = f" ({len(known)} of {len(gmacs)} runs)" if len(known) < len(gmacs) else ""
    return f"{number(known.sum())} GMACs{of}"


def scores(tables: Tables) -> dict[str, Any]:
    """The tables of the scores; None for each that would be empty."""
    evals, others, missed = tables.evals, tables.other_evals, near_misses(tables)
    if evals.empty and others.empty:
        return {"any": False}
    found: dict[str, Any] = {"any": True, "summary": None, "every": None, "near_misses": None, "others": None}
    if not evals.empty:
        found["summary"] = table_or_reason(summary, tables)
        # Without the key, which is one for all, and without paths.
        shown = evals.drop(columns=[*EVALUATION_KEY_TYPES, "samples", "size", "patch"])
        found["every"] = plain_table("evals", "Every score", f"{GMACS} {protocol(tables)}", shown)
    found["published"] = _published(tables)
    if not missed.empty:
        columns = ["label", "seed", "step", "condition", "ours", "published", "source"]
        caption = "Scores of published models that are not compared, and the conditions in which they differ"
        found["near_misses"] = plain_table(
            "near-misses", caption, "Of the nearest published row.", missed.loc[:, columns]
        )
    if not others.empty:
        caption = "Scores of samples that were made with other settings than the recipe's"
        found["others"] = plain_table("other-evals", caption, f"Not to be compared with the others. {GMACS}", others)
    return found


def _published(tables: Tables) -> Table | str:
    try:
        return published(tables)
    except ResultsError as error:
        return f"Not set beside published scores: {error}."


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
