"""The feature network of the digits study: a small classifier that the suite trains itself, seeded.

Registered with torch-fidelity as `digits-cnn`, it stands where Inception stands for ImageNet: 64-d features for the
Fréchet distance, KID, precision and recall, and class logits for the Inception Score.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.digits import Digits
from bench.randomness import Stream, generator
from bench.score.extractors.trained import FEATURES, LOGITS, TrainedExtractor, TrainedFeatures
from bench.score.extractors.trained import trained as trained_in

NAME = "digits-cnn"
COLOUR_FEATURES = "192"

SEED = 0
TEST_FRACTION = 0.3
EPOCHS = 40
BATCH_SIZE = 64
LEARNING_RATE = 3e-3


class DigitsCNN(nn.Module):
    """Three convolutions, global average pooling to 64 features, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """x (N, 1, 8, 8) in [-1, 1] -> (N, 64)."""
        return self.convolutions(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 1, 8, 8) in [-1, 1] -> logits (N, 10)."""
        return self.classifier(self.features(x))


class DigitsFeatures(TrainedFeatures):
    """Of images (N, 3, 8, 8)."""

    network_type = DigitsCNN
    provided = (FEATURES, LOGITS)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        features = self.network.features(x[:, :1].float() / 127.5 - 1)
        return {FEATURES: features, LOGITS: F.linear(features, self.network.classifier.weight)}


class ColourFeatures(TrainedFeatures):
    """The same network's features of red, of green and of blue, side by side; no logits."""

    network_type = DigitsCNN
    provided = (COLOUR_FEATURES,)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        channels = (x.float() / 127.5 - 1).split(1, dim=1)
        return {COLOUR_FEATURES: torch.cat([self.network.features(channel) for channel in channels], dim=1)}


def trained(folder: Path) -> TrainedExtractor:
    """The network's weights in `folder`, trained there first if it has none."""
    return trained_in(folder, NAME, SEED, train)


def train() -> tuple[DigitsCNN, float]:
    """Train on a stratified 70 % of the digits on one CPU thread; return the network and its test accuracy."""
    from sklearn.model_selection import train_test_split

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sums, and so the weights, do not depend on the number of cores
    digits = Digits(torch.device("cpu"))
    all_x, all_y = digits.examples()
    indices = list(range(len(digits)))
    train_indices, test_indices = train_test_split(
        indices, test_size=TEST_FRACTION, random_state=SEED, stratify=all_y.numpy()
    )
    x, y = all_x[train_indices], all_y[train_indices]
    random = generator(SEED, Stream.FEATURES, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.initial_seed())
        network = DigitsCNN()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=random).split(BATCH_SIZE):
            optimizer.zero_grad()
            F.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    x, y = all_x[test_indices], all_y[test_indices]
    with torch.inference_mode():
        accuracy = (network(x).argmax(1) == y).double().mean().item()
    torch.set_num_threads(threads)
    return network, accuracy
