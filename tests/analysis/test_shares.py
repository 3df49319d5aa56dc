"""The picture of where a model's multiply-accumulates go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.results.csv_text import read_csv
from analysis.shares import COLOURS, OTHERS, draw_shares


def rows(models: list[str], parts: list[str]) -> list[dict[str, Any]]:
    total = sum(range(1, len(parts) + 1))
    return [
        {"model": model, "part": part, "gmacs": 0.1 * share, "share_percent": 100 * share / total}
        for model in models
        for share, part in enumerate(parts, start=1)
    ]


@pytest.mark.parametrize(
    ("models", "parts"),
    [
        (["DiT-XL/2"], list(COLOURS)),
        (["a", "b"], [f"part {i}" for i in range(3 * len(OTHERS))]),  # more than there are colours
        (["x" * 200, "$x_1$", "two\nlines", "=1+1", "\x1b[31m"], ["attention", "y" * 200, "$y$", "other"]),
    ],
)
def test_data_hold_what_is_drawn_and_the_same_rows_are_the_same_bytes(
    models: list[str], parts: list[str], tmp_path: Path
) -> None:
    given = rows(models, parts)
    files = draw_shares(given, tmp_path / "one", "shares")
    again = draw_shares(given, tmp_path / "two", "shares")
    assert [file.name for file in files] == [f"shares.{kind}" for kind in ("png", "pdf", "csv", "txt", "tex")]
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    types = {"model": "str", "part": "str", "gmacs": "float64", "share_percent": "float64"}
    assert read_csv(files[2], types).to_dict("records") == given
