"""What a report is made from, checked before a word is written: the run's summary, its rounds and the context.

A report says nothing that is not in these three. ``Summary`` is also the schema of ``summary.json``.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fedrec.errors import RunError
from fedrec.evaluation.protocol import COLD  # a column too, in every row or in none

METRICS = ("ndcg@10", "hr@10", "mrr@10", "recall@20", "coverage@10", "merchant_ndcg@10", "worst_decile_ndcg@10")
ROWS = (
    *("popularity", "repeat", "markov_knn", "frozen_text", "base", "local_only", "shared", "federated"),
    *("shared_no_noise", "federated_no_noise", "centralized"),
)
REQUIRED_ROWS = frozenset(ROWS[:8])
DEPLOYABLE_ROWS = ("base", "local_only", "shared", "federated")

Part = TypeVar("Part", bound=BaseModel)
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


def _known_rows(metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Refuse a table with rows or columns that the report has no words for, or without the ones it needs."""
    if missing := REQUIRED_ROWS - metrics.keys():
        raise ValueError(f"rows missing: {sorted(missing)}")
    if unknown := metrics.keys() - set(ROWS):
        raise ValueError(f"unknown rows: {sorted(unknown)}")
    return _known_columns(metrics)


def _rows_held_out(metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Refuse another table than that of what merchants could deploy."""
    if set(metrics) != set(DEPLOYABLE_ROWS):
        raise ValueError(f"expected exactly the rows {list(DEPLOYABLE_ROWS)}, got {sorted(metrics)}")
    return _known_columns(metrics)


def _known_columns(metrics: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    expected = [*METRICS, COLD] if any(COLD in values for values in metrics.values()) else list(METRICS)
    for row, values in metrics.items():
        if set(values) != set(expected):
            raise ValueError(f"row {row}: expected exactly the columns {expected}, got {sorted(values)}")
    return metrics


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Adapter(_Part):
    """What was trained and sent."""

    kind: str
    rank: Count
    trainable_parameters: Count


class Spread(_Part):
    """Smallest, middle and largest of the clients' values."""

    min: Finite
    median: Finite
    max: Finite


class Privacy(_Part):
    """The guarantee, whole."""

    epsilon: Finite
    delta: Finite
    unit: str
    relation: str
    accountant: str
    trust: Literal["local", "distributed", "central"]
    noise_multiplier: Finite
    clip_norm: Finite
    sampling_rate: Finite
    steps: Count
    per_client_epsilon: Spread


class Timing(_Part):
    """Wall clock."""

    total_s: Finite
    pretrain_s: Finite
    round_median_s: Finite
    updates_per_s: Finite


class Comparison(_Part):
    """Mean paired difference of NDCG@10 over people, and its standard error (``null`` when unknown)."""

    difference: Finite
    standard_error: Finite | None
    people: Count


class Gains(_Part):
    """What merchants gain in the mean NDCG@10 of their people, every merchant counted alike."""

    merchants: Count = Field(description="with anyone to measure")
    gaining: Count
    losing: Count
    mean: Finite
    median: Finite
    worst_decile: Finite = Field(description="mean gain of the tenth that gains least")


class SizeGroup(Gains):
    """The same for merchants of like size."""

    people_min: Count
    people_max: Count


class Fairness(_Part):
    """What the federated ranker, as deployed, gives to whom."""

    over_local_only: Gains
    over_base: Gains
    by_size: list[SizeGroup] = Field(min_length=1, description="over local_only, smallest merchants first")


class HeldOut(_Part):
    """Merchants that took no part and deploy what came out."""

    merchants: Count
    people: Count
    metrics: Annotated[dict[str, dict[str, Finite]], AfterValidator(_rows_held_out)]
    federated_vs_local_only: Comparison
    federated_vs_base: Comparison


class Summary(_Part):
    """``summary.json``: stable keys, for tools."""

    clients: Count
    rounds: Count
    engine: str
    adapter: Adapter
    privacy: Privacy | None
    metrics: Annotated[dict[str, dict[str, Finite]], AfterValidator(_known_rows)]
    cold_people: Count = Field(description="asked for an item that is in nobody's training history")
    fairness: Fairness
    held_out: HeldOut | None
    timing: Timing
    peak_rss_mb: Finite
    bytes_up_per_client_round: Finite
    seed: int
    versions: dict[str, str]


class Round(BaseModel):
    """One line of ``events.jsonl``; keys that a report does not show may ride along."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    round: Count
    asked: Count
    admitted: Count
    quarantined: Count
    reasons: dict[str, Count]
    void: bool
    seconds: Finite
    bytes_up: Count
    panel_loss: Finite | None = Field(None, description="absent in a run without a panel")
    panel_ndcg: Finite | None = Field(None, alias="panel_ndcg@10")
    epsilon_spent: Finite | None


class Client(_Part):
    """One merchant: its own epsilon, and NDCG@10 of its people; ``null`` where nobody could be measured."""

    name: str
    people: Count
    epsilon: Finite | None
    local_only: Finite | None
    federated: Finite | None


class Rule(_Part):
    """One counted cleaning rule."""

    rule: str
    description: str
    dropped: Count
    kept: Count


class Data(_Part):
    """What was read."""

    source: str
    people: Count
    items: Count
    events: Count
    panel_people: Count
    client_people: Count
    split: str
    rules: list[Rule]


class Counted(_Part):
    """What clients counted in private before the first round."""

    clients: Count
    numbers: Count = Field(description="float32 in each client's message")
    candidates: Count = Field(description="public pairs that could be counted")
    pairs: Count = Field(description="of those, the ones that stand out from the noise")
    noise_std: Finite
    weight: Finite = Field(description="logits of the part, 0 where it does not help on the panel")


class Context(_Part):
    """Everything a report shows beside the summary."""

    statement: str = Field(description="the privacy statement, or the sentence that there is none")
    federated_vs_local_only: Comparison
    shared_vs_base: Comparison
    published_round: Count | None = Field(description="the round that the server kept, 0 for the base")
    counted: Counted | None = Field(None, description="absent where clients counted nothing, or too few answered")
    split: dict[str, str] | None = Field(None, description="how much of the budget pairs and adapter get, and why")
    clients: list[Client]
    epsilon_for_person_at: dict[int, Finite] = Field(
        description="k merchants -> composed epsilon; empty if not private"
    )
    data: Data
    limits: list[str] = Field(min_length=1, description="what the guarantee and the figures do not cover")
    command: str = Field(description="the command line that makes this run again")
    config: dict[str, Any]


def check_inputs(summary: dict, rounds: list[dict], context: dict) -> tuple[Summary, list[Round], Context]:
    """Turn the three plain objects into typed ones.

    Raises:
        RunError: a key is missing, unknown or has the wrong type; names it.
    """
    checked = _check(Summary, summary, "summary"), _check(Context, context, "report context")
    return checked[0], [_check(Round, line, f"round {n}") for n, line in enumerate(rounds, start=1)], checked[1]


def _check(kind: type[Part], values: dict, what: str) -> Part:
    """Validate, and name the first thing that is wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{what}: {where}: {first['msg']}") from None
