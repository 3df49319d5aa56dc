"""The tables of `ditbench flops`: rows of numbers, and where a forward pass is spent."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench.commands.text_table import print_table
from bench.commands.variants import Variant
from bench.counting.conventions import PAPER, Convention

MEANING = """\
GMACs: multiply-accumulates (1e9) of one forward pass of one image, what the paper calls Gflops;
true FLOPs are twice that. Parameters include fixed tables of positions.
Training compute: GMACs x 3 x batch x steps (paper, Fig. 9)."""

# What people call the parts of a network, by what the modules' names begin with or contain; the first that fits.
PARTS = {
    "final layer": ("final",),
    "cross-attention": ("cross_attn", "cross_attention"),
    "attention": ("attn", "attention"),
    "MLP": ("mlp", "ffn", "feed_forward"),
    "conditioning": ("adaln", "modulation", "condition", "time_emb"),
    "embedders": ("embed",),
    "normalisation": ("norm",),
    "convolutions": ("conv",),
}
# An embedder's own MLP is the embedder's: these are looked for in the outermost module first.
OUTERMOST = ("final layer", "embedders")


def module_rows(variants: Sequence[Variant], convention: Convention = PAPER) -> list[dict[str, Any]]:
    """fvcore's breakdown: one row a module."""
    unit = "flops" if convention.in_flops else "macs"
    return [
        {**_label(variant, variants), "model": variant.name, "block": variant.block, "module": module or "(all)",
         unit: count, "share_percent": round(_percent(count, modules[""]), 3)}
        for variant in variants
        for modules in [variant.modules(convention)]
        for module, count in modules.items()
    ]  # fmt: skip


def part_rows(variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """One row a part that people have a name for, the largest first; what no part claims goes by its module's name."""
    return [
        {"model": title, "part": part, "gmacs": macs / 1e9, "share_percent": _percent(macs, modules[""])}
        for title, modules in zip(_titles(variants), [variant.modules(PAPER) for variant in variants], strict=True)
        for part, macs in Counter(parts_of(modules)).most_common()
    ]


def parts_of(modules: Mapping[str, int]) -> dict[str, int]:
    """Part -> multiply-accumulates, which add up to the whole; `modules`: module name -> MACs, with its children's."""
    own = dict(modules)
    for name, macs in modules.items():
        if name:
            own[_parent(name, modules)] -= macs
    parts: Counter[str] = Counter()
    for name, macs in own.items():
        parts[_part(name)] += macs
    return {part: macs for part, macs in parts.items() if macs}


def _parent(name: str, modules: Mapping[str, int]) -> str:
    while name:
        name = name.rpartition(".")[0]
        if name in modules:
            break
    return name


def _part(name: str) -> str:
    words = [word for word in name.split(".") if not word.isdigit()] or ["the rest"]
    for part in OUTERMOST:
        if any(fragment in words[0].lower() for fragment in PARTS[part]):
            return part
    for word in words:
        for part, fragments in PARTS.items():
            if any(fragment in word.lower() for fragment in fragments):
                return part
    return words[-1] or "the rest"


def _titles(variants: Sequence[Variant]) -> list[str]:
    """What tells the variants apart: label or name, and as much else as it takes."""
    titles = [variant.label or variant.name for variant in variants]
    more: list[Callable[[int, Variant], str]] = [
        lambda _, variant: variant.block,
        lambda _, variant: f"{variant.image_size} px" if variant.image_size else "",
        lambda index, _: f"no. {index + 1}",
    ]
    for say in more:
        times = Counter(titles)
        said = [say(index, variant) for index, variant in enumerate(variants)]
        titles = [
            f"{title}, {also}" if times[title] > 1 and also else title for title, also in zip(titles, said, strict=True)
        ]
    return titles


def _percent(macs: int, whole: int) -> float:
    return 100 * macs / whole if whole else 0.0


def _label(variant: Variant, variants: Sequence[Variant]) -> dict[str, Any]:
    return {"label": variant.label} if any(other.label for other in variants) else {}


def meaning(convention: Convention) -> str:
    """What the counts are, for people."""
    return MEANING if convention is PAPER else f"{convention.name}: {convention.text}."


def print_modules(rows: list[dict[str, Any]], format: str, convention: Convention = PAPER) -> None:
    """As `table`, `csv` or `json`. The table leaves out what costs nothing, and repeated blocks."""
    unit = "flops" if convention.in_flops else "macs"
    if format != "table":
        print_data(rows, format)
        return
    shown = [row for row in _without_repeated_blocks(rows, unit) if row[unit]]
    print_columns(shown or rows)
    if any(row["module"].startswith("blocks.0") for row in shown):
        print("\nBlocks that cost as much as the one before them are left out.")
    print(f"\n{meaning(convention)}")


def _without_repeated_blocks(rows: list[dict[str, Any]], unit: str) -> Iterator[dict[str, Any]]:
    count, is_repeated = 0, False
    for row in rows:
        name, _, block = row["module"].partition(".")
        if name == "blocks" and block.isdigit():  # its own modules follow
            is_repeated, count = block != "0" and row[unit] == count, row[unit]
        if not (name == "blocks" and block and is_repeated):
            yield row


def rounded(count: float) -> float:
    """A count in 1e9, to as many digits as the tables have."""
    return round(count, 6 if count >= 0.1 else 9)


def print_data(rows: list[dict[str, Any]], format: str) -> None:
    """As `csv` or `json`."""
    if format == "json":
        print(json.dumps(rows, indent=1))
        return
    writer = csv.DictWriter(sys.stdout, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def print_columns(rows: list[dict[str, Any]]) -> None:
    """As a table for people."""
    texts = [any(isinstance(row[column], str) for row in rows) and column != "paper" for column in rows[0]]
    print_table(list(rows[0]), [[_cell(*item) for item in row.items()] for row in rows], texts)


def _cell(column: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if column in ("gmacs", "gflops", "count", "amount"):
        return f"{value:.3f}" if value >= 0.1 else f"{value:.4g}"
    if column == "gpu_hours" and value >= 100:
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and column != "image_size" else str(value)
