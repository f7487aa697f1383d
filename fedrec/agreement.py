"""What server and clients agreed on before the first round: the public half of a run folder.

``agreement.json`` beside ``base/`` names the adapter, the privacy plan and the few numbers of local
training. Both sides read it, compare its digests with what the other sends, and refuse a difference.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedrec.errors import RunError
from fedrec.model.adapters import AdapterSpec, attach_adapter
from fedrec.model.base import base_digest, load_base
from fedrec.model.pairs import PublicPairs
from fedrec.model.ranker import Ranker
from fedrec.model.statistics import Counting, StatisticsSpec
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.policy import METRICS
from fedrec.runfolder import write_json
from fedrec.schema import RUN_ID

FILE = "agreement.json"

_KEY = re.compile(r"[0-9a-f]{64}")


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**32  # a bool is an int to isinstance


# What training counts on, by field: an agreement comes from somebody else. The plan checks its own.
_EXPECTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "run_id": (lambda value: isinstance(value, str) and bool(RUN_ID.fullmatch(value)), "a name of letters and digits"),
    "base_digest": (lambda value: isinstance(value, str) and bool(_KEY.fullmatch(value)), "64 lower-case hex digits"),
    "local_learning_rate": (lambda value: type(value) is float and 0 < value < math.inf, "a finite number > 0"),
    "mask_last": (lambda value: type(value) is bool, "true or false"),
    "negatives": (lambda value: value is None or _is_whole(value, 1), "a whole number >= 1, or none"),
    "seed": (lambda value: _is_whole(value, 0), "a whole number >= 0 below 2**32"),
    "server_key": (
        lambda value: isinstance(value, str) and bool(_KEY.fullmatch(value)),
        "the server's public key, 64 lower-case hex digits",
    ),
    "metrics_every": (lambda value: _is_whole(value, 1), "a whole number >= 1"),
    "window": (lambda value: _is_whole(value, 1), "a whole number >= 1"),
    "popularity_share": (lambda value: type(value) is float and 0 <= value <= 1, "a number from 0 to 1"),
    "kind": (lambda value: value in ("lora", "ffa-lora", "bottleneck"), "lora, ffa-lora or bottleneck"),
    "rank": (lambda value: _is_whole(value, 1), "a whole number >= 1"),
    "targets": (lambda value: value in ("head", "all-linear"), "head or all-linear"),
    "norms": (lambda value: type(value) is bool, "true or false"),
    "gains": (lambda value: type(value) is bool, "true or false"),
}


@dataclass(frozen=True)
class HeadSpec:
    """A small model that learns by itself, in place of an adapter of the ranker; in simulations, so far.

    Attributes:
        kind: what it is for, such as "clicks". What it reads, and how, is its base, which ``base_digest`` names.
    """

    kind: str


@dataclass(frozen=True)
class Agreement:
    """Public constants of a federation.

    Attributes:
        run_id: names the run on the wire and in the ledgers.
        base_digest: SHA-256 of the frozen base, or of the public rules by which a head reads.
        adapter: what learns.
        plan: what each client promises its people, and how.
        local_learning_rate: step size between the local steps of one round.
        mask_last: the item just bought is never the next one.
        negatives: uniform catalogue items that stand for a large catalogue in the loss; None for all items.
        seed: of the adapter's start, negatives and who is asked; never of noise or of who is sampled.
        server_key: Ed25519 public key of the server, 64 hex digits; clients do what it signs, and nothing else.
        metrics: what a client measures, noises and releases besides its updates; none by default.
        metrics_every: rounds from one such release to the next, >= 1.
        statistics: what a client counts, noises and releases once, before the first round; None for nothing.
    """

    run_id: str
    base_digest: str
    adapter: AdapterSpec | HeadSpec
    plan: PrivacyPlan
    local_learning_rate: float
    mask_last: bool
    negatives: int | None
    seed: int
    server_key: str
    metrics: tuple[str, ...] = ()
    metrics_every: int = 1
    statistics: StatisticsSpec | None = None

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex: equal exactly when everything that was agreed on is."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one per attribute."""
        return asdict(self) | {"plan": self.plan.to_dict()}

    @property
    def ranker_adapter(self) -> AdapterSpec:
        """What learns of a ranker; raises ``RunError`` where a head learns instead."""
        if isinstance(self.adapter, HeadSpec):
            raise RunError(f"adapter: a head for {self.adapter.kind}, which has no ranker; it is for simulations alone")
        return self.adapter

    def releases_metrics_in(self, round_index: int) -> bool:
        """Whether clients are asked for metrics after this round of the plan."""
        return bool(self.metrics) and round_index <= self.plan.rounds and round_index % self.metrics_every == 0

    def metric_releases_by(self, rounds: int) -> int:
        """How many releases a client that is asked in each of the first ``rounds`` rounds has made."""
        return rounds // self.metrics_every if self.metrics else 0


def write_agreement(agreement: Agreement, folder: Path) -> None:
    """Write ``agreement.json`` into a run folder.

    Raises:
        RunError: no server's key, unknown metrics, or more or fewer releases than its plan covers.
    """
    _check(agreement)
    write_json(folder / FILE, agreement.to_dict())


def read_agreement(folder: Path) -> Agreement:
    """Read the agreement of a run and check that the base beside it is the one agreed on.

    Raises:
        RunError: missing, damaged, or the base is another one.
        PrivacyError: the plan's noise does not give its epsilon.
    """
    path = folder / FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["adapter"] = AdapterSpec(**values["adapter"])
        values["plan"] = PrivacyPlan.from_dict(values["plan"])
        values["metrics"] = tuple(values["metrics"])
        if values["statistics"] is not None:
            values["statistics"] = StatisticsSpec(**values["statistics"])
        agreement = Agreement(**values)
        _check(agreement)
        digest = base_digest(folder / "base")
    except OSError as error:
        why = error.strerror if error.filename == str(path) else f"{error.filename}: {error.strerror}"
        raise RunError(f"{path}: not a usable agreement: {why}; expected a run folder") from None
    except (UnicodeDecodeError, ValueError, TypeError, KeyError, RecursionError, RunError) as error:
        raise RunError(f"{path}: not a usable agreement: {str(error).splitlines()[0]}") from None
    if digest != agreement.base_digest:
        raise RunError(f"{folder / 'base'}: differs from the base that {path} names; start again with another --out")
    return agreement


def agreed_ranker(agreement: Agreement, folder: Path) -> Ranker:
    """Build the base of a run folder with a fresh adapter, as the agreement says."""
    ranker = load_base(folder / "base")
    attach_adapter(ranker, agreement.ranker_adapter, seed=agreement.seed)
    return ranker


def agreed_counting(agreement: Agreement, folder: Path) -> Counting | None:
    """What clients count, with the public pairs of a run folder's base; None where nothing was agreed on."""
    return Counting(PublicPairs.load(folder / "base"), agreement.statistics) if agreement.statistics else None


def _check(agreement: Agreement) -> None:
    counted = {} if agreement.statistics is None else vars(agreement.statistics)
    for name, value in (vars(agreement) | vars(agreement.ranker_adapter) | counted).items():
        holds, expected = _EXPECTED.get(name, (None, ""))
        if holds and not holds(value):
            raise RunError(f"{name}: expected {expected}")
    names, plan = agreement.metrics, agreement.plan
    if set(names) - set(METRICS) or len(set(names)) < len(names):
        raise RunError(f"metrics={list(names)}: expected different ones of {list(METRICS)}")
    if (releases := agreement.metric_releases_by(plan.rounds)) != plan.metric_releases:
        raise RunError(
            f"{releases} releases of metrics in {plan.rounds} rounds: the plan covers {plan.metric_releases}"
        )
    if (agreement.statistics is None) != (plan.statistics_noise_multiplier is None):
        raise RunError("statistics: expected them exactly when the plan covers a release of statistics")
