"""Speed-ups against curves worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilo_jax.report.speedup import Curve, bootstrap_interval, first_crossing, median_interval, smooth, speedup
from lilo_jax.storage.budgets import BUDGETS


def curve(accuracy, *, tokens_per_step=10, seconds_per_step=0.5, every=10, first=0):
    steps = first + every * np.arange(len(accuracy))
    spent = dict.fromkeys(BUDGETS, steps * tokens_per_step)
    return Curve(np.array(accuracy, float), spent | {"steps": steps, "seconds": steps * seconds_per_step})


def test_smoothing_is_a_trailing_mean_of_three():
    np.testing.assert_allclose(smooth(np.array([0.0, 0.3, 0.6, 0.9, 0.0])), [0.0, 0.15, 0.3, 0.6, 0.5])


def test_smoothing_of_less_than_a_window():
    np.testing.assert_allclose(smooth(np.array([0.2, 0.4])), [0.2, 0.3])


@pytest.mark.parametrize(
    ("target", "steps"),
    [
        (0.3, 20.0),  # exactly at an evaluation
        (0.225, 15.0),  # halfway between 0.15 (step 10) and 0.3 (step 20)
        (0.5, 20.0 + 10 * 2 / 3),
        (0.6, 30.0),
        (0.0, 0.0),
        (-1.0, 0.0),
        (0.601, None),
    ],
)
def test_crossing_by_interpolation_on_the_smoothed_curve(target, steps):
    found = first_crossing(curve([0.0, 0.3, 0.6, 0.9]), "steps", target)
    assert found == (None if steps is None else pytest.approx(steps))


def test_every_budget_is_read_at_the_same_place():
    c = curve([0.0, 0.3, 0.6, 0.9], tokens_per_step=7, seconds_per_step=0.25)
    assert first_crossing(c, "generated_tokens", 0.225) == pytest.approx(105)
    assert first_crossing(c, "seconds", 0.225) == pytest.approx(3.75)


def test_first_crossing_counts_even_if_the_curve_falls_again():
    assert first_crossing(curve([0.0, 0.6, 0.0, 0.0, 0.9, 0.9]), "steps", 0.3) == pytest.approx(10)


def test_a_curve_already_there_has_spent_what_its_first_evaluation_says():
    assert first_crossing(curve([0.5, 0.6], first=5), "steps", 0.4) == 5


def test_ratio_by_hand():
    # Baseline smoothed: 0, .1, .2, .4, .6 -> target .6 at step 40.  Arm smoothed: 0, .3, .6 -> step 20.
    baseline = {0: curve([0.0, 0.2, 0.4, 0.6, 0.8])}
    arm = {0: curve([0.0, 0.6, 1.2], tokens_per_step=40, seconds_per_step=0.5)}
    assert speedup(baseline, arm, "steps").mean == pytest.approx(2)
    assert speedup(baseline, arm, "generated_tokens").mean == pytest.approx(0.5)
    assert speedup(baseline, arm, "seconds").mean == pytest.approx(2)


def test_the_baselines_own_first_crossing_counts_not_its_end():
    # Smoothed .0, .3, .4, .6, .6, .5, .4: the final .4 was first reached at step 20 of 60.
    baseline = {0: curve([0.0, 0.6, 0.6, 0.6, 0.6, 0.3, 0.3])}
    arm = {0: curve([0.0, 0.8])}
    assert first_crossing(baseline[0], "steps", 0.4) == pytest.approx(20)
    assert speedup(baseline, arm, "steps").mean == pytest.approx(2)


def test_an_arm_equal_to_the_baseline_has_ratio_one():
    baseline = {seed: curve([0.1, 0.3, 0.2, 0.5 + seed / 10]) for seed in range(3)}
    found = speedup(baseline, baseline, "seconds")
    assert (found.mean, found.low, found.high) == (1, 1, 1)


def test_flat_curves_are_there_from_the_start():
    flat = {0: curve([0.1, 0.1, 0.1, 0.1])}  # 0.1 + 0.1 + 0.1 is not 0.3 in floating point
    found = speedup(flat, flat, "steps")
    assert found.by_seed == {0: 1.0}
    assert first_crossing(flat[0], "steps", float(smooth(flat[0].accuracy)[-1])) == 0


@pytest.mark.parametrize("flipped", [False, True])
def test_only_one_of_the_two_there_before_anything_is_spent_is_censored(flipped):
    there, later = {0: curve([0.5, 0.5, 0.5])}, {0: curve([0.1, 0.9, 0.9])}
    target_is_low = {0: curve([0.1, 0.5, 0.5])}
    found = speedup(target_is_low, there, "steps") if flipped else speedup(there, later, "steps")
    assert found.by_seed == {0: None}
    assert (found.mean, found.reached, found.of) == (None, 0, 1)


@pytest.mark.parametrize("idle", ["baseline", "arm", "both"])
def test_what_one_of_the_two_never_spends_has_no_ratio(idle):
    def run(name):
        found = curve([0.5, 0.5, 0.5])
        free = {"rejected/generated": np.zeros(3)} if idle in (name, "both") else {}
        return {0: Curve(found.accuracy, {**found.spent, **free})}

    found = speedup(run("baseline"), run("arm"), "rejected/generated")
    assert (found.by_seed, found.mean, found.of) == ({0: None}, None, 1)
    assert speedup(run("baseline"), run("arm"), "steps").mean == 1


def test_censored_seeds_are_counted_but_not_in_the_mean():
    baseline = {seed: curve([0.0, 0.2, 0.4, 0.6]) for seed in range(3)}
    arm = {0: curve([0.0, 0.8]), 1: curve([0.0, 0.1, 0.1]), 2: curve([0.0, 0.8])}
    found = speedup(baseline, arm, "steps")
    assert found.by_seed == {0: pytest.approx(3), 1: None, 2: pytest.approx(3)}
    assert (found.mean, found.reached, found.of) == (pytest.approx(3), 2, 3)


def test_without_censored_seeds_the_median_is_the_middle_one():
    ratios = np.array([3.0, 1.5, 2.0, 8.0, 1.2])
    assert median_interval(ratios, np.array([]))[0] == pytest.approx(2.0)
    assert median_interval(ratios[:4], np.array([]))[0] == pytest.approx(3.0)  # of four the first by which half arrived


def kaplan_meier(needed, arrived):
    """The share that has not arrived, as a product over arrivals, read off a list."""
    share, found = 1.0, None
    for t in sorted(set(needed)):
        waiting = sum(other >= t for other in needed)
        came = sum(other == t and there for other, there in zip(needed, arrived, strict=True))
        share *= 1 - came / waiting
        if share <= 0.5 + 1e-9 and found is None:
            found = 1 / t
    return found


@pytest.mark.parametrize("seed", range(20))
def test_medians_with_censored_seeds_are_kaplan_and_meiers(seed):
    rng = np.random.default_rng(seed)
    ratios, bounds = rng.choice([0.5, 1, 2, 3, 4, 5], 7).astype(float), rng.choice([0.4, 0.5, 2, 3.5], 4)
    expected = kaplan_meier([*1 / ratios, *1 / bounds], [True] * 7 + [False] * 4)
    found, low, high = median_interval(ratios, bounds)
    assert found == (expected and pytest.approx(expected))
    assert low <= (found or 0) <= high


def test_a_seed_that_never_arrives_counts_as_slower_than_what_it_was_given():
    baseline = {seed: curve([0.0, 0.2, 0.4, 0.6]) for seed in range(3)}
    arm = {0: curve([0.0, 0.8]), 1: curve([0.0, 0.1, 0.1]), 2: curve([0.0, 0.4, 0.9, 0.9])}
    found = speedup(baseline, arm, "steps")
    slower = found.by_seed[2]
    assert found.by_seed[0] == pytest.approx(3)
    assert found.by_seed[1] is None
    assert 1 < slower < 3
    assert found.median == pytest.approx(slower)  # the middle of three
    assert found.mean > found.median
    assert found.median_low == 0  # more than 2.5% of the resamples hold the second one twice


def test_a_median_needs_half_of_the_seeds():
    assert median_interval(np.array([3.0]), np.array([0.5, 0.5]))[0] is None
    assert median_interval(np.array([]), np.array([])) == (None, None, None)
    assert median_interval(np.array([2.0]), np.array([])) == (2.0, None, None)


def test_nobody_reached():
    found = speedup({0: curve([0.0, 0.5]), 1: curve([0.0, 0.5])}, {0: curve([0.0]), 1: curve([0.0])}, "steps")
    assert (found.mean, found.low, found.high, found.reached, found.of) == (None, None, None, 0, 2)


def test_one_seed_has_a_mean_and_no_interval():
    found = speedup({3: curve([0.0, 0.5])}, {3: curve([0.0, 1.0])}, "steps")
    assert (found.mean, found.low, found.high, found.reached, found.of) == (pytest.approx(2), None, None, 1, 1)


def test_only_seeds_that_both_have_are_compared():
    found = speedup({0: curve([0, 0.5]), 1: curve([0, 0.5])}, {1: curve([0, 0.5]), 2: curve([0, 0.5])}, "steps")
    assert found.by_seed == {1: 1.0}
    assert speedup({0: curve([0.5])}, {1: curve([0.5])}, "steps").of == 0


def seeds_of(*finals):
    """Runs that climb by one straight line; a steeper one reaches a given target sooner."""
    return {seed: curve(np.linspace(0, final, 11)) for seed, final in enumerate(finals)}


def test_mean_is_geometric_and_the_interval_holds_it():
    baseline, arm = seeds_of(0.3, 0.3, 0.3, 0.3, 0.3), seeds_of(0.4, 0.6, 0.9, 0.35, 0.7)
    found = speedup(baseline, arm, "steps")
    ratios = list(found.by_seed.values())
    assert found.mean == pytest.approx(np.prod(ratios) ** (1 / 5))
    assert min(ratios) <= found.low < found.mean < found.high <= max(ratios)


def test_bootstrap_is_deterministic_and_symmetric_in_direction():
    ratios = np.array([1.2, 3.0, 2.0, 0.7, 1.9])
    low, high = bootstrap_interval(ratios)
    assert (low, high) == bootstrap_interval(ratios)
    inverse = bootstrap_interval(1 / ratios)
    assert inverse == pytest.approx((1 / high, 1 / low))


def test_bootstrap_agrees_with_enumeration():
    # Of the 3**3 equally likely resamples one in 27 is all-smallest: more than 2.5%, so the ends are the extremes.
    assert bootstrap_interval(np.array([1.0, 2.0, 4.0])) == pytest.approx((1.0, 4.0))
    assert bootstrap_interval(np.array([2.0])) == (None, None)


def test_order_of_seeds_does_not_matter():
    baseline, arm = seeds_of(0.3, 0.4, 0.5, 0.3), seeds_of(0.4, 0.8, 0.5, 0.9)
    backwards = speedup(dict(reversed(baseline.items())), dict(reversed(arm.items())), "seconds")
    assert backwards == speedup(baseline, arm, "seconds")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.4, 1.0), min_size=1, max_size=5), st.floats(0.1, 10.0), st.sampled_from(BUDGETS))
def test_scaling_an_arms_budget_scales_the_ratio(finals, factor, budget):
    baseline = {seed: curve([0.0, 0.2, 0.3, 0.3, 0.3]) for seed in range(len(finals))}
    arm = seeds_of(*finals)
    dearer = {
        seed: Curve(c.accuracy, {name: spent * factor for name, spent in c.spent.items()}) for seed, c in arm.items()
    }
    before, after = speedup(baseline, arm, budget), speedup(baseline, dearer, budget)
    assert after.mean == pytest.approx(before.mean / factor)


def test_doubling_tokens_halves_the_ratio():
    baseline, arm = seeds_of(0.3, 0.3), {s: curve(np.linspace(0, 0.6, 11), tokens_per_step=20) for s in range(2)}
    assert speedup(baseline, arm, "generated_tokens").mean == pytest.approx(speedup(baseline, arm, "steps").mean / 2)


def test_bad_curves_and_budgets_are_refused():
    with pytest.raises(ValueError, match="equal, positive length"):
        Curve(np.arange(2), {"steps": np.arange(3), "seconds": np.arange(3)})
    with pytest.raises(ValueError, match="equal, positive length"):
        Curve(np.zeros(0), {"steps": np.zeros(0)})
    with pytest.raises(ValueError, match="no budget 'watts'"):
        first_crossing(curve([0.5]), "watts", 0.1)
