"""Every pair of objectives into FOLDER/pairs.csv, as `ditbench compare FOLDER --by objective --between A,B` answers it.

python results/objectives/pairs.py results/objectives
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pandas as pd

from analysis.compare.collected import collected_designs
from analysis.compare.compared import compared
from analysis.results.tables import load


def main(folder: Path) -> None:
    tables = load(folder)
    label = tables.runs["label"].str.partition(" ")[2]
    names = dict(zip(tables.runs["objective"], label, strict=True))
    rows = []
    for between in itertools.combinations(sorted(names), 2):
        found = compared(collected_designs({"all": tables}, "objective", between=between)).to_dict()
        multiplier = found["multiplier"] or {}
        rows.append(
            {
                "better": names[found["better"]],
                "worse": names[found["worse"]],
                "distinguishable": found["distinguishable"],
                "difference": found["difference"]["estimate"],
                "difference_low": found["difference"]["low"],
                "difference_high": found["difference"]["high"],
                "multiplier": multiplier.get("estimate"),
                "multiplier_low": multiplier.get("low"),
                "multiplier_high": multiplier.get("high"),
            }
        )
    pd.DataFrame(rows).to_csv(folder / "pairs.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
