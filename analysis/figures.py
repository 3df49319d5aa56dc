"""The figures of a scaling study, each as .png and .pdf with the data in it beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis import style
from analysis.files import write_arrays, write_csv
from analysis.fits import log_linear
from analysis.labels import place_labels
from analysis.runs import SIZES
from analysis.tables import MIN_MODELS, ResultsError, Tables, comparable, published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

CONVENTION = "GMACs = 10⁹ multiply-accumulates of one forward pass of one image (the paper's 'Gflops')."
PAPER = (
    "Published: Peebles & Xie 2022 (arXiv:2212.09748), Table 4: ImageNet 256 x 256, adaln-zero, 400K steps "
    "of batch 256, FID-50K, 250 DDPM steps, no guidance, EMA weights, ft-MSE decoder."
)
GRID_COLUMNS = 5


def draw_all(tables: Tables, out: Path) -> list[Path]:
    """Draw every figure of this module into the folder `out`; returns the files written.

    Raises:
        ResultsError: see the figures.
    """
    return [*gflops_vs_score(tables, out), *training_curves(tables, out), *sample_grid(tables, out)]


def gflops_vs_score(tables: Tables, out: Path) -> list[Path]:
    """Frechet distance against compute (DiT paper, Fig. 8), into gflops_vs_fid.png, .pdf and .csv.

    The left panel is measured, at the last step that at least half as many runs have a score at as at any
    step; markers are means over seeds, bars go from the lowest to the highest seed. The right panel is the
    paper's. Data columns: panel (measured or published), label, size, patch, gmacs, num_seeds, fid, fid_min,
    fid_max, line (the fitted line's fid; empty with fewer than three models).

    Raises:
        ResultsError: no score yet, scores that are not `comparable`, or runs that differ in more than size,
            patch size and seed.
    """
    from matplotlib.figure import Figure

    evals = _scaling_evals(tables)
    last = _last_shared_step(evals)
    evals = evals.loc[evals["step"] == last]
    measured = _with_line(_over_seeds(evals, []))
    paper = _with_line(_published_points())
    by_seed: list[Any] = [(f"seed {seed}: ", models) for seed, models in evals.groupby("seed")]
    with style.look():
        figure = Figure(figsize=(10, 4.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.set_title(f"Measured: {_names(_runs_of(tables, evals), 'data')}, {last:,} steps")
        right.set_title("Published: ImageNet 256 x 256, 400K steps")
        _scatter(left, measured, "Fréchet distance")
        _scatter(right, paper, "FID-50K")
        missing = len(tables.runs) - len(evals)
        late = f" Runs without a score there: {missing} of {len(tables.runs)}." if missing else ""
        style.caption(figure, f"{CONVENTION}\nMeasured: {_protocol(tables, evals)}{late}\n{PAPER}")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        _label_points(left, measured, by_seed if len(by_seed) > 1 else [("", measured)])
        _label_points(right, paper, [("", paper)])
        files = style.write_figure(figure, out, "gflops_vs_fid")
    data = pd.concat([measured.assign(panel="measured"), paper.assign(panel="published")])
    columns = ["panel", *(name for name in data.columns if name != "panel")]
    return [*files, write_csv(out / "gflops_vs_fid.csv", data.loc[:, columns])]


def training_curves(tables: Tables, out: Path) -> list[Path]:
    """Frechet distance over training (DiT paper, Fig. 6), into fid_vs_steps.png, .pdf and .csv.

    Above, a panel a patch size with a line a model size; below, the other way round. Lines are means over the
    seeds that have reached the step, bands go from the lowest to the highest. Data columns: label, size,
    patch, step, gmacs, num_seeds, fid, fid_min, fid_max.

    Raises:
        ResultsError: no score yet, scores that are not `comparable`, or runs that differ in more than size,
            patch size and seed.
    """
    from matplotlib.figure import Figure

    evals = _scaling_evals(tables)
    curves = _over_seeds(evals, ["step"])
    ranks = style.patch_ranks(curves["patch"].tolist())
    sizes = [size for size in SIZES if size in set(curves["size"])]
    with style.look():
        figure = Figure(figsize=(10, 6.6), layout="constrained")
        above, below = np.asarray(figure.subfigures(2, 1))
        panels = _row(above, len(ranks))
        for axes, patch in zip(panels, ranks, strict=True):
            axes.set_title(f"Patch size {patch}")
            for size in sizes:
                _curve(axes, curves, size, patch, ranks, f"size {size}", style.SIZE_LINES[size])
        _legend(above, panels)
        panels = _row(below, len(sizes))
        for axes, size in zip(panels, sizes, strict=True):
            axes.set_title(f"Size {size}")
            for patch, rank in ranks.items():
                _curve(axes, curves, size, patch, ranks, f"patch {patch}", style.PATCH_LINES[rank])
        _legend(below, panels)
        style.caption(figure, _protocol(tables, evals))
        files = style.write_figure(figure, out, "fid_vs_steps")
    return [*files, write_csv(out / "fid_vs_steps.csv", curves)]


def sample_grid(tables: Tables, out: Path) -> list[Path]:
    """Samples of the models from the same noise (DiT paper, Fig. 7), into sample_grid.png, .pdf and .npz.

    Rows are sizes, columns patch sizes, coarsest first; a cell holds classes 0 to 4 above 5 to 9, of the
    smallest seed at the run's last evaluated step. The .npz maps a label ("S/4") to (10, C, H, W) uint8.

    Raises:
        ResultsError: no samples yet, scores that are not `comparable`, or runs that differ in more than size,
            patch size and seed.
    """
    from matplotlib.figure import Figure

    evals = _scaling_evals(tables)
    evals = evals.loc[evals["run"].isin(list(tables.samples))]
    if evals.empty:
        raise ResultsError("no samples to draw: no evaluated run has its sample file")
    evals = evals.loc[evals["seed"] == evals["seed"].min()].drop_duplicates("run", keep="last")
    samples = {label: tables.samples[run] for label, run in zip(evals["label"], evals["run"], strict=True)}
    steps = dict(zip(evals["label"], evals["step"], strict=True))
    sizes = [size for size in SIZES if size in set(evals["size"])]
    patches = list(style.patch_ranks(evals["patch"].tolist()))
    with style.look():
        figure = Figure(figsize=(2.9 * len(patches) + 0.4, 1.4 * len(sizes) + 0.8), layout="constrained")
        figure.get_layout_engine().set(wspace=0.05)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
        grid = figure.subplots(len(sizes), len(patches), squeeze=False)
        # An empty cell is a white one of the same shape, so that the rows stay aligned.
        blank = np.full_like(next(iter(samples.values())), 255)
        for axes, label in zip(grid.flat, (f"{size}/{patch}" for size in sizes for patch in patches), strict=True):
            if label not in samples:
                _cell(axes, blank, f"{label}: no samples")
            elif len(set(steps.values())) > 1:
                _cell(axes, samples[label], f"{label}, step {steps[label]:,}")
            else:
                _cell(axes, samples[label], label)
        style.caption(figure, f"The same noise and classes in every cell. {_protocol(tables, evals)}")
        files = style.write_figure(figure, out, "sample_grid")
    return [*files, write_arrays(out / "sample_grid.npz", samples)]


def _scaling_evals(tables: Tables) -> pd.DataFrame:
    """The scores to draw, checked: the models may differ in size, patch and seed, in nothing else."""
    comparable(tables.evals)
    evals = tables.evals.loc[np.isfinite(tables.evals["fid"]) & tables.evals["gmacs"].notna()]
    if evals.empty:
        raise ResultsError("nothing to draw: no run has a score yet")
    runs = _runs_of(tables, evals)
    for name in ("block", "data", "batch_size"):
        if len(set(runs[name])) > 1:
            raise ResultsError(f"the runs differ in {name} ({_names(runs, name)}); keep one value to draw them")
    if len(runs.drop_duplicates(["label", "seed"])) < len(runs):
        raise ResultsError("a model has several runs of one seed; keep one run of each model and seed")
    return evals


def _last_shared_step(evals: pd.DataFrame) -> int:
    """The last step with at least half as many scores as any: a run that stopped early holds none back."""
    scores: dict[Any, int] = evals["step"].value_counts().to_dict()
    return max(int(step) for step, count in scores.items() if 2 * count >= max(scores.values()))


def _runs_of(tables: Tables, evals: pd.DataFrame) -> pd.DataFrame:
    return tables.runs.loc[tables.runs["run"].isin(evals["run"].tolist())]


def _over_seeds(evals: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Mean and range of the scores of each model, and of each value of `by`, over the seeds."""
    points: Any = evals.groupby(["gmacs", "label", "size", "patch", *by], as_index=False).agg(
        num_seeds=("seed", "nunique"), fid=("fid", "mean"), fid_min=("fid", "min"), fid_max=("fid", "max")
    )
    return points.loc[:, ["label", "size", "patch", *by, "gmacs", "num_seeds", "fid", "fid_min", "fid_max"]]


def _published_points() -> pd.DataFrame:
    table = published("dit_table4")
    scaling = (table["image_size"] == 256) & (table["block"] == "adaln-zero") & (table["train_steps_k"] == 400)
    table = table.loc[scaling].sort_values("gmacs", ignore_index=True)
    parts = table["model"].str.extract(r"DiT-(?P<label>(?P<size>\w+)/(?P<patch>\d+))")
    points = parts.astype({"patch": "Int64"}).assign(gmacs=table["gmacs"], num_seeds=1, fid=table["fid50k"])
    return points.assign(fid_min=points["fid"], fid_max=points["fid"])


def _with_line(points: pd.DataFrame) -> pd.DataFrame:
    """Add `line`, the log-linear fit's score at each model, where there are models enough."""
    if len(points) < MIN_MODELS:
        return points.assign(line=np.nan)
    return points.assign(line=log_linear(points["gmacs"], points["fid"])(points["gmacs"]))


def _unit(points: pd.DataFrame) -> tuple[str, float]:
    """The unit that keeps the numbers readable, and its size in GMACs."""
    return ("GMACs", 1.0) if max(points["gmacs"]) >= 1 else ("MMACs", 1e-3)


def _scatter(axes: Axes, points: pd.DataFrame, score: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    unit, size = _unit(points)
    ranks = style.patch_ranks(points["patch"].tolist())
    compute = points["gmacs"] / size
    if len(points) >= MIN_MODELS:
        axes.plot(compute, points["line"], color="#888888", linewidth=1.2, zorder=1)
    if max(points["num_seeds"]) > 1:
        below, above = points["fid"] - points["fid_min"], points["fid_max"] - points["fid"]
        axes.errorbar(compute, points["fid"], (below, above), fmt="none", ecolor="#555555", elinewidth=1, capsize=2)
    for model in points.to_dict("records"):
        axes.scatter(
            model["gmacs"] / size,
            model["fid"],
            s=style.SIZE_AREAS[model["size"]],
            marker=style.PATCH_MARKERS[ranks[model["patch"]]],
            color=style.SIZE_COLOURS[model["size"]],
            edgecolors="black",
            linewidths=0.7,
            zorder=3 - SIZES.index(model["size"]) / 10,  # small markers above large ones
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(0.12)
    axes.set_xlabel(f"{unit} (one forward pass of one image)")
    axes.set_ylabel(score)


def _label_points(axes: Axes, points: pd.DataFrame, fits: list[tuple[str, Any]]) -> None:
    """Name the points, and give the correlation of each of `fits`, (prefix, models), in the corner."""
    size = _unit(points)[1]
    few = f"{len(points)} model{'s' if len(points) > 1 else ''}: too few for a line"
    lines = [
        f"{prefix}r = {log_linear(models['gmacs'], models['fid']).r:.3f}, {len(models)} models".replace("-", "−")
        for prefix, models in fits
        if len(models) >= MIN_MODELS
    ]
    axes.text(0.98, 0.98, "\n".join(lines or [few]), transform=axes.transAxes, ha="right", va="top")
    compute = (points["gmacs"] / size).tolist()
    # Where the labels should not go: the bars, and the line, which is straight on these axes.
    avoid = [
        np.column_stack([np.full(20, x), np.linspace(low, high, 20)])
        for x, low, high in zip(compute, points["fid_min"], points["fid_max"], strict=True)
    ]
    if len(points) >= MIN_MODELS:
        ends = points["line"].tolist()
        avoid.append(np.column_stack([np.geomspace(compute[0], compute[-1], 200), np.linspace(ends[0], ends[-1], 200)]))
    place_labels(axes, compute, points["fid"].tolist(), points["label"].tolist(), np.concatenate(avoid))


def _row(part: SubFigure, count: int) -> list[Axes]:
    panels = list(part.subplots(1, count, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels:
        axes.set_xlabel("Training steps")
    panels[0].set_ylabel("Fréchet distance")
    return panels


def _curve(
    axes: Axes, curves: pd.DataFrame, size: str, patch: int, ranks: dict[int, int], name: str, line: str
) -> None:
    points = curves.loc[(curves["size"] == size) & (curves["patch"] == patch)]
    if points.empty:
        return
    colour = style.SIZE_COLOURS[size]
    axes.plot(
        points["step"].astype(float),
        points["fid"],
        linestyle=line,
        color=colour,
        marker=style.PATCH_MARKERS[ranks[patch]],
        markersize=style.SIZE_AREAS[size] ** 0.5 * 0.7,
        markeredgecolor="black",
        markeredgewidth=0.5,
        label=name,
    )
    if max(points["num_seeds"]) > 1:
        steps = points["step"].astype(float)
        axes.fill_between(steps, points["fid_min"], points["fid_max"], color=colour, alpha=0.2, linewidth=0)


def _legend(part: SubFigure, panels: list[Axes]) -> None:
    """One legend for a row of panels: the first line of each name."""
    named: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    part.legend(list(named.values()), list(named), loc="outside right center", handlelength=3.5)


def _cell(axes: Axes, samples: np.ndarray, title: str) -> None:
    axes.set_axis_off()
    axes.set_title(title, fontsize=9)
    axes.imshow(_montage(samples), cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _montage(samples: np.ndarray) -> np.ndarray:
    """(N, C, H, W) samples side by side with white gaps: (rows, columns) grey or (rows, columns, 3)."""
    num, channels, height, width = samples.shape
    rows, gap = -(-num // GRID_COLUMNS), max(1, width // 16)
    shape = (rows * (height + gap) - gap, GRID_COLUMNS * (width + gap) - gap, channels)
    picture = np.full(shape, 255, np.uint8)
    for index, sample in enumerate(samples):
        top, left = index // GRID_COLUMNS * (height + gap), index % GRID_COLUMNS * (width + gap)
        picture[top : top + height, left : left + width] = sample.transpose(1, 2, 0)
    return picture[..., 0] if channels == 1 else picture


def _names(runs: pd.DataFrame, column: str) -> str:
    return ", ".join(str(value) for value in sorted(set(runs[column])))


def _protocol(tables: Tables, evals: pd.DataFrame) -> str:
    """The conditions of a measurement in one sentence: all of the evaluation's key, and the training."""
    runs = _runs_of(tables, evals)
    key: dict[str, Any] = evals.iloc[0].to_dict()
    guidance = f"guidance {key['guidance_scale']:g}"
    if pd.notna(key["guidance_channels"]):
        guidance += f" on {key['guidance_channels']} channels"
    clipped = "clipped" if key["clip_denoised"] else "not clipped"
    decoder = f", decoder {key['decoder']}" if pd.notna(key["decoder"]) else ""
    accuracy = key["extractor_accuracy"]
    extractor = f"extractor {key['extractor']}" + (f" (accuracy {accuracy:.3f})" if pd.notna(accuracy) else "")
    first, last = min(evals["step"]), max(evals["step"])
    steps = f"{last:,}" if first == last else f"{first:,} to {last:,}"
    seeds = (
        f"seeds {_names(runs, 'seed')} (mean and range)"
        if len(set(runs["seed"])) > 1
        else f"seed {_names(runs, 'seed')}"
    )
    return (
        f"{_names(runs, 'data')}, block {_names(runs, 'block')}, {steps} training steps of batch "
        f"{_names(runs, 'batch_size')}, {seeds}; "
        f"{key['weights']} weights, {key['sampler']} sampler, {key['sampling_steps']} steps, {guidance}, "
        f"denoised images {clipped}{decoder}, {key['num_samples']:,} samples with {key['labels']} labels, "
        f"reference {key['reference']}, {extractor}."
    )
