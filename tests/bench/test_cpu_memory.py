"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import ctypes, resource
from bench.cpu.memory import keep_freed_memory
keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def step():
    blocks = [libc.malloc(48 * 2**20) for _ in range(4)]
    for block in blocks:
        libc.memset(block, 1, 48 * 2**20)
    for block in blocks:
        libc.free(block)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
before = faults()
for _ in range(3):
    step()
print(faults() - before)
"""


def page_faults(**environment: str) -> int:
    """Pages that the system hands out in three steps, each of which takes and frees 192 MiB, after a first one."""
    set_here = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", STEPS]
    return int(subprocess.run(command, env={**set_here, **environment}, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_steps_take_no_page_twice_unless_the_environment_has_it_otherwise() -> None:
    assert page_faults() < 100
    assert page_faults(MALLOC_TRIM_THRESHOLD_="131072") > 1000
