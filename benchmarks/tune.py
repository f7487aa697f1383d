"""Choose the settings of the references on everybody's last training event; test targets are never read.

    python -m benchmarks.tune beauty ease
    python -m benchmarks.tune beauty sasrec --dropout 0.2 0.5 --blocks 1 2

Prints a Markdown table, best last. What is chosen goes into ``benchmarks/chosen.py`` by hand.
"""

import argparse
import itertools
import sys
import time

import numpy as np

from benchmarks.chosen import EaseSettings
from benchmarks.data_sets import FOLDERS, config_of
from benchmarks.sasrec import SasrecSettings, best_epoch
from fedrec.data.histories import Histories
from fedrec.data.splits import leave_last_out
from fedrec.evaluation.baselines import ease
from fedrec.evaluation.masking import Masking, masking_of_targets
from fedrec.evaluation.protocol import evaluate
from simulations.prepare import read_people

JUDGES = 4_000  # people measured, at most; one standard error of NDCG@10 is then about .003
SEED = 0


def main() -> None:
    """Try a grid on one data set and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=FOLDERS)
    parser.add_argument("reference", choices=["ease", "sasrec"])
    parser.add_argument("--ridge", type=float, nargs="+", default=[100.0, 300.0, 1_000.0])
    parser.add_argument("--recent", type=int, nargs="+", default=[1, 3, 10, 10_000])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--patience", type=int, default=20, help="epochs without a better one; a small set needs more")
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.2, 0.5])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--width", type=int, nargs="+", default=[64])
    parser.add_argument("--length", type=int, nargs="+", default=[50])
    parser.add_argument("--batch", type=int, nargs="+", default=[128])
    asked = parser.parse_args()
    config = config_of(asked.set)
    people = read_people(config)
    tried = _try_ease if asked.reference == "ease" else _try_sasrec
    rows = tried(asked, people.split.train, len(people.catalogue), masking_of_targets(config.data))
    print("| settings | best epoch | NDCG@10 | seconds |\n| --- | --- | --- | --- |")
    for told, epoch, value, seconds in sorted(rows, key=lambda row: row[2]):
        print(f"| {told} | {epoch or ''} | {value:.4f} | {seconds:.0f} |")


def _try_ease(
    asked: argparse.Namespace, train: Histories, items: int, masking: Masking
) -> list[tuple[str, int, float, float]]:
    split, rows = leave_last_out(train), []
    judges = np.random.default_rng(SEED).permutation(np.flatnonzero(split.targets.lengths))[:JUDGES]
    for ridge, recent in itertools.product(asked.ridge, asked.recent):
        settings, started = EaseSettings(ridge, recent), time.process_time()
        scorer = ease(split.train, items=items, ridge=ridge, recent=recent)
        value = evaluate(scorer, split, people=judges, items=items, masking=masking).means()["ndcg@10"]
        rows.append(_told(settings, 0, value, time.process_time() - started))
    return rows


def _try_sasrec(
    asked: argparse.Namespace, train: Histories, items: int, masking: Masking
) -> list[tuple[str, int, float, float]]:
    rows = []
    grid = itertools.product(asked.blocks, asked.dropout, asked.width, asked.length, asked.batch)
    for blocks, dropout, width, length, batch in grid:
        settings, started = (
            SasrecSettings(asked.epochs, width, blocks, dropout=dropout, length=length, batch=batch),
            time.process_time(),
        )
        epoch, value = best_epoch(
            train, items=items, settings=settings, masking=masking, seed=SEED, patience=asked.patience, judges=JUDGES
        )
        rows.append(_told(settings, epoch, value, time.process_time() - started))
    return rows


def _told(
    settings: EaseSettings | SasrecSettings, epoch: int, value: float, seconds: float
) -> tuple[str, int, float, float]:
    """A row, also told as it comes, because a grid takes long."""
    print(f"{settings} epoch={epoch} ndcg@10={value:.4f} cpu_s={seconds:.0f}", file=sys.stderr, flush=True)
    return ", ".join(f"{name} {value}" for name, value in vars(settings).items()), epoch, value, seconds


if __name__ == "__main__":
    main()
