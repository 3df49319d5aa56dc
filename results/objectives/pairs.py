"""Every pair of objectives into FOLDER/pairs.csv, as `ditbench compare` answers it.

At equal compute, by a law through all networks (FOLDER --by objective --between A,B), and of the network that is scored
best alone (FOLDER --between "B/2 A,B/2 B"): the difference of the means, which is `difference_b2`.

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
        better, worse = names[found["better"]], names[found["worse"]]
        at_b2 = compared(
            collected_designs({"all": tables}, "label", between=(f"B/2 {better}", f"B/2 {worse}"))
        ).to_dict()
        sign = 1 if at_b2["worse"] == f"B/2 {worse}" else -1
        ends = sorted(sign * at_b2["interval"][end] for end in ("low", "high"))
        rows.append(
            {
                "better": better,
                "worse": worse,
                "distinguishable": found["distinguishable"],
                "difference": found["difference"]["estimate"],
                "difference_low": found["difference"]["low"],
                "difference_high": found["difference"]["high"],
                "multiplier": multiplier.get("estimate"),
                "multiplier_low": multiplier.get("low"),
                "multiplier_high": multiplier.get("high"),
                "distinguishable_b2": at_b2["distinguishable"],
                "difference_b2": sign * at_b2["difference"],
                "difference_b2_low": ends[0],
                "difference_b2_high": ends[1],
            }
        )
    pd.DataFrame(rows).to_csv(folder / "pairs.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
