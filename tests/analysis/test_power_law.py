import numpy as np
import pytest

from analysis.laws.power_law import log_linear, power_law
from analysis.results.tables import published


def paper_scaling():
    """The 12 models of Table 4 at 400K steps."""
    table = published("dit_table4")
    return table.query("image_size == 256 and block == 'adaln-zero' and train_steps_k == 400")


def test_log_linear_gives_the_papers_correlation():
    models = paper_scaling()
    fit = log_linear(models["gmacs"], models["fid50k"])
    assert fit.num_points == 12
    assert round(fit.r, 3) == -0.930


def test_power_law_of_the_papers_models():
    models = paper_scaling()
    fit = power_law(models["gmacs"], models["fid50k"])
    assert round(fit.coefficient, 1) == 137.8
    assert round(fit.exponent, 3) == -0.365


def test_power_law_of_the_papers_models_without_the_coarsest_patch():
    models = paper_scaling()
    fine = models[~models["model"].str.endswith("/8")]
    fit = power_law(fine["gmacs"], fine["fid50k"])
    assert fit.num_points == 8
    assert round(fit.coefficient, 1) == 128.5
    assert round(fit.exponent, 3) == -0.369


def test_exact_lines_are_found():
    gmacs = np.array([0.1, 1.0, 10.0, 100.0])
    line = log_linear(gmacs, 50 - 10 * np.log10(gmacs))
    assert (line.slope, line.intercept, line.r) == pytest.approx((-10, 50, -1))
    assert line([1000.0]) == pytest.approx([20])
    law = power_law(gmacs, 7 * gmacs**-0.25)
    assert (law.coefficient, law.exponent, law.r_squared_log) == pytest.approx((7, -0.25, 1))
    assert law([16.0]) == pytest.approx([3.5])


def test_constant_scores_have_no_correlation():
    assert np.isnan(log_linear([1, 2, 3], [5, 5, 5]).r)
    assert log_linear([1, 2, 3], [5, 5, 5]).slope == 0


@pytest.mark.parametrize("fit", [log_linear, power_law])
@pytest.mark.parametrize(
    ("gmacs", "score", "message"),
    [
        ([1.0], [2.0], "at least two"),
        ([], [], "at least two"),
        ([3.0, 3.0], [1.0, 2.0], "at least two"),
        ([0.0, 1.0], [1.0, 2.0], "gmacs: every value has to be positive"),
        ([1.0, 2.0], [np.nan, 2.0], "finite"),
        ([1.0, np.inf], [1.0, 2.0], "finite"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "same length"),
    ],
)
def test_bad_input_is_refused(fit, gmacs, score, message):
    with pytest.raises(ValueError, match=message):
        fit(gmacs, score)


def test_power_law_refuses_scores_that_have_no_logarithm():
    with pytest.raises(ValueError, match="score: every value has to be positive"):
        power_law([1.0, 2.0], [0.0, 1.0])
