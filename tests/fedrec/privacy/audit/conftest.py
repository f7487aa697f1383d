"""One engine for the audit's tests: the clients' own code over a tiny ranker, at the default promise."""

from collections.abc import Callable, Iterator

import pytest
import torch

from clients.audited import AuditedClients, audited_clients
from fedrec.model.ranker import Ranker
from fedrec.model.statistics import Counting
from fedrec.privacy.plan import PrivacyPlan
from tests.tiny_ranker import adapted, agreement

DEFAULT = {
    "sampling_rate": 0.25,
    "rounds": 30,
    "local_steps": 1,
    "clip_norm": 1.0,
    "clipping": "auto-s",
    "expected_people": 80,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def plan_at() -> Callable[..., PrivacyPlan]:
    """The default plan with any number changed."""
    return lambda epsilon=8.0, **changes: PrivacyPlan.calibrate(epsilon, 1e-5, **(DEFAULT | changes))


@pytest.fixture
def engine_of(plan_at) -> Iterator[Callable[..., AuditedClients]]:
    """Make the clients of a plan, over a tiny ranker or another."""
    opened = []

    def make(
        plan: PrivacyPlan | None = None,
        *,
        ranker: Ranker | None = None,
        counting: Counting | None = None,
        **changes: object,
    ) -> AuditedClients:
        agreed = agreement(plan or plan_at(), **changes)
        opened.append(audited_clients(agreed, ranker or adapted(), counting=counting))
        return opened[-1].__enter__()

    yield make
    for context in opened:
        context.__exit__(None, None, None)
