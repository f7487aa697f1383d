"""The floor: the same private step in a plain loop over clients, one model changed in place, and nothing else.

No message, no signature, no ledger, no policy, no check: less than this no engine can do.
"""

import numpy as np
import torch

from benchmarks.peers.pace import Pace
from benchmarks.peers.work import CLIP_NORM, LOCAL_RATE, PersonLoss, Regime, ServerSide, adapted_ranker, windows_of
from fedrec.model.adapters import trainable_parameters
from fedrec.privacy.clipping import clip_sum
from fedrec.privacy.gradients import PersonGradients

ORDER = ("items", "positions", "targets", "is_target")


def run(regime: Regime, pace: Pace, *, workers: int) -> dict:
    """Train; returns the checksum and the bytes that cross a wire for one client in a round: none."""
    del workers  # one process
    ranker = adapted_ranker(regime)
    server, loss = ServerSide(ranker, rounds=pace.total), PersonLoss(ranker)
    parameters = list(trainable_parameters(ranker).values())
    batches = [[getattr(windows, name) for name in ORDER] for windows in windows_of(regime)]
    with PersonGradients(loss) as gradients:
        for _ in range(pace.total):
            total = np.zeros_like(server.adapter)
            for batch in batches:
                direction = np.zeros_like(total)
                for _ in range(regime.local_steps):
                    place(parameters, server.adapter + LOCAL_RATE * direction)
                    rows = gradients.compute(lambda batch=batch: loss(*batch), people=regime.people)
                    direction -= clip_sum(rows, CLIP_NORM, "flat").numpy() / regime.people
                total += direction
            server.step(total / regime.clients)
            pace.after_round()
    return {"checksum": server.checksum, "bytes": 0}


def place(parameters: list[torch.nn.Parameter], values: np.ndarray) -> None:
    """Write the flat values (P,) into the parameters, in their order."""
    flat = torch.from_numpy(values.astype(np.float32))
    parts = torch.split(flat, [p.numel() for p in parameters])
    with torch.no_grad():
        torch._foreach_copy_(parameters, [part.view_as(p) for part, p in zip(parts, parameters, strict=True)])
