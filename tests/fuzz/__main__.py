"""Fuzz every parser and write the table.

    python tests/fuzz --examples 1000 --seed 0 --out results/fuzz

Columns of parsers.csv: parser; tried: disturbed files; read, refused: of these; faults: how many different ones (an
exception that is no refusal, by its type and place; memory beyond 2 GB; 20 s); commit of the code; seed. What broke a
parser is kept in tests/fuzz/found, and read by the tests.
"""

from __future__ import annotations

import argparse
import csv
import logging
import subprocess
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fuzzing import Tally, fuzz, keep, place
from parsers import PARSERS, Parser


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--examples", type=int, default=1000, help="files for each parser")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path("results/fuzz"))
    options.add_argument("--only", default="", help="parsers whose names contain this")
    given = options.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    rows = []
    for parser in (parser for parser in PARSERS if given.only in parser.name):
        start = time.monotonic()
        tally = _tried(parser, given.examples, given.seed)
        row = {"parser": parser.name, "tried": tally.tried, "read": tally.read, "refused": tally.refused}
        rows.append({**row, "faults": len(tally.faults), "commit": commit, "seed": given.seed})
        print(f"{row}, {len(tally.faults)} faults, {time.monotonic() - start:.0f} s", flush=True)
        for fault, message in tally.faults.items():
            print(f"  {fault}: {message}", flush=True)
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "parsers.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _tried(parser: Parser, examples: int, seed: int) -> Tally:
    tally = Tally()

    def on_fault(error: Exception, path: Path, content: bytes) -> None:
        fault = place(error)
        if fault not in tally.faults:
            tally.faults[fault] = f"{path}: {' '.join(str(error).split())[:200]}"
            keep(parser, fault, path, content)

    fuzz(parser, examples, seed, on_fault, tally)
    return tally


main()
