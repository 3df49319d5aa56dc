"""Parts that a recipe chooses, found by name or by dotted path (`module:Name`): one mechanism for ours and a user's.

A built-in is a dotted path that its registry gives a name. A user's module is looked for in the folder of the recipe
or sweep that names it, in the working folder, and among what is installed. Importing this module imports no torch.

To import is to run: `forbid_own_parts` is for recipes of people one does not trust.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
# Top-level names of the suite, which research repositories like to use as well.
OURS = ("models", "bench", "sweeps", "analysis", "ditbench")
# An environment variable, for the processes that are started for a run: where it is set, only built-ins are found.
FORBIDDEN = "DITBENCH_NO_OWN_PARTS"
DOTTED_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(/.+)?")


@dataclass(frozen=True)
class NoOptions:
    """Of a part that has none."""


_folders: list[Path] = []
_modules: dict[tuple[Path, str], ModuleType] = {}
# A user's models/ and the like, while ours stands in `sys.modules`.
_packages: dict[tuple[Path, str], dict[str, ModuleType]] = {}


@dataclass(frozen=True)
class Seam:
    """One place of a recipe, and what may stand there.

    Attributes:
        noun: for messages, such as "sampler".
        key: of the recipe, such as "evaluation.sampler".
        builtin: name -> dotted path; the one list of the suite's own parts of this kind. The first is the `default`.
        contract: attributes that every part has.
    """

    noun: str
    key: str
    builtin: Mapping[str, str]
    contract: tuple[str, ...]

    @property
    def default(self) -> str:
        """The name that stands there where nobody gives one."""
        return next(iter(self.builtin))

    def find(self, name: str) -> Any:
        """The part of a built-in's name, or of a user's dotted path.

        Raises:
            ValueError: one line: an unknown name, or a path that is forbidden, does not import or lacks part of the
                contract.
        """
        path = self.builtin.get(name, name)
        if ":" not in path:
            raise ValueError(
                f"unknown {self.noun} {name!r}; accepted: {', '.join(self.builtin)}, or the path of your own, "
                "such as my_module:Name"
            )
        if name not in self.builtin and os.environ.get(FORBIDDEN):
            raise ValueError(
                f"{self.noun} {name!r} is code of one's own, which --no-own-parts ({FORBIDDEN}) forbids; accepted: "
                f"{', '.join(self.builtin) or 'none'}"
            )
        part = _attribute(path, is_ours=name in self.builtin)
        lacking = [attribute for attribute in self.contract if not hasattr(part, attribute)]
        if lacking:
            raise ValueError(
                f"{name!r} is no {self.noun}: it lacks {', '.join(lacking)}; needed: {', '.join(self.contract)}"
            )
        return part


def forbid_own_parts() -> None:
    """From now on, here and in processes started from here, refuse dotted paths: nothing they name is imported."""
    os.environ[FORBIDDEN] = "1"


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


def own_module(name: str) -> ModuleType:
    """A user's module, looked for as `Seam.find` does; errors as there."""
    return _module(name, folder_of(f"{name}:"), name)


def said(error: BaseException) -> str:
    """An error in one line, with the line of the user's file where it began, if it is known."""
    first = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    line = line_of(error)
    return f"{first}; {line}" if line else first


def line_of(error: BaseException, folder: Path | None = None) -> str | None:
    """Where in a user's file an error began, the innermost such line: "my_block.py, line 21"; None: in none.

    folder: of the user's; None: any that a part was imported from.
    """
    for own in _folders_of_parts() if folder is None else [folder]:
        if isinstance(error, SyntaxError) and error.filename and _is_in(own, error.filename):
            return f"{Path(error.filename).relative_to(own)}, line {error.lineno}"
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_in(own, frame.filename)]
        if frames:
            return f"{Path(frames[-1].filename).relative_to(own)}, line {frames[-1].lineno}"
    # "MeanBlock.__init__() takes 3 positional arguments ...": raised where it is called.
    called = re.search(r"(\w+)\.(\w+)\(\)", str(error)) if isinstance(error, TypeError) else None
    for (own, _), module in reversed(_modules.items()) if called else ():
        found = line_of_method(getattr(module, called[1], None), called[2])  # pyright: ignore[reportOptionalSubscript]
        if found and folder in (None, own):
            return found
    return None


def line_of_method(thing: Any, method: str) -> str | None:
    """Where a method of an object or class begins, if that is in a user's file: "my_block.py, line 19"."""
    code = getattr(getattr(thing, method, None), "__code__", None)
    own = next((own for own in _folders_of_parts() if code is not None and _is_in(own, code.co_filename)), None)
    return f"{Path(code.co_filename).relative_to(own)}, line {code.co_firstlineno}" if code and own else None


def _folders_of_parts() -> list[Path]:
    """The user's folders that a part was imported from."""
    return list(dict.fromkeys(folder for folder, _ in _modules))


def _is_in(folder: Path, file: str) -> bool:
    """Whether a file of code is the user's, in their folder: libraries, and the suite, may lie below it."""
    path = Path(file)
    if not path.is_relative_to(folder) or "site-packages" in path.parts:
        return False
    return not (path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0].removesuffix(".py") in OURS)


def own_paths(content: Any) -> list[str]:
    """All dotted paths in a recipe's mapping."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        return list(dict.fromkeys(path for value in content for path in own_paths(value)))
    return [content] if isinstance(content, str) and DOTTED_PATH.fullmatch(content) else []


def own_folders(content: Any) -> list[str]:
    """The user's folders of all dotted paths in a recipe's mapping: what another process has to look in."""
    return list(dict.fromkeys(str(folder) for path in own_paths(content) if (folder := folder_of(path))))


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
        raise ValueError(_not_imported(path, name, str(error), error, folder)) from None
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(_not_imported(path, name, first, error, folder)) from None


def _not_imported(path: str, name: str, said: str, error: BaseException, folder: Path | None) -> str:
    line = line_of(error, folder) if folder else None
    return f"{path!r}: {name} cannot be imported ({said}{f'; {line}' if line else ''})"


def _import_from(folder: Path, name: str) -> ModuleType:
    """Import a user's module; in it, `models` and its like are the suite's, unless the module is in such a package."""
    if (folder, name) not in _modules:
        top = _top(name)
        _modules[folder, name] = _import_of_same_name(folder, name) if top in OURS else _import_beside(folder, name)
    return _modules[folder, name]


def _import_beside(folder: Path, name: str) -> ModuleType:
    for top in OURS:
        if _holds(folder, top):
            importlib.import_module(top)  # ours, before the folder's can be found
    beside = {path.stem for path in folder.iterdir()} - {*OURS}
    others = [other for other in _folders if other != folder]
    for key, module in list(sys.modules.items()):
        top = _top(key)
        is_of_same_name = top == _top(name) and not _is_of(module, folder)
        # Another folder's `helper.py` must not stand for the one beside this module.
        if is_of_same_name or (top in beside and any(_is_of_top(module, other, top) for other in others)):
            del sys.modules[key]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # last: for what the module imports later


def _import_of_same_name(folder: Path, name: str) -> ModuleType:
    """Import from a user's `models.py` or `models/` (or bench, ...), which stands for ours only meanwhile.

    In it, `models.x` is the user's, if there is one, else ours: it needs the suite's classes too.
    """
    top = _top(name)
    ours = _taken_out(top)
    sys.modules.update(_packages.get((folder, top), {}))  # another part of it was imported before
    lender = _Lender(top, ours)
    sys.meta_path.append(lender)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        if top not in sys.modules:
            spec = _spec_of(folder, top)
            sys.modules[top] = importlib.util.module_from_spec(spec)
            if spec.loader is not None:
                spec.loader.exec_module(sys.modules[top])
        module = importlib.import_module(name)
        _packages[folder, top] = {key: sys.modules[key] for key in sys.modules if _top(key) == top}
        return module
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(lender)
        _taken_out(top)
        sys.modules.update(ours)


def _spec_of(folder: Path, top: str) -> ModuleSpec:
    """Of a user's `models/__init__.py`, `models.py`, or `models/` without either."""
    files = (folder / top / "__init__.py", folder / f"{top}.py")
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        spec = ModuleSpec(top, loader=None, is_package=True)
    else:
        spec = importlib.util.spec_from_file_location(top, file)
        assert spec is not None
    spec.submodule_search_locations = [str(folder / top)]  # of models.py too, to which `models.x` is lent
    return spec


def _taken_out(top: str) -> dict[str, ModuleType]:
    """Remove a top-level package and its modules from `sys.modules`; returns them."""
    return {key: sys.modules.pop(key) for key in [key for key in sys.modules if _top(key) == top]}


class _Lender(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the suite's own module where a user's package of the same name has none: the same object, not a copy."""

    def __init__(self, top: str, ours: dict[str, ModuleType]) -> None:
        self._top, self._ours = top, ours
        self._specs: dict[str, Any] = {}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if _top(fullname) != self._top or fullname == self._top:
            return None
        theirs = _taken_out(self._top)
        sys.modules.update(self._ours)
        sys_path = sys.path.pop(0)
        sys.meta_path.remove(self)
        try:
            self._ours[fullname] = importlib.import_module(fullname)
        except ModuleNotFoundError:
            return None
        finally:
            sys.meta_path.append(self)
            sys.path.insert(0, sys_path)
            self._ours.update(_taken_out(self._top))
            sys.modules.update(theirs)
        self._specs[fullname] = self._ours[fullname].__spec__
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: Any) -> ModuleType:
        return self._ours[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._specs[module.__name__]  # importlib has put another one there


def _top(name: str) -> str:
    return name.partition(".")[0]


def _holds(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or any((folder / top).glob("*.py"))


def _is_of(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
    return file is not None and Path(file).resolve().is_relative_to(folder)


def _is_of_top(module: ModuleType, folder: Path, top: str) -> bool:
    return _is_of(module, folder / top) or _is_of(module, folder / f"{top}.py")
