"""Tables that are of published numbers alone."""

from __future__ import annotations

from collections.abc import Callable

from analysis.families.table import families
from analysis.paper.reproductions import reproductions
from analysis.paper.table_formats import Table

OF_PAPERS: dict[str, Callable[[], Table]] = {"families": families, "reproductions": reproductions}
