"""From a ladder's results to a prediction in a file, its runs, and the verdict on them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Ended, ditbench
from ladder_runs import write_ladder, write_models, write_runs

from sweeps.expand import load_sweep

BUDGETS = (1e-10, 2e-10, 4e-10, 8e-10)
LATER = "2100-01-01T00:00:00+0000"
ADVISE = ("advise", "tiny-ladder", "--budget", 8 * BUDGETS[-1], "--law", "curves", "--reach", 8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a ladder, and next.yaml with its prediction, whose runs are still to be made."""
    home = tmp_path_factory.mktemp("ladder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_models(home)
        isoflop = [{"pf_days": budget} for budget in BUDGETS]
        path = write_ladder(home, models=["S/2", "B/2"], isoflop=isoflop, seeds=[0, 1, 2])
        assert ditbench("ladder", path, "--out", "tiny-ladder.yaml").status == 0
        write_runs(Path("tiny-ladder.yaml"), Path("runs"))
        assert ditbench("collect", "tiny-ladder.yaml").status == 0
        shutil.rmtree("runs")
        ended = ditbench(*ADVISE, "--write", "next.yaml", "--format", "json")
        assert (ended.status, ended.err) == (0, "")
        Path("said.json").write_text(ended.out)
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test's own copy."""
    here = tmp_path / "home"
    shutil.copytree(made, here)
    monkeypatch.chdir(here)
    return here


def predicted() -> dict[str, Any]:
    return json.loads(Path("next.prediction.json").read_text())


def tried(places: tuple[float, ...] = (0.2, 0.5, 0.8), started: str = LATER, **key: Any) -> list[Path]:
    """The runs of next.yaml, scored at these places of a single run's interval: 0 is its low end, 1 its high end."""
    folders = write_runs(Path("next.yaml"), Path("runs"), started, **key)
    single = predicted()["prediction"]["single_run"]
    for folder, place in zip(folders, places, strict=True):
        changed(folder, fid=single["low"] + place * (single["high"] - single["low"]))
    return folders


def changed(folder: Path, **values: Any) -> None:
    path = folder / "evals.jsonl"
    path.write_text(json.dumps(json.loads(path.read_text()) | values) + "\n")


def judged() -> dict[str, Any]:
    ended = ditbench("judge", "next.yaml", "--format", "json")
    assert ended.status == (0 if json.loads(ended.out)["verdict"] else 1), ended.err
    return json.loads(ended.out)


def refusal(*arguments: object) -> str:
    ended: Ended = ditbench(*arguments)
    assert (ended.status, ended.out) == (2, ""), ended.out
    (line,) = ended.err.splitlines()
    return line.removeprefix("ditbench: ")


def test_what_is_written_is_the_advised_model_for_longer_on_new_seeds(home: Path) -> None:
    said, sweep, ladder = (
        json.loads(Path("said.json").read_text()),
        load_sweep("next.yaml"),
        load_sweep("tiny-ladder.yaml"),
    )
    best = said["choices"][0]
    assert said["advice"] == best["model"] == predicted()["model"] and best["beyond"] == pytest.approx(8, rel=1e-3)
    assert [recipe.seed for recipe in sweep.recipes] == [3, 4, 5]
    assert predicted()["runs"] == {recipe.id: recipe.seed for recipe in sweep.recipes}
    its = [recipe for recipe in ladder.recipes if recipe.label == best["model"]]
    for recipe in sweep.recipes:
        assert recipe.train.kept_steps() == [best["steps"]]
        assert (recipe.model, recipe.data, recipe.evaluation) == (its[0].model, its[0].data, its[0].evaluation)
        assert recipe.train.cooldown_steps == pytest.approx(best["steps"] / 4, rel=2e-3)
    longest = max(recipe.train.steps for recipe in its)
    assert 8 * longest <= best["steps"] < 8 * (longest + 1)


def test_the_prediction_is_that_of_the_advice_and_names_its_tables(home: Path) -> None:
    said, written = json.loads(Path("said.json").read_text()), predicted()
    best = said["choices"][0]
    assert written["prediction"]["single_run"] == best["prediction"]["new_run"]
    assert written["prediction"]["law"] == best["prediction"]["law"]
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path("results/tiny-ladder").glob("*.parquet")
    }
    assert written["tables"] == files
    assert (written["key"]["num_samples"], written["key"]["sampler"], written["key"]["decoder"]) == (1000, "ddpm", None)


def test_runs_as_predicted_are_a_hit(home: Path) -> None:
    tried((0.01, 0.5, 0.99))
    found = judged()
    single = predicted()["prediction"]["single_run"]
    low, high = single["low"], single["high"]
    assert (found["verdict"], found["problems"], found["unknown"]) == ("hit", [], [])
    assert [(seed["seed"], seed["inside"]) for seed in found["seeds"]] == [(3, True), (4, True), (5, True)]
    assert [seed["score"] for seed in found["seeds"]] == pytest.approx([low, (low + high) / 2, high], rel=0.02)
    assert found["mean"]["score"] == pytest.approx(np.prod([seed["score"] for seed in found["seeds"]]) ** (1 / 3))
    assert found["mean"]["ratio"] == pytest.approx(found["mean"]["score"] / single["estimate"])
    assert len(found["checked"]) == 5
    # From the tables alone, when the runs are no longer here.
    shutil.rmtree("runs")
    assert judged() == found
    lines = ditbench("judge", "next.yaml").out.splitlines()
    assert lines[0].startswith("Hit: ") and [line.split()[-1] for line in lines[5:9]] == ["hit"] * 4


def test_runs_far_off_are_a_miss_of_each_seed_and_of_the_mean(home: Path) -> None:
    tried((0.5, 30.0, 50.0))
    found = judged()
    assert found["verdict"] == "miss" and found["problems"] == []
    assert [seed["inside"] for seed in found["seeds"]] == [True, False, False]
    assert found["mean"]["inside"] is False


@pytest.mark.slow  # a second each
def test_the_interval_ends_where_it_says(home: Path) -> None:
    low, high = (predicted()["prediction"]["single_run"][end] for end in ("low", "high"))
    values = (np.nextafter(low, 0), low, np.nextafter(high, np.inf))
    for folder, value in zip(tried(), values, strict=True):
        changed(folder, fid=float(value))
    assert [seed["inside"] for seed in judged()["seeds"]] == [False, True, False]


@pytest.mark.slow  # a second each
def test_a_prediction_of_losses_is_judged_by_losses(home: Path) -> None:
    command = [*ADVISE, "--metric", "loss", "--write", "by-loss.yaml"]
    assert ditbench(*command).status == 0
    written = json.loads(Path("by-loss.prediction.json").read_text())
    middle = np.mean([written["prediction"]["single_run"][end] for end in ("low", "high")])
    for folder in write_runs(Path("by-loss.yaml"), Path("runs"), LATER):
        row = json.loads((folder / "train.jsonl").read_text()) | {"loss": middle}
        (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    found = json.loads(ditbench("judge", "by-loss.yaml", "--format", "json").out)
    assert (written["key"], found["metric"], found["verdict"]) == ({}, "loss", "hit")
    assert found["mean"]["score"] == pytest.approx(middle)


def edited(change: Callable[[dict[str, Any]], Any], hashed: bool = False) -> None:
    """next.prediction.json after `change`, with a hash of what it says now or as it was."""
    content = predicted()
    change(content)
    if hashed:
        rest = {key: value for key, value in content.items() if key != "sha256"}
        content["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    Path("next.prediction.json").write_text(json.dumps(content))


def no_verdict() -> str:
    """Its one reason."""
    found = judged()
    assert found["verdict"] is None
    (problem,) = found["problems"]
    return problem


def test_a_prediction_that_was_changed_has_no_verdict(home: Path) -> None:
    tried()

    def wider(content: dict[str, Any]) -> None:
        content["prediction"]["single_run"]["high"] *= 2

    edited(wider)
    first, second = judged()["problems"]
    assert first == "next.prediction.json was changed after it was written"
    assert "the prediction is not what results/tiny-ladder gives" in second
    edited(lambda content: None, hashed=True)
    assert "the prediction is not what results/tiny-ladder gives" in no_verdict()


@pytest.mark.slow  # a second each
def test_tables_that_were_changed_or_are_gone_are_named(home: Path) -> None:
    tried()
    table = Path("results/tiny-ladder/train.parquet")
    whole = table.read_bytes()
    table.write_bytes(whole + b" ")
    assert no_verdict() == "results/tiny-ladder: train.parquet changed after the prediction was made"
    shutil.rmtree("results/tiny-ladder")
    found = judged()
    assert found["verdict"] == "hit" and found["unknown"] == [
        "whether its tables say so: results/tiny-ladder: not here"
    ]


@pytest.mark.slow  # a second each
def test_scores_of_another_key_are_no_verdict(home: Path) -> None:
    folders = tried()
    changed(folders[1], num_samples=500, guidance_scale=1.5, guidance_channels=3)
    problem = no_verdict()
    assert "seed 4 was scored otherwise" in problem
    assert "num_samples 1000, here 500" in problem and "guidance_channels None, here 3" in problem


@pytest.mark.slow  # a second each
def test_runs_from_before_the_prediction_are_no_verdict(home: Path) -> None:
    tried(started="2020-01-01T00:00:00+0000")
    assert "was started (2020-01-01T00:00:00+0000) before the prediction was made" in no_verdict()


@pytest.mark.slow  # a second each
def test_another_sweep_than_was_written_is_no_verdict(home: Path) -> None:
    tried()
    path = Path("next.yaml")
    path.write_text(path.read_text().replace("[3, 4, 5]", "[3, 4]"))
    assert no_verdict() == "next.yaml was changed after: its runs are not those of the prediction"


@pytest.mark.slow  # a second each
def test_without_all_scores_there_is_no_verdict_yet(home: Path) -> None:
    assert "no run of next there, and no results" in refusal("judge", "next.yaml")
    folders = tried()
    (folders[1] / "finished.json").unlink()
    (folders[1] / "evals.jsonl").write_text("")
    assert "seed 4" in (line := refusal("judge", "next.yaml")) and line.endswith("(unfinished)")
    (folders[1] / "error.json").write_text(json.dumps({"error": "the loss is not finite"}))
    assert "was given up" in refusal("judge", "next.yaml")
    shutil.rmtree(folders[1])
    assert "is not among the runs; needed: all 3" in refusal("judge", "next.yaml")


@pytest.mark.parametrize("fid", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_score_that_is_none_has_no_verdict(home: Path, fid: float) -> None:
    changed(tried()[2], fid=fid)
    assert "seed 5" in (line := refusal("judge", "next.yaml")) and "needed: a positive, finite score" in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content.pop("runs"), "no key 'runs'"),
        (lambda content: content.update(runs={}), "runs: none"),
        (lambda content: content.update(steps=-3), "steps is -3"),
        (lambda content: content.update(steps=True), "steps is True"),
        (lambda content: content.update(made="yesterday"), "yesterday"),
        (lambda content: content.update(question=3), "question is 3, and no mapping; accepted: what `ditbench advise"),
        (lambda content: content.update(key="fid"), "key is 'fid', and no mapping"),
        (lambda content: content.update(tables=None), "tables is None, and no mapping"),
        (lambda content: content.update(runs=[1]), "runs is [1], and no mapping"),
        (lambda content: content["prediction"].update(law=[1]), "prediction.law is [1], and no mapping"),
        (lambda content: content["question"].update(laws="curves"), "laws is 'curves', and no list"),
        (lambda content: content["question"].update(laws=["guess"]), "laws: 'guess' is none of curves"),
        (lambda content: content["prediction"]["law"].update(low=None), "prediction.law.low is None"),
        (lambda content: content["prediction"]["single_run"].update(high=float("nan")), "single_run.high is nan"),
    ],
)
def test_what_is_no_prediction_is_refused(home: Path, change: Callable[[dict[str, Any]], Any], said: str) -> None:
    edited(change)
    assert said in (line := refusal("judge", "next.yaml")) and line.startswith("next.prediction.json: ")


def test_what_cannot_be_judged_is_refused(home: Path) -> None:
    assert "`ditbench advise DATA --budget B --write SWEEP.yaml` makes it" in refusal("judge", "tiny-ladder.yaml")
    assert "no such file" in refusal("judge", "nothing.yaml")
    for content, said in (("[1", "not JSON"), ("", "not JSON"), ("3", "it is 3, and no mapping"), ("\xe9", "utf-8")):
        Path("next.prediction.json").write_text(content, encoding="latin-1")
        line = refusal("judge", "next.yaml")
        assert line.startswith("next.prediction.json: ") and said in line


@pytest.mark.slow  # a second each
def test_what_cannot_be_written_is_refused_before_anything_is(home: Path) -> None:
    before = sorted(path.name for path in home.iterdir())
    assert "next.yaml is there already" in refusal(*ADVISE, "--write", "next.yaml")
    Path("next.yaml").rename("kept")
    assert "next.prediction.json is there already" in refusal(*ADVISE, "--write", "next.yaml")
    Path("kept").rename("next.yaml")
    assert "accepted: a sweep's file, NAME.yaml" in refusal(*ADVISE, "--write", "next.json")
    assert "nothing to write. No advice" in refusal(*ADVISE[:-2], "--write", "far.yaml")
    assert "published" not in refusal(*ADVISE, "--write", "far.yaml", "--sweep", "nothing.yaml")
    assert "has no run" in refusal(*ADVISE, "--write", "far.yaml", "--sweep", "digits")
    assert "is for --write, which is missing" in refusal(*ADVISE, "--sweep", "digits")
    assert "have no runs here" in refusal("advise", "published", "--budget", 5, "--write", "far.yaml")
    assert "reach 0.5; accepted: 1 or more" in refusal(*ADVISE[:-1], 0.5)
    Path("tiny-ladder.yaml").rename("elsewhere.yaml")
    assert "needed: --sweep, its file" in refusal(*ADVISE, "--write", "far.yaml")
    Path("elsewhere.yaml").rename("tiny-ladder.yaml")
    assert sorted(path.name for path in home.iterdir()) == before
