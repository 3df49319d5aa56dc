"""What is printed of other systems: how it was come by is said, and what our count does not reach is its parts."""

from __future__ import annotations

import csv
import json

import pytest
from command_line import ditbench

from analysis import printed_gmacs
from analysis.printed_gmacs import SYSTEMS
from models.jit import JiTConfig
from models.registry import configure, family_of
from models.uvit import UViTConfig


def printed() -> dict[str, dict[str, str]]:
    with SYSTEMS.open(newline="", encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def test_every_row_says_how_it_was_come_by() -> None:
    rows = printed().values()
    assert rows and all(row["source"] and row["checked"] in ("full text", "second hand") for row in rows)


def test_what_is_second_hand_is_marked(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "systems.csv"
    text = SYSTEMS.read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("ADM-128,"))
    table.write_text(text.replace(row, row.replace("full text", "second hand")), encoding="utf-8")
    as_shipped = ditbench("flops", "ADM-128", "ADM-256").out
    assert "422M" in as_shipped and "*" not in as_shipped
    monkeypatch.setattr(printed_gmacs, "SYSTEMS", table)
    printed_gmacs._systems.cache_clear()
    try:
        shown, data = (
            ditbench("flops", "ADM-128", "ADM-256"),
            ditbench("flops", "ADM-128", "ADM-256", "--format", "json"),
        )
    finally:
        printed_gmacs._systems.cache_clear()
    assert all(mark in shown.out for mark in ("422M*", "307*", "554M ", "* second hand"))
    assert "1120*" not in shown.out
    assert [(row["paper"], row["checked"]) for row in json.loads(data.out)] == [
        ("307", "second hand"),
        ("1120", "full text"),
    ]


@pytest.mark.parametrize("model", ["JiT-G/16", "JiT-G/32"])
def test_jit_g_is_printed_without_the_maps_of_the_modulation(model: str) -> None:
    arch = configure(model)
    assert isinstance(arch, JiTConfig)
    maps = (6 * arch.depth + 2) * arch.hidden_size**2
    assert f"{(macs(model) - maps) / 1e9:.0f}" == printed()[model]["gmacs"] != f"{macs(model) / 1e9:.0f}"


@pytest.mark.parametrize("model", ["U-ViT-H/2", "U-ViT-H/4", "U-ViT-L/4"])
def test_u_vit_is_printed_with_five_for_each_element_of_a_norm(model: str) -> None:
    arch = configure(model)
    assert isinstance(arch, UViTConfig)
    elements = arch.sequence * arch.hidden_size  # that one norm makes
    theirs = macs(model) - 2 * arch.depth * elements + 5 * (2 * arch.depth + 1) * elements
    assert f"{theirs / 1e9:.1f}" == printed()[model]["gmacs"]


def macs(model: str) -> int:
    cost = family_of(model).count(configure(model))
    assert cost is not None
    return cost.macs
