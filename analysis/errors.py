"""The error of this package, apart from everything that is slow to import."""

from __future__ import annotations


class ResultsError(Exception):
    """Missing, damaged or incomparable results; one line says what, where and what is accepted."""
