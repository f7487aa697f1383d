"""Shops train one search: as good as one shop with everybody, charged like any other training, and checked first."""

import numpy as np
import pytest
import torch

import simulations.search_head
from clients.query_learner import trained_arrays
from clients.serving.query_training import new_adapter
from fedrec.config_search import QueryTrainingConfig, SearchConfig
from fedrec.errors import ConfigError, PrivacyError
from fedrec.model.query_adapter import person_losses, reciprocal_ranks
from fedrec.privacy.plan import PrivacyPlan
from simulations.heads import Course, new_budgets, new_server
from simulations.search_head import federate_search, search_head
from tests.clients.serving.test_query_training import DENSE, PEOPLE, catalogue_vectors, examples

SHARPNESS = 5.0
COURSE = Course(run_id="search-1", server_learning_rate=0.3, warmup_rounds=0, ema=0.0, seed=0)
ROUNDS = 15


def plan(*, epsilon: float | None = None, people: int = PEOPLE // 3, rounds: int = ROUNDS) -> PrivacyPlan:
    shape = {"sampling_rate": 1.0, "rounds": rounds, "local_steps": 1, "clip_norm": 1.0, "clipping": "flat"}
    if epsilon is None:
        return PrivacyPlan.without_privacy(**shape, expected_people=people)
    return PrivacyPlan.calibrate(epsilon, 1e-4, **shape, expected_people=people)


def shops(number: int = 3):
    everyone = examples(words_tell=True)
    return [everyone.of(rows) for rows in torch.arange(PEOPLE).chunk(number)]


def adapter():
    return new_adapter(DENSE, SearchConfig(), QueryTrainingConfig(), turns=False)


def federate(folder, *, of=None, budgets=None, **how):
    if not folder.exists():
        new_server(folder)
    model = adapter()
    vectors = catalogue_vectors().numpy()
    how = {"plan": plan(), "course": COURSE} | how
    learned = federate_search(model, of or shops(), vectors, sharpness=SHARPNESS, folder=folder, budgets=budgets, **how)
    return learned, model


def test_shops_apart_learn_what_one_with_everybody_learns(tmp_path):
    apart, model = federate(tmp_path / "apart")
    together, _ = federate(tmp_path / "together", of=shops(1), plan=plan(people=PEOPLE))
    assert (apart.words, apart.meaning) == pytest.approx((together.words, together.meaning), abs=1e-4)
    everyone, items = examples(words_tell=True), catalogue_vectors()
    before, after = (reciprocal_ranks(one, items, everyone).mean() for one in (adapter(), model))
    assert after > before + 0.2


def test_what_comes_out_is_what_the_last_round_left(tmp_path):
    learned, model = federate(tmp_path / "run", plan=plan(rounds=1))
    assert learned.words > SearchConfig().words_beside_hashing + 0.01
    assert (learned.words, learned.meaning) == model.mix.learned()


def test_every_shop_pays_for_every_round(tmp_path):
    new_server(tmp_path / "run")
    private = plan(epsilon=8.0, rounds=3)
    head = search_head(adapter(), catalogue_vectors(), sharpness=SHARPNESS)
    budgets = new_budgets(head, private, tmp_path / "run", clients=3)
    learned, _ = federate(tmp_path / "run", plan=private, budgets=budgets)
    for budget in budgets:
        assert budget.ledger.spent() == pytest.approx(private.epsilon_after(3))
    assert np.isfinite([learned.words, learned.meaning]).all()


def test_a_policy_pins_what_is_trained():
    model, items = adapter(), catalogue_vectors()
    digest = search_head(model, items, sharpness=SHARPNESS).base_digest
    assert search_head(adapter(), items, sharpness=SHARPNESS).base_digest == digest
    others = [
        search_head(model, items, sharpness=6.0),
        search_head(model, items[:-1], sharpness=SHARPNESS),
        search_head(model, items.flip(0), sharpness=SHARPNESS),
        search_head(new_adapter(DENSE, SearchConfig(meaning=2.0), QueryTrainingConfig()), items, sharpness=SHARPNESS),
        search_head(new_adapter(DENSE, SearchConfig(), QueryTrainingConfig(seed=1)), items, sharpness=SHARPNESS),
    ]
    assert digest not in {other.base_digest for other in others}


def test_a_loss_that_couples_people_is_refused_before_anything_is_charged(tmp_path, monkeypatch):
    def coupled(*args, **how):
        losses = person_losses(*args, **how)
        return losses + losses.mean()

    monkeypatch.setattr(simulations.search_head, "person_losses", coupled)
    with pytest.raises(PrivacyError, match=r"a person's loss changes with the batch: expected the same loss alone and"):
        federate(tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"server.key"}


def test_a_federation_of_nobody_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no shop has people with a query: expected at least one"):
        federate_search(
            adapter(), [], catalogue_vectors().numpy(), sharpness=1.0, plan=plan(), course=COURSE, folder=tmp_path
        )
    assert list(trained_arrays(adapter())) == ["mix.weight"]
