"""Search that many shops train together: the query adapter as a head, under the same plan and ledger as any other."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.training import Learner
from fedrec.model.query_adapter import QueryAdapter, QueryExamples, person_losses
from fedrec.privacy.gradients import PersonGradients
from fedrec.schema import AdapterSchema, Arrays, ArraySpec

PEOPLE_AT_A_TIME = 32  # bounds memory; the result does not depend on it


@dataclass(frozen=True, eq=False)
class QueryLearner(Learner):
    """A query adapter, and one client's people with what they chose after a query.

    Attributes:
        adapter: overwritten; clients of one process may share it. Only what requires a gradient is shared and trained.
        examples: of the client's people, whose candidates are public. Sensitive.
        vectors: of the items, (I, E) float32, unit rows. Public.
        sharpness: as ``person_losses``.
    """

    adapter: QueryAdapter
    examples: QueryExamples
    vectors: Tensor
    sharpness: float

    @property
    def schema(self) -> AdapterSchema:
        return query_schema(self.adapter)

    def __len__(self) -> int:
        return len(self.examples)

    def gradients(self, people: np.ndarray, shared: Arrays, *, step: int) -> Generator[Tensor, None, None]:
        del step  # candidates stay the same, so each step sees the same of a person
        put(self.adapter, shared)
        self.adapter.train()
        rows = torch.from_numpy(people)
        with PersonGradients(self.adapter) as gradients:
            for chunk in rows.split(PEOPLE_AT_A_TIME):

                def losses(chunk: Tensor = chunk) -> Tensor:
                    of = self.examples.of(chunk)
                    return person_losses(self.adapter, self.vectors, of, sharpness=self.sharpness)

                yield gradients.compute(losses, people=len(chunk))


def query_schema(adapter: QueryAdapter) -> AdapterSchema:
    """Names and shapes of what is trained."""
    return tuple(ArraySpec(name, tuple(p.shape)) for name, p in adapter.named_parameters() if p.requires_grad)


def trained_arrays(adapter: QueryAdapter) -> Arrays:
    """What is trained, as it is now."""
    return {name: p.detach().numpy().copy() for name, p in adapter.named_parameters() if p.requires_grad}


def put(adapter: QueryAdapter, shared: Arrays) -> None:
    """Overwrite what is trained."""
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(shared[name])))
