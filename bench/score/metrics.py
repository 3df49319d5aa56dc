"""Metrics of samples, chosen in a recipe by name or dotted path, and the functions behind the suite's own.

`METRICS` is their registry; one of your own is named as `evaluation.metrics: [my_file:Name]`. The functions are pure,
of feature tensors (N, D), float32 on the CPU; torch-fidelity computes all but the Fréchet distances. ADM's conventions
(Dhariwal & Nichol 2021, arXiv 2105.05233), which the DiT paper uses: 50,000 samples, the Inception Score over splits of
5,000, precision and recall against the 10,000 images of the reference batch. Importing this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from bench.errors import InputError
from bench.score.extractors import Extractor
from models.parts import Seam

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from bench.data.images import Images
    from bench.score.features import Features
    from bench.score.frechet import Gaussian
    from bench.score.reference import Reference

# What a metric may need.
FEATURES = "features"
SPATIAL = "spatial"
LOGITS = "logits"
REFERENCE_IMAGES = "reference images"
MANY_SAMPLES = "10000 samples"
FRAMES = "frames"  # their features, of clips alone
NEEDS = (FEATURES, SPATIAL, LOGITS, REFERENCE_IMAGES, MANY_SAMPLES, FRAMES)

KID_SUBSETS = 100
NEIGHBOURS = 3
DISTANCE_ROWS = 2500

FID_INFINITY_SIZES = 15
FID_INFINITY_SMALLEST = 5000
FID_INFINITY_MIN_SAMPLES = 10_000


@dataclass(frozen=True, eq=False)
class Compared:
    """Samples and what they are compared with, as a metric sees them.

    Attributes:
        samples: uint8 (N, C, H, W), of clips (N, C, T, H, W).
        reference: what the samples are compared with; its images where there are any.
        extractor: whose features are compared; it names its layers.
        sample_layers, reference_layers: features on disk, of every layer; None without reference images.
        gaussians: layer -> of the reference.
        kid_subset_size: of the recipe.
    """

    samples: Images
    reference: Reference
    extractor: Extractor
    sample_layers: Features
    reference_layers: Features | None
    gaussians: Mapping[str, Gaussian]
    kid_subset_size: int

    @cached_property
    def features(self) -> Tensor:
        """Of the samples, (N, D) float32."""
        return self.sample_layers.all(self.extractor.features)

    @cached_property
    def reference_features(self) -> Tensor:
        """Of the reference images, (M, D) float32; for metrics that need `REFERENCE_IMAGES`."""
        assert self.reference_layers is not None
        return self.reference_layers.all(self.extractor.features)

    @property
    def logits(self) -> Tensor:
        """Class logits of the samples, (N, K); for metrics that need `LOGITS`."""
        assert self.extractor.logits is not None
        return self.sample_layers.all(self.extractor.logits)


class Metric(Protocol):
    """What every metric says and does.

    `columns`: column of the scores -> title for figures; `lower_is_better`: of these columns; `needs`: some of `NEEDS`.
    """

    columns: Mapping[str, str]
    lower_is_better: bool
    needs: tuple[str, ...]

    def compute(self, compared: Compared) -> Mapping[str, float]:
        """A value for each of `columns`, and others whose names begin so, such as kid_std beside kid."""
        ...


METRICS = Seam(
    noun="metric",
    key="evaluation.metrics",
    builtin={  # in the order of the scores' columns
        "fid": "bench.score.metrics:FID",
        "sfid": "bench.score.metrics:SFID",
        "frame_fid": "bench.score.of_clips:FRAME_FID",
        "temporal_consistency": "bench.score.of_clips:TEMPORAL_CONSISTENCY",
        "fid_infinity": "bench.score.metrics:FID_INFINITY",
        "inception_score": "bench.score.metrics:INCEPTION_SCORE",
        "kid": "bench.score.metrics:KID",
        "precision_recall": "bench.score.metrics:PRECISION_RECALL",
    },
    contract=("columns", "lower_is_better", "needs", "compute"),
)


def find_metrics(names: tuple[str, ...] | None, of_clips: bool = False) -> dict[str, Metric]:
    """The metrics that a recipe names, and `fid` always; None: all of the suite's own, for clips or for images.

    Raises:
        ValueError: one is unknown or no metric, named twice, or gives a column that another one gives.
    """
    found: dict[str, Metric] = {}
    owners: dict[str, str] = {}
    for name in METRICS.builtin if names is None else dict.fromkeys(["fid", *names]):
        part: Any = METRICS.find(name)
        metric: Metric = part() if isinstance(part, type) else part
        if names is None and FRAMES in metric.needs and not of_clips:
            continue
        found[name] = metric
        unknown = [need for need in metric.needs if need not in NEEDS]
        if unknown:
            raise ValueError(f"{name} needs {unknown[0]!r}; accepted: {', '.join(NEEDS)}")
        if not isinstance(metric.columns, Mapping) or not metric.columns:
            raise ValueError(f"{name} has the columns {metric.columns!r}; accepted: a mapping from column to title")
        for column in metric.columns:
            if column in owners:
                raise ValueError(f"{name} has the column {column!r} of {owners[column]}; accepted: another name")
            owners[column] = name
    return found


def describe_metrics(names: tuple[str, ...] | None, of_clips: bool = False) -> dict[str, dict[str, Any]]:
    """Column -> its title and direction: what tables and figures are told; arguments as `find_metrics`."""
    return {
        column: {"title": title, "lower_is_better": metric.lower_is_better}
        for metric in find_metrics(names, of_clips).values()
        for column, title in metric.columns.items()
    }


def lacking(metric: Metric, extractor: Extractor, reference: Reference) -> str | None:
    """The first of a metric's needs that extractor or reference does not give, and which of the two."""
    for need, given in ((SPATIAL, extractor.spatial), (LOGITS, extractor.logits), (FRAMES, extractor.frames)):
        if need in metric.needs and given is None:
            return f"{need}, which extractor {extractor.id} does not give"
    return lacking_in_reference(metric, extractor, reference)


def lacking_in_reference(metric: Metric, extractor: Extractor, reference: Reference) -> str | None:
    """The first of a metric's needs that a reference does not give: images, or statistics in their place."""
    if reference.images is not None:
        return None
    for need, layer in ((SPATIAL, extractor.spatial), (FRAMES, extractor.frames)):
        if need in metric.needs and layer not in reference.gaussians:
            kind = f"{SPATIAL} features" if need == SPATIAL else f"features of {FRAMES}"
            return f"{kind}, of which reference {reference.name} has no statistics and no images"
    if REFERENCE_IMAGES in metric.needs:
        return f"{REFERENCE_IMAGES}, which reference {reference.name} does not give"
    return None


def values_of(name: str, metric: Metric, compared: Compared) -> dict[str, float]:
    """A metric's values by column, checked.

    Raises:
        InputError: it gives other columns than it says, or no numbers.
    """
    values = metric.compute(compared)
    gave = f"evaluation.metrics: {name}: compute gave"
    if not isinstance(values, Mapping) or any(column not in values for column in metric.columns):
        raise InputError(f"{gave} {values!r}; needed: a value for {', '.join(metric.columns)}")
    for column in values:
        if not any(column == own or column.startswith(f"{own}_") for own in metric.columns):
            raise InputError(f"{gave} {column!r}; accepted: {', '.join(metric.columns)}, and names that begin so")
    try:
        return {column: float(value) for column, value in values.items()}
    except (TypeError, ValueError):
        raise InputError(f"{gave} {values!r}; accepted: numbers") from None


def inception_score(logits: Tensor, split_size: int | None) -> tuple[float, float]:
    """exp E[KL(p(y|x) || p(y))] of class logits (N, K), mean and deviation over splits (Salimans et al. 2016).

    `split_size` None: ten equal splits after torch-fidelity's seeded shuffle, its default. A number: splits of so many
    samples in the order that they come, the last one may be smaller, as ADM's evaluation with 5,000. Every split
    counts the same. ADM's order is the samples' own, so samples sorted by class score lower there.

    Raises:
        ValueError: the score is not finite, or a feature is not.
    """
    import numpy as np
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    _check_features("inception_score", logits)
    if split_size is None:
        scores = isc_features_to_metric(logits)
        return _finite("inception_score", scores[KEY_METRIC_ISC_MEAN], scores[KEY_METRIC_ISC_STD])
    splits = [isc_features_to_metric(split, splits=1, shuffle=False) for split in logits.split(split_size)]
    of_splits = [score[KEY_METRIC_ISC_MEAN] for score in splits]
    return _finite("inception_score", float(np.mean(of_splits)), float(np.std(of_splits)))


def kid(samples: Tensor, reference: Tensor, subset_size: int) -> tuple[float, float]:
    """Kernel distance (Bińkowski et al. 2018, arXiv 1801.01401), mean and deviation over 100 seeded subsets.

    The unbiased squared MMD with the kernel (x . y / D + 1)^3 between features (N, D) and (M, D), on subsets of
    `subset_size` of each, drawn without replacement. Slightly negative values are no error.

    Raises:
        ValueError: a subset is larger than one of the two sets, or the score or a feature is not finite.
    """
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    _check_features("kid", samples, reference)
    scores = kid_features_to_metric(
        samples, reference, kid_subsets=KID_SUBSETS, kid_subset_size=subset_size, verbose=False
    )
    return _finite("kid", scores[KEY_METRIC_KID_MEAN], scores[KEY_METRIC_KID_STD])


def precision_recall(samples: Tensor, reference: Tensor) -> tuple[float, float]:
    """Improved precision and recall, k = 3 (Kynkäänniemi et al. 2019, arXiv 1904.06991), of features (N, D), (M, D).

    Precision: the share of samples within the distance of some reference feature to its third nearest neighbour;
    recall the other way round. ADM rounds distances to float16 where these do not overflow, which is not done here.

    Raises:
        ValueError: too few features for three neighbours, or one is not finite.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    _check_features("precision and recall", samples, reference)
    fewest = min(len(samples), len(reference))
    if fewest <= NEIGHBOURS:
        raise ValueError(f"precision and recall: {fewest} features, k = {NEIGHBOURS} needs at least {NEIGHBOURS + 1}")
    # All distances of 50,000 samples are 10 GB, and selecting the k-th copies them and adds an index of 8 bytes each:
    # 40 GB. In blocks of rows (`save_cpu_ram`) it is the same for 2500 x 50,000 of them: 2 GB.
    scores = prc_features_to_metric(
        samples,
        reference,
        prc_neighborhood=NEIGHBOURS,
        prc_batch_size=DISTANCE_ROWS,
        save_cpu_ram=True,
        verbose=False,
    )
    return _finite("precision and recall", scores[KEY_METRIC_PRECISION], scores[KEY_METRIC_RECALL])


@dataclass(frozen=True)
class FIDInfinity:
    """A line in 1/N through the FIDs of subsets.

    Attributes:
        value: FID at infinitely many samples, the line's intercept; noise can take it below zero.
        slope: of the line, d FID / d (1/N).
        r2: share of the variance of `fids` that the line explains.
        sizes: of the subsets, ascending.
        fids: their FIDs.
    """

    value: float
    slope: float
    r2: float
    sizes: tuple[int, ...]
    fids: tuple[float, ...]


def fid_infinity(features: Tensor, reference: Gaussian, seed: int) -> FIDInfinity:
    """FID without the bias of the number of samples (Chong & Forsyth 2020, arXiv 1911.07023).

    FIDs of 15 subsets of features (N, D), of sizes evenly spaced from 5,000 to N as theirs, each drawn anew from all
    samples without replacement; a least-squares line in 1/size, unweighted. They recommend to generate the samples
    from Sobol sequences, which lowers the variance; samples here come from pseudo-random noise, as the other scores'.
    Only the samples' bias goes: the reference's own, of finitely many real images, stays.

    Raises:
        ValueError: fewer than 10,000 samples, a line from 5,000 on would rest on nearly equal sizes; or a feature is
            not finite.
    """
    import numpy as np
    import torch

    from bench.score.frechet import CHUNK_ROWS, RunningGaussian, frechet_distance

    if len(features) < FID_INFINITY_MIN_SAMPLES:
        raise ValueError(f"fid_infinity: {len(features)} samples, at least {FID_INFINITY_MIN_SAMPLES} are needed")
    _check_features("fid_infinity", features)
    random = torch.Generator().manual_seed(seed)
    sizes = np.linspace(FID_INFINITY_SMALLEST, len(features), FID_INFINITY_SIZES).astype(int).tolist()
    fids = []
    for size in sizes:
        subset = torch.randperm(len(features), generator=random)[:size]
        running = RunningGaussian(features.shape[1])
        for rows in subset.split(CHUNK_ROWS):  # so that the subset is never copied as a whole
            running.update(features[rows])
        fids.append(frechet_distance(running.result(), reference))
    value, slope, r2 = extrapolate(sizes, fids)
    _finite("fid_infinity", value, slope)
    return FIDInfinity(value, slope, r2, tuple(sizes), tuple(fids))


def extrapolate(sizes: ArrayLike, scores: ArrayLike) -> tuple[float, float, float]:
    """Intercept, slope and R^2 of the least-squares line of scores (n,) in 1/size, n >= 2 different sizes."""
    import numpy as np

    x, y = 1 / np.asarray(sizes, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx @ dy) / (dx @ dx)
    unexplained, total = float(((dy - slope * dx) ** 2).sum()), float(dy @ dy)
    return float(y.mean() - slope * x.mean()), float(slope), 1 - unexplained / total if total else 1.0


def _check_features(score: str, *features: Tensor) -> None:
    for tensor in features:
        bad = int((~tensor.isfinite().all(dim=1)).sum())
        if bad:
            raise ValueError(f"{score}: {bad} of {len(tensor)} features are not finite")


def _finite(score: str, first: float, second: float) -> tuple[float, float]:
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError(f"{score}: not finite ({first}, {second})")
    return first, second


@dataclass(frozen=True)
class _Metric:
    columns: Mapping[str, str]
    needs: tuple[str, ...]
    compute: Callable[[Compared], dict[str, float]]
    lower_is_better: bool = True


def _fid(compared: Compared) -> dict[str, float]:
    from bench.score.frechet import frechet_distance
    from bench.score.reference import check_feature_size

    layer = compared.extractor.features
    check_feature_size(compared.reference, layer, compared.features.shape[1])
    real = compared.gaussians[layer]
    fid = frechet_distance(compared.sample_layers.gaussian(layer), real)
    if not real.has_spread:  # copies of one image: there is nothing to be a percentage of
        return {"fid": fid}
    return {"fid": fid, "fid_percent": 100 * fid / float(real.covariance.trace())}


def _sfid(compared: Compared) -> dict[str, float]:
    from bench.score.frechet import frechet_distance

    layer = compared.extractor.spatial
    assert layer is not None
    return {"sfid": frechet_distance(compared.sample_layers.gaussian(layer), compared.gaussians[layer])}


def _fid_infinity(compared: Compared) -> dict[str, float]:
    real = compared.gaussians[compared.extractor.features]
    return {"fid_infinity": fid_infinity(compared.features, real, seed=0).value}


def _inception_score(compared: Compared) -> dict[str, float]:
    mean, std = inception_score(compared.logits, compared.extractor.split_size)
    return {"inception_score": mean, "inception_score_std": std}


def _kid(compared: Compared) -> dict[str, float]:
    mean, std = kid(compared.features, compared.reference_features, compared.kid_subset_size)
    return {"kid": mean, "kid_std": std}


def _precision_recall(compared: Compared) -> dict[str, float]:
    precision, recall = precision_recall(compared.features, compared.reference_features)
    return {"precision": precision, "recall": recall}


# FID with Inception, FD-DINOv2 with DINOv2; fid_percent: of the trace of the reference's covariance, if that is not 0.
FID = _Metric({"fid": "Fréchet distance"}, (FEATURES,), _fid)
# Of spatial features (Nash et al. 2021, arXiv 2103.03841).
SFID = _Metric({"sfid": "sFID"}, (SPATIAL,), _sfid)
FID_INFINITY = _Metric({"fid_infinity": "Fréchet distance∞"}, (FEATURES, MANY_SAMPLES), _fid_infinity)
INCEPTION_SCORE = _Metric({"inception_score": "Inception Score"}, (LOGITS,), _inception_score, lower_is_better=False)
KID = _Metric({"kid": "KID"}, (FEATURES, REFERENCE_IMAGES), _kid)
PRECISION_RECALL = _Metric(
    {"precision": "Precision", "recall": "Recall"},
    (FEATURES, REFERENCE_IMAGES),
    _precision_recall,
    lower_is_better=False,
)
