import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedrec.errors import PrivacyError
from fedrec.privacy import clipping
from fedrec.privacy.clipping import CLIPPINGS, clip_sum

NASTY = [0.0, -0.0, 5e-324, 1e-310, 1e-45, 1e-30, -1e30, 3e38, 1e300, -1e308, math.inf, -math.inf, math.nan]
entries = st.one_of(st.floats(-2.0, 2.0), st.sampled_from(NASTY), st.floats(width=64))
clip_norms = st.one_of(st.sampled_from([1e-30, 1e-3, 1.0, 1e30]), st.floats(1e-12, 1e12))


def rows(width: int) -> st.SearchStrategy[list[float]]:
    return st.lists(entries, min_size=width, max_size=width)


def norm(vector: Tensor) -> float:
    return math.hypot(*vector.double().tolist())


@given(
    row=rows(4),
    clip_norm=clip_norms,
    kind=st.sampled_from(CLIPPINGS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_one_person_never_contributes_more_than_clip_norm(row, clip_norm, kind, dtype):
    result = clip_sum(torch.tensor([row], dtype=torch.float64).to(dtype), clip_norm, kind)
    assert result.dtype == torch.float64
    assert torch.isfinite(result).all()
    assert norm(result) <= clip_norm


@given(
    people=st.lists(rows(3), min_size=1, max_size=6), clip_norm=st.floats(1e-6, 1e6), kind=st.sampled_from(CLIPPINGS)
)
def test_adding_or_removing_one_person_moves_the_sum_by_at_most_clip_norm(people, clip_norm, kind):
    everyone = torch.tensor(people, dtype=torch.float64)
    difference = clip_sum(everyone, clip_norm, kind) - clip_sum(everyone[1:], clip_norm, kind)
    assert norm(difference) <= clip_norm * (1 + 1e-6)


@given(people=st.lists(rows(3), min_size=2, max_size=6), kind=st.sampled_from(CLIPPINGS))
def test_the_order_of_people_does_not_matter(people, kind):
    everyone = torch.tensor(people, dtype=torch.float64)
    assert torch.allclose(clip_sum(everyone, 1.0, kind), clip_sum(everyone.flip(0), 1.0, kind), rtol=0, atol=1e-12)


def test_flat_clipping_by_hand():
    gradients = torch.tensor([[3.0, 4.0], [0.3, 0.4]])  # norms 5 and 0.5
    assert clip_sum(gradients, 1.0, "flat").tolist() == pytest.approx([0.6 + 0.3, 0.8 + 0.4], rel=1e-7)


def test_many_small_entries_make_a_long_gradient():
    assert clip_sum(torch.full((1, 4), 0.9), 1.0, "flat").tolist() == pytest.approx([0.5] * 4, rel=1e-6)


def test_auto_s_clipping_by_hand():
    gradients = torch.tensor([[3.0, 4.0], [0.03, 0.04]], dtype=torch.float64)  # norms 5 and 0.05
    first, second = 2.0 / 5.01, 2.0 / 0.06
    expected = [3 * first + 0.03 * second, 4 * first + 0.04 * second]
    assert clip_sum(gradients, 2.0, "auto-s").tolist() == pytest.approx(expected, rel=1e-8)


def test_a_short_flat_gradient_is_untouched():
    gradient = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.float64)
    assert torch.equal(clip_sum(gradient, 1.0, "flat"), gradient[0])


@pytest.mark.parametrize("kind", CLIPPINGS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_person_who_is_not_finite_counts_as_zero_and_spoils_nobody(kind, bad):
    good = torch.tensor([[0.6, 0.8]])
    spoiled = torch.cat([good, torch.tensor([[1.0, bad]])])
    assert torch.equal(clip_sum(spoiled, 1.0, kind), clip_sum(good, 1.0, kind))


@pytest.mark.parametrize("kind", CLIPPINGS)
def test_a_zero_gradient_stays_zero_and_a_huge_one_keeps_its_direction(kind):
    assert clip_sum(torch.zeros(3, 2), 1.0, kind).tolist() == [0.0, 0.0]
    huge = clip_sum(torch.tensor([[3e38, 3e38]]), 1.0, kind)  # squares overflow float32
    assert huge.tolist() == pytest.approx([math.sqrt(0.5)] * 2, rel=1e-6)


def test_a_tiny_gradient_keeps_its_direction_under_auto_s():
    tiny = torch.tensor([[3e-200, 4e-200]], dtype=torch.float64)  # squares vanish in float64
    assert clip_sum(tiny, 1.0, "auto-s").tolist() == pytest.approx([3e-198, 4e-198], rel=1e-6)


@pytest.mark.parametrize("kind", CLIPPINGS)
def test_blocks_give_the_same_sum(kind, monkeypatch):
    gradients = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    whole = clip_sum(gradients, 1.0, kind)
    monkeypatch.setattr(clipping, "_BLOCK_ELEMENTS", 20)
    assert torch.allclose(clip_sum(gradients, 1.0, kind), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", CLIPPINGS)
def test_nobody_and_nothing_give_zeros(kind):
    assert clip_sum(torch.zeros(0, 3), 1.0, kind).tolist() == [0.0, 0.0, 0.0]
    assert clip_sum(torch.zeros(3, 0), 1.0, kind).tolist() == []


def test_the_arguments_are_left_as_they_were():
    gradients = torch.tensor([[30.0, math.nan], [30.0, 40.0]])
    before = gradients.clone()
    clip_sum(gradients, 1.0, "flat")
    assert torch.equal(gradients, before) or torch.equal(gradients.isnan(), before.isnan())
    assert gradients[1].tolist() == [30.0, 40.0]


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, math.nan, math.inf])
def test_a_clip_norm_that_bounds_nothing_is_refused(clip_norm):
    with pytest.raises(PrivacyError, match=r"clip_norm=.*: expected a finite number > 0; set privacy.clip_norm"):
        clip_sum(torch.zeros(1, 1), clip_norm, "flat")


def test_an_unknown_kind_is_refused():
    with pytest.raises(PrivacyError, match=r"clipping='ghost': expected one of flat, auto-s; set"):
        clip_sum(torch.zeros(1, 1), 1.0, "ghost")


@pytest.mark.parametrize("gradients", [torch.zeros(3), torch.zeros(1, 2, 3), torch.zeros(2, 2, dtype=torch.int64)])
def test_anything_but_one_row_a_person_is_refused(gradients):
    with pytest.raises(
        PrivacyError, match=r"gradients of shape .*: expected \(B, P\), one floating-point row a person"
    ):
        clip_sum(gradients, 1.0, "flat")
