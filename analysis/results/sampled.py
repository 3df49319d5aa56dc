"""How samples were made, of what a score's key says: network calls, guidance, and their compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

GUIDANCE = ("guidance_channels", "guidance_interval", "guide")
"""Columns that say how was guided; all empty at a scale of 1."""


# How the field writes the samplers of the suite, in captions and reports.
SAMPLERS = {
    "ddpm": "DDPM",
    "ddim": "DDIM",
    "euler": "Euler",
    "heun": "Heun",
    "sde": "SDE",
    "dpm-solver++": "DPM-Solver++",
    "unipc": "UniPC",
}


def with_calls(evals: pd.DataFrame) -> pd.DataFrame:
    """`evals` with the network calls of earlier versions' scores, whose samplers all made one a step."""
    calls: Any = evals["network_calls"]
    return evals if calls.notna().all() else evals.assign(network_calls=calls.fillna(evals["sampling_steps"]))


def told_apart(differing: Sequence[str]) -> list[str]:
    """Of the keys in which scores differ, those that need saying: the number of calls follows from the sampler's."""
    follows = {"sampler", "sampling_steps"} & {*differing}
    return [name for name in differing if name != "network_calls" or not follows]


def steps_text(key: Mapping[Any, Any], sampler: str = "") -> str:
    """ "25 steps", "25 `sampler` steps"; "25 steps (49 network calls)" where a step is not one call."""
    text = f"{key['sampling_steps']}{sampler and f' {sampler}'} steps"
    same = pd.isna(key["network_calls"]) or key["network_calls"] == key["sampling_steps"]
    return text if same else f"{text} ({key['network_calls']} network calls)"


def sampler_text(sampler: str) -> str:
    """The name as `SAMPLERS` has it, or, of one's own, "my_file:Mine", "Mine"; and the options as they are given."""
    name, blank, options = sampler.partition(" ")
    return SAMPLERS.get(name, name.rpartition(":")[2]) + blank + options


def guidance_text(key: Mapping[Any, Any]) -> str:
    """What follows the scale: "", " on 1 channel", " on 3 channels at times 200 to 800 by step 300"."""
    channels = key["guidance_channels"]
    text = f" on {channels} channel{'' if channels == 1 else 's'}" if pd.notna(channels) else ""
    if pd.notna(key["guidance_interval"]):
        text += f" at times {key['guidance_interval']}"
    return text + (f" by {key['guide']}" if pd.notna(key["guide"]) else "")


def best_of_text(key: Mapping[Any, Any]) -> str:
    """ "best of 12" of a score that was chosen among so many; "" of one that was not."""
    return f"best of {key['best_of']}" if pd.notna(key["best_of"]) else ""


def sampling_gmacs(evals: pd.DataFrame) -> pd.Series:
    """GMACs of one sample (N,): as its row says, else, of earlier versions, of all calls, two each with guidance."""
    guided: Any = evals["guidance_scale"] != 1
    passes = evals["network_calls"].astype(float) * (1.0 + guided)
    said: Any = evals["sampling_gmacs"].astype(float)
    return said.fillna(evals["gmacs"].astype(float) * passes)
