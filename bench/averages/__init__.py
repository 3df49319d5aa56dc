"""Averages of the weights: which ones a training keeps, what they are called, and what a score's average is made of.

ema                 the exponential average of `train.ema_decay`
ema decay=0.999     one of `train.ema_decays`
raw                 the trained weights themselves: the average of decay 0, if that is one of `train.ema_decays`
ema std=0.1         by a power function of time (`bench.averages.power`), one of `train.ema_stds`; where two of these
                    are kept, others can be made of them afterwards

These names are the entry `weights` of a score's key; `evaluation.ema` has them without "ema". Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import nan
from typing import TYPE_CHECKING, Any

from bench.averages.power import NARROWEST, WIDEST, check_std, coefficients, share

if TYPE_CHECKING:
    from bench.recipe.training import TrainConfig

EMA, RAW = "ema", "raw"


def parse(given: Any) -> str | None:
    """`evaluation.ema` as it is written: "raw", "decay=0.999", "std=0.1"; None is the average of `ema_decay`.

    Raises:
        ValueError: it is none of them.
    """
    if given is None or given == RAW:
        return given
    kind, _, text = str(given).partition("=")
    try:
        number = float(text)
    except ValueError:
        number = nan
    if kind == "decay" and 0 <= number < 1:
        return _decay(number)
    if kind == "std" and NARROWEST <= number < WIDEST:
        return _std(number)
    raise ValueError(
        f"{given!r}; accepted: raw, decay=D (D at least 0, less than 1), std=S (S at least {NARROWEST:g}, less than "
        f"{WIDEST:.4f})"
    )


def name_of(ema: str | None) -> str:
    """What an average is called in a score's key."""
    return EMA if ema is None else ema if ema == RAW else f"{EMA} {ema}"


def kept_shares(train: TrainConfig) -> dict[str, Callable[[int], float]]:
    """Every average that training keeps, by name: step 1, 2, ... -> the share of the old average that it keeps."""
    decays = {EMA: train.ema_decay} | {name_of(_decay(decay)): decay for decay in train.ema_decays}
    shares: dict[str, Callable[[int], float]] = {name: lambda step, d=decay: d for name, decay in decays.items()}
    return shares | {name: lambda step, s=std: share(s, step) for name, std in power_averages(train).items()}


def power_averages(train: TrainConfig) -> dict[str, float]:
    """The averages of `ema_stds`, by name, and their std."""
    return {name_of(_std(std)): std for std in train.ema_stds}


def kept_weights(train: TrainConfig) -> dict[int, tuple[str, ...]]:
    """The names of the weights that are kept, by step: all at kept steps, power averages alone at snapshots' steps."""
    snapshots = dict.fromkeys(train.snapshot_steps(), tuple(power_averages(train)))
    return dict(sorted((snapshots | dict.fromkeys(train.kept_steps(), tuple(kept_shares(train)))).items()))


def checked(ema: str | None, train: TrainConfig, steps: Iterable[int]) -> str | None:
    """`ema`, None if it is the average of `ema_decay`, if training keeps what it is made of at these kept steps.

    Raises:
        ValueError: `ema: why not, and what it keeps`.
    """
    if ema is None or ema == _decay(train.ema_decay):
        return None
    if not is_post_hoc(ema, train):
        return ema
    kind, _, number = ema.partition("=")
    if kind != "std" or not train.snapshot_steps():
        kept = [_decay(train.ema_decay), *(name.removeprefix(f"{EMA} ") for name in [*kept_shares(train)][1:])]
        others = ", any std that their snapshots can make" if train.snapshot_steps() else ""
        key, value = ("ema_stds", number) if kind == "std" else ("ema_decays", "0" if ema == RAW else number)
        raise ValueError(
            f"ema: {ema} is not kept; accepted: {', '.join(kept)}{others}; train.{key}: [{value}] keeps it"
        )
    try:
        for step in steps:
            check_std(_snapshots(train, step), float(number), step)
    except ValueError as error:
        raise ValueError(f"ema: {error}") from None
    return ema


def steps_of(ema: str | None, train: TrainConfig) -> list[int]:
    """The steps of which there is an average: the kept ones, and those of snapshots for what these are or make."""
    of_snapshots = ema is not None and ema.startswith("std=")
    return (train.snapshot_steps() if of_snapshots else []) or train.kept_steps()


def is_post_hoc(ema: str | None, train: TrainConfig) -> bool:
    """Whether an average is not kept itself: it is to be made of snapshots afterwards."""
    return name_of(ema) not in kept_shares(train)


def made_of(ema: str | None, train: TrainConfig, step: int) -> dict[tuple[str, int], float]:
    """(name, step) of the kept weights whose sum an average is, each times a number: itself, or snapshots."""
    if not is_post_hoc(ema, train):
        return {(name_of(ema), step): 1.0}
    assert ema is not None
    parts = _snapshots(train, step)
    numbers = coefficients(parts, float(ema.removeprefix("std=")), step)
    return {(name_of(_std(std)), at): number for (std, at), number in zip(parts, numbers, strict=True)}


def snapshots_in(ema: str | None, train: TrainConfig, step: int) -> dict[str, int]:
    """Of how many snapshots an average is made, as it is written beside samples; empty for one that is kept itself."""
    return {"post_hoc": len(_snapshots(train, step))} if is_post_hoc(ema, train) else {}


def _snapshots(train: TrainConfig, step: int) -> tuple[tuple[float, int], ...]:
    """(std, step) of the power averages that are there once `step` has been trained."""
    return tuple((std, at) for at in train.snapshot_steps() if at <= step for std in train.ema_stds)


def _decay(decay: float) -> str:
    return f"decay={float(decay)!r}" if decay else RAW


def _std(std: float) -> str:
    return f"std={float(std)!r}"
