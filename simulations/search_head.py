"""Search that many shops train together in this process: each keeps its people's queries, all get one adapter."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clients.query_learner import QueryLearner, put, query_schema, trained_arrays
from fedrec.agreement import HeadSpec
from fedrec.errors import ConfigError
from fedrec.model.learned_query import LearnedQuery
from fedrec.model.query_adapter import QueryAdapter, QueryExamples, person_losses
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.selfcheck import verify_person_gradients
from simulations.heads import Budget, Course, Head, federate_head

_STAND_INS = 4  # made-up people on whom gradients are checked


def federate_search(
    adapter: QueryAdapter,
    shops: Sequence[QueryExamples],
    vectors: np.ndarray,
    *,
    sharpness: float,
    plan: PrivacyPlan,
    course: Course,
    folder: Path,
    budgets: Sequence[Budget] | None = None,
) -> LearnedQuery:
    """Run all rounds of a plan, each shop with real merchants' code, policy and ledger.

    Args:
        adapter: untrained; what requires a gradient in it is trained. Overwritten.
        shops: the people of each, in whatever number. Sensitive.
        vectors: of the items, (I, E) float32, unit rows. Public.
        sharpness: as ``person_losses``.
        plan, course, folder, budgets: as ``federate_head``.

    Returns:
        What the last round left. As private as the plan says.

    Raises:
        PrivacyError: per-person gradients are not what the guarantee needs, or a ledger or policy refuses.
        RunError: a round that counts for nothing.
        ConfigError: no shop, or another number of budgets than of shops.
    """
    if not shops:
        raise ConfigError("no shop has people with a query: expected at least one")
    items = torch.from_numpy(vectors)
    check_gradients(adapter, items, sharpness=sharpness)
    learners = [QueryLearner(adapter, examples, items, sharpness) for examples in shops]
    head = search_head(adapter, items, sharpness=sharpness)
    done = federate_head(head, learners, plan=plan, course=course, folder=folder, budgets=budgets)
    put(adapter, done.learned)
    return adapter.learned()


def search_head(adapter: QueryAdapter, items: Tensor, *, sharpness: float) -> Head:
    """What is trained, named by all that is public of it: the items, the start and what stays frozen."""
    digest = hashlib.sha256(f"query head 1, sharpness {sharpness}, mix {adapter.mix.start}".encode())
    for values in (items, *(p.detach() for p in adapter.parameters())):
        digest.update(repr(tuple(values.shape)).encode() + values.contiguous().numpy().tobytes())
    return Head(HeadSpec("query"), digest.hexdigest(), query_schema(adapter), trained_arrays(adapter))


def check_gradients(adapter: QueryAdapter, items: Tensor, *, sharpness: float) -> None:
    """Hold each person's gradient against plain autograd on that person alone, on made-up people.

    Raises:
        PrivacyError: they differ.
    """
    rng = torch.Generator().manual_seed(0)  # public: it protects nothing
    shape = (_STAND_INS, 2)
    readings = functional.normalize(torch.randn(*shape, 2, items.shape[1], generator=rng), dim=-1)
    of = QueryExamples(
        readings=readings,
        items=torch.randint(0, len(items), (*shape, 8), generator=rng),
        words=torch.rand(*shape, 8, generator=rng),
        is_candidate=torch.ones(*shape, 8, dtype=torch.bool),
        is_event=torch.tensor([[True, True], [True, False]] * (_STAND_INS // 2)),
    )
    verify_person_gradients(
        adapter.train(),
        lambda rows: person_losses(adapter, items, of.of(rows), sharpness=sharpness),
        people=_STAND_INS,
    )
