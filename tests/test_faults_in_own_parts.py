"""What is wrong in a file of one's own is said in one line with the file and the line, before compute is spent on it.

Each fault is made in a copy of an example, as somebody would who wrote theirs after it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from command_line import ditbench

from bench import flops
from models import parts
from sweeps.expand import load_sweep

EXAMPLES = Path(__file__).parents[1] / "examples"
METHOD = "    @property\n    def num_tokens(self) -> int:\n        return self.input_size**2\n"

# Example, its file, what stands there, what is written instead, and what is said.
PLANNED = {
    "a module that is not installed": (
        ("block", "my_block.py", "import torch\n", "import torch, no_such\n"),
        r"my-blocks.yaml .*No module named 'no_such'; my_block.py, line 2\)",
    ),
    "an import that was forgotten": (
        ("block", "my_block.py", "import torch\n", ""),
        r"NameError: name 'torch' is not defined; my_block.py, line 20\)",
    ),
    "widths that do not fit": (
        ("block", "my_block.py", "dim=-1)", "dim=1)"),
        r"RuntimeError: .* cannot be multiplied .*; my_block.py, line 21\)",
    ),
    "a block of too few arguments": (
        ("block", "my_block.py", "num_heads: int, mlp_ratio: float", "num_heads: int"),
        r"MeanBlock.__init__\(\) takes 3 .*; my_block.py, line 12\)",
    ),
    "a block that drops tokens": (
        ("block", "my_block.py", "return x + self.mlp(x)", "return x[:, :2]"),
        r"my_block.py, line 18: MeanBlock returns \(1, 2, 24\); needed: \(1, 16, 24\)",
    ),
    "a network that crops": (
        ("family", "my_net.py", "return self.last(x)", "return self.last(x)[:, :, 1:]"),
        r"my_net.py, line 51: ConvNet returns \(1, 1, 7, 8\); needed: \(1, 1, 8, 8\)",
    ),
    "a preset of an unknown option": (
        ("family", "my_net.py", '"small": {"hidden_size"', '"small": {"width"'),
        r"my-nets.yaml .*my_net:FAMILY/small: .*'width'; my_net.py, line 63\)",
    ),
    "a configuration without its tokens": (
        ("family", "my_net.py", METHOD, ""),
        r"my-nets.yaml .*its configuration lacks num_tokens; needed: input_shape, ",
    ),
    "columns that are no property": (
        ("family", "my_net.py", "    @property\n    def columns", "    def columns"),
        r"my-nets.yaml .*columns of its configuration .*needed: a mapping",
    ),
    "options that are no dataclass": (
        ("family", "my_net.py", "    options=Options", "    options=dict"),
        r"my-nets.yaml .*options .*needed: a frozen dataclass",
    ),
    "a resolve of other arguments": (
        ("family", "my_net.py", "lambda preset, options: Config(", "lambda preset: Config("),
        r"my-nets.yaml .*my_net:FAMILY/small: .*takes 1 positional argument but 2 were given",
    ),
    "an objective's check that fails": (
        ("objective", "my_objective.py", "Objective.check(", "Objective.chek("),
        r"my-objectives.yaml .*'chek'; my_objective.py, line 14$",
    ),
    "an objective without columns": (
        ("objective", "my_objective.py", '("loss",)', "None"),
        r"my-objectives.yaml .*columns of my_objective:L1 are None; needed: loss first",
    ),
    "a sampler's times that fail": (
        ("sampler", "my_sampler.py", "process.grid(2 * num_steps)[:-1]", "process.gird(num_steps)"),
        r"my-sampler.yaml .*'gird'; my_sampler.py, line 11$",
    ),
    "facts that fail": (
        ("data", "my_data.py", "num_classes=10", "classes=10"),
        r"my-data.yaml .*my_data:TURNED: TypeError: .*'classes'; my_data.py, line 13$",
    ),
}
RUN = {
    "losses of fewer images": (
        ("objective", "my_objective.py", ".flatten(1).mean(1)}", ".mean()}"),
        r"my_objective.py, line 16: losses: loss is \(\); needed: \(32,\), one an image",
    ),
    "losses of another name": (
        ("objective", "my_objective.py", '{"loss": (', '{"l1": ('),
        r"my_objective.py, line 16: losses returns l1; needed: its columns, loss",
    ),
    "losses that fail": (
        ("objective", "my_objective.py", "(predicted - drawn", "(predicted[:3] - drawn"),
        r"RuntimeError: .*; my_objective.py, line 19$",
    ),
    "fewer samples than asked for": (
        ("sampler", "my_sampler.py", "        return x\n", "        return x[:1]\n"),
        r"my_sampler.py, line 13: sample returns \(1, 1, 8, 8\); needed: \(20, 1, 8, 8\)",
    ),
}


@pytest.fixture(autouse=True)
def _looked_for_here_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of one name are in a folder for each test; what is counted is kept by name."""
    monkeypatch.setattr(parts, "_folders", [])
    flops.counted.cache_clear()


def spoilt(fault: tuple[str, str, str, str], into: Path) -> Path:
    """The sweep's file of a copy of an example that has the fault."""
    example, name, there, instead = fault
    shutil.copytree(EXAMPLES / example, into / example, ignore=shutil.ignore_patterns("runs", "results", "__pycache__"))
    text = (into / example / name).read_text(encoding="utf-8")
    assert there in text
    (into / example / name).write_text(text.replace(there, instead, 1), encoding="utf-8")
    (sweep,) = (into / example).glob("*.yaml")
    return sweep


def refused(said: str, *arguments: object) -> None:
    ended = ditbench(*arguments)
    assert ended.status == 2, ended.out + ended.err
    assert len(ended.err.splitlines()) == 1
    assert re.search(said, ended.err.strip()), ended.err


@pytest.mark.parametrize("fault", PLANNED)
def test_it_is_refused_when_the_sweep_is_planned(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, said = PLANNED[fault]
    sweep = spoilt(change, tmp_path)
    monkeypatch.chdir(sweep.parent)
    refused(said, "sweep", "plan", sweep.name)


@pytest.mark.parametrize("fault", RUN)
def test_it_ends_the_run(fault: str, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, said = RUN[fault]
    sweep = spoilt(change, tmp_path)
    monkeypatch.chdir(sweep.parent)
    recipe = load_sweep(sweep).recipes[-1].model_dump(mode="json")
    recipe["train"] |= {"steps": 1, "checkpoint_steps": []}
    recipe["evaluation"] |= {"num_samples": 20, "kid_subset_size": 10, "sampling_steps": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    shutil.copytree(features, tmp_path / "runs" / "features")
    refused(said, "run", tmp_path / "recipe.yaml", "--folder", tmp_path / "runs" / "run")
