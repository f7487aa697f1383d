"""SASRec on item ids, centralised and not private: what a model of this size reaches when it may see everything.

A pre-norm causal Transformer over learned item vectors, trained by sampled softmax with uniform negatives that a batch
shares. Not part of the package: it is a row of the results table and nothing else.

Source: Kang and McAuley 2018, https://arxiv.org/abs/1808.09781; the loss as in Klenitskiy and Vasilev 2023,
https://arxiv.org/abs/2309.07602
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fedrec.data.histories import Histories
from fedrec.data.splits import leave_last_out
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.protocol import Scorer, evaluate
from fedrec.model.windows import latest_events, padded, tiled_windows

INITIAL_SPREAD = 0.02
BATCHES_SORTED_TOGETHER = 16


@dataclass(frozen=True)
class SasrecSettings:
    """Chosen by ``benchmarks/tune.py`` on everybody's last event but one.

    Attributes:
        epochs: passes over all events; where ``tune.py`` stopped.
        width: of item vectors and states, D.
        blocks: Transformer blocks.
        heads: of each block's attention.
        dropout: of inputs, attention and both halves of a block.
        length: events that the model reads, the latest.
        negatives: uniform items that a batch shares; the whole catalogue where it is not larger.
        batch: sequences in a batch.
        learning_rate: Adam's.
    """

    epochs: int
    width: int = 64
    blocks: int = 1
    heads: int = 1
    dropout: float = 0.2
    length: int = 50
    negatives: int = 1_024
    batch: int = 128
    learning_rate: float = 1e-3


class _Block(nn.Module):
    def __init__(self, settings: SasrecSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads, self.rate = settings.heads, settings.dropout
        self.before_attention, self.before_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.forward_part = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(self.rate), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(self.rate)

    def forward(self, states: Tensor) -> Tensor:
        people, length, width = states.shape
        projected = self.query_key_value(self.before_attention(states))  # (B, L, 3D)
        query, key, value = projected.view(people, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=True)
        states = states + self.dropout(self.out(mixed.transpose(1, 2).reshape(people, length, width)))
        return states + self.dropout(self.forward_part(self.before_forward(states)))


class Sasrec(nn.Module):
    """Scores every item after every event by the inner product of a state with the item's vector."""

    def __init__(self, items: int, settings: SasrecSettings) -> None:
        super().__init__()
        self.settings = settings
        self.items = nn.Embedding(items, settings.width)
        self.places = nn.Embedding(settings.length, settings.width)
        self.dropout = nn.Dropout(settings.dropout)
        self.blocks = nn.Sequential(*(_Block(settings) for _ in range(settings.blocks)))
        self.last_norm = nn.LayerNorm(settings.width)
        for table in (self.items, self.places):
            nn.init.normal_(table.weight, std=INITIAL_SPREAD)

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """States after each event, (B, L, D).

        Args:
            items: (B, L), padded at the end; a causal model never sees the padding.
            lengths: (B,), real events of each row: the last one always has the last place.
        """
        places = self.settings.length - lengths[:, None] + torch.arange(items.shape[1])
        states = self.items(items) * self.settings.width**0.5
        states = states + self.places(places.clamp(max=self.settings.length - 1))
        return self.last_norm(self.blocks(self.dropout(states)))


def fit_sasrec(
    train: Histories,
    *,
    items: int,
    settings: SasrecSettings,
    seed: int,
    on_epoch: Callable[[int, Sasrec], bool] = lambda epoch, model: True,
) -> Sasrec:
    """Train on every event of everybody.

    Args:
        on_epoch: told the epoch (from 1) and the model; training ends when it returns False.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Sasrec(items, settings)
        optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98))
        for epoch in range(1, settings.epochs + 1):
            model.train()
            for batch in _batches(train, settings, rng):
                optimizer.zero_grad()
                _loss(model, batch, rng).backward()
                optimizer.step()
            if not on_epoch(epoch, model):
                break
    return model.eval()


def best_epoch(
    train: Histories, *, items: int, settings: SasrecSettings, masking: Masking, seed: int, patience: int, judges: int
) -> tuple[int, float]:
    """Hold out everybody's last training event and find where its NDCG@10 is best.

    Args:
        settings: ``epochs`` bounds the search.
        patience: epochs without a better one after which it ends.
        judges: people measured after each epoch, at most.

    Returns:
        The epoch and its NDCG@10.
    """
    split = leave_last_out(train)
    people = np.random.default_rng(seed).permutation(np.flatnonzero(split.targets.lengths))[:judges]
    best = (0, 0.0)

    def judge(epoch: int, model: Sasrec) -> bool:
        nonlocal best
        measured = evaluate(sasrec_scorer(model, split.train), split, people=people, items=items, masking=masking)
        best = max(best, (epoch, measured.means()["ndcg@10"]), key=lambda found: found[1])
        return epoch - best[0] < patience

    fit_sasrec(split.train, items=items, settings=settings, seed=seed, on_epoch=judge)
    return best


def sasrec_scorer(model: Sasrec, histories: Histories) -> Scorer:
    """Score with a trained model; a person without a history is scored as if padding were one."""

    def score(people: np.ndarray) -> np.ndarray:
        model.eval()
        items, last = latest_events(histories, people, history=model.settings.length)
        with torch.inference_mode():
            states = model(items, last[:, 0] + 1)[torch.arange(len(people)), last[:, 0]]  # (B, D)
            return (states @ model.items.weight.T).numpy()

    return score


def _batches(train: Histories, settings: SasrecSettings, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Windows that cover every event, in batches of like length, shuffled."""
    windows = tiled_windows(train, history=settings.length, rng=rng)
    order = rng.permutation(len(windows))
    batches: list[list[np.ndarray]] = []
    for first in range(0, len(order), settings.batch * BATCHES_SORTED_TOGETHER):
        together = order[first : first + settings.batch * BATCHES_SORTED_TOGETHER]
        together = sorted(together, key=lambda index: len(windows[index]))
        batches += [
            [windows[index] for index in together[start : start + settings.batch]]
            for start in range(0, len(together), settings.batch)
        ]
    return [batches[index] for index in rng.permutation(len(batches))]


def _loss(model: Sasrec, batch: list[np.ndarray], rng: np.random.Generator) -> Tensor:
    """Mean cross-entropy of the next item against shared uniform negatives, over all events of the batch."""
    windows, items = padded(batch), model.items.num_embeddings
    states = model(windows.items, windows.is_target.sum(dim=1))[windows.is_target]  # (E, D)
    targets = windows.targets[windows.is_target]
    if items <= model.settings.negatives:
        return nn.functional.cross_entropy(states @ model.items.weight.T, targets)
    negatives = torch.from_numpy(rng.choice(items, model.settings.negatives, replace=False))
    wanted = (states * model.items(targets)).sum(dim=1, keepdim=True)  # (E, 1)
    others = states @ model.items(negatives).T  # (E, C)
    others = others.masked_fill(negatives == targets[:, None], float("-inf"))
    return nn.functional.cross_entropy(torch.cat([wanted, others], dim=1), torch.zeros_like(targets))
