"""What one run is (``Federation``), where it stands (``ServerState``), and how a round's mean moves it.

Flower's own strategies weight clients by a number they claim, stop the run at one malformed reply, count from round
one and keep no state, so this one is plain functions over frozen values.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fedrec.errors import ConfigError
from fedrec.schema import AdapterSchema, Arrays, flatten
from server.admission import NormBounds
from server.averaging import Averaging
from server.census import Census, Counts
from server.measures import Measuring
from server.optimizer import AdamState, AverageState, Ema, ServerAdam, learning_rate_at

LOSS = "panel_loss"
GAIN = "panel_gain"
LEAST_GAIN = 2.5  # standard errors: of thirty rounds that only jitter one is soon one or two above the base


@dataclass(frozen=True)
class Federation:
    """Public constants of one run. Both sides could read every field.

    Attributes:
        run_id: names the run on the wire and in ledgers.
        base_digest: sha256 of the frozen base.
        agreement_digest: sha256 of the whole agreement, its privacy plan included.
        schema: names and shapes of the shared arrays.
        bounds: range of an honest update's norm.
        clients: clients expected to join, >= 1.
        clients_per_round: replies that make a round complete, 1 to ``clients``.
        rounds: >= 1.
        min_replies: share of ``clients_per_round`` that must be admitted, in (0, 1].
        learning_rate: peak of the server's step size, > 0.
        warmup_rounds: >= 0.
        ema: decay of the published average, in [0, 1).
        seed: picks which clients are asked, nothing else.
        optimizer: Adam's constants.
        measuring: what clients measure on their own people, and when; None for nothing.
        averaging: how updates become one.
        census: what clients count before the first round; None for nothing.
        over_selection: how many times ``clients_per_round`` are asked, so that a few may be late, >= 1.
        noise_sharers: how many clients' noises must add up in a sum, or it is not formed; 1 where each has it all.
    """

    run_id: str
    base_digest: str
    agreement_digest: str
    schema: AdapterSchema
    bounds: NormBounds
    clients: int
    clients_per_round: int
    rounds: int
    min_replies: float
    learning_rate: float
    warmup_rounds: int
    ema: float
    seed: int
    optimizer: ServerAdam = field(default_factory=ServerAdam)
    measuring: Measuring | None = None
    averaging: Averaging = field(default_factory=Averaging)
    census: Census | None = None
    over_selection: float = 1.0
    noise_sharers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.clients_per_round <= self.clients:
            raise ConfigError(
                f"clients_per_round={self.clients_per_round}: expected 1 to {self.clients}; "
                "set federation.clients_per_round"
            )
        if self.averaging.trim is not None and self.quorum < 3:
            raise ConfigError(
                f"a trimmed mean of {self.quorum} replies trims nothing: expected a quorum of 3 or more; raise "
                "federation.min_replies or clients_per_round, or set federation.aggregation to mean"
            )

        if self.quorum < self.noise_sharers:
            raise ConfigError(
                f"a quorum of {self.quorum} brings less than the noise that {self.noise_sharers} clients share; "
                "leave federation.min_replies out"
            )

    def digest(self) -> str:
        """Sha256 over every field: a checkpoint is continued under the same constants only."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def quorum(self) -> int:
        """Fewest admitted replies that make a round count."""
        return _share(self.min_replies, self.clients_per_round)

    @property
    def census_quorum(self) -> int:
        """Fewest admitted replies of all clients that make counts: a round's share, so no fewer than in a round."""
        return _share(self.min_replies, self.clients)

    @property
    def asked_per_round(self) -> int:
        """How many are asked, and charged, in a round, as long as there are so many."""
        return min(self.clients, _share(self.over_selection, self.clients_per_round))


@dataclass(frozen=True)
class RoundRecord:
    """One line of ``events.jsonl``: public facts of a round.

    ``measures`` are taken on the public panel, or noised by the clients (``private_``). ``quarantined`` and ``reasons``
    count every reply that was set aside or never came, those to an instruction to measure under ``metrics:``; only
    ``reasons`` counts those that were not waited for.
    """

    round_index: int
    asked: int
    admitted: int
    quarantined: int
    reasons: Mapping[str, int]
    void: bool
    seconds: float
    bytes_up: int
    measures: Mapping[str, float]
    epsilon_spent: float | None

    def to_dict(self) -> dict[str, Any]:
        """The line as written: ``round``, the counts, then each measure under its own name."""
        line = {"round": self.round_index} | {
            name: getattr(self, name)
            for name in ("asked", "admitted", "quarantined", "reasons", "void", "seconds", "bytes_up")
        }
        return line | {"reasons": dict(self.reasons)} | dict(self.measures) | {"epsilon_spent": self.epsilon_spent}

    @classmethod
    def from_dict(cls, line: Mapping[str, Any]) -> "RoundRecord":
        """Read a line back; whatever is not a field of ours is a measure."""
        own = ("asked", "admitted", "quarantined", "reasons", "void", "seconds", "bytes_up", "epsilon_spent")
        measures = {name: value for name, value in line.items() if name not in (*own, "round")}
        return cls(round_index=line["round"], measures=measures, **{name: line[name] for name in own})


@dataclass(frozen=True, eq=False)
class ServerState:
    """Everything a run needs to go on after ``round_index`` finished rounds. Vectors are (P,) float64.

    ``best`` is the published adapter of ``best_round``, the round with the lowest loss on the public panel among those
    that rank it better than the base by more than ``LEAST_GAIN``; round 0, the base, takes part.
    ``ledger_heads`` is, by node, the newest end of its ledger that it has shown; ``spent`` holds the nodes that
    answered last that their budget does not cover a round. ``counts`` is what they counted before the first one;
    None where nothing was agreed on, or too few answered.
    """

    round_index: int
    adapter: np.ndarray
    adam: AdamState
    average: AverageState
    best_round: int
    best_loss: float
    best: np.ndarray
    records: tuple[RoundRecord, ...] = ()
    ledger_heads: Mapping[int, str] = field(default_factory=dict)
    spent: frozenset[int] = frozenset()
    counts: Counts | None = None


def initial_state(initial: Arrays, schema: AdapterSchema, *, measures: Mapping[str, float]) -> ServerState:
    """The state before the first round: the base's adapter, measured on the panel (``measures`` may be empty)."""
    adapter = flatten(initial, schema)
    return ServerState(
        round_index=0,
        adapter=adapter,
        adam=AdamState.zeros(adapter.size),
        average=AverageState.zeros(adapter.size),
        best_round=0,
        best_loss=_loss(measures),
        best=adapter,
    )


def choose_clients(node_ids: Sequence[int], federation: Federation, *, round_index: int) -> list[int]:
    """Pick who is asked in a round: a uniform draw that depends on the seed and the round alone, so resume repeats it.

    Who is asked is public and claims no privacy; the noise never comes from this seed. When more are asked than are
    waited for, they come in the order of the draw: a simulation asks one after the other, and nobody is always last.
    """
    ordered = sorted(node_ids)
    if federation.asked_per_round > federation.clients_per_round:
        draw = np.random.default_rng([federation.seed, round_index])
        return [ordered[index] for index in draw.permutation(len(ordered))[: federation.asked_per_round]]
    if len(ordered) <= federation.asked_per_round:
        return ordered
    draw = np.random.default_rng([federation.seed, round_index])
    chosen = draw.choice(len(ordered), size=federation.asked_per_round, replace=False)
    return [ordered[index] for index in np.sort(chosen)]


def move(state: ServerState, mean_update: np.ndarray | None, federation: Federation) -> ServerState:
    """Apply one round's mean update, (P,) float64; None is a void round, which changes nothing but the count."""
    round_index = state.round_index + 1
    if mean_update is None:
        return replace(state, round_index=round_index)
    step_size = learning_rate_at(
        round_index,
        peak=federation.learning_rate,
        warmup_rounds=federation.warmup_rounds,
        rounds=federation.rounds,
    )
    change, adam = federation.optimizer.step(state.adam, mean_update, learning_rate=step_size)
    adapter = state.adapter + change
    return replace(
        state,
        round_index=round_index,
        adapter=adapter,
        adam=adam,
        average=Ema(federation.ema).add(state.average, adapter),
    )


def published(state: ServerState, federation: Federation) -> np.ndarray:
    """The adapter that would be published now, (P,): the average of rounds, or the base before the first."""
    return Ema(federation.ema).average(state.average) if state.average.count else state.adapter


def keep_best(state: ServerState, federation: Federation, *, measures: Mapping[str, float]) -> ServerState:
    """Keep this round's published adapter when it beats the best so far; without a panel the latest is the best.

    It has to have the lower loss and to rank the panel better than the base does, beyond chance: the loss alone also
    falls when scores only become better calibrated, which helps nobody who is shown a list.
    """
    loss = _loss(measures)
    if LOSS in measures and not (loss < state.best_loss and measures.get(GAIN, math.inf) > LEAST_GAIN):
        return state
    return replace(state, best_round=state.round_index, best_loss=loss, best=published(state, federation))


def _share(rate: float, count: int) -> int:
    """The next whole number; 1.1 times 10 is 11, though not in floating point."""
    return math.ceil(round(rate * count, 9))


def _loss(measures: Mapping[str, float]) -> float:
    """The loss that picks the best round; a missing or non-finite one never wins against a finite one."""
    loss = float(measures.get(LOSS, math.inf))
    return loss if math.isfinite(loss) else math.inf
