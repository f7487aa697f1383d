import math

import torch

from fedrec.model.parts import Gain, TextProfile

EVENTS = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])  # (1, 3, 2)


def test_gain_scales_each_direction_and_starts_the_same_in_all():
    gain = Gain(3, 10.0)
    x = torch.tensor([[1.0, 2.0, -1.0]])
    assert torch.equal(gain(x), torch.tensor([[10.0, 20.0, -10.0]]))
    with torch.no_grad():
        gain.weight.copy_(torch.tensor([1.0, 0.0, 2.0]))
    assert torch.equal(gain(x), torch.tensor([[1.0, 0.0, -2.0]]))


def test_profile_by_hand():
    """Decay 1/2: (1,0); (1/2,1); (1+1/4, 1/2), each divided by its length."""
    profile = TextProfile(window=3, decay=0.5)(EVENTS)[0]
    expected = torch.tensor([[1.0, 0.0], [0.5, 1.0], [1.25, 0.5]])
    expected /= torch.tensor([1.0, math.sqrt(1.25), math.sqrt(1.8125)])[:, None]
    assert torch.allclose(profile, expected, atol=1e-7)


def test_profile_forgets_what_lies_outside_the_window():
    """Window 2: the third profile is (0,1)/2 + (1,0)."""
    profile = TextProfile(window=2, decay=0.5)(EVENTS)[0, 2]
    assert torch.allclose(profile, torch.tensor([1.0, 0.5]) / math.sqrt(1.25), atol=1e-7)


def test_profile_never_sees_a_later_event_and_leaves_its_argument_alone():
    events = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    kept = events.clone()
    changed = events.clone()
    changed[:, 3] = 7.0
    part = TextProfile(window=8, decay=0.4)
    assert torch.equal(part(events)[:, :3], part(changed)[:, :3])
    assert not torch.equal(part(events)[:, 3], part(changed)[:, 3])
    assert torch.equal(events, kept)


def test_profile_has_nothing_to_learn_and_an_item_without_text_gives_zeros():
    part = TextProfile(window=2, decay=0.5)
    assert not list(part.parameters())
    assert torch.equal(part(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))
