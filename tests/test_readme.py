"""The README's tasks, run as a reader would, from its own text: each command works and prints what stands below it."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ditbench
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
TASKS = dict(
    re.findall(r"^### ([^\n]+)\n(.*?)(?=^### |^## |\Z)", PAGE.partition("## Six tasks")[2], re.MULTILINE | re.DOTALL)
)


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def is_printed(line: str, printed: list[str]) -> bool:
    """Whether a line is printed as it stands, up to blanks; an ellipsis at its end stands for the rest of it."""
    wanted = " ".join(line.split())
    if wanted.endswith("..."):
        return any(one.startswith(wanted[:-3].rstrip()) for one in printed)
    return wanted in printed


def test_there_are_six_tasks() -> None:
    assert len(TASKS) == 6
    assert all(len(blocks(text, "sh")) == 1 and len(blocks(text, "text")) >= 1 for text in TASKS.values())


def test_what_is_not_printed_is_seen() -> None:
    printed = ["predicted 25.69 where 19.47 was measured"]
    assert is_printed("predicted  25.69 where ...", printed) and is_printed(printed[0], printed)
    assert not is_printed("predicted 25.69", printed) and not is_printed("predicted 25.70 ...", printed)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_task_prints_what_the_page_says(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "results", tmp_path / "results")
    digits: Any = load_digits()
    pixels = (digits.images[:500, None] * (255 / 16)).round()
    noise = np.random.default_rng(0).normal(0, 30, pixels.shape)
    np.save(tmp_path / "my-samples.npy", (pixels + noise).clip(0, 255).astype(np.uint8))
    shutil.copytree(ROOT / "sweeps" / "clusters", tmp_path / "sweeps" / "clusters")
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    for line in "".join(blocks(TASKS[task], "sh")).splitlines():
        program, *arguments = shlex.split(line, comments=True)
        if program == "cp":
            shutil.copy(*arguments)
            continue
        assert program == "ditbench", line
        ended = ditbench(*arguments)
        assert ended.status == 0, f"{line}\n{ended.out}{ended.err}"
        printed += [" ".join(one.split()) for one in ended.out.splitlines()]
    for line in "".join(blocks(TASKS[task], "text")).splitlines():
        assert not line.strip() or is_printed(line, printed), f"{line}\nis not in\n" + "\n".join(printed)
