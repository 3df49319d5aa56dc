"""A training budget's advice as a table and in words."""

from __future__ import annotations

import numpy as np

from analysis.advice.advise import REACH, Advice, Choice, best_gmacs
from analysis.advice.budget import CONVENTION, pf_days
from analysis.laws.bootstrap import METHODS
from analysis.laws.fit import Fit

HEADINGS = [
    "model", "GMACs", "steps", "scored steps", "expected", "law's interval", "single run", "measured", "best in"
]  # fmt: skip


def table(advice: Advice) -> list[list[str]]:
    """Rows of text under `HEADINGS`."""
    return [
        [
            choice.model,
            f"{choice.gmacs:.4g}",
            f"{choice.steps:,}",
            _beyond(choice.beyond),
            f"{choice.prediction.law.estimate:.4g}",
            f"{choice.prediction.law.low:.4g} to {choice.prediction.law.high:.4g}",
            f"{choice.prediction.new_run.low:.4g} to {choice.prediction.new_run.high:.4g}",
            "none" if choice.measured is None else f"{choice.measured:.4g}",
            f"{choice.best_in:.0%}" if choice.within_reach else "out of reach",
        ]
        for choice in advice.choices
    ]


def headline(advice: Advice) -> list[str]:
    """The answer in three lines: which model for how long, how sure that is, and how far it is a guess."""
    best = advice.best
    if best is None:
        low, high = map(pf_days, advice.reach_flops)
        return [
            f"No advice for {pf_days(advice.budget_flops):.3g} PF-days: it is too far from what these models were "
            "trained for.",
            f"Budgets from {low:.3g} to {high:.3g} PF-days train at least one of them for a quarter to {REACH} times as "
            "long as it was.",
        ]
    run = best.prediction.new_run
    return [
        f"For {pf_days(advice.budget_flops):.3g} PF-days, train {best.model} for {best.steps:,} steps of batch "
        f"{advice.batch_size}: {advice.metric} {run.estimate:.4g} ({run.level:.0%}: {run.low:.4g} to {run.high:.4g}).",
        _sure(advice),
        _guess(advice, best),
    ]


def _sure(advice: Advice) -> str:
    reached = sum(choice.within_reach for choice in advice.choices)
    if reached == 1:
        return f"It is the only model within reach: at most {REACH} times the steps that it was scored at."
    first, *others = advice.likely
    if not others:
        return f"How sure: of the {reached} models within reach, it is the best in {first.best_in:.0%} of the draws."
    named = ", ".join(f"{choice.model} ({choice.best_in:.0%})" for choice in advice.likely)
    return f"How sure: not distinguishable which of these is the best: {named}."


def _guess(advice: Advice, best: Choice) -> str:
    tested = advice.tested
    off = f" Its law was {np.expm1(tested.rms):.0%} off in its test." if tested else " Its law could not be tested."
    if best.beyond > 1:
        return f"It is a guess: {best.model} would be trained {best.beyond:.3g} times as long as it ever was.{off}"
    if best.beyond < 1:
        return f"It is a guess: {best.model} would stop after {best.beyond:.2g} of its first scored step.{off}"
    return f"It is no guess: the steps are among those that {best.model} was scored at.{off}"


def sentence(advice: Advice) -> str:
    """A line a finding."""
    lines = [_advised(advice)]
    if advice.best is not None:
        reached = sum(choice.within_reach for choice in advice.choices)
        only = f"No other model is within reach: at most {REACH} times the steps it was scored at."
        lines.append(_which(advice.likely, advice.level) if reached > 1 else only)
        lines.append(_extrapolation(advice, advice.best))
        if advice.inside is not None and advice.inside is not advice.best:
            lines.append(f"Within the steps that were scored, the best is {_expected(advice, advice.inside)}.")
        lines += _out_of_reach(advice, advice.best)
    if len(advice.measured) > 1:
        known = advice.measured[0]
        lines.append(
            f"Without a law: of the {len(advice.measured)} models with scores on both sides of this budget, "
            f"{known.model} has the best, {known.measured:.4g} (between its scored steps)."
        )
    if advice.law.joint is not None:
        lines.append(_best_size(advice, advice.law.joint))
    lines.append(f"The law: {advice.law.name} ({advice.why}). {advice.law.sentence()}")
    lines += [f"Tested: {test.sentence()}." for test in advice.tests]
    lines += [f"Intervals: {_how(advice)}", f"{CONVENTION}."]
    return "\n".join(lines)


def _advised(advice: Advice) -> str:
    budget = f"{pf_days(advice.budget_flops):.4g} PF-days ({advice.budget_flops:.3g} FLOPs)"
    if advice.best is not None:
        known = "" if advice.best.measured is None else f" Its own curve was at {advice.best.measured:.4g} there."
        return f"For {budget}: {_expected(advice, advice.best)}.{known}"
    low, high = map(pf_days, advice.reach_flops)
    return (
        f"For {budget}: no advice. Every model would be trained for more than {REACH} times, or less than "
        f"1/{REACH} of, the steps it was scored at. These runs reach from {low:.3g} to {high:.3g} PF-days."
    )


def _expected(advice: Advice, choice: Choice) -> str:
    law, new = choice.prediction.law, choice.prediction.new_run
    return (
        f"{choice.model} for {choice.steps:,} steps of batch {advice.batch_size}, {advice.metric} "
        f"{law.estimate:.4g} ({law.level:.0%}: the law {law.low:.4g} to {law.high:.4g}, a single run {new.low:.4g} "
        f"to {new.high:.4g})"
    )


def _extrapolation(advice: Advice, best: Choice) -> str:
    parts = []
    if advice.beyond > 1:
        parts.append(f"the budget is {advice.beyond:.3g} times the largest training that was scored")
    if best.beyond > 1:
        parts.append(f"{best.model} would be trained {best.beyond:.3g} times as long as it ever was")
    if best.beyond < 1:
        parts.append(f"{best.model} would stop after {best.beyond:.2g} of the steps at which it was first scored")
    if not parts:
        return "It does not extrapolate: the budget and the steps are inside those that were scored."
    trust = (
        "The interval of a single run has the errors in it that the law made in its test, up to twice the steps it was "
        "fitted to."
        if advice.tested
        else "The law was not tested: the intervals take its form for granted there."
    )
    return f"It extrapolates: {', and '.join(parts)}. {trust}"


def _out_of_reach(advice: Advice, best: Choice) -> list[str]:
    better = [
        f"{choice.model} ({choice.prediction.law.estimate:.4g} after {choice.steps:,} steps)"
        for choice in advice.choices
        if not choice.within_reach and choice.prediction.law.estimate < best.prediction.law.estimate
    ]
    if not better:
        return []
    return [f"The law expects better of models out of its reach; only trying tells: {', '.join(better)}."]


def _how(advice: Advice) -> str:
    if advice.law.joint is not None:
        return next(iter(advice.how.values())).sentence()
    failed = max(refits.failed for refits in advice.how.values())
    first = next(iter(advice.how.values()))
    return (
        f"of each curve by itself, {first.replicates:,} replicates (seed {first.seed}; {METHODS['residual']}), at most "
        f"{failed:.1%} failed."
    )


def _best_size(advice: Advice, law: Fit) -> str:
    """What the law would like, were there models of every size."""
    values, first = law.parameters, advice.choices[0]
    if advice.law.name == "product":
        always = "a larger model" if values["alpha"] > values["beta"] else "a smaller model, trained longer,"
        return (
            f"This law has no best size: at equal training compute {always} always scores better, as alpha = "
            f"{values['alpha']:.3f} and beta = {values['beta']:.3f}."
        )
    size = best_gmacs(law, advice.budget_flops, first.tokens)
    if size is None:
        return "A term of this law vanishes, so it has no best size."
    smallest, largest = (end(choice.gmacs for choice in advice.choices) for end in (min, max))
    where = (
        f", {size / largest:.3g} times the largest model here" if size > largest
        else f", {size / smallest:.2g} of the smallest model here" if size < smallest else ""
    )  # fmt: skip
    return f"Were there models of every size with {first.tokens} tokens, the law's best has {size:.3g} GMACs{where}."


def _beyond(beyond: float) -> str:
    return "inside" if beyond == 1 else f"{beyond:.3g} x the last" if beyond > 1 else f"{beyond:.2g} x the first"


def _which(likely: tuple[Choice, ...], level: float) -> str:
    first, *others = likely
    if not others:
        return f"It is the best in {first.best_in:.0%} of the draws."
    named = ", ".join(f"{choice.model} ({choice.best_in:.0%})" for choice in likely)
    return f"Not distinguishable which is best: {named}; one of them is in {level:.0%}."
