"""A report's laws: how well compute orders the models, and which scaling law their scores follow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import ResultsError
from analysis.laws.intervals import Interval
from analysis.laws.observed import collected_observations
from analysis.laws.report import FitReport, fit_report
from analysis.laws.solver import OBJECTIVES
from analysis.report.tables import names, number, table_or_reason
from analysis.results.export_tables import correlations, frechet_name
from analysis.results.table_formats import Column, Table, count, fixed, signed
from analysis.results.tables import MIN_MODELS, Tables
from analysis.results.tables import correlations as correlations_of

LEVEL = 0.9


def laws(tables: Tables) -> dict[str, Any]:
    """Correlations and fits."""
    lines = correlations_in_words(tables)
    none = f"Nothing to correlate: no seed and step has {MIN_MODELS} models with a positive, finite distance."
    table = table_or_reason(correlations, tables) if lines else none
    content: dict[str, Any] = {"correlations": lines, "correlation_table": table, "refused": None}
    try:
        found = fitted(tables)
    except ResultsError as error:
        return content | {"refused": f"No law was fitted: {error}."}
    tests = [forms_table(found)]
    tests += [patches_table(found)] if found.patches else []
    tests += [held_out_table(found)] if found.held_out else []
    models = found.rows.models
    findings = [_minus(line, models) for line in _findings(found)]
    return content | {"findings": findings, "tables": tests, "sentences": _minus(found.sentence(), models).split("\n")}


def correlations_in_words(tables: Tables) -> list[str]:
    """A sentence for each seed at the last step that has a correlation, as in `tables.correlations`."""
    found = correlations_of(tables.evals)
    if found.empty:
        return []
    frechet, last = frechet_name(tables.evals), max(found["step"])
    return [
        f"Seed {row['seed']}, step {last:,}, {row['num_models']} models, block {row['block']}: the correlation of "
        f"log10 GMACs with the {frechet} is {_thousandths(row['r'])}; power law: {frechet} = "
        f"{number(row['coefficient'])} × GMACs^{_thousandths(row['exponent'])}. "
        f"More compute scores better in {row['patch_pairs_right']} of {row['patch_pairs']} neighbouring pairs of "
        f"patch sizes and in {row['size_pairs_right']} of {row['size_pairs']} of sizes."
        for row in found.loc[found["step"] == last].to_dict("records")
    ]


def fitted(tables: Tables) -> FitReport:
    """What `ditbench fit --held-out largest` finds: all forms, at the last step that most runs share.

    Raises:
        ResultsError: see `collected_observations` and `fit_report`.
    """
    rows = collected_observations(tables)
    source = f"{names(tables.runs['sweep'])}, {rows.names[0].rpartition(' step ')[2]} steps"
    return fit_report(rows, source, level=LEVEL, held_out=True)


def forms_table(found: FitReport) -> Table:
    """One row per form, best AICc first.

    Data columns: form, formula, parameters (text, with intervals), k, loss, aicc, held_out_percent, status.
    """
    fits = zip(found.comparison.fits, found.comparison.held_out_errors, found.intervals, strict=True)
    rows = [
        {
            "form": law.form.name,
            "formula": _minus(law.form.formula),
            "parameters": ", ".join(_with_interval(name, each) for name, each in intervals.items()),
            "k": law.num_parameters + 1,
            "loss": law.loss,
            "aicc": law.aicc if np.isfinite(law.aicc) else np.nan,
            "held_out_percent": 100 * error,
            "status": law.status,
        }
        for law, error, (_, intervals) in fits
    ]
    best, (how, _) = found.comparison.fits[0], found.intervals[0]
    definition = found.rows.compute.definition
    conventions = (
        f"{found.source}, {found.rows.metric}, {len(found.rows)} rows; left out: "
        f"{'; '.join(found.rows.left_out) or 'none'}. C: {definition}. T: image tokens. Loss: "
        f"{OBJECTIVES[best.objective]}. k: parameters, and one for the variance. AICc: lower is better, between forms "
        f"of the same rows. Held-out error: |predicted / true − 1| of the model with the most compute, by the law of "
        f"the others. Intervals: {100 * found.level:g} %; for {best.form.name}, {how.sentence()}"
    )
    return Table(
        "laws",
        "Forms of the law, fitted to the same scores",
        conventions,
        (
            Column("form", "Form"),
            Column("formula", "Law"),
            Column("parameters", f"Parameters, {100 * found.level:g} % intervals"),
            Column("k", "k", count),
            Column("loss", "Loss ↓", number),
            Column("aicc", "AICc ↓", fixed(1)),
            Column("held_out_percent", "Held-out error, %", fixed(1)),
            Column("status", "Status"),
        ),
        pd.DataFrame(rows),
    )


def patches_table(found: FitReport) -> Table:
    """One row per patch size, coarsest first. Data columns: patch, rows, models, A, alpha, loss, status."""
    assert found.patches
    rows = [
        {
            "patch": patch,
            "rows": len(law.observations),
            "models": len(set(law.observations.models)),
            **{name: law.parameters[name] for name in ("A", "alpha")},
            "loss": law.loss,
            "status": law.status,
        }
        for patch, law in found.patches.fits.items()
    ]
    return Table(
        "laws-by-patch",
        "A law for each patch size, A C^−alpha",
        "Fitted as above, each to the models of one patch size. AICc of all of them together: "
        + (_minus(f"{found.patches.aicc:.1f}.") if np.isfinite(found.patches.aicc) else "none, the rows are too few."),
        (
            Column("patch", "Patch size", count),
            Column("models", "Models", count),
            Column("rows", "Rows", count),
            Column("A", "A", number),
            Column("alpha", "alpha", fixed(3)),
            Column("loss", "Loss ↓", number),
            Column("status", "Status"),
        ),
        pd.DataFrame(rows),
    )


def held_out_table(found: FitReport) -> Table:
    """One row per law and model held out.

    Data columns: formula, fitted (to what), model, predicted, true (mean over its runs), error_percent, law and
    new_run (intervals, as text), inside (whether the truth lies in the law's, and how many runs in a new run's).
    """
    rows = []
    for test in found.held_out:
        models = sorted(set(test.fit.observations.models))
        for model, truth, runs, prediction, error in zip(
            test.models, test.truth, test.runs, test.predictions, test.relative_errors, strict=True
        ):
            law, new = prediction.law, prediction.new_run
            inside = f"{sum(map(new.holds, runs))} of {len(runs)} in a new run's"
            rows.append(
                {
                    "formula": _minus(test.fit.form.formula),
                    "fitted": f"{len(models)} models" + (f": {', '.join(models)}" if len(models) < 5 else ""),
                    "model": model,
                    "predicted": law.estimate,
                    "true": truth,
                    "error_percent": 100 * error,
                    "law": f"{law.low:.4g} to {law.high:.4g}",
                    "new_run": f"{new.low:.4g} to {new.high:.4g}",
                    "inside": f"{'inside' if law.holds(truth) else 'OUTSIDE'} the law's, {inside}",
                }
            )
    beyond = max(test.beyond for test in found.held_out)
    return Table(
        "held-out",
        "The model with the most compute, predicted by the law of the others",
        f"{found.rows.metric}. True: mean over the model's runs. Its compute is {beyond:.3g} times the largest fitted. "
        f"Intervals: {100 * found.level:g} %, of the law itself, and of the score of a new run.",
        (
            Column("formula", "Law"),
            Column("fitted", "Fitted to"),
            Column("model", "Held out"),
            Column("predicted", "Predicted", number),
            Column("true", "True", number),
            Column("error_percent", "Error, %", signed(1)),
            Column("law", "Law's interval"),
            Column("new_run", "A new run's"),
            Column("inside", "The truth is"),
        ),
        pd.DataFrame(rows),
    )


def _findings(found: FitReport) -> list[str]:
    """What to know before the tables are read."""
    best = found.comparison.fits[0]
    lines = [found.comparison.sentence(), best.sentence(found.intervals[0][1])]
    if found.patches:
        lines.append(found.patches.sentence())
    lines += [f"Held out: {test.sentence()}" for test in found.held_out if test.fit.form.name == best.form.name][:1]
    return lines + [f"Not done: {why}" for why in found.refused]


def _with_interval(name: str, interval: Interval) -> str:
    """One parameter, on one line."""
    text = f"{name} = {interval.estimate:.4g} ({interval.low:.4g} to {interval.high:.4g})"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _thousandths(value: Any) -> str:
    return _minus(f"{value:.3f}")


def _minus(text: str, names: Iterable[str] = ()) -> str:
    """With minus signs, at which a browser breaks no line, where a number or an exponent is negative.

    names: of models in the text, whose hyphens stay.
    """
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    pattern = "|".join([*map(re.escape, longest_first), r"(?P<minus>(?<!\w)-(?=\w))"])
    return re.sub(pattern, lambda found: "−" if found["minus"] else found[0], text)
