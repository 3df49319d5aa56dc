"""Parts by name and by dotted path: what is refused, and how, and whose `models` is whose."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.objectives import OBJECTIVES
from bench.samplers import SAMPLERS
from bench.samplers.ddim import DDIM
from models.parts import Seam, look_in

ROOT = Path(__file__).parents[2]
Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a user's module into the working folder, under a name that no other test uses; returns the name."""
    monkeypatch.chdir(tmp_path)

    def module(name: str, text: str) -> str:
        unique = f"{name}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{unique}.py").write_text(text)
        return unique

    return module


def refusal(seam: Seam, name: str) -> str:
    with pytest.raises(ValueError) as caught:
        seam.find(name)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert repr(name) in message
    return message


def test_builtin_parts_are_found_by_name_and_by_their_own_path() -> None:
    assert SAMPLERS.find("ddim") is DDIM
    assert SAMPLERS.find(SAMPLERS.builtin["ddim"]) is DDIM


@pytest.mark.parametrize("name", ["rk4", "", "DDIM", "bench.samplers.ddim"])
def test_a_name_that_is_unknown_and_no_path(name: str) -> None:
    message = refusal(SAMPLERS, name)
    for accepted in ("unknown sampler", *SAMPLERS.builtin, "my_module:Name"):
        assert accepted in message


def test_a_module_that_is_not_there(write: Write, tmp_path: Path) -> None:
    message = refusal(SAMPLERS, "no_such_module:Heun")
    assert "no module 'no_such_module'" in message
    assert str(tmp_path) in message
    assert "no module 'no_such_package'" in refusal(SAMPLERS, "no_such_package.heun:Heun")


@pytest.mark.parametrize("name", [":Heun", "heun.:Heun", ".heun:Heun", "a b:Heun"])
def test_a_path_that_can_be_none(write: Write, name: str) -> None:
    refusal(SAMPLERS, name)


def test_a_module_that_imports_what_is_not_there(write: Write) -> None:
    module = write("needy", "import no_such_dependency\n")
    assert "No module named 'no_such_dependency'" in refusal(SAMPLERS, f"{module}:Heun")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two"),
        ("def broken(:\n", "SyntaxError: "),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('usage: none')\n", "SystemExit: usage: none"),
        ("assert False\n", "AssertionError"),
    ],
)
def test_a_module_that_fails_when_it_is_imported(write: Write, text: str, said: str) -> None:
    message = refusal(SAMPLERS, f"{write('failing', text)}:Heun")
    assert "cannot be imported" in message
    assert said in message


def test_an_attribute_that_is_missing(write: Write) -> None:
    module = write("attributes", "import os\nfrom pathlib import Path\nclass Midpoint: ...\nclass _Hidden: ...\n")
    message = refusal(SAMPLERS, f"{module}:Heun")
    assert message.endswith(f"{module} has no 'Heun'; it has Midpoint")
    assert refusal(SAMPLERS, f"{write('empty', '')}:Heun").endswith("it has nothing")


def test_a_part_of_another_kind() -> None:
    message = refusal(OBJECTIVES, "bench.samplers.ddim:DDIM")
    assert "is no objective: it lacks columns, check, process, draw, losses, denoiser" in message
    assert f"needed: {', '.join(OBJECTIVES.contract)}" in message


def test_a_part_that_lacks_something(write: Write) -> None:
    module = write("lacking", "class Heun:\n    options, serves = object, ()\n    def sample(self): ...\n")
    assert "is no sampler: it lacks call_times; needed: " in refusal(SAMPLERS, f"{module}:Heun")


def test_the_folder_that_was_named_last_comes_first(write: Write, tmp_path: Path) -> None:
    module = write("chosen", "PART = 'of the working folder'\n")
    part = Seam("part", "a.key", {}, ())
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{module}.py").write_text(f"PART = 'of {name}'\n")
    assert part.find(f"{module}:PART") == "of the working folder"
    for name in ("one", "other", "one"):
        look_in(tmp_path / name)
        assert part.find(f"{module}:PART") == f"of {name}"


# A folder as research repositories have it: names of ours, used for something else.

FAMILY = "Family('Mine', {}, type('Options', (), {}), None, None)"
USERS_FILES = {
    "mine.py": """
        from models.designs import IN_CONTEXT  # the suite's
        from dataclasses import replace
        DESIGN = replace(IN_CONTEXT, cost=None)
    """,
    "analysis/__init__.py": "WHOSE = 'theirs'",
    "analysis/part.py": f"""
        from analysis import WHOSE
        from models.registry import Family
        PART = {FAMILY}
        assert WHOSE == 'theirs'
    """,
}
MODELS_FILE = {
    "registry.py": "",
    "models.py": f"""
        from models.registry import Family  # the suite's, not the one above
        FAMILY = {FAMILY}
    """,
}
MODELS_PACKAGE = {
    "models/__init__.py": """
        from models.net import Net
        from .dit import WHOSE
        from models.net import FAMILY
    """,
    "models/dit.py": "WHOSE = 'theirs'",
    "models/net.py": f"""
        from models.dit import WHOSE
        from . import dit
        from models.registry import Family  # the suite's: they have none of that name
        class Net: whose = (WHOSE, dit.WHOSE)
        FAMILY = {FAMILY}
    """,
}
# As a file, as a package, and as a folder that nobody made a package.
MODELS = {
    "file": MODELS_FILE,
    "package": MODELS_PACKAGE,
    "folder": {name: text for name, text in MODELS_PACKAGE.items() if name != "models/__init__.py"},
}
SCRIPT = """
import sys
import models, models.dit, models.designs, models.registry, analysis
from bench.recipe import parse_recipe
from models.parts import Seam
from models.registry import FAMILIES, Family
before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("models", "analysis", "bench")}
any_part = Seam("part", "a.key", {}, ())

family = FAMILIES.find("models.net:FAMILY" if "folder" in sys.argv else "models:FAMILY")
assert family.name == "Mine" and isinstance(family, Family)
assert FAMILIES.find("analysis.part:PART").name == "Mine"
if "file" not in sys.argv:
    assert any_part.find("models.net:Net").whose == ("theirs", "theirs")
    assert any_part.find("models.net:FAMILY") is family
if "package" in sys.argv:
    assert any_part.find("models.net:Net") is any_part.find("models:Net")
model = {"name": "DiT", "depth": 1, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "input_size": 8}
model |= {"in_channels": 1, "num_classes": 10, "block": "mine:DESIGN"}
evaluation = {"extractor": "digits-cnn", "kid_subset_size": 20, "num_samples": 60}
recipe = parse_recipe({"model": model, "data": {"name": "digits"}, "evaluation": evaluation}, "x")
assert recipe.model.architecture().design.block == models.designs.IN_CONTEXT.block

for name, module in before.items():
    assert sys.modules[name] is module, name
import models.dit as again
from models.dit import FAMILY
assert again is before["models.dit"] and FAMILIES.find("DiT") is FAMILY
import analysis.errors, models.blocks
assert not hasattr(analysis, "WHOSE") and models.blocks.AdaLNZeroBlock
print("ok")
"""


def installed(checkout: Path, folder: Path) -> Path:
    """What a wheel puts beside other packages: the files that pyproject.toml lists."""
    wheel = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for name in (*wheel["only-include"], *wheel["force-include"]):
        copy = shutil.copytree if (checkout / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(checkout / name, folder / name)
    return folder


def from_a_wheel(folder: Path) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed here")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(folder), str(ROOT)], check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["checkout", "installed", "wheel"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_folder_with_models_and_analysis_of_its_own(suite: str, kind: str, tmp_path: Path) -> None:
    """From it, and with its parts in use: neither side's modules stand for the other's, before or after."""
    user = tmp_path / "user"
    for name, text in {**USERS_FILES, **MODELS[kind]}.items():
        (user / name).parent.mkdir(parents=True, exist_ok=True)
        lines = text.splitlines()
        (user / name).write_text("\n".join(line.removeprefix("        ") for line in lines) + "\n")
    places = {"checkout": lambda: ROOT, "installed": lambda: installed(ROOT, tmp_path / "site"),
              "wheel": lambda: from_a_wheel(tmp_path / "site")}  # fmt: skip
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(places[suite]()), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", str(script), kind]
    done = subprocess.run(command, cwd=user, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
