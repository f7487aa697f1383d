"""The judge: how good an adapter is on public people that the base was not trained on.

It costs no privacy, because these people opted in as public data. The server publishes the round
that does best here, the base itself included.
"""

from collections.abc import Callable
from pathlib import Path

from fedrec.agreement import Agreement, agreed_ranker
from fedrec.data.histories import Histories
from fedrec.evaluation.masking import Masking, refuse_repeats
from fedrec.evaluation.panel import panel_measures
from fedrec.model.adapters import load_adapter_arrays
from fedrec.model.base import PANEL
from fedrec.model.pairs import PublicPairs
from fedrec.schema import Arrays

Judge = Callable[[Arrays], dict[str, float]]


def load_judge(run: Path, agreement: Agreement, *, masking: Masking) -> Judge | None:
    """Make the judge of a run, which scores as merchants do: adapter and public pairs. None when there is no panel.

    Raises:
        RunError: the base is damaged.
        DataError: the panel is damaged, or takes something twice where histories are masked.
    """
    path = run / "base" / PANEL
    if not path.exists():
        return None
    ranker, panel = agreed_ranker(agreement, run), Histories.load(path)
    pairs = PublicPairs.load(run / "base").part()
    if masking is Masking.HISTORY:
        refuse_repeats(panel)

    def judge(arrays: Arrays) -> dict[str, float]:
        load_adapter_arrays(ranker, arrays)
        return panel_measures(ranker, panel, masking=masking, parts=[pairs])

    return judge
