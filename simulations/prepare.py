"""From raw events to a federation that is ready to run: people, panel, clients, public base, agreement.

Everything here is deterministic in the configuration, so a resumed run prepares the same federation.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedrec.agreeing import make_agreement, make_plan
from fedrec.agreement import FILE as AGREEMENT_FILE
from fedrec.agreement import Agreement, read_agreement, write_agreement
from fedrec.config import Config
from fedrec.data import load
from fedrec.data.catalogue import Catalogue
from fedrec.data.histories import Histories, build_histories
from fedrec.data.partitions import Partition, make_partition, people_by_item, write_manifest
from fedrec.data.rules import RuleCount
from fedrec.data.splits import Split, draw_cold_items, hold_out_items, leave_last_out, next_basket, time_cut
from fedrec.errors import ConfigError, DataError, RunError
from fedrec.evaluation.masking import Masking, masking_of_targets, refuse_repeats
from fedrec.model.base import base_digest
from fedrec.model.making import adopt_base, make_base
from fedrec.report.progress import Progress
from fedrec.runfolder import RunFolder
from fedrec.splitting import pay_for_counts
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
        """Everyone who is at a client of the federation, sorted."""
        return np.sort(np.concatenate(self.partition.clients))


def read_people(config: Config, *, manifest: Path | None = None) -> People:
    """Read, split and partition the people as the configuration says; ``manifest`` is written when named.

    Raises:
        DataError: the data cannot be used as they are.
        ConfigError: a setting does not fit the data.
    """
    events, catalogue, rules = load(config.data)
    events = people_by_item(events, catalogue, scheme=config.partition.scheme)
    keeps_baskets = config.data.split == "next-basket"  # a basket that begins with the last item bought is a target too
    histories, people = build_histories(
        events,
        catalogue,
        min_events=config.data.min_events,
        merge_repeats=config.data.merge_repeats and not keeps_baskets,
        max_history=None if keeps_baskets else config.data.max_history,
    )
    if config.data.mask_history:
        refuse_repeats(histories)
    partition = make_partition(
        config.partition.scheme,
        people=people,
        clients=config.partition.clients,
        people_per_client=config.partition.people_per_client,
        panel_fraction=config.partition.panel_fraction,
        dirichlet_alpha=config.partition.dirichlet_alpha,
        seed=config.seed,
        held_out=config.partition.held_out_clients,
    )
    if manifest is not None:
        write_manifest(partition, people, manifest)
    split = _without_cold(config, _split(config, histories), partition, items=len(catalogue))
    for merchants in filter(None, (partition.clients, partition.held_out)):
        if not split.targets.lengths[np.concatenate(merchants)].any():
            raise DataError(
                f"nobody at a {'client' if merchants is partition.clients else 'held-out merchant'} has a held-out "
                "target; move data.time_cut, raise data.max_history or bring more data"
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
    plan = make_plan(config, people_per_client=people.partition.nominal_people, is_simulated=True)
    train = people.split.train
    fit, judge = train.subset(people.panel_fit), train.subset(people.panel_judge)
    if config.pretraining.base is None:
        make_base(config, people.catalogue, folder.base, fit=fit, judge=judge, progress=progress)
    else:
        adopt_base(config.pretraining.base, folder.base, catalogue=people.catalogue, judge=judge)
    write_workspace(folder.path, people.split.train, people.partition.clients)
    plan = pay_for_counts(config, plan, folder=folder, clients=len(people.partition.clients))
    agreement = make_agreement(
        config,
        plan,
        run_id=_run_id(config, people),
        base_digest=base_digest(folder.base),
        items=len(people.catalogue),
        server_key=make_keys(folder.path),
    )
    open_budgets(folder.path, agreement, clients=len(people.partition.clients))
    write_agreement(agreement, folder.path)  # last: its presence says that all the rest is there
    return agreement


def _split(config: Config, histories: Histories) -> Split:
    if config.data.split == "leave-last-out":
        return leave_last_out(histories)
    split = next_basket(histories, cut=time_cut(histories, date=config.data.time_cut))
    train = split.train.without_repeats() if config.data.merge_repeats else split.train
    return Split(train.latest(config.data.max_history), split.targets)


def _without_cold(config: Config, split: Split, partition: Partition, *, items: int) -> Split:
    """Let nobody learn from the items that are to be cold."""
    if not config.data.cold_items:
        return split
    if config.pretraining.base is not None:
        raise ConfigError(
            "data.cold_items: the base of pretraining.base may have learned from the items; leave out one of the two"
        )
    asked = split.targets.subset(np.concatenate(partition.everywhere))
    return hold_out_items(
        split,
        draw_cold_items(asked, items=items, share=config.data.cold_items, seed=config.seed),
        merge_repeats=config.data.merge_repeats,
        masks_last=masking_of_targets(config.data) is Masking.LAST,
    )


def _run_id(config: Config, people: People) -> str:
    """Name the run by its settings and data: equal exactly when both are, wherever the files lie."""
    digest = hashlib.sha256(config.model_dump_json(exclude={"data": {"events", "catalogue"}}).encode())
    digest.update(people.catalogue.digest().encode())
    for histories in (people.split.train, people.split.targets):
        for array in (histories.items, histories.offsets, histories.timestamps):
            digest.update(np.ascontiguousarray(array).tobytes())
    for group in (*people.partition.everywhere, people.panel_fit, people.panel_judge):
        digest.update(np.ascontiguousarray(group).tobytes())
    return digest.hexdigest()[:32]
