"""A report's first section: what was trained, and how its samples were scored."""

from __future__ import annotations

import pandas as pd

from analysis.report import page
from analysis.report.tables import names, number
from analysis.results.export_tables import GMACS
from analysis.results.run_folders import EVALUATION_KEY_TYPES
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


def study(tables: Tables) -> str:
    """Data, models, training, and the evaluation key that all scores share."""
    runs, evals = tables.runs, tables.evals
    known = runs["gmacs"].dropna()
    compute = f"{number(known.min())} to {number(known.max())} GMACs" if len(known) else "not known yet"
    about = [
        ("Data", names(runs["data"])),
        ("Models", names(runs["label"])),
        ("Block designs", names(runs["block"])),
        ("Compute of a forward pass", compute),
        ("Training", f"{names(runs['steps'])} steps of batch {names(runs['batch_size'])}"),
        ("Training seeds", names(runs["seed"])),
    ]
    body = page.facts(about) + page.note(f"{GMACS} {_training_compute(runs)}")
    body += page.heading("Protocol of the scores")
    if evals.empty:
        return body + page.paragraph("There is no score yet.")
    key = evals.iloc[0]
    lines = [(name, "none" if pd.isna(key[name]) else str(key[name])) for name in EVALUATION_KEY_TYPES]
    accuracy = key["extractor_accuracy"]
    if pd.notna(accuracy):
        lines.append(("accuracy of the extractor", f"{accuracy:.4f}"))
    steps = f"Scored at the steps {names(evals['step'])}. Scores that differ in one of these are never compared."
    return body + page.facts(lines) + page.note(steps)


def _training_compute(runs: pd.DataFrame) -> str:
    return (
        "Training compute is GMACs × 3 × batch × steps (DiT paper, Fig. 9); of all runs' recipes together: "
        f"{number(runs['training_gmacs'].sum())} GMACs."
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
