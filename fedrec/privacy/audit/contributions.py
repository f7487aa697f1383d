"""Checks without noise: what one person can move, through everything that a client does from charge to reply.

The clients run the plan's own clipping at sampling rate 1 and sigma 0, so every figure is exact up to float32.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec.data.histories import Histories
from fedrec.errors import FedrecError
from fedrec.privacy.audit.checks import Check
from fedrec.privacy.audit.engine import Engine
from fedrec.privacy.audit.tap import Step, Tap, clipped
from fedrec.privacy.plan import PrivacyPlan
from fedrec.schema import Arrays, flatten, parameters_of

_ROUNDING = 1e-4  # float32, relative to the clip norm and to a gradient
_FLOOR = 0.1  # differences are relative to a person's gradient, or to this share of the largest one
_LENGTHS = (1e-6, 0.5, 1.001, 10.0, 1e6, 1e30)  # of gradients, in clip norms


@dataclass(frozen=True)
class Answered:
    """One client's first round without noise: the sum that left it, (P,) in float64, and what went in."""

    total: np.ndarray
    arrays: Arrays
    step: Step


def without_noise(plan: PrivacyPlan) -> PrivacyPlan:
    """The same clipping and normaliser's n, everyone taking part, no noise."""
    return PrivacyPlan.without_privacy(
        sampling_rate=1.0,
        rounds=1,
        local_steps=1,
        clip_norm=plan.clip_norm,
        clipping=plan.clipping,
        expected_people=plan.expected_people,
        releases_statistics=plan.statistics_noise_multiplier is not None,
    )


def answered(engine: Engine, people: Histories, *, tap: Tap | None = None) -> Answered:
    """A new client's first round; the sum is what it sent times the public normaliser, its sign turned."""
    tap, plan = tap or Tap(), without_noise(engine.plan)
    arrays = engine.client(people, tap, plan=plan).answer(1)
    return Answered(-flatten(arrays, engine.schema) * plan.normaliser, arrays, tap.steps[0])


def sensitivity(engine: Engine, people: Histories) -> Check:
    """Removing any of the people, or adding them to the others, moves the sum by at most the clip norm."""
    everyone = np.arange(len(people))
    total = answered(engine, people).total
    moved = [
        float(np.linalg.norm(total - answered(engine, people.subset(np.delete(everyone, person))).total))
        for person in everyone
    ]
    measured = max(moved) / engine.plan.clip_norm
    return Check(
        "one person moves the sum by at most the clip norm",
        0.0 < measured <= 1.0 + _ROUNDING,
        f"any of {len(people)} people moves it by at most {measured:.6f} clip norms, expected above 0 and at most 1",
    )


def own_gradients(engine: Engine, people: Histories) -> Check:
    """What a person puts into a batch equals plain autograd of that person alone."""
    rows = answered(engine, people, tap=Tap(keeps_rows=True)).step.rows
    alone = np.array([engine.gradient_alone(people, person) for person in range(len(people))])
    if rows is None or rows.shape != alone.shape:
        return Check(_OWN, False, "not one gradient for each person")
    length = np.linalg.norm(alone, axis=1)
    scale = np.maximum(length, _FLOOR * length.max())
    measured = float((np.linalg.norm(rows.double().numpy() - alone, axis=1) / np.maximum(scale, 1e-30)).max())
    return Check(
        _OWN,
        bool(length.max() > 0 and measured <= 10 * _ROUNDING),
        f"largest relative difference of {len(people)} people is {measured:.2e}, expected at most {10 * _ROUNDING:g}",
    )


def start_up_check(engine: Engine) -> Check:
    """The clients' own check of their model and loss lets them open."""
    try:
        engine.check_gradients()
    except FedrecError as error:
        return Check(_START, False, str(error))
    return Check(_START, True, "it accepts model and loss")


def clipping(engine: Engine, people: Histories) -> Check:
    """Gradients of any length come through as the plan's clipping makes them."""
    rows = torch.diag(torch.tensor(_LENGTHS, dtype=torch.float32) * engine.plan.clip_norm)
    error = _added_rows_error(engine, people, rows)
    return Check(
        "a gradient of any length is clipped",
        error <= _ROUNDING,
        f"rows of {_LENGTHS[0]:g} to {_LENGTHS[-1]:g} clip norms are off by {error:.2e} clip norms, "
        f"expected at most {_ROUNDING:g}",
    )


def undefined_gradients(engine: Engine, people: Histories) -> Check:
    """Someone whose gradient is not finite adds nothing and changes nobody else's part."""
    rows = torch.ones(3, 3)
    rows[0, 0], rows[1, 1], rows[2, 2] = torch.nan, torch.inf, -torch.inf
    error = _added_rows_error(engine, people, rows)
    return Check(
        "a gradient that is not finite counts for nothing",
        error <= _ROUNDING,
        f"with three such rows the others' sum is off by {error:.2e} clip norms, expected at most {_ROUNDING:g}",
    )


def normaliser(engine: Engine, people: Histories) -> Check:
    """The sum is divided by the public constant, however many people there are."""
    sizes = sorted({1, len(people) // 2, len(people)})
    errors = []
    for size in sizes:
        answer = answered(engine, people.subset(np.arange(size)))
        known = answer.step.known[: len(answer.total)]
        errors.append(float(np.linalg.norm(answer.total - known)) / max(float(np.linalg.norm(known)), 1e-30))
    return Check(
        "the normaliser is the plan's, whatever the number of people",
        max(errors) <= _ROUNDING,
        f"sums of {', '.join(map(str, sizes))} people are off by {max(errors):.2e} of themselves, "
        f"expected at most {_ROUNDING:g}",
    )


def only_the_adapter(engine: Engine, people: Histories) -> Check:
    """What leaves is the adapter's arrays, holding the released numbers and nothing else."""
    answer = answered(engine, people)
    sent = [(name, values.shape, str(values.dtype)) for name, values in answer.arrays.items()]
    agreed = [(spec.name, spec.shape, "float32") for spec in engine.schema]
    released = answer.step.released[: parameters_of(engine.schema)] * without_noise(engine.plan).normaliser
    is_released = np.allclose(answer.total, released, rtol=1e-5, atol=1e-6 * engine.plan.clip_norm)
    return Check(
        "only the adapter's released numbers leave",
        sent == agreed and is_released,
        f"{len(sent)} arrays, expected the {len(agreed)} agreed ones holding what the mechanism released",
    )


def _added_rows_error(engine: Engine, people: Histories, rows: Tensor) -> float:
    """How far a release with ``rows`` added is from clipping by hand, in clip norms; inf when undefined."""

    def make(chosen: np.ndarray, width: int) -> Tensor:
        return torch.nn.functional.pad(rows[torch.from_numpy(chosen)], (0, width - rows.shape[1]))

    plan = without_noise(engine.plan)
    step = answered(engine, people, tap=Tap(added=len(rows), make=make, width=rows.shape[1])).step
    expected = step.known.copy()
    expected[: rows.shape[1]] += clipped(rows.double().numpy(), plan).sum(axis=0)
    error = np.abs(step.released * plan.normaliser - expected)
    return float(error.max()) / plan.clip_norm if np.isfinite(error).all() else float("inf")


_OWN = "a person's gradient in a batch is their own"
_START = "the client's start-up check holds"
