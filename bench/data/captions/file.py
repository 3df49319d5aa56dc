"""A file of captions: of each image of a folder a line of JSON, {"image": "dog/1.jpg", "caption": "a dog in the snow"}.

`image` is the path under the folder, with forward slashes. Lines may be in any order; blank ones are passed over.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from bench.data.image_folder import ImageFolder
from bench.errors import InputError
from bench.files.names import shown

LINE = '{"image": "PATH", "caption": "TEXT"}'
KEYS = {"image", "caption"}
NAMED = 3  # of images without a caption


def read_caption_file(path: Path, images: ImageFolder) -> tuple[str, ...]:
    """The caption of each image, in the order of the list.

    Raises:
        InputError: the file cannot be read, a line is not as above, names no image or one that has a caption already,
            or an image has none.
    """
    positions = {_as_utf8(image): position for position, image in enumerate(images.paths)}
    captions: list[str | None] = [None] * len(images.paths)
    lines: dict[int, int] = {}
    for number, line in enumerate(_read(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        image, caption = _parse(line, where)
        position = positions.get(image)
        if position is None:
            raise InputError(
                f"{where}: image {shown(image)} is not in {images.root}; accepted: paths under it, such as "
                f"{shown(images.paths[0])}"
            )
        if position in lines:
            raise InputError(f"{where}: image {shown(image)} has a caption in line {lines[position]} already")
        lines[position], captions[position] = number, caption
    missing = [shown(images.paths[position]) for position, caption in enumerate(captions) if caption is None]
    if missing:
        some = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        raise InputError(f"{path}: no caption of {len(missing):,} of {len(captions):,} images of {images.root}: {some}")
    return tuple(caption for caption in captions if caption is not None)


def _read(path: Path) -> list[str]:
    try:
        # Names of files that are not UTF-8 are read as the system's are; only LF ends a line of JSON.
        return path.read_bytes().decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); accepted: a file of lines {LINE}") from None


def _parse(line: str, where: str) -> tuple[str, str]:
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no JSON ({error}); accepted: {LINE}") from None
    if not isinstance(content, dict) or content.keys() != KEYS:
        has = f"has the keys {', '.join(map(str, content))}" if isinstance(content, dict) else "is no mapping"
        raise InputError(f"{where}: {has}; accepted: {LINE}")
    for key in sorted(KEYS):
        if not isinstance(content[key], str) or not content[key].strip():
            raise InputError(f"{where}: {key}: {content[key]!r}; accepted: a text that is not empty")
    try:
        content["caption"].encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: caption: is not UTF-8") from None
    return content["image"], content["caption"]


def _as_utf8(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "surrogateescape")
