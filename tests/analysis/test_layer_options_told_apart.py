"""Networks that differ in the options of their layers are other designs to tables and comparisons, not other seeds."""

from __future__ import annotations

import json
from pathlib import Path

from run_folders import LABELS, collect, write_run

from analysis.compare.collected import collected_designs
from models.registry import configure


def test_runs_with_and_without_an_option_are_two_designs(tmp_path: Path) -> None:
    """config.yaml has the same block design of both; what model.json says of the network decides."""
    with_option = configure("DiT-S/2", qk_norm=True).columns["block"]
    for label in LABELS[:3]:
        for seed in (0, 1):
            folder = write_run(tmp_path / "runs", label, seed)
            model = json.loads((folder / "model.json").read_text())
            model["block"] = with_option if seed else configure("DiT-S/2").columns["block"]
            (folder / "model.json").write_text(json.dumps(model))
    collected = collect(tmp_path / "runs", tmp_path / "results")
    assert collected.runs.groupby("block").size().to_dict() == {"adaln-zero": 3, "adaln-zero qk_norm": 3}
    assert set(collected_designs({"results": collected})) == {"adaln-zero", "adaln-zero qk_norm"}


def test_a_run_of_a_version_without_the_block_in_its_model_has_the_recipes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "S/2")
    model = json.loads((folder / "model.json").read_text())
    model.pop("block", None)
    (folder / "model.json").write_text(json.dumps(model))
    assert collect(tmp_path / "runs", tmp_path / "results").runs["block"].tolist() == ["adaln-zero"]


def test_the_text_has_what_is_not_default() -> None:
    texts = [
        configure("DiT-S/2", **options).columns["block"]
        for options in (
            {"norm": "layer", "class_tokens": 0},
            {"block": "adaln", "positions": "both", "mlp": "swiglu"},
            {"class_tokens": 8, "class_tokens_start": 4, "patch_bottleneck": 16},
        )
    ]
    assert texts == [
        "adaln-zero",
        "adaln mlp=swiglu positions=both",
        "adaln-zero patch_bottleneck=16 class_tokens=8 class_tokens_start=4",
    ]
