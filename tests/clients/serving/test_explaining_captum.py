"""A second opinion on the Transformer's share of a reason, by Captum."""

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients
from scipy.stats import spearmanr

from clients.serving.explaining import explain
from clients.serving.scoring import SEQUENCE
from tests.tiny_serving import shop_of


@pytest.fixture
def model(counted_run):
    return shop_of(counted_run.out).model


def sequence_part(model, vectors, item):
    """The Transformer's part for one item after event vectors, (B, L, K) -> (B,); written out a second time."""
    ranker = model.ranker
    hidden = ranker.decoder(inputs_embeds=ranker.item_input(vectors)).last_hidden_state[:, -1]
    return ranker.sequence_gain(ranker.head(hidden)) @ ranker.vectors[item]


def part_of_those_kept(model, history, item):
    """A function of marks (B, L): the part after the marked events alone, merged and cut as a history is."""

    def forward(marks):
        parts = []
        for row in marks:
            kept = [bought for bought, mark in zip(history, row.tolist(), strict=True) if mark]
            merged = [bought for at, bought in enumerate(kept) if at == 0 or bought != kept[at - 1]]
            window = torch.tensor(merged[-model.ranker.spec.history :], dtype=torch.long)
            vectors = model.ranker.vectors[window][None]
            parts.append(sequence_part(model, vectors, item)[0] if merged else torch.zeros(()))
        return torch.stack(parts)

    return forward


def runs_of(history):
    """The event that each position belongs to, (L,): immediate repeats are one."""
    return np.cumsum(np.diff(history, prepend=history[:1]) != 0)


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_taking_an_event_away_is_what_feature_ablation_does(model, length):
    """Ablation is removal, not a zero in its place: later events move up, and the window reaches further back."""
    rng = np.random.default_rng(length)
    for _ in range(10):
        history, item = rng.integers(0, 6 if rng.random() < 0.5 else 40, length), int(rng.integers(40))
        (found,) = explain(model, history, [item])
        feature = torch.from_numpy(runs_of(history))[None]
        ablation = FeatureAblation(part_of_those_kept(model, history.tolist(), item))
        drops = ablation.attribute(torch.ones(1, length), baselines=0.0, feature_mask=feature)[0].numpy()
        for cause in found.causes:
            assert cause.by_part[SEQUENCE] == pytest.approx(drops[cause.positions[0]], abs=1e-4)
        if length > 1:
            assert np.abs(drops).max() > 1e-3, "else there is nothing to agree about"


def test_integrated_gradients_tell_another_story_that_leans_the_same_way(model):
    """They share out what zero vectors would cost, each in its place; so ranks agree somewhat, and no more."""
    rng, agreements = np.random.default_rng(0), []
    for _ in range(60):
        history, item = rng.permutation(40)[:8], int(rng.integers(40))
        (found,) = explain(model, history, [item])
        ours = [cause.by_part[SEQUENCE] for cause in sorted(found.causes, key=lambda cause: cause.positions)]
        vectors = model.ranker.vectors[torch.from_numpy(history)][None].clone()
        gradients = IntegratedGradients(lambda given, item=item: sequence_part(model, given, item))
        shares = gradients.attribute(vectors, n_steps=64).sum(dim=-1)[0].detach().numpy()
        whole = sequence_part(model, torch.cat([vectors, torch.zeros_like(vectors)]), item).detach()
        assert shares.sum() == pytest.approx(float(whole[0] - whole[1]), abs=0.05), "shares of the whole difference"
        agreements.append(spearmanr(ours, shares).statistic)
    assert 0.3 < np.mean(agreements) < 0.95  # .62 measured, one standard error .04
