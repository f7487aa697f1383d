import itertools
import math
import subprocess
import sys

import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from opacus.accountants import RDPAccountant
from scipy import optimize, stats

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import (
    ACCOUNTANT,
    ADD_OR_REMOVE,
    REPLACE_ONE,
    ZERO_OUT,
    Steps,
    calibrated_noise_multiplier,
    composed_epsilon,
    composed_rdp_epsilon,
    epsilon,
    epsilon_at_clients,
    is_within,
    rdp_epsilon,
    round_up,
)

DELTA = 1e-5

# (q, sigma, steps, PLD at 1e-4, Opacus RDP), delta 1e-5: measured with dp-accounting 0.6.0 and opacus 1.6.0
ANCHORS = [
    (0.01, 0.6, 100, 3.816, 4.83),
    (0.01, 1.0, 1000, 1.828, 2.101),
    (0.01, 1.0, 10000, 6.188, 6.713),
    (0.01, 2.0, 1000, 0.622, 0.686),
    (0.05, 1.0, 100, 3.502, 4.04),
    (0.05, 1.0, 1000, 10.987, 11.98),
]


@pytest.mark.parametrize(("rate", "noise", "steps", "expected", "renyi"), ANCHORS)
def test_epsilon_equals_the_published_anchor_and_renyi_lies_above(rate, noise, steps, expected, renyi):
    assert epsilon(noise, rate, steps, DELTA) == pytest.approx(expected, abs=6e-4)
    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    assert accountant.get_epsilon(DELTA) == pytest.approx(renyi, rel=2e-3)
    assert epsilon(noise, rate, steps, DELTA) <= rdp_epsilon(noise, rate, steps, DELTA)
    assert epsilon(noise, rate, steps, DELTA) <= accountant.get_epsilon(DELTA)


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.1292, 0.25, 30), (2.0, 0.5, 7), (3.3, 1.0, 5)])
def test_epsilon_equals_the_accountant_that_composes_events(noise, rate, steps):
    accountant = PLDAccountant()
    accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise)), steps)
    assert epsilon(noise, rate, steps, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), abs=1e-6)


def test_without_sampling_epsilon_is_the_closed_form_of_the_gaussian_mechanism():
    """Balle & Wang 2018, equation 6, with mu = sqrt(steps) / sigma."""
    mu = math.sqrt(4) / 3.0

    def delta_gap(eps: float) -> float:
        return stats.norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * stats.norm.cdf(-mu / 2 - eps / mu) - DELTA

    exact = optimize.brentq(delta_gap, 0.01, 20)
    assert exact <= epsilon(3.0, 1.0, 4, DELTA) <= exact + 1e-3


def test_epsilon_falls_with_noise_and_grows_with_rate_and_steps():
    base = epsilon(1.0, 0.1, 20, DELTA)
    assert epsilon(1.5, 0.1, 20, DELTA) < base < epsilon(1.0, 0.2, 20, DELTA)
    assert base < epsilon(1.0, 0.1, 21, DELTA)


def test_no_steps_cost_nothing_and_no_noise_costs_everything():
    assert epsilon(1.0, 0.5, 0, DELTA) == 0.0
    assert epsilon(0.0, 0.5, 0, DELTA) == 0.0
    assert epsilon(0.0, 0.5, 1, DELTA) == math.inf
    assert rdp_epsilon(0.0, 0.5, 1, DELTA) == math.inf
    assert rdp_epsilon(1.0, 0.5, 0, DELTA) == 0.0
    assert composed_epsilon((Steps(1.0, 0.1, 3), Steps(0.0, 0.1, 1)), DELTA) == math.inf


def test_composition_adds_equal_runs_and_ignores_order():
    split = (Steps(1.0, 0.1, 5), Steps(2.0, 0.2, 4), Steps(1.0, 0.1, 7))
    joined = (Steps(2.0, 0.2, 4), Steps(1.0, 0.1, 12))
    assert composed_epsilon(split, DELTA) == composed_epsilon(joined, DELTA)
    assert epsilon(1.0, 0.1, 12, DELTA) < composed_epsilon(joined, DELTA)
    assert composed_epsilon((), DELTA) == 0.0


def test_composition_equals_the_accountant_that_composes_events():
    accountant = PLDAccountant()
    for noise, rate, steps in [(1.0, 0.1, 12), (2.0, 0.2, 4)]:
        accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise)), steps)
    ours = composed_epsilon((Steps(1.0, 0.1, 12), Steps(2.0, 0.2, 4)), DELTA)
    assert ours == pytest.approx(accountant.get_epsilon(DELTA), abs=1e-6)


def test_large_epsilons_stay_upper_bounds_when_discretised_coarsely():
    coarse = epsilon(0.3, 1.0, 30, DELTA)  # 243.6344 with steps of 1e-4
    assert 243.634 < coarse <= rdp_epsilon(0.3, 1.0, 30, DELTA)
    assert epsilon(0.05, 0.25, 1000, DELTA) == rdp_epsilon(0.05, 0.25, 1000, DELTA) > 1000


def test_a_person_at_k_clients_pays_for_k_times_the_steps():
    """The notes' table: q 0.02, sigma 1, 1000 steps at each of k clients."""
    for clients, expected in [(1, 3.90), (2, 5.62), (5, 9.40)]:
        assert epsilon_at_clients(1.0, 0.02, 1000, 1e-6, clients=clients) > 0
        found = epsilon_at_clients(1.0, 0.02, 1000, DELTA, clients=clients)
        assert found == epsilon(1.0, 0.02, 1000 * clients, DELTA)
        assert found == pytest.approx(expected, abs=6e-3)


@pytest.mark.parametrize(("target", "rate", "steps", "notes"), [(1.0, 0.02, 2000, 3.454), (3.0, 0.02, 2000, 1.453)])
def test_calibrated_noise_keeps_the_target_and_hardly_more(target, rate, steps, notes):
    noise = calibrated_noise_multiplier(target, DELTA, rate, steps)
    assert noise == pytest.approx(notes, rel=3e-3)
    assert epsilon(noise, rate, steps, DELTA) <= target < epsilon(noise - 2e-4, rate, steps, DELTA)


@pytest.mark.parametrize(("target", "rate", "steps"), [(0.1, 0.01, 1000), (8.0, 1.0, 30)])
def test_calibration_works_far_from_the_usual(target, rate, steps):
    noise = calibrated_noise_multiplier(target, DELTA, rate, steps)
    assert epsilon(noise, rate, steps, DELTA) <= target < epsilon(noise * 0.98, rate, steps, DELTA)


@pytest.mark.slow
def test_calibration_works_where_epsilon_means_little():
    noise = calibrated_noise_multiplier(150.0, DELTA, 0.5, 2)
    assert epsilon(noise, 0.5, 2, DELTA) <= 150.0 < epsilon(noise * 0.98, 0.5, 2, DELTA)


def test_a_search_that_ends_on_too_little_noise_is_corrected(monkeypatch):
    monkeypatch.setattr("fedrec.privacy.accounting._smallest_cell", lambda *_: 32873)  # 3.2876 is the least
    assert calibrated_noise_multiplier.__wrapped__(8.0, DELTA, 1.0, 30) == 3.2876


@pytest.mark.parametrize("target", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_target_is_refused(target):
    with pytest.raises(PrivacyError, match=r"epsilon=.*: expected a finite number > 0; set privacy.epsilon"):
        calibrated_noise_multiplier(target, DELTA, 0.1, 10)


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(PrivacyError, match=r"no noise reaches it; raise privacy\.epsilon"):
        calibrated_noise_multiplier(1e-9, 1e-14, 1.0, 10**6)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_outside_zero_and_one_is_refused(delta):
    with pytest.raises(PrivacyError, match=r"delta=.*: expected a number in \(0, 1\); set privacy.delta"):
        epsilon(1.0, 0.1, 1, delta)
    with pytest.raises(PrivacyError, match=r"delta=.*: expected a number in \(0, 1\); set privacy.delta"):
        rdp_epsilon(1.0, 0.1, 1, delta)
    with pytest.raises(PrivacyError, match=r"delta=.*: expected a number in \(0, 1\); set privacy.delta"):
        calibrated_noise_multiplier(1.0, delta, 0.1, 1)


@pytest.mark.parametrize("noise", [-1.0, math.nan, math.inf])
def test_noise_that_is_no_number_is_refused(noise):
    with pytest.raises(PrivacyError, match=r"noise_multiplier=.*: expected a finite number >= 0"):
        epsilon(noise, 0.1, 1, DELTA)


@pytest.mark.parametrize("rate", [0.0, 1.01, -0.5, math.nan])
def test_a_sampling_rate_that_is_no_fraction_is_refused(rate):
    with pytest.raises(PrivacyError, match=r"sampling_rate=.*: expected a fraction in \(0, 1\]; set"):
        epsilon(1.0, rate, 1, DELTA)


@pytest.mark.parametrize("steps", [-1, 1.0, True, math.inf])
def test_steps_that_are_no_count_are_refused(steps):
    with pytest.raises(PrivacyError, match=r"steps=.*: expected a whole number >= 0"):
        epsilon(1.0, 0.1, steps, DELTA)


def test_a_negative_spending_cannot_buy_budget_back():
    with pytest.raises(PrivacyError, match="steps=-5: expected a whole number >= 0"):
        composed_epsilon((Steps(1.0, 0.1, 10), Steps(1.0, 0.1, -5)), DELTA)
    with pytest.raises(PrivacyError, match="steps=-5: expected a whole number >= 0"):
        epsilon_at_clients(1.0, 0.1, -5, DELTA, clients=2)
    with pytest.raises(PrivacyError, match="clients=0: expected a whole number >= 1"):
        epsilon_at_clients(1.0, 0.1, 5, DELTA, clients=0)


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [(7.99941, 4, 7.9995), (8.0, 4, 8.0), (1.00001, 2, 1.01), (0.1, 1, 0.2), (0.0, 4, 0.0)],
)
def test_rounding_for_display_goes_up(value, digits, shown):
    """0.1 becomes 0.2 because the double nearest to 0.1 lies above it."""
    assert round_up(value, digits) == shown


def test_infinity_is_shown_as_it_is():
    assert round_up(math.inf) == math.inf


def test_the_accountant_is_named_with_its_version():
    assert ACCOUNTANT.startswith("dp-accounting 0.6")
    assert ACCOUNTANT.endswith(" PLD")


def test_an_unknown_relation_is_refused():
    with pytest.raises(PrivacyError, match="relation='add one': expected one of add or remove one person, replace"):
        composed_epsilon((Steps(1.0, 0.1, 1),), DELTA, relation="add one")


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.6, 0.25, 30), (3.3, 1.0, 5)])
def test_other_relations_equal_the_library_s(noise, rate, steps):
    for relation, theirs in (
        (REPLACE_ONE, NeighboringRelation.REPLACE_ONE),
        (ZERO_OUT, NeighboringRelation.REPLACE_SPECIAL),
        (ADD_OR_REMOVE, NeighboringRelation.ADD_OR_REMOVE_ONE),
    ):
        accountant = PLDAccountant(neighboring_relation=theirs)
        accountant.compose(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise)), steps)
        ours = composed_epsilon((Steps(noise, rate, steps),), DELTA, relation=relation)
        assert ours == pytest.approx(accountant.get_epsilon(DELTA), abs=1e-6)


def test_replacing_costs_more_than_adding_and_zeroing_out_the_same():
    history = (Steps(1.0, 0.01, 1000),)
    assert composed_epsilon(history, DELTA, relation=REPLACE_ONE) == pytest.approx(2.84, abs=5e-3)
    assert composed_epsilon(history, DELTA) == pytest.approx(1.83, abs=5e-3)
    assert composed_epsilon(history, DELTA, relation=ZERO_OUT) == composed_epsilon(history, DELTA)


def test_the_renyi_bound_of_several_mechanisms_lies_above_their_composition():
    history = (Steps(2.0, 0.1, 50), Steps(1.5, 0.25, 10), Steps(20.0, 1.0, 5))
    assert composed_epsilon(history, DELTA) <= composed_rdp_epsilon(history, DELTA)
    assert composed_rdp_epsilon(history[:1], DELTA) == rdp_epsilon(2.0, 0.1, 50, DELTA)
    assert composed_rdp_epsilon((), DELTA) == 0.0
    assert composed_rdp_epsilon((*history, Steps(0.0, 1.0, 1)), DELTA) == math.inf


@pytest.mark.parametrize("others", [(Steps(20.0, 1.0, 10),), (Steps(2.0, 0.1, 20), Steps(30.0, 1.0, 2))])
def test_calibration_leaves_room_for_other_releases(others):
    noise = calibrated_noise_multiplier(3.0, DELTA, 0.25, 20, others=others)
    assert noise > calibrated_noise_multiplier(3.0, DELTA, 0.25, 20)
    assert composed_epsilon((*others, Steps(noise, 0.25, 20)), DELTA) <= 3.0
    assert composed_epsilon((*others, Steps(noise - 2e-4, 0.25, 20)), DELTA) > 3.0


def test_other_releases_that_spend_everything_leave_nothing_to_calibrate():
    with pytest.raises(PrivacyError, match=r"epsilon=1\.0: the other releases spend it all; raise their noise or eps"):
        calibrated_noise_multiplier(1.0, DELTA, 0.25, 20, others=(Steps(1.0, 1.0, 10),))


HISTORY = (Steps(3.0, 0.25, 30), Steps(4.0, 0.2, 40), Steps(3.5, 0.25, 30))


def test_is_within_agrees_with_epsilon_on_both_sides_of_the_limit():
    spent = composed_epsilon(HISTORY, DELTA)
    for foreseen in ((), HISTORY, (*HISTORY, Steps(3.5, 0.25, 300))):
        assert is_within(HISTORY, DELTA, spent + 1e-6, foreseen=foreseen)
        assert not is_within(HISTORY, DELTA, spent - 1e-6, foreseen=foreseen)
    assert is_within((), DELTA, 0.0)
    assert not is_within(HISTORY, DELTA, math.nan)
    assert not is_within((Steps(0.0, 0.1, 1),), DELTA, 1e9)


def test_what_was_allowed_at_one_delta_or_limit_is_not_allowed_at_a_stricter_one():
    spent = composed_epsilon(HISTORY, DELTA)
    assert is_within(HISTORY, DELTA, spent + 1e-6)
    assert not is_within(HISTORY, DELTA / 100, spent + 1e-6)
    assert not is_within((*HISTORY, Steps(9.0, 0.25, 1)), DELTA, spent + 1e-6)
    assert not is_within((HISTORY[0]._replace(steps=35), *HISTORY[1:]), DELTA, spent + 1e-6)


def test_within_a_foreseen_plan_every_further_charge_is_answered_from_memory(monkeypatch):
    limit = composed_epsilon(HISTORY, 2 * DELTA) + 1e-6
    assert limit < composed_rdp_epsilon((*HISTORY[:2], HISTORY[2]._replace(steps=25)), 2 * DELTA)
    assert is_within((*HISTORY[:2], HISTORY[2]._replace(steps=25)), 2 * DELTA, limit, foreseen=HISTORY)
    monkeypatch.setattr("fedrec.privacy.accounting.composed_loss", lambda *_: pytest.fail("composed again"))
    for steps in range(1, 31):
        assert is_within((*HISTORY[:2], HISTORY[2]._replace(steps=steps)), 2 * DELTA, limit, foreseen=HISTORY)


def test_is_within_refuses_what_makes_no_history():
    with pytest.raises(PrivacyError, match="steps=-5: expected a whole number >= 0"):
        is_within((Steps(1.0, 0.1, 10), Steps(1.0, 0.1, -5)), DELTA, 8.0)
    with pytest.raises(PrivacyError, match=r"delta=0\.0: expected a number in \(0, 1\)"):
        is_within(HISTORY, 0.0, 8.0)


def test_the_order_in_which_mechanisms_came_changes_no_bit():
    assert len({composed_epsilon(order, DELTA) for order in itertools.permutations(HISTORY)}) == 1


def test_importing_the_accounting_is_quick_because_the_library_waits():
    code = (
        "import sys, time; start = time.perf_counter(); import fedrec.privacy.accounting, fedrec.privacy.filter;"
        "assert time.perf_counter() - start < 1.0;"
        "sys.exit(sorted({'dp_accounting', 'scipy', 'torch', 'opacus'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
