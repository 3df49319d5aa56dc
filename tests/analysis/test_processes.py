"""Work by several processes: the results of one, in their order."""

import os

import pytest

from analysis.processes import by_all_processors


@pytest.fixture(params=[1, 3])
def processors(request, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: request.param)
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
