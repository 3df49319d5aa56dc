"""A results folder is never half new: all tables of one collection, or a refusal."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from command_line import ditbench
from run_folders import collect, config, evaluation, write_lines, write_run

from analysis.errors import ResultsError
from analysis.results import files
from analysis.results.tables import load


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}


class Killed(BaseException):
    """As a process that is killed: nothing that handles errors runs."""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Collected once into results/, and then changed: another score, and other-evals.jsonl is gone."""
    for label in ("S/4", "B/2", "B/4"):
        folder = write_run(tmp_path / "runs", label)
        write_lines(folder / "other-evals.jsonl", [evaluation(label, 500, guidance_scale=1.5)])
    collect(tmp_path / "runs", tmp_path / "results")
    for folder in (tmp_path / "runs").iterdir():
        (folder / "other-evals.jsonl").unlink()
    write_lines(folder / "evals.jsonl", [evaluation("S/4", 2000, fid=1.0)])
    return tmp_path


@pytest.mark.slow
def test_a_collection_that_is_killed_at_any_moment_leaves_the_old_tables_the_new_ones_or_a_refusal(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [content_of(sweep / "results")]
    collect(sweep / "runs", sweep / "new")
    whole.append(content_of(sweep / "new"))
    steps, seen = 0, set()
    change: dict[str, Any] = {name: getattr(Path, name) for name in ("replace", "unlink", "open")}
    change["fsync"] = os.fsync
    while True:
        left = steps

        def counted(name: str) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                mine = name == "fsync" or "killed" in str(arguments[0])
                left -= mine
                if mine and left < 0:
                    raise Killed
                return change[name](*arguments, **options)

            return call

        shutil.rmtree(sweep / "killed", ignore_errors=True)
        shutil.copytree(sweep / "results", sweep / "killed")
        with monkeypatch.context() as patched:
            for name in ("replace", "unlink", "open"):
                patched.setattr(Path, name, counted(name))
            patched.setattr(files.os, "fsync", counted("fsync"))
            try:
                collect(sweep / "runs", sweep / "killed")
                ended = True
            except Killed:
                ended = False
        found = {name: content for name, content in content_of(sweep / "killed").items() if not name.startswith(".")}
        try:
            load(sweep / "killed")
        except ResultsError as error:
            assert "collect" in str(error)
            seen.add("refused")
        else:
            seen.add(whole.index(found))
        if ended:
            break
        steps += 1
    assert steps > 20
    assert seen == {0, 1, "refused"}
    assert content_of(sweep / "killed") == whole[1]
    assert "other_evals.csv" not in whole[1]


@pytest.mark.parametrize("name", ["runs.parquet", "train.parquet", "evals.parquet", "samples.npz"])
def test_files_of_two_collections_are_refused(sweep: Path, name: str) -> None:
    old = (sweep / "results" / name).read_bytes()
    collect(sweep / "runs", sweep / "results")
    load(sweep / "results")
    (sweep / "results" / name).write_bytes(old)
    with pytest.raises(ResultsError, match="are of different collections; `ditbench collect") as caught:
        load(sweep / "results")
    assert name in str(caught.value)


def test_the_same_runs_give_the_same_bytes(sweep: Path) -> None:
    for out in ("one", "two"):
        collect(sweep / "runs", sweep / out)
    assert content_of(sweep / "one") == content_of(sweep / "two")


def test_a_full_disk_leaves_the_tables_as_they_were(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, written = content_of(sweep / "results"), []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    ended = ditbench("collect", sweep / "runs", "--out", sweep / "results")
    assert ended.status == 2
    assert "No space left on device" in ended.err
    assert content_of(sweep / "results") == before


def set_train(key: str, value: Any) -> Any:
    return lambda folder: change_config(folder, lambda content: content["recipe"]["train"].update({key: value}))


def set_recipe(key: str, value: Any) -> Any:
    return lambda folder: change_config(folder, lambda content: content["recipe"].update({key: value}))


def set_model(key: str, value: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return change


def set_line(name: str, key: str, value: Any) -> Any:
    def change(folder: Path) -> None:
        lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        write_lines(folder / name, [{key: 0.5} | lines[0], lines[1] | {key: value}, *lines[2:]])

    return change


def change_config(folder: Path, change: Any) -> None:
    content = yaml.safe_load((folder / "config.yaml").read_text())
    change(content)
    (folder / "config.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (set_line("train.jsonl", "zeta", "text"), ["train.jsonl", "'zeta'", "line 2", "'text'"]),
        (set_line("train.jsonl", "zeta", {}), ["train.jsonl", "'zeta'", "line 2", "{}"]),
        (set_line("train.jsonl", "zeta", True), ["train.jsonl", "'zeta'", "line 2", "True"]),
        (set_line("evals.jsonl", "zeta", [1]), ["evals.jsonl", "'zeta'", "line 2", "[1]"]),
        (set_line("evals.jsonl", "zeta", "\ud800"), ["evals.jsonl", "'zeta'", "line 2"]),
        (set_line("evals.jsonl", "num_samples", 2**63), ["evals.jsonl", "'num_samples'", "line 2", str(2**63)]),
        (set_line("evals.jsonl", "fid", 10**400), ["evals.jsonl", "'fid'", "line 2"]),
        (set_line("evals.jsonl", "fid", True), ["evals.jsonl", "'fid'", "line 2", "True"]),
        (set_line("evals.jsonl", "fid", "0.5"), ["evals.jsonl", "'fid'", "line 2", "'0.5'"]),
        (set_line("evals.jsonl", "sampler", 5), ["evals.jsonl", "'sampler'", "line 2", "5"]),
        (set_line("evals.jsonl", "clip_denoised", 1), ["evals.jsonl", "'clip_denoised'", "line 2", "1"]),
        (set_line("evals.jsonl", "guidance_scale", None), ["evals.jsonl", "line 2", "'guidance_scale'"]),
        (set_line("train.jsonl", "step", 150.5), ["train.jsonl", "'step'", "line 2", "150.5"]),
        (set_recipe("seed", None), ["config.yaml", "'recipe.seed'", "null"]),
        (set_recipe("seed", "first"), ["config.yaml", "'recipe.seed'", "'first'"]),
        (set_recipe("seed", 0.5), ["config.yaml", "'recipe.seed'", "0.5"]),
        (set_recipe("seed", True), ["config.yaml", "'recipe.seed'", "True"]),
        (set_recipe("seed", 2**64), ["config.yaml", "'recipe.seed'", "64 bits"]),
        (set_recipe("data", {"name": None}), ["config.yaml", "'recipe.data.name'", "null"]),
        (set_recipe("model", {"name": 4}), ["config.yaml", "'recipe.model.name'", "4"]),
        (set_recipe("model", {"name": "DiT-S/4", "block": 4}), ["config.yaml", "'recipe.model.block'", "4"]),
        (set_train("steps", "many"), ["config.yaml", "'recipe.train.steps'", "'many'"]),
        (set_train("steps", None), ["config.yaml", "'recipe.train.steps'", "null"]),
        (set_train("batch_size", [64]), ["config.yaml", "'recipe.train.batch_size'", "[64]"]),
        (set_train("learning_rate", "auto"), ["config.yaml", "'recipe.train.learning_rate'", "'auto'"]),
        (set_train("ema_decay", {}), ["config.yaml", "'recipe.train.ema_decay'", "{}"]),
        (set_model("patch_size", 2.5), ["model.json", "'patch_size'", "2.5"]),
        (set_model("gmacs", None), ["model.json", "'gmacs'", "null"]),
        (set_model("gmacs", 0), ["model.json", "'gmacs'", "is 0"]),
        (set_train("batch_size", -64), ["config.yaml", "'recipe.train.batch_size'", "-64"]),
        (set_model("params", 1.5), ["model.json", "'params'", "1.5"]),
        (set_model("block", ["adaln"]), ["model.json", "'block'", "['adaln']"]),
        (set_model("metrics", [1]), ["model.json", "'metrics'"]),
    ],
)
def test_a_value_of_another_type_is_named_and_nothing_is_written(tmp_path: Path, change: Any, named: list[str]) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    change(folder)
    ended = ditbench("collect", tmp_path / "runs", "--out", tmp_path / "results")
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    for part in (str(folder), *named):
        assert part in ended.err
    assert not (tmp_path / "results").exists()


def test_a_field_that_is_text_in_one_run_and_a_number_in_another_is_named_with_both(sweep: Path) -> None:
    before = content_of(sweep / "results")
    first, second, third = sorted((sweep / "runs").iterdir())
    write_lines(first / "train.jsonl", [{"step": 100, "loss": 1.0, "zeta": 1}])
    write_lines(second / "train.jsonl", [{"step": 100, "loss": 1.0, "zeta": None}])
    write_lines(third / "train.jsonl", [{"step": 100, "loss": 1.0, "zeta": "one"}])
    ended = ditbench("collect", sweep / "runs", "--out", sweep / "results")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    for part in (str(first / "train.jsonl"), str(third / "train.jsonl"), "'zeta'"):
        assert part in ended.err
    assert content_of(sweep / "results") == before


def test_a_field_that_is_whole_in_one_run_is_a_number_in_all(sweep: Path) -> None:
    first, second, _ = sorted((sweep / "runs").iterdir())
    write_lines(first / "train.jsonl", [{"step": 100, "loss": 1, "zeta": 1, "big": 2**62 + 1}])
    write_lines(second / "train.jsonl", [{"step": 100, "loss": 1.0, "zeta": 0.5}])
    collect(sweep / "runs", sweep / "results")
    train = load(sweep / "results").train
    assert train["zeta"].dropna().tolist() == [1.0, 0.5] or train["zeta"].dropna().tolist() == [0.5, 1.0]
    assert train["big"].dropna().tolist() == [2**62 + 1]


@pytest.mark.parametrize(
    ("written", "steps"), [("4e5", 400_000), ("400000.0", 400_000), ("4.0e+5", 400_000), ("400_000", 400_000)]
)
def test_steps_can_be_written_in_any_way_of_a_number(tmp_path: Path, written: str, steps: int) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("steps: 2000", f"steps: {written}"))
    assert collect(tmp_path / "runs", tmp_path / "results").runs["steps"].tolist() == [steps]


@pytest.mark.parametrize(
    ("written", "label"),
    [("null", "S/4"), ("''", "S/4"), ("1e5", "1e5"), ("007", "007"), ("NO", "NO"), ("2024-01-01", "2024-01-01")],
)
def test_a_label_is_text_and_null_is_none(tmp_path: Path, written: str, label: str) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("label: S/4", f"label: {written}"))
    collect(tmp_path / "runs", tmp_path / "results")
    assert load(tmp_path / "results").runs["label"].tolist() == [label]


def test_a_block_of_null_is_what_the_model_says(tmp_path: Path) -> None:
    for label in ("S/4", "B/4"):
        folder = write_run(tmp_path / "runs", label)
        set_recipe("model", config(label)["recipe"]["model"] | {"block": None})(folder)
        set_model("block", "adaln-zero")(folder)
    set_model("block", None)(folder)
    runs = collect(tmp_path / "runs", tmp_path / "results").runs
    assert sorted(runs["block"]) == ["", "adaln-zero"]
    assert sorted(load(tmp_path / "results").evals["block"].unique()) == ["", "adaln-zero"]
    assert pd.read_parquet(tmp_path / "results" / "runs.parquet")["block"].notna().to_numpy().all()


def test_a_sweep_whose_folder_is_not_utf8(tmp_path: Path) -> None:
    sweep, out = (tmp_path / os.fsdecode(name) for name in (b"caf\xe9", b"res\xe9"))
    write_run(sweep, "S/4")
    collect(sweep, out)
    assert load(out).runs["sweep"].tolist() == ["caf\\xe9"]
