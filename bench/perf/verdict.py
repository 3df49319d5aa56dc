"""Whether ours has become faster since an earlier document: by how ours stood against the same alternatives."""

from __future__ import annotations

import math
from statistics import mean, median, variance
from typing import Any, NamedTuple

from bench.errors import InputError
from bench.perf.document import OURS, setting_of

CONFIDENCE = 0.95
CONDITIONS = ("kind", "device", "precision", "threads")
ITSELF = "itself"


class Verdict(NamedTuple):
    """Of one setting and alternative.

    Attributes:
        against: the alternative, or "itself" where a setting has none.
        before, now: geometric means over the rounds of our median time over theirs; of "itself", in seconds.
        low, high: the interval of now / before.
        word: better, worse, or not distinguishable.
    """

    setting: str
    against: str
    before: float
    now: float
    low: float
    high: float
    word: str

    def in_words(self) -> dict[str, str]:
        """Column -> value as it is printed."""
        interval = f"{self.now / self.before:.3f} ({self.low:.3f} to {self.high:.3f})"
        numbers = {"before": f"{self.before:.4g}", "now": f"{self.now:.4g}", "now/before": interval}
        return {"setting": self.setting, "against": self.against, **numbers, "verdict": self.word}


def verdicts(now: dict[str, Any], before: dict[str, Any]) -> list[Verdict]:
    """For every setting and alternative that both documents (`bench.perf.document`) have.

    A round's number is log(our median time / the alternative's) in that round: whatever the machine did in it, it did
    to both. The difference of the means over the rounds, now less before, has Welch's 95 % interval: rounds are what is
    independent, not the steps within one process. Better: all of it is below 0; worse: all of it is above. Where a
    setting has no alternative, it is log(our median time): of one machine alone.

    Raises:
        InputError: they were measured under other conditions, in fewer than 2 rounds, or have nothing in common.
    """
    for key in CONDITIONS:
        if now[key] != before[key]:
            raise InputError(f"--against: {key} is {before[key]} there, {now[key]} here; accepted: the same of both")
    new, old = _logs(now), _logs(before)
    common = [key for key in new if key in old]
    machines = [document.get("machine", "not said") for document in (before, now)]
    if machines[0] != machines[1] and any(against == ITSELF for _, against in common):
        said = f"the machine is {machines[0]} there, {machines[1]} here"
        raise InputError(f"--against: {said}; accepted: the same, for what has no alternative to be compared by")
    if not common:
        there = ", ".join(sorted({setting for setting, _ in old})) or "none"
        raise InputError(f"--against: no setting of ours in common; it has {there}")
    rounds = min(len(values) for logs in (new, old) for values in logs.values())
    if rounds < 2:
        raise InputError("--against: 1 round; accepted: 2 rounds or more, of both")
    return [_verdict(*key, new[key], old[key]) for key in common]


def _logs(document: dict[str, Any]) -> dict[tuple[str, str], list[float]]:
    """(setting, alternative) -> log(our median / theirs) of every round; of a setting without one, log(our median)."""
    medians = {(setting_of(row), row["contender"]): [median(s) for s in row["seconds"]] for row in document["rows"]}
    accompanied = {setting for setting, name in medians if name != OURS}
    logs = {
        (setting, name): [math.log(a / b) for a, b in zip(medians[setting, OURS], theirs, strict=True)]
        for (setting, name), theirs in medians.items()
        if name != OURS and (setting, OURS) in medians
    }
    alone = [setting for setting, name in medians if name == OURS and setting not in accompanied]
    return logs | {(setting, ITSELF): [math.log(s) for s in medians[setting, OURS]] for setting in alone}


def _verdict(setting: str, against: str, now: list[float], before: list[float]) -> Verdict:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    a, b = variance(now) / len(now), variance(before) / len(before)
    freedom = (a + b) ** 2 / (a**2 / (len(now) - 1) + b**2 / (len(before) - 1)) if a + b else 1.0
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(a + b)
    change = mean(now) - mean(before)
    word = "better" if change + half < 0 else "worse" if change - half > 0 else "not distinguishable"
    then, since, low, high = map(math.exp, (mean(before), mean(now), change - half, change + half))
    return Verdict(setting, against, then, since, low, high, word)
