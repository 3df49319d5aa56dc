import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from analysis.commands.fit import fit as fit_command
from analysis.commands.options import print_result
from analysis.errors import ResultsError
from analysis.laws.bootstrap import bootstrap
from analysis.laws.fit import fit
from analysis.laws.observations import observations
from analysis.laws.observed import collected_observations, published_observations
from analysis.laws.points import csv_observations
from analysis.results.published import PUBLISHED
from analysis.results.tables import load

EPOCH = PUBLISHED / "chinchilla_epoch.csv"
EPOCH_COLUMNS = {"score": "loss", "params": "params", "images": "tokens"}
DIGITS = Path(__file__).parents[2] / "results" / "digits"
POINTS = "N,D,flops,loss\n" + "".join(
    f"{n},{d},{6 * n * d},{1.5 + 400 * n**-0.3 + 900 * d**-0.4!r}\n"
    for n in (1e6, 3e6, 1e7, 4e7)
    for d in (1e8, 1e9, 5e9)
)
XY, ND = ("--y", "loss", "--x", "flops"), ("--y", "loss", "--params", "N", "--data", "D")


def run(*arguments):
    app = typer.Typer()
    app.command()(fit_command)
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def written(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(scope="module")
def epoch():
    return fit(csv_observations(EPOCH, EPOCH_COLUMNS, without_highest=5), "chinchilla", "log-huber")


def test_epochs_minimum_of_the_chinchilla_data_is_found_from_every_start(epoch):
    assert len(epoch.observations) == 240
    assert f"{epoch.loss:.10f}" == "0.0010182740"
    values = {name: f"{value:.5g}" for name, value in epoch.parameters.items() if name != "E"}
    assert values == {"A": "477.83", "B": "2143.4", "alpha": "0.34731", "beta": "0.36717"}
    assert f"{epoch.parameters['E']:.5f}" == "1.81722"
    assert (epoch.starts, epoch.agreeing, epoch.problems) == (81, 1, ())


@pytest.mark.slow
def test_the_bootstrap_has_standard_errors_like_those_reported(epoch):
    found = bootstrap(epoch, replicates=400)
    reported = {"A": 110, "B": 1415, "E": 0.0258, "alpha": 0.0142, "beta": 0.0213}
    assert {name: found.standard_error(name) for name in reported} == pytest.approx(reported, rel=0.3)
    assert found.failed == 0
    with pytest.raises(ResultsError, match="parameter C: unknown; accepted: E, A, B, alpha, beta"):
        found.standard_error("C")


def test_a_standard_error_is_that_of_the_mean_where_it_is_known():
    # The exponent is held by two far apart groups of many rows: its variance is that of two means.
    random, x = np.random.default_rng(1), np.repeat([1.0, np.e], 100)
    rows = observations(np.exp(0.1 * random.standard_normal(200)) / x, compute=x)
    found = bootstrap(fit(rows, "power"), replicates=1000)
    logs = np.log(rows.score).reshape(2, 100)
    assert found.standard_error("alpha") == pytest.approx(np.sqrt(np.sum(logs.var(axis=1) / 100)), rel=0.08)


def test_a_csv_of_the_papers_table_says_what_the_table_does(tmp_path):
    rows = published_observations()
    lines = zip(rows.models, rows.patches, *rows.variables.values(), rows.score, strict=True)
    text = f"who,patch,{','.join(rows.variables)},FID-50K\n" + "".join(f"{','.join(map(str, a))}\n" for a in lines)
    columns = ("--y", "FID-50K", "--x", "compute", "--tokens", "tokens", "--models", "who", "--patches", "patch")
    own = json.loads(run(written(tmp_path, text), *columns, "--format", "json", "--held-out", "largest"))
    paper = json.loads(run("published", "--format", "json", "--held-out", "largest"))
    assert own["headline"] == paper["headline"]
    assert own["held_out"] == paper["held_out"]
    assert own["by_patch"]["patches"]["2"]["parameters"] == paper["by_patch"]["patches"]["2"]["parameters"]
    assert [law["intervals"] for law in own["fits"]] == [law["intervals"] for law in paper["fits"]]
    assert own["columns"] == {
        "score": "FID-50K", "compute": "compute", "tokens": "tokens", "models": "who", "patches": "patch"
    }  # fmt: skip


def test_models_and_seeds_of_a_csv_are_drawn_as_those_of_runs(tmp_path):
    rows = collected_observations(load(DIGITS), all_steps=True, patch="1")
    lines = zip(rows.models, rows.seeds, rows.variables["params"], rows.variables["images"], rows.score, strict=True)
    text = "model,seed,N,D,fid\n" + "".join(f"{','.join(map(str, line))}\n" for line in lines)
    columns = {"score": "fid", "params": "N", "images": "D", "models": "model", "seeds": "seed"}
    own = csv_observations(written(tmp_path, text), columns)
    found = [bootstrap(fit(each, "chinchilla"), replicates=60).parameters for each in (own, rows)]
    assert np.array_equal(found[0], found[1])


def test_the_columns_decide_the_laws_and_exact_points_give_their_law_back(tmp_path):
    path = written(tmp_path, POINTS)
    law = json.loads(run(path, *ND, "--intervals", "profile", "--format", "json"))
    assert [each["form"] for each in law["fits"]] == ["chinchilla"]
    expected = {"E": 1.5, "A": 400, "B": 900, "alpha": 0.3, "beta": 0.4}
    assert law["fits"][0]["parameters"] == pytest.approx(expected, rel=1e-6)
    assert law["held_out"][0]["models"][0]["model"] == "line 13"
    assert law["held_out"][0]["models"][0]["relative_error"] == pytest.approx(0, abs=1e-6)
    power = json.loads(run(path, *XY, "--format", "json"))
    assert {each["form"] for each in power["fits"]} == {"power", "power-floor"}


def test_what_was_fitted_is_said_by_the_names_of_the_columns(tmp_path):
    path = written(tmp_path, POINTS)
    output = run(path, *ND, "--without-highest", 2, "--intervals", "residual", "--verbose")
    assert "N: column N; D: column D." in output
    assert "10 rows" in output and "line 2: loss" in output and "line 3: loss" in output
    assert "standard error" in output
    assert "Ten times the flops multiplies the loss" in run(path, *XY, "--form", "power")


@pytest.mark.parametrize("cell", ["1e10", "1e30", "1e-30"])
def test_a_wild_score_ends_no_fit(tmp_path, recwarn, cell):
    """Steps that overflow, and matrices without an inverse, are the solver's own affair."""
    path = written(tmp_path, changed(5, 3, cell))
    power = csv_observations(path, {"score": "loss", "compute": "flops"})
    joint = csv_observations(path, {"score": "loss", "params": "N", "images": "D"})
    for rows, form in ((power, "power"), (joint, "chinchilla")):
        for objective in ("values", "logs", "log-huber"):
            assert np.isfinite(fit(rows, form, objective).loss)
    assert not recwarn


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + POINTS,
        POINTS.replace("\n", "\r\n"),
        POINTS.replace(",", " , "),
        '# It\'s a "comment", with; signs\n\n' + POINTS.replace("\n", "\n# 1,2,3,4\n", 3) + "\n\n",
        POINTS.replace("N,D", '"N","D"').replace("1000000.0,", '"1000000.0",'),
    ],
    ids=["byte-order mark", "Windows", "blanks", "comments", "quotes"],
)
def test_a_csv_may_be_written_in_several_ways(tmp_path, text):
    columns = {"score": "loss", "params": "N", "images": "D"}
    plain = csv_observations(written(tmp_path, POINTS), columns)
    other = csv_observations(written(tmp_path, text), columns)
    assert other.score.tolist() == plain.score.tolist()
    assert other.variables["params"].tolist() == plain.variables["params"].tolist()


def changed(line, column, cell):
    """POINTS with another cell at a line, counted as an editor does."""
    lines = [text.split(",") for text in POINTS.splitlines()]
    lines[line - 1][column] = cell
    return "\n".join(map(",".join, lines))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(4, 3, "nan"), "line 4: 'loss' is empty or nan; needed"),
        (changed(4, 3, ""), "line 4: 'loss' is empty or nan"),
        (changed(5, 0, "many"), "'N' is not of type float64 .line 5 is 'many'.; accepted: a number"),
        (changed(5, 0, "1_000"), "'N' .*line 5 is '1_000'"),
        (changed(5, 0, "TRUE"), "'N' .*line 5 is True"),
        (changed(6, 1, "0"), "line 6: 'D' is 0; needed: positive values"),
        (changed(6, 1, "-1e9"), "line 6: 'D' is -1e.09; needed: positive values"),
        (changed(7, 3, "inf"), "line 7: 'loss' is inf"),
        (changed(7, 3, "1e999"), "line 7: 'loss' is inf"),
        (changed(7, 3, "1e300"), "line 7: 'loss' is 1e.300; needed: positive values, 1e-30 to 1e.30"),
        (changed(7, 0, "1e-300"), "line 7: 'N' is 1e-300; needed: positive values, 1e-30 to 1e.30"),
        (changed(7, 3, "9" * 400), "'loss' .*line 7 is 99"),
        ("# a\n\n# b\n" + changed(4, 3, "x"), "line 7 is 'x'"),
        (changed(3, 2, '"two\nlines"') + ",5", "line 14 has 5 cells, the first 4"),
        ("# a\n" + POINTS + "1,2\n", "line 15 has 2 cells, line 2 4"),
        (changed(1, 2, "loss"), "two columns are called loss"),
        (changed(1, 3, "Loss"), "no column loss .it has N, D, flops, Loss"),
        (POINTS.replace(",", ";"), "its cells are separated by ';'"),
        (POINTS.replace(",", "\t"), r"its cells are separated by '\\t'"),
        (POINTS.encode("utf-16"), "not UTF-8 text"),
        (b"", "no column loss, N, D .it has none"),
        ("N,D,flops,loss\n", "no row; needed: points"),
        ("\n".join(POINTS.splitlines()[:5]), "has 5 parameters and there are 4 rows; needed: at least 6"),
        ("N,D,loss\n" + "".join(f"1e6,{d}e8,{3 - d / 10}\n" for d in range(1, 9)), "N is 1e.06 in every row"),
        (POINTS.splitlines()[0] + "\n1e6,2e8,1,3", "and there is 1 row"),
    ],
)
def test_a_bad_cell_is_named_with_its_line_and_column(tmp_path, text, message):
    with pytest.raises(ResultsError, match=message) as error:
        run(written(tmp_path, text), *ND)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "points.csv"))


def test_an_open_end_is_null_in_json(tmp_path, capsys):
    said = {"interval": {"low": float("-inf"), "high": np.float64("inf")}, "values": [1.5, float("nan"), "inf", 3]}
    print_result(said, "json", tmp_path / "said.json", lambda: None)
    found = json.loads((tmp_path / "said.json").read_text())
    assert found == {"interval": {"low": None, "high": None}, "values": [1.5, None, "inf", 3]}
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs --y COLUMN and --x COLUMN, or --y, --params and --data; it has N, D, flops, loss"),
        (("--y", "loss"), "needs --y COLUMN and --x COLUMN, or"),
        (("--x", "flops"), "needs --y COLUMN and --x COLUMN, or"),
        (("--y", "loss", "--params", "N"), "needs --y COLUMN and --x COLUMN, or"),
        ((*XY, "--form", "chinchilla"), "--form chinchilla needs --params and --data COLUMN"),
        ((*ND, "--form", "power"), "--form power needs --x COLUMN"),
        ((*XY, "--params", "N"), "--params: no law of these columns has such a term"),
        ((*XY, "--data", "D", "--form", "power"), "--data: --form power does not have such a term"),
        (("--y", "loss", "--x", "loss"), "--y and --x are one column, loss"),
        ((*XY, "--metric", "kid"), "--metric is of results"),
        ((*XY, "--compute", "6nd"), "--compute is of results"),
        ((*XY, "--step", "3"), "--step is of results"),
        ((*XY, "--patch", "2"), "--patch N of a CSV needs --patches COLUMN"),
        ((*XY, "--without-highest", "12"), "12 rows, 12 of them left out"),
        ((*XY, "--models", "loss"), "--y and --models are one column"),
        (("--y", "", "--x", "flops"), "no column '' .it has N, D, flops, loss"),
        ((*XY, "--level", "nan"), "level nan; accepted: between 0 and 1"),
    ],
)
def test_columns_that_do_not_fit_are_refused(tmp_path, arguments, message):
    with pytest.raises(ResultsError, match=message):
        run(written(tmp_path, POINTS), *arguments)


def test_columns_are_of_a_csv_that_is_there(tmp_path):
    with pytest.raises(ResultsError, match=r"missing\.csv: no such file"):
        run(tmp_path / "missing.csv", *XY)
    with pytest.raises(ResultsError, match="--y is of a CSV, and published is none"):
        run("published", *XY)
    with pytest.raises(ResultsError, match="--without-highest is of a CSV"):
        run(DIGITS, "--without-highest", 2)
    with pytest.raises(ResultsError, match="is a file; accepted: its folder"):
        run(DIGITS / "runs.csv")
