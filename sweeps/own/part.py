"""A part of one's own in a file: found, and kept as it is now, under a name that tells its content.

A recipe's id holds the path of a part. Here the path has a hash of the part's source in it, so that a changed file is
another recipe, and the copy beside the runs is what they are trained with, whatever becomes of the file meanwhile.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from bench.errors import InputError, RunError
from bench.files.atomic import write_bytes
from bench.objectives import OBJECTIVES
from models.designs import DESIGNS
from models.parts import FORBIDDEN, OURS, ROOT, Seam, look_in, own_module
from models.registry import FAMILIES

Kind = Literal["block", "family", "objective"]
KINDS: dict[Kind, Seam] = {"block": DESIGNS, "family": FAMILIES, "objective": OBJECTIVES}
CALLED: dict[Kind, str] = {"block": "block design", "family": "model family", "objective": "objective"}
DIGITS_OF_HASH = 8


@dataclass(frozen=True)
class OwnPart:
    """A part of one's own, as it was when it was kept.

    Attributes:
        kind: by its contract.
        stem, name: of the file, and of the part in it.
        folder: of the copy and of the modules beside it that it imports.
        module: of the copy, such as my_block_3f2a91c0.
    """

    kind: Kind
    stem: str
    name: str
    folder: Path
    module: str

    @property
    def path(self) -> str:
        """For recipes: "my_block_3f2a91c0:MEAN"."""
        return f"{self.module}:{self.name}"

    @property
    def shown(self) -> str:
        """For people: "my_block:MEAN"."""
        return f"{self.stem}:{self.name}"

    @property
    def called(self) -> str:
        return CALLED[self.kind]

    @property
    def part(self) -> Any:
        """The object."""
        return KINDS[self.kind].find(self.path)

    def in_words(self, text: str) -> str:
        """A message with the file's own name for the copy's."""
        return text.replace(self.module.rpartition(".")[2], self.stem)


def keep_part(given: str, name: str | None, kind: Kind | None, into: Path) -> OwnPart:
    """Find a part and keep a copy of it in a folder of `into`.

    Args:
        given: a file, file:Name, or module:Name.
        name: of the part, where the file has several.
        kind: where it could be of several.

    Raises:
        InputError: one line: no such file or part, several, own code is forbidden, or it does not import.
    """
    if os.environ.get(FORBIDDEN):
        raise InputError(f"{given}: code of one's own, which --no-own-parts ({FORBIDDEN}) forbids")
    where, named = _separated(given)
    if name and named and name != named:
        raise InputError(f"{given} --name {name}: two names; accepted: one")
    root, file = _located(where, given)
    try:
        copy = _copied(root, file, into)
    except RunError as error:
        raise InputError(f"{into}: cannot be written ({error}); give another folder with --runs") from None
    look_in(copy.folder)
    try:
        module = own_module(copy.module)
        return _chosen(module, copy, name or named, kind)
    except ValueError as error:
        hashed = copy.module.rpartition(".")[2]
        raise InputError(
            f"{given}: {str(error).removeprefix(f'{copy.module!r}: ').replace(hashed, file.stem)}"
        ) from None


def _separated(given: str) -> tuple[str, str | None]:
    """The file or module, and the name after the last colon."""
    if Path(given).is_file():
        return given, None
    where, colon, name = given.rpartition(":")
    if not colon:
        where, name = given, ""
    if colon and not name.isidentifier():
        raise InputError(f"{given}: {name!r} is no name; accepted: my_block.py, my_block.py:Name, or my_module:Name")
    return where, name or None


def _located(where: str, given: str) -> tuple[Path, Path]:
    """The folder from which a file's module is imported, and the file."""
    file = Path(where)
    accepted = "accepted: a Python file, such as my_block.py, or my_module:Name"
    if file.suffix == ".py" or file.exists():
        if not file.is_file() or file.suffix != ".py":
            raise InputError(f"{where}: {'no such file' if not file.exists() else 'no Python file'}; {accepted}")
        file = file.resolve()
        root = file.parent
        while (root / "__init__.py").is_file() and root.name.isidentifier():
            root = root.parent
    elif ":" in given and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", where):
        root, file = _of_module(where)
    else:
        raise InputError(f"{given}: no such file; {accepted}")
    if file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0].removesuffix(".py") in OURS:
        raise InputError(f"{given}: one of ditbench's own files; accepted: one of yours")
    if "." in file.stem:
        raise InputError(f"{given}: a module's name has no dot; rename the file")
    return root, file


def _of_module(name: str) -> tuple[Path, Path]:
    """As `_located`, of a module in the working folder, else of what is installed."""
    parts = name.split(".")
    roots = [Path.cwd()]
    spec = importlib.util.find_spec(parts[0])
    if spec is not None:
        places = spec.submodule_search_locations or [str(spec.origin)]
        roots += [Path(place).parent for place in places]
    for root in roots:
        base = root.joinpath(*parts)
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return root.resolve(), file.resolve()
    raise InputError(f"{name}: no Python file of it in {Path.cwd()}, nor installed")


@dataclass(frozen=True)
class _Copy:
    folder: Path
    module: str
    file: Path


def _copied(root: Path, file: Path, into: Path) -> _Copy:
    """A file and what it imports from beside it, in a folder that is named by their content."""
    sources = _sources(root, file)
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(f"{path.relative_to(root)}\n{len(sources[path])}\n".encode() + sources[path])
    stem = re.sub(r"\W", "_", file.stem if file.stem != "__init__" else file.parent.name)
    hashed = f"{stem if not stem[0].isdigit() else f'_{stem}'}_{digest.hexdigest()[:DIGITS_OF_HASH]}"
    folder = (into / hashed).resolve()
    packages = file.relative_to(root).parent.parts
    for path, content in sources.items():
        copy = folder / path.relative_to(root)
        if path == file:
            write_bytes(copy.with_name(f"{hashed}.py"), content)
        if path != file or packages:  # whose __init__ may import it
            write_bytes(copy, content)
    return _Copy(folder, ".".join([*packages, hashed]), file)


def _sources(root: Path, file: Path) -> dict[Path, bytes]:
    """A file and the files under `root` that it imports, with their content. A user's own `models` is not ours."""
    its_own = file.relative_to(root).parts[0].removesuffix(".py")
    found: dict[Path, bytes] = {}
    todo = [file]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found[path] = path.read_bytes()
        try:
            tree = ast.parse(found[path])
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            said = error.msg if isinstance(error, SyntaxError) else error
            raise InputError(f"{path.relative_to(root)}{line}: no Python ({said})") from None
        package = path.relative_to(root).parent.parts
        for name in [package, *_imported(tree, package)]:
            if name and name[0] in OURS and name[0] != its_own:
                continue
            for depth in range(1, len(name) + 1):
                base = root.joinpath(*name[:depth])
                todo += filter(Path.is_file, (base.with_name(f"{base.name}.py"), base / "__init__.py"))
    return found


def _imported(tree: ast.AST, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Dotted names of modules that a module of this package imports, or of what is in them."""
    names: list[tuple[str, ...]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            names += [(*above, *module, alias.name) for alias in node.names if alias.name != "*"] or [(*above, *module)]
    return names


def _chosen(module: ModuleType, copy: _Copy, name: str | None, kind: Kind | None) -> OwnPart:
    """The one part of a module that has the contract of a kind, or the one that is named."""
    there = _own_names(module, copy)
    names = list(there) if name is None else [name]
    if name is not None and not hasattr(module, name):
        raise ValueError(f"has no {name!r}; it has {', '.join(there) or 'nothing'}")
    kinds: list[Kind] = [kind] if kind else [*KINDS]
    all_kinds: dict[str, list[Kind]] = {
        each: [k for k in kinds if not _lacks(getattr(module, each), k)] for each in names
    }
    fitting: dict[str, list[Kind]] = {each: found for each, found in all_kinds.items() if found}
    if not fitting:
        raise ValueError(_none(module, names, there, kind))
    if len(fitting) > 1:
        said = ", ".join(f"{each} ({CALLED[found[0]]})" for each, found in fitting.items())
        raise ValueError(f"has several parts, {said}; choose one with --name")
    ((chosen, found),) = fitting.items()
    if len(found) > 1:
        raise ValueError(f"{chosen} could be any of {', '.join(found)}; choose one with --as")
    return OwnPart(found[0], copy.file.stem, chosen, copy.folder, copy.module)


def _own_names(module: ModuleType, copy: _Copy) -> dict[str, Any]:
    """What a module itself defines, by name; an object of two names once."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(copy.file.read_bytes()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if not name.startswith("_") and name not in imported and not any(value is other for other in found.values()):
            found[name] = value
    return found


def _lacks(part: Any, kind: Kind) -> list[str]:
    return [attribute for attribute in KINDS[kind].contract if not hasattr(part, attribute)]


def _none(module: ModuleType, names: list[str], there: dict[str, Any], kind: Kind | None) -> str:
    """Why none of these is a part: what the nearest lacks, or what there is."""
    kinds: list[Kind] = [kind] if kind else [*KINDS]
    missing: list[tuple[float, str, Kind]] = [
        (len(_lacks(getattr(module, name), k)) / len(KINDS[k].contract), name, k) for name in names for k in kinds
    ]
    share, name, near = min(missing, default=(1.0, "", kinds[0]))
    if name and (share <= 0.5 or len(names) == len(kinds) == 1):
        lacks = _lacks(getattr(module, name), near)
        why = "it has to be a class" if lacks == ["__call__"] else f"it lacks {', '.join(lacks)}"
        return f"{name} is no {CALLED[near]}: {why}"
    wanted = CALLED[kind] if kind else "block design, model family or objective"
    has = (
        f"{names[0]} is no {wanted}" if len(names) == 1 else f"has no {wanted}; it has {', '.join(there) or 'nothing'}"
    )
    return f"{has}; a block's class becomes a design by BlockDesign(condition, block, final_layer), see CONTRIBUTING.md"
