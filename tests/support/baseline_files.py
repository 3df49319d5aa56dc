"""baselines.csv beside the made-up scores of `run_folders`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from run_folders import evaluation

from analysis.results.files import write_csv

FID = {"gaussian": 30.0, "gaussian-full": 12.0, "real-halves": 3.5, "real": 4.1}
SIZES = {"gaussian": (1000, 1797), "gaussian-full": (1000, 1797), "real-halves": (898, 899), "real": (1000, 1797)}
_EVALUATION = evaluation("S/4", 500)
ROWS: list[dict[str, Any]] = [
    {
        "baseline": name,
        "data": "digits",
        **{key: _EVALUATION[key] for key in ("num_samples", "labels", "reference", "extractor", "kid_subset_size")},
        **dict(zip(("images", "against"), SIZES[name], strict=True)),
        "draws": 5,
        "seed": 0,
        "fid": fid,
        "fid_min": fid - 0.2,
        "fid_max": fid + 0.2,
        "fid_percent": fid / 5,
        "fid_percent_min": fid / 5 - 0.04,
        "fid_percent_max": fid / 5 + 0.04,
    }
    for name, fid in FID.items()
]


def write_baselines(folder: Path, rows: list[dict[str, Any]] | None = None, **changed: Any) -> Path:
    """Into `folder`, by default `ROWS`, with what is `changed` in all of them."""
    return write_csv(folder / "baselines.csv", pd.DataFrame(rows or ROWS).assign(**changed))
