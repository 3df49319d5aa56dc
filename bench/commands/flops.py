"""The tables of `ditbench flops`."""

from __future__ import annotations

import csv
import json
import sys
from typing import Any

from bench.commands.text_table import print_table
from bench.errors import InputError
from bench.flops import Cost, count, training_gmacs
from models import BLOCKS, list_models

CONVENTION = """
GMACs: multiply-accumulates (1e9) of one forward pass of one image, what the paper calls Gflops;
true FLOPs are twice that. Parameters include the fixed position table.
Training compute: GMACs x 3 x batch x steps (paper, Fig. 9)."""
EXCEPTION = "truncated: DiT-B/4 counts 5.566 and the paper prints 5.56, where it rounds its other rows."


def published_rows() -> list[tuple[str, str, int]]:
    """(model, block, image size): the 12 models, the other block designs at XL/2, and XL/2 at 512 px."""
    rows = [(name, "adaln-zero", 256) for name in list_models()]
    rows += [("DiT-XL/2", block, 256) for block in BLOCKS if block != "adaln-zero"]
    return [*rows, ("DiT-XL/2", "adaln-zero", 512)]


def count_all(models: list[tuple[str, str, int]]) -> list[Cost]:
    """Count every (name, block, image size).

    Raises:
        InputError: a name, block or size that is not accepted.
    """
    try:
        return [count(name, block=block, image_size=image_size) for name, block, image_size in models]
    except ValueError as error:
        raise InputError(str(error)) from None


def print_costs(costs: list[Cost], format: str, batch_size: int | None, steps: int | None) -> None:
    """One row a model, as `table`, `csv` or `json`; with batch size and steps also the training compute."""
    rows = [_row(cost, batch_size, steps) for cost in costs]
    if format == "table":
        _print_table(rows)
        print(CONVENTION)
        if any(cost.is_stated_exception for cost in costs):
            print(EXCEPTION)
    else:
        _print_data(rows, format)


def print_modules(costs: list[Cost], format: str) -> None:
    """fvcore's breakdown: one row a module. The table leaves out blocks after the first, which are all alike."""
    rows = [
        {"model": cost.name, "block": cost.block, "module": module or "(all)", "macs": macs,
         "share_percent": round(100 * macs / cost.by_module[""], 3)}
        for cost in costs
        for module, macs in cost.by_module.items()
        if format != "table" or (macs and not _is_later_block(module))
    ]  # fmt: skip
    if format == "table":
        _print_table(rows)
        print("\nblocks.0 stands for each of the blocks." + CONVENTION)
    else:
        _print_data(rows, format)


def _is_later_block(module: str) -> bool:
    parts = module.split(".")
    return parts[0] == "blocks" and len(parts) > 1 and parts[1] != "0"


def _row(cost: Cost, batch_size: int | None, steps: int | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": cost.name,
        "block": cost.block,
        "image_size": cost.image_size,
        "tokens": cost.num_tokens,
        "parameters": cost.num_parameters,
        "gmacs": round(cost.gmacs, 6),
        "paper": cost.published_gmacs,
        "agrees": _agreement(cost),
    }
    if batch_size is not None and steps is not None:
        training = training_gmacs(cost.gmacs, batch_size, steps)
        row |= {"training_gmacs": training, "training_flops": 2e9 * training}
    return row


def _agreement(cost: Cost) -> str:
    if cost.published_gmacs is None:
        return "not published"
    if cost.agrees:
        return "yes"
    return "truncated" if cost.is_stated_exception else "no"


def _print_data(rows: list[dict[str, Any]], format: str) -> None:
    if format == "json":
        print(json.dumps(rows, indent=1))
        return
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _print_table(rows: list[dict[str, Any]]) -> None:
    text = [isinstance(value, str) and column != "paper" for column, value in rows[0].items()]
    print_table(list(rows[0]), [[_cell(*item) for item in row.items()] for row in rows], text)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column == "gmacs":
        return f"{value:.3f}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and column != "image_size" else str(value)
