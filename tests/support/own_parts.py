"""Small parts of a user's own, and a study in which they train in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from recipes import TINY

from sweeps.own import study as own_study

BLOCK = """\
import torch
from torch import nn
from models.blocks import AdaLNFinalLayer, SumCondition
from models.designs import BlockDesign

class Mean(nn.Module):
    calls = 0

    def __init__(self, dim, num_heads, mlp_ratio):
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(dim, 8 * dim), nn.GELU(), nn.Linear(8 * dim, dim))

    def forward(self, x, c):
        mean = self.mix(x + c.unsqueeze(1))
        return x + mean

MEAN = BlockDesign(SumCondition, Mean, AdaLNFinalLayer)
"""
OBJECTIVE = """\
from bench.objectives.iddpm import IDDPM

class Half(IDDPM):
    columns = ("loss",)

    def losses(self, network, x0, labels, drawn):
        losses = super().losses(network, x0, labels, drawn)
        return {"loss": losses["loss"] / 2}
"""
FAMILY = """\
from dataclasses import replace
from models.dit import FAMILY as DIT
from models.transformer import DiT

class Net(DiT):
    def forward(self, x, t, y):
        out = super().forward(x, t, y)
        return out

def preset(width):
    return {"hidden_size": width, "depth": 1, "num_heads": 2, "patch_size": 4}

FAMILY = replace(DIT, presets={str(w): preset(w) for w in (12, 16, 20, 24, 64)}, build=Net)
"""


def small_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `ditbench try` train three tiny sizes for a few steps."""
    template = yaml.safe_load(own_study.TEMPLATE.read_text(encoding="utf-8"))
    template["base"] = {key: value for key, value in TINY.items() if key != "label"}
    template["product"]["size"] = {
        size: {"model.hidden_size": width} for size, width in (("S", 12), ("B", 16), ("L", 24))
    }
    path = folder / "template.yaml"
    path.write_text(yaml.safe_dump(template, sort_keys=False), encoding="utf-8")
    monkeypatch.setattr(own_study, "TEMPLATE", path)
