"""Balanced samples of captions: of all classes, however few they are and however the data set is sorted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captioned_latents import OF_CAPTIONS, SECTION, captions, images, vector, write_captions, write_latents
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import DatasetFacts, PixelDataset
from bench.data.captions.arrays import by_turns
from bench.data.captions.digits import DIGITS_CAPTIONS
from bench.recipe.evaluation import EvaluationConfig
from bench.recipe.parts import DataConfig, DiffusionConfig
from bench.sample import ChunkedNoise, Sampling, _condition
from models.conditions import Captions
from models.parts import NoOptions

CPU = torch.device("cpu")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_sorted_captions_are_taken_by_turns(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = by_turns(labels)
    assert order is not None and sorted(order) == [*range(len(labels))]
    for number in range(1, len(labels) + 1):
        drawn = Counter(labels[order[:number]].tolist())
        for one in range(len(counts)):  # no class is behind another that has no more captions than it
            assert all(drawn[one] >= min(counts[one], drawn[other] - 1) for other in range(len(counts)))


def test_captions_that_are_mixed_are_taken_as_they_come() -> None:
    assert by_turns(np.array([0, 2, 1, 1, 0])) is None
    bank: Any = DIGITS_CAPTIONS.caption_bank("digits-captions", NoOptions())
    assert bank.order is None


def condition(bank: Any, start: int, stop: int) -> Captions:
    evaluation = EvaluationConfig(num_samples=stop, labels="balanced", sampling_steps=2)
    sampling = Sampling(evaluation, 0, DiffusionConfig(), (4, 2, 2), 3, bank)
    found = _condition(sampling, start, stop, ChunkedNoise(0, start, stop, (4, 2, 2), CPU), CPU)
    assert isinstance(found, Captions)
    return found


def test_of_a_folder_six_samples_are_two_of_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITBENCH_DATA", str(tmp_path))
    write_captions(tmp_path / "photos", write_latents(tmp_path / "photos"))
    bank = DataConfig.model_validate({"name": "photos", **SECTION, **OF_CAPTIONS}).caption_bank()
    texts = captions()
    # Five cats, four dogs, five eels, the first of each at 0, 5 and 9; after the 14th the first again.
    wanted = [0, 5, 9, 1, 6, 10, 2, 7, 11, 3, 8, 12, 4, 13, 0]
    assert [images().labels[place] for place in wanted[:6]] == [0, 1, 2, 0, 1, 2]
    found = condition(bank, 0, 15)
    for embedding, place in zip(found.embeddings, wanted, strict=True):
        assert torch.equal(embedding[0], vector(texts[place].split()[0]))
        assert torch.equal(embedding[1], vector(texts[place].split()[1]))
    # A sample is the same however they are divided into batches.
    assert torch.equal(condition(bank, 4, 9).embeddings, found.embeddings[4:9])


class SortedDots(PixelDataset):
    """Two images of class 0, then two of class 1; of each the caption is its number."""

    def facts(self, name: str, options: Any) -> DatasetFacts:
        return DatasetFacts(4, (1, 2, 2), (1, 2, 2), 2, caption_shape=(1, 1))

    def images(self, name: str, options: Any) -> Any:
        return np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 0, 1, 1])

    def captions(self, name: str, options: Any) -> Any:
        return np.arange(4, dtype=np.float32).reshape(4, 1, 1), np.ones((4, 1), np.bool_)


def test_so_are_those_of_ones_own_data_set() -> None:
    bank = SortedDots().caption_bank("dots", NoOptions())
    assert condition(bank, 0, 4).embeddings.flatten().tolist() == [0, 2, 1, 3]
    assert bank.take(torch.arange(4), CPU).embeddings.flatten().tolist() == [0, 1, 2, 3]  # training's are as they were
