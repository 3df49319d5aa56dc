"""A training budget's advice: the answer in three lines, a table, and what else there is to say."""

from __future__ import annotations

import numpy as np

from analysis.advice.advise import Advice, Choice, best_gmacs
from analysis.advice.budget import CONVENTION, days, pf_days
from analysis.laws.bootstrap import METHODS
from analysis.laws.choices import REACH
from analysis.laws.fit import Fit
from analysis.laws.held_out import decimals_of

HEADINGS = ["model", "GMACs", "steps", "scored steps", "expected", "single run", "measured", "best in"]
VERBOSE_HEADINGS = [*HEADINGS[:5], "law's interval", *HEADINGS[5:]]


def headline(advice: Advice) -> list[str]:
    """The answer in three lines: which model for how long, how sure that is, and how far it is a guess."""
    best = advice.best
    if best is None:
        low, high = map(pf_days, advice.reach_flops)
        return [
            f"No advice for {days(pf_days(advice.budget_flops))}: every model would be trained for more than "
            f"{advice.reach:g} times, or less than 1/{advice.reach:g} of,",
            f"the steps that it was scored at. These results reach from {low:.3g} to {high:.3g} PF-days.",
        ]
    return [f"Train {_expected(advice, best)}.", _sure(advice), _guess(advice, best)]


def table(advice: Advice, verbose: bool = False) -> list[list[str]]:
    """Rows of text under `HEADINGS`: the models within reach.

    verbose: under `VERBOSE_HEADINGS`, also the models out of reach; what the law says of these is in brackets, as it is
    no expectation.
    """
    rows = []
    for choice in advice.choices:
        law, run = choice.prediction.law, choice.prediction.new_run
        if not choice.within_reach and not verbose:
            continue
        known = [f"{law.low:.4g} to {law.high:.4g}"] * verbose + [f"{run.low:.4g} to {run.high:.4g}"]
        rows.append(
            [
                choice.model,
                f"{choice.gmacs:.4g}",
                f"{choice.steps:,}",
                _beyond(choice.beyond),
                f"{law.estimate:.4g}" if choice.within_reach else f"({law.estimate:.4g})",
                *(known if choice.within_reach else [""] * len(known)),
                "none" if choice.measured is None else f"{choice.measured:.4g}",
                f"{choice.best_in:.0%}" if choice.within_reach else "out of reach",
            ]
        )
    return rows


def notes(advice: Advice) -> list[str]:
    """What has to be known beside the answer and the table, a line each."""
    lines = []
    if advice.inside is not None and advice.best is not None and advice.inside is not advice.best:
        lines.append(f"Within the steps that were scored, the best is {_expected(advice, advice.inside)}.")
    out = [choice.model for choice in advice.choices if not choice.within_reach]
    if out:
        lines.append(
            f"Out of reach, where only trying tells, as they would train for over {advice.reach:g} times, or under "
            f"1/{advice.reach:g} of, the steps that they were scored at: {', '.join(out)}."
        )
    return lines


def findings(advice: Advice) -> list[str]:
    """All the rest: the law, its test, the intervals, and what compute means, a line each."""
    lines = []
    if len(advice.measured) > 1:
        known = advice.measured[0]
        lines.append(
            f"Without a law: of the {len(advice.measured)} models with scores on both sides of this budget, "
            f"{known.model} has the best, {known.measured:.4g} (between its scored steps)."
        )
    if advice.law.joint is not None:
        lines.append(_best_size(advice, advice.law.joint))
    lines.append(f"The law: {advice.law.name} ({advice.why}). {advice.law.sentence()}")
    lines += _tests(advice)
    if (best := advice.best) is not None and best.beyond != 1:
        farther = f", and beyond {REACH:g} times grow with the logarithm of that" if best.beyond > REACH else ""
        lines.append(
            "Outside the scored steps, the interval of a single run has the errors in it that the law made in its "
            f"test, which are of up to twice the steps it was fitted to{farther}."
            if advice.tested
            else "The law was not tested: outside the scored steps, the intervals take its form for granted."
        )
    return [*lines, f"Intervals: {_how(advice)}", f"{CONVENTION}."]


def sentence(advice: Advice) -> str:
    """All in words, one line for each finding."""
    return "\n".join([*headline(advice), *notes(advice), *findings(advice)])


def _expected(advice: Advice, choice: Choice) -> str:
    run = choice.prediction.new_run
    said = decimals_of(run.estimate)
    return (
        f"{choice.model} for {choice.steps:,} steps of batch {advice.batch_size}: {advice.metric} "
        f"{run.estimate:{said}} expected ({run.level:.0%} of runs: {run.low:{said}} to {run.high:{said}})"
    )


def _sure(advice: Advice) -> str:
    reached = sum(choice.within_reach for choice in advice.choices)
    if reached == 1:
        return "It is the only model within reach: whether another would be better, these results cannot say."
    first, *others = advice.likely
    if not others:
        return f"It is the best of the {reached} models within reach in {first.best_in:.0%} of the draws."
    named = ", ".join(f"{choice.model} in {choice.best_in:.0%}" for choice in advice.likely)
    return f"Not distinguishable which of the {reached} within reach is the best: {named} of the draws."


def _guess(advice: Advice, best: Choice) -> str:
    if best.beyond == 1:
        known = (
            "" if best.measured is None else f": its own scores on both sides of these steps say {best.measured:.4g}"
        )
        return f"It does not extrapolate{known}."
    how = (
        f"would train {best.beyond:.3g} times as long as it ever did" if best.beyond > 1
        else f"would stop after {best.beyond:.2g} of the steps at which it was first scored"
    )  # fmt: skip
    tested = advice.tested
    off = f"tested, the law was {np.expm1(tested.rms):.0%} off" if tested else "the law could not be tested"
    return f"It extrapolates: {best.model} {how}; {off}."


def _tests(advice: Advice) -> list[str]:
    """Of all laws that could be tested, in one sentence, as they were asked the same."""
    if not advice.tests:
        return []
    first, each = advice.tests[0], "; ".join(
        f"{test.law.name} {np.expm1(test.rms):.1%} off (root mean square; {test.bias:+.1%} on average)"
        + (f", and {test.choice()}" if test.models else "")
        for test in advice.tests
    )  # fmt: skip
    at = f", and asked which model to train for {days(pf_days(first.budget_flops))}" if first.budget_flops else ""
    return [
        f"Tested by the later half of each model's training ({first.num_predicted} scores), predicted from the earlier "
        f"half ({first.num_fitted}){at}: {each}."
    ]


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
