"""A report's scores are those of the tables; published ones stand beside them with differences and intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from report_html import DIGITS, Element, by_id, column, digits_html, parsed, section
from run_folders import collect, evaluation, write_lines, write_run
from scipy.stats import t as student
from test_published_scores import run

from analysis.compare.beside_published import known_spread
from analysis.paper.tables import published, summary
from analysis.report.scores import beside_published, scores
from analysis.report.study import Study
from analysis.report.write import report
from analysis.results.tables import Tables, load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page() -> Element:
    return parsed(digits_html())


def xl2(folder: Path, fids: list[float], step: int = 400_000) -> Tables:
    """XL/2 as in the paper, a seed a score."""
    for seed, fid in enumerate(fids):
        one = run(folder / "runs", "XL/2", [{"step": step, "fid": fid}])
        config = yaml.safe_load((one / "config.yaml").read_text())
        config["recipe"]["seed"], config["id"] = seed, f"xl2{seed}"
        (one / "config.yaml").write_text(yaml.safe_dump(config))
        one.rename(folder / "runs" / f"seed{seed}")
    return collect(folder / "runs", folder / "results")


def test_the_page_has_the_numbers_of_the_summary(page: Element) -> None:
    data = summary(load(DIGITS)).data
    table = by_id(page, "table-summary")
    assert [cell.text for cell in column(table, "Model")] == data["label"].tolist()
    for heading, name in [("Fréchet distance ↓", "fid"), ("GMACs", "gmacs"), ("KID ↓", "kid"), ("Loss ↓", "loss")]:
        assert [float(cell.attributes["data-value"]) for cell in column(table, heading)] == data[name].tolist()
    first = data.iloc[0]
    shown = column(table, "Fréchet distance ↓")[0].text
    assert shown == f"{first['fid']:.2f} {first['fid_min']:.2f} to {first['fid_max']:.2f}"


def test_every_score_of_every_run_is_there(page: Element) -> None:
    evals = load(DIGITS).evals
    cells = column(by_id(page, "table-evals"), "fid")
    assert [float(cell.attributes["data-value"]) for cell in cells] == evals["fid"].tolist()


def test_the_whole_evaluation_key_is_there(page: Element) -> None:
    study = by_id(page, "study")
    pairs = dict(zip([e.text for e in study.all("dt")], [e.text for e in study.all("dd")], strict=True))
    expected = {"weights": "ema", "sampler": "ddpm", "sampling_steps": "25", "clip_denoised": "True"}
    expected |= {"guidance_scale": "1.0", "guidance_channels": "none", "decoder": "pixels", "num_samples": "250"}
    expected |= {"labels": "balanced", "reference": "digits-1797-b41ca9fd", "extractor": "digits-cnn-fb4b5713"}
    assert pairs.items() >= (expected | {"kid_subset_size": "100"}).items()
    assert "true FLOPs are twice as many" in study.text


def test_what_no_paper_has_trained_is_not_compared_and_one_line_says_so(page: Element) -> None:
    section = by_id(page, "published")
    (line,) = (each.text for each in section.all("p") if each.text.startswith("No published score "))
    assert "none is of a published model, block design and data set" in line
    assert not [table for table in section.all("table") if table.attributes["id"] == "table-published"]


def test_published_and_measured_with_difference_and_interval(tmp_path: Path) -> None:
    fids = [18.1, 19.1, 19.3]
    body = section("published", beside_published(Study.of(xl2(tmp_path, fids))))
    table = by_id(body, "table-published")
    cells = {heading: column(table, heading)[0] for heading in ("Published", "Measured", "Difference", "%", "Seeds")}
    assert cells["Published"].attributes["data-value"] == "19.47"
    assert float(cells["Measured"].attributes["data-value"]) == pytest.approx(np.mean(fids))
    assert cells["Difference"].text == "−0.64 −1.37 to −0.17"
    assert cells["Seeds"].text == "3"
    half = student.ppf(0.95, 2) * np.std(fids, ddof=1) / np.sqrt(3)
    low, high = np.mean(fids) - 19.47 - half, np.mean(fids) - 19.47 + half
    (interval,) = column(table, "Interval")
    assert interval.text == f"{low:+.2f} to {high:+.2f}".replace("-", "−")
    assert "Student's t" in body.text


def test_a_study_by_the_papers_protocol_says_how_much_laboratories_differ(page: Element, tmp_path: Path) -> None:
    """Inside or outside of which interval, what that rests on, and that the paper's picture has the same scale."""
    for label, fid in (("XL/2", 18.1), ("S/2", 79.59), ("B/4", 80.0)):
        run(tmp_path / "runs", label, [{"step": 400_000, "fid": fid}])
    study = by_id(parsed(report(collect(tmp_path / "runs", tmp_path / "results"))), "published")
    said = column(by_id(study, "table-published"), "Between laboratories")
    models = column(by_id(study, "table-published"), "Model")
    assert {model.text: cell.text for model, cell in zip(models, said, strict=True)} == {
        "XL/2": "inside 17.40 to 21.78",
        "S/2": "outside 61.14 to 76.53",
        "B/4": "outside 61.12 to 76.50",
    }
    spread = known_spread()
    for basis in (f"{spread.factor.low:.3f}", f"{spread.factor.high:.3f}", f"{spread.repeats} repeats", "U-DiT"):
        assert basis in study.text
    assert "another scale" in by_id(page, "published").text
    assert "another scale" not in study.text


def test_one_seed_has_a_difference_and_no_interval(tmp_path: Path) -> None:
    data = published(xl2(tmp_path, [18.1])).data
    assert data["difference"].tolist() == pytest.approx([18.1 - 19.47])
    assert data["interval"].tolist() == [None]


def test_a_published_model_at_another_step_is_listed_with_what_differs(tmp_path: Path) -> None:
    body = section("published", beside_published(Study.of(xl2(tmp_path, [18.1], step=300_000))))
    assert "No published score stands beside one of these: " in body.text
    table = by_id(body, "table-near-misses")
    assert [cell.text for cell in column(table, "condition")] == ["step"]
    assert [cell.text for cell in column(table, "ours")] == ["300000"]
    assert [cell.text for cell in column(table, "published")] == ["400000"]


def test_scores_of_other_settings_stand_apart(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs", "S/4")
    write_lines(folder / "other-evals.jsonl", [evaluation("S/4", 2000, guidance_scale=1.5, fid=12.5)])
    body = section("scores", scores(Study.of(collect(tmp_path / "runs", tmp_path / "results"))))
    assert [cell.attributes["data-value"] for cell in column(by_id(body, "table-other-evals"), "fid")] == ["12.5"]
    assert "12.5" not in by_id(body, "table-evals").text
