"""Where a figure's numbers come from: the papers' tables or a results folder, in one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from analysis.errors import ResultsError
from analysis.figures.drawn import NothingToDraw
from analysis.results.published import METRICS, published, published_evaluations
from analysis.results.run_folders import EVALS_TYPES, TRAIN_TYPES
from analysis.results.tables import RUN_COLUMNS, RUNS_TYPES, Tables, load

PUBLISHED = "published"
MAX_SOURCES = 4  # as many as there are ways to fill a marker

Read = TypeVar("Read")


@dataclass(frozen=True)
class Source:
    """name: "published" or the results folder's name; tables: as `analysis.results.tables` describes them."""

    name: str
    tables: Tables

    @property
    def published(self) -> bool:
        return self.name == PUBLISHED


def open_sources(names: Sequence[str]) -> list[Source]:
    """Read each of `names`: "published", or a folder that `ditbench collect` made.

    Raises:
        ResultsError: a folder lacks a table, a name is given twice, or there are too many to tell apart.
    """
    if len(names) > MAX_SOURCES:
        raise ResultsError(f"{len(names)} sources; accepted: at most {MAX_SOURCES}, more cannot be told apart")
    sources = [
        published_source() if name == PUBLISHED else measured(load(Path(name)), Path(name).resolve().name)
        for name in names
    ]
    if twice := sorted({one.name for one in sources if sum(one.name == other.name for other in sources) > 1}):
        raise ResultsError(f"two sources are called {twice[0]}; accepted: folders of different names")
    return sources


def measured(tables: Tables, name: str = "measured") -> Source:
    """Tables of the suite's own runs as a source."""
    if name == PUBLISHED:
        raise ResultsError(f"a results folder called {PUBLISHED}: that name stands for the papers' tables; rename it")
    return Source(name, tables)


def published_source() -> Source:
    """The DiT paper's numbers in the form of collected tables (seed 0 stands for the paper's one unnamed seed).

    evals: Table 4. other_evals: Tables 2, 3 and 5, which have another decoder or guidance. There are no
    samples and no losses: the paper prints none as numbers.
    """
    rows = published_evaluations()
    rows = pd.concat([rows, _original_decoder(rows)], ignore_index=True)
    parts = rows["model"].str.extract(r"DiT-(?P<label>(?P<size>\w+)/(?P<patch>\d+))")
    rows = rows.assign(**{name: parts[name] for name in parts.columns}, seed=0)
    rows = rows.assign(run=rows["label"] + " " + rows["block"] + " " + rows["data"])
    runs = rows.drop_duplicates("run").reindex(columns=[*RUNS_TYPES]).astype(RUNS_TYPES)
    identity = {name: RUNS_TYPES[name] for name in RUN_COLUMNS}
    evals = rows.reindex(columns=[*identity, *EVALS_TYPES]).astype(identity | EVALS_TYPES)
    in_table_4 = rows["source"].str.endswith("Table 4")
    return Source(
        PUBLISHED,
        Tables(
            runs=runs.sort_values("gmacs", ignore_index=True),
            train=pd.DataFrame(columns=[*identity, *TRAIN_TYPES]).astype(identity | TRAIN_TYPES),
            evals=_ordered(evals.loc[in_table_4]),
            samples={},
            other_evals=_ordered(evals.loc[~in_table_4]),
        ),
    )


def from_each(sources: Sequence[Source], read: Callable[[Source], Read]) -> tuple[list[Read], list[str]]:
    """`read` of every source that has data for it, and a line for each that has not.

    Raises:
        NothingToDraw: none of the sources has.
    """
    found: list[Read] = []
    left_out: list[str] = []
    for source in sources:
        try:
            found.append(read(source))
        except NothingToDraw as error:
            left_out.append(f"{source.name}: {error}")
    if not found:
        raise NothingToDraw("; ".join(left_out))
    return found, left_out


def _original_decoder(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 5's row of the original decoder, which is not among the released ones; the rest is as in its ft-mse row."""
    ours: Any = rows.loc[rows["source"].str.endswith("Table 5")].head(1)
    paper = published("dit_table5_decoder").set_index("decoder").loc["original"]
    return ours.assign(decoder="original", **{name: paper[name] for name in METRICS})


def _ordered(evals: pd.DataFrame) -> pd.DataFrame:
    return evals.sort_values(["gmacs", "run", "step"], ignore_index=True, kind="stable")
