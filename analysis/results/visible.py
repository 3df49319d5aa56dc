"""Names in tables are data, whatever is in them: characters that would do something where they are shown.

`bench.files.names` has the same for the terminal. There are two because this package imports nothing of `bench`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from analysis.results.tables import Tables

# Control characters, line and paragraph separators, what turns the direction of writing, halves of characters.
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""`text` as one line of characters that only show themselves, the others as Python writes them: \n, \x1b."""
    return HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_lines(text: str) -> str:
    """The same of each line of a text that has several."""
    return "\n".join(map(visible, text.split("\n")))


def visible_names(tables: Tables) -> Tables:
    """`tables` to be shown, in lines, pictures and pages: all of their texts are `visible`."""

    def shown(table: pd.DataFrame) -> pd.DataFrame:
        texts = table.select_dtypes(["str", "object"]).drop(columns="metrics", errors="ignore")  # that is JSON
        return table.assign(**{str(name): _shown(column) for name, column in texts.items()})

    return replace(
        tables,
        runs=shown(tables.runs),
        train=shown(tables.train),
        evals=shown(tables.evals),
        other_evals=shown(tables.other_evals),
        baselines=shown(tables.baselines),
        samples={visible(run): samples for run, samples in tables.samples.items()},
        earlier_samples={visible(run): steps for run, steps in tables.earlier_samples.items()},
        real={visible(data): images for data, images in tables.real.items()},
    )


def _shown(column: pd.Series) -> pd.Series:
    # A long table says few texts, and hardly ever one with anything hidden in it.
    if column.dtype != object and not any(map(HIDDEN.search, column.dropna().unique())):
        return column
    return column.map(lambda value: visible(value) if isinstance(value, str) else value).astype(column.dtype)
