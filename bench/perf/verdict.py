"""Whether ours has become faster since a race before: by how ours stood against the same alternatives in either."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean, median, variance
from typing import Any, NamedTuple

from bench.errors import InputError
from bench.perf.race import setting_of

CONFIDENCE = 0.95
CONDITIONS = ("kind", "device", "precision", "threads")


class Verdict(NamedTuple):
    """Of one setting and alternative.

    Attributes:
        before, now: geometric means over the rounds of our median time over theirs.
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
        numbers = {"before": f"{self.before:.3f}", "now": f"{self.now:.3f}", "now/before": interval}
        return {"setting": self.setting, "against": self.against, **numbers, "verdict": self.word}


def verdicts(now: dict[str, Any], before: dict[str, Any]) -> list[Verdict]:
    """For every setting and alternative that both documents of `bench.perf.race.race` have.

    A round's number is log(our median time / the alternative's) in that round: whatever the machine did in it, it did
    to both. The difference of the means over the rounds, now less before, has Welch's 95 % interval: rounds are what is
    independent, not the steps within one process. Better: all of it is below 0; worse: all of it is above.

    Raises:
        InputError: they were measured under other conditions, in fewer than 2 rounds, or have nothing in common.
    """
    for key in CONDITIONS:
        if now[key] != before[key]:
            raise InputError(f"--against: {key} is {before[key]} there, {now[key]} here; accepted: the same of both")
    new, old = _logs(now), _logs(before)
    common = [key for key in new if key in old]
    if not common:
        there = ", ".join(sorted({setting for setting, _ in old})) or "none"
        raise InputError(f"--against: no setting in common, with ours and an alternative; it has {there}")
    rounds = min(len(values) for logs in (new, old) for values in logs.values())
    if rounds < 2:
        raise InputError("--against: a race of 1 round; accepted: 2 rounds or more, of both")
    return [_verdict(*key, new[key], old[key]) for key in common]


def read_race(path: Path) -> dict[str, Any]:
    """A document that `ditbench perf train` or `sample` wrote.

    Raises:
        InputError: it cannot be read, or is another.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--against {path}: cannot be read ({error})") from None
    if not isinstance(content, dict) or not {*CONDITIONS, "rows"} <= content.keys():
        raise InputError(f"--against {path}: no races; accepted: a JSON file of ditbench perf train or sample")
    return content


def _logs(document: dict[str, Any]) -> dict[tuple[str, str], list[float]]:
    """(setting, alternative) -> log(our median / theirs) of every round."""
    medians = {(setting_of(row), row["contender"]): [median(s) for s in row["seconds"]] for row in document["rows"]}
    return {
        (setting, name): [math.log(a / b) for a, b in zip(medians[setting, "ours"], theirs, strict=True)]
        for (setting, name), theirs in medians.items()
        if name != "ours" and (setting, "ours") in medians
    }


def _verdict(setting: str, against: str, now: list[float], before: list[float]) -> Verdict:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    a, b = variance(now) / len(now), variance(before) / len(before)
    freedom = (a + b) ** 2 / (a**2 / (len(now) - 1) + b**2 / (len(before) - 1)) if a + b else 1.0
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(a + b)
    change = mean(now) - mean(before)
    word = "better" if change + half < 0 else "worse" if change - half > 0 else "not distinguishable"
    then, since, low, high = map(math.exp, (mean(before), mean(now), change - half, change + half))
    return Verdict(setting, against, then, since, low, high, word)
