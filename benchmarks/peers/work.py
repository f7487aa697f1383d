"""The work that every contender does: one model, one set of made-up people, one private step, one server step.

All of it follows from a regime and fixed seeds, so contenders in other processes, or in another environment, do the
same work and must end at the same adapter when nobody adds noise.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from fedrec.agreeing import adapter_spec
from fedrec.config import Config, parse_config
from fedrec.data.histories import Histories
from fedrec.model.adapters import adapter_arrays, attach_adapter, load_adapter_arrays, schema_of
from fedrec.model.losses import person_losses
from fedrec.model.making import build_ranker
from fedrec.model.ranker import Ranker
from fedrec.model.windows import Windows, padded
from fedrec.schema import flatten
from server.optimizer import AdamState, ServerAdam, learning_rate_at

CLIP_NORM = 0.5
LOCAL_RATE = 1.0  # a client's update is then plainly how far its adapter has moved
SERVER_RATE = 1.5e-2


@dataclass(frozen=True)
class Regime:
    """How much of what there is to do. Public numbers.

    Attributes:
        name: as on the command line and in the table.
        clients: all of them are asked in each round.
        people: at each client; all of them take part in each step.
        local_steps: private steps of one client in one round.
        rounds: in one timed run.
        items: in the catalogue, all of which enter the loss.
        history: events of everybody, less the last, which is only predicted.
        dimensions: of the item vectors.
        width, layers: of the decoder.
        rank, targets: of the LoRA adapter.
    """

    name: str
    clients: int
    people: int
    local_steps: int
    rounds: int
    items: int
    history: int
    dimensions: int
    width: int
    layers: int
    rank: int
    targets: str

    @property
    def updates(self) -> int:
        """Client updates in one timed run."""
        return self.clients * self.rounds


REGIMES = {
    regime.name: regime
    for regime in (
        Regime("compute", 50, 16, 5, 1, 3_700, 24, 256, 64, 2, 8, "all-linear"),
        Regime("overhead", 1_000, 1, 1, 1, 200, 8, 16, 16, 1, 1, "head"),
        Regime("communication", 10, 2, 1, 2, 500, 8, 256, 512, 2, 128, "all-linear"),
        Regime("compute-quick", 5, 16, 5, 1, 3_700, 24, 256, 64, 2, 8, "all-linear"),
        Regime("overhead-quick", 200, 1, 1, 1, 200, 8, 16, 16, 1, 1, "head"),
        Regime("tiny", 3, 4, 2, 1, 30, 6, 8, 8, 1, 1, "all-linear"),
        Regime("tiny-devices", 6, 1, 1, 1, 30, 6, 8, 8, 1, 1, "head"),
    )
}


def config_of(regime: Regime, *, rounds: int, engine: str = "local", workers: int = 1, private: bool = False) -> Config:
    """The settings of a run of ``rounds`` rounds; fedrec runs by them, the others share its model and adapter."""
    model = {"width": regime.width, "layers": regime.layers, "heads": 2, "feed_forward": 2 * regime.width}
    return parse_config(
        {
            "items": {"dimensions": regime.dimensions},
            "model": model | {"history": regime.history, "full_softmax": regime.items},
            "adapter": {"rank": regime.rank, "targets": regime.targets, "norms": False},
            "partition": {"clients": regime.clients},
            "statistics": {"noise_share": 0.0},
            "privacy": {
                "enabled": private,
                "sampling_rate": 1.0,
                "clip_norm": CLIP_NORM,
                "clipping": "flat",
                "expected_people": regime.people,
            },
            "federation": {
                "rounds": rounds,
                "local_steps": regime.local_steps,
                "local_learning_rate": LOCAL_RATE,
                "server_learning_rate": SERVER_RATE,
                "warmup_rounds": 0,
                "engine": engine,
                "workers": workers,
            },
        },
        source=f"benchmark {regime.name}",
    )


def base_ranker(regime: Regime) -> Ranker:
    """A ranker with random item vectors and a random head, without an adapter."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((regime.items, regime.dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranker = build_ranker(config_of(regime, rounds=1), vectors)
    head = rng.standard_normal(tuple(ranker.head.weight.shape)).astype(np.float32)
    with torch.no_grad():
        ranker.head.weight.copy_(torch.from_numpy(head / regime.width**0.5))
    return ranker


def adapted_ranker(regime: Regime) -> Ranker:
    """The same with the adapter that learns, in training mode.

    All of the adapter is random. A fresh LoRA is half zeros, whose partners then get no gradient; Adam would turn
    another contender's rounding of such a zero into a whole step.
    """
    ranker, config = base_ranker(regime), config_of(regime, rounds=1)
    attach_adapter(ranker, adapter_spec(config), seed=config.seed)
    rng = np.random.default_rng(3)
    drawn = {spec.name: 0.1 * rng.standard_normal(spec.shape).astype(np.float32) for spec in schema_of(ranker)}
    load_adapter_arrays(ranker, drawn)
    return ranker


def made_up_people(regime: Regime) -> Histories:
    """Everybody's history, client after client; nobody takes the same item twice in a row."""
    people, events = regime.clients * regime.people, regime.history + 1
    strides = np.random.default_rng(2).integers(1, regime.items, (people, events))
    items = np.cumsum(strides, axis=1) % regime.items
    return Histories.from_lists(items.tolist())


@cache
def windows_of(regime: Regime) -> tuple[Windows, ...]:
    """What each client's people show in every step: all they have."""
    everybody = made_up_people(regime)
    each = np.arange(regime.clients * regime.people).reshape(regime.clients, regime.people)
    return tuple(padded([everybody.of(int(person)) for person in people]) for people in each)


class PersonLoss(nn.Module):
    """The ranker with its loss as its output: what Opacus and pfl expect to call."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, items: Tensor, positions: Tensor, targets: Tensor, is_target: Tensor) -> Tensor:
        """(B,), the loss of each person."""
        return person_losses(self.ranker, Windows(items, positions, targets, is_target), mask_last=True)


class ServerSide:
    """What fedrec's server does with a mean update: Adam under its schedule, in float64.

    Args:
        ranker: with the adapter from which everybody starts.
        rounds: of the whole run, as the schedule needs to know.
    """

    def __init__(self, ranker: Ranker, *, rounds: int) -> None:
        self.adapter = flatten(adapter_arrays(ranker), schema_of(ranker))  # (P,) float64
        self._rounds, self._state = rounds, AdamState.zeros(len(self.adapter))
        self.checksum: float | None = None  # of the first round, as ``checksum_of`` says

    def step(self, mean_update: np.ndarray) -> None:
        """Move the adapter by the mean of the clients' updates, (P,)."""
        rate = learning_rate_at(self._state.steps + 1, peak=SERVER_RATE, warmup_rounds=0, rounds=self._rounds)
        change, self._state = ServerAdam().step(self._state, mean_update.astype(np.float64), learning_rate=rate)
        self.adapter = self.adapter + change
        if self.checksum is None:
            self.checksum = checksum_of(self._state)


def checksum_of(state: AdamState) -> float:
    """Sum of the sizes of the first moments, after one round a tenth of the mean update; equal when contenders agree.

    After one round, and not of the adapter: Adam makes whole steps of what is only rounding in a value that hardly has
    a gradient, and from then on everybody trains another adapter.
    """
    return float(np.abs(state.first).sum())
