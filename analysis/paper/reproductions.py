"""The table of published models that others trained again, and how much laboratories differ by it."""

from __future__ import annotations

from analysis.compare.between_labs import between_labs
from analysis.compare.repeats import repeats
from analysis.paper.table_formats import Column, Table, fixed, signed


def reproductions() -> Table:
    """One row per repeat, by models as the DiT paper's Table 4 has them.

    Data columns: those of `repeats`, of which counted is yes or no; percent (of published); between_labs_low and
    between_labs_high around the published FID, and interval, the same as text.
    """
    rows = repeats()
    known, every = between_labs(rows.loc[rows["counted"]]), between_labs(rows)
    low, high = known.factor.low * rows["published"], known.factor.high * rows["published"]
    data = rows.assign(
        counted=["yes" if each else "no" for each in rows["counted"]],
        percent=100 * (rows["ratio"] - 1),
        between_labs_low=low,
        between_labs_high=high,
        interval=[f"{start:.2f} to {end:.2f}" for start, end in zip(low, high, strict=True)],
    )
    return Table(
        "reproductions",
        "Published models that others trained again",
        f"FID-50K without guidance; ratio: repeat / published. {known.sentence()} Interval: that, around the published "
        f"FID. A repeat counts where it was read at the source and its steps, batch, guidance and labels are stated, "
        f"as published. With all others too, {every.factor.low:.3f} to {every.factor.high:.3f} "
        f"({every.freedom} degrees of freedom).",
        (
            Column("model", "Model"),
            Column("published", "Published", fixed(2)),
            Column("laboratory", "Repeated by"),
            Column("repeat", "Repeat", fixed(2)),
            Column("ratio", "Ratio", fixed(3)),
            Column("percent", "%", signed(1)),
            Column("interval", "Interval"),
            Column("counted", "Counted"),
            Column("unclear", "Not stated, or other than published"),
            Column("otherwise", "Known habits that differ"),
            Column("checked", "Checked"),
            Column("source", "Source"),
        ),
        data,
    )
