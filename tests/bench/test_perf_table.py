"""`ditbench perf`: turns, documents, the table of all, and verdicts against earlier documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import ditbench

import ditbench_perf
from bench.errors import InputError
from bench.perf import document as documents
from bench.perf.document import lines, read_document, table
from bench.perf.inception import inception_features
from bench.perf.latents import latents_read
from bench.perf.turns import Measure, measured, timed
from bench.perf.verdict import verdicts

RESULTS = Path(__file__).parents[2] / "results" / "perf"


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(documents.MATMUL_SIZE, "cpu", 32)


def taking(seconds: dict[str, list[float]], **options: Any) -> Measure:
    """A measure whose contenders take these seconds, round by round; the first is dropped."""
    rounds = iter(zip(*seconds.values(), strict=True))
    return Measure("read", lambda _: dict(zip(seconds, next(rounds), strict=True)), **options)


def of(seconds: dict[str, list[float]], kind: str = "data", **options: Any) -> dict[str, Any]:
    rounds = len(next(iter(seconds.values()))) - 1
    return measured(kind, [taking(seconds, **options)], rounds, lambda line: None)


def noisy(seed: int, ours: float = 1.0, machine: float = 1.0) -> dict[str, list[float]]:
    """Rounds that differ by 10 % for both, `ours` times as long as the other's."""
    random = np.random.default_rng(seed)
    load = machine * np.exp(0.1 * random.standard_normal(6))
    times = load * np.exp(0.01 * random.standard_normal((2, 6)))
    return {"ours": (ours * times[0]).tolist(), "copy": times[1].tolist()}


def test_contenders_take_turns_and_each_is_timed_once_a_round() -> None:
    called: list[str] = []
    ways: dict[str, Callable[[], object]] = {name: lambda name=name: called.append(name) for name in ("ours", "b", "c")}
    turn = timed(ways)
    for number in range(3):
        assert [*turn(number)] == ["ours", "b", "c"]
    assert called == ["ours", "b", "c", "b", "c", "ours", "c", "ours", "b"]


def test_a_document_survives_json_and_its_lines_have_medians_quartiles_ratios_and_targets() -> None:
    seconds = {"ours": [99.0, 1.0, 2.0, 4.0], "copy": [99.0, 4.0, 4.0, 5.0], "other": [99.0, 1.0, 1.0, 1.0]}
    found = of(seconds, items=8, unit="latents", targets={"copy": 0.5, "other": 1.5}, facts={"copy": {"difference": 0}})
    assert json.loads(json.dumps(found)) == found
    assert found["rows"][1]["difference"] == 0
    assert [len(row["seconds"]) for row in found["rows"]] == [3, 3, 3]
    assert len(found["matmul_gflops"]) == 3 * documents.MATMUL_REPEATS
    copy, other = lines(found)
    assert (copy["measure"], copy["what"], copy["alternative"], copy["unit"]) == ("data", "read", "copy", "latents/s")
    assert (copy["ours"], copy["q1"], copy["q3"]) == (8 / 2, 8 / 3, 8 / 1.5)
    assert (copy["ratio"], copy["met"], other["ratio"], other["met"]) == (0.5, True, 2.0, False)
    alone = of({"ours": [9.0, 1.0, 2.0, 4.0]}, kind="launch", targets={"ours": 1.5})
    (line,) = lines(alone)
    assert (line["ours"], line["unit"], line["alternative"], line["ratio"], line["met"]) == (
        2.0,
        "s",
        None,
        None,
        False,
    )
    printed = table([found, alone])
    assert [row["target"] for row in printed] == ["0.5, met", "1.5, missed", "1.5, missed"]
    assert [row["ratio"] for row in printed] == ["0.500", "2.000", ""]


def test_better_worse_or_not_distinguishable_whatever_the_machine_does() -> None:
    words = [
        verdicts(of(noisy(seed, ours, machine)), of(noisy(seed + 1)))[0].word
        for seed, ours, machine in ((0, 0.8, 1.0), (2, 0.8, 3.0), (4, 1.3, 1.0))
    ]
    assert words == ["better", "better", "worse"]
    told = [verdicts(of(noisy(2 * seed)), of(noisy(2 * seed + 1)))[0].word for seed in range(40)]
    assert told.count("not distinguishable") >= 34


def test_what_has_no_alternative_is_compared_on_one_machine_alone() -> None:
    now, before = (of({"ours": [9.0, *seconds]}) for seconds in ([1.0, 1.1, 1.0], [2.0, 2.1, 2.0]))
    (verdict,) = verdicts(now, before)
    assert (verdict.against, verdict.word) == ("itself", "better")
    with pytest.raises(InputError, match="the machine is A Chip, 3 cores there"):
        verdicts(now, {**before, "machine": "A Chip, 3 cores"})
    # Beside an alternative, ours is judged by it, on whatever machine.
    assert verdicts(of(noisy(0)), {**of(noisy(1)), "machine": "A Chip, 3 cores"})


def test_documents_of_other_conditions_are_refused() -> None:
    now = of(noisy(0))
    for key, other in (("threads", 1000), ("device", "cpu riscv64"), ("kind", "launch")):
        with pytest.raises(InputError, match=f"{key} is {other} there"):
            verdicts(now, {**of(noisy(1)), key: other})
    with pytest.raises(InputError, match="1 round;"):
        verdicts(of({"ours": [9.0, 1.0]}), of({"ours": [9.0, 1.0]}))
    with pytest.raises(InputError, match="no setting of ours in common; it has write"):
        rows = [{**row, "what": "write"} for row in now["rows"]]
        verdicts(now, {**now, "rows": rows})


@pytest.mark.parametrize("content", ["", "[]", '{"kind": "data", "rows": []}'])
def test_a_file_that_is_no_document_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(InputError, match=r"data\.json: (cannot be read|measured nothing)"):
        read_document(tmp_path / "data.json", "data")


def test_a_file_of_another_measure_is_refused_before_anything_is_measured() -> None:
    ended = ditbench("perf", "scores", "--against", RESULTS / "train.json")
    assert ended.status == 2
    (line,) = ended.err.splitlines()
    assert line.endswith("train.json: of perf train; accepted: a JSON file of perf scores")


def test_all_writes_a_file_each_prints_one_table_and_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = noisy(0)
    made = {kind: lambda rounds, kind=kind: of(seconds, kind) for kind in ("scores", "data")}
    monkeypatch.setattr(ditbench_perf, "MEASURED", made)
    first = ditbench("perf", "all", "--out", tmp_path / "a")
    assert first.status == 0, first.err
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"scores.json", "data.json"}
    assert [line.split()[0] for line in first.out.splitlines()[:3]] == ["measure", "scores", "data"]
    again = ditbench("perf", "all", "--out", tmp_path / "b", "--against", tmp_path / "a")
    assert again.status == 0, again.err
    assert again.out.count("not distinguishable") == 2
    assert ditbench("perf", "all", "--out", tmp_path / "b", "--against", tmp_path / "none").status == 2


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_committed_documents_are_lines_of_the_table(path: Path) -> None:
    found = read_document(path, path.stem)
    assert all(row["measure"] == path.stem and float(row["ours"]) > 0 for row in table([found]))


def test_latents_are_read_by_all_and_as_many(tmp_path: Path) -> None:
    measure = latents_read(tmp_path, latents=512, batch_size=256)
    assert measure.items == 512
    assert {*measure.turn(0)} == {"ours", "plain copy", "shuffled copy"}


def test_inceptions_features_are_torch_fidelitys_where_they_are_timed(tmp_path: Path) -> None:
    measure = inception_features(tmp_path, torch.device("cpu"), batch_size=1, image_size=32)
    assert {*measure.turn(0)} == {"ours", "torch-fidelity"}
    assert measure.facts["torch-fidelity"]["difference"] < 1e-5
