"""From item ids that people type to places in the catalogue."""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np

from fedrec.data.catalogue import Catalogue
from fedrec.errors import ConfigError

_COMPARED = 20_000  # items whose ids and titles are held against a wrong one; difflib takes about a second for them
_NEAREST = 3


def positions_of(catalogue: Catalogue, item_ids: Sequence[str], *, flag: str) -> np.ndarray:
    """Return the places of items in the catalogue, (L,) int64, in the order given.

    Args:
        flag: where the ids came from, for the message.

    Raises:
        ConfigError: an id is not in the catalogue; names it, and the items that come nearest by id or title.
    """
    for item_id in item_ids:
        if item_id not in catalogue.index:
            near = _nearest(catalogue, item_id)
            known = "; did you mean " + ", ".join(near) + "?" if near else ""
            raise ConfigError(f"{flag}: item {item_id[:80]!r} is not in the catalogue{known}")
    return np.array([catalogue.index[item_id] for item_id in item_ids], dtype=np.int64)


def split_ids(catalogue: Catalogue, values: Sequence[str]) -> list[str]:
    """Split ``A,B,C`` into ids; a value that is an id as it stands, comma and all, is left whole."""
    ids: list[str] = []
    for value in values:
        ids += [value] if value in catalogue.index else [part.strip() for part in value.split(",") if part.strip()]
    return ids


def _nearest(catalogue: Catalogue, wanted: str) -> list[str]:
    """The items nearest by id, then by title, as text; each once."""
    ids, titles = catalogue.item_ids[:_COMPARED], catalogue.titles[:_COMPARED]
    item_of = {title.lower(): item_id for item_id, title in zip(reversed(ids), reversed(titles), strict=True) if title}
    id_of = {item_id.lower(): item_id for item_id in reversed(ids)}
    text = wanted[:80].lower()
    near = [id_of[match] for match in get_close_matches(text, id_of, n=_NEAREST, cutoff=0.6)]
    near += [item_of[match] for match in get_close_matches(text, item_of, n=_NEAREST, cutoff=0.5)]
    shown = list(dict.fromkeys(near))[:_NEAREST]
    return [f"{item_id} ({catalogue.titles[catalogue.index[item_id]]})" for item_id in shown]
