"""The client's own limits: what its owner allows, whatever a server asks for.

``policy.toml`` lies beside the client's data. Every key is required and no other is known, so a
mistake in the file refuses everything instead of allowing something; only ``trust`` and ``statistics`` may be
absent, and are the strictest then. A server's wish can only be stricter: each ``check_*`` refuses what goes
beyond the file.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fedrec.errors import PrivacyError
from fedrec.privacy.durable import replace_file
from fedrec.privacy.plan import UNIT, PrivacyPlan
from fedrec.privacy.trust import LOCAL

METRICS = ("ndcg@10", "hr@10")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Cap = Annotated[int, Field(ge=0, le=2**53)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ListOf = Field(strict=False)  # TOML and JSON know lists, not tuples; the entries stay strict


class Policy(BaseModel):
    """One client's limits, frozen; read with ``load_policy``. Public: it tells nothing about people."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = Field(description="of this file's format")
    unit: str = Field(description="whose privacy is counted")
    trust: Literal["local", "distributed", "central"] = Field(
        "local", description="local: every update leaves with all of its noise; anything else is for simulations"
    )
    max_epsilon: Positive = Field(description="of everything this ledger's people ever give, at max_delta")
    max_delta: Annotated[float, Field(gt=0, lt=1)] = Field(description="failure probability; well below 1 / people")
    parameters: Literal["fixed", "adaptive"] = Field(
        description="adaptive when a run may be chosen after seeing another; a plan then has half of max_delta"
    )
    min_noise_multiplier: Positive = Field(description="least sigma of training and of each release")
    max_clip_norm: Positive = Field(description="largest C that one person's contribution is cut to")
    max_sampling_rate: Annotated[float, Field(gt=0, le=1)] = Field(description="largest q of training")
    max_steps_total: Cap = Field(description="training steps over the ledger's life")
    max_steps_per_day: Cap = Field(description="training steps in any 24 hours")
    max_rounds_total: Cap = Field(description="training rounds over the ledger's life")
    max_rounds_per_day: Cap = Field(description="training rounds in any 24 hours")
    min_people: Annotated[int, Field(ge=1)] = Field(description="fewer people here than this: no training")
    allowed_metrics: Annotated[tuple[str, ...], ListOf] = Field(
        description=f"noised metrics that may leave: {', '.join(METRICS)}; empty for none"
    )
    statistics: bool = Field(
        False, description="true lets noised counts of items and of public pairs leave, once in a run"
    )
    allowed_bases: Annotated[tuple[Hex, ...], ListOf] = Field(description="SHA-256 of bases that may be trained on")
    allowed_code: Annotated[tuple[Hex, ...], ListOf] = Field(description="SHA-256 of client code that may run")
    server_key: Hex = Field(description="Ed25519 public key of the server that may ask")

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, unit: str) -> str:
        if unit != UNIT:
            raise ValueError(f"expected {UNIT!r}, the only one supported here")
        return unit

    @model_validator(mode="after")
    def _simulations_are_fixed(self) -> Self:
        if self.trust != LOCAL and self.parameters == "adaptive":
            raise ValueError(
                f"trust={self.trust} and parameters=adaptive: expected trust=local, or fixed in a simulation"
            )
        return self

    @field_validator("allowed_metrics")
    @classmethod
    def _known_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(names) - set(METRICS):
            raise ValueError(f"unknown {sorted(unknown)}, expected among {list(METRICS)}")
        return names

    @classmethod
    def for_plan(
        cls,
        plan: PrivacyPlan,
        *,
        base: str,
        code: str,
        server_key: str,
        metrics: Iterable[str] = (),
        min_people: int = 1,
        trust: str = LOCAL,
        statistics: bool = False,
    ) -> "Policy":
        """The strictest policy under which exactly this plan runs: for simulations, and to start from.

        Raises:
            PrivacyError: the plan is not private, is of another trust or releases what is not named here, or a digest
                is malformed.
        """
        if plan.epsilon is None:
            _refuse("max_epsilon", "a plan without privacy", "a private plan")
        values = {
            "version": 1,
            "unit": plan.unit,
            "trust": trust,
            "max_epsilon": plan.epsilon,
            "max_delta": plan.delta,
            "parameters": "fixed",
            "min_noise_multiplier": min(spending.noise_multiplier for spending in plan.spendings()),
            "max_clip_norm": plan.clip_norm,
            "max_sampling_rate": plan.sampling_rate,
            "max_steps_total": plan.steps,
            "max_steps_per_day": plan.steps,
            "max_rounds_total": plan.rounds,
            "max_rounds_per_day": plan.rounds,
            "min_people": min_people,
            "allowed_metrics": tuple(metrics),
            "statistics": statistics,
            "allowed_bases": (base,),
            "allowed_code": (code,),
            "server_key": server_key,
        }
        policy = parse_policy(values, source="policy for a plan")
        policy.check_plan(plan)
        return policy

    @property
    def checked_delta(self) -> float:
        """The delta at which plans and charges are checked: half of ``max_delta`` where parameters are adaptive.

        Whoever may choose adaptively may also choose, by the outputs, whether to finish the first run (covered by the
        accountant) or to begin a second (covered by the filter). An outcome lies in one of the two branches, so
        their deltas add up: P(S) <= e^epsilon Q(S) + delta/2 + delta/2.
        """
        return self.max_delta / 2 if self.parameters == "adaptive" else self.max_delta

    @property
    def _why_checked_delta(self) -> str:
        return ", half of max_delta because parameters are adaptive" if self.parameters == "adaptive" else ""

    def check_plan(self, plan: PrivacyPlan) -> None:
        """Refuse a plan that goes beyond any limit, even if its first rounds would not.

        Raises:
            PrivacyError: names the key, what came and what is allowed.
        """
        if plan.epsilon is None or plan.delta is None or not plan.private:
            _refuse("max_epsilon", "a plan without privacy", f"<= {self.max_epsilon}")
        if plan.unit != self.unit:
            _refuse("unit", repr(plan.unit), repr(self.unit))
        if plan.trust != self.trust:
            _refuse("trust", repr(plan.trust), repr(self.trust))
        _at_most("max_epsilon", plan.epsilon, self.max_epsilon)
        _at_most("max_delta", plan.delta, self.checked_delta, because=self._why_checked_delta)
        for spending in plan.spendings():
            if not spending.noise_multiplier >= self.min_noise_multiplier:
                _refuse("min_noise_multiplier", spending.noise_multiplier, f">= {self.min_noise_multiplier}")
        _at_most("max_clip_norm", plan.clip_norm, self.max_clip_norm)
        _at_most("max_sampling_rate", plan.sampling_rate, self.max_sampling_rate)
        _at_most("max_steps_total", plan.steps, self.max_steps_total)
        _at_most("max_rounds_total", plan.rounds, self.max_rounds_total)
        _at_most("max_steps_per_day", plan.local_steps, self.max_steps_per_day)
        _at_most("max_rounds_per_day", 1, self.max_rounds_per_day)
        if plan.metric_releases and not self.allowed_metrics:
            _refuse("allowed_metrics", f"{plan.metric_releases} metric releases", "none")
        if plan.statistics_noise_multiplier is not None and not self.statistics:
            _refuse("statistics", "a release of counts", "none; set statistics = true to let them leave")

    def check_people(self, people: int) -> None:
        """Refuse to train on too small a group. The message keeps their number to itself.

        Raises:
            PrivacyError: fewer than ``min_people``.
        """
        if people < self.min_people:
            _refuse(
                "min_people", "fewer people here", f">= {self.min_people}; lower it only if so few may be trained on"
            )

    def check_base(self, digest: str) -> None:
        """Refuse a base that is not listed.

        Raises:
            PrivacyError: names the digest.
        """
        if digest not in self.allowed_bases:
            _refuse("allowed_bases", repr(digest), _one_of(self.allowed_bases))

    def check_server(self, key: str) -> None:
        """Refuse another server than the pinned one.

        Raises:
            PrivacyError: names the key.
        """
        if key != self.server_key:
            _refuse("server_key", repr(key), repr(self.server_key))

    def check_code(self, digest: str) -> None:
        """Refuse client code that is not listed.

        Raises:
            PrivacyError: names the digest.
        """
        if digest not in self.allowed_code:
            mend = "after an upgrade that you meant, put the first digest into allowed_code of policy.toml"
            _refuse("allowed_code", repr(digest), f"{_one_of(self.allowed_code)}; {mend}")

    def check_metrics(self, names: Iterable[str]) -> None:
        """Refuse metrics that may not leave this client.

        Raises:
            PrivacyError: names the first of them.
        """
        for name in names:
            if name not in self.allowed_metrics:
                _refuse("allowed_metrics", repr(name), _one_of(self.allowed_metrics))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex: equal exactly when two policies are."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load_policy(path: Path) -> Policy:
    """Read ``policy.toml``. Anything missing, unknown or malformed refuses the whole file.

    Raises:
        PrivacyError: names the file and the keys.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrivacyError(f"{path}: no policy: nothing is allowed; write one with fedrec privacy policy new") from None
    except OSError as error:
        raise PrivacyError(f"{path}: the policy cannot be read: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise PrivacyError(f"{path}: the policy is not TOML: {error}") from None
    return parse_policy(values, source=str(path))


def parse_policy(values: Mapping[str, Any], *, source: str) -> Policy:
    """Make a policy of plain values.

    Raises:
        PrivacyError: names ``source`` and every key that is missing, unknown or out of range.
    """
    try:
        return Policy.model_validate(dict(values))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise PrivacyError(f"{source}: {'; '.join(problems)}; nothing is allowed until this is mended") from None


def write_policy(policy: Policy, path: Path) -> None:
    """Write ``policy.toml`` with a comment above each key; whole or not at all, over any older one.

    Raises:
        PrivacyError: the file cannot be written.
    """
    lines = ["# What this client allows. What is missing or unknown refuses all training."]
    for name, value in policy.model_dump(mode="json").items():
        lines += ["", f"# {Policy.model_fields[name].description}", tomli_w.dumps({name: value}).rstrip()]
    try:
        replace_file(path, "\n".join(lines) + "\n", mode=0o644)
    except OSError as error:
        raise PrivacyError(f"{path}: the policy cannot be written: {error.strerror}") from None


def _at_most(key: str, came: float, allowed: float, *, because: str = "") -> None:
    if not came <= allowed:
        _refuse(key, came, f"<= {allowed}{because}")


def _refuse(key: str, came: object, allowed: str) -> NoReturn:
    raise PrivacyError(f"policy {key}: {came}, allowed {allowed}")


def _one_of(allowed: tuple[str, ...]) -> str:
    return f"one of {list(allowed)}" if allowed else "none"
