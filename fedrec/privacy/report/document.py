"""The signed document behind every privacy report: what was found in the ledgers, and what follows from it.

``Facts`` are read from a run or a ledger. ``Findings`` are a pure function of the facts, so a reader who has
the document can compute them again. Numbers are stored as they are shown: epsilons rounded up to four decimals.
"""

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, ValidationError

from fedrec.errors import PrivacyError
from fedrec.privacy.report.evidence import (
    AuditFacts,
    Count,
    Digest,
    Facts,
    Fraction,
    Group,
    LedgerFacts,
    Part,
    Point,
    Positive,
    Real,
)
from fedrec.signing import Purpose, SigningKey, is_signed

__all__ = [
    "FORMAT",
    "PERSON_AT",
    "Actor",
    "Answer",
    "Attacker",
    "AuditFacts",
    "AuditFinding",
    "Bounds",
    "ClientRow",
    "Composition",
    "CompositionRow",
    "DeltaRule",
    "Facts",
    "Findings",
    "Group",
    "Guarantee",
    "Headroom",
    "LedgerFacts",
    "Part",
    "Point",
    "PrivacyReport",
    "Signed",
    "Status",
    "Verdict",
    "canonical",
    "render_json",
]

FORMAT: Final = "fedrec privacy report 1"
Status = Literal["within", "used up", "over", "nothing spent"]

PERSON_AT = (1, 2, 3, 5, 10)


def _at_all_or_none(epsilons: dict[str, float]) -> dict[str, float]:
    if epsilons and set(epsilons) != {str(clients) for clients in PERSON_AT}:
        raise ValueError(f"expected an epsilon at each of {PERSON_AT} clients, or none")
    return epsilons


class Guarantee(Part):
    """Epsilon with everything it needs to mean something; the names are those of ``summary.json``."""

    epsilon: Real
    delta: float
    unit: str
    relation: str
    accountant: str
    noise_multiplier: Real | None
    sampling_rate: Fraction | None
    steps: Count
    clip_norm: Real | None
    filter_order: Positive | None


class Verdict(Part):
    """The first thing a reader sees."""

    outcome: Status | Literal["not private"]
    headline: str
    sentences: tuple[str, ...]


class Headroom(Part):
    """What is left under the policy, and how many more rounds of the newest kind fit."""

    epsilon_limit: Annotated[float, Field(gt=0)]
    epsilon_left: Real
    rounds_left: Count | None
    stops_because: str


class Bounds(Part):
    """The same releases by other relations, assumptions and mathematics; ``null`` where no bound is known."""

    epsilon_replace_one: Real
    epsilon_zero_out: Real
    epsilon_without_amplification: Real
    rdp_epsilon: Real | None
    opacus_rdp_epsilon: Real | None
    filter_epsilon: Real | None
    epsilon_if_fixed: Real | None


class CompositionRow(Part):
    """One run's releases of one kind, alone."""

    run: str
    plan: str
    kind: str
    charges: Count
    steps: Count
    noise_multiplier: Real
    sampling_rate: Fraction
    batch_cap: Positive | None
    epsilon: Real


class Composition(Part):
    """How the runs of the ledger that has spent most add up."""

    ledger: str
    rows: tuple[CompositionRow, ...]
    epsilon_by_events: Real
    epsilon_added_up: Real


class DeltaRule(Part):
    """Whether delta is below one over the number of people."""

    people: Positive | None
    one_over_people: Real | None
    is_below: bool | None
    sentence: str


class ClientRow(Part):
    """One client's standing. For the operator only: who took part is itself sensitive."""

    name: str
    rounds: Count
    steps: Count
    epsilon: Real | None
    epsilon_left: Real | None
    status: Status | Literal["not private"]


class Attacker(Part):
    """The guarantee read as the best a membership attacker can do; an interpretation, not another promise."""

    gdp_mu: Real
    advantage: Fraction
    true_positive_rate_at: dict[str, Fraction]


class AuditFinding(Part):
    """How the measured lower bound compares with the claim."""

    status: Literal["not audited", "passed", "failed"]
    sentence: str


class Answer(Part):
    """A question of NIST SP 800-226's subject matter and where this report answers it."""

    question: str
    answer: str
    section: str


class Actor(Part):
    """Someone in the trust model."""

    who: str
    sees: str
    trusted_for: str


class Findings(Part):
    """What follows from the facts."""

    verdict: Verdict
    guarantee: Guarantee | None
    headroom: Headroom | None
    bounds: Bounds | None
    composition: Composition | None
    delta_rule: DeltaRule | None
    epsilon_by_round: dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")], Real]
    epsilon_for_person_at: Annotated[dict[str, Real], AfterValidator(_at_all_or_none)]
    clients: tuple[ClientRow, ...]
    attacker: Attacker | None
    audit: AuditFinding
    trust: tuple[Actor, ...]
    not_covered: tuple[str, ...]
    nist_sp_800_226: tuple[Answer, ...]
    registry: dict[str, Any]


class PrivacyReport(Part):
    """The whole document."""

    format: Literal["fedrec privacy report 1"]
    facts: Facts
    findings: Findings


class Signed(Part):
    """A report with the key that signed it."""

    report: PrivacyReport
    public_key: Digest
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    @classmethod
    def sign(cls, report: PrivacyReport, key: SigningKey) -> Self:
        """Sign ``report`` with the operator's ``key``."""
        signature = key.sign(canonical(report), purpose=Purpose.PRIVACY_REPORT)
        return cls(report=report, public_key=key.public, signature=signature)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a signed document from JSON.

        Raises:
            PrivacyError: it does not fit the schema; names the first place that does not.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the document"
            raise PrivacyError(f"signed report: {where}: {first['msg']}") from None

    def is_genuine(self) -> bool:
        """Whether the owner of ``public_key`` signed exactly this report."""
        try:
            message = canonical(self.report)
        except ValueError:  # a number that has no canonical spelling: nobody signed that
            return False
        return is_signed(message, self.signature, public=self.public_key, purpose=Purpose.PRIVACY_REPORT)


def canonical(part: Part) -> bytes:
    """One spelling of a document: sorted keys, no spaces, UTF-8, finite numbers."""
    values = part.model_dump(mode="json")
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def render_json(signed: Signed) -> str:
    """The report for tools: {"report", "public_key", "signature"}, indented."""
    return json.dumps(signed.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
