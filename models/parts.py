"""Parts that a recipe chooses, found by name or by dotted path (`module:Name`): one mechanism for ours and a user's.

A built-in is a dotted path that its registry gives a name. A user's module is looked for in the folder of the recipe
or sweep that names it, in the working folder, and among what is installed. Importing this module imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
# Top-level names of the suite, which research repositories like to use as well.
OURS = ("models", "bench", "sweeps", "analysis", "ditbench")

_folders: list[Path] = []
_modules: dict[tuple[Path, str], ModuleType] = {}


@dataclass(frozen=True)
class Seam:
    """One place of a recipe, and what may stand there.

    Attributes:
        noun: for messages, such as "sampler".
        key: of the recipe, such as "evaluation.sampler".
        builtin: name -> dotted path; the one list of the suite's own parts of this kind.
        contract: attributes that every part has.
    """

    noun: str
    key: str
    builtin: Mapping[str, str]
    contract: tuple[str, ...]

    def find(self, name: str) -> Any:
        """The part of a built-in's name, or of a user's dotted path.

        Raises:
            ValueError: one line: an unknown name, or a path that does not import or lacks part of the contract.
        """
        path = self.builtin.get(name, name)
        if ":" not in path:
            raise ValueError(
                f"unknown {self.noun} {name!r}; accepted: {', '.join(self.builtin)}, or the path of your own, "
                "such as my_module:Name"
            )
        part = _attribute(path, is_ours=name in self.builtin)
        lacking = [attribute for attribute in self.contract if not hasattr(part, attribute)]
        if lacking:
            raise ValueError(
                f"{name!r} is no {self.noun}: it lacks {', '.join(lacking)}; needed: {', '.join(self.contract)}"
            )
        return part


def look_in(folder: Path) -> None:
    """From now on, look for a user's modules in this folder first."""
    folder = folder.resolve()
    if folder in _folders:
        _folders.remove(folder)
    _folders.insert(0, folder)


def folder_of(path: str) -> Path | None:
    """The user's folder that holds the module of a dotted path; None for what is installed, and for the suite's own."""
    module, colon, _ = path.partition(":")
    if not colon:
        return None
    candidates = (folder for folder in dict.fromkeys([*_folders, Path.cwd()]) if _holds(folder, _top(module)))
    return next((folder for folder in candidates if not folder.samefile(ROOT)), None)


def _attribute(path: str, is_ours: bool) -> Any:
    module_name, _, attribute = path.partition(":")
    module = _module(module_name, None if is_ours else folder_of(path), path)
    if not hasattr(module, attribute):
        has = ", ".join(name for name, value in vars(module).items() if _is_own(name, value, module)) or "nothing"
        raise ValueError(f"{path!r}: {module_name} has no {attribute!r}; it has {has}")
    return getattr(module, attribute)


def _is_own(name: str, value: Any, module: ModuleType) -> bool:
    return not name.startswith("_") and getattr(value, "__module__", None) == module.__name__


def _module(name: str, folder: Path | None, path: str) -> ModuleType:
    try:
        return importlib.import_module(name) if folder is None else _import_from(folder, name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            places = ", ".join(str(place) for place in dict.fromkeys([*_folders, Path.cwd()]))
            raise ValueError(f"{path!r}: no module {error.name!r} in {places}, nor installed") from None
        raise ValueError(f"{path!r}: {name} cannot be imported ({error})") from None
    except Exception as error:  # whatever a user's module does when it is imported
        raise ValueError(f"{path!r}: {name} cannot be imported ({type(error).__name__}: {error})") from None


def _import_from(folder: Path, name: str) -> ModuleType:
    """Import a user's module so that neither its folder shadows the suite's packages nor these the folder's.

    While it is imported, packages of the folder stand for ours of the same name; afterwards ours are back.
    """
    if (folder, name) in _modules:
        return _modules[folder, name]
    theirs = {top for top in (*OURS, _top(name)) if _holds(folder, top)}
    ours = {key: module for key, module in sys.modules.items() if _top(key) in theirs and not _is_of(module, folder)}
    for key in ours:
        del sys.modules[key]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        _modules[folder, name] = importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        if ours:
            for key in [key for key in sys.modules if _top(key) in {_top(key) for key in ours}]:
                del sys.modules[key]
            sys.modules.update(ours)
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # last: for what the module imports later, without shadowing anything
    return _modules[folder, name]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _holds(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or any((folder / top).glob("*.py"))


def _is_of(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
    return file is not None and Path(file).resolve().is_relative_to(folder)
