import pytest
import torch
from torch import Tensor, nn

from fedrec.errors import PrivacyError
from fedrec.model.parts import Gain
from fedrec.privacy import rules
from fedrec.privacy.selfcheck import verify_person_gradients

DIFFERS = "a person's gradient in a batch differs from the person alone"
CHANGES = "a person's loss changes with the batch"


@pytest.fixture
def head() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


@pytest.fixture
def people() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(2))


def test_a_proper_ranker_passes_and_is_left_as_it_was(small):
    before = {key: value.clone() for key, value in small.model.state_dict().items()}
    verify_person_gradients(small.model, small.losses_of, people=6)
    assert all(torch.equal(before[key], value) for key, value in small.model.state_dict().items())
    assert all(p.grad is None for p in small.model.parameters())


def test_a_fresh_lora_is_not_waved_through_because_its_gradients_are_zero(people, monkeypatch):
    """With B zero the gradient of A is zero both ways: only the nudge shows that A's rule is wrong."""

    class Wrong(nn.Linear):
        pass

    def half(module, inputs, slope):
        return {"weight": torch.einsum("ni,nj->nij", slope, inputs) / 2}

    monkeypatch.setitem(rules._RULES, Wrong, half)
    down, up = Wrong(4, 2, bias=False), nn.Linear(2, 4, bias=False)
    nn.init.zeros_(up.weight)
    model = nn.Sequential(down, up)
    with pytest.raises(PrivacyError, match=f"0.weight: {DIFFERS}"):
        verify_person_gradients(model, lambda rows: (model(people[rows]) + 1).square().sum(1), people=5)


def test_in_batch_negatives_are_caught(head, people):
    def losses_of(rows: Tensor) -> Tensor:
        scores = head(people[rows]) @ people[rows].T  # other people's vectors as negatives
        return nn.functional.cross_entropy(scores, torch.arange(len(rows)), reduction="none")

    with pytest.raises(PrivacyError, match=CHANGES):
        verify_person_gradients(head, losses_of, people=5)


def test_coupling_that_leaves_every_loss_alone_is_caught_in_the_gradient(head, people):
    """The loss of each person is unchanged to the last bit, its gradient is not."""

    def losses_of(rows: Tensor) -> Tensor:
        own = head(people[rows]).square().sum(dim=1)
        weight = own.detach().mean()  # the whole batch weighs each person's gradient
        return own.detach() + weight * (own - own.detach())

    with pytest.raises(PrivacyError, match=DIFFERS):
        verify_person_gradients(head, losses_of, people=5)


def test_batch_norm_is_caught(people):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(PrivacyError, match="1: BatchNorm1d mixes people"):
        verify_person_gradients(model, lambda rows: model(people[rows]).square().sum(1), people=5)


def test_home_made_batch_statistics_are_caught(head, people):
    def losses_of(rows: Tensor) -> Tensor:
        states = head(people[rows])
        return (states - states.mean(dim=0)).square().sum(dim=1)

    with pytest.raises(PrivacyError, match=CHANGES):
        verify_person_gradients(head, losses_of, people=5)


def test_a_tied_table_is_caught(head, people):
    """The same weight through its module and by hand: hooks see only half of the gradient."""

    def losses_of(rows: Tensor) -> Tensor:
        return (head(people[rows]) @ head[1].weight.T).square().sum(dim=1)

    with pytest.raises(PrivacyError, match=rf"1\.weight: {DIFFERS}"):
        verify_person_gradients(head, losses_of, people=5)


def test_a_layer_over_the_catalogue_is_caught_even_when_its_rows_match_the_people(head, people):
    """Four catalogue items, four people: hooks cannot tell the two axes apart."""
    items = torch.randn(4, 4)

    def losses_of(rows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(head[0](people[rows]) @ head[1](items).T, rows % 4, reduction="none")

    with pytest.raises(PrivacyError, match=rf"1\.weight: {DIFFERS}"):
        verify_person_gradients(head, losses_of, people=4)


@pytest.mark.parametrize("small", ["rules"], indirect=True)
def test_a_wrong_rule_on_a_single_small_weight_is_caught(small, monkeypatch):
    def slightly_wrong(module, inputs, slope):
        return {name: 1.001 * rows for name, rows in rules.gain_rule(module, inputs, slope).items()}

    monkeypatch.setitem(rules._RULES, Gain, slightly_wrong)
    with pytest.raises(PrivacyError, match=f"model.gain.*: {DIFFERS}"):
        verify_person_gradients(small.model, small.losses_of, people=6)


def test_fresh_randomness_is_caught(head, people):
    dropout = nn.Dropout(0.5)
    with pytest.raises(PrivacyError, match=r"changes with the batch.*no fresh randomness"):
        verify_person_gradients(head, lambda rows: dropout(head(people[rows])).square().sum(1), people=5)


def test_a_check_that_proves_nothing_is_refused(head, people):
    def infinite_slope(rows: Tensor) -> Tensor:
        return (0 * head(people[rows]).sum(1)).abs().sqrt()

    for losses_of in (lambda rows: 0 * head(people[rows]).sum(1), infinite_slope):
        with pytest.raises(PrivacyError, match="gradients are zero or not finite: the check proves nothing"):
            verify_person_gradients(head, losses_of, people=5)


def test_one_person_cannot_show_coupling(head):
    with pytest.raises(PrivacyError, match="people=1: expected at least 2 to see whether people are coupled"):
        verify_person_gradients(head, lambda rows: rows.float(), people=1)


def test_the_model_is_restored_after_a_refusal(head, people):
    before = [p.detach().clone() for p in head.parameters()]
    with pytest.raises(PrivacyError, match="losses of shape"):
        verify_person_gradients(head, lambda rows: head(people[rows]).sum(), people=5)
    assert all(torch.equal(a, b) for a, b in zip(before, head.parameters(), strict=True))


def test_a_person_without_own_parameters_is_refused(head, people):
    def losses_of(rows: Tensor) -> Tensor:
        return head(people[rows]).sum(1) if len(rows) > 1 else torch.zeros(1)

    with pytest.raises(PrivacyError, match="a person's loss alone depends on no trainable parameter"):
        verify_person_gradients(head, losses_of, people=5)
