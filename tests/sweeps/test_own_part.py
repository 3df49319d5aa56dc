"""A part of one's own: found in its file by its contract, and kept by its content."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command_line import ditbench

from bench.errors import InputError
from models.parts import FORBIDDEN
from sweeps.own.part import OwnPart, keep_part

BLOCK = """
from models.designs import ADALN, BlockDesign
from dataclasses import replace
WIDTH = {width}
MINE = replace(ADALN, operators={{"width": WIDTH}})
"""
OBJECTIVE = """
from bench.objectives.iddpm import IDDPM
class Mine(IDDPM): ...
"""
FAMILY = """
from dataclasses import replace
from models.dit import FAMILY
NETS = replace(FAMILY, name="nets")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, text: str, width: object = 1) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.replace("{width}", str(width)).replace("{{", "{").replace("}}", "}"))
    return file


def kept(given: object, name: str | None = None) -> OwnPart:
    return keep_part(str(given), name, None, Path("kept"))


def width(part: OwnPart) -> int:
    return part.part.operators["width"]


@pytest.mark.parametrize(
    ("text", "kind", "name"), [(BLOCK, "block", "MINE"), (OBJECTIVE, "objective", "Mine"), (FAMILY, "family", "NETS")]
)
def test_what_it_is_is_found_by_its_contract(text: str, kind: str, name: str) -> None:
    part = kept(write("mine.py", text))
    assert (part.kind, part.shown) == (kind, f"mine:{name}")
    assert part.path == f"{part.module}:{name}"


def test_its_path_is_a_function_of_its_content_and_keeps_it() -> None:
    file = write("mine.py", BLOCK, 1)
    first, again = kept(file), kept(file)
    write("mine.py", BLOCK, 2)
    changed = kept(file)
    assert first.path == again.path != changed.path
    assert (width(first), width(changed)) == (1, 2)
    write("elsewhere/mine.py", BLOCK, 1)
    assert kept("elsewhere/mine.py").path == first.path


def test_what_it_imports_from_beside_it_is_kept_with_it() -> None:
    text = BLOCK.replace("WIDTH = {width}", "from helping.widths import WIDTH")
    write("helping/other.py", "never imported")
    parts = []
    for number in (1, 2):
        write("helping/widths.py", "from .number import NUMBER as WIDTH")
        write("helping/number.py", f"NUMBER = {number}")
        parts.append(kept(write("mine.py", text)))
        assert width(parts[-1]) == number
    assert parts[0].path != parts[1].path
    assert not list(Path("kept").rglob("other.py"))


@pytest.mark.parametrize("given", ["{}/blocks/mean.py", "{}.blocks.mean:MINE", "{}/blocks/mean.py:MINE"])
def test_a_module_of_a_package(given: str, here: Path) -> None:
    package = here.name.replace("-", "_")  # another one of the same name is imported no more
    write(f"{package}/__init__.py", "")
    write(f"{package}/width.py", "WIDTH = 3")
    write(f"{package}/blocks/__init__.py", "from .mean import MINE")
    write(f"{package}/blocks/mean.py", BLOCK.replace("WIDTH = {width}", "from ..width import WIDTH"))
    assert width(kept(given.format(package))) == 3


def test_a_module_of_a_package_without_init(here: Path) -> None:
    package = here.name.replace("-", "_")
    write(f"{package}/width.py", "WIDTH = 3")
    write(f"{package}/mean.py", BLOCK.replace("WIDTH = {width}", f"from {package}.width import WIDTH"))
    assert width(kept(f"{package}.mean:MINE")) == 3


def test_a_users_own_models_is_not_ours() -> None:
    write("models/layers.py", "WIDTH = 4")
    text = BLOCK.replace("WIDTH = {width}", "from models.layers import WIDTH")
    write("models/mine.py", text)
    write("models/__init__.py", "")
    assert width(kept("models/mine.py")) == 4
    part = kept(write("mine.py", BLOCK.replace("WIDTH = {width}", "from models.layers import PatchEmbed as WIDTH")))
    assert part.part.operators["width"] is sys.modules["models.layers"].PatchEmbed


@pytest.mark.parametrize("name", ["my-block.py", "2nd.py", "torch.py", "models.py", "ünïcode.py"])
def test_any_name_of_a_file(name: str) -> None:
    torch = sys.modules.get("torch")
    assert width(kept(write(f"blocks of mine/{name}", BLOCK, 5))) == 5
    assert sys.modules.get("torch") is torch


def test_one_of_several_is_named() -> None:
    file = write("mine.py", BLOCK + "OTHER = replace(MINE)\nSAME = MINE\n")
    for given, name in ((str(file), "OTHER"), (f"{file}:OTHER", None), ("mine:OTHER", None)):
        assert kept(given, name).name == "OTHER"
    assert kept(file, "SAME").name == "SAME"


REFUSED = {
    "several": (BLOCK + "OTHER = replace(MINE)\n", None, ("MINE", "OTHER", "--name")),
    "no such name": (BLOCK, "YOURS", ("YOURS", "MINE")),
    "nothing": ("", None, ("has no block design, model family or objective",)),
    "a block's class": ("from torch import nn\nclass Mean(nn.Module): ...\n", None, ("Mean", "BlockDesign")),
    "incomplete": ("class L1:\n    options = process = columns = check = draw = losses = 0\n", None, ("denoiser",)),
    "an object": (OBJECTIVE + "MINE = Mine.__new__(Mine)\ndel Mine\n", None, ("MINE", "class")),
    "no Python": ("x = 1\nclass (:\n", None, ("mine.py, line 2",)),
    "not importable": ("\n\nx = undefined\n", None, ("mine.py, line 3", "undefined")),
    "something missing": ("\nimport nowhere\n", None, ("mine.py, line 2", "nowhere")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_part_is_refused_in_a_line(case: str) -> None:
    text, name, said = REFUSED[case]
    with pytest.raises(InputError) as caught:
        kept(write("mine.py", text), name)
    assert len(str(caught.value).splitlines()) == 1
    for each in said:
        assert each in str(caught.value)


@pytest.mark.parametrize(
    "given", ["nowhere.py", "nowhere:MINE", "folder", "text.txt", "mine.py:", "mine.py:a b", "mine", "a.b.py", ""]
)
def test_what_is_no_file_is_refused_in_a_line(given: str) -> None:
    write("mine.py", BLOCK)
    write("a.b.py", BLOCK)
    write("text.txt", "")
    Path("folder").mkdir()
    with pytest.raises(InputError) as caught:
        kept(given)
    assert len(str(caught.value).splitlines()) == 1


def test_our_own_files_are_refused() -> None:
    with pytest.raises(InputError, match="ditbench's own"):
        kept(sys.modules["models.designs"].__file__)


@pytest.mark.parametrize("given", ["stranger.py", "stranger.py:PART", "stranger:PART"])
def test_a_strangers_is_not_imported(given: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("stranger.py", f"open({str(here / 'ran')!r}, 'w').close()\n")
    monkeypatch.setenv(FORBIDDEN, "")  # so that it is what it was after the flag has set it
    ended = ditbench("--no-own-parts", "try", given)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "--no-own-parts" in ended.err
    assert not (here / "ran").exists()
