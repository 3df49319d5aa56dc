"""What `ditbench perf` measured, as one JSON document a command, and all of them as one table.

A row of a document is a contender at a setting: `seconds`, one list a round; `items` and `unit`, of what a call does so
many, where a rate says more than the time; `target`, where one is aimed at: of an alternative, the most that our time
over its may be; of ours, the most seconds.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from bench import provenance
from bench.cpu import linear
from bench.device import Precision
from bench.errors import InputError

MATMUL_SIZE = {"cpu": 4096, "cuda": 8192}
MATMUL_REPEATS = 3
LIBRARIES = ("timm", "diffusers", "torch-fidelity", "numpy", "scipy", "pandas", "matplotlib")
KEPT = ("time", "device", "precision", "threads", "torch", "python", "commit")  # of a session
NEEDED = ("kind", "device", "precision", "threads", "matmul_gflops", "rows")
MATMUL, ONEDNN = "matmul_gflops", "onednn_gflops"
OURS = "ours"


@dataclass
class Products:
    """The rates of a machine's large matrix products, measured between other things.

    Attributes:
        rates: floating-point operations in 1e9 per second, 2 per multiply-accumulate, all that were measured: of
            `torch.mm`, and of oneDNN where `bench.cpu.linear` has it multiply.
    """

    device: torch.device
    precision: Precision = "fp32"
    rates: dict[str, list[float]] = field(default_factory=lambda: {MATMUL: [], ONEDNN: []})

    def measure(self) -> None:
        """`MATMUL_REPEATS` of each, after one that warms up."""
        self.rates[MATMUL] += self._measured()
        if self.device.type == "cpu" and self.precision == "fp32" and linear.pays():
            with linear.products_by_onednn():
                self.rates[ONEDNN] += self._measured()

    def _measured(self) -> list[float]:
        size = MATMUL_SIZE[self.device.type]
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        a, b = torch.randn(2, size, size, dtype=dtype, device=self.device)
        out = torch.mm(a, b)

        def rate() -> float:
            started = time.perf_counter()
            torch.mm(a, b, out=out)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return 2 * size**3 / (time.perf_counter() - started) / 1e9

        rate()
        return [rate() for _ in range(MATMUL_REPEATS)]


def as_document(kind: str, rows: list[dict[str, Any]], products: Products) -> dict[str, Any]:
    """With the machine, versions, threads, the commit, and the rates of products that were measured meanwhile."""
    session = provenance.session(products.device, products.precision, world_size=1)
    return {
        "kind": kind,
        **{key: session[key] for key in KEPT},
        "machine": machine(),
        **{library: version(library) for library in LIBRARIES},
        "matmul_size": MATMUL_SIZE[products.device.type],
        **products.rates,
        "rows": rows,
    }


def machine() -> str:
    """ "AMD EPYC 7763 64-Core Processor, 2 cores", as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(named, platform.processor() or platform.machine())}, {os.cpu_count()} cores"


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """The document that `ditbench perf KIND` wrote, to judge another against.

    Raises:
        InputError: it cannot be read, or is another.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--against {path}: cannot be read ({error})") from None
    if not isinstance(content, dict) or not {*NEEDED} <= content.keys():
        raise InputError(f"--against {path}: measured nothing; accepted: a JSON file of ditbench perf {kind}")
    if content["kind"] != kind:
        raise InputError(f"--against {path}: of perf {content['kind']}; accepted: a JSON file of perf {kind}")
    return content


def rates_in_words(document: dict[str, Any]) -> str:
    """The rates of products, the larger of which shares are of."""
    size = document["matmul_size"]
    how = f"{size} x {size}, {document['precision']}, {document['threads']} threads"
    words = [
        f"{name} {median(found):.0f} GFLOP/s ({min(found):.0f} to {max(found):.0f})"
        for name, found in rates(document).items()
    ]
    return f"{', '.join(words)}: products of {how}"


def rates(document: dict[str, Any]) -> dict[str, list[float]]:
    """By what multiplies; files of earlier versions have torch.mm alone."""
    found = {"torch.mm": document[MATMUL], "oneDNN": document.get(ONEDNN)}
    return {name: measured for name, measured in found.items() if measured}


def setting_of(row: dict[str, Any]) -> str:
    """What of a row all contenders have in common, as text."""
    if "what" in row:
        return row["what"]
    steps = f" {row['sampler']} {row['sampling_steps']} steps" if "sampler" in row else ""
    return f"{row['model']} b{row['batch_size']}{steps}"


def all_seconds(row: dict[str, Any]) -> list[float]:
    """Those of all rounds."""
    return [seconds for in_round in row["seconds"] for seconds in in_round]


def quartiles(row: dict[str, Any]) -> tuple[float, float, float]:
    """Of the seconds: the first, the median, the third."""
    seconds = all_seconds(row)
    low, _, high = quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return low, median(seconds), high


def lines(document: dict[str, Any]) -> list[dict[str, Any]]:
    """A line for each setting and alternative, and one without for each setting that has none: column -> value.

    ours, q1, q3: median and quartiles, in `unit`, seconds or so many a second; ratio: our median time over the
    alternative's, below 1 where we are faster; target: the most that it may be, or of ours the most seconds, and
    whether it is met.
    """
    found = []
    for ours in (row for row in document["rows"] if row["contender"] == OURS):
        what = setting_of(ours)
        others = [row for row in document["rows"] if row["contender"] != OURS and setting_of(row) == what]
        low, middle, high = quartiles(ours)
        items, unit = (ours["batch_size"], "images") if "batch_size" in ours else (ours["items"], ours["unit"])
        rates = [items / seconds for seconds in (middle, high, low)] if items else [middle, low, high]
        for other in others or [None]:
            ratio = None if other is None else middle / quartiles(other)[1]
            target, reached = (ours.get("target"), middle) if other is None else (other.get("target"), ratio)
            found.append(
                {
                    "measure": document["kind"],
                    "what": what,
                    **dict(zip(("ours", "q1", "q3"), rates, strict=True)),
                    "unit": f"{unit}/s" if items else "s",
                    "alternative": None if other is None else other["contender"],
                    "ratio": ratio,
                    "target": target,
                    "met": None if target is None or reached is None else reached <= target,
                }
            )
    return found


def table(documents: Iterable[dict[str, Any]]) -> list[dict[str, str]]:
    """All lines of all documents, column -> value as it is printed."""
    return [
        {
            "measure": line["measure"],
            "what": line["what"],
            **{name: f"{line[name]:.4g}" for name in ("ours", "q1", "q3")},
            "unit": line["unit"],
            "alternative": line["alternative"] or "",
            "ratio": "" if line["ratio"] is None else f"{line['ratio']:.3f}",
            "target": "" if line["met"] is None else f"{line['target']:.3g}, {'met' if line['met'] else 'missed'}",
        }
        for document in documents
        for line in lines(document)
    ]
