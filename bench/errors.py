"""The two ways a command ends early, told apart by who can mend it."""

from __future__ import annotations


class InputError(Exception):
    """Something the user gave is wrong. One line: what, where (file and key), what is accepted. Exit status 2."""


class RunError(Exception):
    """A run could not go on (diverged, disk full). One line: what happened and what was saved. Exit status 1."""
