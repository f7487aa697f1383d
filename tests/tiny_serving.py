"""A tiny run's published model, a merchant's memory beside it, and people to serve."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from clients.memory import LocalMemory
from clients.remembering import memory_spec
from clients.serving.model import ServedModel, load_model
from fedrec.config import Config, load_config
from fedrec.data.histories import Histories
from simulations.prepare import People, read_people


@dataclass(frozen=True, eq=False)
class Shop:
    """One merchant of a run, its first client.

    Attributes:
        clients: people of each client of the run, as indices into ``train``.
    """

    config: Config
    model: ServedModel
    memory: LocalMemory
    train: Histories
    clients: tuple[np.ndarray, ...]

    def past(self, person: int) -> tuple[np.ndarray, np.ndarray]:
        """A person's items and their times."""
        return self.train.of(person), self.train.times(person)

    @property
    def people(self) -> list[int]:
        """Who is at this merchant."""
        return self.clients[0].tolist()


@cache
def shop_of(run: Path) -> Shop:
    """The first merchant of a finished run; its memory has every part switched on."""
    config = load_config(run / "config.toml")
    people: People = read_people(config)
    model, train, clients = load_model(run), people.split.train, people.partition.clients
    spec = memory_spec(config.local.model_copy(update={"popular_weight": 2.0, "basket_weight": 3.0}))
    return Shop(config, model, LocalMemory.of(train.subset(clients[0]), spec, items=model.ranker.items), train, clients)
