"""`ditbench figure` as a command of its own."""

import pytest
import typer
from drawn_figures import study
from typer.testing import CliRunner

from analysis.commands.figure import figure
from analysis.figures import CATALOGUE
from analysis.results.tables import ResultsError

KINDS = ("png", "pdf", "csv", "txt", "tex")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in an empty folder; a refusal comes out as it was raised."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(rich_markup_mode=None)
    app.command()(figure)
    return lambda *arguments: CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_help_lists_every_figure(run):
    lines = [" ".join(line.split()) for line in run("--help").output.splitlines()]
    for name, entry in CATALOGUE.items():
        assert any(line.endswith(f"{name} {entry.shows}") for line in lines)


def test_published_is_the_default_and_goes_into_figures(run, tmp_path):
    done = run("blocks")
    assert done.output.split() == [f"figures/blocks.{kind}" for kind in KINDS]
    assert (tmp_path / "figures" / "blocks.pdf").is_file()


def test_own_figures_go_beside_their_tables(run, tmp_path):
    study(tmp_path, ["S/4", "B/2"])
    done = run("loss", "published", "results")
    assert done.stdout.split() == [f"results/training_loss.{kind}" for kind in KINDS]
    assert done.stderr == "published: the paper prints no number of its losses (Fig. 13); needed: a results folder\n"
    assert run("loss", "results", "--out", "there", "--width", "one").exit_code == 0
    assert (tmp_path / "there" / "training_loss.png").is_file()


@pytest.mark.slow
def test_all_says_what_it_skips(run, tmp_path):
    study(tmp_path, ["S/4", "B/2"])
    done = run("all", "results")
    skipped = [name for line in done.stderr.splitlines() for name in line.split(": not drawn: ")[0].split(", ")]
    others = {"bubbles", "fid-vs-steps", "sample-grid", "gflops-vs-fid", "training-compute", "metrics", "loss"}
    assert sorted(skipped) == sorted(set(CATALOGUE) - others)
    assert len(done.stdout.split()) == 5 * (len(CATALOGUE) - len(skipped))


def test_refusals_are_one_line(run):
    for arguments, message in [
        (["histogram"], "histogram: no such figure; accepted: all, bubbles, "),
        (["seeds"], "published: every model has one seed; needed: at least two of one model"),
        (["all", "nowhere"], "nowhere: no such results"),
    ]:
        with pytest.raises(ResultsError) as refusal:
            run(*arguments)
        assert str(refusal.value).startswith(message) and "\n" not in str(refusal.value)


def test_a_figure_has_its_papers_number_and_the_name_of_its_files(run):
    for text in ("10", "fig10", "Fig. 10", "figure 10", "sampling_compute", "Sampling-Compute"):
        with pytest.raises(ResultsError, match=r"the paper prints no number of its Fig\. 10"):
            run(text)
    for text in ("1", "fig", "0", "", "fig 8 9"):
        with pytest.raises(ResultsError, match="no such figure; accepted: all, "):
            run(text)


def test_data_named_in_the_older_way_and_the_list(run, tmp_path):
    study(tmp_path, ["S/4", "B/2"])
    assert run("13", "--source", "results").stdout == run("loss", "results").stdout
    listed = run("--list").output
    assert all(name in listed and entry.number in listed for name, entry in CATALOGUE.items())
    with pytest.raises(ResultsError, match="which figure"):
        run()
