"""`ditbench flops --explain`: which way of counting gives a number that somebody printed."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import ditbench

from bench.commands.explain import Printed
from bench.counting.conventions import CONVENTIONS
from bench.errors import InputError
from bench.flops import counted
from models.registry import configure

TABLE = Path(__file__).parents[2] / "results" / "published" / "gflop_conventions.csv"
with TABLE.open(newline="", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))

SIZES = ("--depth", 2, "--hidden-size", 48, "--num-heads", 4, "--patch-size", 2, "--input-size", 8)
TINY = ("DiT", *SIZES)
TOLD = ("PixArt", *SIZES, "--caption-channels", 12, "--caption-tokens")


def explained(number: object, *model: object) -> list[dict[str, Any]]:
    ended = ditbench("flops", *model, "--explain", number, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    return json.loads(ended.out)


def amounts(*model: Any) -> dict[str, int]:
    """What a network of these options computes."""
    name, *words = model
    options = {
        key.removeprefix("--").replace("-", "_"): value for key, value in zip(words[::2], words[1::2], strict=True)
    }
    return dict(counted(name, configure(name, **options)).tally[""])


def as_text(count: int) -> str:
    """To the last multiply-accumulate."""
    return f"{count / 1e9:.9f}"


# What was printed


# Of PixArt's four by one count, the smallest in the fast tests.
OF_ONE_COUNT = {"PixArt d1152 L28", "PixArt d1536 L28", "PixArt d1024 L56"}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row["case"], marks=[pytest.mark.slow] if row["case"] in OF_ONE_COUNT else [])
        for row in ROWS
    ],
)
def test_every_row_of_the_table_is_explained_as_it_is_printed(row: dict[str, str]) -> None:
    rows = explained(row["printed"], row["model"], *shlex.split(row["options"]))
    keys = ("explained_by", "as_printed", "count")
    expected = [row["explained_by"], row["as_printed"], float(row["count"])]
    assert expected in [[found[key] for key in keys] for found in rows]


def test_the_table_has_every_case() -> None:
    assert {row["printed"] for row in ROWS} >= {"28.8", "139", "247", "110", "220", "118.68", "118.4"}
    assert all(row["source"] for row in ROWS)


@pytest.mark.parametrize(
    ("text", "lowest", "highest", "cut"),
    [
        ("28.8", 28_750_000_000, 28_850_000_000, 28_899_999_999),
        ("139", 138_500_000_000, 139_500_000_000, 139_999_999_999),
        ("118.64", 118_635_000_000, 118_645_000_000, 118_649_999_999),
        ("0.36", 355_000_000, 365_000_000, 369_999_999),
        ("0.000000001", 1, 1, 1),
    ],
)
def test_a_printed_number_stands_for_what_rounds_to_it_or_is_cut_to_it(
    text: str, lowest: int, highest: int, cut: int
) -> None:
    printed = Printed(text)
    assert printed.reading(lowest) == printed.reading(highest) == "rounded"
    assert printed.reading(lowest - 1) is None
    assert printed.reading(cut) == ("cut" if cut > highest else "rounded")
    assert printed.reading(cut + 1) is None


# Departures from the conventions


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_by_itself(name: str) -> None:
    count = CONVENTIONS[name].of(amounts(*TINY))
    (row,) = explained(as_text(count), *TINY)
    assert (row["explained_by"], row["as_printed"], row["difference"]) == (name, "rounded", 0.0)


def test_what_may_have_been_counted_otherwise() -> None:
    found = amounts(*TINY)
    linear, attention, softmax = found["linear"], found["attention"], found["softmax"]
    norms = found["layer_norm"] + found["layer_norm of the final layer"]
    every = {
        "paper, fused attention left out": linear + found["layer_norm"],
        "paper, softmax counted 5 times an element": linear + attention + found["layer_norm"] + 5 * softmax,
        "linear-only, all norms counted twice an element": linear + 2 * norms,
        "fvcore, fused attention counted too": linear + attention + 4 * norms,
        "linear-only, activations counted once an element": linear + found["gelu"] + found["silu"],
        "linear-only, 2 FLOPs a multiply-accumulate (or a batch of 2 for guidance)": 2 * linear,
        "linear-only, 2 FLOPs a multiply-accumulate, a batch of 2 for guidance": 4 * linear,
        "true-flops, a batch of 2 for guidance": 2 * CONVENTIONS["true-flops"].of(found),
        "matmul, all norms counted once an element, softmax counted once an element": linear + attention + norms
        + softmax,
    }  # fmt: skip
    for explanation, count in every.items():
        names = {frozenset(row["explained_by"].split(", ")) for row in explained(as_text(count), *TINY)}
        assert frozenset(explanation.split(", ")) in names, explanation


def test_a_part_may_have_been_left_out() -> None:
    """In both blocks six maps of the condition and in the final layer two: the others are the blocks'."""
    conditioning = 2 * 6 * 48**2
    count = amounts(*TINY)["linear"] - conditioning
    assert [row["explained_by"] for row in explained(as_text(count), *TINY)] == [
        "linear-only, without the conditioning"
    ]


def test_captions_may_have_been_of_another_length() -> None:
    for tokens in (77, 300):
        count = amounts(*TOLD, tokens)["linear"]
        (row,) = explained(as_text(count), *TOLD, 5)
        assert row["explained_by"] == f"linear-only, {tokens} text tokens"


def test_where_nothing_gives_it_the_closest_are_said_and_what_is_missing() -> None:
    found = amounts(*TINY)
    count = sum(found[kind] for kind in ("linear", "attention", "layer_norm"))
    rows = explained(as_text(count + 3 * found["attention"]), *TINY)
    assert {row["as_printed"] for row in rows} == {"no"}
    off = [abs(row["difference"]) for row in rows]
    assert off == sorted(off)
    rows = {row["explained_by"]: row for row in rows}
    assert rows["paper"]["difference"] == pytest.approx(-3 * found["attention"] / 1e9)
    assert rows["paper"]["about"] == "missing: 3 x products of fused attention"
    ended = ditbench("flops", *TINY, "--explain", as_text(count + 3 * found["attention"]))
    assert ended.status == 0
    assert "products of fused attention" in ended.out


# Bad input


@pytest.mark.parametrize("number", ["28.8G", "0", "0.00", "nan", "inf", "1e3", "1,120", "-5", "", "28.8.1", "1" * 12])
def test_what_is_no_printed_number_is_refused_in_one_line(number: str) -> None:
    ended = ditbench("flops", *TINY, f"--explain={number}")
    (line,) = ended.err.splitlines()
    assert (ended.status, ended.out) == (2, "")
    assert line.startswith(f"ditbench: --explain {number}")


def test_it_is_of_one_model_and_of_no_one_convention() -> None:
    for words in (
        ("DiT-S/8", "DiT-S/4"),
        (),
        ("DiT-S/8", "--convention", "matmul"),
        ("--all",),
        (*TINY, "--by-module"),
    ):
        ended = ditbench("flops", *words, "--explain", "28.8")
        (line,) = ended.err.splitlines()
        assert (ended.status, ended.out) == (2, "")
        assert line.startswith("ditbench: --explain")


def test_a_number_is_printed_with_digits() -> None:
    with pytest.raises(InputError, match="28,8"):
        Printed("28,8")
