"""`ditbench flops` of other families: beside what is printed of them, and no longer than it takes to read."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import ditbench

from analysis.printed_gmacs import SYSTEMS, agreement, printed_system
from bench.commands.flops import parts_of
from bench.flops import count
from models import list_models
from models.registry import FAMILIES, configure
from models.unet.cost import macs_by_part

ROOT = Path(__file__).parents[2]


def rows(*arguments: object) -> list[dict[str, Any]]:
    ended = ditbench("flops", *arguments, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    return json.loads(ended.out)


def systems() -> list[dict[str, str]]:
    with SYSTEMS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_has_every_preset_beside_what_is_printed_of_it() -> None:
    found = {(row["model"], row["image_size"] or 0): row for row in rows("--all")}
    assert {model for model, _ in found} == set(list_models())
    for printed in systems():
        if printed["model"] not in list_models():
            continue
        row = found[printed["model"], int(printed["image_size"] or 0)]
        assert row["paper_parameters"] == (printed["parameters"] or None)
        assert row["paper"] == (printed["gmacs"] or None)
        said = printed["parameters"].removesuffix("M")
        # LDM's table of labels is not theirs; of STDiT see test_video_counts.
        if said.isdecimal() and not printed["model"].startswith(("LDM", "STDiT")):
            assert round(row["parameters"] / 1e6) == int(said), row["model"]
        if row["agrees"] == "no":
            assert printed["convention"] in row["reason"] and abs(row["difference_percent"]) < 10
    assert {row["agrees"] for (model, _), row in found.items() if model.startswith("ADM")} == {"yes", "not published"}


def test_the_papers_table_of_u_nets_is_among_what_is_printed() -> None:
    """Table 6 says of ADM-U what the base network and the upsampler cost together."""
    with (ROOT / "results" / "published" / "unet_table6_gmacs.csv").open(newline="") as file:
        of_paper = {(row["model"], row["image_size"]): row["gmacs"] for row in csv.DictReader(file)}
    names = {("ADM", size): f"ADM-{size}" for size in ("128", "256", "512")}
    names |= {("ADM-U", size): f"ADM-U-{size}" for size in ("256", "512")}
    names |= {(name, "256"): name for name in ("LDM-4", "LDM-8")}
    assert set(of_paper) == set(names)
    for (model, size), gmacs in of_paper.items():
        printed = printed_system(names[model, size], int(size))
        assert printed is not None and printed.gmacs == gmacs


def test_an_upsampler_is_compared_with_the_network_before_it() -> None:
    upsampler, base = rows("ADM-U-256", "ADM-64")
    assert (upsampler["paper"], upsampler["agrees"], upsampler["reason"]) == ("742", "yes", "with ADM-64")
    together = upsampler["gmacs"] + base["gmacs"]
    assert upsampler["difference_percent"] == round(100 * (together - 742) / 742, 2)
    assert agreement(upsampler["gmacs"], "ADM-U-256", "742") == "no"


def test_a_variant_is_not_what_is_printed() -> None:
    for options in (("--channels", 128), ("--image-size", 128), ("--learn-sigma", "false")):
        (row,) = rows("ADM-256", *options)
        assert (row["paper"], row["agrees"]) == (None, "not published") and "reason" not in row
    (row,) = rows("UNet-S")
    assert (row["image_size"], row["agrees"]) == (None, "not published")


def test_a_family_and_a_study_are_told_apart_by_their_case() -> None:
    assert [row["label"] for row in rows("unet")] == ["U-Net S", "U-Net B", "U-Net L", "U-Net XL"]
    ended = ditbench("flops", "UNet")
    assert ended.status == 2 and "--multipliers" in ended.err and ended.err.count("\n") == 1
    assert rows("unet-s") == rows("UNet-S")


def test_where_a_u_net_spends_it() -> None:
    modules = count("UNet-S").by_module
    parts = parts_of(modules)
    assert sum(parts.values()) == modules[""]
    assert set(parts) == {"convolutions", "attention", "embedders", "conditioning", "normalisation"}
    ours = macs_by_part(configure("UNet-S"))
    assert parts["conditioning"] == ours["timestep in residual blocks"]
    assert parts["convolutions"] == sum(macs for part, macs in ours.items() if "convolution" in part or "residual" in
                                        part or "side" in part) - ours["timestep in residual blocks"]  # fmt: skip
    printed = ditbench("flops", "UNet-S", "--by-module")
    assert printed.status == 0 and "down_blocks.0.resnets.0.conv1" in printed.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["UNet-M"], ["'UNet-M'", "UNet-S", "ADM-256"]),
        (["UNet-S", "--chanels", "8"], ["--chanels: no such option", "--channels"]),
        (["UNet-S", "--multipliers", "1,2"], ["--multipliers", "'1,2'", "list"]),
        (["UNet-S", "--multipliers", "[1,1e308]"], ["multipliers", "1e+308"]),
        (["UNet-S", "--attention", "[3]"], ["attention", "3", "8, 4, 2"]),
        (["UNet-S", "--design", "dit"], ["--design", "'dit'", "'adm'"]),
        (["LDM-8", "--image-size", "250"], ["image_size", "250", "8"]),
        (["UNet-S", "--hidden-size", "8"], ["--hidden-size: no such option"]),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], named: list[str]) -> None:
    ended = ditbench("flops", *arguments)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert [fragment for fragment in named if fragment not in ended.err] == []


def test_names_and_costs_of_all_families_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from models.registry import configure, family_of, list_models\n"
        "for name in list_models():\n"
        "    family_of(name).count(configure(name))\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert len(FAMILIES.builtin) > 1
