"""Memory that a step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import os

# What mallopt calls them (<malloc.h>), and the most of each that an int holds in whole MiB.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
MOST = 2047 * 2**20
PAD = 64 * 2**20
SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed. By itself it gives them back to the system, which hands every page
    out again, zeroed, as the next step touches it.

    Where the environment says something of glibc's allocator, that holds; other allocators are left alone.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version") or any(name in os.environ for name in SETTINGS):
        return
    for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, MOST), (TOP_PAD, PAD)):
        library.mallopt(option, value)
