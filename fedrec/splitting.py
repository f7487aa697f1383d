"""How a run's budget is split, from its settings and its public base. The same for every kind of run.

Torch is imported where a base is read, so that a plan alone does not wait for it.
"""

from dataclasses import replace
from pathlib import Path

from fedrec.config import Config
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.profiles import BUNDLED_PAIRS, BUNDLED_PARAMETERS, adapter_signal
from fedrec.privacy.replanning import replanned
from fedrec.privacy.splitter import AdapterSignal, Crowd, PairBucket, Split, split_budget
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
    share = config.statistics.noise_share
    if not plan.private:
        counts = bool(pairs_of(folder.base, window=config.pairs.window)) if share is None else share > 0
        return replace(plan, statistics_noise_multiplier=0.0) if counts else plan
    split = split_of(config, plan, base=folder.base, clients=clients)
    write_json(folder.split, split.to_dict())
    return with_release(plan, split)


def split_of(config: Config, plan: PrivacyPlan, *, base: Path | None, clients: int) -> Split:
    """Split a private plan's budget by a base, or by the bundled set's figures where there is none yet.

    Raises:
        RunError: the base is not usable.
    """
    return split_budget(
        plan,
        crowd_of(config, clients=clients),
        pairs=pairs_of(base, window=config.pairs.window) if base else BUNDLED_PAIRS,
        adapter=adapter_of(config, base) if base else adapter_signal(BUNDLED_PARAMETERS, norms=config.adapter.norms),
        share=config.statistics.noise_share,
    )


def with_release(plan: PrivacyPlan, split: Split) -> PrivacyPlan:
    """The plan that pays for what a split gives to counts; the same plan where that is nothing."""
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
    from fedrec.data.histories import Histories
    from fedrec.model.base import PANEL
    from fedrec.model.pair_profile import pair_buckets
    from fedrec.model.pairs import PublicPairs

    judge = Histories.load(base / PANEL) if (base / PANEL).exists() else Histories.from_lists([])
    return pair_buckets(PublicPairs.load(base), judge, window=window)


def adapter_of(config: Config, base: Path) -> AdapterSignal:
    """What the configured adapter on a base can learn from a step."""
    from fedrec.agreeing import adapter_spec
    from fedrec.model.adapters import attach_adapter, trainable_parameters
    from fedrec.model.base import load_base

    ranker = load_base(base)
    attach_adapter(ranker, adapter_spec(config), seed=config.seed)
    numbers = sum(parameter.numel() for parameter in trainable_parameters(ranker).values())
    return adapter_signal(numbers, norms=config.adapter.norms)
