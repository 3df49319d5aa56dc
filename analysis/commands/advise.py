"""`ditbench advise`: which model, for how many steps, a training budget is best spent on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from analysis.commands.options import (
    DataArgument,
    Format,
    FormatOption,
    JsonOption,
    LevelOption,
    MetricOption,
    OldDataOption,
    SeedOption,
    VerboseOption,
    one_of,
    print_answer,
    print_columns,
    print_lines,
    print_result,
)
from analysis.errors import ResultsError, about
from analysis.laws.choices import REACH, Method
from analysis.results.named import results_folder

if TYPE_CHECKING:
    from analysis.advice.advise import Advice
    from analysis.advice.budget import Budget
    from analysis.advice.prediction import Prediction, Question
    from analysis.laws.observations import Observations
    from analysis.results.tables import Tables

PUBLISHED_BATCH_SIZE = 256  # DiT paper, section 4


def training_speed(cluster: str) -> tuple[float, str]:
    """True FLOPs a second that one device of `cluster` trains with, and in words where that is from.

    The top floor puts its reader of cluster profiles here: analysis imports none of it.
    """
    raise ResultsError(f"--cluster {cluster}: profiles are read by the command `ditbench advise`")


def write_sweep(
    path: Path, of: str, sweep: str, run: str, steps: int, seeds: list[int], comment: str
) -> dict[str, int]:
    """Make the file `path`, a sweep of the model of `run`, one of `sweep`'s; its recipe ids -> seeds.

    `of`: the name of the sweep that results are of; where `sweep` is empty, it is found by that. The top floor puts its
    writer here.
    """
    raise ResultsError(f"--write {path}: sweeps are written by the command `ditbench advise`")


def advise(
    data: DataArgument = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="PF-days of training (8.64e19 true FLOPs each, of the network itself), such as 2e-8; or GPU-hours of "
            "a --cluster, such as 500h."
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Instead of a budget: the learning rate for this hidden size, from runs of other widths and rates.",
        ),
    ] = None,
    source: OldDataOption = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="The profile, by name or path, in whose GPU-hours the budget is given or told as well."),
    ] = None,
    law: Annotated[
        Literal["tested", "curves", "product", "sum"],
        typer.Option(help="tested: the one that predicts later scores best from earlier ones."),
    ] = "tested",
    metric: MetricOption = "fid",
    intervals: Annotated[
        Method | None,
        typer.Option(
            help="Of joint laws; default: bootstrap, and residual for the paper: one model has several steps."
        ),
    ] = None,
    level: LevelOption = 0.9,
    seed: SeedOption = 0,
    reach: Annotated[
        float, typer.Option(help="Times the steps that it was scored at, at most, that a model is advised for.")
    ] = REACH,
    write: Annotated[
        Path | None,
        typer.Option(
            help="A new file, SWEEP.yaml, for the runs that are advised, on seeds that DATA has not. The prediction "
            "goes beside it, into SWEEP.prediction.json."
        ),
    ] = None,
    sweep: Annotated[
        str, typer.Option(help="For --write, the sweep that DATA were collected from; default: found by its name.")
    ] = "",
    verbose: VerboseOption = False,
    format: FormatOption = "table",
    out: JsonOption = None,
) -> None:
    """Advise on a training budget: which size, patch and steps, the expected score, and how far that is a guess; with
    --width, on its learning rate."""
    if (budget is None) == (width is None):
        raise ResultsError(f"--budget, --width: {'both' if width else 'neither'} given; accepted: one of them")
    if width is not None:
        for flag, given in (("--cluster", cluster), ("--law", law != "tested"), ("--metric", metric != "fid"),
                            ("--intervals", intervals)):  # fmt: skip
            if given:
                raise ResultsError(f"{flag}: of a --budget; the learning rate of a --width is that of the lowest loss")
        _print_rates(one_of(data, source), width, level, seed, format, out)
        return
    assert budget is not None
    from analysis.advice.advise import advise as advice_of
    from analysis.advice.budget import parse_budget
    from analysis.advice.laws import LAWS
    from analysis.advice.learning_rate import said_of_rates
    from analysis.advice.report import headline, sentence
    from analysis.laws.observed import collected_observations, published_observations
    from analysis.results.tables import load

    folder = results_folder(one_of(data, source))
    asked = parse_budget(budget, cluster, training_speed)
    if sweep and not write:
        raise ResultsError(f"--sweep {sweep}: is for --write, which is missing")
    if write is not None:
        _check_new(write, folder)
    laws = LAWS if law == "tested" else (law,)
    tables = None
    if folder is None:
        rows, batch_size = published_observations(metric, all_steps=True), PUBLISHED_BATCH_SIZE
        default, name, rates = "residual", "DiT paper, Table 4", "Learning rate: 0.0001, that of all runs of the paper."
    else:
        tables = load(folder)
        with about(folder):
            rows = collected_observations(tables, metric, all_steps=True)
        batch_size, default, name = int(tables.runs["batch_size"].iloc[0]), "bootstrap", str(folder)
        rates = said_of_rates(tables)
    method: Method = intervals or default
    advice = advice_of(rows, asked.pf_days, batch_size, laws, method, level=level, seed=seed, reach=reach)
    said = {"source": name} | advice.to_dict() | {"cluster": cluster, "gpu_hours": asked.gpu_hours}
    said |= {"headline": headline(advice), "sentences": sentence(advice).splitlines(), "learning_rate": rates}
    written = None
    if write is not None:
        from analysis.advice.prediction import Question

        assert folder and tables
        question = Question(asked.pf_days, metric, laws, method, level, seed, reach)
        written = _write(write, sweep, tables, folder, advice, question)
        said |= {"written": str(write), "prediction": written.to_dict()}
    print_result(said, format, out, lambda: _print(name, rows, asked, advice, rates, verbose, write, written))


def _check_new(path: Path, folder: Path | None) -> None:
    """Refuse, before anything is computed, what `_write` could not write."""
    from analysis.advice.prediction import SUFFIX

    if folder is None:
        raise ResultsError(f"--write {path}: the papers' models have no runs here; accepted: results of runs")
    if path.suffix != ".yaml":
        raise ResultsError(f"--write {path}: accepted: a sweep's file, NAME.yaml")
    for file in (path, path.with_suffix(SUFFIX)):
        if file.exists():
            raise ResultsError(f"--write {path}: {file} is there already, and a prediction is not written over")


def _write(path: Path, sweep: str, tables: Tables, folder: Path, advice: Advice, question: Question) -> Prediction:
    """Write the runs that are advised, on as many seeds as the results have and none of these, and the prediction."""
    from datetime import UTC, datetime

    from analysis.advice.prediction import SUFFIX, predicted, write_prediction
    from analysis.advice.report import headline
    from analysis.results.model_names import model_names

    if advice.best is None:
        raise ResultsError(f"--write {path}: nothing to write. {' '.join(headline(advice))} --reach takes it farther.")
    beside, here = path.with_suffix(SUFFIX), Path.cwd()
    if folder.is_relative_to(here):  # files that are committed name no machine's folders
        folder = folder.relative_to(here)
    used = sorted({int(seed) for seed in tables.runs["seed"]})
    seeds = list(range(used[-1] + 1, used[-1] + 1 + len(used)))
    its: Any = tables.runs.loc[model_names(tables.runs)["label"] == advice.best.model]
    longest = its.sort_values("steps", kind="stable").iloc[-1]  # whose shares of the steps are the least rounded
    many = f"{len(seeds)} seeds that its law has not seen" if len(seeds) > 1 else "a seed that its law has not seen"
    comment = (
        f"What `ditbench advise` says of {question.budget_pf_days:g} PF-days, tried on {many}.\n"
        f"\n  ditbench sweep submit {path.stem} --cluster local\n  ditbench judge {path.stem}\n\n"
        f"{headline(advice)[0]}\n{beside.name} has what is predicted of them, made of {folder.as_posix()}."
    )
    runs = write_sweep(path, str(longest["sweep"]), sweep, str(longest["run"]), advice.best.steps, seeds, comment)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    prediction = predicted(advice, question, tables, folder, runs, made)
    write_prediction(prediction, beside)
    return prediction


def _print_rates(name: str, width: int, level: float, seed: int, format: Format, out: Path | None) -> None:
    from analysis.advice.learning_rate import HEADINGS, advise_rates, headline, notes, table
    from analysis.results.tables import load

    folder = results_folder(name)
    if folder is None:
        raise ResultsError("--width: the paper varies no learning rate; accepted: a folder of results that does")
    with about(folder):
        rates = advise_rates(load(folder), width, level, seed)

    def shown() -> None:
        print_answer(headline(rates))
        print_columns(HEADINGS, table(rates))
        typer.echo()
        print_lines(notes(rates))

    said = {"source": str(folder), "width": width, "learning_rates": [rate.to_dict() for rate in rates]}
    print_result(said | {"headline": headline(rates)}, format, out, shown)


def _print(
    name: str,
    rows: Observations,
    asked: Budget,
    advice: Advice,
    rates: str,
    verbose: bool,
    path: Path | None,
    written: Prediction | None,
) -> None:
    from analysis.advice.prediction import SUFFIX
    from analysis.advice.report import HEADINGS, VERBOSE_HEADINGS, findings, headline, notes, table

    print_answer(headline(advice))
    print_lines([f"{name}: {rows.metric}, {len(rows)} scores of {len(set(rows.models))} models.", f"Budget: {asked}."])
    typer.echo()
    if shown := table(advice, verbose):
        print_columns(VERBOSE_HEADINGS if verbose else HEADINGS, shown)
        typer.echo()
    print_lines([*notes(advice), rates])
    if path is not None and written is not None:
        seeds = ", ".join(map(str, written.runs.values()))
        print_lines(
            [
                f"Written: {path}, the run for seed {seeds}, and {path.with_suffix(SUFFIX)}, what is predicted of it. "
                f"Commit both before it is started; `ditbench judge {path}` says what came of it."
            ]
        )
    if not verbose:
        print_lines(["--verbose has the law, its test, what was left out, and what compute means."])
        return
    print_lines(findings(advice))
    print_lines([f"Left out: {'; '.join((*rows.left_out, *advice.left_out)) or 'none'}."])
