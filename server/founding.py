"""A new federation: the folder that ``fedrec run`` will work in, and the invitation in it."""

import secrets
from pathlib import Path
from typing import NamedTuple

from fedrec.agreeing import make_agreement, make_plan
from fedrec.agreement import Agreement, write_agreement
from fedrec.certificates import certified_hosts, certified_name, check_name
from fedrec.config import Config
from fedrec.data.catalogue import read_catalogue
from fedrec.data.histories import Histories
from fedrec.drafts import whole_folder
from fedrec.errors import ConfigError
from fedrec.invitation import INVITATION, Invitation, split_address, write_invitation
from fedrec.keyfiles import CA_CRT, SERVER_KEY, TLS_CRT, read_certificate
from fedrec.model.base import PANEL, base_digest
from fedrec.model.making import adopt_base
from fedrec.run_config import write_run_config
from fedrec.runfolder import FEDERATION_FOLDERS, RunFolder
from fedrec.signing import SigningKey
from fedrec.splitting import pay_for_counts
from server.job import job_of_run


class Founded(NamedTuple):
    """A new federation."""

    agreement: Agreement
    invitation: Invitation


def found(out: Path, config: Config, *, base: Path, catalogue: Path, keys: Path, address: str) -> Founded:
    """Make the folder of a federation: settings, base, agreement, invitation; no client's data, no private key.

    Args:
        out: does not exist; its name becomes the federation's.
        config: with ``partition.people_per_client``, the public nominal size of a client.
        base: that ``fedrec pretrain`` made for this catalogue.
        catalogue: CSV or Parquet; the base's items in its order.
        keys: what ``fedrec keys server`` made; the private ones stay there.
        address: HOST:PORT that merchants connect to.

    Raises:
        ConfigError, RunError, DataError: something is missing, malformed, or does not go with the rest.
        PrivacyError: the settings admit no plan.
    """
    check_name(out.name)
    key = SigningKey.load(keys / SERVER_KEY)
    _check_host(address, keys / TLS_CRT)
    items = read_catalogue(catalogue, columns=config.data.catalogue_columns)
    plan = make_plan(config, people_per_client=_nominal(config))
    with whole_folder(out) as draft, RunFolder.create(draft, folders=FEDERATION_FOLDERS) as folder:
        judge = Histories.load(base / PANEL) if (base / PANEL).exists() else Histories.from_lists([])
        adopt_base(base, folder.base, catalogue=items, judge=judge)
        plan = pay_for_counts(config, plan, folder=folder, clients=config.partition.clients)
        agreement = make_agreement(
            config,
            plan,
            run_id=secrets.token_hex(16),
            base_digest=base_digest(folder.base),
            items=len(items),
            server_key=key.public,
        )
        write_agreement(agreement, draft)
        write_run_config(config, folder.config)
        job_of_run(
            folder, config, key=keys / SERVER_KEY
        )  # refuses here what only shows once base, adapter and plan meet
        invitation = write_invitation(
            draft / INVITATION,
            draft,
            name=out.name,
            catalogue=items,
            authority=keys / CA_CRT,
            address=address,
            min_events=config.data.min_events,
            max_history=config.data.max_history,
        )
    return Founded(agreement, invitation)


def _nominal(config: Config) -> int:
    if config.partition.people_per_client is None:
        raise ConfigError("partition.people_per_client: expected the public nominal size of a client; nobody knows it")
    return config.partition.people_per_client


def _check_host(address: str, certificate: Path) -> None:
    """Refuse an address that no merchant could connect to, because the certificate is for others."""
    host, _ = split_address(address)
    named = certified_hosts(read_certificate(certificate))
    if certified_name(host) not in named:
        raise ConfigError(
            f"--address {address}: {certificate} is for {', '.join(named)}; "
            f"make another with fedrec keys server --host {host}"
        )
