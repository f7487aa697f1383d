"""How the weights of a merchant's own memory were chosen: on the public panel, each fold of it playing one merchant.

    python benchmarks/choose_memory.py runs/memory --split next-basket

Four bases, each from three quarters of the panel, are made once and kept in the folder. The held-out quarter
fine-tunes as a merchant does and its targets judge: the last event of each, or the first basket after each of four
dates. Nobody at a client is looked at. Each line of the table changes the defaults in the way that it names.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from clients.memory import LocalMemory, MemorySpec
from clients.personal import FineTuning, fine_tune
from clients.remembering import memory_spec
from clients.training import LocalTraining
from fedrec.agreeing import adapter_spec
from fedrec.config import Config, parse_config
from fedrec.data.splits import Split
from fedrec.evaluation.masking import masking_of_targets
from fedrec.evaluation.protocol import evaluate
from fedrec.model.adapters import adapter_arrays, attach_adapter, load_adapter_arrays
from fedrec.model.base import load_base
from fedrec.model.making import make_base
from fedrec.model.popularity import popularity_shares
from fedrec.report.progress import Progress
from simulations.prepare import People, read_people
from simulations.rows import ranker_scorer

FOLDS = 4
CUTS = ("2011-11-11", "2011-10-14", "2011-09-16", "2011-08-19")  # the bases are of the first, the latest
METRICS = ("ndcg@10", "recall@20", "ndcg@20")
OFF = {"weight": 0.0, "repeat_weight": 0.0, "basket_weight": 0.0, "popular_weight": 0.0}
CHANGES: dict[str, list[dict[str, float | None]]] = {
    "leave-last-out": [
        *({"repeat_weight": weight} for weight in (0.0, 7.0, 10.0, 20.0)),
        *({"repeat_decay": decay} for decay in (1.0, 0.8)),
        *({"basket_weight": weight} for weight in (0.0, 2.0, 4.0, 16.0)),
        *({"popular_weight": weight} for weight in (0.0, 0.1, 0.6, 1.0)),
        *({"popular_half_life_days": days} for days in (20.0, 60.0)),
        *({"popular_shrinkage": sales} for sales in (0.0, 1e3, 1e5)),
        *({"weight": weight} for weight in (0.0, 1.0, 2.0)),
    ],
    "next-basket": [
        *({"repeat_weight": weight} for weight in (0.0, 14.0, 40.0, 80.0, 120.0, 240.0)),
        *({"repeat_decay": decay} for decay in (1.0, 0.95, 0.8, 0.7)),
        *({"basket_weight": weight} for weight in (2.0, 8.0)),
        *({"popular_weight": weight} for weight in (0.0, 2.0, 5.0, 15.0, 20.0)),
        *({"popular_half_life_days": days} for days in (None, 60.0, 30.0, 14.0)),
        *({"popular_shrinkage": sales} for sales in (0.0, 1e3, 1e5)),
        *({"weight": weight} for weight in (0.0, 3.0)),
    ],
}


@dataclass(frozen=True, eq=False)
class Stage:
    """One merchant at one time.

    Attributes:
        people: everyone at that time.
        config: its settings.
        merchant: the held-out fold, (M,) indices.
        others: the rest of the panel, whose popularity is the public prior.
        shared: what the merchant's fine-tuned ranker gives each of ``merchant``, (M, I) float32.
    """

    people: People
    config: Config
    merchant: np.ndarray
    others: np.ndarray
    shared: np.ndarray

    @property
    def split(self) -> Split:
        """What is known and what is asked."""
        return self.people.split


def main() -> None:
    """Make the bases that are missing and print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=CHANGES, required=True)
    arguments = parser.parse_args()
    stages = list(make_stages(arguments.folder, arguments.split))
    spec = memory_spec(stages[0].config.local)
    asked = sum(int((stage.split.targets.lengths[stage.merchant] > 0).sum()) for stage in stages)
    print(f"| {arguments.split}, {asked} questions | " + " | ".join(METRICS) + " |\n|" + " --- |" * (len(METRICS) + 1))
    for name, change in [
        ("no memory", OFF),
        ("transitions alone", OFF | {"weight": spec.weight}),
        (f"defaults: {told(spec)}", {}),
        *((told(change), change) for change in CHANGES[arguments.split]),
    ]:
        means = judge(stages, replace(spec, **change))  # type: ignore[arg-type]
        print(f"| {name} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |", flush=True)


def make_stages(folder: Path, split: str) -> Iterator[Stage]:
    """Each fold at each date, its base made when the folder does not hold it."""
    for cut in CUTS if split == "next-basket" else (None,):
        data = {"split": split} | ({} if cut is None else {"time_cut": cut})
        config = parse_config({"data": data}, source="benchmark")
        people = read_people(config)
        panel = people.partition.panel
        for number, merchant in enumerate(np.array_split(np.random.default_rng(0).permutation(panel), FOLDS)):
            merchant, others = np.sort(merchant), np.setdiff1d(panel, merchant)
            base, train = folder / f"{split}-base{number}", people.split.train
            if not (base / "ranker.json").exists():
                with Progress() as progress:
                    fit, judge_people = train.subset(others), train.subset(merchant)
                    make_base(config, people.catalogue, base, fit=fit, judge=judge_people, progress=progress)
            yield Stage(people, config, merchant, others, merchant_scores(config, base, people, merchant))


def merchant_scores(config: Config, base: Path, people: People, merchant: np.ndarray) -> np.ndarray:
    """What the ranker gives the merchant's people once it is fine-tuned on them, (M, I)."""
    ranker = load_base(base)
    attach_adapter(ranker, adapter_spec(config), seed=config.seed)
    histories = people.split.train.subset(merchant)
    tuned = fine_tune(
        ranker,
        adapter_arrays(ranker),
        histories,
        tuning=FineTuning(config.local.tuning_steps, config.local.tuning_rate),
        training=LocalTraining(mask_last=config.data.merge_repeats, negatives=None, seed=config.seed),
    )
    load_adapter_arrays(ranker, tuned)
    known = np.flatnonzero(histories.lengths)
    scores = np.zeros((len(merchant), ranker.items), np.float32)
    scores[known] = ranker_scorer(ranker, histories)(known)
    return scores


def judge(stages: list[Stage], spec: MemorySpec) -> list[float]:
    """The mean of each metric over all questions of all stages."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for stage in stages:
        train, items = stage.split.train, stage.shared.shape[1]
        prior = popularity_shares(train.subset(stage.others), items=items, half_life_days=spec.popular_half_life_days)
        memory = LocalMemory.of(train.subset(stage.merchant), spec, items=items, prior=prior)

        def score(people: np.ndarray, stage: Stage = stage, memory: LocalMemory = memory) -> np.ndarray:
            known = stage.split.train
            local = [memory.scores(known.of(int(person)), known.times(int(person))) for person in people]
            return stage.shared[np.searchsorted(stage.merchant, people)] + np.stack(local)

        masking = masking_of_targets(stage.config.data)
        evaluation = evaluate(score, stage.split, people=stage.merchant, items=items, masking=masking)
        for name, values in found.items():
            values.append(evaluation.per_person[name])
    return [float(np.concatenate(values).mean()) for values in found.values()]


def told(settings: MemorySpec | dict[str, float | None]) -> str:
    """``repeat_weight 14, ...`` of what the table varies."""
    values = settings if isinstance(settings, dict) else vars(settings)
    varied = {
        name: value
        for name, value in values.items()
        if name.startswith(("repeat", "basket", "popular")) or len(values) == 1
    }
    return ", ".join(f"{name} {value}" for name, value in varied.items())


if __name__ == "__main__":
    main()
