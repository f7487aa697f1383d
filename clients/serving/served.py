"""What is being served: a model, search over its items and the merchant's memory; replaced as one, or not at all."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clients.memory import LocalMemory
from clients.serving.approximate import ApproximateIndex, approximate_index
from clients.serving.elastic import words_backend
from clients.serving.encoding import dense_index
from clients.serving.fulltext import FullTextIndex
from clients.serving.memory_of_store import memory_of
from clients.serving.model import ServedModel, load_model
from clients.serving.scoring import score_parts, shared_parts
from clients.serving.search import Searcher
from clients.serving.store import EventStore
from fedrec.config import Config
from fedrec.errors import RunError
from fedrec.run_config import load_run_config


@dataclass(frozen=True, eq=False)
class Served:
    """All that a request needs, of one moment. A request takes it once and keeps it to its end.

    Attributes:
        config: of the run.
        model: of the run; public.
        searcher: over the model's items.
        memory: of this merchant's people; private. None while there is none.
        index: of a catalogue too large to compare whole, over what this memory shares; None where all is compared.
    """

    config: Config
    model: ServedModel
    searcher: Searcher
    memory: LocalMemory | None
    index: ApproximateIndex | None = None

    @property
    def statement(self) -> str:
        """What was promised to the people whom ranker and search learned from, in words."""
        learned = self.searcher.learned
        return self.model.statement if learned is None else f"{self.model.statement} Search: {learned.privacy}."

    def with_memory(self, memory: LocalMemory | None) -> "Served":
        """The same with another memory, of which nothing else is left behind."""
        if self.index is None:
            return replace(self, memory=memory)
        shared = np.sum(list(shared_parts(self.model, memory).values()), axis=0)
        return replace(self, memory=memory, index=self.index.sharing(shared))


class Current:
    """The one reference to what is served. Threads may share it."""

    def __init__(self, load: Callable[[Path], Served], store: EventStore, *, run: Path) -> None:
        """Load the first run.

        Args:
            load: a run without a memory, as ``load_served``.
            store: where the memory comes from.

        Raises:
            FedrecError: the run cannot be served, or the store cannot be read.
        """
        self._load, self._store = load, store
        self._changing = threading.Lock()  # or a memory read before somebody was forgotten could outlive the forgetting
        self.read_under: tuple[float, ...] = ()  # what people allowed just before the memory was read
        self.served = self._remembering(load(run))

    def swap(self, run: Path) -> None:
        """Load a run beside the present one, try it, and only then serve it.

        Raises:
            FedrecError: it cannot be served; the present one goes on.
        """
        loaded = self._load(run)
        with self._changing:
            self.served = self._remembering(loaded)

    def remember(self) -> None:
        """Count the memory anew: after this, who was forgotten before it was called is in it no more.

        Raises:
            RunError: the store cannot be read; there is no memory then, rather than one that may hold the forgotten.
        """
        with self._changing:
            try:
                self.served = self._remembering(self.served)
            except BaseException:
                self.served = self.served.with_memory(None)
                raise

    def _remembering(self, served: Served) -> Served:
        allowed = self._store.permissions()
        remembering = served.with_memory(memory_of(self._store, served.model, served.config))
        self.read_under = allowed
        return remembering


def load_served(
    run: Path,
    *,
    encoder: str | None,
    cache: Path,
    catalogue: Path | None = None,
    adapter: Path | None = None,
    engine: str | None = None,
) -> Served:
    """Load a run, without a memory, and try it.

    Args:
        encoder: that reads queries; the run's own when None.
        cache: folder for vectors and lists that have to be made.
        catalogue: file of the run's items, where it has moved.
        adapter: folder of what search learned, if it did.
        engine: address of a search engine of the shop's own; SQLite's when None.

    Raises:
        FedrecError: something is missing, damaged or of another run, or the scores are no numbers.
    """
    model, config = load_model(run, catalogue=catalogue), load_run_config(run / "config.toml")
    dense = dense_index(model.catalogue, config.items, named=encoder, cache=cache, adapter=adapter)
    scores = np.sum(list(score_parts(model, np.zeros(1, np.int64)).values()), axis=0)
    if not np.isfinite(scores).all():
        raise RunError(f"{run}: gives scores that are not finite; publish it again")
    index = approximate_index(model.vectors, model.bias, cache=cache)
    words = words_backend(model.catalogue, FullTextIndex.build(model.catalogue), engine=engine)
    return Served(config, model, Searcher(words, dense), memory=None, index=index)
