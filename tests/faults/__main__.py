"""Disturb every command in every way, run it again, and count what was lost.

    python tests/faults --seed 0 --kills 200 --others 10 --out results/faults

Trainer, scorer, sampler, collector, encoder and both launchers are killed, lose power, find the disk full or the folder
read-only, see the clock jump, and meet another process at the same work. Afterwards the same command must end as if
nothing had been, bit for bit. Every case has random numbers of its own: the same seed, the same instants (those after a
time depend on the machine too). Writes cases.csv, a line for each case, and faults.csv, one for each command and
fault; exit status 1 if a case went wrong. Root fills a small disk; for others a limit on files' sizes stands for it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"  # before anything is imported: a process is forked hundreds of times
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "support"), str(TESTS / "bench")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=200, help="at least so many in all, spread over the commands")
    parser.add_argument(
        "--others",
        type=int,
        default=10,
        help="cases of every other fault for every command; fewer where a case takes long",
    )
    parser.add_argument("--only", default="", help="commands and faults with this in their name: trainer/kill")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument("--out", type=Path, help="a folder for cases.csv and faults.csv")
    parser.add_argument("--keep", type=Path, help="work here, and leave it")
    given = parser.parse_args()

    from all_cases import run_all, write_tables

    home = given.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    results = run_all(home, given.seed, given.kills, given.others, given.only, given.workers)
    if given.out:
        write_tables(results, given.out)
    wrong = [result for result in results if not result.survived]
    for result in wrong:
        print(f"{result.seed}: {result.what}: {result.why}")
    injected = sum(result.injected for result in results)
    print(f"{injected} faults in {len(results)} cases, {injected - len(wrong)} survived")
    if not wrong and not given.keep:
        import shutil

        shutil.rmtree(home)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
