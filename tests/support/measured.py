"""What the pages say was measured, read from results/: the names that a page's markers can use (see `test_pages`)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from analysis.advice.transfer import Transfer, transfers
from analysis.compare.at_equal_steps import compare_at_equal_steps
from analysis.compare.beside_published import known_spread
from analysis.compare.between_labs import between_labs
from analysis.compare.collected import collected_designs
from analysis.compare.one_key import by_setting
from analysis.compare.repeats import repeats
from analysis.printed_gmacs import printed_gmacs
from analysis.results.sampled import guidance_text
from analysis.results.tables import Tables, load
from bench.counting.conventions import CONVENTIONS
from bench.flops import counted
from bench.perf import document, race
from models.registry import configure
from models.unet.cost import macs_by_part

RESULTS = Path(__file__).parents[2] / "results"
NEIGHBOURS = [(f"{s}/{patch}", f"{large}/{patch}") for patch in (4, 2, 1) for s, large in ("SB", "BL", ("L", "XL"))]


@cache
def csv(path: str) -> Any:
    return pd.read_csv(RESULTS / path)


def read(path: str) -> Any:
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def laboratories(uncounted: bool = False) -> Any:
    """How much laboratories differ by the repeats of published models; `uncounted`: with those that do not count."""
    return between_labs(repeats()) if uncounted else known_spread()


def last(study: str) -> Any:
    """The correlations at a study's last step, one row per seed."""
    return csv(f"{study}/correlations.csv").query("step == step.max()")


def scores(study: str, step: int = 600, metric: str = "fid") -> Any:
    """Labels down, seeds across."""
    return csv(f"{study}/evals.csv").query("step == @step").pivot(index="label", columns="seed", values=metric)


def took(study: str) -> tuple[float, float]:
    """Minutes and seconds from the first start to the last end."""
    runs = csv(f"{study}/runs.csv")
    duration: Any = pd.to_datetime(runs.finished).max() - pd.to_datetime(runs.started).min()
    return divmod(duration.total_seconds(), 60)


def from_digits(study: str, what: str) -> Any:
    """By how many % "loss" or "fid" of a study's runs differ from those of the same runs of results/digits, by seed,
    label and step.
    """
    there, here = (
        csv(f"{name}/{'evals' if what == 'fid' else 'train'}.csv").set_index(["seed", "label", "step"])[what]
        for name in ("digits", study)
    )
    change = 100 * (here / there.loc[here.index] - 1)
    assert len(change) == len(here) and change.notna().all()
    return change


def multiplied_otherwise(what: str) -> Any:
    """Of results/onednn: the largest difference of "loss" or "fid" in %, or labels whose losses are "equal"."""
    largest = from_digits("onednn", {"equal": "loss"}.get(what, what)).abs().groupby("label").max()
    return sorted(largest.index[largest == 0]) if what == "equal" else largest.max()


def misordered(study: str) -> list[tuple[str, str, int]]:
    """Neighbouring sizes of which the larger scores no better, and the seed."""
    fid = scores(study)
    return [(a, b, seed) for seed in fid for a, b in NEIGHBOURS if fid.at[b, seed] >= fid.at[a, seed]]


def repeated() -> Any:
    """The scores that digits-again has of the runs of digits: fid, and `percent` by which it is higher."""
    keys = ["run", "step", "label"]
    both = csv("digits-again/evals.csv").merge(csv("digits/evals.csv"), on=keys, suffixes=("", "_first"))
    return both.assign(percent=100 * (both.fid / both.fid_first - 1))


def sampling() -> Any:
    """Fréchet distances of seed 0's last weights, models in order of compute, sampling steps across."""
    own = csv("digits-again/evals.csv").query("seed == 0 and step == 600")
    rows = pd.concat([own, csv("digits-again/other_evals.csv")])
    return rows.pivot(index=["gmacs", "label"], columns="sampling_steps", values="fid").sort_index().droplevel("gmacs")


def reached(cheaper: bool = False) -> int:
    """Models that with some number of sampling steps reach the next larger one at 25; `cheaper`: for less compute."""
    fid, gmacs = sampling(), csv("digits/runs.csv").groupby("label").gmacs.first()
    return sum(
        any(
            fid.at[small, n] <= fid.at[large, 25] and (not cheaper or n * gmacs[small] < 25 * gmacs[large]) for n in fid
        )
        for small, large in NEIGHBOURS
    )


def label_shifts(metric: str = "fid") -> Any:
    """digits-labels: the scores of balanced and random labels, their shift and its interval, the same in per cent."""
    rows = csv("digits-labels/summary.csv").query("metric == @metric").drop(columns="metric")
    percent = rows[["shift", "shift_low", "shift_high"]].mul(100 / rows.balanced, axis=0).add_suffix("_percent")
    return rows.assign(model=rows.model.str.replace("-", "/")).join(percent)


def plan(sweep: str) -> list[float]:
    """GPU-hours of training and scoring, days, GB of checkpoints and of samples."""
    found = read(f"plans/{sweep}.json")
    sizes = [found["checkpoint_bytes"] / 1e9, found["sample_bytes"] / 1e9]
    return [found["training_gpu_hours"], found["scoring_gpu_hours"], found["wall_s"] / 86400, *sizes]


def held_out(fit: str) -> Any:
    """Predictions of the largest model, one row per law without a floor: of it `estimate`, intervals, `percent` off."""
    rows = []
    for entry in read(f"fits/{fit}.json")["held_out"]:
        (model,) = entry["models"]
        patches = {name.partition("/")[2] for name in entry["models_fitted"]}
        row = {
            "formula": {"tokens": "A C^-alpha T^-gamma", "power": "A C^-alpha"}.get(entry["form"]),
            "models": [len(entry["models_fitted"]), *(map(int, patches) if len(patches) == 1 else [])],
            "estimate": model["prediction"]["law"]["estimate"],
            "percent": 100 * model["relative_error"],
            "truth": model["truth"],
        }
        for name in ("law", "new_run"):
            interval = model["prediction"][name]
            missed = [] if model[f"truth_inside_{name}"] else ["missed"]
            row[name] = [interval["low"], interval["high"], *missed]
        rows.append(row)
    return pd.DataFrame(rows).dropna(subset="formula")


def law(fit: str) -> list[float]:
    """A, -alpha, -gamma of the best law."""
    parameters = read(f"fits/{fit}.json")["fits"][0]["parameters"]
    return [parameters["A"], *(-parameters[name] for name in ("alpha", "gamma") if name in parameters)]


TRIED_IN = {"2e-8": "", "1e-7": "", "5e-9": "-confirm", "1.2e-8": "-again", "2e-9": "-again"}


def tried(name: str, *budgets: str) -> Any:
    """The advised choices that were trained afterwards, from digits-advice/NAME-BUDGET.json, with their scores."""
    rows = []
    for budget in budgets:
        evals = csv(f"digits-advice{TRIED_IN[budget]}/evals.csv").sort_values("seed")
        for choice in read(f"digits-advice/{name}-{budget}.json")["choices"]:
            fid = evals.query("label == @choice['model'] and step == @choice['steps']").fid.tolist()
            if fid:
                run = choice.pop("prediction")["new_run"]
                inside = sum(run["low"] <= score <= run["high"] for score in fid)
                rows.append({"budget": float(budget), **choice, **run, "fid": fid, "inside": inside, "runs": len(fid)})
    found = pd.DataFrame(rows)
    reach = [[] if within else ["out of reach"] for within in found.within_reach]
    return found.assign(reach=reach, mean=[np.mean(fid) for fid in found.fid])


def in_reach(name: str, *budgets: str) -> list[int]:
    """Of the runs within reach, how many were inside their interval, and how many there were."""
    return tried(name, *budgets).query("within_reach")[["inside", "runs"]].sum().tolist()


def off_by(law: str) -> list[Any]:
    """Of models trained for longer than before: predicted over measured, least and most; runs inside, and all."""
    far = tried(f"afterwards-{law}", "2e-8", "1e-7").query("within_reach and beyond > 1")
    ratio = far.estimate / far["mean"]
    return [law, ratio.min(), ratio.max(), far.inside.sum(), far.runs.sum()]


def advised_right(budget: str) -> bool:
    """No tried model scored more than 1 % better than the advised one."""
    means = tried("predicted", budget).groupby("model")["mean"].first()
    return means[read(f"digits-advice/predicted-{budget}.json")["advice"]] <= 1.01 * means.min()


def by_label(study: str, table: str = "evals") -> Any:
    """A study's scores, whose labels are a network, an objective and maybe a learning rate ("B/2 edm at 0.001")."""
    rows = csv(f"{study}/{table}.csv")
    words: Any = rows.label.str.split(" ", expand=True)
    return rows.assign(network=words[0], objective=words[1], rate=words.get(3))


def of_objectives() -> Any:
    """A row for each objective, best first: % of the trace, of B/2 the range too, and that by its own sampler."""
    common, own = by_label("objectives"), by_label("objectives", "other_evals")
    means = common.pivot_table("fid_percent", "objective", "network")[["S/4", "S/2", "B/2"]]
    of_b: Any = common.query("network == 'B/2'").groupby("objective").fid_percent
    by_own: Any = own.query("network == 'B/2'").groupby("objective").fid_percent
    found = means.assign(low=of_b.min(), high=of_b.max(), own=by_own.mean())
    return found.sort_values("B/2").reset_index()


def at_rates() -> Any:
    """Of S/4, a row for each objective: % of the trace at half the learning rate, at the study's and at twice it."""
    rates: Any = by_label("objectives-rates").pivot_table("fid_percent", "objective", "rate")
    own = by_label("objectives").query("network == 'S/4'").groupby("objective").fid_percent.mean()
    found = rates.assign(own=own)[["0.001", "own", "0.004"]]
    return found.sort_values("own").reset_index()


def pairs(study: str, distinguishable: bool = True) -> Any:
    return csv(f"{study}/pairs.csv").query("distinguishable == @distinguishable")


def of_samplers() -> Any:
    """Mean % of the trace: objective and sampler down, network calls across; Heun's 9, 19 and 49 are 10, 20 and 50."""
    rows = pd.concat([by_label("samplers"), by_label("samplers", "other_evals")], ignore_index=True)
    rows = rows.assign(about=(rows.network_calls + 1) // 5 * 5)
    return rows.pivot_table("fid_percent", ["objective", "sampler"], "about")


@cache
def tables(study: str) -> Tables:
    return load(RESULTS / study)


def all_scores(study: str) -> Any:
    """Those by the recipe's evaluation and all others, with the schedule of their run."""
    found = tables(study)
    rows = pd.concat([found.evals, found.other_evals], ignore_index=True)
    return rows.merge(found.runs[["run", "schedule"]], on="run")


def guided(metric: str = "fid") -> Any:
    """Of results/guidance, means over the seeds at the last step: `WAYS` of guidance down, scales above 1 across."""
    rows = all_scores("guidance").query("guidance_scale != 1")
    ways = [guidance_text(row).strip() for row in rows.to_dict("records")]
    return rows.assign(way=ways).pivot_table(metric, "way", "guidance_scale").loc[[*WAYS]]


# By the null label on all of the channels is the first.
INTERVAL = "at times 0 to 0.6"
WAYS = ("", "on 2 channels", "on 1 channel", INTERVAL, f"on 2 channels {INTERVAL}", f"on 1 channel {INTERVAL}")
WAYS = (*WAYS, "by step 150")


def unguided(metric: str = "fid") -> float:
    return float(csv("guidance/evals.csv").query("step == step.max()")[metric].mean())


def compute_of(way: str) -> float:
    """Of results/guidance, the compute of a sample as a share of that which is guided at all times."""
    rows = all_scores("guidance").query("guidance_scale != 1")
    ways = [guidance_text(row).strip() for row in rows.to_dict("records")]
    gmacs = rows.assign(way=ways).groupby("way").sampling_gmacs.first()
    return float(gmacs[way] / gmacs[""])


AVERAGES = ("raw", "ema", *(f"ema std={std}" for std in (0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25)))


def averaged(schedule: str, metric: str = "fid") -> Any:
    """Of results/ema, means over the seeds: `AVERAGES` down, training steps across."""
    rows = all_scores("ema").query("schedule == @schedule")
    return rows.pivot_table(metric, "weights", "step").loc[[*AVERAGES]].astype(object).fillna("none")


def apart(study: str, by: str, one: str, other: str, step: int | None = None) -> list[Any]:
    """As `ditbench compare STUDY --by BY --between ONE,OTHER`: how much higher `other` is, from and to, and whether
    it is distinguishable.
    """
    results = by_setting({study: tables(study)}, by, (one, other))
    first = next(iter(results))
    found = compare_at_equal_steps(collected_designs(results, "source", step=step))
    assert found.interval is not None
    ends = [found.difference, found.interval.low, found.interval.high]
    signed = ends if found.better == first else [-ends[0], -ends[2], -ends[1]]
    return [*signed, "yes" if found.distinguishable else "no"]


def made_afterwards() -> Any:
    """Scores of the same averages, made of snapshots (results/ema) and kept (results/ema-direct): `fid`, `fid_kept`."""
    made = all_scores("ema").query("schedule == 'constant' and post_hoc.notna()")
    keys = ["seed", "step", "weights"]
    return made.merge(all_scores("ema-direct")[[*keys, "fid"]], on=keys, suffixes=("", "_kept"))


BY_GUIDANCE = "guidance_scale,guidance_channels,guidance_interval,guide"


def each_apart(study: str, by: str, *of: tuple[str, str]) -> list[list[Any]]:
    """`apart`, of each pair."""
    return [apart(study, by, *pair) for pair in of]


KNOBS = ["plain", "qk-norm", "clip", "warm-up", "all"]


def knobs(what: str, step: int = 600) -> Any:
    """Of results/knobs, arms down and learning rates across: the mean over seeds of a column of evals at `step`.

    loss: of the training, over the last tenth of the steps; diverged: how many seeds' is above twice that of the plain
    model at 0.002, or not finite; given_up: how many failed for good. "none": of all three.
    """
    runs = csv("knobs/runs.csv").set_index("run")
    train = csv("knobs/train.csv").query("0.9 * @step < step <= @step")
    loss: Any = train.groupby("run").loss.mean().reindex(runs.index)
    evals = csv("knobs/evals.csv").query("step == @step").set_index("run")
    rows = runs.assign(arm=runs.label.str.split(" ").str[0], loss=loss)
    if what in evals:
        rows = rows.assign(**{what: evals[what].reindex(rows.index)})
    usual = rows.query("arm == 'plain' and learning_rate == 0.002").set_index("seed").loss
    rows = rows.assign(diverged=~(rows.loss <= 2 * rows.seed.map(usual)), given_up=rows.state == "failed")
    how = "sum" if what in ("diverged", "given_up") else "mean"
    found: Any = rows.pivot_table(what, "arm", "learning_rate", aggfunc=how).loc[KNOBS]
    return found.astype(object).where(found.notna(), "none")


def label_pair(study: str, one: str, other: str, metric: str = "fid") -> list[Any]:
    """As `ditbench compare STUDY --between ONE,OTHER`: how much higher `other` is, from and to, and whether that is
    distinguishable.
    """
    designs = collected_designs({study: tables(study)}, "label", metric, between=(one, other))
    found = compare_at_equal_steps(designs)
    assert found.interval is not None
    ends = [found.difference, found.interval.low, found.interval.high]
    signed = ends if found.better == one else [-ends[0], -ends[2], -ends[1]]
    return [*signed, "yes" if found.distinguishable else "no"]


def higher(study: str, *pairs: tuple[str, str]) -> int:
    """Of pairs of labels, in how many the second has a distinguishably higher distance."""
    found = [label_pair(study, *pair) for pair in pairs]
    return sum(row[0] > 0 and row[-1] == "yes" for row in found)


PIXELS = [f"{size} {prediction}" for size in ("S", "B", "L", "XL") for prediction in ("velocity", "x0")]


def of_families(study: str = "pixels") -> list[list[Any]]:
    """Of results/pixels: size, prediction, mean % of the trace of DiT, JiT and U-ViT."""
    means = csv(f"{study}/evals.csv").query("step == step.max()").groupby("label").fid_percent.mean()
    return [[*arm.split(), *(means[f"{family} {arm}"] for family in ("DiT", "JiT", "U-ViT"))] for arm in PIXELS]


def before_and_after() -> list[Any]:
    """Mean % of the trace of the first study and, on the same seeds, of the one before; sizes down, patches across."""
    now, before = (
        csv(f"{study}/evals.csv").query("step == 600").pivot_table("fid_percent", "size", "patch")
        for study in ("first", "digits-held-out")
    )
    return [
        [size, *(value for patch in (4, 2, 1) for value in (now.at[size, patch], before.at[size, patch]))]
        for size in ("S", "B", "L", "XL")
    ]


def laws_before_and_after() -> Any:
    """Seeds down: the correlation, and pairs of patches and of sizes in order, of both studies."""
    columns = ["r", "patch_pairs_right", "patch_pairs", "size_pairs_right", "size_pairs"]
    now, before = (last(study).set_index("seed")[columns] for study in ("first", "digits-held-out"))
    return now.join(before.add_suffix("_before")).reset_index()


def unet_parts(*models: str) -> list[list[Any]]:
    """GMACs: a row for each part of U-Nets, a column for each model, and their sums below."""
    parts = [macs_by_part(configure(model)) for model in models]
    rows = [[of.get(part, 0) / 1e9 for of in parts] for part in dict.fromkeys(part for of in parts for part in of)]
    return [*rows, [sum(column) for column in zip(*rows, strict=True)]]


def by_compute(*studies: str, metric: str = "fid_percent") -> list[list[Any]]:
    """Of the last steps of studies, cheapest first: label, MMACs, mean over the seeds, lowest, highest."""
    rows = []
    for study in studies:
        evals: Any = csv(f"{study}/evals.csv").query("step == step.max()")
        for label, of in evals.groupby("label"):
            rows.append([label, 1e3 * of.gmacs.iloc[0], *of[metric].agg(["mean", "min", "max"])])
    return sorted(rows, key=lambda row: row[1])


def multiplier(comparison: str) -> list[float]:
    """Of what `ditbench compare --format json` wrote: how many times the compute the worse needs, from and to."""
    found = read(comparison)["multiplier"]
    return [found[name] for name in ("estimate", "low", "high")]


def of_rates() -> Any:
    """Of results/pixels-rates: family and prediction down, % of the trace at three learning rates."""
    rows = csv("pixels-rates/evals.csv").query("step == step.max()")
    words: Any = rows.label.str.split(" ", expand=True)
    found = rows.assign(family=words[0], prediction=words[2], rate=words[3])
    return found.pivot_table("fid_percent", ["family", "prediction"], "rate").reset_index()


def of_clips(*labels: str) -> list[list[Any]]:
    """Of results/video and video-unet: label, MMACs, means of % of the trace, of frames' distance, of consistency."""
    rows = pd.concat([csv(f"{study}/evals.csv").query("step == step.max()") for study in ("video", "video-unet")])
    columns = ["fid_percent", "frame_fid", "temporal_consistency"]
    of_label = {label: rows.query("label == @label") for label in labels}
    return [[label, 1e3 * of.gmacs.iloc[0], *of[columns].mean()] for label, of in of_label.items()]


ATTENTIONS = ("full", "sequential", "parallel")
CLIPS = [*(f"{size} {attention}" for size in ("1x2x2", "2x2x2", "2x4x4") for attention in ATTENTIONS)]
CLIPS = [*CLIPS, "U-Net 4", "U-Net 6"]


def compare_videos(one: str, other: str) -> Any:
    """As `ditbench compare results/video results/video-unet --between ONE,OTHER`."""
    both = {study: tables(study) for study in ("video", "video-unet")}
    return compare_at_equal_steps(collected_designs(both, "label", between=(one, other)))


def printed_of(model: str) -> float:
    """The GMACs that the DiT paper prints."""
    return float(printed_gmacs(model, "adaln-zero", 256) or 0)


def kinds(model: str) -> dict[str, int]:
    """What a model computes: kind of operator (`bench.counting.conventions`) -> how much."""
    return dict(counted(model, configure(model)).tally[""])


def by_conventions(*models: str) -> list[list[Any]]:
    """A row for each convention: its name, and the count of each model in 1e9."""
    return [
        [name, *(convention.of(kinds(model)) / 1e9 for model in models)] for name, convention in CONVENTIONS.items()
    ]


def by(convention: str, model: str = "DiT-XL/2") -> float:
    """In 1e9."""
    return CONVENTIONS[convention].of(kinds(model)) / 1e9


def tools() -> list[list[float]]:
    """What tools print of DiT-XL/2 in 1e9, with fused attention and with attention that is written out."""
    found = kinds("DiT-XL/2")
    linear, matmul = by("linear-only"), by("matmul")
    norms = (found["layer_norm"] + found["layer_norm of the final layer"]) / 1e9
    return [
        [by("fvcore"), by("fvcore") + found["attention"] / 1e9],
        [linear, linear],  # thop: modules, so that products do not show
        [linear + 2 * norms, linear + 2 * norms],  # its later versions
        [linear, matmul],  # ptflops, by operators of ATen
        [linear, linear],  # calflops, which does not see the operator @
        [2 * linear, 2 * matmul],  # torch, on a CPU
        [2 * matmul, 2 * matmul],  # torch, elsewhere
    ]


def of_ways() -> list[list[Any]]:
    """Of results/text: how a network is told, mean % of the trace of S, B and L, and MMACs of L."""
    rows = csv("text/evals.csv").query("step == step.max()").groupby("label")[["fid_percent", "gmacs"]].mean()
    ways = ("label", "pixart", "pooled", "in-context", "cross-attention")
    percent = rows.fid_percent
    return [[*(percent[f"{size} {way}"] for size in "SBL"), 1e3 * rows.gmacs[f"L {way}"]] for way in ways]


def loss_of(study: str, label: str) -> float:
    """Of the training, over the last tenth of the steps."""
    return float(csv(f"{study}/train.csv").query("step > 0.9 * step.max() and label == @label").loss.mean())


@cache
def transfer_of(study: str, design: int = 0) -> Transfer:
    """Widths at their learning rates; of mup, 0 is the standard parametrisation and 1 is muP."""
    return transfers(load(RESULTS / study))[design]


def tuned_loss(width: int, study: str = "mup", design: int = 0) -> Any:
    """(S,) training losses by seed at the best of a width's rates."""
    (of_width,) = (one for one in transfer_of(study, design).widths if one.width == width)
    return of_width.losses[np.argmin(of_width.means)]


def transferred() -> list[list[float]]:
    """Each width of mup: best rate, tuned loss and % lost at the narrowest's rate, of sp, then of muP."""
    pairs = zip(transfer_of("mup").widths, transfer_of("mup", 1).widths, strict=True)
    return [
        [pair[0].width, *(value for one in pair for value in (np.exp(one.optimum), one.tuned[1], 100 * one.excess))]
        for pair in pairs
    ]


def drifts(study: str, design: int = 0) -> list[float]:
    """The power of the width that the best rate follows, and its 90 % interval."""
    of_design = transfer_of(study, design)
    return [of_design.drift, *np.quantile(of_design.drift_draws, [0.05, 0.95])]


def eight_times() -> list[Any]:
    """The prediction of digits-ladder-8x, its intervals, and what was measured."""
    verdict = read("digits-ladder-8x/verdict.json")
    single, law = verdict["prediction"]["single_run"], verdict["prediction"]["law"]
    intervals = [interval[end] for interval in (single, law) for end in ("low", "high")]
    seeds = [seed["score"] for seed in verdict["seeds"]]
    return [single["estimate"], *intervals, *seeds, verdict["mean"]["score"], verdict["mean"]["ratio"]]


def raced(kind: str) -> list[list[Any]]:
    """Of `ditbench perf train` or `sample`: setting, contender, images/s, our time over its, % of matmul, peak GB."""
    rows = race.table(read(f"perf/{kind}.json"))
    numbers = ("images/s", "ours/this", "share", "peak_gb")
    return [[row["setting"], row["contender"], *(float(row[name].rstrip("%")) for name in numbers)] for row in rows]


def of_products(kind: str) -> list[float]:
    """GFLOP/s of the machine's products in that run, by torch.mm and by oneDNN."""
    return [median(found) for found in document.rates(read(f"perf/{kind}.json")).values()]


def fastest(kind: str) -> list[float]:
    """Our time over that of the faster alternative, the least and the largest over the settings."""
    over: dict[str, list[float]] = {}
    for setting, contender, _, time, *_ in raced(kind):
        if contender != "ours":
            over.setdefault(setting, []).append(time)
    largest = [max(times) for times in over.values()]
    return [min(largest), max(largest)]


def of_sweep(contender: str) -> float:
    """Our time over a contender's at a sweep's models, all of them together: sums of medians."""
    rows = read("perf/digits/train.json")["rows"]
    sums = {name: sum(document.quartiles(r)[1] for r in rows if r["contender"] == name) for name in ("ours", contender)}
    return sums["ours"] / sums[contender]


def of_perf(*kinds: str) -> list[dict[str, Any]]:
    """The lines of what `ditbench perf` measured (`bench.perf.document.lines`)."""
    return [line for kind in kinds for line in document.lines(read(f"perf/{kind}.json"))]


def costs(*kinds: str) -> list[list[Any]]:
    """Of these: what, our median, its unit, the alternative, our time over its."""
    columns = ("what", "ours", "unit", "alternative", "ratio")
    return [["none" if line[name] is None else line[name] for name in columns] for line in of_perf(*kinds)]


def ratios(kind: str, alternative: str) -> list[float]:
    return [line["ratio"] for line in of_perf(kind) if line["alternative"] == alternative]


def differing(kind: str, part: str) -> list[float]:
    """By how much results differ from ours, of measures whose name has `part`."""
    rows = read(f"perf/{kind}.json")["rows"]
    return [row["difference"] for row in rows if part in row["what"] and "difference" in row]
