"""What a merchant may do for itself with no privacy cost: fine-tune on its own people, and keep the result.

Nothing here is clipped or noised, so nothing here may leave the merchant's machine.
"""

from dataclasses import dataclass

import numpy as np
import torch

from clients.training import PEOPLE_AT_A_TIME, LocalTraining, step_losses
from fedrec.data.histories import Histories
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays, trainable_parameters
from fedrec.model.ranker import Ranker
from fedrec.schema import Arrays


@dataclass(frozen=True)
class FineTuning:
    """Local training without privacy; chosen on the public panel.

    Attributes:
        steps: passes over the merchant's people, >= 0.
        learning_rate: Adam step size.
    """

    steps: int
    learning_rate: float


def fine_tune(
    ranker: Ranker,
    start: Arrays,
    histories: Histories,
    *,
    tuning: FineTuning,
    training: LocalTraining,
) -> Arrays:
    """Adapt the shared adapter to one merchant's people; returns arrays that stay with the merchant."""
    load_adapter_arrays(ranker, start)
    people = np.flatnonzero(histories.lengths > 1)
    if not len(people):
        return start
    ranker.train()
    optimizer = torch.optim.Adam(trainable_parameters(ranker).values(), lr=tuning.learning_rate)
    for step in range(tuning.steps):
        optimizer.zero_grad()
        for chunk in np.array_split(people, -(-len(people) // PEOPLE_AT_A_TIME)):
            losses = step_losses(ranker, histories, chunk, step=step, training=training)
            (losses.sum() / len(people)).backward()
        optimizer.step()
    return adapter_arrays(ranker)
