"""Who gets how much of a budget: by hand on toy figures, and as tried on the bundled set."""

import json
import math
from dataclasses import replace

import pytest

from fedrec.errors import PrivacyError
from fedrec.privacy.accounting import composed_epsilon
from fedrec.privacy.profiles import BUNDLED_PAIRS, BUNDLED_PARAMETERS, adapter_signal
from fedrec.privacy.replanning import replanned
from fedrec.privacy.splitter import ADAPTER, PAIRS, AdapterSignal, Crowd, PairBucket, split_budget

pytestmark = pytest.mark.usefixtures("coarse_accounting")

CROWD = Crowd(clients=50, clients_per_round=50, threshold=2.5)
ADAPTER_SIGNAL = adapter_signal(BUNDLED_PARAMETERS, norms=True)


@pytest.fixture
def split_at(make_plan):
    """The bundled set's split under a trust model."""

    def split(trust: str, epsilon: float, *, people: int = 75, crowd: Crowd = CROWD, share: float | None = None):
        sharers = crowd.clients if trust == "distributed" else 1
        plan = make_plan(epsilon, expected_people=people, trust=trust, noise_sharers=sharers)
        return split_budget(plan, crowd, pairs=BUNDLED_PAIRS, adapter=ADAPTER_SIGNAL, share=share)

    return split


@pytest.mark.parametrize(("trust", "sums"), [("local", 2.0), ("distributed", 1.0), ("central", 1.0)])
def test_pairs_are_forecast_as_by_hand(make_plan, trust, sums):
    """100 people at each of 4 clients, .02 each on 9 pairs: 8 people a pair; local noise adds up to twice as much."""
    plan = make_plan(expected_people=100, trust=trust, noise_sharers=4 if trust == "distributed" else 1)
    crowd = Crowd(clients=4, clients_per_round=4, threshold=0.0)
    split = split_budget(plan, crowd, pairs=[PairBucket(9, 0.02, 0.02)], adapter=ADAPTER_SIGNAL, share=0.25)
    found, std = split.prospects[PAIRS], sums * split.noise_multiplier
    survives = 0.5 * (1 + math.erf(8 / std / math.sqrt(2)))
    assert found.survives == pytest.approx(survives, rel=1e-12)
    assert found.signal == pytest.approx(3 * 8 * math.sqrt(survives), rel=1e-12)
    assert found.noise == pytest.approx(3 * std * math.sqrt(0.5), rel=1e-12)  # above 0: half of the noise's energy
    assert found.snr == pytest.approx(found.signal / found.noise, rel=1e-12)


def test_the_threshold_lets_through_the_noise_beyond_it(make_plan):
    """Of a standard normal number beyond 1 the energy is .400626."""
    crowd = replace(CROWD, threshold=1.0)
    split = split_budget(make_plan(), crowd, pairs=[PairBucket(4, 0.0, 0.0)], adapter=ADAPTER_SIGNAL, share=0.5)
    std = math.sqrt(50) * split.noise_multiplier
    assert split.prospects[PAIRS].noise == pytest.approx(2 * std * math.sqrt(0.400626), rel=1e-5)
    assert (split.prospects[PAIRS].signal, split.prospects[PAIRS].survives) == (0.0, 0.0)


@pytest.mark.parametrize(("trust", "replies"), [("local", 2.0), ("distributed", 4.0), ("central", 4.0)])
def test_the_adapter_is_forecast_as_by_hand(make_plan, trust, replies):
    """Noise sigma sqrt(P) / (q n) over sqrt(m) clients or m, against a gradient of 1 in each of 25 steps."""
    plan = make_plan(rounds=25, trust=trust, noise_sharers=4 if trust == "distributed" else 1, expected_people=40)
    crowd = Crowd(clients=4, clients_per_round=4, threshold=2.5)
    split = split_budget(plan, crowd, pairs=BUNDLED_PAIRS, adapter=AdapterSignal(900, 1.0), share=0.75)
    found = split.prospects[ADAPTER]
    sigma = replanned(plan, statistics_noise_multiplier=split.noise_multiplier).noise_multiplier
    assert (found.share, found.noise_multiplier) == (0.25, sigma)
    assert found.noise == pytest.approx(sigma * 30 / (0.25 * 40) / replies, rel=1e-12)
    assert found.signal == pytest.approx(5.0, rel=1e-12)
    assert found.survives == pytest.approx(found.snr**2 / (1 + found.snr**2), rel=1e-12)


def test_noise_shared_by_fewer_than_are_summed_adds_up(make_plan):
    plan = make_plan(trust="distributed", noise_sharers=10)
    few, all_of_them = Crowd(clients=10, clients_per_round=10, threshold=2.5), replace(CROWD, clients_per_round=10)
    noises = [
        split_budget(plan, crowd, pairs=BUNDLED_PAIRS, adapter=ADAPTER_SIGNAL, share=0.5).prospects[PAIRS].noise
        for crowd in (few, all_of_them)
    ]
    assert noises[1] == pytest.approx(math.sqrt(5) * noises[0], rel=1e-12)


def test_on_the_bundled_set_local_noise_leaves_pairs_nothing_and_the_adapter_all(split_at):
    split = split_at("local", 8.0)
    assert (split.share, split.noise_multiplier) == (0.0, None)
    assert split.prospects[PAIRS].snr < 0.5
    assert 2.0 < split.prospects[ADAPTER].snr < 3.0
    assert split.verdict(PAIRS) == ("nothing: can't pay, too little signal for its noise even with 95%")
    assert split.verdict(ADAPTER) == "100%, with which 87% of its signal is expected to survive"


@pytest.mark.parametrize("trust", ["distributed", "central"])
def test_on_the_bundled_set_noise_on_the_sum_goes_mostly_to_pairs(split_at, trust):
    split = split_at(trust, 8.0)
    assert split.share >= 0.8
    assert 0.6 < split.noise_multiplier < 0.7  # measured: .60 on pairs alone
    assert split.prospects[PAIRS].survives == pytest.approx(0.53, abs=0.03)
    assert split.prospects[ADAPTER].can_pay
    assert split_at(trust, 3.0).share > 0.5
    assert split_at(trust, 1.0).share == 0.0  # measured: a gain of .001


def test_what_is_expected_to_survive_follows_what_pairs_were_measured_to_gain(split_at):
    """Gains on the clients over that without noise, .0126: +.0076 at epsilon 8 and +.004 at 3."""
    for epsilon, gain in ((8.0, 0.0076), (3.0, 0.004)):
        survives = split_at("distributed", epsilon, share=0.95).prospects[PAIRS].survives
        assert survives == pytest.approx(gain / 0.0126, abs=0.1)


@pytest.mark.parametrize("part", [PAIRS, ADAPTER])
@pytest.mark.parametrize("trust", ["local", "distributed"])
def test_more_epsilon_and_more_people_never_hurt(split_at, trust, part):
    by_epsilon = [split_at(trust, epsilon, share=0.5).prospects[part] for epsilon in (1.0, 3.0, 8.0)]
    by_people = [split_at(trust, 8.0, people=people, share=0.5).prospects[part] for people in (75, 300, 1200)]
    for found in (by_epsilon, by_people):
        assert [p.snr for p in found] == sorted(p.snr for p in found)
        assert [p.survives for p in found] == sorted(p.survives for p in found)
        assert found[0].snr < found[-1].snr


def test_pairs_are_paid_for_from_half_as_much_signal_as_noise_on(split_at):
    """Measured: a quarter of what exact pairs bring at .7, next to nothing at .4."""
    below, above = (split_at("local", 8.0, people=people, share=0.95).prospects[PAIRS] for people in (85, 120))
    assert 0.3 < below.snr < 0.5 < above.snr < 0.8
    assert split_at("local", 8.0, people=85).share == 0
    assert split_at("local", 8.0, people=120).share > 0.5


def test_with_enough_people_local_noise_pays_for_pairs_too(split_at):
    assert split_at("local", 8.0, people=1200).share > 0.5


def test_a_plan_that_pays_for_both_keeps_the_promise(make_plan, split_at):
    for share in (0.05, 0.5, 0.95):
        split = split_at("local", 8.0, share=share)
        plan = make_plan(8.0, expected_people=75)
        paid = replanned(plan, statistics_noise_multiplier=split.noise_multiplier)
        assert composed_epsilon(paid.spendings(), 1e-5) <= 8.0
        # A share of 1/sigma^2 only guides: the accountant never leaves less, and not much more.
        guess = plan.noise_multiplier / math.sqrt(1 - share)
        assert 0.7 * guess < paid.noise_multiplier < 1.01 * guess
        assert paid.epsilon_after(0, statistics=True) < 8.0


def test_a_share_that_is_given_is_taken_and_judged(split_at):
    split = split_at("local", 8.0, share=0.3)
    assert split.share == 0.3
    assert split.verdict(PAIRS) == "30%, but can't pay: it buys too little signal for its noise"
    assert split.verdict(ADAPTER).startswith("70%, with which ")


def test_an_adapter_too_large_for_its_noise_leaves_the_budget_to_the_pairs(make_plan):
    plan = make_plan(8.0, expected_people=75, trust="distributed", noise_sharers=50)
    split = split_budget(plan, CROWD, pairs=BUNDLED_PAIRS, adapter=AdapterSignal(10_000_000, 0.1))
    assert split.share == 0.95
    assert split.verdict(ADAPTER) == ("the 5% that is left: can't pay, too little signal for its noise even with 100%")


def test_without_public_pairs_there_is_nothing_to_release(make_plan):
    split = split_budget(make_plan(), CROWD, pairs=(), adapter=ADAPTER_SIGNAL)
    assert (split.share, split.noise_multiplier, split.prospects[PAIRS].snr) == (0.0, None, 0.0)


def test_popularity_takes_its_share_of_what_pairs_can_show(split_at):
    whole = split_at("distributed", 8.0, share=0.5).prospects[PAIRS]
    shared = split_at("distributed", 8.0, share=0.5, crowd=replace(CROWD, popularity_share=0.75)).prospects[PAIRS]
    assert shared.snr < whole.snr
    assert shared.noise == whole.noise
    none = split_at("distributed", 8.0, share=0.5, crowd=replace(CROWD, popularity_share=1.0)).prospects[PAIRS]
    assert none.signal == 0.0


def test_a_split_is_plain_json(split_at):
    split = split_at("distributed", 8.0)
    told = json.loads(json.dumps(split.to_dict(), allow_nan=False))
    assert (told["share"], told["noise_multiplier"]) == (split.share, split.noise_multiplier)
    assert [part["part"] for part in told["parts"]] == ["pairs", "adapter"]
    assert told["parts"][0]["verdict"] == split.verdict(PAIRS)
    assert told["parts"][1]["snr"] == split.prospects[ADAPTER].snr


def test_what_cannot_be_split_is_refused(make_plan, make_open_plan):
    known = {"pairs": BUNDLED_PAIRS, "adapter": ADAPTER_SIGNAL}
    with pytest.raises(PrivacyError, match="a plan without privacy: expected a private one, because it promises n"):
        split_budget(make_open_plan(), CROWD, **known)
    with pytest.raises(PrivacyError, match="pays for a release of statistics already: expected one that does not"):
        split_budget(make_plan(statistics_noise_multiplier=2.0), CROWD, **known)
    for share in (1.0, -0.1, math.nan):
        with pytest.raises(PrivacyError, match=r"noise_share=.*: expected in \[0, 1\); set statistics.noise_share"):
            split_budget(make_plan(), CROWD, **known, share=share)
