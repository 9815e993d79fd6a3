"""Statistics over seeds, against scipy and against numbers worked by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats

from pixelrl import presets, stats
from pixelrl.runs import Run


def run(steps: list[int], returns: list[float], seconds: list[float] | None = None) -> Run:
    curve = pd.DataFrame({"step": steps, "return": returns, "seconds": seconds or steps})
    config = presets.get("dqn-cartpole", "quick", steps=steps[-1])
    return Run(config, curve, {"final_returns": [returns[-1], returns[-1] + 2]}, {})


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    values = np.array([-100.0, 1, 2, 3, 4, 5, 6, 1000])
    assert stats.iqm(values) == pytest.approx((2 + 3 + 4 + 5) / 4)


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).normal(10, 3, size=12)
    ours = stats.estimate(values)
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=0)
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.15)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.15)


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [stats.estimate(rng.normal(0, 1, 20), resamples=400) for _ in range(300)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.88 <= covered <= 0.98  # the percentile bootstrap of 20 values is a little too narrow


def test_columns_are_estimated_one_by_one() -> None:
    values = np.random.default_rng(0).normal(size=(6, 3))
    together, alone = stats.estimate(values), stats.estimate(values[:, 1])
    assert together.low.shape == (3,)
    assert together.low[1] == pytest.approx(alone.low)


def test_one_seed_has_no_interval() -> None:
    found = stats.estimate(np.array([7.0]))
    assert found.value == 7.0
    assert np.isnan([found.low, found.high]).all()
    assert f"{found:.1f}" == "7.0"
    assert stats.estimate(np.array([[1.0, 2.0]])).high.shape == (2,)


@pytest.mark.parametrize("values", [[], [1.0, np.nan]])
def test_nothing_to_estimate_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values of one seed or more"):
        stats.estimate(np.array(values))


def test_a_run_that_stopped_early_keeps_its_last_value() -> None:
    x, y = stats.curves([run([100, 200], [1.0, 5.0]), run([100, 200, 300], [0.0, 2.0, 4.0])])
    assert x.tolist() == [100, 200, 300]
    assert y.tolist() == [[1, 5, 5], [0, 2, 4]]


def test_steps_to_a_return_and_final_means() -> None:
    runs = [run([100, 200], [1.0, 5.0]), run([100, 200], [1.0, 2.0])]
    assert stats.first_reached(runs, 5.0).tolist() == [200, np.inf]
    assert stats.final_means(runs).tolist() == [6.0, 3.0]


def test_rows_from_before_the_first_update_are_left_out() -> None:
    x, y = stats.curves([run([100, 200, 300], [np.nan, 2.0, 4.0]), run([100, 200, 300], [np.nan, 1.0, 1.0])])
    assert x.tolist() == [200, 300]
    assert y.tolist() == [[2, 4], [1, 1]]


def test_probability_of_improvement_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 8, 7).astype(float), rng.integers(0, 8, 5).astype(float)
    found = stats.probability_of_improvement(ours, theirs)
    expected = scipy.stats.mannwhitneyu(ours, theirs).statistic / (len(ours) * len(theirs))
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    assert stats.probability_of_improvement(ours + 10, theirs) == (1.0, 1.0, 1.0)
    assert stats.probability_of_improvement(ours, ours).value == 0.5
    for pair in ((ours[:1], theirs), (ours, theirs[:1])):
        found = stats.probability_of_improvement(*pair)
        assert np.isfinite(found.value)
        assert np.isnan([found.low, found.high]).all()
    with pytest.raises(ValueError, match="finite values"):
        stats.probability_of_improvement(ours, np.array([]))


@pytest.mark.parametrize("sizes", [(3, 3), (3, 6), (2, 4)])
def test_permutation_test_agrees_with_scipy(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(sizes))
    ours, theirs = rng.normal(1, 1, sizes[0]), rng.normal(0, 1, sizes[1])
    found, share, ways = stats.permutation_test(ours, theirs)
    scipys = scipy.stats.permutation_test(
        (ours, theirs),
        lambda a, b, axis: abs(a.mean(axis=axis) - b.mean(axis=axis)),
        alternative="greater",
        vectorized=True,
    )
    assert found == pytest.approx(ours.mean() - theirs.mean())
    assert share == pytest.approx(scipys.pvalue)
    assert ways == scipy.special.comb(sum(sizes), sizes[0])


def test_three_runs_above_three_others_are_found_so_in_one_of_ten_ways() -> None:
    assert stats.permutation_test(np.array([4.0, 5, 6]), np.array([1.0, 2, 3])) == (3.0, pytest.approx(2 / 20), 20)


def test_the_first_half_of_a_curve() -> None:
    runs = [run([10, 20, 30, 40], [1, 3, 8, 9]), run([10, 20, 30, 40], [2, 2, 0, 0])]
    np.testing.assert_allclose(stats.first_half(runs), [2, 2])


def test_the_first_half_is_that_of_each_run_alone() -> None:
    long, short = run([10, 20, 30, 40], [1, 3, 8, 9]), run([5, 10, 15, 20], [4, 6, 0, 0])
    np.testing.assert_allclose(stats.first_half([long, short]), [2, 5])


@pytest.mark.parametrize("compare", [stats.permutation_test, stats.probability_of_improvement])
@pytest.mark.parametrize("ours", [[1.0, np.nan], []])
def test_a_comparison_wants_finite_values_on_both_sides(compare: Callable, ours: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values of one seed or more"):
        compare(ours, [1.0, 2.0])
    with pytest.raises(ValueError, match="finite values of one seed or more"):
        compare([1.0, 2.0], ours)


def test_an_estimate_is_written_as_finely_as_asked() -> None:
    found = stats.Estimate(np.float64(1.26), np.float64(0.5), np.float64(2.0))
    assert str(found) == f"{found}" == "1 [0, 2]"
    assert f"{found:.1f}" == "1.3 [0.5, 2.0]"
