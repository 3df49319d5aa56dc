"""What a study has found, as its page begins: a sentence with its interval, a few numbers, and what they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from analysis.advice.transfer import Transfer, transfers
from analysis.compare.collected import collected_designs
from analysis.compare.compared import DesignTable, compared
from analysis.drawing.picture import NothingToDraw
from analysis.errors import ResultsError
from analysis.laws.bootstrap import Bootstrap
from analysis.laws.held_out import HeldOut
from analysis.laws.profile_likelihood import Profile
from analysis.laws.report import FitReport
from analysis.report.charts import power_law
from analysis.report.looks import with_range
from analysis.report.study import Study
from analysis.report.tables import counted, minus, number, percent
from analysis.results.tables import correlations

LEVEL = 0.9
POWER = "power"  # the law of compute alone, which a page begins with
TOO_NARROW = re.compile(r"With [^.]* too narrow\.")  # of what a bootstrap says of itself
CLEAR = 0.05  # an exponent whose interval begins below says that compute hardly matters


@dataclass(frozen=True)
class Fact:
    """A number and what it is."""

    value: str
    label: str


@dataclass(frozen=True)
class Answer:
    """`headline` may have powers, C^−0.24; `notes` say what the numbers do not."""

    headline: str
    facts: list[Fact]
    notes: list[str]


def answer(study: Study, law: FitReport | None) -> Answer:
    """By learning rates where widths have several, else by a law where there is one, else by a comparison of designs,
    else by the best model.
    """
    if found := _transfers(study):
        return _of_rates(found)
    metric = study.metric
    if metric is None:
        finished = study.tables.runs["state"].tolist().count("finished")
        return Answer(
            f"There is no score yet: {finished} of {counted(len(study.tables.runs), 'run')} finished.", [], []
        )
    if law is not None and power_law(law):
        return _of_law(study, metric, law)
    facts = [_best(study, metric)]
    if lines := _of_designs(study, metric):
        return Answer(lines[0], facts, lines[1:])
    models = study.models(metric)
    best = _ranked(study, metric).iloc[0]
    score = f"{study.called(metric)} {with_range(best.to_dict(), metric)}, {study.at_last(metric)[1]}"
    if len(models) == 1:
        return Answer(f"{best['label']} reaches {score}.", [], [])
    return Answer(f"{best['label']} is the best of {len(models)} models: {score}.", [], [])


def held_out_in_words(test: HeldOut) -> str:
    """What the prediction of the largest model from the others says of the law, good or bad."""
    model, truth, runs = test.models[-1], test.truth[-1], test.runs[-1]
    law, new, error = test.predictions[-1].law, test.predictions[-1].new_run, test.relative_errors[-1]
    others = len(set(test.fit.observations.models))
    said = (
        f"The law of the other {others} models puts {model} at {number(law.estimate)}; it scored {number(truth)}, so "
        f"the prediction is {percent(abs(error))} too {'high' if error > 0 else 'low'}"
    )
    own, wide = (f"{number(each.low)} to {number(each.high)}" for each in (law, new))
    interval = f"the law's own {percent(law.level)} interval, {own}"
    if law.holds(truth):
        return f"{said}. That is inside {interval}, at {test.beyond:.3g} times the compute it was fitted to."
    if any(map(new.holds, runs)):
        return (
            f"{said}. That is outside {interval}, and inside a new run's, {wide}: the model lies no farther from the "
            "law than the others do, but the law is known less well than its interval says."
        )
    return (
        f"{said}. That is outside {interval}, and outside a new run's, {wide}. The intervals say how the smaller "
        f"models scatter, and {model} is {'worse' if error < 0 else 'better'} than all of that: the scores bend away "
        "from the line there, or patch sizes follow lines of their own. The law describes the smaller models; do not "
        "extend it."
    )


def _transfers(study: Study) -> list[Transfer]:
    try:
        return transfers(study.tables)
    except NothingToDraw:
        return []


def _of_rates(found: list[Transfer]) -> Answer:
    """Whether one learning rate serves all widths, of each design."""
    said = "; ".join(f"{minus(design.power)} of {design.design}" for design in found)
    facts = []
    for design in found:
        narrowest, widest = design.widths[0].width, design.widths[-1]
        what = f"training loss of width {widest.width} at the rate that is best for width {narrowest}, {design.design}"
        lost = percent(widest.excess, sign=True) if np.isfinite(widest.excess) else "diverged"
        facts.append(Fact(lost, f"{what}, beside the best of its own rates"))
    return Answer(
        f"The best learning rate goes with {said}.",
        facts,
        ["0 would be one rate for all widths. In brackets, 90 % intervals; the picture is among the others below."],
    )


def _of_law(study: Study, metric: str, law: FitReport) -> Answer:
    found = power_law(law)
    assert found
    alpha, called = law.intervals[found[0]][1]["alpha"], study.called(metric)
    models = counted(len(set(law.rows.models)), "model")
    interval = f"({percent(alpha.level)}: −{alpha.high:.2f} to −{alpha.low:.2f})"
    equation = f"{called} ∝ C^−{alpha.estimate:.2f}"
    if alpha.low > CLEAR:
        headline = f"Quality follows compute: {equation} {interval} over {models}."
    else:
        headline = f"Compute hardly orders these {models}: {equation} {interval}."
    factor, low, high = (10 ** -getattr(alpha, end) for end in ("estimate", "high", "low"))
    facts = [
        Fact(
            f"× {factor:.2f}", f"{called} for ten times the compute ({percent(alpha.level)}: {low:.2f} to {high:.2f})"
        ),
        *_order(study, metric),
        _best(study, metric),
    ]
    tests = [test for test in law.held_out if test.fit.form.name == POWER]  # of all models, then of one patch size
    notes = []
    if tests:
        error = tests[0].relative_errors[-1]
        inside = tests[0].holds_law
        where = "inside" if inside else "outside"
        facts.insert(
            1,
            Fact(
                percent(error, sign=True),
                f"error of predicting {tests[0].models[-1]} from the others, {where} the interval",
            ),
        )
        notes.append(held_out_in_words(tests[0]) + _closer(tests, law.held_out))
    return Answer(headline, facts, [*notes, *_doubts(law, found[1])])


def _doubts(law: FitReport, how: Bootstrap | Profile) -> list[str]:
    """What the law's intervals leave out."""
    if isinstance(how, Bootstrap):
        return TOO_NARROW.findall(how.sentence())
    if len(set(law.rows.seeds)) < 2:
        return ["With one training seed, these intervals leave out how seeds differ."]
    return ["With so few models, these intervals take the scores of a model's seeds for independent of each other."]


def _closer(power: list[HeldOut], tests: tuple[HeldOut, ...]) -> str:
    """What predicts the largest model better than the law of compute alone, where that one fails."""
    if power[0].holds_law:
        return ""
    best = min(tests, key=lambda test: abs(test.relative_errors[-1]))
    error = best.relative_errors[-1]
    if abs(error) > 0.5 * abs(power[0].relative_errors[-1]):
        return ""
    which = (
        "the law of its patch size alone"
        if best.fit.form.name == POWER
        else f"the law with image tokens ({best.fit.form.name})"
    )
    return f" Closer comes {which}, {percent(abs(error))} too {'high' if error > 0 else 'low'}."


def _of_designs(study: Study, metric: str) -> list[str]:
    """What comparing the families says, or the block designs of one; nothing where there are none to compare."""
    by = "family" if len(set(study.tables.runs["family"])) > 1 else "block"
    if len(set(study.tables.runs[by])) < 2:
        return []
    try:
        found = compared(collected_designs({study.source.name: study.tables}, by, metric), LEVEL)
    except ResultsError as error:
        return [f"The {'families' if by == 'family' else 'block designs'} cannot be compared: {error}."]
    lines = [re.sub(rf"\b{metric}\b", lambda _: study.called(metric), line) for line in found.headline()]
    if isinstance(found, DesignTable):
        return [lines[0], "Whether a difference is more than chance, `ditbench compare` says of two designs."]
    return lines


def _order(study: Study, metric: str) -> list[Fact]:
    """How many neighbours compute orders, at the last step, all seeds together."""
    found = correlations(study.tables.evals) if metric == "fid" else None
    if found is None or found.empty:
        return []
    last = found.loc[found["step"] == found["step"].max()]
    right = int(last["patch_pairs_right"].sum() + last["size_pairs_right"].sum())
    pairs = int(last["patch_pairs"].sum() + last["size_pairs"].sum())
    if not pairs:
        return []
    return [Fact(f"{right} of {pairs}", "pairs of neighbours in which the model with more compute scores better")]


def _best(study: Study, metric: str) -> Fact:
    best = _ranked(study, metric).iloc[0]
    return Fact(minus(number(best[metric])), f"{study.called(metric)} of {best['label']}, the best model")


def _ranked(study: Study, metric: str):
    return study.models(metric).sort_values(metric, ascending=study.lower_is_better(metric))
