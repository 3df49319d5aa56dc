"""The section `train` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from bench.averages.power import NARROWEST, WIDEST
from bench.schema import Count, PositiveInt, Section

Beta = Annotated[float, Field(ge=0, lt=1)]
Std = Annotated[float, Field(ge=NARROWEST, lt=WIDEST)]
# Of each power average: by default, and at most, for disks and for the least squares that make others of them.
SNAPSHOTS, MOST_SNAPSHOTS = 32, 256


class TrainConfig(Section):
    """Optimisation. Defaults are the paper's (Sec. 4); `checkpoint_steps` are kept and scored.

    `allow_accumulation`: out of memory, a batch may be split further and its gradients accumulated, which changes
    the order of sums but not what is computed. `ema_decays`, `ema_stds`: averages kept beside that of `ema_decay`
    (`bench.averages`). Two or more of `ema_stds` are also kept every `ema_snapshot_every` steps (default: an
    `SNAPSHOTS`th of all), so that any other can be made of them. `final_learning_rate`: where a schedule ends, as a
    share of `learning_rate`. `decay_matrices_only`: see `bench.training.optimizer.matrices`. `non_finite`: what a run
    does about a loss or gradient that is not finite, see `bench.training.not_finite`.
    """

    steps: Count = 400_000
    batch_size: Count = 256
    learning_rate: PositiveFloat = 1e-4
    betas: tuple[Beta, Beta] = Field(default=(0.9, 0.999), strict=False)
    weight_decay: float = Field(default=0.0, ge=0)
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    checkpoint_steps: tuple[PositiveInt, ...] = Field(default=(), strict=False)
    log_every: PositiveInt = 100
    save_every: PositiveInt = 5000
    allow_accumulation: bool = False
    ema_decays: tuple[Beta, ...] = Field(default=(), strict=False)
    ema_stds: tuple[Std, ...] = Field(default=(), strict=False)
    ema_snapshot_every: PositiveInt | None = None
    clip_grad_norm: PositiveFloat | None = None
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine", "cooldown"] = "constant"
    final_learning_rate: float = Field(default=0.0, ge=0, le=1)
    cooldown_steps: int = Field(default=0, ge=0)
    decay_matrices_only: bool = False
    non_finite: Literal["stop", "skip", "roll-back"] = "stop"

    @model_validator(mode="after")
    def _steps_in_range(self) -> Self:
        if any(step > self.steps for step in self.checkpoint_steps):
            raise ValueError(f"checkpoint_steps: {max(self.checkpoint_steps)} is beyond steps ({self.steps})")
        return self

    @model_validator(mode="after")
    def _averages_fit(self) -> Self:
        for key, values in (("ema_decays", (self.ema_decay, *self.ema_decays)), ("ema_stds", self.ema_stds)):
            twice = [value for k, value in enumerate(values) if value in values[:k]]
            if twice:
                also = " (ema_decay is kept in any case)" if twice[0] == self.ema_decay else ""
                raise ValueError(f"{key}: {twice[0]!r} is there twice{also}")
        every = self.ema_snapshot_every
        if every is not None and len(self.ema_stds) < 2:
            raise ValueError(f"ema_snapshot_every: {every}, but ema_stds are not two or more")
        if every is not None and not self.steps / MOST_SNAPSHOTS <= every <= self.steps:
            least = -(-self.steps // MOST_SNAPSHOTS)
            raise ValueError(
                f"ema_snapshot_every: {every}; accepted: {least} ({MOST_SNAPSHOTS} snapshots) to {self.steps} (steps)"
            )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        warmup, cooldown = self.warmup_steps, self.cooldown_steps
        if self.schedule == "cooldown" and not cooldown:
            raise ValueError("cooldown_steps: missing; schedule cooldown needs it")
        if self.schedule != "cooldown" and cooldown:
            raise ValueError(f"cooldown_steps: {cooldown}, but schedule is {self.schedule}; accepted: cooldown")
        if self.schedule == "constant" and self.final_learning_rate:
            final = self.final_learning_rate
            raise ValueError(f"final_learning_rate: {final:g}, but schedule is constant; accepted: cosine, cooldown")
        if warmup + cooldown > self.steps:
            also = f" and cooldown_steps {cooldown} together" if cooldown else ""
            raise ValueError(f"warmup_steps: {warmup}{also} is beyond steps ({self.steps})")
        if self.schedule == "cosine" and warmup == self.steps:
            raise ValueError(f"warmup_steps: {warmup} of {self.steps} steps leave none for schedule cosine")
        return self

    @model_validator(mode="after")
    def _has_decay(self) -> Self:
        if self.decay_matrices_only and not self.weight_decay:
            raise ValueError("decay_matrices_only: true, but weight_decay is 0; accepted: a positive weight_decay")
        return self

    def kept_steps(self) -> list[int]:
        """Steps whose EMA weights are kept and scored: the listed ones and the last."""
        return sorted({*self.checkpoint_steps, self.steps})

    def snapshot_steps(self) -> list[int]:
        """Steps at which the averages of `ema_stds` are kept, so that others can be made of them; none below two."""
        if len(self.ema_stds) < 2:
            return []
        every = self.ema_snapshot_every or -(-self.steps // SNAPSHOTS)
        return sorted({*range(every, self.steps + 1, every), *self.kept_steps()})

    def last_save(self, step: int) -> int:
        """The last step up to `step` whose state is saved, whatever else a run is stopped for; 0 before the first."""
        return max(step - step % self.save_every, *(kept for kept in self.kept_steps() if kept <= step), 0)
