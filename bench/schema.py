"""How YAML becomes checked, frozen sections: strict types, unknown keys refused, errors in one line.

A section whose keys depend on the part that it names (a model family, an objective, a data set) is a `PartSection`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Hashable
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args, get_type_hints

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.errors import InputError

# As large as tables and generators of random numbers take.
BOUND = 2**63
PositiveInt = Annotated[int, Field(gt=0, lt=BOUND)]
# Beyond, compute and time that are planned from it are no numbers any more.
Count = Annotated[int, Field(gt=0, le=10**15)]

# Of a field of a part's options: `folder: str = dataclasses.field(metadata=NO_RESULT)`.
NO_RESULT = {"result": False}


class Section(BaseModel):
    """Frozen, strictly typed, unknown keys and infinities refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PartSection(Section):
    """A section whose other keys are the options of the part that it names: a frozen dataclass with defaults."""

    model_config = ConfigDict(extra="allow")
    # The key that names the part.
    NAME: ClassVar[str] = "name"

    @classmethod
    def options_type(cls, name: str) -> type:
        """The dataclass of a part's options.

        Raises:
            ValueError: no such part.
        """
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _with_options(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        name = content.get(cls.NAME, cls.model_fields[cls.NAME].default)
        if not isinstance(name, str):
            return content  # missing, or of another type: pydantic says so
        try:
            kind = cls.options_type(name)
        except ValueError as error:
            raise ValueError(f"{cls.NAME}: {error}") from None
        given = {key: value for key, value in content.items() if key != cls.NAME}
        return {cls.NAME: name, **asdict(check_options(kind, given, cls.NAME))}

    @property
    def options(self) -> Any:
        """The part's options, an instance of its dataclass."""
        given = self.model_dump()
        name = given.pop(self.NAME)
        return self.options_type(name)(**given)

    def non_default(self) -> dict[str, Any]:
        """The options that are not the part's defaults: what belongs into a hash.

        Those that decide no result, such as a path, are fields with metadata `NO_RESULT`, and are left out.
        """
        options = self.options
        return {
            f.name: getattr(options, f.name)
            for f in fields(options)
            if f.metadata.get("result", True) and getattr(options, f.name) != f.default
        }

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def check_options(kind: type, given: dict[Any, Any], *also: str) -> Any:
    """Options as an instance of the dataclass `kind`, strictly typed.

    `also`: further keys of the section, for the message.

    Raises:
        ValueError: `key: what is wrong`.
    """
    if not is_dataclass(kind):
        raise ValueError(f"the options of a part are {kind!r}; needed: a frozen dataclass")
    names = [field.name for field in fields(kind)]
    # Run folders of earlier versions hold the keys of all parts, null where they did not apply.
    given = {key: value for key, value in given.items() if key in names or value is not None}
    unknown = [str(key) for key in given if key not in names]
    if unknown:
        raise ValueError(f"{unknown[0]}: unknown key; accepted: {', '.join([*also, *names]) or 'none'}")
    try:
        checked = _checker(kind).model_validate(given)
        return kind(**{name: getattr(checked, name) for name in names})
    except ValidationError as error:
        first, *more = error.errors()
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise ValueError(f"{key}: missing") from None
        others = f" (and {len(more)} more)" if more else ""
        raise ValueError(f"{key}: {first['msg']}, got {first['input']!r}{others}") from None


@cache
def _checker(kind: type) -> type[BaseModel]:
    """The dataclass as a strict pydantic model."""
    types = get_type_hints(kind, include_extras=True)
    columns: Any = {
        field.name: (types[field.name], ... if field.default is MISSING else field.default) for field in fields(kind)
    }
    return pydantic.create_model(kind.__name__, __base__=Section, **columns)


def describe(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first problem of a validation error as `key: what is wrong` (and how many more there are)."""
    first, *more = error.errors()
    path = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = f"unknown key; accepted: {', '.join(_fields_at(schema, path[:-1]))}"
    elif first["type"] == "missing":
        message = "missing"
    elif first["type"] == "model_type":
        message = f"expected a mapping with the keys {', '.join(_fields_at(schema, path))}, got {first['input']!r}"
    elif first["type"] == "tuple_type":
        message = f"expected a list, got {first['input']!r}"
    elif first["type"] != "value_error":
        message = f"{message}, got {first['input']!r}"
    others = f" (and {len(more)} more)" if more else ""
    if not path:
        return f"{message}{others}"
    separator = ": "
    # A section's own check begins its message with the key, as `patch_size: ...`, or the place in a list, `[2]: ...`.
    if first["type"] == "value_error" and (own := re.match(r"[a-z_]+: |\[\d+\][.:]", message)):
        separator = "" if own[0].startswith("[") else "."
    return f"{'.'.join(path)}{separator}{message}{others}"


def _fields_at(schema: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part in schema.model_fields:  # else the position in a list
            annotation = schema.model_fields[part].annotation
            inner = (annotation, *get_args(annotation))  # of `Section | None` and `tuple[Section, ...]`
            sections = [a for a in inner if isinstance(a, type) and issubclass(a, BaseModel)]
            if not sections:
                break
            schema = sections[0]
    return list(schema.model_fields)


def _written(text: str, keys: Collection[str], content: dict[Any, Any]) -> dict[str, str]:
    """Those values of `content` at `keys` that are no text, as they stand in `text`."""
    if all(isinstance(content.get(key), str | None) for key in keys):
        return {}
    nodes = {key.value: value for key, value in yaml.compose(text, Loader=_FastLoader).value if key.value in keys}
    null = "tag:yaml.org,2002:null"
    return {key: node.value for key, node in nodes.items() if isinstance(node, yaml.ScalarNode) and node.tag != null}


class _Rules(yaml.constructor.SafeConstructor):
    """Numbers as YAML 1.2 has them, where 1.1 reads other things: 1e-4 is one, 4e5 is whole, 0400 is no octal number.

    A key that is given twice is refused.
    """

    def construct_yaml_float(self, node: Any) -> float:
        value = super().construct_yaml_float(node)
        whole = "e" in node.value.lower() and value.is_integer() and abs(value) < 2**53
        return int(value) if whole else value  # a recipe's `steps: 4e5`

    def construct_yaml_int(self, node: Any) -> int:
        return int(node.value) if re.fullmatch(r"[-+]?0\d+", node.value) else super().construct_yaml_int(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Loader(_Rules, yaml.SafeLoader):
    """For the messages of its parser, which are the better ones."""


_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _FastLoader(_Rules, _Fast):
    """Ten times as fast."""


class _Dumper(yaml.SafeDumper):
    """Quotes a text, such as the hash 123e4567, that `_Loader` would read as a number."""


_FLOAT = re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
for _yaml in (_Loader, _FastLoader, _Dumper):
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))
_rules: Any = _Rules
_rules.add_constructor("tag:yaml.org,2002:float", _Rules.construct_yaml_float)
_rules.add_constructor("tag:yaml.org,2002:int", _Rules.construct_yaml_int)


def content_hash(content: dict[str, Any]) -> str:
    """SHA-256, in hex, of a mapping of plain values, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def dump_yaml(content: Any, leaves_in_line: bool = False) -> str:
    """YAML that `load_yaml` reads as the same content. `leaves_in_line`: a line for what holds plain values alone."""
    style: dict[str, Any] = {"default_flow_style": None, "width": 10_000} if leaves_in_line else {}
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, **style)


def parse_yaml(text: str) -> Any:
    """A value as a file that `load_yaml` reads would have it.

    Raises:
        ValueError: not YAML, in one line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"not YAML ({str(error).splitlines()[0]})") from None


def load_yaml(path: Path, texts: Collection[str] = ()) -> Any:
    """Read a YAML file safely.

    texts: keys of the whole file whose values are text, whatever they look like: `id: 123e4567`.

    Raises:
        InputError: no such file, or not YAML, with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        try:
            content = yaml.load(text, Loader=_FastLoader)
        except (yaml.YAMLError, ValueError, RecursionError):
            content = yaml.load(text, Loader=_Loader)
        return content if not texts or not isinstance(content, dict) else {**content, **_written(text, texts, content)}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{path}: line {line}: {problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
