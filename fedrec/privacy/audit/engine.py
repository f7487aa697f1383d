"""What an auditor needs of the clients under audit; the folder ``clients`` supplies it with the code it really runs."""

from typing import Protocol

import numpy as np

from fedrec.data.histories import Histories
from fedrec.model.statistics import Counting
from fedrec.privacy.audit.tap import Tap
from fedrec.privacy.plan import PrivacyPlan
from fedrec.schema import AdapterSchema, Arrays


class Client(Protocol):
    """One client with people and a ledger of its own, new to the federation."""

    def answer(self, round_index: int) -> Arrays:
        """What leaves the client in a round, from 1."""

    def counts(self) -> Arrays:
        """What leaves the client when it is asked to count."""

    def charged_steps(self) -> int:
        """Steps that its ledger has booked."""


class Engine(Protocol):
    """A federation's clients as they really run, on made-up people."""

    @property
    def plan(self) -> PrivacyPlan:
        """What they claim."""

    @property
    def schema(self) -> AdapterSchema:
        """Names and shapes of what may leave them."""

    @property
    def items(self) -> int:
        """Items in the catalogue."""

    @property
    def counting(self) -> Counting | None:
        """What they count; None when nothing."""

    def client(self, people: Histories, tap: Tap, *, plan: PrivacyPlan | None = None) -> Client:
        """A new client, the same public settings each time, whose mechanism ``tap`` watches."""

    def gradient_alone(self, people: Histories, person: int) -> np.ndarray:
        """Gradient (P,) of one person's loss in the first step, by plain autograd and without anyone else."""

    def check_gradients(self) -> None:
        """The clients' own start-up check; raises ``PrivacyError``."""

    def frozen_digest(self) -> str:
        """Digest of all that must not change: frozen weights and buffers, bit by bit."""
