"""A click head from impressions of many people: some are public, the rest are at the clients of a federation."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clients.clicking import ClickLearner
from fedrec.agreement import HeadSpec
from fedrec.config_clicks import ClicksConfig
from fedrec.data.click_table import ClickTable
from fedrec.errors import DataError
from fedrec.model.clicks import ClickHead, click_schema, start_arrays
from fedrec.model.impressions import ClickSpec, Impressions
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.trust import DISTRIBUTED
from simulations.heads import Course, Federated, Head, federate_head, new_server


class Parted(NamedTuple):
    """How impressions are read, who is public, and who is at which client."""

    spec: ClickSpec
    panel: Impressions
    clients: tuple[Impressions, ...]


class Trained(NamedTuple):
    """A calibrated head, the promise to the people it learned from, and its rounds."""

    head: ClickHead
    plan: PrivacyPlan
    federated: Federated


def kept_apart(table: ClickTable, *, share: float, seed: int) -> tuple[ClickTable, ClickTable]:
    """Draw a share of the people, in (0, 1), to measure on; returns their impressions, and everybody else's."""
    ids, person = np.unique(table.people, return_inverse=True)
    drawn = np.random.default_rng([seed, len(ids)]).permutation(len(ids))[: round(share * len(ids))]
    is_kept = np.isin(person, drawn)
    return table.where(is_kept), table.where(~is_kept)


def part(
    table: ClickTable,
    config: ClicksConfig,
    *,
    numbers: tuple[str, ...],
    categories: tuple[str, ...],
    clients: int,
    seed: int,
) -> Parted:
    """Draw the panel, let it say which values there are, and deal everybody else out to clients of about equal size.

    Args:
        numbers, categories: names of fields.
        clients: >= 1.
        seed: public; of who is on the panel and at which client.

    Raises:
        DataError: a field is missing, or there are not enough people for that many clients and a panel.
        ConfigError: no field, or one twice.
    """
    ids, person = np.unique(table.people, return_inverse=True)
    people = np.random.default_rng(seed).permutation(len(ids))
    public = round(config.panel_fraction * len(people))
    if public < 1 or len(people) - public < clients:
        raise DataError(f"{len(people)} people: too few for a panel and {clients} clients; bring more or ask for fewer")
    is_public = np.isin(person, people[:public])
    panel = table.where(is_public)
    spec = ClickSpec.from_public(
        {name: panel.fields[name].to_list() for name in panel.fields.columns},
        numbers=numbers,
        categories=categories,
        number_bins=config.number_bins,
        least_seen=config.least_seen,
    )
    dealt = [table.where(np.isin(person, one)).read(spec) for one in np.array_split(people[public:], clients)]
    return Parted(spec, panel.read(spec), tuple(dealt))


def click_plan(config: ClicksConfig, *, clients: int, people_per_client: int, private: bool) -> PrivacyPlan:
    """Return what each client promises its people.

    Args:
        people_per_client: public nominal size of a client.
        private: false for the same steps without noise, stamped NOT PRIVATE.

    Raises:
        PrivacyError: the settings admit no plan.
    """
    public: dict[str, Any] = {
        "sampling_rate": config.sampling_rate,
        "rounds": config.rounds,
        "local_steps": 1,
        "clip_norm": config.clip_norm,
        "clipping": "flat",
        "expected_people": people_per_client,
    }
    if not private:
        return PrivacyPlan.without_privacy(**public)
    sharers = clients if config.trust == DISTRIBUTED else 1
    return PrivacyPlan.calibrate(config.epsilon, config.delta, **public, trust=config.trust, noise_sharers=sharers)


def train_clicks(parted: Parted, config: ClicksConfig, *, private: bool, folder: Path, seed: int) -> Trained:
    """Federate a head over the clients, from where the panel says and calibrated by it.

    Args:
        parted: who is public, and who is where; the clients' people are sensitive.
        private: as ``click_plan``.
        folder: not there yet; keys, ledgers and replies of the simulated federation go there.
        seed: public; never of noise.

    Raises:
        DataError: the panel clicked nothing or everything, or the head has learned nothing that fits it.
        PrivacyError: the settings admit no plan.
        RunError: a client refused.
    """
    spec, panel, clients = parted
    rate = float(panel.clicked.mean()) if len(panel.clicked) else 0.0
    if not 0 < rate < 1:
        raise DataError("the panel: all or none of its impressions are clicked; expected some of each")
    nominal = round(sum(map(len, clients)) / len(clients))
    plan = click_plan(config, clients=len(clients), people_per_client=nominal, private=private)
    head = Head(HeadSpec("clicks"), spec.digest(), click_schema(spec), start_arrays(spec, click_rate=rate))
    course = Course("clicks", config.server_learning_rate, config.warmup_rounds, config.ema, seed)
    new_server(folder)
    learners = [ClickLearner(spec, people) for people in clients]
    done = federate_head(head, learners, plan=plan, course=course, folder=folder)
    return Trained(ClickHead(spec, done.learned).calibrated(panel.slots, panel.clicked), plan, done)
