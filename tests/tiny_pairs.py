"""Public pairs for the tiny ranker: counted from people who are in no test, and what it would suggest."""

from dataclasses import replace
from typing import Any

from fedrec.model.pairs import PairSpec, PublicPairs, public_pairs
from tests.tiny_ranker import histories, learned

SPEC = PairSpec(weight=1.5, sharpness=30.0, recent=3, decay=0.4, shrinkage=0.2)
GAPS = (1.0, 1 / 2, 1 / 3)


def some_pairs(*, suggestions: int = 3, **spec: Any) -> PublicPairs:
    """Pairs of five people with 74 events, and three suggestions an item."""
    fit = histories(30, 12, 20, 3, 9, seed=11)
    return public_pairs(learned(), fit, gap_weights=GAPS, suggestions=suggestions, spec=replace(SPEC, **spec))
