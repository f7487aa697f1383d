"""The judge: how good an adapter is on public people that the base was not trained on.

It costs no privacy, because these people opted in as public data. The server publishes the round
that does best here, the base itself included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrec.agreement import Agreement, agreed_ranker
from fedrec.data.histories import Histories
from fedrec.evaluation.masking import Masking, refuse_repeats
from fedrec.evaluation.panel import fit_weight, panel_measures
from fedrec.model.adapters import load_adapter_arrays
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
    """

    ranker: Ranker
    panel: Histories
    pairs: PairPart
    masking: Masking

    def __call__(self, adapter: Arrays) -> dict[str, float]:
        load_adapter_arrays(self.ranker, adapter)
        return panel_measures(self.ranker, self.panel, masking=self.masking, parts=[self.pairs])

    def weigh(self, adapter: Arrays, part: PairPart, weights: Sequence[float]) -> float:
        """Choose the weight under which ``part`` helps the adapter and the public pairs most; see ``fit_weight``."""
        load_adapter_arrays(self.ranker, adapter)
        others = [self.pairs]
        return fit_weight(self.ranker, self.panel, part, weights=weights, masking=self.masking, others=others)


def load_judge(run: Path, agreement: Agreement, *, masking: Masking) -> PanelJudge | None:
    """Make the judge of a run; None when there is no panel.

    Raises:
        RunError: the base is damaged.
        DataError: the panel is damaged, or takes something twice where histories are masked.
    """
    path = run / "base" / PANEL
    if not path.exists():
        return None
    pairs = PublicPairs.load(run / "base").part()
    ranker, panel = agreed_ranker(agreement, run), Histories.load(path)
    if masking is Masking.HISTORY:
        refuse_repeats(panel)
    return PanelJudge(ranker, panel, pairs, masking)
