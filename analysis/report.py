"""A study as one page: what was measured and how, its figures and tables, the recipe, the costs, what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml

from analysis import figures, fits, report_page
from analysis.export_tables import GMACS, correlations, frechet_name, protocol, published, summary
from analysis.files import write_whole
from analysis.published_scores import compared
from analysis.report_page import Section
from analysis.report_pictures import PICTURES
from analysis.run_history import SESSION_FACTS, RunHistory, differing_keys, hours, read_histories, read_plan
from analysis.runs import EVALUATION_KEY_TYPES, OPTIMISATION_TYPES, SCORE_TYPES
from analysis.table_formats import Column, Table, count, significant
from analysis.tables import MIN_MODELS, ResultsError, Tables, comparable, load
from analysis.tables import correlations as correlations_of

# What the tables say of the recipe, where there are no run folders to read it from.
RECIPE_COLUMNS = ("data", "block", "steps", "batch_size", *OPTIMISATION_TYPES)


def write_report(results: Path, out: Path, runs: Path | None = None, plan: Path | None = None) -> Path:
    """Write the page of the collected tables in `results` to the file `out`; returns `out`.

    Args:
        runs: the folder that the tables were collected from, for recipes, versions, device-hours and failures.
        plan: what `ditbench sweep plan --json` printed before the first start, to set beside the hours spent.

    The same tables, run folders and plan give the same bytes: the page has no dates but those in the data.

    Raises:
        ResultsError: tables, runs or plan that are missing, damaged or of another sweep, or scores that are not
            `comparable`.
    """
    tables = load(results)
    comparable(tables.evals)
    histories = read_histories(runs, tables) if runs else []
    planned = read_plan(plan, tables) if plan else None
    return write_whole(out, report(tables, histories, planned).encode())


def report(tables: Tables, histories: Sequence[RunHistory] = (), planned: pd.DataFrame | None = None) -> str:
    """The page as HTML; `histories` and `planned` as `run_history` reads them. Errors as `write_report`."""
    comparable(tables.evals)
    pictures, undrawn = _pictures(tables)
    sections = [
        Section("study", "The study", _study(tables)),
        Section("figures", "Figures", pictures or report_page.paragraph("None could be drawn; see what is missing.")),
        Section("scores", "Scores", _scores(tables)),
        Section("laws", "How scores follow compute", _laws(tables)),
        Section("recipe", "Recipe", _recipe(tables, histories)),
        Section("environment", "Runs and environment", _environment(tables, histories)),
        Section("cost", "Time, planned and spent", _cost(tables, histories, planned)),
        Section("failures", "What failed, and what is missing", _failures(tables, histories, undrawn)),
    ]
    title = f"{_names(tables.runs['sweep'])}: a scaling study of Diffusion Transformers"
    return report_page.page(title, _lead(tables), sections)


def fits_in_words(tables: Tables) -> list[str]:
    """A sentence a fit, at the last step that has one; the place for whatever `analysis` can fit.

    The correlation and the power law of each seed, as in `tables.correlations`, and the power law of the models'
    means over the seeds that have a score at that step.
    """
    found = correlations_of(tables.evals)
    if found.empty:
        return []
    frechet, last = frechet_name(tables.evals), max(found["step"])
    lines = []
    for row in found.loc[found["step"] == last].to_dict("records"):
        lines.append(
            f"Seed {row['seed']}, step {last:,}, {row['num_models']} models, block {row['block']}: the correlation of "
            f"log10 GMACs with the {frechet} is {_thousandths(row['r'])}; "
            f"{_law(frechet, row['coefficient'], row['exponent'])}. "
            f"More compute scores better in {row['patch_pairs_right']} of {row['patch_pairs']} neighbouring pairs of "
            f"patch sizes and in {row['size_pairs_right']} of {row['size_pairs']} of sizes."
        )
    blocks: Any = tables.evals.loc[tables.evals["step"] == last].groupby("block")
    for block, evals in blocks:
        models = evals.groupby("label").agg(gmacs=("gmacs", "first"), fid=("fid", "mean"), seeds=("seed", "nunique"))
        if max(models["seeds"]) > 1 and len(models) >= MIN_MODELS and (models["fid"] > 0).all():
            law = fits.power_law(models["gmacs"], models["fid"])
            lines.append(
                f"Means over seeds, step {last:,}, {law.num_points} models, block {block}: "
                f"{_law(frechet, law.coefficient, law.exponent)}, which explains "
                f"{100 * law.r_squared_log:.1f} % of the variance of the logarithm. The range of GMACs is "
                f"{_significant(models['gmacs'].min())} to {_significant(models['gmacs'].max())}; the law says "
                "nothing outside it, and it has no irreducible term."
            )
    return lines


def _law(frechet: str, coefficient: float, exponent: float) -> str:
    return f"power law: {frechet} = {_significant(coefficient)} × GMACs^{_thousandths(exponent)}"


def _thousandths(number: float) -> str:
    return f"{number:.3f}".replace("-", "−")


_significant = significant(4)


def _lead(tables: Tables) -> str:
    runs = tables.runs
    models = runs.drop_duplicates(["label", "block"])
    finished = runs["state"].tolist().count("finished")
    return (
        f"{len(models)} models on {_names(runs['data'])}, {len(set(runs['seed']))} training seeds, "
        f"{max(runs['steps']):,} steps: {finished} of {len(runs)} runs finished, {len(tables.evals)} scores."
    )


def _study(tables: Tables) -> str:
    runs, evals = tables.runs, tables.evals
    known = runs["gmacs"].dropna()
    compute = f"{_significant(known.min())} to {_significant(known.max())} GMACs" if len(known) else "not known yet"
    about = [
        ("Data", _names(runs["data"])),
        ("Models", _names(runs["label"])),
        ("Block designs", _names(runs["block"])),
        ("Compute of a forward pass", compute),
        ("Training", f"{_names(runs['steps'])} steps of batch {_names(runs['batch_size'])}"),
        ("Training seeds", _names(runs["seed"])),
    ]
    body = report_page.facts(about) + report_page.note(f"{GMACS} {_training_compute(runs)}")
    body += report_page.heading("Protocol of the scores")
    if evals.empty:
        return body + report_page.paragraph("There is no score yet.")
    key = evals.iloc[0]
    lines = [(name, "none" if pd.isna(key[name]) else str(key[name])) for name in EVALUATION_KEY_TYPES]
    accuracy = key["extractor_accuracy"]
    if pd.notna(accuracy):
        lines.append(("accuracy of the extractor", f"{accuracy:.4f}"))
    steps = f"Scored at the steps {_names(evals['step'])}. Scores that differ in one of these are never compared."
    return body + report_page.facts(lines) + report_page.note(steps)


def _training_compute(runs: pd.DataFrame) -> str:
    total = runs["training_gmacs"].sum()
    return (
        "Training compute is GMACs × 3 × batch × steps (DiT paper, Fig. 9); of all runs' recipes together: "
        f"{_significant(total)} GMACs."
    )


def _pictures(tables: Tables) -> tuple[str, list[str]]:
    """The figures as HTML, and a line for each that could not be drawn."""
    body, undrawn = "", []
    for picture in PICTURES:
        with TemporaryDirectory() as folder:
            try:
                files: list[Path] = getattr(figures, picture.function)(tables, Path(folder))
            except ResultsError as error:
                undrawn.append(f"Figure not drawn: {picture.caption}: {error}")
                continue
            by_kind = {path.suffix: path for path in files}
            png = by_kind[".png"].read_bytes()
            data = pd.read_csv(by_kind[".csv"], keep_default_na=False, na_values=[""]) if ".csv" in by_kind else None
        below = ""
        if data is not None:
            shown = _plain_table(picture.id, f"Data of the figure: {picture.caption}", GMACS, data)
            below = report_page.folded("The numbers in it", report_page.table(shown))
        alt = picture.describe(data, tables)
        body += report_page.picture(picture.id, png, alt, picture.caption, below)
    return body, undrawn


def _scores(tables: Tables) -> str:
    if tables.evals.empty:
        return report_page.paragraph("There is no score yet.")
    body = _table_or_reason(summary, tables)
    if not compared(tables).empty:
        body += _table_or_reason(published, tables)
    body += report_page.folded(
        "Every score of every run",
        report_page.table(_plain_table("evals", "Every score", f"{GMACS} {protocol(tables)}", _readable(tables.evals))),
    )
    if not tables.other_evals.empty:
        caption = "Scores of samples that were made with other settings than the recipe's"
        shown = _plain_table("other-evals", caption, f"Not to be compared with the others. {GMACS}", tables.other_evals)
        body += report_page.table(shown)
    return body


def _laws(tables: Tables) -> str:
    lines = fits_in_words(tables)
    if not lines:
        return report_page.paragraph(
            f"Nothing to fit: no seed and step has {MIN_MODELS} models with a positive, finite distance."
        )
    return report_page.items(lines) + _table_or_reason(correlations, tables)


def _recipe(tables: Tables, histories: Sequence[RunHistory]) -> str:
    if not histories:
        known = tables.runs.loc[:, list(RECIPE_COLUMNS)].dropna(axis="columns", how="all")
        same = [(str(name), _names(known[name])) for name in known.columns]
        return report_page.paragraph("As far as the tables say; the run folders hold it whole.") + report_page.facts(
            same
        )
    shared, differing = differing_keys([history.recipe for history in histories])
    body = report_page.paragraph(f"What the {len(histories)} runs share:")
    body += report_page.code(yaml.safe_dump(shared, sort_keys=False, allow_unicode=True), "Recipe, as YAML")
    if differing.columns.empty:
        return body
    identity = pd.DataFrame({"label": [history.label for history in histories]})
    table = identity.assign(run=[history.run for history in histories], **_as_text(differing))
    shown = _plain_table("recipes", "Where the runs' recipes differ", "Keys of the recipe; none: not set.", table)
    return body + report_page.table(shown)


def _environment(tables: Tables, histories: Sequence[RunHistory]) -> str:
    names = ["label", "seed", "run", "state", "starts", "started", "finished", "device", "precision", "commit"]
    conventions = (
        "Device, precision and commit of the last start; started: the first. A + after a commit: uncommitted changes."
    )
    body = report_page.table(_plain_table("runs", "Runs", conventions, tables.runs.loc[:, names]))
    if not histories:
        return body + report_page.paragraph("Versions and every single start are in the run folders only.")
    sessions: Any = pd.concat([history.sessions for history in histories], ignore_index=True)
    kept = [name for name in SESSION_FACTS if name in sessions.dropna(axis="columns", how="all").columns]
    groups = sessions.loc[:, ["phase", *kept]].groupby(["phase", *kept], dropna=False, sort=True)
    starts = groups.size().reset_index(name="number of starts")
    shown = _plain_table("sessions", "Environments", "One row for all starts in the same environment.", starts)
    return body + report_page.table(shown)


def _cost(tables: Tables, histories: Sequence[RunHistory], planned: pd.DataFrame | None) -> str:
    spent = hours(tables, list(histories))
    names = ["training_hours", "sampling_hours", "training_device_hours"]
    if planned is not None:
        spent = spent.merge(planned, on="run", how="left")
        names += ["planned_training_hours", "planned_scoring_hours"]
    lines = [f"{_heading(name).capitalize()}, all runs together: {_total(spent[name])}" for name in names]
    lines += ["No plan was given to set beside them."] if planned is None else _ratio(spent)
    conventions = (
        "From logged speeds: training hours are steps × batch / images per second of each row of the log, sampling "
        "hours samples / images per second of each score; waiting, start-up, repeated steps and the feature network "
        "are in neither. Device-hours: times the devices of the session, from the run folders. Planned: device-hours."
    )
    return report_page.items(lines) + report_page.table(_plain_table("hours", "Hours of each run", conventions, spent))


def _ratio(spent: pd.DataFrame) -> list[str]:
    """Spent over planned, where both are known."""
    both = spent.dropna(subset=["training_device_hours", "planned_training_hours"])
    if both.empty:
        return ["No run has both planned and spent device-hours."]
    ratio = both["training_device_hours"].sum() / both["planned_training_hours"].sum()
    share = f"{len(both)} of {len(spent)} runs"
    return [f"Training took {ratio:.2f} times the planned device-hours ({share} where both are known)."]


def _failures(tables: Tables, histories: Sequence[RunHistory], undrawn: list[str]) -> str:
    runs = tables.runs
    body = report_page.heading("Failed")
    failed = [f"{_run_name(row)} was given up." for row in _in_state(runs, "failed")] or ["No run was given up."]
    for history in histories:
        for row in history.failures.to_dict("records"):
            failed.append(f"{history.label} ({history.run}), {row['phase']}, {row['time']}: {row['error']}")
    if histories and all(history.failures.empty for history in histories):
        failed.append("No attempt failed.")
    if not histories:
        failed.append("Attempts that failed and were repeated are recorded in the run folders only.")
    body += report_page.items(failed) + report_page.heading("Missing")
    missing = [f"{_run_name(row)} has not finished" for row in _in_state(runs, "unfinished")]
    if not tables.evals.empty:
        last = max(tables.evals["step"])
        at_last = tables.evals.loc[tables.evals["step"] == last, "run"].tolist()
        unscored = runs.loc[~runs["run"].isin(at_last)].to_dict("records")
        missing += [f"{_run_name(row)} has no score at step {last:,}" for row in unscored]
        computed = tables.evals.dropna(axis="columns", how="all").columns
        never = [name for name in SCORE_TYPES if name not in computed]
        if never:
            missing.append(f"Computed for no run: {', '.join(never)}")
    unsampled = len(runs) - len(tables.samples)
    if unsampled:
        missing.append(f"{unsampled} of {len(runs)} runs have no samples in the tables")
    if histories and len(histories) < len(runs):
        missing.append(f"{len(runs) - len(histories)} of {len(runs)} runs have no run folder any more")
    return body + report_page.items([*missing, *undrawn] or ["Nothing."])


def _in_state(runs: pd.DataFrame, state: str) -> list[dict[Any, Any]]:
    return runs.loc[runs["state"] == state].to_dict("records")


def _run_name(row: dict[Any, Any]) -> str:
    return f"{row['label']}, seed {row['seed']} ({row['run']})"


def _table_or_reason(make: Callable[[Tables], Table], tables: Tables) -> str:
    try:
        return report_page.table(make(tables))
    except ResultsError as error:
        return report_page.paragraph(f"No table: {error}")


def _plain_table(name: str, caption: str, conventions: str, data: pd.DataFrame) -> Table:
    """A table of all columns that say something, numbers to four digits; ranges stand in their value's cells."""
    columns = []
    for label, values in data.dropna(axis="columns", how="all").items():
        column = str(label)
        if "num_seeds" in data.columns and column.endswith(("_min", "_max")):
            continue
        if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            columns.append(Column(column, _heading(column), is_number=False))
        else:
            whole = pd.api.types.is_integer_dtype(values)
            columns.append(Column(column, _heading(column), count if whole else significant(4)))
    return Table(name, caption, conventions, tuple(columns), data)


def _readable(evals: pd.DataFrame) -> pd.DataFrame:
    """The scores without their key, which is one for all, and without paths."""
    return evals.drop(columns=[*EVALUATION_KEY_TYPES, "samples", "size", "patch"])


def _as_text(table: pd.DataFrame) -> dict[str, list[str]]:
    return {name: ["none" if value is None else str(value) for value in table[name]] for name in table.columns}


def _heading(name: str) -> str:
    return name.replace("_", " ")


def _total(values: Any) -> str:
    known = values.dropna()
    if known.empty:
        return "not known"
    return f"{_significant(known.sum())}" + (
        f" ({len(known)} of {len(values)} runs)" if len(known) < len(values) else ""
    )


def _names(values: Any) -> str:
    """The different values in their order of first appearance."""
    shown = values.dropna().drop_duplicates()
    return ", ".join(f"{value:,}" if isinstance(value, int) else f"{value}" for value in shown)
