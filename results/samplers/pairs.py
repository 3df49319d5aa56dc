"""Every pair of samplers at about as many network calls, of each objective, into FOLDER/pairs.csv.

As `ditbench compare FOLDER --by objective,sampler,sampling_steps --between A,S,N,A,T,M` answers it: over seeds.

python results/samplers/pairs.py results/samplers
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.compare.collected import collected_designs
from analysis.compare.compared import compared
from analysis.compare.one_key import by_setting
from analysis.results.tables import load

BY = "objective,sampler,sampling_steps"


def main(folder: Path) -> None:
    tables = load(folder)
    objectives = tables.runs.set_index("run")["objective"]
    evals = pd.concat([tables.evals, tables.other_evals], ignore_index=True)
    evals = evals.assign(
        objective=objectives.loc[evals["run"]].to_numpy(),
        about=(evals["network_calls"] + 1) // 5 * 5,  # 9 and 10 are one, 49 and 50
        name=evals["label"].str.partition(" ")[2],
    )
    ways: Any = evals.drop_duplicates(["objective", "sampler", "about"])
    rows = []
    for (name, about), group in ways.groupby(["name", "about"]):
        for one, two in itertools.combinations(group.to_dict("records"), 2):
            between = _called(one), _called(two)
            found = compared(collected_designs(by_setting({"all": tables}, BY, between), "source")).to_dict()
            samplers = {key: found[key].split(", ")[1] for key in ("better", "worse")}
            interval = {f"difference_{end}": found["interval"][end] for end in ("low", "high")}
            rows.append(
                {"objective": name, "calls": about, **samplers, "distinguishable": found["distinguishable"]}
                | {"difference": found["difference"], **interval}
            )
    pd.DataFrame(rows).to_csv(folder / "pairs.csv", index=False)


def _called(way: dict[Any, Any]) -> str:
    return f"{way['objective']}, {way['sampler']}, {way['sampling_steps']}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
