"""Files that users, editors, crashes and strangers leave: a whole file, changed in one place or a few, by its kind.

Text formats are changed as trees (a value of another type, a key gone, twice or new) and as bytes; binary ones as what
their headers declare, and as bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

HUGE = 2**40
NASTY = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.0, -0.0, 0.5, 1e308, 5e-324,
    math.nan, math.inf, -math.inf, "", " ", "nan", "NA", "None", "null", "1e5", "4e5", "007", "0x10", "1,5", "true",
    "a\nb", "\r\n", "\x00", "\x1b[31m", "\ufeff", "\ud800", "é" * 300, "$x_1$", "<b>", "../../etc", "/", "%s", "{}",
    "os:system", "a:b:c", "12:30:00", "2024-01-01", [], [None], {}, {"": None}, [[[[]]]], {"a": {"b": []}},
]  # fmt: skip
SPLICED = [
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n",
    b"{",
    b"[" * 3000,
    b"'",
    b'"',
    b"9" * 5000,
    b": ",
    b"\x1b[2J",
]

values = st.one_of(st.sampled_from(NASTY), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
))  # fmt: skip


def disturb(draw: Draw, path: Path) -> None:
    """Change the file in one to three places."""
    data = path.read_bytes()
    by_kind = _BY_SUFFIX.get(path.suffix)
    for _ in range(draw(st.integers(1, 3))):
        if by_kind is None or draw(st.integers(0, 3)) == 0:
            data = changed_bytes(draw, data)
            continue
        try:
            data = by_kind(draw, data)
        except Exception:  # it is no longer a file of its kind
            data = changed_bytes(draw, data)
    path.write_bytes(data)


def changed_bytes(draw: Draw, data: bytes) -> bytes:
    """Flipped, cut off, cut out, repeated or added bytes."""
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    length = draw(st.integers(1, 64))
    change = draw(st.sampled_from(["flip", "cut off", "cut out", "repeat", "splice"]))
    if change == "flip" and data:
        return data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :]
    if change == "cut off":
        return data[:at]
    if change == "cut out":
        return data[:at] + data[at + length :]
    if change == "repeat":
        return data[: at + length] + data[at:]
    return data[:at] + draw(st.sampled_from(SPLICED)) + data[at:]


def changed_tree(draw: Draw, tree: Any) -> Any:
    """JSON's or YAML's content with a value replaced, a key removed, renamed or added."""
    places = list(_places(tree))
    if not places or draw(st.integers(0, 30)) == 0:
        return draw(values)
    container, key = places[draw(st.integers(0, len(places) - 1))]
    change = draw(st.sampled_from(["replace", "replace", "remove", "add", "text"]))
    if change == "remove":
        del container[key]
    elif change == "text":
        container[key] = str(container[key])
    elif change == "replace":
        container[key] = draw(values)
    elif isinstance(container, dict):
        container[draw(st.text(max_size=8))] = draw(values)
    else:
        container.insert(key, draw(values))
    return tree


def _places(tree: Any) -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def _json(draw: Draw, data: bytes) -> bytes:
    return json.dumps(changed_tree(draw, json.loads(data))).encode()


def _yaml(draw: Draw, data: bytes) -> bytes:
    return yaml.safe_dump(changed_tree(draw, yaml.safe_load(data)), sort_keys=False).encode()


def _jsonl(draw: Draw, data: bytes) -> bytes:
    lines = data.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    change = draw(st.sampled_from(["value", "value", "remove", "twice", "swap"]))
    if change == "value":
        lines[at] = _json(draw, lines[at])
    elif change == "remove":
        del lines[at]
    elif change == "twice":
        lines.insert(at, lines[at])
    else:
        lines[at], lines[0] = lines[0], lines[at]
    return b"\n".join(lines) + b"\n"


def _cells(separator: str) -> Callable[[Draw, bytes], bytes]:
    def changed(draw: Draw, data: bytes) -> bytes:
        rows = list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=separator))
        row = rows[draw(st.integers(0, len(rows) - 1))]
        at = draw(st.integers(0, len(row) - 1))
        change = draw(st.sampled_from(["value", "value", "value", "remove", "add", "row"]))
        if change == "value":
            row[at] = str(draw(values))
        elif change == "remove":
            del row[at]
        elif change == "add":
            row.insert(at, str(draw(values)))
        else:
            rows.append(list(row))
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=separator, lineterminator="\n").writerows(rows)
        return out.getvalue().encode()

    return changed


DTYPES = ["|O", "<f2", "<f4", "<f8", ">f8", "|b1", "<i8", "|u1", "<u8", "<U8", "|S4", "<c8", "<M8[s]", "V8", "nonsense"]


def _npy(draw: Draw, data: bytes) -> bytes:
    """Another type, order or shape declared, as strangers' files have them; or other values."""
    size = struct.unpack("<H", data[8:10])[0]
    header: dict[str, Any] = eval(data[10 : 10 + size], {"__builtins__": {}})
    body = data[10 + size :]
    change = draw(st.sampled_from(["descr", "order", "shape", "huge", "values", "key"]))
    if change == "descr":
        header["descr"] = draw(st.sampled_from(DTYPES))
    elif change == "order":
        header["fortran_order"] = draw(st.sampled_from([True, None, 3]))
    elif change == "shape":
        header["shape"] = tuple(draw(st.lists(st.integers(-1, 70), max_size=5)))
    elif change == "huge":
        header["shape"] = (HUGE, *header["shape"][1:])
    elif change == "key":
        header[draw(st.sampled_from(["shape", "descr", "more"]))] = draw(st.sampled_from([None, (), "x", HUGE]))
    else:
        array = np.frombuffer(body, dtype=header["descr"]).copy()
        if array.dtype.kind == "f" and array.size:
            array[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([math.nan, math.inf, -1e300, 0.0]))
        body = array.tobytes()
    text = repr(header).encode().ljust(-(-(len(repr(header)) + 11) // 64) * 64 - 11) + b"\n"
    return data[:8] + struct.pack("<H", len(text)) + text + body


def _npz(draw: Draw, data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = draw(st.integers(0, len(members) - 1))
    name, content = members[at]
    change = draw(st.sampled_from(["array", "array", "array", "remove", "rename", "twice", "compress", "bytes"]))
    if change == "array":
        members[at] = name, _npy(draw, content)
    elif change == "remove":
        del members[at]
    elif change == "rename":
        members[at] = draw(st.sampled_from(["arr_0.npy", "mu.npy", "x.txt", "../x.npy", "sigma.npy"])), content
    elif change == "twice":
        members.append((name, content))
    elif change == "bytes":
        members[at] = name, changed_bytes(draw, content)
    out = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if change == "compress" else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()


def _safetensors(draw: Draw, data: bytes) -> bytes:
    size = struct.unpack("<Q", data[:8])[0]
    body = data[8 + size :]
    if draw(st.integers(0, 5)) == 0:
        return struct.pack("<Q", draw(st.sampled_from([0, 1, size - 1, size + 1, HUGE, 2**63]))) + data[8:]
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if name != "__metadata__"]
    tensor = header[names[draw(st.integers(0, len(names) - 1))]]
    change = draw(st.sampled_from(["dtype", "shape", "huge", "tree"]))
    if change == "dtype":
        tensor["dtype"] = draw(st.sampled_from(["I8", "U8", "F8_E4M3", "BF16", "F16", "F64", "BOOL", "I64", "X"]))
    elif change == "shape":
        tensor["shape"] = draw(st.lists(st.integers(0, 70), max_size=4))
    elif change == "huge":
        tensor["shape"] = [HUGE]
        tensor["data_offsets"] = [0, 4 * HUGE]
    else:
        header = changed_tree(draw, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _parquet(draw: Draw, data: bytes) -> bytes:
    """A column gone, of another type, with gaps, or rows given twice: what a user's own script leaves."""
    import pandas as pd

    table = pd.read_parquet(io.BytesIO(data))
    column = table.columns[draw(st.integers(0, len(table.columns) - 1))]
    change = draw(st.sampled_from(["drop", "category", "text", "gaps", "twice", "none", "value", "rename"]))
    if change == "drop":
        table = table.drop(columns=column)
    elif change in ("category", "text"):
        table[column] = table[column].astype("category" if change == "category" else "str")
    elif change == "gaps":
        table[column] = None
    elif change == "twice":
        table = pd.concat([table, table], ignore_index=True)
    elif change == "none":
        table = table.iloc[:0]
    elif change == "rename":
        table = table.rename(columns={column: "x"})
    else:
        value = draw(st.sampled_from([None, 0, -1, 1e308, "", "x"]))
        table[column] = table[column].astype("object")
        table.loc[0, column] = value
    out = io.BytesIO()
    table.to_parquet(out)
    return out.getvalue()


def _png(draw: Draw, data: bytes) -> bytes:
    """A header that declares another size, depth or colour type, with the right checksum."""
    change = draw(st.sampled_from(["size", "depth", "colour"]))
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if change == "size":
        width, height = draw(st.sampled_from([(0, height), (2**31 - 1, 2**31 - 1), (60000, 60000), (width, 1)]))
    elif change == "depth":
        depth = draw(st.sampled_from([1, 2, 4, 16, 77]))
    else:
        colour = draw(st.sampled_from([0, 3, 4, 6, 9]))
    header = b"IHDR" + struct.pack(">IIBB", width, height, depth, colour) + data[26:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


_BY_SUFFIX: dict[str, Callable[[Draw, bytes], bytes]] = {
    ".json": _json,
    ".yaml": _yaml,
    ".jsonl": _jsonl,
    ".csv": _cells(","),
    ".txt": _cells("|"),
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".png": _png,
}
