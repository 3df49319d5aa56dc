"""`ditbench compare --by` a setting of the scores: values as a recipe or a table writes them, what is asked back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import ditbench
from run_folders import collect, evaluation, fid_of, write_lines, write_run

SEEDS = (0, 1, 2)
# What differs from the recipe's score -> the factor of its distance.
SCORED: list[tuple[dict[str, Any], float]] = [
    ({"weights": "raw"}, 1.5),
    ({"weights": "ema std=0.1", "post_hoc": 32}, 0.8),
    ({"weights": "ema decay=0.9"}, 1.2),
    ({"guidance_scale": 2.0}, 0.9),
    ({"guidance_scale": 2.0, "guidance_interval": "0.2 to 0.8"}, 0.7),
    ({"guidance_scale": 2.0, "guidance_channels": 1}, 0.95),
    ({"guidance_scale": 2.0, "guide": "step 150"}, 0.6),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    for seed in SEEDS:
        run = write_run(folder / "runs", "S/4", seed)
        rows = [evaluation("S/4", 2000, seed, **changed, fid=fid_of("S/4", 2000, seed) * f) for changed, f in SCORED]
        write_lines(run / "scores.jsonl", [{"score": f"{k:08x}", **row} for k, row in enumerate(rows)])
    collect(folder / "runs", folder / "results")
    return folder / "results"


MEAN = sum(fid_of("S/4", 2000, seed) for seed in SEEDS) / len(SEEDS)


@pytest.mark.parametrize(
    ("by", "between", "factors"),
    [
        ("ema", "std=0.1,raw", (0.8, 1.5)),
        ("ema", "raw,std=0.10", (0.8, 1.5)),
        ("weights", "ema std=0.1,ema", (0.8, 1.0)),
        ("ema", "decay=0.9,ema", (1.0, 1.2)),
        ("guidance_interval,guidance_scale", "none,1,0.2 to 0.8,2", (0.7, 1.0)),
        ("guidance_interval,guidance_scale", "null,2.0,0.20 to 0.80,2", (0.7, 0.9)),
        ("guidance_interval,guidance_scale,guidance_channels,guide", "none,2,none,none,none,2,1,none", (0.9, 0.95)),
        ("guide,guidance_scale", "step 150,2,null,2", (0.6, 0.9)),
    ],
)
def test_values_are_taken_as_recipes_and_tables_write_them(
    results: Path, by: str, between: str, factors: tuple[float, float]
) -> None:
    ended = ditbench("compare", results, "--by", by, "--between", between, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert found["means"] == pytest.approx([MEAN * factor for factor in factors])
    assert found["paired"]
    assert found["distinguishable"]
    assert found["interval"]["low"] < MEAN * (factors[1] - factors[0]) < found["interval"]["high"]


@pytest.mark.parametrize(
    ("by", "between", "said"),
    [
        ("ema", None, "--between A,B"),
        ("ema", "std=0.2,raw", "ema std=0.1"),
        ("ema", "std=0.1,ema std=0.10", "--between A,B"),
        ("guidance_interval", "none,0.3 to 0.8", "0.2 to 0.8"),
        ("emma", "std=0.1,raw", "emma"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(results: Path, by: str, between: str | None, said: str) -> None:
    ended = ditbench("compare", results, "--by", by, *(["--between", between] if between else []))
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert said in ended.err


def test_several_kinds_are_asked_for_at_once(results: Path, tmp_path: Path) -> None:
    """So that what the answer proposes is enough."""
    for seed in SEEDS:
        run = write_run(tmp_path / "runs", "S/4", seed)
        rows = [
            evaluation("S/4", 2000, seed, guidance_scale=scale, guidance_channels=channels, guidance_interval=interval)
            for scale in (2.0, 3.0)
            for channels in (1, None)
            for interval in (None, "0.2 to 0.8")
        ]
        write_lines(run / "scores.jsonl", [{"score": f"{k:08x}", **row} for k, row in enumerate(rows)])
    collect(tmp_path / "runs", tmp_path / "results")
    asked = ditbench("compare", tmp_path / "results", "--by", "guidance_interval", "--between", "none,0.2 to 0.8")
    assert asked.status == 2
    proposed = asked.err.strip().rpartition("--by ")[2]
    pair = {"guidance_interval": ("none", "0.2 to 0.8"), "guidance_scale": ("2", "2"), "guidance_channels": ("1", "1")}
    between = [",".join(pair[name][side] for name in proposed.split(",")) for side in (0, 1)]
    ended = ditbench("compare", tmp_path / "results", "--by", proposed, "--between", ",".join(between))
    assert (ended.status, ended.err) == (0, "")


def test_averages_of_runs_with_two_schedules_are_compared_within_one_or_across(tmp_path: Path) -> None:
    """Runs that were trained in several ways are no seeds of one another."""
    factors = {("constant", "raw"): 2.0, ("constant", "ema std=0.1"): 0.8, ("cooldown", "raw"): 0.5}
    factors["cooldown", "ema std=0.1"] = 0.6
    for schedule in ("constant", "cooldown"):
        for seed in SEEDS:
            run = write_run(tmp_path / schedule, "S/4", seed)
            config = yaml.safe_load((run / "config.yaml").read_text())
            config["recipe"]["train"] |= {"schedule": schedule}
            (run / "config.yaml").write_text(yaml.safe_dump(config | {"id": f"{schedule}{seed}"}))
            fid = fid_of("S/4", 2000, seed)
            rows = [
                evaluation("S/4", 2000, seed, weights=weights, fid=fid * factors[schedule, weights])
                for weights in ("raw", "ema std=0.1")
            ]
            write_lines(run / "scores.jsonl", [{"score": f"{k:08x}", **row} for k, row in enumerate(rows)])
            (tmp_path / "runs").mkdir(exist_ok=True)
            run.rename(tmp_path / "runs" / f"S-4-{schedule}{seed}")
    collect(tmp_path / "runs", tmp_path / "results")
    asked = ditbench("compare", tmp_path / "results", "--by", "ema", "--between", "raw,std=0.1")
    assert (asked.status, asked.err.count("\n")) == (2, 1)
    assert "schedule (constant, cooldown); say more: --by ema,schedule" in asked.err
    for between, means in (
        ("raw,constant,std=0.1,constant", (0.8, 2.0)),
        ("raw,cooldown,std=0.1,cooldown", (0.5, 0.6)),
        ("std=0.1,constant,std=0.10,cooldown", (0.6, 0.8)),
    ):
        arguments = ("--by", "ema,schedule", "--between", between, "--format", "json")
        ended = ditbench("compare", tmp_path / "results", *arguments)
        assert (ended.status, ended.err) == (0, "")
        assert json.loads(ended.out)["means"] == pytest.approx([MEAN * factor for factor in means])
