"""The judge: how good an adapter is on public people that the base was not trained on.

It costs no privacy, because these people opted in as public data. The server publishes the round
that does best here, the base itself included, and the base where no round is surely better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fedrec.agreement import Agreement, agreed_ranker
from fedrec.data.histories import Histories
from fedrec.evaluation.masking import Masking, refuse_repeats
from fedrec.evaluation.panel import fit_weight, mean_measures, panel_people
from fedrec.evaluation.protocol import paired_difference
from fedrec.model.adapters import adapter_arrays, load_adapter_arrays
from fedrec.model.base import PANEL
from fedrec.model.pairs import PairPart, PublicPairs
from fedrec.model.ranker import Ranker
from fedrec.schema import Arrays


@dataclass(frozen=True, eq=False)
class PanelJudge:
    """Measures adapters on the panel, scoring as merchants do: the adapter and the public pairs.

    Attributes:
        ranker: with an adapter; its adapter is overwritten.
        panel: public people.
        pairs: what public pairs add.
        masking: what is not offered.
        begun: the base's adapter, that others are held against.
    """

    ranker: Ranker
    panel: Histories
    pairs: PairPart
    masking: Masking
    begun: Arrays

    def __call__(self, adapter: Arrays) -> dict[str, float]:
        """As ``panel_measures``, and ``panel_gain``: by how much NDCG@10 is above the base's, in standard errors.

        Paired over people; 0 where nobody is ranked otherwise, and for one person alone.
        """
        losses, ndcg = self._people(adapter)
        gain, error = paired_difference(self._base_ndcg, ndcg)
        return mean_measures(losses, ndcg) | {"panel_gain": gain / error if error > 0 else 0.0}

    @cached_property
    def _base_ndcg(self) -> np.ndarray:
        return self._people(self.begun)[1]

    def _people(self, adapter: Arrays) -> tuple[np.ndarray, np.ndarray]:
        load_adapter_arrays(self.ranker, adapter)
        return panel_people(self.ranker, self.panel, masking=self.masking, parts=[self.pairs])

    def weigh(self, adapter: Arrays, part: PairPart, weights: Sequence[float]) -> float:
        """Choose the weight under which ``part`` helps the adapter and the public pairs most; see ``fit_weight``."""
        load_adapter_arrays(self.ranker, adapter)
        others = [self.pairs]
        return fit_weight(self.ranker, self.panel, part, weights=weights, masking=self.masking, others=others)


def load_judge(run: Path, agreement: Agreement, *, masking: Masking) -> PanelJudge | None:
    """Make the judge of a run; None when there is no panel, or nobody on it with anything to predict.

    Raises:
        RunError: the base is damaged.
        DataError: the panel is damaged, or takes something twice where histories are masked.
    """
    path = run / "base" / PANEL
    if not path.exists():
        return None
    pairs = PublicPairs.load(run / "base").part()
    ranker, panel = agreed_ranker(agreement, run), Histories.load(path)
    if not (panel.lengths > 1).any():
        return None
    if masking is Masking.HISTORY:
        refuse_repeats(panel)
    return PanelJudge(ranker, panel, pairs, masking, adapter_arrays(ranker))
