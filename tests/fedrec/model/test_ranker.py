import numpy as np
import pytest
import torch

from fedrec.data.splits import leave_last_out
from fedrec.errors import ConfigError
from fedrec.evaluation.baselines import frozen_text
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.protocol import evaluate
from fedrec.model.windows import latest_events
from simulations.rows import ranker_scorer
from tests.tiny_ranker import (
    HISTORY,
    ITEMS,
    TEXT_DECAY,
    TEXT_SCALE,
    TEXT_WINDOW,
    histories,
    learned,
    ranker_spec,
    scores,
    untrained,
    vectors,
)

PEOPLE = histories(3, 9, 5, 2, 14, 7, 6)
EVERYONE = np.arange(len(PEOPLE))


@pytest.fixture
def items() -> torch.Tensor:
    return torch.randint(0, ITEMS, (3, HISTORY), generator=torch.Generator().manual_seed(0))


def test_untrained_ranker_is_the_frozen_text_baseline_in_scores():
    baseline = frozen_text(PEOPLE, vectors(), window=TEXT_WINDOW, decay=TEXT_DECAY)(EVERYONE)
    ours = ranker_scorer(untrained(), PEOPLE)(EVERYONE)
    assert np.abs(ours / TEXT_SCALE - baseline).max() < 1e-4


def test_untrained_ranker_is_the_frozen_text_baseline_in_metrics():
    split = leave_last_out(PEOPLE)
    scorers = (
        frozen_text(split.train, vectors(), window=TEXT_WINDOW, decay=TEXT_DECAY),
        ranker_scorer(untrained(), split.train),
        ranker_scorer(learned(), split.train),
    )
    baseline, ours, other = (
        evaluate(scorer, split, people=EVERYONE, items=ITEMS, masking=Masking.LAST).means() for scorer in scorers
    )
    assert ours == pytest.approx(baseline, abs=1e-12)
    assert other != pytest.approx(baseline, abs=1e-3)


def test_parts_sum_to_the_score(items):
    ranker = learned()
    positions = torch.tensor([[0, 3], [5, 1], [2, 2]])
    for candidates in (None, torch.tensor([7, 0, 39])):
        with torch.no_grad():
            parts, whole = ranker.parts(items, positions, candidates), ranker(items, positions, candidates)
        assert list(parts) == ["sequence", "text", "bias"]
        assert all(part.shape == whole.shape and part.abs().max() > 0.01 for part in parts.values())
        assert torch.allclose(sum(parts.values()), whole, atol=1e-5)


def test_score_is_the_formula_of_the_module(items):
    """<sequence_gain * head(state) + text_gain * profile, vector> + bias, one item after one event."""
    ranker = learned()
    with torch.no_grad():
        states = ranker.decoder(inputs_embeds=ranker.item_input(ranker.vectors[items])).last_hidden_state[1, 4]
        profile = ranker.text(ranker.vectors[items])[1, 4]
        wanted = ranker.sequence_gain.weight * (ranker.head.weight @ states) + ranker.text_gain.weight * profile
        expected = wanted @ ranker.vectors[11] + ranker.bias[11]
    assert scores(ranker, items)[1, 4, 11] == pytest.approx(float(expected), abs=1e-4)


def test_candidates_get_the_score_that_the_whole_catalogue_gives_them(items):
    ranker = learned()
    positions = torch.arange(HISTORY).expand(3, -1)
    candidates = torch.tensor([3, 3, 38])
    with torch.no_grad():
        whole = ranker(items, positions)
        some = ranker(items, positions, candidates)
    assert torch.allclose(some, whole[..., candidates], atol=1e-5)


def test_padding_never_changes_the_score_after_a_real_event(items):
    ranker = learned()
    alone = scores(ranker, items[:, :4])
    for filler in (0, 17):
        padded = torch.cat([items[:, :4], torch.full((3, 2), filler)], dim=1)
        assert torch.allclose(scores(ranker, padded)[:, :4], alone, atol=1e-5)


def test_a_person_scores_the_same_beside_others(items):
    ranker = learned()
    assert torch.allclose(scores(ranker, items)[1:2], scores(ranker, items[1:2]), atol=1e-5)


def test_a_later_event_never_changes_an_earlier_score_but_does_its_own(items):
    ranker = learned()
    changed = items.clone()
    changed[:, 3] = (changed[:, 3] + 1) % ITEMS
    before, after = scores(ranker, items), scores(ranker, changed)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-5)
    assert ((before - after)[:, 3].abs().amax(dim=-1) > 0.01).all()


def test_decoder_that_looks_ahead_is_refused():
    bert = {"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 1}
    with pytest.raises(ConfigError, match="decoder 'bert': a later event changes an earlier state; not causal"):
        untrained(decoder=bert | {"pad_token_id": None})


def test_frozen_ranker_trains_nothing_and_drops_nothing(items):
    ranker = learned()
    ranker.freeze()
    ranker.train()
    assert not any(p.requires_grad for p in ranker.parameters())
    assert torch.equal(scores(ranker, items), scores(ranker, items))
    assert torch.allclose(scores(ranker, items), scores(ranker.eval(), items), atol=1e-6)


def test_dropout_acts_while_pretraining(items):
    ranker = learned().train()
    assert not torch.allclose(scores(ranker, items), scores(ranker, items), atol=1e-2)


def test_the_item_table_is_not_part_of_what_is_learned():
    ranker = untrained()
    assert ranker.items == ITEMS
    assert "vectors" not in ranker.state_dict()
    assert ranker_spec() == ranker.spec


def test_latest_events_give_the_score_after_the_last_one():
    items, last = latest_events(PEOPLE, EVERYONE, history=HISTORY)
    ranker = learned()
    with torch.no_grad():
        ours = ranker(items, last)[:, 0]
    for person in EVERYONE:
        recent = torch.from_numpy(PEOPLE.of(person)[-HISTORY:].astype(np.int64))
        assert torch.allclose(ours[person], scores(ranker, recent[None])[0, -1], atol=1e-5)
