"""Opening what was agreed on: one model for all clients of a process, tried on made-up people before real ones."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from clients.training import LocalTraining, step_losses
from fedrec.agreement import Agreement, agreed_counting, agreed_ranker, read_agreement
from fedrec.data.histories import Histories
from fedrec.model.ranker import Ranker
from fedrec.model.statistics import Counting
from fedrec.privacy.selfcheck import verify_person_gradients


def local_training(agreement: Agreement) -> LocalTraining:
    """Return the part of the agreement that shapes a person's loss."""
    return LocalTraining(agreement.mask_last, agreement.negatives, agreement.seed)


def check_person_gradients(ranker: Ranker, training: LocalTraining) -> None:
    """Refuse to train unless each person's gradient is theirs alone; tried on made-up people.

    Raises:
        PrivacyError: the loss couples people, or Opacus gets a gradient wrong.
    """
    rng, full = np.random.default_rng(0), ranker.spec.history + 1
    # The shortest and the longest window there can be: some decoders turn positions by the longest row of a batch.
    lengths = (2, 3, (3 + full) // 2, full)
    histories = Histories.from_lists([rng.integers(0, ranker.items, events).tolist() for events in lengths])
    # A made-up history may repeat an item at once, which mask_last would score minus infinity; real ones were merged.
    unmasked = replace(training, mask_last=False)
    verify_person_gradients(
        ranker,
        lambda rows: step_losses(ranker, histories, rows.numpy(), step=0, training=unmasked),
        people=len(lengths),
    )


@lru_cache(maxsize=2)
def resident(run: Path) -> tuple[Agreement, Ranker, Counting | None]:
    """Load what was agreed on, what to count included, and the one copy of the model in this process, checked.

    Args:
        run: resolved folder with ``agreement.json`` and ``base/``, of a run or an invitation.

    Raises:
        RunError: the folder holds no such thing.
        PrivacyError: per-person gradients are not what the guarantee needs.
    """
    agreement = read_agreement(run)
    ranker = agreed_ranker(agreement, run)
    check_person_gradients(ranker, local_training(agreement))
    return agreement, ranker, agreed_counting(agreement, run)
