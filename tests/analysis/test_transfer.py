"""The best learning rate over the width: of made-up losses whose best rates are known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner
from width_study import BEST, CURVATURE, DRIFT, MUP, RATES, SP, WIDTHS, Record, few, loss_of, records, study, tables_of

from analysis.advice.learning_rate import advise_rates, headline, said_of_rates
from analysis.advice.transfer import Transfer, _drawn, _transfer, interval, transfers
from analysis.drawing.picture import NothingToDraw
from analysis.errors import ResultsError
from analysis.paper.transfer import transfer
from analysis.report.answer import answer
from analysis.report.study import Study
from analysis.results.tables import load
from ditbench import app


def by_design(of: list[Record], seed: int = 0) -> dict[str, Transfer]:
    return {each.design: each for each in transfers(tables_of(of), seed)}


def test_of_noiseless_losses_the_best_rates_and_their_drift_are_exact() -> None:
    found = by_design(records())
    assert set(found) == {SP, MUP}
    for design, each in found.items():
        assert [one.width for one in each.widths] == [*WIDTHS]
        for one in each.widths:
            best = BEST * (one.width / WIDTHS[0]) ** DRIFT[design]
            assert np.exp(one.optimum) == pytest.approx(best) and not one.at_end
            assert interval(one.optimum, one.draws).low == pytest.approx(np.log(best))
        assert each.drift == pytest.approx(DRIFT[design], abs=1e-9)
        at_512, _ = each.predicted(512)
        assert np.exp(at_512) == pytest.approx(BEST * 32 ** DRIFT[design])


def test_the_transferred_rate_costs_what_the_parabola_says() -> None:
    """The best of the narrowest is 0.016; at width w of sp the best rate that is run is 0.016 x 16 / w."""
    found = by_design(records())
    assert {each.transferred for each in found.values()} == {0.016}
    assert [one.excess for one in found[MUP].widths] == pytest.approx([0, 0, 0, 0])
    for one in found[SP].widths:
        tuned = 0.016 * WIDTHS[0] / one.width
        expected = loss_of(SP, one.width, 0.016) / loss_of(SP, one.width, tuned) - 1
        assert one.tuned == (pytest.approx(tuned), pytest.approx(loss_of(SP, one.width, tuned)))
        assert one.excess == pytest.approx(expected)
    assert found[SP].widths[-1].excess > 0.07


@pytest.mark.parametrize("scatter", [0.002, 0.01])
def test_intervals_hold_the_true_drift_as_often_as_they_say(scatter: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """90 % intervals, of 60 studies of three seeds, whose levels differ by far more than what is left."""
    monkeypatch.setattr("analysis.advice.transfer.REPLICATES", 200)
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        grids = {}
        for width in WIDTHS:
            losses = np.array([[loss_of(SP, width, rate)] * 3 for rate in RATES])
            noise = random.normal(scale=scatter, size=losses.shape) + random.normal(scale=0.05, size=3)
            grids[width] = pd.DataFrame(losses * np.exp(noise), index=pd.Index(RATES))
        found = _transfer(SP, grids, random)
        hits += interval(found.drift, found.drift_draws).holds(DRIFT[SP])
    assert 45 <= hits <= 60


def test_draws_scatter_as_what_rates_and_seeds_leave() -> None:
    """By hand: rates 0 and 0.09, seeds +-0.105, residuals +-0.005: four of one degree of freedom, so twice that."""
    logs = np.array([[0.11, -0.11], [0.19, -0.01]])
    drawn = np.log(_drawn(np.exp(logs), np.random.default_rng(0)))
    assert drawn.mean(1) == pytest.approx(np.log(np.exp(logs).mean(1)), abs=1e-3)
    assert drawn.std(1) == pytest.approx([2 * 0.005 / np.sqrt(2)] * 2, rel=0.05)


def test_the_same_seed_draws_the_same_and_one_training_seed_draws_nothing() -> None:
    one, again = (by_design(records(0.01))[SP] for _ in range(2))
    assert np.array_equal(one.drift_draws, again.drift_draws)
    single = by_design(records(0.01, seeds=(0,)))[SP]
    assert len(single.drift_draws) == 0 and np.isnan(interval(single.drift, single.drift_draws).low)
    assert not np.isnan(single.drift)


def test_a_best_rate_at_an_end_of_the_rates_is_said_to_be_one() -> None:
    found = by_design(records(rates=RATES[4:]))  # from 0.016, below which are sp's
    assert [one.at_end for one in found[SP].widths] == [True] * 4
    assert np.exp(found[SP].widths[-1].optimum) == pytest.approx(RATES[4])
    assert "at an end of the rates: the best may be beyond" in transfer(tables_of(records(rates=RATES[4:]))).conventions


def test_runs_that_diverged_leave_the_rates_below_them_as_they_are() -> None:
    """Of two seeds at the highest rate: one failed, the loss of the other is infinite."""

    def diverged(one: Record) -> Record:
        if one.rate == RATES[-1] and one.seed == 0:
            return replace(one, losses=(*one.losses[:-1], None), is_failed=True)
        if one.rate == RATES[-1] and one.seed == 1:
            return replace(one, losses=(*one.losses[:-1], float("inf")))
        return one

    of = [diverged(one) for one in records()]
    plain, found = by_design(records())[SP], by_design(of)[SP]
    assert np.isfinite(found.widths[0].means).tolist() == [True] * 6 + [False]
    for one, other in zip(found.widths, plain.widths, strict=True):
        assert one.optimum == pytest.approx(other.optimum) and one.excess == pytest.approx(other.excess)


def test_runs_that_have_not_come_so_far_take_their_seed_with_them() -> None:
    of = [replace(one, losses=()) if (one.width, one.rate, one.seed) == (64, RATES[0], 2) else one for one in records()]
    found = by_design(of)[SP].widths
    assert [one.losses.shape for one in found] == [(7, 3), (7, 3), (7, 2), (7, 3)]
    alone = [one for one in records() if one.width != 64 or one.seed == 0]
    each = by_design(alone)[SP]
    assert each.drift == pytest.approx(-1) and not len(each.drift_draws) and not len(each.predicted(256)[1])


def test_two_runs_of_one_seed_are_refused() -> None:
    with pytest.raises(NothingToDraw, match=r"adaln-zero of width 16 at 0\.001 has several runs of seed 0; keep one"):
        transfers(tables_of([*records(), records()[0]]))


def test_a_transferred_rate_that_diverges_elsewhere_costs_without_end() -> None:
    of = [replace(one, losses=(None,) * 10) if one.width == 128 and one.rate > 0.01 else one for one in records()]
    assert by_design(of)[SP].widths[-1].excess == np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": [3, 4]}, r"differ in depth \(3, 4\)"),
        ({"batch_size": [32, 64]}, r"differ in batch_size \(32, 64\)"),
        ({"weight_decay": [0.0, 0.1]}, "differ in weight_decay"),
        ({"hidden_size": [16, 16]}, "needed: runs of two widths, each at 3 learning rates or more"),
        ({"learning_rate": [0.001, 0.002]}, "needed: runs of two widths, each at 3 learning rates or more"),
    ],
)
def test_what_is_no_such_study_is_refused_in_one_line(change: dict[str, list[Any]], message: str) -> None:
    found = tables_of(records(seeds=(0,)))
    ((name, values),) = change.items()
    runs = found.runs.assign(**{name: [values[i % 2] for i in range(len(found.runs))]})
    with pytest.raises(NothingToDraw, match=message) as refusal:
        transfers(replace(found, runs=runs))
    assert "\n" not in str(refusal.value)
    with pytest.raises(ResultsError, match="no advice on a learning rate"):
        advise_rates(replace(found, runs=runs), 64)


def test_the_advice_is_the_line_or_the_widths_own_runs() -> None:
    found = tables_of(records())
    rates = {rate.transfer.design: rate for rate in advise_rates(found, 512)}
    for design, rate in rates.items():
        assert rate.rate.estimate == pytest.approx(BEST * 32 ** DRIFT[design])
        assert rate.beyond == 4 and rate.within_reach
        assert rate.measured is None and any("4 times that of any run" in line for line in rate.doubt)
    own = {rate.transfer.design: rate for rate in advise_rates(found, 64)}
    assert all(rate.measured is not None and rate.beyond == 1 for rate in own.values())
    assert own[SP].rate.estimate == pytest.approx(BEST / 4)
    far = advise_rates(found, 1024)
    assert not any(rate.within_reach for rate in far) and headline(far)[0].startswith("No advice for width 1024")
    with pytest.raises(ResultsError, match="width 0; accepted"):
        advise_rates(found, 0)


def test_a_study_of_one_rate_says_that_no_other_was_tried() -> None:
    found = tables_of(records(seeds=(0,), rates=RATES[:1]))
    assert "0.001, that of all runs. No other was tried" in said_of_rates(found)


def test_the_table_has_a_row_for_each_width() -> None:
    table = transfer(tables_of(records()))
    assert table.data.groupby("design")["width"].apply(list).to_dict() == {SP: [*WIDTHS], MUP: [*WIDTHS]}
    assert "width^-1.00 (-1.00 to -1.00)" in table.conventions
    sp = table.data.loc[table.data["design"] == SP].set_index("width")
    assert sp.loc[128, "optimum"] == pytest.approx(BEST / 8)
    assert sp.loc[128, "transferred_loss"] == pytest.approx(loss_of(SP, 128, 0.016))
    expected = CURVATURE * (np.log(0.016 * 8 / BEST) ** 2 - np.log(0.016 / BEST) ** 2)
    assert np.log1p(sp.loc[128, "excess_percent"] / 100) == pytest.approx(expected)


def test_collected_runs_are_drawn_tabled_and_advised_on(tmp_path: Path) -> None:
    study(tmp_path / "widths", few())
    figure = CliRunner().invoke(app, ["figure", "transfer", str(tmp_path / "widths")])
    assert figure.exit_code == 0, figure.output
    files = {Path(line).suffix: Path(line) for line in figure.output.splitlines()}
    assert list(files) == [".png", ".pdf", ".csv", ".txt", ".tex"]
    drawn: Any = pd.read_csv(files[".csv"])
    assert len(drawn) == len(drawn.drop_duplicates(["design", "width", "learning_rate"])) == 16
    assert set(drawn["num_seeds"]) == {2}
    table = CliRunner().invoke(app, ["table", "transfer", str(tmp_path / "widths"), "--format", "csv"])
    assert table.exit_code == 0 and len(table.output.splitlines()) == 5
    asked = ["advise", str(tmp_path / "widths"), "--width", "64"]
    advice = CliRunner().invoke(app, [*asked, "--format", "json"])
    said = {rate["design"]: rate for rate in json.loads(advice.output)["learning_rates"]}
    assert said[SP]["learning_rate"]["estimate"] == pytest.approx(BEST / 4, rel=0.2)
    assert CliRunner().invoke(app, asked).output.startswith("Train adaln-zero")
    found = answer(Study.of(load(tmp_path / "widths")), None)
    lost = {fact.label.partition("width 16, ")[2]: fact.value for fact in found.facts}
    assert lost.keys() == {f"{SP}, beside the best of its own rates", f"{MUP}, beside the best of its own rates"}
    powers = [float(power.replace("−", "-")) for power in re.findall(r"width\^(−?[\d.]+)", found.headline)]
    assert powers == pytest.approx([-1, 0], abs=0.1)
    for more in (["--budget", "1"], ["--cluster", "local"], ["--metric", "kid"]):
        refused = CliRunner().invoke(app, [*asked, *more])
        assert refused.exit_code != 0
    with pytest.raises(ResultsError, match="the paper varies no learning rate"):
        CliRunner().invoke(app, ["advise", "published", "--width", "64"], catch_exceptions=False)
