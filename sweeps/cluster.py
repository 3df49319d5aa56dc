"""Cluster profiles: where a sweep's jobs run, on what, and what is asked of SLURM for them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveFloat, PrivateAttr, ValidationError, model_validator

from bench.device import Device, Modes, Precision
from bench.errors import InputError
from bench.flops import forward_gmacs
from bench.recipe import Recipe
from bench.schema import Section, describe, load_yaml
from sweeps import shipped
from sweeps.options import Evaluate
from sweeps.sbatch import Value, check_section, check_text, options_of

# More is a slip, and SLURM would count it round.
MOST_MINUTES = 10 * 366 * 24 * 60


def minutes(time_limit: str) -> int:
    """Minutes of a SLURM time limit, seconds rounded up: `HH:MM:SS`, `D-HH:MM:SS`, `D-HH`.

    Raises:
        ValueError: another form, or no time at all.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::([0-5]\d):([0-5]\d))?", time_limit)
    if not match or (match[1] is None and match[3] is None):
        raise ValueError(f"{time_limit!r} is no time limit; accepted: 'HH:MM:SS', 'D-HH:MM:SS', 'D-HH'")
    days, hours, mins, seconds = (int(part or 0) for part in match.groups())
    total = (days * 24 + hours) * 60 + mins + (seconds > 0)
    if not total:
        raise ValueError(f"{time_limit!r} leaves no time")
    if total > MOST_MINUTES:
        raise ValueError(f"{time_limit!r} is longer than ten years")
    return total


def _checked_time_limit(value: Any) -> Any:
    # YAML 1.1 reads an unquoted 12:00:00 as the number 43200.
    if isinstance(value, int):
        raise ValueError("put the time in quotes, as in '12:00:00' (YAML reads it as a number without them)")
    if isinstance(value, str):
        minutes(value)
    return value


TimeLimit = Annotated[str, BeforeValidator(_checked_time_limit)]
Amount = Annotated[int, Field(gt=0, le=10**6)]
# Between a slow core and more than a rack. Beyond, times that are computed from it mean nothing.
LEAST_SHARE = 1e-6
Tflops = Annotated[float, Field(ge=1e-6, le=1e6)]
Share = Annotated[float, Field(ge=LEAST_SHARE, le=1)]
Gigabytes = Annotated[float, Field(gt=0, le=1e6)]


class Gpu(Section):
    """What one device can do: `peak_tflops` are dense peaks in true TFLOP/s (2 per multiply-accumulate) by precision.

    `request_as` is the type in SLURM's `--gpus-per-node=TYPE:N`, where the cluster wants one.
    """

    name: str
    peak_tflops: dict[Precision, Tflops]
    request_as: str | None = None


class Mfu(Section):
    """The share of the peak that is expected of training and of sampling, and where the figures come from."""

    training: Share
    sampling: Share
    source: str


class Mail(Section):
    """Whom SLURM tells about what (`--mail-user`, `--mail-type`)."""

    user: str
    events: tuple[Literal["BEGIN", "END", "FAIL", "REQUEUE", "TIME_LIMIT", "ALL"], ...] = Field(
        default=("END", "FAIL"), strict=False
    )


class Resources(Section):
    """What a job gets: the first entry of a list whose `models` and `max_gmacs` fit a run is used.

    One task is one rank of the run: one for each GPU, or `tasks_per_node`.
    """

    models: tuple[str, ...] | None = Field(default=None, strict=False)
    max_gmacs: PositiveFloat | None = None
    nodes: Amount = 1
    gpus_per_node: int = Field(default=0, ge=0, le=10**6)
    tasks_per_node: Amount | None = None
    cpus_per_task: Amount = 1
    mem_gb: Gigabytes | None = None
    time_limit: TimeLimit | None = None
    partition: str | None = None
    runs_per_job: Amount = 1
    max_parallel: Amount | None = None

    @model_validator(mode="after")
    def _one_task_a_gpu(self) -> Self:
        if self.gpus_per_node and self.tasks_per_node not in (None, self.gpus_per_node):
            raise ValueError(
                f"tasks_per_node: {self.tasks_per_node}, but a task drives one of the {self.gpus_per_node} GPUs; "
                "leave it out"
            )
        return self

    @property
    def ranks_per_node(self) -> int:
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def ranks(self) -> int:
        """Processes of a job: the world size of its runs."""
        return self.nodes * self.ranks_per_node

    def fit(self, recipe: Recipe) -> bool:
        """Whether this entry is for the run: by the model's name or label (`DiT-XL/*`), and by its GMACs."""
        names = (recipe.model.name, recipe.label)
        if self.models is not None and not any(fnmatchcase(name, p) for name in names for p in self.models):
            return False
        return self.max_gmacs is None or forward_gmacs(recipe.model) <= self.max_gmacs


_SLURM_ONLY = (
    "partition", "account", "qos", "constraint", "exclude", "time_limit", "setup", "mail", "sbatch", "training",
    "evaluation",
)  # fmt: skip


class ClusterProfile(Section):
    """Where jobs run. Keys beside `executor` and `device` are SLURM's; see clusters/slurm-example.yaml."""

    executor: Literal["local", "slurm"]
    device: Device = "cpu"
    precision: Precision = "fp32"
    compile_blocks: bool = False
    checkpoint_activations: bool = False
    shard: bool = False
    gpu: Gpu | None = None
    mfu: Mfu | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    time_limit: TimeLimit | None = None
    signal_before_end_s: int = Field(default=120, ge=1, le=65535)
    max_parallel: Amount = 1000
    requeue: bool = True
    max_failures: Amount = 3
    evaluate: Evaluate = "after"
    setup: tuple[str, ...] = Field(default=(), strict=False)
    mail: Mail | None = None
    sbatch: dict[str, Value] = Field(default={})
    training: tuple[Resources, ...] = Field(default=(), strict=False)
    evaluation: tuple[Resources, ...] = Field(default=(), strict=False)
    _file: str = PrivateAttr("the cluster profile")

    @property
    def where(self) -> str:
        """The profile's file, for messages."""
        return self._file

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.device == "cpu" and self.precision == "tf32":
            raise ValueError("precision: tf32 is for device: cuda; accepted on cpu: fp32, bf16")
        if self.executor == "local":
            if self.shard:
                raise ValueError("shard: true, but this machine trains each run by one rank; only for executor: slurm")
            given = [key for key in _SLURM_ONLY if getattr(self, key)]
            if given:
                raise ValueError(f"{given[0]}: only for executor: slurm")
            return self
        if not self.training:
            raise ValueError("training: missing: at least one entry that says what a training job gets")
        if self.evaluate != "inline" and not self.evaluation:
            raise ValueError(f"evaluation: missing: evaluate: {self.evaluate} needs what a scoring job gets")
        for key in ("training", "evaluation"):
            for entry in getattr(self, key):
                if not (entry.time_limit or self.time_limit):
                    raise ValueError("time_limit: missing, here or in every entry of training and evaluation")
                if self.device == "cuda" and not entry.gpus_per_node:
                    raise ValueError(f"{key}: device: cuda, but an entry asks for no gpus_per_node")
        return self

    @property
    def modes(self) -> Modes:
        """How training steps are carried out."""
        return Modes(self.compile_blocks, self.checkpoint_activations, self.shard)

    @property
    def sbatch_options(self) -> dict[str, Value]:
        """The options of the section `sbatch`, by their names in sbatch."""
        return options_of(self.sbatch)

    def training_resources(self, recipe: Recipe) -> Resources:
        """What the training job of a run gets.

        Raises:
            InputError: no entry fits the run, or its batch cannot be split over the ranks.
        """
        resources = self._first_fit("training", recipe)
        if recipe.train.batch_size % resources.ranks:
            raise InputError(
                f"{self.where}: training: {recipe.label} gets {resources.ranks} ranks (nodes x tasks per node), which "
                f"do not divide its train.batch_size {recipe.train.batch_size}; accepted: nodes and GPUs that do"
            )
        return resources

    def evaluation_resources(self, recipe: Recipe) -> Resources:
        """What a scoring job of a run gets; errors as `training_resources`."""
        return self._first_fit("evaluation", recipe)

    def _first_fit(self, key: Literal["training", "evaluation"], recipe: Recipe) -> Resources:
        for entry in getattr(self, key):
            if entry.fit(recipe):
                return entry
        gmacs = forward_gmacs(recipe.model)
        raise InputError(
            f"{self.where}: {key}: no entry fits {recipe.label} ({recipe.model.name}, {gmacs:.4g} GMACs); end the list "
            "with one without models and max_gmacs"
        )

    def time_limit_minutes(self, resources: Resources) -> int:
        limit = resources.time_limit or self.time_limit
        assert limit is not None  # _complete
        return minutes(limit)

    def peak_tflops(self, precision: Precision | None = None) -> float | None:
        """The device's peak in true TFLOP/s at a precision (default: the profile's); None where it is not given."""
        return self.gpu.peak_tflops.get(precision or self.precision) if self.gpu else None


def whole_start_s(limit_s: float, signal_before_end_s: float) -> float:
    """What a start has at least, from its beginning to SLURM's signal, which comes up to a minute early."""
    told_s = max(0.0, limit_s - signal_before_end_s)
    return max(told_s - 60, 0.75 * told_s)


def find_cluster(name: str) -> Path:
    """A profile's file: its path, or the name of a shipped profile (`slurm-example`).

    Raises:
        InputError: neither; with the names of the shipped profiles.
    """
    path = shipped.find(name, shipped.CLUSTERS, folders=("clusters",))
    if path is None:
        names = ", ".join(shipped.names(shipped.CLUSTERS))
        raise InputError(f"--cluster {name}: no such profile; accepted: {names}, or the path of a YAML file")
    return path


def cluster_name(name: str) -> str:
    """A profile's name, also where its path is given: what records of jobs have, so that speeds are found by it."""
    return Path(name).name.removesuffix(".yaml").removesuffix(".yml")


def load_cluster(name: str, instead: dict[str, Any] | None = None) -> ClusterProfile:
    """A profile as `find_cluster` takes it, with the values of `instead` for some of its keys.

    Raises:
        InputError: no such profile, or a wrong key.
    """
    path = find_cluster(name)
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: a profile is a mapping with the keys {', '.join(ClusterProfile.model_fields)}")
    try:
        profile = ClusterProfile.model_validate({**content, **(instead or {})})
        _check_for_sbatch(profile)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error, ClusterProfile)}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    profile._file = str(path)
    return profile


def _check_for_sbatch(profile: ClusterProfile) -> None:
    """Refuse what a new job cannot be asked for. Not in the schema: records of old jobs are read by it too."""
    check_section(profile.sbatch)
    for key in ("partition", "account", "qos", "constraint", "exclude"):
        if (value := getattr(profile, key)) is not None:
            check_text(key, value)
    if profile.mail:
        check_text("mail.user", profile.mail.user)
    if profile.gpu and profile.gpu.request_as is not None:
        check_text("gpu.request_as", profile.gpu.request_as)
    for key in ("training", "evaluation"):
        for number, entry in enumerate(getattr(profile, key)):
            if entry.partition is not None:
                check_text(f"{key}.{number}.partition", entry.partition)
            seconds = 60 * profile.time_limit_minutes(entry)
            if profile.signal_before_end_s >= seconds:
                raise ValueError(
                    f"signal_before_end_s: {profile.signal_before_end_s} leaves no time to work before the signal to "
                    f"jobs of {key}, whose time_limit is {entry.time_limit or profile.time_limit}; accepted: less than "
                    f"{seconds}"
                )
