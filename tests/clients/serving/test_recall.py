"""Ranking the candidates gives the list that ranking everything gives."""

import numpy as np
import pytest

from clients.serving.ranking import Filters, best_of
from clients.serving.recall import ExactIndex, candidates
from clients.serving.recommending import Wishes, recommend
from clients.serving.scoring import ScoreTerms, score_parts
from tests.tiny_run import fedrec, write_settings
from tests.tiny_serving import shop_of

ITEMS, WIDTH, K = 300, 8, 10


def random_terms(rng):
    """A past whose pairs and memory speak of a few items each, for better and for worse."""
    reached = {}
    for name in ("pairs", "in_basket", "repeats"):
        items = rng.choice(ITEMS, rng.integers(0, 40), replace=False)
        reached[name] = (items, rng.normal(-0.5, 3, len(items)).astype(np.float32))
    states = {name: rng.normal(size=WIDTH).astype(np.float32) for name in ("sequence", "text")}
    return ScoreTerms(states, {"bias": rng.normal(size=ITEMS).astype(np.float32)}, reached)


def test_the_best_of_the_candidates_are_the_best_of_all():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)
    fewest = ITEMS
    for _ in range(300):
        terms, allowed = random_terms(rng), rng.random(ITEMS) < rng.choice([0.02, 0.5, 1.0])
        found = candidates(ExactIndex(vectors, terms.shared["bias"]), terms, most=K, allowed=allowed)
        everything = np.sum(list(terms.over(vectors).values()), axis=0)
        assert allowed[found].all()
        assert (np.diff(found) > 0).all()
        expected = best_of(np.where(allowed, everything, -np.inf), K)
        assert found[best_of(everything[found], K)].tolist() == expected.tolist()
        fewest = min(fewest, len(found))
    assert fewest < ITEMS / 10


def test_items_that_a_past_counts_against_do_not_crowd_out_others():
    """Worked by hand: the two best by the state are in the basket already, so the third and fourth are wanted."""
    vectors = np.array([[4.0], [3.0], [2.0], [1.0], [0.0]], np.float32)
    nothing, basket = np.zeros(5, np.float32), (np.array([0, 1]), np.array([-9.0, -9.0], np.float32))
    terms = ScoreTerms({"text": np.ones(1, np.float32)}, {"bias": nothing}, {"in_basket": basket})
    found = candidates(ExactIndex(vectors, nothing), terms, most=2, allowed=np.ones(5, bool))
    assert {2, 3} <= set(found.tolist())
    assert 4 not in found


def share_of_equal_lists(shop, people, *, memory):
    """How often the list for a person is that of ranking the whole catalogue."""
    equal = 0
    for person in people:
        history, times = shop.past(person)
        wishes = Wishes(K, Filters(), diversity=0.0, pool=100)
        listed = [one.item for one in recommend(shop.model, history, wishes, memory=memory, times=times)]
        scores = np.sum(list(score_parts(shop.model, history, memory=memory, times=times).values()), axis=0)
        scores[shop.model.masking.hidden(history)] = -np.inf
        equal += listed == best_of(scores, K).tolist()
    return equal / len(people)


@pytest.mark.parametrize("with_memory", [False, True])
def test_on_a_tiny_run_everybody_gets_the_list_of_the_whole_catalogue(counted_run, with_memory):
    shop = shop_of(counted_run.out)
    memory = shop.memory if with_memory else None
    assert share_of_equal_lists(shop, range(len(shop.train)), memory=memory) >= 0.99


@pytest.mark.slow
def test_on_the_bundled_set_everybody_gets_the_list_of_the_whole_catalogue(tmp_path):
    changes = {"items.encoder": "auto", "partition.clients": 2, "federation.rounds": 1, "statistics.weight": 1.0}
    settings = write_settings(tmp_path / "bundled.toml", changes | {"statistics.noise_share": 0.5})
    assert fedrec("simulate", "--config", settings, "--out", tmp_path / "run", home=tmp_path).exit_code == 0
    shop = shop_of(tmp_path / "run")
    assert len(shop.model.catalogue) == 3659
    people = np.random.default_rng(0).choice(len(shop.train), 300, replace=False).tolist()
    assert share_of_equal_lists(shop, people, memory=shop.memory) >= 0.99
