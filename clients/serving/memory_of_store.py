"""The merchant's memory, counted from its own store of events."""

from clients.memory import LocalMemory
from clients.remembering import memory_spec
from clients.serving.model import ServedModel
from clients.serving.reading import read_histories
from clients.serving.store import EventStore
from fedrec.config import Config
from fedrec.errors import DataError


def memory_of(store: EventStore, model: ServedModel, config: Config) -> LocalMemory | None:
    """Count what people of the store did who let us.

    Args:
        config: of the model's run; how it is counted and read.

    Returns:
        Private; None while nobody has enough events of the model's items.

    Raises:
        RunError: the store cannot be read.
    """
    try:
        histories, _ = read_histories(
            store,
            model.catalogue,
            min_events=config.data.min_events,
            merge_repeats=model.merges_repeats,
            max_history=model.max_history,
        )
    except DataError:  # a new shop
        return None
    return LocalMemory.of(histories, memory_spec(config.local), items=len(model.catalogue))
