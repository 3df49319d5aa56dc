"""Arguments and choices that several commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Evaluate = Literal["inline", "after", "as-ready"]

RunsOption = Annotated[Path, typer.Option(help="Folder that holds a folder for every sweep.")]
SweepArgument = Annotated[
    str, typer.Argument(help="A sweep: its YAML file's path, or a shipped one's name (`ditbench sweep list`).")
]
