"""Data by name, the same in every command: the papers' tables, a results folder, or one of those in results/.

No pandas: the command line's help stays instant.
"""

from __future__ import annotations

from pathlib import Path

from analysis.errors import ResultsError

PUBLISHED = "published"
HOME = Path("results")  # where `ditbench collect` puts a sweep's tables
ACCEPTED = f"{PUBLISHED} (the papers' tables), a folder that `ditbench collect` made, or its name in {HOME}/"


def results_folder(name: str) -> Path | None:
    """The folder that `name` stands for; None for `published`, which is the papers' tables wherever one is.

    A folder that is called published has to be given as ./published. A bare name is the folder of that name here or,
    where there is none that holds results, the one in results/.

    Raises:
        ResultsError: there are no results, with what is there instead.
    """
    if name == PUBLISHED:
        return None
    folder = Path(name)
    if name and _holds_results(folder):
        return folder
    if len(folder.parts) == 1 and _holds_results(HOME / name):
        return HOME / name
    raise ResultsError(f"{name or repr(name)}: {_instead(folder) if name else 'no name'}")


def csv_file(name: str, has_columns: bool) -> Path | None:
    """The CSV that `name` is; None of results. Those of a results folder are its own, unless their columns are named.

    Raises:
        ResultsError: there is no such file.
    """
    path = Path(name)
    is_csv = path.suffix.lower() == ".csv"
    if path.is_file():
        return path if has_columns or (is_csv and not _holds_results(path.parent)) else None
    if is_csv and not path.exists():
        raise ResultsError(f"{name}: no such file")
    return None


def _holds_results(folder: Path) -> bool:
    """Also where a collection was stopped half-way, which whoever reads the tables will say."""
    return any((folder / f"{name}.parquet").is_file() for name in ("runs", "evals"))


def _instead(path: Path) -> str:
    if (path / "config.yaml").is_file():
        return f"is one run; `ditbench collect {path.parent}` makes results of all runs there"
    if any(path.glob("*/config.yaml")):
        return f"holds runs and no results; `ditbench collect {path}` makes {HOME / path.resolve().name} of them"
    if (path / "dit_table4.csv").is_file():
        return f"holds the papers' tables; accepted: the word {PUBLISHED}"
    if path.is_file():
        return f"is a file; accepted: {f'its folder, {path.parent}' if _holds_results(path.parent) else ACCEPTED}"
    if path.is_dir():
        return f"holds no results: runs.parquet is missing; `ditbench collect RUNS/SWEEP --out {path}` makes it"
    known = sorted(folder.name for folder in HOME.glob("*/") if _holds_results(folder))
    here = f"; {HOME}/ has {', '.join(known)}" if known else ""
    return f"no such results, runs.parquet is missing; accepted: {ACCEPTED}{here}"
