"""What a click head learns from one client's people: whom it showed what, and what they clicked."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from clients.training import Learner
from fedrec.model.clicks import click_schema, person_gradients
from fedrec.model.impressions import ClickSpec, Impressions
from fedrec.schema import AdapterSchema, Arrays

PEOPLE_AT_A_TIME = 512  # bounds memory; the result does not depend on it


@dataclass(frozen=True, eq=False)
class ClickLearner(Learner):
    """A click head, and impressions to predict.

    Attributes:
        spec: how impressions are read.
        impressions: by person; who was shown nothing contributes nothing. Sensitive.
    """

    spec: ClickSpec
    impressions: Impressions

    @property
    def schema(self) -> AdapterSchema:
        return click_schema(self.spec)

    def __len__(self) -> int:
        return len(self.impressions)

    def gradients(self, people: np.ndarray, shared: Arrays, *, step: int) -> Generator[Tensor, None, None]:
        del step  # everybody shows all of their impressions, every time
        for first in range(0, len(people), PEOPLE_AT_A_TIME):
            yield person_gradients(shared, self.impressions.subset(people[first : first + PEOPLE_AT_A_TIME]))
