"""The rows of the result table: each a scorer over the same people, judged by the same protocol."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clients.memory import LocalMemory, MemorySpec
from clients.personal import FineTuning, fine_tune
from clients.training import LocalTraining
from fedrec.data.histories import Histories
from fedrec.evaluation.masking import Masking
from fedrec.evaluation.protocol import Evaluation, Scorer, evaluate
from fedrec.evaluation.streaming import DotScorer, Wanted
from fedrec.model.adapters import load_adapter_arrays
from fedrec.model.pairs import PairPart, scores_with
from fedrec.model.ranker import Ranker
from fedrec.model.windows import latest_events
from fedrec.schema import Arrays
from simulations.prepare import People


@dataclass(frozen=True, eq=False)
class Table:
    """How every row is judged: who is asked, in whose order, and what is masked.

    Attributes:
        people: everyone, with the held-out targets.
        masking: what is not offered again.
        clients: whose people are asked.
    """

    people: People
    masking: Masking
    clients: tuple[np.ndarray, ...]

    def judge(self, scorer: Scorer | DotScorer) -> Evaluation:
        """Rank the whole catalogue for every person at a client."""
        return evaluate(
            scorer,
            self.people.split,
            people=np.concatenate(self.clients),  # in clients' order, so that a block meets few merchants
            items=len(self.people.catalogue),
            masking=self.masking,
            clients=self.clients,
        )


def streamed_scorer(ranker: Ranker, histories: Histories, *, parts: Sequence[PairPart] = ()) -> DotScorer:
    """The same as ``ranker_scorer`` without a row of scores; for catalogues of any size."""

    @torch.no_grad()
    def wanted(people: np.ndarray) -> Wanted:
        ranker.eval()
        items, last = latest_events(histories, people, history=ranker.spec.history)
        sequence, text = ranker.states(items, last)
        added = [part.after(items.numpy(), last.numpy()) for part in parts]
        return Wanted((sequence + text)[:, 0], sum(added[1:], added[0]) if added else None)

    return DotScorer(ranker.vectors, ranker.bias.detach(), wanted)


def ranker_scorer(ranker: Ranker, histories: Histories, *, parts: Sequence[PairPart] = ()) -> Scorer:
    """Score with the ranker as it stands, adapter included, and with what pairs add to it."""

    def score(people: np.ndarray) -> np.ndarray:
        ranker.eval()
        items, last = latest_events(histories, people, history=ranker.spec.history)
        return scores_with(ranker, parts, items, last)[:, 0].numpy()

    return score


class MerchantScorer:
    """Each person is scored by their own merchant: its adapter, shared pairs, and its own memory on top.

    Args:
        ranker: with an adapter; overwritten.
        histories: everyone's training events.
        clients: person indices of each merchant.
        adapters: of each merchant, in the same order.
        memory: how each merchant remembers its own people.
        prior: public popularity for the memories, (I,) shares; none when None.
        parts: what shared pairs add, at every merchant alike.
    """

    def __init__(
        self,
        ranker: Ranker,
        histories: Histories,
        clients: Sequence[np.ndarray],
        *,
        adapters: Sequence[Arrays],
        memory: MemorySpec,
        prior: np.ndarray | None = None,
        parts: Sequence[PairPart] = (),
    ) -> None:
        self._ranker, self._parts = ranker, parts
        self._histories = histories
        self._adapters = adapters
        self._memories = [
            LocalMemory.of(histories.subset(group), memory, items=ranker.items, prior=prior) for group in clients
        ]
        self._client_of = np.full(len(histories), -1)
        for number, group in enumerate(clients):
            self._client_of[group] = number

    def __call__(self, people: np.ndarray) -> np.ndarray:
        scores = np.empty((len(people), self._ranker.items), np.float32)
        clients = self._client_of[people]
        shared = ranker_scorer(self._ranker, self._histories, parts=self._parts)
        for client in np.unique(clients):
            rows = np.flatnonzero(clients == client)
            load_adapter_arrays(self._ranker, self._adapters[client])
            scores[rows] = shared(people[rows])
            for row in rows:
                person = int(people[row])
                history, times = self._histories.of(person), self._histories.times(person)
                scores[row] += self._memories[client].scores(history, times)
        return scores


def fine_tuned(
    ranker: Ranker,
    start: Arrays,
    histories: Histories,
    clients: Sequence[np.ndarray],
    *,
    tuning: FineTuning,
    training: LocalTraining,
    on_client: Callable[[], None] = lambda: None,
) -> list[Arrays]:
    """Let every merchant fine-tune ``start`` on its own people; one adapter each."""
    adapters = []
    for group in clients:
        adapters.append(fine_tune(ranker, start, histories.subset(group), tuning=tuning, training=training))
        on_client()
    return adapters
