"""The rows of the results table: what each is called, which run it takes, which cells it fills.

A row is a ranker that is measured alone, or a federation, which fills two: ``shared-NAME`` and ``federated-NAME``.
"""

from typing import Any

POOLED = ("popularity", "repeat", "markov_knn", "ease", "sasrec")  # need the people alone
PREPARED = ("frozen_text", "base", "local_only", "centralized")  # need a base, and no round
NO_NOISE, LARGE = "no_noise", "no_noise_large"
TRUSTS = ("local", "distributed", "central")
EPSILONS = (8, 3, 1)

# What federation alone could buy: the large adapter and the many rounds that noise cannot afford.
_LARGE = {
    "adapter.rank": 24,
    "adapter.targets": "all-linear",
    "adapter.gains": True,
    "privacy.clipping": "flat",
    "federation.rounds": 60,
    "federation.server_learning_rate": 3e-2,
}
FEDERATIONS: dict[str, dict[str, Any]] = {
    NO_NOISE: {"privacy.enabled": False},
    LARGE: {"privacy.enabled": False} | _LARGE,
} | {f"{trust}-{e}": {"privacy.trust": trust, "privacy.epsilon": e} for trust in TRUSTS for e in EPSILONS}
PRIVATE = tuple(name for name in FEDERATIONS if name not in (NO_NOISE, LARGE))
ROWS = (*POOLED, *PREPARED, *FEDERATIONS)
SCALE_ROWS = ("base", "local_only", "local-8", "distributed-8")


def default_rows(data_set: str) -> tuple[str, ...]:
    """The rows that a data set gets unless others are asked for; the large adapter is looked at on one set alone."""
    return tuple(row for row in ROWS if row != LARGE or data_set == "online_retail")


def cells_of(row: str) -> tuple[str, ...]:
    """Names of the cells that a row fills."""
    return (f"shared-{row}", f"federated-{row}") if row in FEDERATIONS else (row,)


def label_of(cell: str) -> str:
    """A cell's row in words: ``federated, distributed, ε 8``."""
    part, _, federation = cell.partition("-")
    return f"{part}, {words_of(federation)}" if federation else cell


def words_of(federation: str) -> str:
    """A federation in words."""
    if federation not in PRIVATE:
        return {NO_NOISE: "without noise", LARGE: "without noise, large adapter"}[federation]
    trust, _, epsilon = federation.partition("-")
    return f"{trust}, ε {epsilon}"
