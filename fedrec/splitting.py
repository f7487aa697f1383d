"""How a run's budget is split, from its settings and its public base. The same for every kind of run."""

from dataclasses import replace
from pathlib import Path

from fedrec.agreeing import adapter_spec
from fedrec.config import Config
from fedrec.data.histories import Histories
from fedrec.model.adapters import attach_adapter, trainable_parameters
from fedrec.model.base import PANEL, load_base
from fedrec.model.pair_profile import pair_buckets
from fedrec.model.pairs import PublicPairs
from fedrec.privacy.forecast import replanned
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.profiles import adapter_signal
from fedrec.privacy.splitter import AdapterSignal, Crowd, PairBucket, split_budget
from fedrec.runfolder import RunFolder, write_json


def pay_for_counts(config: Config, plan: PrivacyPlan, *, folder: RunFolder, clients: int) -> PrivacyPlan:
    """Take from a plan's rounds what the one release of counts is to get, and note why in ``split.json``.

    Args:
        plan: all of whose budget is for the rounds. Without privacy there is none to split: counts leave without
            noise, where nobody says otherwise and there is a panel to weigh them on.
        folder: with the run's base; the base's panel was not counted in its pairs.
        clients: all there are.

    Returns:
        The plan that pays for both.

    Raises:
        PrivacyError: no noise reaches the promise.
    """
    share, pairs = config.statistics.noise_share, pairs_of(folder.base, window=config.pairs.window)
    if not plan.private:
        counts = bool(pairs) if share is None else share > 0
        return replace(plan, statistics_noise_multiplier=0.0) if counts else plan
    crowd, adapter = crowd_of(config, clients=clients), adapter_of(config, folder.base)
    split = split_budget(plan, crowd, pairs=pairs, adapter=adapter, share=share)
    write_json(folder.split, split.to_dict())
    if split.noise_multiplier is None:
        return plan
    return replanned(plan, statistics_noise_multiplier=split.noise_multiplier)


def crowd_of(config: Config, *, clients: int) -> Crowd:
    """Who is summed and how the sum is read, from the settings."""
    return Crowd(
        clients=clients,
        clients_per_round=min(config.clients_per_round, clients),
        threshold=config.statistics.threshold,
        popularity_share=config.statistics.popularity_share,
    )


def pairs_of(base: Path, *, window: int) -> tuple[PairBucket, ...]:
    """Measure a base's pairs on its panel; nothing where it has none, so nobody could weigh what is counted."""
    judge = Histories.load(base / PANEL) if (base / PANEL).exists() else Histories.from_lists([])
    return pair_buckets(PublicPairs.load(base), judge, window=window)


def adapter_of(config: Config, base: Path) -> AdapterSignal:
    """What the configured adapter on a base can learn from a step."""
    ranker = load_base(base)
    attach_adapter(ranker, adapter_spec(config), seed=config.seed)
    numbers = sum(parameter.numel() for parameter in trainable_parameters(ranker).values())
    return adapter_signal(numbers, norms=config.adapter.norms)
