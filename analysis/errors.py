"""The error of this package, apart from everything that is slow to import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ResultsError(Exception):
    """Missing, damaged or incomparable results; one line says what, where and what is accepted."""


@contextmanager
def about(what: object) -> Iterator[None]:
    """Begin every ResultsError of a `with` block with the file or folder that it is about, if it does not yet."""
    try:
        yield
    except ResultsError as error:
        if str(error).startswith(str(what)):
            raise
        raise type(error)(f"{what}: {error}") from None
