"""An invitation over a tiny ranker, merchants who accept it, and the server's key; real files all."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from clients.joining import Joined, Wishes, join
from fedrec.agreement import Agreement, write_agreement
from fedrec.data.catalogue import Catalogue
from fedrec.data.histories import Histories
from fedrec.invitation import Invitation, write_invitation
from fedrec.keyfiles import make_authority, make_server
from fedrec.model.base import base_digest, save_base
from fedrec.privacy.plan import PrivacyPlan
from fedrec.signing import SigningKey
from tests.tiny_ranker import ITEMS, agreement, histories, learned, private_plan

HOST, ADDRESS = "127.0.0.1", "127.0.0.1:8443"
MIN_EVENTS, MAX_HISTORY = 3, 50
PEOPLE = 8


def catalogue(items: int = ITEMS) -> Catalogue:
    """Items whose order is not that of their ids."""
    ids = tuple(f"i{(7 * item) % items:02d}" for item in range(items))
    about = pl.DataFrame({"brand": ["ours"] * items, "price": np.arange(items, dtype=float)})
    return Catalogue(ids, tuple(f"thing {name}" for name in ids), about)


class Operator:
    """An operator's folder: an authority, the server's keys, a prepared run and its invitation."""

    def __init__(
        self, folder: Path, plan: PrivacyPlan | None = None, *, address: str = ADDRESS, **changes: Any
    ) -> None:
        now = datetime.now(UTC)
        self.authority, self.keys, self.run = folder / "authority", folder / "server-keys", folder / "spring"
        make_authority(self.authority, days=30, now=now)
        public = make_server(self.keys, self.authority, [HOST], days=20, now=now)
        save_base(learned(), self.run / "base")
        digest = base_digest(self.run / "base")
        self.agreement: Agreement = agreement(
            plan or private_plan(), run_id="ab" * 16, base_digest=digest, server_key=public, **changes
        )
        write_agreement(self.agreement, self.run)
        self.invitation = self.invite(self.run / "invitation", address)

    def invite(self, folder: Path, address: str) -> Invitation:
        """Write an invitation to this federation at an address."""
        return write_invitation(
            folder,
            self.run,
            name="spring",
            catalogue=catalogue(),
            authority=self.keys / "ca.crt",
            address=address,
            min_events=MIN_EVENTS,
            max_history=MAX_HISTORY,
        )

    @property
    def key(self) -> SigningKey:
        return SigningKey.load(self.keys / "server.key")


def people(lengths: tuple[int, ...] = (5, 6, 7, 4, 9, 5, 6, 8)) -> Histories:
    """The tiny ranker's people, as they come out of ``write_events``."""
    return histories(*lengths)


def write_events(path: Path, known: Histories | None = None, *, more: str = "") -> Path:
    """Write histories as a CSV file; person 3 is ``u003``. ``more`` are lines after them."""
    known = known or people()
    ids = catalogue().item_ids
    rows = [
        f"u{person:03d},{ids[item]},{time}"
        for person in range(len(known))
        for item, time in zip(known.of(person), known.times(person), strict=True)
    ]
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows, ""]) + more, encoding="utf-8")
    return path


def joined(
    operator: Operator,
    out: Path,
    *,
    events: Path | None = None,
    store: Path | None = None,
    ledger: Path | None = None,
    invitation: Invitation | None = None,
    **changes: Any,
) -> Joined:
    """A merchant joins, under wishes such as ``max_epsilon``."""
    invited = invitation or operator.invitation
    wishes = Wishes(**({"min_people": PEOPLE} | changes))
    return join(invited.folder, out, name=out.name, events=events, store=store, ledger=ledger, wishes=wishes)
