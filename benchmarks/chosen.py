"""Settings of the references that ``benchmarks/tune.py`` chose, by data set; its tables are in ``docs/experiments.md``.

Chosen on everybody's last training event, never on a test target.
"""

from dataclasses import dataclass

from benchmarks.sasrec import SasrecSettings


@dataclass(frozen=True)
class EaseSettings:
    """As the arguments of ``fedrec.evaluation.baselines.ease``."""

    ridge: float
    recent: int


EASE = {
    "online_retail": EaseSettings(ridge=200.0, recent=1),
    "ml1m": EaseSettings(ridge=300.0, recent=10),
    "beauty": EaseSettings(ridge=100.0, recent=3),
    "games": EaseSettings(ridge=100.0, recent=3),  # as on Beauty, not tried
    "office": EaseSettings(ridge=30.0, recent=10),
}
SASREC = {
    "online_retail": SasrecSettings(epochs=20, dropout=0.5),  # the search ended there, still rising a little
    "ml1m": SasrecSettings(epochs=60, blocks=2, length=200),  # as published, epochs not tried
    "beauty": SasrecSettings(epochs=30, dropout=0.5),
    "games": SasrecSettings(epochs=30, dropout=0.5),  # as on Beauty, not tried
    "office": SasrecSettings(epochs=76, dropout=0.5, batch=16),
}
