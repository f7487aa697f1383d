"""How a merchant's memory is made: as configured, of its own people."""

from clients.memory import MemorySpec
from fedrec.config import LocalConfig


def memory_spec(local: LocalConfig) -> MemorySpec:
    """How merchants remember, as configured."""
    return MemorySpec(
        weight=local.memory_weight,
        sharpness=local.memory_sharpness,
        window=local.memory_window,
        recent=local.memory_recent,
        decay=local.memory_decay,
        shrinkage=local.memory_shrinkage,
        repeat_weight=local.repeat_weight,
        repeat_decay=local.repeat_decay,
        basket_weight=local.basket_weight,
        popular_weight=local.popular_weight,
        popular_half_life_days=local.popular_half_life_days,
        popular_shrinkage=local.popular_shrinkage,
    )
