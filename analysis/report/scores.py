"""What was trained, how its samples were scored, and the scores: of each model, beside published ones, of every run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.errors import ResultsError
from analysis.figures.captions import unhashed
from analysis.paper.table_formats import Table
from analysis.paper.tables import GMACS, published, summary
from analysis.report.charts import of_paper
from analysis.report.study import Study
from analysis.report.tables import brief, counted, names, number, plain_table
from analysis.results.published import near_misses
from analysis.results.run_folders import EVALUATION_KEY_TYPES
from analysis.results.sampled import best_of_text, guidance_text, sampler_text, steps_text
from analysis.results.tables import Tables


def lead(tables: Tables) -> str:
    """What the study is, in a line."""
    runs = tables.runs
    models = runs.drop_duplicates(["label", "block"])
    finished = runs["state"].tolist().count("finished")
    return (
        f"{counted(len(models), 'model')} on {names(runs['data'])}, "
        f"{counted(len(set(runs['seed'])), 'training seed')}, {max(runs['steps']):,} steps: "
        f"{finished} of {counted(len(runs), 'run')} finished, {counted(len(tables.evals), 'score')}."
    )


def scores(study: Study) -> dict[str, Any]:
    """The models at their last scored step; all scores, folded."""
    tables = study.tables
    evals, others = tables.evals, tables.other_evals
    found: dict[str, Any] = {"summary": "There is no score yet.", "folded": []}
    if not evals.empty:
        try:
            found["summary"] = _without_constants(brief(summary(tables), tables))
        except ResultsError as error:
            found["summary"] = f"No table: {error}."
        # Without the key, which is one for all, what follows from it and the model, and paths.
        shown = evals.drop(columns=[*EVALUATION_KEY_TYPES, "sampling_gmacs", "samples", "size", "patch"])
        found["folded"].append(plain_table("evals", "Every score of every run", "", shown))
    if not others.empty:
        caption = "Scores with other settings than the recipe's evaluation"
        found["folded"].append(plain_table("other-evals", caption, "Not to be compared with the others.", others))
    return found


def _without_constants(table: Table) -> Table:
    """Steps and seeds in the caption, where all models have the same."""
    if any(table.data[name].nunique() > 1 for name in ("step", "num_seeds")):
        return table
    step, seeds = (int(table.data[name].iloc[0]) for name in ("step", "num_seeds"))
    over = f", means over {seeds} seeds; small: the lowest and the highest seed" if seeds > 1 else ""
    columns = tuple(column for column in table.columns if column.name not in ("step", "num_seeds"))
    return replace(table, caption=f"Models at step {step:,}{over}", columns=columns)


def beside_published(study: Study) -> dict[str, Any]:
    """Published and measured scores, or why none is set beside one."""
    tables, missed = study.tables, near_misses(study.tables)
    found: dict[str, Any] = {"near_misses": None}
    is_same_scale = False
    try:
        table = published(tables)
        found["published"] = brief(table, tables)
        is_same_scale = bool(table.data["between_labs"].notna().any())  # of FIDs without guidance alone
    except ResultsError as error:
        found["published"] = f"No published score stands beside one of these: {str(error).partition(': ')[2] or error}."
    found["charts"] = [of_paper(is_same_scale)]
    if not missed.empty:
        columns = ["label", "seed", "step", "condition", "ours", "published", "source"]
        caption = "Scores of published models that are not compared, and the conditions in which they differ"
        shown = missed.loc[:, columns]
        found["near_misses"] = plain_table("near-misses", caption, "Of the nearest published row.", shown)
    return found


def protocol(tables: Tables) -> dict[str, Any]:
    """What was trained and how it was scored: in words, and the exact key."""
    runs, evals = tables.runs, tables.evals
    known = runs["gmacs"].dropna()
    compute = f"{number(known.min())} to {number(known.max())} GMACs" if len(known) else "not known yet"
    return {
        "about": [
            ("Data", names(runs["data"])),
            ("Models", names(runs["label"])),
            ("Block designs", names(runs["block"]) or "none"),
            ("Compute of a forward pass", compute),
            ("Training", f"{names(runs['steps'])} steps of batch {names(runs['batch_size'])}"),
            ("Training seeds", names(runs["seed"])),
            ("Scored at the steps", names(evals["step"]) or "none yet"),
        ],
        "conventions": f"{GMACS} Training compute is GMACs × 3 × batch × steps (DiT paper, Fig. 9); of all "
        f"runs' recipes together: {_sum(runs['training_gmacs'])}.",
        "words": "" if evals.empty else _in_words(evals.iloc[0].to_dict()),
        "key": [] if evals.empty else _key(evals.iloc[0].to_dict()),
    }


def _in_words(key: dict[Any, Any]) -> str:
    guidance = "without guidance" if key["guidance_scale"] == 1 else f"with guidance {key['guidance_scale']:g}"
    guidance += guidance_text(key)
    decoder = "" if pd.isna(key["decoder"]) else f", decoded by {unhashed(key['decoder'])}"
    accuracy = key["extractor_accuracy"]
    known = (
        f", a network that names {100 * accuracy:.1f}\N{NO-BREAK SPACE}% of real test images right"
        if pd.notna(accuracy)
        else ""
    )
    subsets = "" if pd.isna(key["kid_subset_size"]) else f" KID is of subsets of {key['kid_subset_size']:,}."
    best_of = best_of_text(key)
    weights = "EMA" if key["weights"] == "ema" else key["weights"]
    return (
        f"A checkpoint's {weights} weights made {key['num_samples']:,} samples with {key['labels']} labels: "
        f"{steps_text(key)} of the {sampler_text(key['sampler'])} sampler, {guidance}, denoised images "
        f"{'clipped' if key['clip_denoised'] else 'not clipped'}{decoder}. Their features, by "
        f"{unhashed(key['extractor'])}{known}, were compared with those of {unhashed(key['reference'])}.{subsets}"
        f"{best_of and f' Each is the {best_of} ways to sample.'}"
    )


def _key(key: dict[Any, Any]) -> list[tuple[str, str]]:
    pairs = [(name, "none" if pd.isna(key[name]) else str(key[name])) for name in EVALUATION_KEY_TYPES]
    if pd.notna(accuracy := key["extractor_accuracy"]):
        pairs.append(("accuracy of the extractor", f"{accuracy:.4f}"))
    return pairs


def _sum(gmacs: Any) -> str:
    """The sum of what is known, and of how many runs that is."""
    known = gmacs.dropna()
    of = f" ({len(known)} of {len(gmacs)} runs)" if len(known) < len(gmacs) else ""
    return f"{number(known.sum())} GMACs{of}"
