"""Studies that the figures need, from made-up run folders, and a look at the figures as they are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import width_study
import yaml
from family_study import family_tables
from knob_study import write_knob_study
from run_folders import LABELS, STEPS, collect, evaluation, fid_of, gmacs_of, write_lines, write_run

from analysis.drawing import write
from analysis.drawing.picture import Picture
from analysis.drawing.write import Caption, write_picture
from analysis.figures.sources import Source, measured

SAMPLING_STEPS = (16, 32, 64, 128)
SCALES = (1.25, 1.5, 4.0)
DECODERS = ("vae-mse@12", "vae-ema@ab")
DESIGNS = ("in-context", "adaln", "adaln-zero")
OBJECTIVES = {"iddpm": 2.0, "flow prediction=x0": 1.0}
# Name, network calls a step, and how much worse than the best.
SAMPLERS = (("euler", 1, 1.5), ("heun shift=3.0", 2, 1.0))
BUDGETS = (16_000, 64_000)  # in steps of S/2


@contextmanager
def seen() -> Iterator[list[Any]]:
    """The matplotlib figures that are written inside the `with` block."""
    drawn: list[Any] = []

    def keep(picture: Picture, out: Path, caption: Caption) -> list[Path]:
        drawn.append(picture.figure)
        return write_picture(picture, out, caption)

    with patch.object(write, "write_picture", keep):
        yield drawn


def study(folder: Path, labels: Sequence[str] = LABELS, seeds: Sequence[int] = (0,)) -> Source:
    """A finished scaling study."""
    for seed in seeds:
        for label in labels:
            write_run(folder / "runs", label, seed)
    return collected(folder)


def sampling_study(folder: Path) -> Source:
    """Three models, two seeds, scored with other sampling steps, guidance scales and decoders too."""
    for label in ("S/4", "B/2", "XL/1"):
        for seed in (0, 1):
            run = write_run(folder / "runs", label, seed)
            fid = fid_of(label, 2000, seed)
            rows = [evaluation(label, 2000, seed, sampling_steps=n, fid=fid * (1 + 20 / n)) for n in SAMPLING_STEPS]
            rows += [
                evaluation(label, 2000, seed, guidance_scale=scale, guidance_channels=3, fid=fid / scale)
                for scale in SCALES
            ]
            rows += [evaluation(label, 2000, seed, decoder=name, fid=fid + len(name)) for name in DECODERS]
            write_lines(run / "other-evals.jsonl", rows)
    return collected(folder)


def sampler_study(folder: Path) -> Source:
    """S/4 and B/2 by two objectives, two seeds: three samplers at several numbers of network calls, one of them twice
    a step."""
    for objective, worse in OBJECTIVES.items():
        for label in ("S/4", "B/2"):
            for seed in (0, 1):
                run = write_run(folder / "runs", label, seed)
                config = yaml.safe_load((run / "config.yaml").read_text())
                name = f"{config['id']}{objective.partition(' ')[2]}"
                named = {"id": name, "label": f"{label} {objective.partition('=')[2] or objective}"}
                (run / "config.yaml").write_text(yaml.safe_dump(config | named))
                model = json.loads((run / "model.json").read_text())
                (run / "model.json").write_text(json.dumps(model | {"objective": objective}))
                fid = worse * fid_of(label, 2000, seed)
                write_lines(run / "evals.jsonl", [evaluation(label, 2000, seed, sampling_steps=25, fid=fid)])
                write_lines(
                    run / "scores.jsonl",
                    [
                        evaluation(label, 2000, seed, sampling_steps=steps, network_calls=calls, sampler=sampler)
                        | {"fid": fid * factor * (1 + 20 / calls)}
                        for sampler, each, factor in SAMPLERS
                        for steps in (5, 25, 50)
                        for calls in [each * steps]
                    ],
                )
                run.rename(folder / "runs" / name)
    return collected(folder)


def averages_study(folder: Path) -> Source:
    """One model, two seeds, scored with other averages of its weights at every step, one made of snapshots."""
    for seed in (0, 1):
        run = write_run(folder / "runs", "S/4", seed)
        found = [{"weights": "ema std=0.05"}, {"weights": "ema std=0.1", "post_hoc": 16}, {"weights": "raw"}]
        rows = [evaluation("S/4", step, seed, **one) for step in STEPS for one in found]
        write_lines(run / "other-evals.jsonl", rows)
    return collected(folder)


def block_study(folder: Path, labels: Sequence[str] = ("XL/1",), designs: Sequence[str] = DESIGNS) -> Source:
    """XL/1 in three block designs, two seeds."""
    for label in labels:
        for worse, design in enumerate(reversed(designs)):
            for seed in (0, 1):
                run = write_run(folder / design, label, seed)
                config = yaml.safe_load((run / "config.yaml").read_text())
                config["recipe"]["model"]["block"] = design
                name = f"{label.replace('/', '-')}-{design}-{seed}"
                (run / "config.yaml").write_text(yaml.safe_dump(config | {"id": name}))
                rows = [evaluation(label, step, seed, fid=fid_of(label, step, seed) + worse) for step in STEPS]
                write_lines(run / "evals.jsonl", rows)
                (folder / "runs").mkdir(exist_ok=True)
                run.rename(folder / "runs" / name)
    return collected(folder)


def isoflop_study(folder: Path) -> Source:
    """Four sizes of patch size 2 at two training budgets, their steps rounded as whole numbers are."""
    for label in ("S/2", "B/2", "L/2", "XL/2"):
        run = write_run(folder / "runs", label)
        steps = [round(budget * gmacs_of("S/2") / gmacs_of(label)) for budget in BUDGETS]
        write_lines(run / "evals.jsonl", [evaluation(label, step) for step in steps])
    return collected(folder)


def collected(folder: Path) -> Source:
    return measured(collect(folder / "runs", folder / "results"), "results")


# Figure -> the study that has data for it; of all others it is the scaling study, with two seeds.
STUDIES: dict[str, Callable[[Path], Source]] = {
    "blocks": block_study,
    "designs": partial(block_study, labels=("S/2", "B/2", "L/2"), designs=DESIGNS[:2]),
    "families": lambda folder: measured(family_tables(folder), "results"),
    "isoflop": isoflop_study,
    **dict.fromkeys(("sampling-compute", "guidance", "decoders"), sampling_study),
    "network-calls": sampler_study,
    "averages": averages_study,
    "settings": lambda folder: measured(write_knob_study(folder), "results"),
    "transfer": lambda folder: measured(width_study.study(folder, width_study.few()), "results"),
}
SCALING = partial(study, seeds=(0, 1))


class Sources:
    """For each figure of the catalogue a source with data for it, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[Callable[[Path], Source], Source] = {}

    def __getitem__(self, figure: str) -> Source:
        make = STUDIES.get(figure, SCALING)
        if make not in self._made:
            self._made[make] = make(self._folder / str(len(self._made)))
        return self._made[make]
