"""Work by several processes: the results of one, in their order."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis.errors import ResultsError
from analysis.processes import by_all_processors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have one process do all")


@pytest.fixture(params=[1, 3])
def processors(request, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(request.param)))
    return request.param


def test_results_are_in_the_order_of_the_items(processors):
    held = {"a": 1}  # a closure cannot be sent, only inherited
    found = list(by_all_processors(lambda item: (item, held["a"], os.getpid()), range(50)))
    assert [item for item, *_ in found] == list(range(50))
    assert {held for _, held, _ in found} == {1}
    assert (os.getpid() in {process for *_, process in found}) is (processors == 1)


def test_the_first_error_is_raised(processors):
    def inverse(item):
        if item in (5, 9):
            raise ValueError(f"{item} has none")
        return item

    with pytest.raises(ValueError, match="5 has none"):
        list(by_all_processors(inverse, range(50)))


def test_few_items_are_done_here(processors):
    assert set(by_all_processors(lambda item: os.getpid(), range(7), least=4)) == {os.getpid()}
    assert list(by_all_processors(str, [])) == []


def test_a_process_that_is_killed_is_said(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    with pytest.raises(ResultsError, match="one of 2 processes that shared the work was killed"):
        list(by_all_processors(lambda item: os.kill(os.getpid(), signal.SIGKILL), range(10)))


ASLEEP = """
import os, sys, time
from pathlib import Path
from analysis.processes import by_all_processors
os.sched_getaffinity = lambda process: {0, 1}

def sleep(item):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(600)

list(by_all_processors(sleep, [1, 2]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_none_outlives_the_process_that_began_them(number, tmp_path):
    root = Path(__file__).parents[2]
    first = subprocess.Popen([sys.executable, "-c", ASLEEP, tmp_path], cwd=root)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    others = [int(path.name) for path in tmp_path.iterdir()]
    assert all(map(lives, others))
    first.send_signal(number)
    first.wait()
    wait_until(lambda: not any(map(lives, others)))


def test_an_interrupt_of_the_terminal_is_left_to_the_first_process(processors):
    found = set(by_all_processors(lambda item: signal.getsignal(signal.SIGINT), range(9)))
    assert (found == {signal.SIG_IGN}) is (processors > 1)


def lives(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
