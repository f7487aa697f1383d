"""A merchant's people: from the file or the store that ``client.toml`` names to histories, on this machine alone."""

import polars as pl

from clients.serving.reading import training_events
from clients.serving.store import EventStore
from clients.settings import ClientSettings
from fedrec.data.catalogue import read_catalogue
from fedrec.data.cleaning import drop_unknown_items
from fedrec.data.events import clean_events
from fedrec.data.histories import Histories, build_histories
from fedrec.data.rules import RuleCount
from fedrec.errors import DataError, PrivacyError, RunError
from fedrec.invitation import Invitation


def read_people(
    invitation: Invitation, settings: ClientSettings, *, merge_repeats: bool, items: int
) -> tuple[Histories, tuple[RuleCount, ...]]:
    """Clean a merchant's events and cut them into histories, as the invitation says.

    Args:
        settings: name the events; of a store nobody is read who is forgotten or wants no training.
        merge_repeats: an event that repeats the item just before it does not count.
        items: that the base was made for.

    Returns:
        One row a person, sorted by ``user_id``, and what each rule of cleaning dropped.

    Raises:
        DataError: the events cannot be used, or nobody has enough of them.
        PrivacyError: the store's people are counted in another ledger.
        RunError: the invitation's catalogue is not that of its base, or the store cannot be read.
    """
    catalogue, terms = read_catalogue(invitation.catalogue, columns={}), invitation.terms
    if len(catalogue) != items:
        raise RunError(f"{invitation.catalogue}: {len(catalogue)} items, and {items} in the base; ask for a whole one")
    events, counts = _events(settings)
    known, unknown, _ = drop_unknown_items(events, catalogue)
    if known.height == 0:
        raise DataError(f"{settings.source}: not one item is in the federation's catalogue; are the item ids the same?")
    histories, _ = build_histories(
        known,
        catalogue,
        min_events=terms.min_events,
        merge_repeats=merge_repeats,
        max_history=terms.max_history,
    )
    return histories, (*counts, unknown)


def check_store(store: EventStore, settings: ClientSettings) -> None:
    """Refuse a store whose people another ledger knows: a second one would be a fresh budget.

    Raises:
        PrivacyError: as said.
    """
    _refuse_other(store.dataset(), settings)


def keep_store(settings: ClientSettings) -> None:
    """Let the store, if there is one, know its people's ledger for ever; it forgets no ledger for another.

    Raises:
        PrivacyError: another ledger knows them.
        RunError: the store cannot be written.
    """
    if settings.store is not None:
        with EventStore.open(settings.store) as store:
            _refuse_other(store.keep_dataset(settings.dataset), settings)


def _events(settings: ClientSettings) -> tuple[pl.DataFrame, list[RuleCount]]:
    """What may be trained on, as it came, and what was left out."""
    if settings.store is None:
        return clean_events(settings.source, columns=settings.columns)
    with EventStore.open(settings.store) as store:
        check_store(store, settings)
        events, withheld = training_events(store), store.withheld()
    if events.height == 0:
        raise DataError(f"{settings.store}: no event that may be used for training; fedrec store status tells why")
    return events, [RuleCount("no_training", "of a person who said no to training", withheld, events.height)]


def _refuse_other(noted: str | None, settings: ClientSettings) -> None:
    if noted not in (None, settings.dataset):
        raise PrivacyError(
            f"{settings.store}: the privacy of its people is counted in another ledger, and a second one would be a "
            "fresh budget; name theirs: fedrec join --ledger, or dataset and ledger in client.toml"
        )
