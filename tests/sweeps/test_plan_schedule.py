"""When planned jobs end: by hand, against a clock that ticks, within Graham's bounds; wall time of arrays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaling_plans import equal_runs, planned, profile

from sweeps.planning.plan import end_times


@pytest.mark.parametrize(
    ("durations", "max_parallel", "ready", "ends"),
    [
        ([], 3, None, []),
        ([2], 5, None, [2]),
        ([5, 3, 2, 2], 2, None, [5, 3, 5, 7]),
        ([1, 2, 3], 1, None, [1, 3, 6]),
        ([4, 4, 4], 2, None, [4, 4, 8]),
        ([1, 3, 3], 1, [4, 0, 0], [7, 3, 6]),  # the first waits, those behind it pass
        ([2, 2], 1, [1, 9], [3, 11]),
        ([0, 0, 3], 1, None, [0, 0, 3]),
    ],
)
def test_end_times_by_hand(
    durations: list[float], max_parallel: int, ready: list[float] | None, ends: list[float]
) -> None:
    assert end_times(durations, max_parallel, ready) == ends


tasks = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8)), max_size=8)


@given(tasks, st.integers(1, 4))
def test_end_times_equal_a_clock_that_ticks(drawn: list[tuple[int, int]], max_parallel: int) -> None:
    durations, ready = [d for d, _ in drawn], [r for _, r in drawn]
    ends: dict[int, int] = {}
    now = 0
    while len(ends) < len(drawn):
        for task in range(len(drawn)):
            running = sum(end > now for end in ends.values())
            if task not in ends and ready[task] <= now and running < max_parallel:
                ends[task] = now + durations[task]
        now += 1
    assert end_times(durations, max_parallel, ready) == [ends[task] for task in range(len(drawn))]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(1, 25))
def test_the_last_end_is_within_grahams_bounds(durations: list[float], max_parallel: int) -> None:
    last = max(end_times(durations, max_parallel))
    spread, longest = sum(durations) / max_parallel, max(durations)
    assert last >= max(spread, longest) * (1 - 1e-9)
    assert last <= (spread + longest * (1 - 1 / max_parallel)) * (1 + 1e-9)
    if max_parallel >= len(durations):
        assert last == longest


def test_wall_time_with_the_array_limit() -> None:
    sweep = equal_runs(3)
    inline = planned(sweep, profile(evaluate="inline", max_parallel=2))
    first = inline.runs[0]
    assert first.training_s is not None and first.scoring_s is not None
    assert first.scoring_job == first.training_job
    assert inline.wall_s == pytest.approx(2 * (first.training_s + first.scoring_s))
    assert [(a.kind, a.num_tasks, a.max_parallel) for a in inline.arrays] == [("training", 3, 2)]
    for evaluate in ("after", "as-ready"):
        scoring = [{"gpus_per_node": 2, "max_parallel": 1}]
        after = planned(sweep, profile(evaluate=evaluate, max_parallel=2, evaluation=scoring))
        t, s = after.runs[0].training_s, after.runs[0].scoring_s
        assert t is not None and s is not None
        # Trained at t, t and 2t; scored one after the other.
        assert after.wall_s == pytest.approx(max(t + 2 * s, 2 * t) + s)
        assert [array.ends_s for array in after.arrays] == pytest.approx([2 * t, after.wall_s])


def test_wall_time_of_packed_runs() -> None:
    packed = profile(evaluate="inline", training=[{"gpus_per_node": 8, "runs_per_job": 2}])
    whole = planned(equal_runs(3), packed)
    assert whole.runs[0].wall_s is not None
    assert whole.wall_s == pytest.approx(2 * whole.runs[0].wall_s)
    assert whole.arrays[0].num_tasks == 2
