"""From raw events to a federation that is ready to run: people, panel, clients, public base, agreement.

Everything here is deterministic in the configuration, so a resumed run prepares the same federation.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedrec.agreement import FILE as AGREEMENT_FILE
from fedrec.agreement import Agreement, read_agreement, write_agreement
from fedrec.config import Config
from fedrec.data import load
from fedrec.data.catalogue import Catalogue
from fedrec.data.histories import Histories, build_histories
from fedrec.data.partitions import Partition, make_partition, write_manifest
from fedrec.data.rules import RuleCount
from fedrec.data.splits import Split, leave_last_out, next_basket, time_cut
from fedrec.errors import ConfigError, DataError, PrivacyError, RunError
from fedrec.model.adapters import AdapterSpec
from fedrec.model.base import base_digest
from fedrec.model.making import adopt_base, make_base
from fedrec.privacy.plan import PrivacyPlan
from fedrec.report.progress import Progress
from fedrec.runfolder import RunFolder
from fedrec.workspace import make_keys, open_budgets, write_workspace

MANIFEST = "partition.json"


@dataclass(frozen=True, eq=False)
class People:
    """Who there is, what is held out, and who is where. Only a simulation sees all of it at once.

    Attributes:
        catalogue: the public items.
        split: what may be learned from and what is asked, for everyone.
        partition: panel, clients, left out.
        panel_fit: panel members the base is trained on.
        panel_judge: panel members the server measures rounds on.
        rules: what cleaning dropped.
        events: rows left after cleaning.
    """

    catalogue: Catalogue
    split: Split
    partition: Partition
    panel_fit: np.ndarray
    panel_judge: np.ndarray
    rules: list[RuleCount]
    events: int

    @property
    def private(self) -> np.ndarray:
        """Everyone who is at a client, sorted."""
        return np.sort(np.concatenate(self.partition.clients))


def read_people(config: Config, *, manifest: Path | None = None) -> People:
    """Read, split and partition the people as the configuration says; ``manifest`` is written when named.

    Raises:
        DataError: the data cannot be used as they are.
        ConfigError: a setting does not fit the data.
    """
    events, catalogue, rules = load(config.data)
    keeps_baskets = config.data.split == "next-basket"  # a basket that begins with the last item bought is a target too
    histories, people = build_histories(
        events,
        catalogue,
        min_events=config.data.min_events,
        merge_repeats=config.data.merge_repeats and not keeps_baskets,
        max_history=None if keeps_baskets else config.data.max_history,
    )
    partition = make_partition(
        config.partition.scheme,
        people=people,
        clients=config.partition.clients,
        people_per_client=config.partition.people_per_client,
        panel_fraction=config.partition.panel_fraction,
        dirichlet_alpha=config.partition.dirichlet_alpha,
        seed=config.seed,
    )
    if manifest is not None:
        write_manifest(partition, people, manifest)
    split = _split(config, histories)
    if not any(split.targets.lengths[client].any() for client in partition.clients):
        raise DataError(
            "nobody at a client has a held-out target; move data.time_cut, raise data.max_history or bring more data"
        )
    judged = round(config.pretraining.judge_share * len(partition.panel))
    shuffled = np.random.default_rng(config.seed).permutation(partition.panel)
    fit, judge = np.sort(shuffled[judged:]), np.sort(shuffled[:judged])
    return People(catalogue, split, partition, fit, judge, rules, events.height)


def prepare(config: Config, folder: RunFolder, people: People, progress: Progress) -> Agreement:
    """Make the base and everything the two sides need, in the run folder; read it back when it is there.

    Raises:
        RunError: the folder was prepared from other data.
        PrivacyError: the privacy settings admit no plan.
    """
    if (folder.path / AGREEMENT_FILE).exists():
        agreement = read_agreement(folder.path)
        if agreement.run_id != _run_id(config, people):
            raise RunError(f"{folder.path}: was prepared from other data or settings; choose another --out")
        return agreement
    plan = make_plan(config, people.partition)
    train = people.split.train
    fit, judge = train.subset(people.panel_fit), train.subset(people.panel_judge)
    if config.pretraining.base is None:
        make_base(config, people.catalogue, folder.base, fit=fit, judge=judge, progress=progress)
    else:
        adopt_base(config.pretraining.base, folder.base, items=len(people.catalogue), judge=judge)
    write_workspace(folder.path, people.split.train, people.partition.clients)
    agreement = Agreement(
        run_id=_run_id(config, people),
        base_digest=base_digest(folder.base),
        adapter=adapter_spec(config),
        plan=plan,
        local_learning_rate=config.federation.local_learning_rate,
        mask_last=config.data.merge_repeats,
        negatives=_negatives(config, len(people.catalogue)),
        seed=config.seed,
        server_key=make_keys(folder.path),
        metrics=config.privacy.metrics,
        metrics_every=config.privacy.metrics_every,
    )
    open_budgets(folder.path, agreement, clients=len(people.partition.clients))
    write_agreement(agreement, folder.path)  # last: its presence says that all the rest is there
    return agreement


def make_plan(config: Config, partition: Partition) -> PrivacyPlan:
    """Build the privacy plan of a run from its settings.

    Raises:
        PrivacyError: the settings admit no plan.
        ConfigError: metrics are asked for, but no round releases any.
    """
    settings = config.privacy
    if settings.trust != "local":
        raise PrivacyError(
            f"privacy.trust={settings.trust}: needs a secure sum or a trusted server, and there is neither; use local"
        )
    public: dict[str, Any] = {
        "sampling_rate": settings.sampling_rate,
        "rounds": config.federation.rounds,
        "local_steps": config.federation.local_steps,
        "clip_norm": settings.clip_norm,
        "clipping": settings.clipping,
        "expected_people": settings.expected_people or partition.nominal_people,
        "batch_cap": settings.batch_cap,
        "max_people": settings.max_people,
        "metric_releases": _metric_releases(config),
    }
    if not settings.enabled:
        return PrivacyPlan.without_privacy(**public)
    noise = settings.metric_noise_multiplier if settings.metrics else None
    return PrivacyPlan.calibrate(settings.epsilon, settings.delta, **public, metric_noise_multiplier=noise)


def _metric_releases(config: Config) -> int:
    """How many times each client releases metrics in the whole run."""
    every, rounds = config.privacy.metrics_every, config.federation.rounds
    if config.privacy.metrics and every > rounds:
        raise ConfigError(
            f"privacy.metrics_every={every}: expected at most federation.rounds={rounds}, or no metric is ever released"
        )
    return rounds // every if config.privacy.metrics else 0


def adapter_spec(config: Config) -> AdapterSpec:
    """Return what learns, from the configuration."""
    adapter = config.adapter
    return AdapterSpec(
        kind=adapter.kind, rank=adapter.rank, targets=adapter.targets, norms=adapter.norms, gains=adapter.gains
    )


def _split(config: Config, histories: Histories) -> Split:
    if config.data.split == "leave-last-out":
        return leave_last_out(histories)
    split = next_basket(histories, cut=time_cut(histories, date=config.data.time_cut))
    train = split.train.without_repeats() if config.data.merge_repeats else split.train
    return Split(train.latest(config.data.max_history), split.targets)


def _negatives(config: Config, items: int) -> int | None:
    return config.model.negatives if items > config.model.full_softmax else None


def _run_id(config: Config, people: People) -> str:
    """Name the run by its settings and data: equal exactly when both are, wherever the files lie."""
    digest = hashlib.sha256(config.model_dump_json(exclude={"data": {"events", "catalogue"}}).encode())
    digest.update(people.catalogue.digest().encode())
    for histories in (people.split.train, people.split.targets):
        for array in (histories.items, histories.offsets, histories.timestamps):
            digest.update(np.ascontiguousarray(array).tobytes())
    for group in (*people.partition.clients, people.panel_fit, people.panel_judge):
        digest.update(np.ascontiguousarray(group).tobytes())
    return digest.hexdigest()[:32]
