"""Training: recipe in, checkpoints and metrics out; to resume, run the same command again.

No step waits for the device: losses are summed there and fetched once every `log_every` steps. Optimiser and
each average are one fused call. All randomness of a step is drawn for the whole global batch from a generator seeded by
(seed, batch); every data-parallel rank takes its slice, in `micro_batches` pieces whose gradients are accumulated.
What a recipe's `train` chooses of a step is in `bench.training`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from bench import shapes
from bench.averages import EMA, RAW, kept_shares, kept_weights
from bench.data import Dataset
from bench.errors import RunError
from bench.files import checkpoint, jsonl
from bench.files.run_folder import weights_path
from bench.flops import training_gmacs
from bench.objectives import Objective
from bench.parallel import Parallel
from bench.randomness import Stream, generator
from bench.recipe.training import TrainConfig
from bench.stopping import Stopped, StopRequest
from bench.training.learning_rate import learning_rate
from bench.training.modes import copy_, local
from bench.training.not_finite import MOST_ROLL_BACKS, MOST_SKIPPED, RollBacks, Skips, unchanged_where
from bench.training.optimizer import MOMENTS, Optimizer
from models import conditions

log = logging.getLogger(__name__)

# Ranks ask each other whether to stop about once in this many seconds.
SECONDS_BETWEEN_AGREEMENTS = 1.0
# Data of this many coming steps are being read while a step computes.
STEPS_READ_AHEAD = 2
# Beside what the objective drew: what a network with `training_draws` takes (`models.registry.Family`).
FOR_NETWORK = "for network"


class BatchSampler:
    """The global batches 0, 1, ..., each a function of (seed, batch); a step takes the one of its number.

    An epoch visits a permutation of the data set seeded by (seed, epoch), and leaves out the remainder that does
    not fill a batch. After a roll-back, steps take later batches than those of their number.
    """

    def __init__(
        self,
        objective: Objective,
        dataset: Dataset,
        train: TrainConfig,
        seed: int,
        parallel: Parallel,
        batch_of: Callable[[int], int] = lambda step: step,
        network_draws: int = 0,
    ) -> None:
        self._objective, self._dataset = objective, dataset
        self._train, self._seed = train, seed
        self._device = parallel.device
        self._share = parallel.ranks.share(train.batch_size)
        self._batch_of = batch_of
        self._network_draws = network_draws
        self._order: dict[int, Tensor] = {}

    def __call__(self, step: int) -> tuple[Tensor, Any, dict[str, Tensor]]:
        """This rank's share of the batch of step 0, 1, ...: x0 (N, C, *spatial), labels (N,) or captions, and what the
        objective drew.

        Dropped labels and captions are null. What is random is drawn for the whole batch on every rank.
        """
        train, share = self._train, self._share
        random = generator(self._seed, Stream.STEP, self._batch_of(step), self._device)
        x0, condition = self._dataset.batch(self._indices(step), share, random)
        for coming in range(step + 1, min(step + 1 + STEPS_READ_AHEAD, train.steps)):
            self._dataset.read_ahead(self._indices(coming)[share])
        drawn = self._objective.draw((train.batch_size, *x0.shape[1:]), random)
        dropped = torch.rand(train.batch_size, generator=random, device=self._device) < train.label_dropout
        condition = conditions.drop(condition, dropped[share], self._dataset.num_classes)
        if self._network_draws:  # last: networks without do not move what is drawn for others
            shape = (train.batch_size, self._network_draws)
            drawn[FOR_NETWORK] = torch.rand(shape, generator=random, device=self._device)
        return x0, condition, {name: values[share] for name, values in drawn.items()}

    def _indices(self, step: int) -> Tensor:
        batch_size = self._train.batch_size
        epoch, position = divmod(self._batch_of(step), len(self._dataset) // batch_size)
        if epoch not in self._order:
            random = generator(self._seed, Stream.EPOCH, epoch)
            self._order = {e: order for e, order in self._order.items() if e == epoch - 1}
            self._order[epoch] = torch.randperm(len(self._dataset), generator=random)
        return self._order[epoch][position * batch_size : (position + 1) * batch_size]


class Trainer:
    """Model, EMA, optimiser and step of one run, and the loop that moves them on. It builds none of its parts."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        dataset: Dataset,
        parallel: Parallel,
        train: TrainConfig,
        seed: int,
        folder: Path,
        gmacs: float,
        on_log: Callable[[dict[str, Any]], None] = lambda row: None,
        stop: StopRequest | None = None,
        micro_batches: int = 1,
        header: Mapping[str, str] | None = None,
    ) -> None:
        """`gmacs` is the model's cost per image; `on_log` is told each row of `train.jsonl` (rank 0 writes it).

        The batch size is a multiple of ranks x `micro_batches`. `header`: what files of kept weights say
        beside their step and name.
        """
        self.model = model.train()
        self.folder = folder
        self.step = 0
        self._objective = objective
        self._train = train
        self._gmacs = gmacs
        self._parallel, self._ranks, self._device = parallel, parallel.ranks, parallel.device
        self._on_log = on_log
        self._checkpoints = folder / "checkpoints"
        self._log = folder / "train.jsonl"
        self._stop = StopRequest() if stop is None else stop
        self._next_agreement = 0
        self._micro_batches = micro_batches
        self._roll_backs = RollBacks(folder)
        draws = getattr(model, "training_draws", 0)
        self._batches = BatchSampler(objective, dataset, train, seed, parallel, self._roll_backs.batch, draws)
        self._network = parallel.wrap(self.model)
        self._optimizer = Optimizer(self.model, train)
        self._parameters = self._optimizer.parameters
        self._skips = Skips(self._ranks, self._device) if train.non_finite == "skip" else None
        self._kept, self._header = kept_weights(train), header or {}
        self._shares = {name: share for name, share in kept_shares(train).items() if name != RAW}
        self._averages = {
            name: {key: p.detach().clone() for key, p in self._parameters.items()} for name in self._shares
        }
        # What the averages of a step read and write; it shares memory with parameters and averages.
        self._current = [local(p.detach()) for p in self._parameters.values()]
        self._averaged = {name: [*map(local, average.values())] for name, average in self._averages.items()}
        self._start_window()

    def resume(self, at_most: int) -> None:
        """Continue from the newest whole checkpoint up to step `at_most`, if there is one; cut metrics beyond it."""
        if self._ranks.is_first:
            self._roll_backs.read()
        self._roll_backs.rows = self._ranks.from_first(self._roll_backs.rows)
        self._load(at_most)

    def _load(self, at_most: int) -> bool:
        """As `resume`, with what is known of roll-backs; whether there was a state."""
        found = checkpoint.load_newest_state(self._checkpoints, at_most) if self._ranks.is_first else None
        step = self._ranks.from_first(found and found[0])
        if step is not None:
            self.step = step
            self._restore(found[1] if found else checkpoint.load_state(self._checkpoints, step))
        if self._ranks.is_first:
            jsonl.cut_after(self._log, self.step)
            if self._train.non_finite == "roll-back":  # weights kept since are of steps that are taken otherwise now
                for kept, names in self._kept.items():
                    for name in names if kept > self.step else ():
                        weights_path(self._checkpoints, kept, name).unlink(missing_ok=True)
        return step is not None

    def train_until(self, step: int) -> None:
        """Take steps up to and including `step`, saving as the recipe says.

        Raises:
            RunError: the loss or its gradient is not finite (but see `bench.training.not_finite`), or the disk is full.
            Stopped: on request, after the step that all ranks agreed on was saved.
        """
        train = self._train
        kept = set(train.kept_steps())
        if train.non_finite == "roll-back" and self.step == 0:
            self._save_state()  # to go back to before the first other one
        self._save_weights()  # where a resumed run had lost them
        self._start_timing()
        while self.step < step:
            self.take_step()
            save = self.step in kept or self.step % train.save_every == 0
            # Also before weights are kept: none that are not finite are.
            log_row = save or self.step in self._kept or self.step % train.log_every == 0
            if log_row and not self._write_log():
                continue
            if save:
                self._save_state()
            self._save_weights()
            if self._all_agree_to_stop():
                if not save:
                    self._save_state()
                self._ranks.wait_for_all()
                raise Stopped(f"stopped on request; saved at step {self.step}")
        self._ranks.wait_for_all()

    def _save_state(self) -> None:
        tensors = self._state()
        if self._ranks.is_first:
            # Those that requests to stop save are no places to go back to: how often a run is stopped decides nothing.
            kept = self._train.last_save(self.step) if self._train.non_finite == "roll-back" else None
            checkpoint.save_state(self._checkpoints, self.step, tensors, kept)

    def _save_weights(self) -> None:
        paths = {name: weights_path(self._checkpoints, self.step, name) for name in self._kept.get(self.step, ())}
        lacking = [name for name, path in paths.items() if not path.exists()]
        for name in self._ranks.from_first(lacking) if paths else ():
            tensors = self.state_dict(name)
            if self._ranks.is_first:
                header = {**self._header, "step": str(self.step), "weights": name}
                checkpoint.save_tensors(paths[name], tensors, header)

    def _all_agree_to_stop(self) -> bool:
        """Whether any rank was asked to stop: all ranks learn it after the same step.

        Ranks ask each other about once a second, at steps that rank 0's speed decides.
        """
        if self._ranks.world_size == 1:
            return bool(self._stop)
        if self.step < self._next_agreement:
            return False
        rate = (self.step - self._timed_from) / (time.perf_counter() - self._window_time)
        interval = min(self._train.log_every, rate * SECONDS_BETWEEN_AGREEMENTS) if self._ranks.is_first else 0
        requested, interval = self._ranks.maximum(float(bool(self._stop)), interval)
        self._next_agreement = self.step + max(1, int(interval))
        return requested > 0

    def state_dict(self, name: str = EMA) -> dict[str, Tensor]:
        """A full state dict of the weights of this name, loadable by the model; of shards, on rank 0.

        All ranks must call it.
        """
        return self._parallel.on_first({**self.model.state_dict(), **({} if name == RAW else self._averages[name])})

    def take_step(self) -> None:
        """One step of the optimiser and the averages, on one batch. All ranks must call it."""
        x0, condition, drawn = self._batches(self.step)
        pieces = self._micro_batches
        split = {name: values.chunk(pieces) for name, values in drawn.items()}
        means = torch.stack(
            [
                self._accumulate(x, y, {name: values[k] for name, values in split.items()}, is_last=k == pieces - 1)
                for k, (x, y) in enumerate(zip(x0.chunk(pieces), conditions.split(condition, pieces), strict=True))
            ]
        ).sum(0)
        norm = self._optimizer.gradient_norm()
        finite = means[0].isfinite() & norm.isfinite()
        left_out = None if self._skips is None else self._skips.left_out(finite)
        self._optimizer.update(self.step, norm, left_out)
        for name, averaged in self._averaged.items():
            with unchanged_where(left_out, averaged):
                get_ema_multi_avg_fn(self._shares[name](self.step + 1))(averaged, self._current, None)
        clip = self._train.clip_grad_norm
        measured = torch.stack([*means, norm, finite, *([] if clip is None else [norm > clip])])
        self._sums += measured if left_out is None else torch.where(left_out, 0, measured)
        self.step += 1

    def _accumulate(
        self, x0: Tensor, condition: conditions.Condition, drawn: dict[str, Tensor], is_last: bool
    ) -> Tensor:
        """Add the gradient of one piece of the batch; return its part of the means of the objective's columns."""
        if FOR_NETWORK in drawn:
            use_draws: Any = self.model.use_draws
            use_draws(drawn.pop(FOR_NETWORK))
        with self._parallel.accumulating(self._network, is_last):
            with self._parallel.autocast():
                losses = self._objective.losses(self._network, x0, condition, drawn)
            shapes.check_losses(self._objective, losses, len(x0))
            means = [losses[name].mean() / self._micro_batches for name in self._objective.columns]
            means[0].backward()
        return torch.stack([mean.detach() for mean in means])

    def _start_window(self) -> None:
        # The objective's losses, the norm of the gradient, whether both are finite; of clipping, whether that was done.
        number = len(self._objective.columns) + 2 + (self._train.clip_grad_norm is not None)
        self._sums = torch.zeros(number, device=self._device)
        self._window_step = self.step
        self._start_timing()

    def _start_timing(self) -> None:
        self._timed_from = self.step
        self._window_time = time.perf_counter()

    def _write_log(self) -> bool:
        """Append the means since the last row; this is where the device is waited for.

        False where a loss was not finite, and the run was rolled back instead.
        """
        columns = self._objective.columns
        steps = self.step - self._window_step
        self._ranks.average_(self._sums)
        finite = self._sums[len(columns) + 1].item()
        if finite < steps and self._skips is None:
            # Once one is not finite, the weights and all later losses are not either.
            self._roll_back(first=self._window_step + round(finite) + 1)
            return False
        means = (self._sums / finite).tolist() if finite else [None] * len(self._sums)
        batch_size = self._train.batch_size
        row = {
            "step": self.step,
            **dict(zip(columns, means, strict=False)),
            "lr": learning_rate(self.step - 1, self._train),
            "grad_norm": means[len(columns)],
            "images_per_s": (self.step - self._timed_from) * batch_size / (time.perf_counter() - self._window_time),
            "gmacs_spent": training_gmacs(self._gmacs, batch_size, self.step),
        }
        if self._train.clip_grad_norm is not None:
            row["clipped"] = means[-1]
        if self._skips is not None:
            row["skipped"], in_a_row = self._skips.counts.tolist()
            self._check_skips(in_a_row)
        if self._train.non_finite == "roll-back":
            row["roll_backs"] = self._roll_backs.before(self.step)
        if self._ranks.is_first:
            jsonl.append(self._log, row)
            self._on_log(row)
        self._start_window()
        return True

    def _check_skips(self, in_a_row: int) -> None:
        if in_a_row >= min(MOST_SKIPPED, self._train.steps):
            raise RunError(
                f"{self.folder}: the loss or its gradient is not finite in the {in_a_row} steps up to {self.step}, "
                f"which train.non_finite: skip left out (train.learning_rate is {self._train.learning_rate:g})"
            )

    def _roll_back(self, first: int) -> None:
        """Go back to the last save, where the recipe has it so; `first`: the step that was not finite.

        Raises:
            RunError: it does not, or the run went back there too often, or there is no state any more.
        """
        until, rate = self._window_step, f"train.learning_rate is {self._train.learning_rate:g}"
        failed = f"{self.folder}: the loss or its gradient is not finite at step {first}"
        kept = f"checkpoints and metrics up to step {until} are kept" if until else "no step was saved before"
        if self._train.non_finite != "roll-back":
            raise RunError(f"{failed}; {kept} ({rate}; train.non_finite: skip or roll-back goes on)")
        step, failed_step = self._train.last_save(self.step - 1), self.step
        if self._roll_backs.to(step) == MOST_ROLL_BACKS:
            raise RunError(f"{failed}; rolled back to step {step} {MOST_ROLL_BACKS} times before ({rate})")
        if self._ranks.is_first:
            checkpoint.drop_states_after(self._checkpoints, step)  # first: what a stop saved after it leads here again
        self._roll_backs.add(step, failed_step, first, writes=self._ranks.is_first)
        if not self._load(step):
            raise RunError(f"{failed}; no whole checkpoint to go back to ({rate})")
        self._next_agreement = 0
        if self._ranks.is_first:
            log.warning(
                "the loss or its gradient is not finite at step %d: rolled back to step %d; the batches of steps %d to "
                "%d are passed over",
                *(first, self.step, step + 1, failed_step),
            )

    def _state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, by name; random numbers need none (see `bench.randomness`).

        Whole tensors, whatever the modes, on rank 0. All ranks must call it.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            tensors |= {
                f"model.{name}": parameter,
                **{f"{average}.{name}": averaged[name] for average, averaged in self._averages.items()},
                **{f"{moment}.{name}": value for moment, value in self._optimizer.moments(name).items()},
            }
        if self._skips is not None:
            tensors["skips"] = self._skips.counts
        if self._window_step < self.step:  # between two rows of the log: what the next one has summed so far
            sums = self._ranks.gathered(self._sums)
            tensors |= {"window.step": torch.tensor(self._window_step), "window.sums": sums}
        return self._parallel.on_first(tensors)

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        if self._skips is not None:
            self._skips.counts = tensors["skips"].to(self._device)
        skipped = int(tensors["skips"][0]) if "skips" in tensors else 0
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                copy_(parameter, tensors[f"model.{name}"])
                for average, averaged in self._averages.items():
                    copy_(averaged[name], tensors[f"{average}.{name}"])
                moments = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS}
                self._optimizer.restore(name, moments, self.step - skipped)
        self._start_window()
        if "window.sums" in tensors:
            self._window_step = int(tensors["window.step"])
            sums = tensors["window.sums"].to(self._device)  # one row per rank
            self._sums = sums[self._ranks.rank] if len(sums) == self._ranks.world_size else sums.mean(0)
