"""The laws of the published families as a table: exponents, and the largest model predicted from the smaller ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.families.laws import COEFFICIENTS, LEVEL, SAME, FamilyLaw, family_laws
from analysis.paper.table_formats import Column, Table, count, fixed, signed, significant
from analysis.results.published import FAMILIES_400K, FAMILIES_GUIDED, published_families


def families() -> Table:
    """A row a law of `family_laws`, without guidance first.

    Data columns: `SAME`, num_models, degrees_of_freedom, coefficient, exponent, exponent_low, exponent_high,
    exponent_interval (the same as text); model (the largest), fitted_to (models, without it), predicted,
    predicted_low, predicted_high, interval (the same as text; empty of two models, through which every law goes),
    printed, error_percent, inside (whether the interval holds it).
    """
    laws = [law for name in (FAMILIES_400K, FAMILIES_GUIDED) for law in family_laws(published_families(name))]
    rows = pd.DataFrame([_row(law) for law in laws])
    whole = ("image_size", "patch", "train_steps_k", "batch_size", "num_models", "degrees_of_freedom", "fitted_to")
    return Table(
        "families",
        "A power law through each published family, and its largest model predicted from the smaller ones",
        "FID = coefficient × GMACs^exponent through the models of one family from one laboratory, scored alike and "
        f"read at the source; least squares on logarithms. Intervals: {LEVEL:.0%}, Student's t of the models beyond "
        "the two that any power law goes through, here one or two: wide, and right if models scatter about a line. "
        "Predicted: by the law through all models but the largest; its interval is that of one more model. Through two "
        "models goes every law: such a prediction has no interval, and says how far a line between two carries. No law "
        "here has a floor, and guided FIDs are near theirs.",
        (
            Column("family", "Family"),
            Column("laboratory", "Whose"),
            Column("image_size", "Pixels", count),
            Column("patch", "Patch", count),
            Column("guidance", "Guidance"),
            Column("labels", "Labels"),
            Column("num_models", "Models", count),
            Column("exponent", "Exponent", fixed(3)),
            Column("exponent_interval", "Interval"),
            Column("model", "Largest"),
            Column("fitted_to", "From", count),
            Column("predicted", "Predicted", significant(3)),
            Column("interval", "Interval of one more"),
            Column("printed", "Printed", significant(4)),
            Column("error_percent", "%", signed(1)),
            Column("inside", "Inside"),
        ),
        rows.astype(dict.fromkeys(whole, "Int64")),
    )


def _row(law: FamilyLaw) -> dict[str, object]:
    row, exponent, predicted = law.largest, law.exponent, law.predicted
    known = bool(np.isfinite(predicted.high))
    low, high = (predicted.low, predicted.high) if known else (np.nan, np.nan)
    return {
        **{name: row[name] for name in SAME},
        "num_models": law.law.num_points,
        "degrees_of_freedom": law.law.num_points - COEFFICIENTS,
        "coefficient": law.law.coefficient,
        "exponent": exponent.estimate,
        "exponent_low": exponent.low,
        "exponent_high": exponent.high,
        "exponent_interval": f"{exponent.low:.3f} to {exponent.high:.3f}".replace("-", "−"),
        "model": row["model"],
        "fitted_to": law.law.num_points - 1,
        "predicted": predicted.estimate,
        "predicted_low": low,
        "predicted_high": high,
        "interval": f"{low:.3g} to {high:.3g}" if known else None,
        "printed": row["fid"],
        "error_percent": 100 * law.relative_error,
        "inside": ("yes" if predicted.holds(row["fid"]) else "no") if known else None,
    }
