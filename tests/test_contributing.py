"""Every example of CONTRIBUTING.md, run as a reader would: from its text, in an empty folder, to a figure's point."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))

# Section -> the figure's data, and the column and values that show that the part is in it.
SHOWN = {
    "A block design": ("blocks.csv", "block", {"adaln-zero", "my_block:MEAN"}),
    "A model family": (
        "gflops_vs_fid.csv",
        "label",
        {"my_net:FAMILY/small", "my_net:FAMILY/large"},
    ),
    "An objective": ("blocks.csv", "block", {"adaln-zero, iddpm", "adaln-zero, my_objective:L1"}),
    "A sampler": ("gflops_vs_fid.csv", "label", {"S/4", "S/2"}),
    "A data set": ("gflops_vs_fid.csv", "label", {"S/4", "S/2"}),
    "A metric": ("metrics.csv", "metric", {"fid", "kid", "spread"}),
    "A figure": ("my_figure.csv", "label", {"S/4", "S/2"}),
}


def test_no_section_goes_without_a_test() -> None:
    assert set(SECTIONS) == set(SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize("section", SHOWN)
def test_the_example_works_as_it_stands(section: str, tmp_path: Path) -> None:
    text = SECTIONS[section]
    for _, content in re.findall(r"```(python|yaml)\n(.*?)```", text, re.DOTALL):
        name = content.split("\n", 1)[0].removeprefix("# ")
        (tmp_path / name).write_text(content, encoding="utf-8")
    (commands,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "ditbench"
        ended = subprocess.run(
            [sys.executable, "-P", "-c", "from ditbench import main; main()", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}{ended.stderr}"
    file, column, values = SHOWN[section]
    (data,) = tmp_path.rglob(file)
    points = pd.read_csv(data)
    assert values <= set(points[column])
