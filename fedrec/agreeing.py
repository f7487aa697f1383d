"""From settings to what a federation agrees on: the privacy plan, the adapter, the agreement itself.

One way for both: the federation on separate machines and the simulated one.
"""

from typing import Any

from fedrec.agreement import Agreement
from fedrec.config import Config
from fedrec.errors import ConfigError
from fedrec.model.adapters import AdapterSpec
from fedrec.model.making import negatives_for
from fedrec.model.statistics import StatisticsSpec
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.trust import DISTRIBUTED, LOCAL, require_local


def make_plan(config: Config, *, people_per_client: int, is_simulated: bool = False) -> PrivacyPlan:
    """Build the privacy plan of a run from its settings, all of whose budget is for its rounds.

    ``fedrec.splitting.pay_for_counts`` takes the counts' share from it, once there is a base to choose by.

    Args:
        people_per_client: public nominal size of a client, where the settings name no ``expected_people``.
        is_simulated: all clients are pretended ones in a place of ours; any other run has local trust alone.

    Raises:
        PrivacyError: the settings admit no plan.
        ConfigError: metrics are asked for, but no round releases any; or a setting does not go with the trust model.
    """
    settings = config.privacy
    if not is_simulated:
        require_local(settings.trust)
    _check_trust(config)
    public: dict[str, Any] = {
        "sampling_rate": settings.sampling_rate,
        "rounds": config.federation.rounds,
        "local_steps": config.federation.local_steps,
        "clip_norm": settings.clip_norm,
        "clipping": settings.clipping,
        "expected_people": settings.expected_people or people_per_client,
        "batch_cap": settings.batch_cap,
        "max_people": settings.max_people,
        "metric_releases": _metric_releases(config),
    }
    if not settings.enabled:
        return PrivacyPlan.without_privacy(**public)
    noise = settings.metric_noise_multiplier if settings.metrics else None
    return PrivacyPlan.calibrate(
        settings.epsilon,
        settings.delta,
        **public,
        metric_noise_multiplier=noise,
        trust=settings.trust,
        noise_sharers=config.clients_per_round if settings.trust == DISTRIBUTED else 1,
    )


def make_agreement(
    config: Config, plan: PrivacyPlan, *, run_id: str, base_digest: str, items: int, server_key: str
) -> Agreement:
    """Put together what server and clients agree on.

    Args:
        run_id: names the run on the wire and in the ledgers.
        base_digest: of the base that was adopted or made.
        items: of the catalogue.
        server_key: the server's public key, 64 hex digits.
    """
    return Agreement(
        run_id=run_id,
        base_digest=base_digest,
        adapter=adapter_spec(config),
        plan=plan,
        local_learning_rate=config.federation.local_learning_rate,
        mask_last=config.data.merge_repeats,
        negatives=negatives_for(config, items=items),
        seed=config.seed,
        server_key=server_key,
        metrics=config.privacy.metrics,
        metrics_every=config.privacy.metrics_every,
        statistics=_statistics_spec(config, plan),
    )


def adapter_spec(config: Config) -> AdapterSpec:
    """Return what learns, from the configuration."""
    adapter = config.adapter
    return AdapterSpec(
        kind=adapter.kind, rank=adapter.rank, targets=adapter.targets, norms=adapter.norms, gains=adapter.gains
    )


def _statistics_spec(config: Config, plan: PrivacyPlan) -> StatisticsSpec | None:
    """How people are counted, in the same window as public pairs; None where nothing is released."""
    if plan.statistics_noise_multiplier is None:
        return None
    return StatisticsSpec(config.pairs.window, config.statistics.popularity_share)


def _check_trust(config: Config) -> None:
    """Refuse what does not go with noise on the sum: the plain sum of one step of everybody who was asked, no less."""
    privacy, federation = config.privacy, config.federation
    if privacy.trust == LOCAL:
        return
    shares = privacy.trust == DISTRIBUTED
    plain = "only the plain sum carries the noise"
    refused = {
        "privacy.enabled to true": (not privacy.enabled, "without noise there is nobody to trust with it"),
        "privacy.metrics to none": (bool(privacy.metrics), "a client's metrics leave alone, not in a sum"),
        "federation.aggregation to mean": (federation.aggregation != "mean", plain),
        "federation.weights to uniform": (federation.weights != "uniform", plain),
        "federation.local_steps to 1": (
            federation.local_steps > 1,
            "a second step would start without the sum's noise",
        ),
        "federation.over_selection to 1": (federation.over_selection > 1, "the sum is of everybody who was asked"),
        "federation.min_replies to 1": (shares and config.min_replies < 1, "fewer replies carry less than the noise"),
    }
    for mend, (is_refused, why) in refused.items():
        if is_refused:
            raise ConfigError(f"privacy.trust={privacy.trust}: {why}; set {mend}, or use trust=local")


def _metric_releases(config: Config) -> int:
    """How many times each client releases metrics in the whole run."""
    every, rounds = config.privacy.metrics_every, config.federation.rounds
    if config.privacy.metrics and every > rounds:
        raise ConfigError(
            f"privacy.metrics_every={every}: expected at most federation.rounds={rounds}, or no metric is ever released"
        )
    return rounds // every if config.privacy.metrics else 0
