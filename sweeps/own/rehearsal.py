"""A few steps of a recipe in a temporary folder, so that a part's fault is found in seconds, with the line of its file.

All that a run will do is done once: train, save the weights, read them back, sample.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from bench.errors import InputError, RunError
from bench.flops import cost_of, count
from bench.recipe import Recipe
from models.parts import line_of
from models.registry import Count
from sweeps.own.part import OwnPart

STEPS = 5
TIMED = 3
SAMPLES = 10


class _Fault(Exception):
    """What is wrong with a part, and where, if it is known."""


def rehearse(recipe: Recipe, part: OwnPart) -> float:
    """Take the first steps of a run, and a few samples; return the seconds of a step on one core.

    Raises:
        InputError: one line: what the part does wrong, and the line of its file.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the runs will have
    try:
        return _rehearsed(recipe, part)
    except _Fault as error:
        problem = str(error)
    except RunError:  # a value that is not finite
        problem = f"a value that is not finite, {_not_finite(recipe, part) or 'in the first steps of training'}"
    except Exception as error:  # whatever a user's part does
        problem = _said(error, part)
    finally:
        torch.set_num_threads(threads)
    raise InputError(part.in_words(f"{recipe.label}: {problem}"))


def counted(recipe: Recipe, part: OwnPart) -> Count:
    """What a recipe's network costs; what a part states of it itself is counted again.

    Raises:
        InputError: one line: an operator that nothing counts, another count than the stated one, or another fault.
    """
    return explained(part, lambda: _counted(recipe, **recipe.model.arguments()))


def _counted(recipe: Recipe, name: str, **options: Any) -> Count:
    stated = cost_of(name, recipe.model.architecture())
    try:
        found = count(name, **options)
    except InputError:  # of what states its cost nothing need be countable
        return stated
    if (stated.macs, stated.parameters) != (found.by_module[""], found.num_parameters):
        raise InputError(
            f"{recipe.label}: it states {stated.macs:,} multiply-accumulates and {stated.parameters:,} parameters; "
            f"counted: {found.by_module['']:,} and {found.num_parameters:,}"
        )
    return stated


def explained(part: OwnPart, work: Callable[[], Any]) -> Any:
    """What `work` returns.

    Raises:
        InputError: one line with the line of the part's file, whatever a part did in it.
    """
    try:
        return work()
    except InputError as error:
        raise InputError(part.in_words(str(error))) from None
    except Exception as error:  # whatever a user's part does
        raise InputError(part.in_words(f"{part.shown}: {_said(error, part)}")) from None


def _said(error: Exception, part: OwnPart) -> str:
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    line = line_of(error, part.folder) or _line_of_called(text, part)
    return f"{line}: {text}" if line else text


def _rehearsed(recipe: Recipe, part: OwnPart) -> float:
    import torch

    import models
    from bench.data.decoders import Pixels
    from bench.files import checkpoint
    from bench.files.run_folder import weights_path
    from bench.sample import Sampling, sample

    cpu = torch.device("cpu")
    with TemporaryDirectory() as folder:
        trainer = _trainer(recipe, Path(folder))
        with _checked(trainer.model, recipe, part):
            _check_losses(recipe, part, trainer.model)
            trainer.train_until(1)
            start = time.process_time()  # of an idle core, however busy the machine is now
            for _ in range(TIMED):
                trainer.take_step()
            seconds = (time.process_time() - start) / TIMED
            trainer.train_until(STEPS)
        weights = checkpoint.load_weights(weights_path(Path(folder) / "checkpoints", STEPS).parent, STEPS)
        model = models.create_model(**recipe.model.arguments()).to(cpu)
        model.load_state_dict(weights or {}, strict=True)
        try:
            sample(model.eval(), Sampling.of(recipe), Pixels(), 0, SAMPLES, cpu, "fp32")
        except ValueError as error:
            raise _Fault(f"sampling after {STEPS} steps: {error}") from None
    return seconds


def _trainer(recipe: Recipe, folder: Path) -> Any:
    import torch

    from bench.parallel import Parallel, Ranks
    from bench.run import build_trainer

    few = {"steps": STEPS, "checkpoint_steps": (), "log_every": 1, "save_every": STEPS}
    short = recipe.model_copy(update={"train": recipe.train.model_copy(update=few)})
    cpu = torch.device("cpu")
    return build_trainer(short, recipe.data.load(cpu), folder, 0.0, Parallel(cpu, "fp32", Ranks()))


@contextmanager
def _checked(model: Any, recipe: Recipe, part: OwnPart) -> Iterator[None]:
    """Refuse wrong shapes where they arise: errors of modules that come later would name those."""
    arch = recipe.model.architecture()
    hooks = []

    def check(module: Any, needed: Callable[[Any], tuple[int, ...]]) -> None:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            shape = tuple(output.shape) if hasattr(output, "shape") else type(output).__name__
            if shape != needed(inputs[0]):
                where = _line_of_method(module, "forward", part)
                raise _Fault(f"{where}{type(module).__name__} returns {shape}; needed: {needed(inputs[0])}")

        hooks.append(module.register_forward_hook(hook))

    def check_condition(module: Any, inputs: Any, output: Any) -> None:
        if not (isinstance(output, tuple) and len(output) == 2):
            where = _line_of_method(module, "forward", part)
            raise _Fault(f"{where}{type(module).__name__} returns no pair; needed: for blocks, for the final layer")

    if part.kind == "block":
        hooks.append(model.condition.register_forward_hook(check_condition))
        for block in model.blocks:
            check(block, lambda x: tuple(x.shape))
        check(model.final_layer, lambda x: (*x.shape[:2], arch.patch_size**2 * arch.out_channels))
    check(model, lambda x: (len(x), arch.out_channels, *x.shape[2:]))
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def _check_losses(recipe: Recipe, part: OwnPart, model: Any) -> None:
    """Of an objective: what it draws, and its columns, are of a whole batch."""
    import torch

    from bench.objectives import OBJECTIVES

    if recipe.diffusion.objective != part.path:
        return
    cpu = torch.device("cpu")
    objective = OBJECTIVES.find(part.path)(recipe.diffusion.options, cpu)
    data = recipe.data.load(cpu)
    batch = recipe.train.batch_size
    random = torch.Generator().manual_seed(0)
    x0, condition = data.batch(torch.arange(batch), slice(0, batch), random)
    drawn = objective.draw(tuple(x0.shape), random)
    draw = _line_of_method(objective, "draw", part)
    if not isinstance(drawn, dict) or not all(hasattr(value, "shape") for value in drawn.values()):
        raise _Fault(f"{draw}draw returns {type(drawn).__name__}; needed: tensors by name")
    if wrong := [name for name, value in drawn.items() if value.shape[:1] != (batch,)]:
        raise _Fault(f"{draw}draw: {wrong[0]} is {tuple(drawn[wrong[0]].shape)}; needed: {batch} rows, one an image")
    losses = objective.losses(model, x0, condition, drawn)
    where = _line_of_method(objective, "losses", part)
    columns = tuple(objective.columns)
    if columns[:1] != ("loss",):
        raise _Fault(f"columns are {columns}; needed: loss first")
    if not isinstance(losses, dict) or not set(columns) <= set(losses):
        there = ", ".join(losses) if isinstance(losses, dict) else type(losses).__name__
        raise _Fault(f"{where}losses returns {there}; needed: its columns, {', '.join(columns)}")
    if wrong := [name for name in columns if tuple(losses[name].shape) != (batch,)]:
        raise _Fault(f"{where}losses: {wrong[0]} is {tuple(losses[wrong[0]].shape)}; needed: {(batch,)}, one an image")
    if not losses["loss"].requires_grad:
        raise _Fault(f"{where}losses: loss does not depend on the network")


def _line_of_method(thing: Any, method: str, part: OwnPart) -> str:
    """ "my_block.py, line 19: ", of a method of the part's file; else nothing."""
    code = getattr(getattr(type(thing), method, None), "__code__", None)
    if code is None or not Path(code.co_filename).is_relative_to(part.folder):
        return ""
    return f"{Path(code.co_filename).relative_to(part.folder)}, line {code.co_firstlineno}: "


def _line_of_called(text: str, part: OwnPart) -> str | None:
    """Of "MeanBlock.__init__() takes 3 positional arguments ...", which is raised where it is called."""
    called = re.search(r"(\w+)\.(\w+)\(\)", text)
    own = getattr(sys.modules.get(part.module), called[1], None) if called else None
    code = getattr(getattr(own, called[2], None), "__code__", None) if called else None
    return f"{Path(code.co_filename).name}, line {code.co_firstlineno}" if code else None


def _not_finite(recipe: Recipe, part: OwnPart) -> str | None:
    """Where in the part's files the first value, or gradient, that is not finite arises; None: not in them."""
    import torch

    with TemporaryDirectory() as folder:
        trainer = _trainer(recipe, Path(folder))
        watched = _Watched(part.folder)
        before = sys.gettrace()
        sys.settrace(watched)
        try:
            trainer.take_step()
        finally:
            sys.settrace(before)
        if watched.found:
            return f"first at {watched.found}"
        trainer = _trainer(recipe, Path(folder))
        with warnings.catch_warnings(record=True) as said, torch.autograd.set_detect_anomaly(True):
            warnings.simplefilter("always")
            try:
                for _ in range(STEPS):
                    trainer.take_step()
            except RuntimeError:
                lines = re.findall(r'File "([^"]+)", line (\d+)', " ".join(str(each.message) for each in said))
                own = [(Path(file), line) for file, line in lines if Path(file).is_relative_to(part.folder)]
                if own:
                    return f"first in the gradient of {own[-1][0].relative_to(part.folder)}, line {own[-1][1]}"
    return None


class _Watched:
    """A trace function (`sys.settrace`): the first line in a folder's files that makes a value that is not finite."""

    def __init__(self, folder: Path) -> None:
        self.found: str | None = None
        self._folder = str(folder)
        self._line: dict[FrameType, int] = {}

    def __call__(self, frame: FrameType, event: str, value: Any) -> Any:
        if self.found or not frame.f_code.co_filename.startswith(self._folder):
            return None
        if event == "call":
            return None if _is_not_finite(dict(frame.f_locals)) else self  # what came in is not this function's doing
        if event == "return" and _is_not_finite(value):
            self._found(frame, frame.f_lineno)
        elif event == "line":
            if frame in self._line and _is_not_finite(dict(frame.f_locals)):
                self._found(frame, self._line[frame])
            self._line[frame] = frame.f_lineno
        return self

    def _found(self, frame: FrameType, line: int) -> None:
        self.found = f"{Path(frame.f_code.co_filename).relative_to(self._folder)}, line {line}"


def _is_not_finite(value: Any) -> bool:
    import torch

    if isinstance(value, tuple | list):
        return any(map(_is_not_finite, value))
    if isinstance(value, dict):
        return any(map(_is_not_finite, value.values()))
    return isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(value.isfinite().all())
