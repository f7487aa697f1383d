"""Who is a client: a deterministic cut of the people into a public panel and merchants (or devices)."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from fedrec.data.catalogue import Catalogue
from fedrec.data.tables import write_atomically
from fedrec.errors import ConfigError, DataError

BY_COLUMN = "by-column:"


@dataclass(frozen=True, eq=False)
class Partition:
    """Disjoint sets of person indices that together hold everyone.

    Attributes:
        panel: int64, sorted; people who opted in as public data, in no client.
        clients: one int64 sorted array a client, never empty.
        names: one a client.
        left_out: int64, sorted; people in neither.
        nominal_people: floor of the mean client size: a public constant, >= 1.
        scheme: as asked for.
        seed: as asked for.
        held_out: as ``clients``; merchants that take no part in the federation.
        held_out_names: one each.
    """

    panel: np.ndarray
    clients: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    left_out: np.ndarray
    nominal_people: int
    scheme: str = ""
    seed: int = 0
    held_out: tuple[np.ndarray, ...] = ()
    held_out_names: tuple[str, ...] = ()

    @property
    def everywhere(self) -> tuple[np.ndarray, ...]:
        """Who is at each merchant, whether it takes part or not."""
        return self.clients + self.held_out


def make_partition(
    scheme: str,
    *,
    people: pl.DataFrame,
    clients: int,
    people_per_client: int | None,
    panel_fraction: float,
    dirichlet_alpha: float,
    seed: int,
    held_out: int = 0,
) -> Partition:
    """Draw the panel, then deal the rest to clients. Same arguments, same result.

    Args:
        scheme: ``even``, ``dirichlet`` (sizes from a symmetric Dirichlet, each at least one person) or
            ``by-column:COLUMN`` (the values of COLUMN with most people, one client each).
        people: (N rows) with ``user_id`` and perhaps COLUMN.
        clients: how many, >= 1.
        people_per_client: cap on a client's people, >= 1; those above it are left out. None: no cap.
        panel_fraction: share of all people in the panel, in [0, 1); at least one person when > 0.
        dirichlet_alpha: > 0; smaller is more uneven.
        seed: >= 0.
        held_out: merchants dealt beside the clients, alike in all but that they take no part; which, is drawn.

    Raises:
        ConfigError: an unknown scheme.
        DataError: one person only, fewer people (or values of COLUMN) than clients, or no such column.
    """
    if people.height < 2:
        raise DataError(f"{people.height} person in the data; a federation needs at least two")
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(people.height)
    panel_size = max(1, round(panel_fraction * people.height)) if panel_fraction > 0 else 0
    panel, rest = np.sort(shuffled[:panel_size]), shuffled[panel_size:]
    groups, names = _deal(scheme, rest, people, clients=clients + held_out, alpha=dirichlet_alpha, rng=rng)
    groups = [np.sort(group[:people_per_client]) for group in groups]
    left_out = np.setdiff1d(rest, np.concatenate(groups))
    order = rng.permutation(len(groups))
    apart, inside = sorted(order[:held_out]), sorted(order[held_out:])
    return Partition(
        panel=panel,
        clients=tuple(groups[place] for place in inside),
        names=tuple(names[place] for place in inside),
        left_out=left_out,
        nominal_people=int(sum(len(groups[place]) for place in inside) // clients),
        scheme=scheme,
        seed=seed,
        held_out=tuple(groups[place] for place in apart),
        held_out_names=tuple(names[place] for place in apart),
    )


def people_by_item(events: pl.DataFrame, catalogue: Catalogue, *, scheme: str) -> pl.DataFrame:
    """Where a by-column scheme names a column of the catalogue, cut every person into one for each of its values.

    A brand sees what was bought of it and nothing else, so somebody who buys of three brands is three people, each at
    one client: the unit of protection is a person at a client all the same.

    Args:
        events: as ``read_events`` gives them; a column of that name in the events goes first, and nothing is cut.
        catalogue: holds every item.
        scheme: as for ``make_partition``.

    Returns:
        The events, in order, with the column and with ``user_id`` made of person and value; rows whose item has no
        value are left out.
    """
    column = scheme.removeprefix(BY_COLUMN)
    if not scheme.startswith(BY_COLUMN) or column in events.columns or column not in catalogue.attributes.columns:
        return events
    values = catalogue.attributes[column].cast(pl.String).str.strip_chars()
    items = pl.DataFrame({"item_id": catalogue.item_ids, column: values}).filter(pl.col(column) != "")
    placed = events.join(items, on="item_id", how="inner", maintain_order="left")
    return placed.with_columns(pl.concat_str("user_id", column, separator=" at "))


def write_manifest(partition: Partition, people: pl.DataFrame, path: Path) -> None:
    """Write who is where as JSON: counts and digests, no ids. Same partition, same bytes.

    Args:
        partition: of ``people``.
        people: (N rows) with ``user_id``, and the column of a by-column scheme.
        path: written atomically.

    Raises:
        DataError: the file cannot be written.
    """
    inside = zip(partition.names, partition.clients, strict=True)
    outside = zip(partition.held_out_names, partition.held_out, strict=True)
    manifest = {
        "scheme": partition.scheme,
        "seed": partition.seed,
        "people": people.height,
        "nominal_people": partition.nominal_people,
        "panel": _describe(partition.panel, people),
        "clients": [{"name": name, **_describe(members, people)} for name, members in inside],
        "held_out": [{"name": name, **_describe(members, people)} for name, members in outside],
        "left_out": _describe(partition.left_out, people) | {"values": _left_out_values(partition, people)},
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _deal(
    scheme: str, rest: np.ndarray, people: pl.DataFrame, *, clients: int, alpha: float, rng: np.random.Generator
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """One group of ``rest``, and a name, for each client."""
    if len(rest) < clients:
        raise DataError(
            f"{len(rest)} people beside a panel of {people.height - len(rest)} are fewer than {clients} clients; "
            "lower --clients"
        )
    if scheme == "even":
        return np.array_split(rest, clients), _numbered(clients)
    if scheme == "dirichlet":
        sizes = _dirichlet_sizes(len(rest), clients, alpha=alpha, rng=rng)
        return np.split(rest, np.cumsum(sizes)[:-1]), _numbered(clients)
    if scheme.startswith(BY_COLUMN):
        return _by_column(rest, people, column=scheme.removeprefix(BY_COLUMN), clients=clients)
    raise ConfigError(f"partition.scheme={scheme!r}: expected even, dirichlet or by-column:COLUMN")


def _numbered(clients: int) -> tuple[str, ...]:
    """client-00, client-01, ..."""
    width = len(str(clients - 1))
    return tuple(f"client-{number:0{width}d}" for number in range(clients))


def _dirichlet_sizes(people: int, clients: int, *, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """(clients,) sizes >= 1 that sum to ``people``; the largest remainders get the last places."""
    shares = rng.dirichlet(np.full(clients, alpha)) * (people - clients)
    sizes = np.floor(shares).astype(np.int64)
    last_places = np.argsort(sizes - shares, kind="stable")[: people - clients - sizes.sum()]
    sizes[last_places] += 1
    return sizes + 1


def _by_column(
    rest: np.ndarray, people: pl.DataFrame, *, column: str, clients: int
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """One client for each of the values with most people; of equals the smaller value first."""
    if column not in people.columns or column == "user_id":
        known = ", ".join(name for name in people.columns if name != "user_id") or "none"
        raise DataError(f"--partition by-column:{column}: no such column of people or items; there are: {known}")
    values = people[column].cast(pl.String).gather(rest)
    counts = values.drop_nulls().value_counts(name="people").sort(["people", column], descending=[True, False])
    if counts.height < clients:
        raise DataError(
            f"--partition by-column:{column}: {counts.height} values are fewer than {clients} clients; "
            f"lower --clients to {counts.height} or less"
        )
    names = tuple(counts[column].head(clients))
    return [rest[(values == name).fill_null(False).to_numpy()] for name in names], names


def _describe(members: np.ndarray, people: pl.DataFrame) -> dict[str, object]:
    """How many, and a digest of who."""
    ids = "\n".join(people["user_id"].gather(members))
    return {"people": len(members), "sha256": hashlib.sha256(ids.encode()).hexdigest()}


def _left_out_values(partition: Partition, people: pl.DataFrame) -> dict[str, int]:
    """For a by-column scheme, the values of the people left out, most people first."""
    column = partition.scheme.removeprefix(BY_COLUMN)
    if not partition.scheme.startswith(BY_COLUMN) or len(partition.left_out) == 0:
        return {}
    values = people[column].cast(pl.String).gather(partition.left_out).fill_null("(none)")
    counts = values.value_counts(name="people").sort(["people", column], descending=[True, False])
    return dict(counts.iter_rows())
