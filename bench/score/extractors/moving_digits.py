"""The feature network of moving digits: a small classifier of clips that the suite trains itself, seeded.

Its convolutions are over space in every frame, then over time (as in R(2+1)D, Tran et al. 2018, arXiv 1711.11248). The
frames' part learns which digit it is and where, by spatial soft arguments of the maximum (Finn et al. 2016, arXiv
1509.06113); the clips' part, of the frames' features, which digit and how fast. So the 64 features of a frame tell its
place, and the 64 of a clip the order of its frames.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.clips.moving_digits import DIGIT, NUM_CLASSES, SHAPE, SIDE, SPEEDS, compose, motions
from bench.randomness import Stream, generator
from bench.score.extractors.trained import FEATURES, LOGITS, TrainedExtractor, TrainedFeatures
from bench.score.extractors.trained import trained as trained_in

NAME = "moving-digits-cnn"
FRAMES = "frames"

SEED = 0
WIDTH = 64
FRAME_STEPS = 1000
CLIP_EPOCHS = 15
BATCH_SIZE = 64
LEARNING_RATE = 3e-3
POINTS = 8  # of the channels, those of which the place is taken, y and x; of the others the mean
LEAST_STD = 0.25  # some channels are silent on digits, and must not be loud on noise
SPEED_PAIRS = (len(SPEEDS) // 2) ** 2
# Clips of digits with such an image number, modulo ten, are held out: three in ten, whose digits no other clip has.
HELD_OUT = (7, 8, 9)


class MovingDigitsCNN(nn.Module):
    """Three convolutions of a frame, pooled and standardised; two over time, pooled; a linear classifier."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH - POINTS, 3, padding=1),
        )
        self.time = nn.Sequential(
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(WIDTH, NUM_CLASSES)
        # Of the features of the frames that it is trained on.
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("std", torch.ones(WIDTH))

    def of_frames(self, x: Tensor) -> Tensor:
        """x (N, 1, 12, 12) in [0, 1] -> (N, 64)."""
        maps = self.frame(x)
        line = torch.linspace(-1, 1, maps.shape[-1], device=x.device)
        shares = maps[:, :POINTS].flatten(2).softmax(dim=2).unflatten(2, maps.shape[2:])
        of_rows, of_columns = (shares.sum(dim=dim) @ line for dim in (3, 2))
        features = torch.cat([of_rows, of_columns, maps[:, POINTS:].relu().mean(dim=(2, 3))], dim=1)
        return (features - self.mean) / self.std

    def of_clips(self, frames: Tensor) -> Tensor:
        """Features of frames (N, T, 64) -> (N, 64)."""
        return self.time(frames.transpose(1, 2)).mean(dim=2)


class MovingDigitsFeatures(TrainedFeatures):
    """Of clips (N, 3, 8, 12, 12)."""

    network_type = MovingDigitsCNN
    provided = (FEATURES, FRAMES, LOGITS)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        grey = x[:, :1].float() / 255
        number, frames = len(grey), grey.shape[2]
        of_frames = self.network.of_frames(grey.transpose(1, 2).flatten(0, 1)).unflatten(0, (number, frames))
        of_clips = self.network.of_clips(of_frames)
        logits = F.linear(of_clips, self.network.classifier.weight)
        return {FEATURES: of_clips, FRAMES: of_frames.flatten(1), LOGITS: logits}


def trained(folder: Path) -> TrainedExtractor:
    """The network's weights in `folder`, trained there first if it has none."""
    return trained_in(folder, NAME, SEED, train)


def train() -> tuple[MovingDigitsCNN, float]:
    """Train on 70 % of the digits' clips, on one CPU thread; return the network and its test accuracy of classes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the sums, and so the weights, do not depend on the number of cores
    try:
        return _train()
    finally:
        torch.set_num_threads(threads)


def _train() -> tuple[MovingDigitsCNN, float]:
    pixels, labels = compose()
    x, y = torch.tensor(pixels).float() / 255, torch.tensor(labels)
    own = motions()
    places = torch.tensor([motion.places() for motion in own]) * (2 / (SIDE - DIGIT)) - 1  # (N, T, 2) in [-1, 1]
    fast = [[abs(speed) // max(SPEEDS) for speed in motion.velocity] for motion in own]
    speeds = torch.tensor(fast) @ torch.tensor([2, 1])
    held_out = torch.tensor([motion.image % 10 in HELD_OUT for motion in own])
    kept, tested = (~held_out).nonzero().squeeze(1), held_out.nonzero().squeeze(1)
    random = generator(SEED, Stream.FEATURES, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.initial_seed())
        network = MovingDigitsCNN()
        of_frame, of_speed = nn.Linear(WIDTH, NUM_CLASSES + 2), nn.Linear(WIDTH, SPEED_PAIRS)

    def class_loss(heads: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(heads[:, :NUM_CLASSES], y[rows])

    parameters = [*network.frame.parameters(), *of_frame.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    for step in range(FRAME_STEPS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / FRAME_STEPS)
        rows = kept[torch.randint(len(kept), (BATCH_SIZE,), generator=random)]
        frames = torch.randint(SHAPE[1], (BATCH_SIZE,), generator=random)
        heads = of_frame(network.of_frames(x[rows, :, frames]))
        loss = class_loss(heads, rows) + F.mse_loss(heads[:, NUM_CLASSES:], places[rows, frames])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with torch.no_grad():
        features = torch.stack([network.of_frames(x[:, :, frame]) for frame in range(SHAPE[1])], dim=1)
        of_all = features[kept].flatten(0, 1)
        features = (features - of_all.mean(0)) / of_all.std(0).clamp(min=LEAST_STD)
        network.mean.copy_(of_all.mean(0))
        network.std.copy_(of_all.std(0).clamp(min=LEAST_STD))
    parameters = [p for part in (network.time, network.classifier, of_speed) for p in part.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    for epoch in range(CLIP_EPOCHS):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - epoch / CLIP_EPOCHS)
        for rows in kept[torch.randperm(len(kept), generator=random)].split(BATCH_SIZE):
            of_clips = network.of_clips(features[rows])
            loss = class_loss(network.classifier(of_clips), rows)
            loss = loss + F.cross_entropy(of_speed(of_clips), speeds[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        found = network.classifier(network.of_clips(features[tested])).argmax(1)
    return network, (found == y[tested]).double().mean().item()
