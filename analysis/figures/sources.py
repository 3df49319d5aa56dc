"""Where a figure's numbers come from: the papers' tables or a results folder, in one form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pandas as pd

from analysis.drawing.picture import NothingToDraw
from analysis.errors import ResultsError
from analysis.results.model_names import designs, model_names
from analysis.results.named import PUBLISHED, results_folder
from analysis.results.published import METRICS, published, published_evaluations
from analysis.results.run_folders import EVALS_TYPES, TRAIN_TYPES
from analysis.results.tables import RUN_COLUMNS, RUNS_TYPES, Tables, load, patches
from analysis.results.visible import visible, visible_names

MAX_SOURCES = 4  # as many as there are ways to fill a marker

Read = TypeVar("Read")


@dataclass(frozen=True)
class Source:
    """name: "published" or the results folder's name; tables: as `analysis.results.tables` describes them, but for
    their models' names (`measured`). design: the one whose runs these are, if the study has several block designs, and
    how they were scored, if they were in several ways.
    """

    name: str
    tables: Tables
    design: str = ""

    @property
    def published(self) -> bool:
        return self.name == PUBLISHED

    @property
    def called(self) -> str:
        """What stands in legends and data: "digits", or "my-blocks, adaln"."""
        return f"{self.name}, {self.design}" if self.design else self.name


def open_sources(names: Sequence[str]) -> list[Source]:
    """Read each of `names`, as `results_folder` finds it.

    Raises:
        ResultsError: a folder lacks a table, a name is given twice, or there are too many to tell apart.
    """
    if len(names) > MAX_SOURCES:
        raise ResultsError(f"{len(names)} sources; accepted: at most {MAX_SOURCES}, more cannot be told apart")
    folders = [results_folder(name) for name in names]
    sources = [measured(load(folder), folder.resolve().name) if folder else published_source() for folder in folders]
    if twice := sorted({one.name for one in sources if sum(one.name == other.name for other in sources) > 1}):
        raise ResultsError(f"two sources are called {twice[0]}; accepted: folders of different names")
    return sources


def measured(tables: Tables, name: str = "measured") -> Source:
    """Tables of the suite's own runs as a source.

    In all of them `label` is one text for each model and block design, and a new column `network` one for each model
    (`model_names`); `block` is as `designs` has it, and `block_alone`, of runs, as it was. Where a size has no name,
    `size` is that text; `patch` is as `patches` has it, 0 of a network without, and `patch_frames` is empty then. Texts
    are `visible`.
    """
    if name == PUBLISHED:
        raise ResultsError(f"a results folder called {PUBLISHED}: that name stands for the papers' tables; rename it")
    name, tables = visible(name), visible_names(tables)
    runs = tables.runs.assign(block=designs(tables.runs), block_alone=tables.runs["block"])
    runs = runs.assign(**model_names(runs))
    runs["size"] = runs["size"].where(runs["size"].fillna("") != "", runs["network"])
    patch = patches(runs)
    runs = runs.assign(patch=patch.where(patch.notna(), 0), patch_frames=pd.array([None] * len(runs), dtype="Int64"))
    of_runs = runs.set_index("run").loc[:, ["label", "network", "size", "patch", "patch_frames", "block"]]

    def named(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{column: of_runs[column].reindex(table["run"]).to_numpy() for column in of_runs.columns})

    return Source(
        name,
        replace(
            tables,
            runs=runs,
            train=named(tables.train),
            evals=named(tables.evals),
            other_evals=named(tables.other_evals),
        ),
    )


def published_source() -> Source:
    """The DiT paper's numbers in the form of collected tables (seed 0 stands for the paper's one unnamed seed).

    evals: Table 4. other_evals: Tables 2, 3 and 5, which have another decoder or guidance. There are no
    samples and no losses: the paper prints none as numbers.
    """
    rows = published_evaluations()
    rows = pd.concat([rows, _original_decoder(rows)], ignore_index=True)
    parts = rows["model"].str.extract(r"DiT-(?P<label>(?P<size>\w+)/(?P<patch>\d+))")
    rows = rows.assign(**{name: parts[name] for name in parts.columns}, seed=0)
    rows = rows.assign(run=rows["label"] + " " + rows["block"] + " " + rows["data"], network=rows["label"])
    types = RUNS_TYPES | {"network": "str"}
    runs = rows.drop_duplicates("run").reindex(columns=[*types]).astype(types)
    identity = {name: types[name] for name in (*RUN_COLUMNS, "network")}
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


def scaling_study(source: Source) -> Tables:
    """The source's tables; of the papers' without other data sets, whose scores have another reference."""
    if not source.published:
        return source.tables
    runs = source.tables.runs.loc[source.tables.runs["data"] == "imagenet-256-latents"]
    evals = source.tables.evals
    return replace(source.tables, runs=runs, evals=evals.loc[evals["run"].isin(runs["run"])])


def from_each(
    sources: Sequence[Source], read: Callable[[Source], Read], by_design: bool = True
) -> tuple[list[Read], list[str]]:
    """`read` of every source that has data for it, and a line for each that has not.

    by_design: a study of several block designs is as many sources, so that each design is drawn for itself.

    Raises:
        NothingToDraw: none of the sources has.
    """
    found: list[Read] = []
    left_out: list[str] = []
    for source in sources:
        reasons: dict[str, str] = {}
        parts = _designs(source) if by_design else [source]
        for part in parts:
            try:
                found.append(read(part))
            except NothingToDraw as error:
                reasons[part.called] = str(error)
            except ResultsError as error:
                raise ResultsError(f"{source.name}: {error}") from None
        if len(reasons) == len(parts) and len(set(reasons.values())) == 1:  # the same of all designs: said once
            reasons = {source.name: next(iter(reasons.values()))}
        left_out += [f"{name}: {reason}" for name, reason in reasons.items()]
    if not found:
        raise NothingToDraw("; ".join(left_out))
    return found, left_out


def _designs(source: Source) -> list[Source]:
    """A source for each block design; a family that has none is one. The papers' tables hold one scaling study."""
    designs = source.tables.runs.drop_duplicates("block").loc[:, ["block", "family"]].to_dict("records")
    if source.published or len(designs) < 2:
        return [source]
    return [
        replace(source, tables=_of_design(source.tables, each["block"]), design=each["block"] or each["family"])
        for each in designs
    ]


def _of_design(tables: Tables, design: str) -> Tables:
    def chosen(table: pd.DataFrame) -> pd.DataFrame:
        return table.loc[table["block"] == design]

    return replace(
        tables,
        runs=chosen(tables.runs),
        train=chosen(tables.train),
        evals=chosen(tables.evals),
        other_evals=chosen(tables.other_evals),
    )


def _original_decoder(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 5's row of the original decoder, which is not among the released ones; the rest is as in its ft-mse row."""
    ours: Any = rows.loc[rows["source"].str.endswith("Table 5")].head(1)
    paper = published("dit_table5_decoder").set_index("decoder").loc["original"]
    return ours.assign(decoder="original", **{name: paper[name] for name in METRICS})


def _ordered(evals: pd.DataFrame) -> pd.DataFrame:
    return evals.sort_values(["gmacs", "run", "step"], ignore_index=True, kind="stable")
