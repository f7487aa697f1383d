"""Everything that a ranker could have been instead, measured on the same people."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clients.opening import local_training
from clients.personal import FineTuning
from clients.remembering import memory_spec
from clients.training import step_losses
from fedrec.agreement import Agreement, agreed_counting, agreed_ranker
from fedrec.config import Config
from fedrec.evaluation import baselines
from fedrec.evaluation.masking import masking_of, masking_of_targets
from fedrec.evaluation.protocol import Evaluation
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays, schema_of, trainable_parameters
from fedrec.model.counting import person_statistics
from fedrec.model.pairs import PairPart, PublicPairs
from fedrec.model.popularity import popularity_shares
from fedrec.model.ranker import Ranker
from fedrec.report.progress import Progress
from fedrec.runfolder import STATISTICS
from fedrec.schema import Arrays, parameters_of, unflatten
from server.census import Counts
from server.job import reading_of
from server.panel import load_judge
from server.statistics import weighed_pairs
from server.strategy import ServerState
from simulations.prepare import People
from simulations.rows import MerchantScorer, Table, fine_tuned, ranker_scorer, streamed_scorer

REFERENCE = "reference-no-noise"  # the run without noise, inside the run's own folder
LARGE_CATALOGUE = 65_536  # items; above, a row of scores is never made where it can be avoided
CENTRAL_EPOCHS = 5
CENTRAL_BATCH = 128
CENTRAL_RATE = 3e-3

Row = Callable[[], Evaluation]


@dataclass(frozen=True, eq=False)
class Results:
    """Evaluations by row name, person by person, in one order of people.

    Attributes:
        rows: over the people of the federation.
        trainable_parameters: of the adapter.
        seconds: that measuring took.
        held_out: over the people of the merchants that took no part; empty where all did.
    """

    rows: dict[str, Evaluation]
    trainable_parameters: int
    seconds: float
    held_out: dict[str, Evaluation]


class _Contenders:
    """The rankers of a run, built on one resident model, at the merchants of the federation or at those held out."""

    def __init__(
        self, config: Config, run: Path, people: People, agreement: Agreement, *, held_out: bool = False
    ) -> None:
        self._config, self._run, self._people, self._agreement = config, run, people, agreement
        self._train = people.split.train
        self._clients = people.partition.held_out if held_out else people.partition.clients
        self.table = Table(people, masking_of_targets(config.data), self._clients)
        self.ranker = agreed_ranker(agreement, run)
        self._pairs = [PublicPairs.load(run / "base").part()]
        self.base = adapter_arrays(self.ranker)
        self.schema = schema_of(self.ranker)

    def frozen_text(self) -> Evaluation:
        model = self._config.model
        return self.table.judge(
            baselines.frozen_text(
                self._train, self.ranker.vectors.numpy(), window=model.text_window, decay=model.text_decay
            )
        )

    def alone(self, adapter: Arrays, counted: Sequence[PairPart] = ()) -> Evaluation:
        """One adapter, the public pairs and those that were counted for everybody, merchant-local parts off."""
        load_adapter_arrays(self.ranker, adapter)
        scorer = streamed_scorer if self.ranker.items > LARGE_CATALOGUE else ranker_scorer
        return self.table.judge(scorer(self.ranker, self._train, parts=[*self._pairs, *counted]))

    def at_merchants(self, adapter: Arrays, counted: Sequence[PairPart] = ()) -> Evaluation:
        """The adapter as each merchant would deploy it: fine-tuned on its own people, its own memory on top."""
        local = self._config.local
        adapters = fine_tuned(
            self.ranker,
            adapter,
            self._train,
            self._clients,
            tuning=FineTuning(local.tuning_steps, local.tuning_rate),
            training=local_training(self._agreement),
        )
        panel = self._train.subset(self._people.partition.panel)
        prior = popularity_shares(panel, items=self.ranker.items, half_life_days=local.popular_half_life_days)
        return self.table.judge(
            MerchantScorer(
                self.ranker,
                self._train,
                self._clients,
                adapters=adapters,
                memory=memory_spec(local),
                prior=prior,
                parts=[*self._pairs, *counted],
            )
        )

    def deployable(self, private: Arrays, counted: Sequence[PairPart]) -> dict[str, Row]:
        """What a merchant could have of the base and of the federation, without and with its local part."""
        return {
            "base": lambda: self.alone(self.base),
            "local_only": lambda: self.at_merchants(self.base),
            "shared": lambda: self.alone(private, counted),
            "federated": lambda: self.at_merchants(private, counted),
        }

    def centralized(self) -> Evaluation:
        """The adapter trained on everybody's pooled histories, and their exact counts, without privacy."""
        load_adapter_arrays(self.ranker, self.base)
        _train_pooled(self.ranker, self._people, self._agreement)
        trained = adapter_arrays(self.ranker)
        return self.alone(trained, self._counted_exactly(trained))

    def _counted_exactly(self, adapter: Arrays) -> list[PairPart]:
        """What a federation whose noise is zero would count, weighed beside an adapter."""
        counting = agreed_counting(self._agreement, self._run)
        if counting is None:
            return []
        totals = np.zeros(parameters_of(counting.schema))
        for places, values in person_statistics(self._train.subset(self._people.private), counting):
            totals[places] += values
        judge = load_judge(self._run, self._agreement, masking=masking_of(self._config.data))
        counts = Counts(totals, noise_std=0.0, replies=len(self._clients))
        return [weighed_pairs(counts, reading_of(self._config, counting, judge), adapter=adapter).part()]


def measure_rows(
    config: Config,
    run: Path,
    people: People,
    agreement: Agreement,
    state: ServerState,
    *,
    unprotected: ServerState | None,
    progress: Progress,
    only: Collection[str] | None = None,
) -> Results:
    """Measure the rows of the table, or some ``only``; ``unprotected`` adds the references of ``--compare``."""
    contenders = _Contenders(config, run, people, agreement)
    train, items = people.split.train, len(people.catalogue)
    judge = contenders.table.judge
    private, counted = unflatten(state.best, contenders.schema), counted_parts(run)
    rows: dict[str, Row] = {
        "popularity": lambda: judge(baselines.popularity(train, items=items)),
        "repeat": lambda: judge(baselines.repeat(train, items=items)),
        "markov_knn": lambda: judge(baselines.markov_knn(train, items=items)),
        "frozen_text": contenders.frozen_text,
        **contenders.deployable(private, counted),
    }
    if unprotected is not None:
        bare, exact = unflatten(unprotected.best, contenders.schema), counted_parts(run / REFERENCE)
        rows |= {
            "shared_no_noise": lambda: contenders.alone(bare, exact),
            "federated_no_noise": lambda: contenders.at_merchants(bare, exact),
            "centralized": contenders.centralized,
        }
    rows = {name: row for name, row in rows.items() if only is None or name in only}
    started = time.perf_counter()
    measured, apart = _measured("evaluation", rows, progress), {}
    if people.partition.held_out:
        outside = _Contenders(config, run, people, agreement, held_out=True)
        apart = _measured("evaluation at merchants held out", outside.deployable(private, counted), progress)
    return Results(measured, parameters_of(contenders.schema), time.perf_counter() - started, apart)


def _measured(title: str, rows: dict[str, Row], progress: Progress) -> dict[str, Evaluation]:
    """Measure each row, one after the other."""
    measured = {}
    with progress.stage(title, total=len(rows)) as stage:
        for name, row in rows.items():
            measured[name] = row()
            stage.advance(text=f"{name} NDCG@10 {measured[name].means()['ndcg@10']:.4f}")
    return measured


def counted_parts(run: Path) -> list[PairPart]:
    """What the clients of a run counted, as it was published; nothing where they counted nothing."""
    return [PublicPairs.load(run, file=STATISTICS).part()] if (run / STATISTICS).exists() else []


def _train_pooled(ranker: Ranker, people: People, agreement: Agreement) -> None:
    """Adam over everybody at a client, in place."""
    rng = np.random.default_rng(agreement.seed)
    train = people.split.train
    pooled = people.private[train.lengths[people.private] > 1]
    optimizer = torch.optim.Adam(trainable_parameters(ranker).values(), lr=CENTRAL_RATE)
    training = local_training(agreement)
    ranker.train()
    for epoch in range(CENTRAL_EPOCHS):
        for batch in np.array_split(rng.permutation(pooled), max(1, len(pooled) // CENTRAL_BATCH)):
            optimizer.zero_grad()
            step_losses(ranker, train, batch, step=epoch, training=training).mean().backward()
            optimizer.step()
