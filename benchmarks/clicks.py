"""The tables of ``docs/clicks.md``: the sample of Criteo's display ads (8,000 impressions; non-commercial research).

A private row takes about forty seconds of one core a seed or fold, most of it for ledgers; others about fifteen.

python -m benchmarks.clicks test [ROW ...]    # the sample's own test part, three seeds
python -m benchmarks.clicks folds [ROW ...]   # five-fold cross-validation over all 8,000 impressions

Files in ``criteo_sample`` in the folder that ``benchmarks.data_sets`` names. One impression counts as one person.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from benchmarks.data_sets import DATA
from fedrec.config_clicks import ClicksConfig
from fedrec.data.click_table import ClickTable
from fedrec.errors import ConfigError
from fedrec.evaluation.calibration import area_under_curve, error_by_chance, log_loss, reliability
from fedrec.model.impressions import ClickSpec, Impressions
from simulations.clicks import part, train_clicks

NUMBERS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = tuple(f"C{number}" for number in range(1, 27))
CLIENTS, SEEDS, FOLDS = 8, (0, 1, 2), 5
BASELINE_PENALTY = 0.03  # C of the logistic regression; of .01, .03, .1, .3 the best log loss in five folds of train
Predict = Callable[[np.ndarray], np.ndarray]
# Without noise nothing speaks for cutting gradients, and smaller steps learn the better head.
WITHOUT_NOISE = {"clip_norm": 1.0, "server_learning_rate": 0.1}
POOLED, PUBLIC = "logistic regression (scikit-learn), everybody in one place", "the same, public people alone"
SETTINGS: dict[str, dict[str, Any]] = {
    POOLED: {},
    PUBLIC: {},
    "head, no noise": WITHOUT_NOISE,
    "head, epsilon 8": {"epsilon": 8.0},
    "head, epsilon 3": {"epsilon": 3.0},
    "head, epsilon 8, shared noise": {"epsilon": 8.0, "trust": "distributed"},
    "head, epsilon 3, shared noise": {"epsilon": 3.0, "trust": "distributed"},
}


def read_sample(*names: str, folder: Path = DATA / "criteo_sample") -> ClickTable:
    """Read some of ``train``, ``dev`` and ``test``, one after the other; each impression is a person of its own.

    Raises:
        ConfigError: a file is not there.
    """
    columns = ["label", *NUMBERS, *CATEGORIES]
    types = {"label": pl.Int8} | dict.fromkeys(NUMBERS, pl.Float64) | dict.fromkeys(CATEGORIES, pl.String)
    frames = []
    for path in (folder / f"{name}.tsv" for name in names):
        if not path.exists():
            raise ConfigError(f"{path}: not there; set FEDREC_TEST_DATA")
        frames.append(pl.read_csv(path, separator="\t", has_header=False, new_columns=columns, schema_overrides=types))
    frame = pl.concat(frames)
    return ClickTable(np.arange(frame.height), frame.drop("label"), frame["label"].to_numpy().astype(bool))


def baseline(spec: ClickSpec, groups: Sequence[Impressions]) -> Predict:
    """Logistic regression on the same slots, all groups in one place."""

    def design(slots: np.ndarray) -> np.ndarray:
        ones = np.zeros((len(slots), spec.slots), dtype=np.float32)
        np.put_along_axis(ones, slots, 1.0, axis=1)
        return ones

    model = LogisticRegression(C=BASELINE_PENALTY, solver="liblinear", max_iter=300)
    model.fit(design(np.concatenate([one.slots for one in groups])), np.concatenate([one.clicked for one in groups]))
    return lambda slots: model.predict_proba(design(slots))[:, 1]


def predicted(name: str, train: ClickTable, held_out: ClickTable, *, seed: int) -> np.ndarray:
    """Train one row of the table, and predict what it has not seen, (E,)."""
    changes = SETTINGS[name]
    config = ClicksConfig(**changes)
    parted = part(train, config, numbers=NUMBERS, categories=CATEGORIES, clients=CLIENTS, seed=seed)
    slots = held_out.read(parted.spec).slots
    if name in (POOLED, PUBLIC):
        groups = (parted.panel, *parted.clients) if name == POOLED else (parted.panel,)
        return baseline(parted.spec, groups)(slots)
    with tempfile.TemporaryDirectory() as folder:
        private = changes is not WITHOUT_NOISE
        return train_clicks(parted, config, private=private, folder=Path(folder) / "run", seed=seed).head.probabilities(
            slots
        )


def measures(said: np.ndarray, clicked: np.ndarray) -> list[float]:
    """AUC, log loss, calibration error, and what that would be by chance."""
    by_chance = error_by_chance(said, rng=np.random.default_rng(0), draws=200)
    return [area_under_curve(said, clicked), log_loss(said, clicked), reliability(said, clicked).error, by_chance]


def on_test(name: str, *, seed: int) -> list[float]:
    """Trained on train and dev, measured on test."""
    train, test = read_sample("train", "dev"), read_sample("test")
    return measures(predicted(name, train, test, seed=seed), test.clicked)


def in_folds(name: str) -> list[float]:
    """All impressions dealt into folds; each is predicted by what learned from the others."""
    everything = read_sample("train", "dev", "test")
    fold_of = np.random.default_rng(0).permutation(len(everything.clicked)) % FOLDS
    said = np.zeros(len(fold_of))
    for fold in range(FOLDS):
        is_held = fold_of == fold
        said[is_held] = predicted(name, everything.where(~is_held), everything.where(is_held), seed=fold)
    return measures(said, everything.clicked)


def print_row(name: str, found: np.ndarray) -> None:
    """One line of a table: means, and standard deviations over the seeds where there are some."""
    spread = found.std(axis=0, ddof=1) if len(found) > 1 else np.full(found.shape[1], np.nan)
    cells = [
        f"{mean:.4f}" if np.isnan(deviation) else f"{mean:.4f} ± {deviation:.4f}"
        for mean, deviation in zip(found.mean(axis=0), spread, strict=True)
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print one of the two tables, or some rows of it: ``test 1 2`` for the second and third."""
    kind, chosen = sys.argv[1], [list(SETTINGS)[int(row)] for row in sys.argv[2:]] or list(SETTINGS)
    print("| | AUC | log loss | ECE, 15 bins | ECE by chance |\n| --- | --- | --- | --- | --- |")
    for name in chosen:
        found = [in_folds(name)] if kind == "folds" else [on_test(name, seed=seed) for seed in SEEDS]
        print_row(name, np.array(found))


if __name__ == "__main__":
    main()
