"""Making the base from public data. No privacy is spent here, so nothing private may come in."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from fedrec.data.histories import Histories
from fedrec.model.losses import person_losses
from fedrec.model.ranker import Ranker
from fedrec.model.windows import padded, tiled_windows

GRADIENT_NORM = 1.0
WARMUP_SHARE = 0.1


def pretrain(
    ranker: Ranker,
    panel: Histories,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    batch_people: int,
    mask_last: bool,
    seed: int,
    negatives: int | None = None,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Fit every parameter of the ranker to the panel's histories, in place.

    AdamW under a one-cycle learning rate; each epoch sees every event of the panel at least once.

    Args:
        panel: people who opted in as public data; those with fewer than two events teach nothing.
        epochs: 0 leaves the frozen-text ranker as it is.
        negatives: uniform items, fresh for each batch, that stand for a large catalogue in the loss; None for all.
        on_epoch: told the epoch (from 1) and its mean loss, nats.
    """
    panel = panel.subset(np.flatnonzero(panel.lengths > 1))
    if not epochs or not len(panel):
        return
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=learning_rate, weight_decay=weight_decay)
    # Offsets are random, so the number of windows differs a little from epoch to epoch: leave room.
    windows_an_epoch = sum(-(-int(length) // ranker.spec.history) + 1 for length in panel.lengths)
    schedule = _one_cycle(optimizer, learning_rate, steps=epochs * (windows_an_epoch // batch_people + 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout
        ranker.train()
        for epoch in range(epochs):
            windows = tiled_windows(panel, history=ranker.spec.history, rng=rng)
            losses = []
            for chosen in np.array_split(rng.permutation(len(windows)), len(windows) // batch_people + 1):
                batch = padded([windows[i] for i in chosen]).to(ranker.device)
                others = _drawn(rng, ranker, negatives)
                per_person = person_losses(ranker, batch, mask_last=mask_last, negatives=others)
                loss = (per_person * batch.is_target.sum(dim=1)).sum() / batch.is_target.sum()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(ranker.parameters(), GRADIENT_NORM)
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
            on_epoch(epoch + 1, float(np.mean(losses)))
    ranker.eval()


def _one_cycle(optimizer: Optimizer, learning_rate: float, *, steps: int) -> OneCycleLR:
    """Warm up, then fall to zero just after the last step."""
    return OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps + 1, pct_start=WARMUP_SHARE)


def _drawn(rng: np.random.Generator, ranker: Ranker, negatives: int | None) -> Tensor | None:
    """Different items of the catalogue, uniform; None for all of them."""
    if negatives is None or negatives >= ranker.items:
        return None
    return torch.from_numpy(rng.choice(ranker.items, negatives, replace=False)).to(ranker.device)
