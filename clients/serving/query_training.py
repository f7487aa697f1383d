"""Training search on a merchant's own events, for that merchant alone: no noise, and nothing leaves."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.serving.dense import DenseIndex
from clients.serving.search import mix_of
from fedrec.config_search import QueryTrainingConfig, SearchConfig
from fedrec.errors import DataError
from fedrec.evaluation.protocol import paired_difference
from fedrec.model.learned_query import LearnedQuery
from fedrec.model.query_adapter import QueryAdapter, QueryExamples, person_losses, reciprocal_ranks

BEYOND_CHANCE = 2.0  # standard errors by which training has to beat search as it is


@dataclass(frozen=True)
class Trained:
    """What training found.

    Attributes:
        learned: of the epoch that the judges liked best.
        epoch: which that was; 0 where none was better than search as it is.
        judges: people who were held out to judge.
        before: mean reciprocal rank of what they chose, by search as it is, in (0, 1].
        gain: what training adds to it, the mean of the paired differences, >= 0.
        standard_error: of ``gain``; NaN for one judge.
    """

    learned: LearnedQuery
    epoch: int
    judges: int
    before: float
    gain: float
    standard_error: float

    @property
    def is_better(self) -> bool:
        """Whether the gain is beyond chance."""
        return self.gain > BEYOND_CHANCE * self.standard_error


def new_adapter(
    dense: DenseIndex, search: SearchConfig, training: QueryTrainingConfig, *, turns: bool = True
) -> QueryAdapter:
    """An untrained adapter, with which search is what it was.

    Args:
        turns: train the turn of the query too, and not the mix alone.
    """
    words, meaning = mix_of(dense, search)
    dimension = dense.vectors.shape[1]
    adapter = QueryAdapter(dimension, rank=training.rank, words=words, meaning=meaning, seed=training.seed)
    adapter.down.requires_grad_(turns)
    adapter.up.requires_grad_(turns)
    return adapter


def train(
    adapter: QueryAdapter, examples: QueryExamples, vectors: np.ndarray, *, training: QueryTrainingConfig
) -> Trained:
    """Train in place by Adam; people who were held out judge each epoch.

    Args:
        examples: of at least two people.
        vectors: of the items, (I, E), unit rows.

    Raises:
        DataError: fewer than two people.
    """
    if len(examples) < 2:
        raise DataError("queries of one person alone: expected two people at least, one of them to judge")
    rng = np.random.default_rng(training.seed)
    shuffled = torch.from_numpy(rng.permutation(len(examples)))
    held = min(len(examples) - 1, max(1, round(training.held_out * len(examples))))
    judges, others, items = examples.of(shuffled[:held]), shuffled[held:], torch.from_numpy(vectors)
    before = _judged(adapter, judges, items, training=training)
    best, learned, found_at = before, adapter.learned(), 0
    optimizer = torch.optim.Adam(
        [
            {"params": list(adapter.mix.parameters()), "lr": training.mix_learning_rate},
            {"params": [*adapter.down.parameters(), *adapter.up.parameters()], "lr": training.turn_learning_rate},
        ]
    )
    for epoch in range(1, training.epochs + 1):
        order = torch.from_numpy(rng.permutation(len(others)))
        for batch in others[order].split(training.people_at_once):
            optimizer.zero_grad()
            losses = person_losses(adapter, items, examples.of(batch), sharpness=training.sharpness)
            losses.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        ranks = _judged(adapter, judges, items, training=training)
        if ranks.mean() > best.mean():
            best, learned, found_at = ranks, adapter.learned(), epoch
        elif epoch - found_at >= training.patience:
            break
    gain, error = paired_difference(before, best)
    return Trained(learned, found_at, held, float(before.mean()), gain, error)


def _judged(
    adapter: QueryAdapter, judges: QueryExamples, items: Tensor, *, training: QueryTrainingConfig
) -> np.ndarray:
    """Each judge's mean reciprocal rank, (N,) float64."""
    rows = torch.arange(len(judges)).split(training.people_at_once)
    return torch.cat([reciprocal_ranks(adapter, items, judges.of(batch)) for batch in rows]).double().numpy()
