"""`ditbench perf train` and `perf sample`: turns, table, shares, and verdicts against an earlier run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import ditbench
from recipes import tiny

from bench.errors import InputError, RunError
from bench.perf import document as documents
from bench.perf import race
from bench.perf.document import setting_of
from bench.perf.entrant import serving
from bench.perf.race import Conditions, table
from bench.perf.verdict import verdicts

CONDITIONS = {"kind": "train", "device": "cpu x86_64", "precision": "fp32", "threads": 2}


def document(ours: list[list[float]], plain: list[list[float]], **changes: Any) -> dict[str, Any]:
    """A race of one setting: 10 images at a time of 30 GMACs each, on a machine of 1,000 GFLOP/s."""
    setting = {"model": "DiT-S/8", "batch_size": 10, "gmacs_an_image": 30.0, "parameters": 7}
    seconds = {"ours": ours, "plain": plain}
    rows = [
        {**setting, "contender": name, "seconds": rounds, "peak_bytes": [k * 1e9 for k in range(1, len(rounds) + 1)]}
        for name, rounds in seconds.items()
    ]
    return {**CONDITIONS, "matmul_size": 4096, "matmul_gflops": [900.0, 1000.0, 1100.0], "rows": rows, **changes}


def noisy(seed: int, ours: float = 1.0, machine: float = 1.0, rounds: int = 4) -> dict[str, Any]:
    """Steps that differ by 1 % within a round, rounds that differ by 10 % for both, `ours` times as long as plain's."""
    random = np.random.default_rng(seed)
    load = machine * np.exp(0.1 * random.standard_normal((rounds, 1)))
    times = load * np.exp(0.01 * random.standard_normal((2, rounds, 2)))
    return document((ours * times[0]).tolist(), times[1].tolist())


def word(now: dict[str, Any], before: dict[str, Any]) -> str:
    (verdict,) = verdicts(now, before)
    return verdict.word


def test_a_row_has_medians_quartiles_and_the_share_of_the_machines_own_rate() -> None:
    ours, plain = table(document([[1.0, 2.0], [3.0, 4.0], [5.0, 5.0]], [[7.0], [7.0], [7.0]]))
    assert float(ours["median_s"]) == 3.5 and float(ours["q1_s"]) == 2.25 and float(ours["q3_s"]) == 4.75
    assert float(plain["images/s"]) == pytest.approx(10 / 7, rel=1e-3)
    assert (float(ours["ours/this"]), float(plain["ours/this"])) == (1.0, 0.5)
    assert plain["share"] == f"{2 * 30 * 10 / 7 / 1000:.1%}"
    assert ours["peak_gb"] == "3.00"


def test_a_tenth_faster_is_better_and_a_tenth_slower_worse_whatever_the_machine_does() -> None:
    assert word(noisy(0, ours=0.9), noisy(1)) == "better"
    assert word(noisy(2, ours=0.9, machine=3.0), noisy(3)) == "better"
    assert word(noisy(4, ours=1.1), noisy(5)) == "worse"


def test_the_same_code_is_hardly_ever_told_apart() -> None:
    told = [word(noisy(2 * seed), noisy(2 * seed + 1)) for seed in range(200)]
    assert told.count("not distinguishable") >= 180


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="precision"):
        verdicts(noisy(0), {**noisy(1), "precision": "bf16"})
    with pytest.raises(InputError, match="round"):
        verdicts(noisy(0), noisy(1, rounds=1))
    with pytest.raises(InputError, match="S/8"):
        verdicts({**noisy(0), "rows": noisy(0)["rows"][:1]}, noisy(1))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--model", "DiT-S/8"], "--batch-size"),
        (["train", "--model", "U-ViT-S/2", "--batch-size", "1"], "U-ViT-S/2"),
        (["train", "--contenders", "ours,theirs"], "theirs"),
        (["train", "--against", "nowhere.json"], "nowhere.json"),
        (["train", "--sweep", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--sweep", "digits", "--model", "DiT-S/8", "--batch-size", "1"], "--model"),
        (["train", "--sweep", "digits", "--contenders", "ours,diffusers"], "frequency_embedding_size"),
        (["train", "--sweep", "unet", "--contenders", "ours,plain"], "plain"),
        (["sample", "--sampler", "ddpm"], "ours,plain"),
        (["sample", "--sampler", "heun"], "heun"),
    ],
)
def test_what_was_given_wrongly_is_said_in_one_line(arguments: list[str], named: str) -> None:
    ended = ditbench("perf", *arguments)
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    assert named in line


@pytest.mark.slow
def test_a_contender_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(documents.MATMUL_SIZE, "cpu", 64)
    conditions = Conditions("train", ("diffusers",), "cpu", "fp32", rounds=1, repeats=1)
    with pytest.raises(RunError, match="cross-attention"):  # which diffusers' class has not
        race.race([tiny(model={"block": "cross-attention"})], conditions, lambda line: None)
    with pytest.raises(RunError, match="nobody"), serving("nobody"):
        pass


@pytest.mark.slow
def test_models_of_a_sweep_with_and_without_what_makes_ours_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(documents.MATMUL_SIZE, "cpu", 64)
    names = ("ours", "ours-mkl", "ours-glibc", "plain")
    few = ["--rounds", "1", "--steps", "1", "--contenders", ",".join(names)]
    sizes = {"S": {"model.hidden_size": 24, "model.depth": 3, "model.num_heads": 2}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"name": "s", "extends": "digits", "product": {"size": sizes}}))
    ended = ditbench("perf", "train", "--sweep", tmp_path / "s.yaml", *few, "--out", tmp_path)
    assert ended.status == 0, ended.err
    rows = json.loads((tmp_path / "train.json").read_text())["rows"]
    settings = [setting_of(row) for row in rows]
    assert [*dict.fromkeys(settings)] == ["S/4 b32", "S/2 b32", "S/1 b32"] and len(settings) == 4 * 3
    assert [row["contender"] for row in rows[:4]] == [*names]
    assert len({row["parameters"] for row in rows[:4]}) == 1


@pytest.mark.slow
def test_the_commands_write_what_they_measured_and_judge_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(documents.MATMUL_SIZE, "cpu", 64)
    small = ["--model", "DiT-S/8", "--batch-size", "1", "--rounds", "2"]
    train = ["perf", "train", *small, "--contenders", "ours,plain", "--steps", "3"]
    ended = ditbench(*train, "--out", tmp_path)
    assert ended.status == 0, ended.err
    turns = [name for line in ended.err.splitlines() for name in ("ours", "plain") if f" {name} " in line]
    assert turns == ["ours", "plain", "plain", "ours"]
    first = json.loads((tmp_path / "train.json").read_text())
    ours, plain = first["rows"]
    assert (ours["contender"], plain["contender"]) == ("ours", "plain")
    assert ours["parameters"] == plain["parameters"]
    for row in (ours, plain):
        assert np.shape(row["seconds"]) == (2, 3) and np.shape(row["peak_bytes"]) == (2,)
    ended = ditbench(*train, "--against", tmp_path / "train.json", "--out", tmp_path / "again")
    assert ended.status == 0, ended.err
    assert any(word in ended.out for word in ("better", "worse", "not distinguishable"))
    assert json.loads((tmp_path / "train.json").read_text()) == first
    ended = ditbench("perf", "sample", *small, "--contenders", "plain", "--steps", "2", "--out", tmp_path)
    assert ended.status == 0, ended.err
    (row,) = json.loads((tmp_path / "sample.json").read_text())["rows"]
    # Two steps, each of two network calls.
    assert row["gmacs_an_image"] == pytest.approx(4 / 3 * ours["gmacs_an_image"])
