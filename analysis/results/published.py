"""Measured scores beside the published ones, where model, training and evaluation are the published ones in everything.

An evaluation that differs from a published row in any condition is not compared with it; `near_misses` says in which.
What the papers leave open, such as the size of KID's subsets, may differ: it stands in the comparison's columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.results.csv_text import read_csv
from analysis.results.run_folders import EVALUATION_KEY_TYPES, KNOB_DEFAULTS, OF_EARLIER_VERSIONS, OPTIMISATION_TYPES
from analysis.results.sampled import GUIDANCE

if TYPE_CHECKING:
    from analysis.results.tables import Tables

PUBLISHED = Path(__file__).parents[2] / "results" / "published"
CONDITIONS_TABLE = "dit_tables_conditions"

METRICS = ("fid", "sfid", "inception_score", "precision", "recall")
# What was trained, and on what: evaluations of anything else have no published row to be near to.
SUBJECT = ("model", "block", "objective", "data")
# What the papers did without; how a run takes what is not finite is of no concern to them.
KNOBS = {name: value for name, value in KNOB_DEFAULTS.items() if name != "non_finite"}
# What else must be as published: of the training (gmacs tells a model whose sizes a recipe overrides), ...
TRAINING = ("gmacs", "batch_size", *OPTIMISATION_TYPES, *KNOBS, "step")
# ... and of the evaluation.
EVALUATION = (
    "weights",
    "sampler",
    "sampling_steps",
    "clip_denoised",
    "guidance_scale",
    "guidance_channels",
    "guidance_interval",
    "guide",
    "decoder",
    "num_samples",
    "labels",  # drawn at random by the authors' sampler; as many of each class give a lower FID
    "reference",
    "extractor",
    "best_of",  # no paper says that it is
)
# Whether FID is to the statistics that ADM's file brings, of the whole training set. Not part of a score's key, since
# reference and extractor decide it; rows of earlier versions do not say it, and were of the file wherever those agree.
STATISTICS = "reference_statistics"
CONDITIONS = (*TRAINING, *EVALUATION, STATISTICS)
# The released autoencoders that the paper's names mean. The original decoder of its Table 5 is not among them.
DECODERS = {"ft-mse": "stabilityai/sd-vae-ft-mse", "ft-ema": "stabilityai/sd-vae-ft-ema"}
GMACS_ROUNDING = 0.01  # the paper prints two decimals, and truncates one of them
# What every row of the families' tables says, and what it may leave open.
FAMILY_COLUMNS = ("laboratory", "model", "family", "image_size", "gmacs", "guidance", "fid", "source", "checked")
MAY_BE_UNKNOWN = ("patch", "params_m", "train_steps_k", "batch_size", "cfg_scale", "labels")
AT_THE_SOURCE, SECOND_HAND = "at the source", "second hand"
FAMILY_CHOICES = {
    "guidance": ("none", "classifier-free", "classifier", "autoguidance", "of some kind"),
    "labels": ("uniform", "balanced"),
    "checked": (AT_THE_SOURCE, SECOND_HAND),
}
FAMILY_CONDITIONS = "families_conditions"
FAMILIES_400K, FAMILIES_GUIDED = "families_400k", "families_guided"
# Of the columns of results/published, all tables together.
PUBLISHED_TYPES = {
    **dict.fromkeys(("table", "model", "block", "objective", STATISTICS, "source"), "str"),
    **dict.fromkeys(("laboratory", "family", "guidance", "checked"), "str"),
    "patch": "Int64",
    **dict.fromkeys(("image_size", "train_steps_k", "batch_size"), "Int64"),
    **dict.fromkeys(("gmacs", "params_m", "cfg_scale", "fid50k", *METRICS), "float64"),
    **OPTIMISATION_TYPES,
    **EVALUATION_KEY_TYPES,
}

IDENTITY = ("label", "run", "seed")
COMPARED = ["published", "ours", "difference", "relative_difference"]


def published(name: str, needed: Iterable[str] = ("source",), filled: Iterable[str] = ()) -> pd.DataFrame:
    """Numbers from papers: `results/published/{name}.csv`; the folder's README says what each file holds.

    needed, filled: the columns that must be there, and those that must hold a value in every row.

    Raises:
        ResultsError: there is no such file, or it is damaged.
    """
    path = PUBLISHED / f"{name}.csv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PUBLISHED.glob("*.csv")))
        raise ResultsError(f"{path}: no such published table; accepted: {known}")
    return read_csv(path, PUBLISHED_TYPES, needed, filled)


def published_families(name: str) -> pd.DataFrame:
    """The models of many families, each with what is known of its conditions.

    name: `FAMILIES_400K` (without guidance; most rows after 400K steps) or `FAMILIES_GUIDED` (with guidance, after all
    training).

    Returns:
        A row a score: laboratory (whose paper or thread has it), model, family, image_size, patch, gmacs, params_m,
        train_steps_k, batch_size, guidance, cfg_scale, labels, `METRICS`, source, checked (`FAMILY_CHOICES`), and the
        conditions of families_conditions.csv (of second-hand rows they are not known). Empty: not reported.

    Raises:
        ResultsError: a row lacks one of `FAMILY_COLUMNS`, a number is not positive, a text is none of the accepted, or
            a row at the source has no conditions.
    """
    rows = published(name, (*FAMILY_COLUMNS, *MAY_BE_UNKNOWN), FAMILY_COLUMNS)
    for column, accepted in FAMILY_CHOICES.items():
        _refuse_rows(name, rows, column, rows[column].notna() & ~rows[column].isin(accepted), ", ".join(accepted))
    for column in ("gmacs", "params_m", "train_steps_k", "fid"):
        _refuse_rows(name, rows, column, (rows[column] <= 0).fillna(False), "a positive number")
    conditions = published(FAMILY_CONDITIONS, ("source",), ("table", "laboratory", "family"))
    conditions = conditions.loc[conditions["table"] == name].drop(columns=["table", "source"])
    found = rows.merge(conditions, how="left", on=["laboratory", "family"], validate="many_to_one", indicator="known")
    unknown = (found["checked"] == AT_THE_SOURCE) & (found["known"] == "left_only")
    _refuse_rows(name, found, "laboratory", unknown, f"one with a row in {FAMILY_CONDITIONS}.csv for the family")
    return found.drop(columns="known")


def _refuse_rows(name: str, rows: pd.DataFrame, column: str, wrong: Any, accepted: str) -> None:
    """Raise ResultsError for the first row that is `wrong`, by its line in the file."""
    for index in rows.index[wrong.to_numpy(bool)][:1]:
        row = rows.loc[index]
        at = f"{PUBLISHED / name}.csv: row {index + 1} ({row['model']}, {row['laboratory']})"
        raise ResultsError(f"{at}: '{column}' is {row[column]}; accepted: {accepted}")


def published_evaluations() -> pd.DataFrame:
    """Every published row of a DiT or a SiT: `SUBJECT`, `CONDITIONS`, `METRICS` (empty where not reported), source.

    A SiT is the network of the DiT of its size with another objective.

    The scores are in the tables of `results/published`, with some of their conditions; the others are in
    dit_tables_conditions.csv. A row that repeats another table's is left out.
    """
    conditions = published(CONDITIONS_TABLE).drop(columns="source").to_dict("records")
    rows: Any = pd.concat([_with_conditions(table) for table in conditions], ignore_index=True)
    rows["model"] = rows["model"].str.removesuffix("-G").str.replace("SiT-", "DiT-")
    rows = rows.loc[rows["model"].str.startswith("DiT-") & rows["decoder"].isin(list(DECODERS))]
    guidance_scale = rows["cfg_scale"].fillna(1.0)
    rows = rows.assign(
        data="imagenet-" + rows["image_size"].astype(int).astype(str) + "-latents",
        reference="adm-imagenet-" + rows["image_size"].astype(int).astype(str),
        step=(1000 * rows["train_steps_k"]).astype(int),
        guidance_scale=guidance_scale,
        guidance_channels=rows["guidance_channels"].where(guidance_scale != 1),
        guidance_interval=None,  # of later papers, as autoguidance is
        guide=None,
        best_of=None,
        network_calls=rows["sampling_steps"],
        decoder=rows["decoder"].map(DECODERS),
        **KNOBS,
    )
    rows = rows.loc[:, [*SUBJECT, *CONDITIONS, "network_calls", *METRICS, "source"]]
    return rows.drop_duplicates([*SUBJECT, *CONDITIONS, "fid"], ignore_index=True)


def has_published_key(evaluation: dict[Any, Any], data: str) -> bool:
    """Whether any model's published score is of this data set and has this evaluation's key, all that papers state."""
    scored = {**evaluation, "data": data}
    return any(all(_agrees(name, scored[name], row[name]) for name in ("data", *EVALUATION)) for row in _of_papers())


def compared(tables: Tables) -> pd.DataFrame:
    """The scores of `tables` for which there are published ones; see `compared_evaluations`."""
    return compared_evaluations(_evaluations(tables))


def compared_evaluations(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Measured beside published, one row per score.

    Args:
        evaluations: one row per evaluation, with the columns `SUBJECT`, `TRAINING`, the evaluation's key and its
            scores; `IDENTITY` (label, run, seed), `KNOBS` and `STATISTICS` may be missing. What is missing of the
            others counts as unknown, and so not as the published.

    Returns:
        Columns: label, run, seed, model, block, data, step, metric, published, ours, difference (ours - published),
        relative_difference (difference / published), the evaluation's whole key, in which everything that a paper
        states is as published, and source. Scores that one of the two lacks have no row.
    """
    paper = _by_subject()
    rows = [
        {**evaluation, "metric": name, **_difference(row[name], evaluation[name]), "source": row["source"]}
        for evaluation in _records(evaluations)
        for row in paper.get(_subject(evaluation), [])
        if not _differing(evaluation, row)
        for name in METRICS
        if pd.notna(row[name]) and pd.notna(evaluation[name])
    ]
    columns = [*IDENTITY, *SUBJECT, "step", "metric", *COMPARED, *EVALUATION_KEY_TYPES, "source"]
    types = {**EVALUATION_KEY_TYPES, "step": "Int64", "seed": "Int64", **dict.fromkeys(COMPARED, "float64")}
    return pd.DataFrame(rows, columns=columns).astype(types)


def near_misses(tables: Tables) -> pd.DataFrame:
    """Why scores of published models are not compared; see `near_misses_of_evaluations`."""
    return near_misses_of_evaluations(_evaluations(tables))


def near_misses_of_evaluations(evaluations: pd.DataFrame) -> pd.DataFrame:
    """In what each evaluation of a published model that matches no published row differs from the one nearest to it.

    The nearest row differs in the fewest conditions; among equals, its step is the closest. Models, block designs
    and data that no paper has scores of are not listed. Argument: as `compared_evaluations`.

    Returns:
        One row for each differing condition. Columns: label, run, seed, model, block, data, step, condition, published,
        ours (both as text; "unknown" where the row does not say), source.
    """
    paper, rows = _by_subject(), []
    for evaluation in _records(evaluations):
        differing = [(_differing(evaluation, row), row) for row in paper.get(_subject(evaluation), [])]
        if not differing or not all(conditions for conditions, _ in differing):
            continue
        conditions, nearest = min(differing, key=lambda pair: (len(pair[0]), _steps_apart(evaluation, pair[1])))
        rows += [
            {
                **evaluation,
                "condition": name,
                "published": _text(name, nearest[name]),
                "ours": _text(name, evaluation[name]),
                "source": nearest["source"],
            }
            for name in conditions
        ]
    columns = [*IDENTITY, *SUBJECT, "step", "condition", "published", "ours", "source"]
    return pd.DataFrame(rows, columns=columns).astype({"step": "Int64", "seed": "Int64"})


@cache  # a comparison asks for them once a design
def _of_papers() -> list[dict[Any, Any]]:
    return published_evaluations().to_dict("records")


def _with_conditions(conditions: dict[str, Any]) -> pd.DataFrame:
    """A published table, and the conditions of its rows that it has no column for."""
    table = published(conditions["table"]).rename(columns={"fid50k": "fid"})
    missing = {name: value for name, value in conditions.items() if name not in table.columns}
    return table.assign(**missing)


def _evaluations(tables: Tables) -> pd.DataFrame:
    """All evaluations with what they need of their runs."""
    names = [name for name in (*SUBJECT, *TRAINING) if name in tables.runs.columns and name not in tables.evals.columns]
    evaluations = [table for table in (tables.evals, tables.other_evals) if not table.empty]
    joined = pd.concat(evaluations, ignore_index=True) if evaluations else tables.evals
    return joined.merge(tables.runs.loc[:, ["run", *names]], on="run", how="left", validate="many_to_one")


def _records(evaluations: pd.DataFrame) -> list[dict[Any, Any]]:
    columns = [*IDENTITY, *SUBJECT, *TRAINING, *EVALUATION_KEY_TYPES, STATISTICS, *METRICS]
    unsaid = {name: value for name, value in KNOBS.items() if name not in evaluations.columns}
    found = evaluations.assign(**unsaid).reindex(columns=columns)
    found["objective"] = found["objective"].astype("object").fillna(OF_EARLIER_VERSIONS["objective"])
    return found.to_dict("records")


def _by_subject() -> dict[tuple[Any, ...], list[dict[Any, Any]]]:
    """The papers' rows of each `_subject`."""
    found: dict[tuple[Any, ...], list[dict[Any, Any]]] = {}
    for row in _of_papers():
        found.setdefault(_subject(row), []).append(row)
    return found


def _subject(row: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple(None if pd.isna(row[name]) else row[name] for name in SUBJECT)


def _differing(evaluation: dict[Any, Any], row: dict[Any, Any]) -> list[str]:
    return [name for name in CONDITIONS if not _agrees(name, evaluation[name], row[name])]


def _agrees(name: str, ours: Any, theirs: Any) -> bool:
    if name == STATISTICS and pd.isna(ours):
        return True
    if pd.isna(ours) or pd.isna(theirs):
        return bool(pd.isna(ours) and pd.isna(theirs))
    if name == "gmacs":
        return abs(ours - theirs) < GMACS_ROUNDING
    if name == "decoder":  # name@hash of its weights
        return str(ours).partition("@")[0] == theirs
    if name in ("reference", "extractor"):  # name-..., ending in a hash
        return ours == theirs or str(ours).startswith(f"{theirs}-")
    return bool(ours == theirs)


def _steps_apart(evaluation: dict[Any, Any], row: dict[Any, Any]) -> float:
    return float("inf") if pd.isna(evaluation["step"]) else abs(evaluation["step"] - row["step"])


def _difference(theirs: float, ours: float) -> dict[str, float]:
    values = (theirs, ours, ours - theirs, (ours - theirs) / theirs)
    return dict(zip(COMPARED, values, strict=True))


def _text(name: str, value: Any) -> str:
    if pd.isna(value):
        return "none" if name in (*GUIDANCE, "clip_grad_norm", "best_of") else "unknown"
    return f"{value:g}" if isinstance(value, float) else str(value)
