"""Impressions whose clicks follow a rule that a head can learn, and heads for them."""

import numpy as np

from fedrec.agreement import HeadSpec
from fedrec.model.clicks import click_schema, start_arrays
from fedrec.model.impressions import Category, ClickSpec, Impressions
from fedrec.schema import Arrays
from simulations.heads import Course, Head

SPEC = ClickSpec(
    numbers=("price", "score"),
    number_bins=3,
    categories=(Category("device", ("desk", "phone")), Category("brand", ("", "brand 0", "brand 1", "brand 2"))),
)
COURSE = Course("run-1", server_learning_rate=0.3, warmup_rounds=2, ema=0.5, seed=0)


def columns(impressions: int, *, seed: int = 0) -> dict[str, list[object]]:
    """Made-up impressions by column."""
    rng = np.random.default_rng(seed)
    return {
        "price": rng.integers(0, 9, impressions).tolist(),
        "score": rng.normal(0, 3, impressions).tolist(),
        "device": rng.choice(["phone", "desk"], impressions).tolist(),
        "brand": [None if draw > 5 else f"brand {draw}" for draw in rng.integers(0, 8, impressions)],
    }


def clicks(shown: dict[str, list[object]], *, seed: int = 1) -> np.ndarray:
    """Phones click, and high scores do."""
    odds = np.array([2.0 * (device == "phone") - 1.5 for device in shown["device"]]) + 0.4 * np.array(shown["score"])
    return np.random.default_rng(seed).random(len(odds)) < 1 / (1 + np.exp(-odds))


def impressions(*counts: int, seed: int = 0) -> Impressions:
    """People who were shown so many things each."""
    shown = columns(sum(counts), seed=seed)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Impressions(offsets, SPEC.read(shown), clicks(shown, seed=seed + 1))


def moved(*, seed: int = 2, size: float = 1.0) -> Arrays:
    """A head that has learned something, whatever it is."""
    rng = np.random.default_rng(seed)
    start = start_arrays(SPEC, click_rate=0.3)
    return {name: values + size * rng.normal(size=values.shape).astype(np.float32) for name, values in start.items()}


def head() -> Head:
    """What the tests train."""
    return Head(HeadSpec("clicks"), SPEC.digest(), click_schema(SPEC), start_arrays(SPEC, click_rate=0.3))
