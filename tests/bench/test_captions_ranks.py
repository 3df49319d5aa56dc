"""Captions shared by ranks: they train what one process trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from captions_family import captioned
from ranks import on_ranks
from trainings import assert_equal_but_for_the_order_of_sums, last_state, trained

from bench.parallel import Ranks


def _train(ranks: Ranks, folder: Path) -> None:
    trained(captioned(), folder, 1, ranks)


@pytest.mark.slow
def test_two_ranks_train_captions_as_one_process_does(tmp_path: Path) -> None:
    one, *reordered = (trained(captioned(), tmp_path / str(pieces), pieces) for pieces in (1, 2, 4, 8))
    assert on_ranks(2, _train, tmp_path / "ranks") == [None, None]
    assert_equal_but_for_the_order_of_sums(one, reordered, last_state(captioned(), tmp_path / "ranks"))
