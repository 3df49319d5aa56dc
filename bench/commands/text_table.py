"""Plain aligned tables, as wide as they must be: a terminal that cuts a figure would show a wrong one."""

from __future__ import annotations

from bench.files.names import visible


def print_table(headings: list[str], rows: list[list[str]], left: list[bool]) -> None:
    """Print headings and rows in columns; `left` says which columns are text, the others align right."""
    lines = [[visible(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(line, widths, left, strict=True)
        )
        print("  ".join(cells).rstrip())
