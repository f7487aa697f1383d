import numpy as np
import pytest
import torch

from fedrec.data.histories import Histories
from fedrec.model.losses import person_losses
from fedrec.model.pretraining import pretrain
from fedrec.model.ranker import Ranker
from fedrec.model.windows import padded
from tests.tiny_ranker import HISTORY, ITEMS, untrained

PANEL = Histories.from_lists([[(start + 3 * n) % ITEMS for n in range(2 + start % 9)] for start in range(30)])


def _pretrain(ranker: Ranker, panel: Histories = PANEL, **changes) -> None:
    how = {"epochs": 4, "learning_rate": 1e-2, "weight_decay": 0.1, "batch_people": 8, "mask_last": True, "seed": 0}
    pretrain(ranker, panel, **(how | changes))


def _loss(ranker: Ranker) -> float:
    windows = padded([PANEL.of(person)[-HISTORY - 1 :] for person in range(len(PANEL))])
    with torch.no_grad():
        return float(person_losses(ranker.eval(), windows, mask_last=True).mean())


def _same(one: Ranker, other: Ranker) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_pretraining_lowers_the_loss_and_tells_each_epoch():
    ranker, told = untrained(), []
    before = _loss(ranker)
    _pretrain(ranker, on_epoch=lambda epoch, loss: told.append((epoch, loss)))
    assert _loss(ranker) < before - 0.5
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4]
    assert told[-1][1] < told[0][1]
    assert not ranker.training


def test_few_negatives_stand_for_the_catalogue_and_all_of_them_are_the_catalogue():
    full, all_items, few = untrained(), untrained(), untrained()
    before, by_all, by_few = _loss(few), [], []
    _pretrain(full, on_epoch=lambda _, loss: by_all.append(loss))
    _pretrain(all_items, negatives=ITEMS)
    _pretrain(few, negatives=10, on_epoch=lambda _, loss: by_few.append(loss))
    assert _same(full, all_items)
    assert not _same(full, few)
    assert _loss(few) < before - 0.5
    assert by_few[0] == pytest.approx(by_all[0], abs=0.5)  # the whole catalogue's loss; ten items' is log 4 less


def test_every_part_of_the_base_learns():
    ranker, start = untrained(), untrained()
    _pretrain(ranker)
    unread = {"decoder.embed_tokens.weight"}  # inputs come as vectors
    for (name, after), before in zip(ranker.named_parameters(), start.parameters(), strict=True):
        assert torch.equal(after, before) == (name in unread), name


def test_pretraining_depends_on_the_seed_alone_and_torchs_own_numbers_are_left_alone():
    rankers = [untrained() for _ in range(3)]
    for draws, (ranker, seed) in enumerate(zip(rankers, (0, 0, 1), strict=True)):
        torch.manual_seed(draws)
        np.random.seed(draws)
        before = torch.random.get_rng_state()
        _pretrain(ranker, seed=seed, epochs=2)
        assert torch.equal(before, torch.random.get_rng_state())
    assert _same(rankers[0], rankers[1])
    assert not _same(rankers[0], rankers[2])


@pytest.mark.parametrize(
    ("panel", "epochs"),
    [(PANEL, 0), (Histories.from_lists([]), 3), (Histories.from_lists([[1], [], [2]]), 3)],
    ids=["no epochs", "no people", "nobody with two events"],
)
def test_nothing_to_learn_from_leaves_the_frozen_text_ranker_as_it_is(panel, epochs):
    ranker = untrained()
    _pretrain(ranker, panel, epochs=epochs)
    assert _same(ranker, untrained())


def test_people_with_one_event_change_nothing():
    with_them, without = untrained(), untrained()
    rows = [PANEL.of(person).tolist() for person in range(len(PANEL))]
    _pretrain(with_them, Histories.from_lists([[5], *rows, []]), epochs=1)
    _pretrain(without, epochs=1)
    assert _same(with_them, without)


def test_every_event_weighs_the_same_however_long_its_window(monkeypatch):
    """One batch: the loss told is the mean over events, not over windows."""
    told = []
    panel = Histories.from_lists([[0, 1], [2, 3, 4, 5, 6, 7]])
    ranker = untrained(dropout=0.0)
    windows = padded([panel.of(0), panel.of(1)])
    with torch.no_grad():
        short, long = person_losses(ranker, windows, mask_last=True).tolist()
    _pretrain(ranker, panel, epochs=1, on_epoch=lambda epoch, loss: told.append(loss))
    assert told == [pytest.approx((short + 5 * long) / 6, abs=1e-5)]
